"""How do callers prove who they are? The `identity` section: authenticators, told apart by `kind`.

Sources: RFC 9068 and RFC 8725 (JWT), RFC 7662 (introspection), RFC 9728 (protected resource), SPIFFE-ID.
"""

from typing import Annotated, Final, Literal, TypeAlias

from msgspec import Meta, Struct, field

from ..configuration.mistakes import Unfit
from ..configuration.values import check_http_url, fit, is_loopback, url_host_and_port
from ..protocol.headers import HOP_BY_HOP, TOKEN
from ..secret import Secret
from .spiffe import trust_domain_of

NOT_FOR_KEYS: Final = frozenset(
    ("cookie", "content-type", "content-length", "host", "accept", "origin", "expect")
)
"""Headers with a meaning of their own. A key may stand in any other, `Authorization: Bearer` included."""


def check_label(text: str) -> None:
    """Raise Unfit unless this can name a tenant, subject or role: a key of limits and a metric label."""
    if not text.strip():
        raise Unfit("is blank", "limits and records are kept by this name", "give it a name")
    if text != text.strip() or not text.isprintable():
        raise Unfit("is no name", "spaces at its ends and control characters make look-alikes", "remove them")


def check_tenant(text: str) -> None:
    """Raise Unfit unless this names one tenant."""
    check_label(text)
    if text == "*":
        raise Unfit("is no tenant", "* stands for everybody in rules and limits", "give it a name")


def check_scope(text: str) -> None:
    """Raise Unfit unless this is one OAuth scope (RFC 6749 section 3.3)."""
    if not text or any(not 0x21 <= ord(each) <= 0x7E or each in '"\\' for each in text):
        raise Unfit(
            "is no scope", "RFC 6749 allows printable ASCII without spaces, quotes, backslashes", "rename it"
        )


def check_provider_url(text: str) -> None:
    """Raise Unfit unless keys and verdicts from this URL cannot be forged on their way."""
    check_http_url(text)
    if text.startswith("http://") and not is_loopback(url_host_and_port(text)[0]):
        raise Unfit("is not https", "whoever answers in its place decides who is let in", "write https://")


def check_resource(text: str) -> None:
    """Raise Unfit unless this can be the URL clients use (RFC 8707 section 2: absolute, without fragment)."""
    check_http_url(text)
    if "?" in text:
        raise Unfit(
            "has a query", "clients compare it with the URL they were given", "remove ? and what follows"
        )


def check_key_header(name: str) -> None:
    """Raise Unfit unless a key may stand in this header."""
    lower = name.lower()
    if not TOKEN.fullmatch(name):
        raise Unfit("is no header name", "RFC 9110 allows letters, digits and !#$%&'*+-.^_`|~", "rename it")
    if "_" in name:
        raise Unfit(
            "has an underscore", "servers take X_Key for X-Key, so such headers are dropped", "write -"
        )
    if lower.encode() in HOP_BY_HOP or lower in NOT_FOR_KEYS or lower.startswith("mcp-"):
        raise Unfit(
            "cannot hold a key", "this header has a meaning of its own", "choose for example X-API-Key"
        )


def check_claim(name: str) -> None:
    """Raise Unfit unless this names a claim: `org_id`, or a path such as `/realm_access/roles`."""
    if not name.strip("/") or not name.isprintable():
        raise Unfit("names no claim", "it is looked up in every token", "write for example org_id")


def check_spiffe(pattern: str) -> None:
    """Raise Unfit unless this is a SPIFFE ID, or one whose last segment is `*`."""
    if trust_domain_of(pattern.removesuffix("/*")) is None:
        raise Unfit(
            "is no SPIFFE ID",
            "a lower-case domain and a path of plain segments are needed, and only the last may be *",
            "write spiffe://example.org/ns/team/*",
        )


