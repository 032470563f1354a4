"""How does a program sign in without a person? By following the authorization page's redirects itself.

In: the server's URL, and credentials where the suite gave some. Out: what the SDK wants for OAuth. Keeps tokens
and registrations for the life of the process.
"""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import httpx2
from mcp.client.auth import AuthorizationCodeResult, OAuthClientProvider, OAuthFlowError
from mcp.shared.auth import OAuthClientInformationFull, OAuthClientMetadata, OAuthToken
from pydantic import AnyUrl

CALLBACK = "http://localhost:3030/callback"
"""Nobody listens there: the redirect to it is read, not followed."""

MAX_REDIRECTS = 5
TIMEOUT_S = 10


class Wallet:
    """Fulfils the SDK's `TokenStorage`."""

    def __init__(self, registration: OAuthClientInformationFull | None) -> None:
        self._registration = registration
        self._tokens: OAuthToken | None = None

    async def get_tokens(self) -> OAuthToken | None:
        return self._tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self._tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self._registration

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self._registration = client_info


class Browser:
    """Somebody who agrees to everything: opens the authorization page and comes back with the code."""

    def __init__(self) -> None:
        self._came_back: AuthorizationCodeResult | None = None

    async def open(self, url: str) -> None:
        async with httpx2.AsyncClient(timeout=TIMEOUT_S) as web:
            for _ in range(MAX_REDIRECTS):
                response = await web.get(url)
                location = response.headers.get("location")
                if location is None:
                    raise OAuthFlowError(f"the authorization page answered {response.status_code}")
                url = str(response.url.join(location))
                if url.partition("?")[0] == CALLBACK:
                    self._came_back = _read_callback(url)
                    return
        raise OAuthFlowError(f"the authorization page redirected more than {MAX_REDIRECTS} times")

    async def callback(self) -> AuthorizationCodeResult:
        came_back, self._came_back = self._came_back, None
        if came_back is None:
            raise OAuthFlowError("nobody came back from the authorization page")
        return came_back


def _read_callback(url: str) -> AuthorizationCodeResult:
    query = parse_qs(urlsplit(url).query)
    one = {name: values[0] for name, values in query.items()}
    return AuthorizationCodeResult(code=one.get("code", ""), state=one.get("state"), iss=one.get("iss"))


def sign_in(
    server_url: str, *, registered: dict[str, str] | None = None, metadata_url: str | None = None
) -> OAuthClientProvider:
    """What signs every request in. `registered`: id, secret and issuer of a client known beforehand.
    `metadata_url`: where this client describes itself, for servers that take a URL as its id."""
    browser = Browser()
    registration = None
    if registered is not None:
        registration = OAuthClientInformationFull(
            client_id=registered["client_id"],
            client_secret=registered["client_secret"],
            redirect_uris=[AnyUrl(CALLBACK)],
            token_endpoint_auth_method="client_secret_basic",
            issuer=registered.get("issuer"),
        )
    return OAuthClientProvider(
        server_url=server_url,
        client_metadata=OAuthClientMetadata(
            client_name="conformance client",
            redirect_uris=[AnyUrl(CALLBACK)],
            grant_types=["authorization_code", "refresh_token"],
            response_types=["code"],
        ),
        storage=Wallet(registration),
        redirect_handler=browser.open,
        callback_handler=browser.callback,
        client_metadata_url=metadata_url,
    )
