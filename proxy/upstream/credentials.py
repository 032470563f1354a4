"""Which fields of a request end at us, and which do we add?

In: settings. Out: a predicate over field names, and our own fields. Keeps the values of our own, read again when
their files change. Sources: MCP basic/authorization ("MUST NOT accept or transit any other tokens"), RFC 9110.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from ..secret import Secret
from .fields import Fields

_NEVER_UP: Final = frozenset(
    {
        b"accept-encoding",  # an answer must be readable to be judged
        b"authorization",  # tokens were issued for us and must not be passed on (basic/authorization)
        b"content-length",  # the transport counts
        b"cookie",
        b"expect",  # answered by us
        b"forwarded",
        b"host",
        b"origin",  # checked by us; the server would compare it with its own
        b"x-http-method",  # frameworks would take a judged POST for a DELETE
        b"x-http-method-override",
        b"x-method-override",
        b"x-original-url",
        b"x-real-ip",
        b"x-rewrite-url",
    }
)
_LOOKS_LIKE_IDENTITY: Final = frozenset(
    {
        b"proxy-authorization",
        b"remote-user",
        b"x-access-token",
        b"x-client-cert",
        b"x-client-id",
        b"x-client-verify",
        b"x-email",
        b"x-group",
        b"x-groups",
        b"x-id-token",
        b"x-ip",
        b"x-client-ip",
        b"x-cluster-client-ip",
        b"x-jwt",
        b"x-mcp-authorized",  # not every x-mcp-: some servers are told by X-MCP-Readonly to do less
        b"x-mcp-principal",
        b"x-mcp-roles",
        b"x-mcp-scopes",
        b"x-mcp-subject",
        b"x-mcp-tenant",
        b"x-mcp-user",
        b"x-org",
        b"x-org-id",
        b"x-organization-id",
        b"x-principal",
        b"x-remote-user",
        b"x-role",
        b"x-roles",
        b"x-scopes",
        b"x-subject",
        b"x-tenant",
        b"x-tenant-id",
        b"x-user",
        b"x-username",
        b"true-client-ip",
        b"cf-connecting-ip",
        b"client-cert",
        b"client-cert-chain",
    }
)
"""Names that gateways and identity-aware proxies give to what they have verified. Whoever sends one to us has
verified nothing."""
_LOOKS_LIKE_IDENTITY_BEFORE: Final = (
    b"cf-access-",
    b"remote-user-",
    b"ssl-client-",
    b"tailscale-user-",
    b"x-amzn-oidc-",
    b"x-apigw-",
    b"x-auth-",
    b"x-authenticated-",
    b"x-client-cert-",
    b"x-consumer-",
    b"x-credential-",
    b"x-goog-authenticated-user-",
    b"x-goog-iap-",
    b"x-identity-",
    b"x-internal-",
    b"x-jwt-",
    b"x-ms-client-principal",
    b"x-ms-token-",
    b"x-oauth-",
    b"x-oidc-",
    b"x-principal-",
    b"x-remote-user-",
    b"x-spiffe-",
    b"x-ssl-client-",
    b"x-tenant-",
    b"x-user-",
    b"x-verified-",
    b"x-webauth-",
)


class Stops:
    """Which fields of a client's request end at us. A predicate over lower-case names."""

    __slots__ = ("_names", "_prefixes")

    def __init__(
        self,
        *,
        replaced: Iterable[bytes],
        keys: Iterable[str] = (),
        forward_authorization: bool = False,
        is_authenticated: bool = False,
    ) -> None:
        """`replaced` are the names of our own fields, `keys` the headers callers prove themselves with.

        What looks like a verified identity ends here where we verify identities; where nobody proves anything it
        may come from a gateway before us, and passes.
        """
        kept = {b"authorization"} if forward_authorization else set[bytes]()
        looks = _LOOKS_LIKE_IDENTITY if is_authenticated else frozenset[bytes]()
        own = {name.lower() for name in replaced} | {
            key.lower().encode("ascii") for key in keys if key.lower() != "authorization"
        }
        self._names = ((_NEVER_UP | looks) - kept) | own
        self._prefixes = (b"x-forwarded-", *(_LOOKS_LIKE_IDENTITY_BEFORE if is_authenticated else ()))

    def __call__(self, name: bytes) -> bool:
        # CGI-style servers read X_Tenant as X-Tenant; nobody sends such names in good faith.
        return name in self._names or name.startswith(self._prefixes) or b"_" in name


class OwnFields:
    """What we add to every request: our own credential, for example."""

    __slots__ = ("_headers", "fields")

    def __init__(self, headers: Mapping[str, Secret]) -> None:
        self._headers = dict(headers)
        self.fields = Fields(_encoded(self._headers))

    @property
    def files(self) -> frozenset[str]:
        """The files their values come from."""
        return frozenset(file for secret in self._headers.values() for file in secret.files)

    def renew(self) -> None:
        """Read the values again. Raises Unfit, and keeps all of the old ones, when one does not fit any more."""
        self._headers = {name: secret.renewed() for name, secret in self._headers.items()}
        self.fields = Fields(_encoded(self._headers))


def _encoded(headers: Mapping[str, Secret]) -> tuple[tuple[bytes, bytes], ...]:
    return tuple((name.encode("ascii"), secret.reveal().encode("utf-8")) for name, secret in headers.items())