Label = Annotated[str, Meta(max_length=256), fit(check_label)]
Tenant = Annotated[str, Meta(max_length=256), fit(check_tenant)]
Scope = Annotated[str, Meta(max_length=256), fit(check_scope)]
Claim = Annotated[str, Meta(max_length=256), fit(check_claim)]
NonBlank = Annotated[str, Meta(max_length=2048), fit(check_label)]
ProviderUrl = Annotated[str, fit(check_provider_url, pattern="^https?://")]
ResourceUrl = Annotated[str, fit(check_resource, pattern="^https?://")]

Algorithm: TypeAlias = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"
]
"""Signatures with a public key. Shared secrets (HS…) and `none` cannot be chosen."""


class AnonymousSettings(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="anonymous"
):
    """Everybody without a credential is the same principal."""

    tenant: Tenant
    """The tenant every caller belongs to."""

    subject: Label = "anonymous"
    """The name every caller goes by."""

    roles: tuple[Label, ...] = ()
    """The roles every caller has."""


class JwtSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="jwt"):
    """Signed tokens of one issuer, as `Authorization: Bearer`."""

    issuer: NonBlank
    """Compared exactly with the claim `iss`."""

    audience: NonBlank | None = None
    """Must be in the claim `aud`; absent: identity.resource. A slash at the end makes no difference."""

    jwks_url: ProviderUrl
    """Where the issuer publishes its keys. https, or http on loopback."""

    algorithms: Annotated[tuple[Algorithm, ...], Meta(min_length=1)] = ("RS256", "ES256")
    """The only signatures that count."""

    types: Annotated[tuple[Label, ...], Meta(min_length=1)] = ("at+jwt", "JWT")
    """What `typ` may say, in any case, `application/` before it or not. A token without `typ` passes."""

    tenant: Tenant | None = None
    """The tenant of everybody from this issuer. Absent: tenant_claim says it."""

    tenant_claim: Claim = "tenant"
    """The claim with the tenant; a name, or a path such as /org/id. A token without it is refused."""

    roles_claim: Claim = "roles"
    """The claim with the roles: a list of names, or one name."""

    required_scopes: tuple[Scope, ...] = ()
    """Every token must have all of these; one that lacks some is challenged with insufficient_scope."""

    leeway_s: Annotated[float, Meta(ge=0, le=300)] = 30.0
    """How far the issuer's clock may be off."""

    max_token_lifetime_s: Annotated[float, Meta(gt=0, le=31_536_000)] = 86_400.0
    """Longest time between issue and expiry that is believed."""

    jwks_refresh_s: Annotated[float, Meta(ge=1, le=86_400)] = 300.0
    """How often the keys are fetched again, in the background."""

    jwks_max_stale_s: Annotated[float, Meta(ge=1, le=2_592_000)] = 86_400.0
    """How long keys are used after they were last fetched. Then calls are refused with 503."""


class ApiKeySettings(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="api_key"
):
    """Keys of the form `id.secret`, listed in a file that holds no secret."""

    keys_file: NonBlank
    """Path of the file; read again when it changes. `mcp-sidecar hash-key` makes its entries."""

    header: Annotated[str, fit(check_key_header)] = "X-API-Key"
    """Where a key stands. `Authorization`: as a Bearer token."""


class IntrospectionSettings(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="introspection"
):
    """Opaque Bearer tokens that the authorization server is asked about (RFC 7662)."""

    url: ProviderUrl
    """The introspection endpoint. https, or http on loopback."""

    client_id: NonBlank
    """Our own name at the endpoint."""

    client_secret: Secret
    """Our own secret there, sent with HTTP Basic."""

    issuer: NonBlank | None = None
    """The authorization server's name. Absent: the origin of the URL. An `iss` in its answer must equal it."""

    audience: NonBlank | None = None
    """Must be in the answer's `aud`; absent: identity.resource. A slash at the end makes no difference."""

    audience_required: bool = True
    """false: an answer that names no audience is believed too. One that names another never is."""

    tenant: Tenant | None = None
    """The tenant of everybody from this server. Absent: tenant_claim says it."""

    tenant_claim: Claim = "tenant"
    """The member of the answer with the tenant; a name, or a path such as /org/id."""

    roles_claim: Claim = "roles"
    """The member of the answer with the roles: a list of names, or one name."""

    required_scopes: tuple[Scope, ...] = ()
    """Every token must have all of these; one that lacks some is challenged with insufficient_scope."""

    cache_ttl_s: Annotated[float, Meta(ge=0, le=300)] = 60.0
    """How long an answer is believed, at most until the token expires. A revoked token works as long."""

    timeout_s: Annotated[float, Meta(gt=0, le=30)] = 3.0
    """How long the endpoint may take. Then the call is refused with 503."""

    max_per_s: Annotated[float, Meta(gt=0, le=10_000)] = 50.0
    """Most questions a second; a call waits for its turn within timeout_s."""


