"""How does a client without a good credential learn to get one? Refusals → `WWW-Authenticate` (pure).

In: `Refused`. Out: the same, with a challenge where its reason asks for one. Sources: RFC 6750 section 3, RFC 9728
section 5.1, MCP basic/authorization. SDK clients read the header with regular expressions and ignore it unless it
begins with Bearer: Bearer comes first and alone, every value is quoted, and no text holds a quote.
"""

from __future__ import annotations

from ..model import Reason, Refused
from ..protocol.discovery import metadata_url
from .settings import ApiKeySettings, IdentitySettings, IntrospectionSettings, JwtSettings


class Challenges:
    """Says what `identity` wants. Built from settings alone: a Host header decides nothing here."""

    def __init__(self, settings: IdentitySettings) -> None:
        oauth = [each for each in settings.chosen if isinstance(each, JwtSettings | IntrospectionSettings)]
        self._metadata = metadata_url(settings.resource) if oauth and settings.resource else None
        self._scopes = tuple(dict.fromkeys(scope for each in oauth for scope in each.required_scopes))
        headers = [each.header for each in settings.chosen if isinstance(each, ApiKeySettings)]
        self._plain = _without_oauth(headers)

    def __call__(self, refused: Refused) -> Refused:
        """The refusal with its challenge."""
        if refused.reason is Reason.NO_CREDENTIAL:
            self._add(refused, None, self._scopes)
        elif refused.reason is Reason.BAD_CREDENTIAL:
            self._add(refused, "invalid_token", self._scopes)
        elif refused.reason is Reason.SCOPE_MISSING:
            self._add(refused, "insufficient_scope", refused.scopes)
        return refused

    def _add(self, refused: Refused, error: str | None, scopes: tuple[str, ...]) -> None:
        if self._metadata is None:
            value = self._plain
        else:
            params = [("resource_metadata", self._metadata)]
            if scopes:
                params.append(("scope", " ".join(scopes)))
            if error is not None:
                params.append(("error", error))
                if refused.why:
                    params.append(("error_description", refused.why.replace('"', "'").replace("\\", "/")))
            value = "Bearer " + ", ".join(f'{name}="{text}"' for name, text in params)
        refused.headers = (*refused.headers, (b"WWW-Authenticate", value.encode("ascii", "replace")))


def _without_oauth(headers: list[str]) -> str:
    """A 401 must carry a challenge (RFC 9110, 15.5.2); there is none for keys in headers of one's own."""
    if not headers:
        return 'TLS-Client-Certificate realm="mcp-sidecar"'
    if headers[0].lower() == "authorization":
        return 'Bearer realm="mcp-sidecar"'
    return f'ApiKey realm="mcp-sidecar", header="{headers[0]}"'