class MtlsSettings(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="mtls"
):
    """Client certificates; needs listen.tls.client_ca_file."""

    tenant: Tenant
    """The tenant of every certificate that fits."""

    spiffe: Annotated[str, Meta(max_length=2048), fit(check_spiffe)] | None = None
    """The SPIFFE ID a certificate must name: exactly, or everything below a path that ends in /*."""

    subject: NonBlank | None = None
    """The subject a certificate must have, as RFC 4514 writes it: CN=billing,O=Example."""

    roles: tuple[Label, ...] = ()
    """The roles of every certificate that fits."""


AuthenticatorSettings: TypeAlias = (
    AnonymousSettings | JwtSettings | ApiKeySettings | IntrospectionSettings | MtlsSettings
)


class FailedAttemptsSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When is an address not listened to any more?"""

    most: Annotated[int, Meta(ge=1, le=1_000_000)] = 100
    """Invalid credentials from one address within the window. A valid one starts anew."""

    window_s: Annotated[float, Meta(gt=0, le=86_400)] = 60.0
    """How long an invalid credential counts."""


class IdentitySettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who may call at all."""

    resource: ResourceUrl | None = None
    """The URL clients use: what tokens are issued for, and what the protected-resource document names."""

    authenticators: Annotated[tuple[AuthenticatorSettings, ...], Meta(min_length=1)] | None = None
    """Tried in order. Absent: everybody is anonymous in tenant `local`, on a loopback data port only."""

    scopes_supported: tuple[Scope, ...] = ()
    """Scopes the protected-resource document names; what most clients will ask for."""

    failed_attempts: FailedAttemptsSettings = field(default_factory=FailedAttemptsSettings)
    """When an address presents too many invalid credentials."""

    stream_grace_s: Annotated[float, Meta(ge=0, le=86_400)] = 300.0
    """How long a stream may outlive the credential it was opened with."""

    @property
    def chosen(self) -> tuple[AuthenticatorSettings, ...]:
        """The authenticators in order; the single tenant `local` where none is listed."""
        return self.authenticators or (AnonymousSettings(tenant="local"),)

    @property
    def is_anonymous(self) -> bool:
        """Nobody proves anything: there are no identities to keep apart."""
        return all(isinstance(each, AnonymousSettings) for each in self.chosen)

    @property
    def uses_oauth(self) -> bool:
        """Whether clients can get a credential from an authorization server."""
        return any(isinstance(each, JwtSettings | IntrospectionSettings) for each in self.chosen)


def in_words(settings: AuthenticatorSettings) -> str:
    """One line for people: who is let in by this authenticator, without any secret."""
    match settings:
        case AnonymousSettings():
            return f"everybody is anonymous in tenant {settings.tenant}"
        case JwtSettings():
            return f"tokens of {settings.issuer}, signed with {', '.join(settings.algorithms)}"
        case ApiKeySettings():
            return f"keys of {settings.keys_file} in {settings.header}"
        case IntrospectionSettings():
            return f"tokens that {settings.url.partition('?')[0]} calls active"
        case MtlsSettings():
            names = settings.spiffe or settings.subject or "any subject"
            return f"client certificates of {names}, tenant {settings.tenant}"
