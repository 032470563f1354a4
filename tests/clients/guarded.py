"""The everything server in this process: open to all, or guarded by the SDK's own check of tokens.

In: which of its two transports. Out: its URL, and notes of every request that got through to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Literal

import jwt
import uvicorn
from mcp.server.auth.middleware.auth_context import AuthContextMiddleware
from mcp.server.auth.middleware.bearer_auth import BearerAuthBackend, RequireAuthMiddleware
from mcp.server.auth.provider import AccessToken
from mcp.server.auth.routes import build_resource_metadata_url, create_protected_resource_routes
from pydantic import AnyHttpUrl, TypeAdapter
from pydantic.config import ConfigDict
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.routing import Mount
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tests.authorization_server import AuthorizationServer
from tests.servers.everything.server import sse_app, streamable_app

Served = Literal["/mcp", "/sse"]
"""Where the streamable revisions and 2026-07-28 are, and where 2024-11-05 is."""

_URL: TypeAdapter[AnyHttpUrl] = TypeAdapter(AnyHttpUrl, config=ConfigDict(url_preserve_empty_path=True))
"""As the SDK reads issuers: without a slash that was not there."""


@dataclasses.dataclass
class Seen:
    """One request that reached the server."""

    method: str
    target: str
    fields: list[tuple[str, str]]
    body: bytes = b""

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.fields if key == name]


class Notes:
    """An ASGI application around another; keeps what comes."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.seen: list[Seen] = []
        self._news = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        fields = [(name.decode().lower(), value.decode("latin-1")) for name, value in scope["headers"]]
        query = scope["query_string"].decode()
        seen = Seen(scope["method"], scope["path"] + (f"?{query}" if query else ""), fields)
        self.seen.append(seen)
        self._news.set()

        async def noted() -> Message:
            message = await receive()
            seen.body += message.get("body", b"")
            return message

        await self._app(scope, noted, send)

    @property
    def said(self) -> list[str]:
        """The methods of all JSON-RPC messages, in order."""
        bodies = [json.loads(seen.body) for seen in self.seen if seen.method == "POST"]
        return [body["method"] for body in bodies if "method" in body]

    async def when(self, is_so: Callable[[Notes], bool]) -> None:
        """Wait until what came is so."""
        async with asyncio.timeout(5):
            while not is_so(self):
                self._news.clear()
                await self._news.wait()

    @property
    def streams(self) -> int:
        """How many streams of server messages were asked for."""
        return sum(seen.method == "GET" for seen in self.seen)

    @property
    def posted(self) -> int:
        """How many requests there were, but for streams, which clients open when they like."""
        return sum(seen.method != "GET" for seen in self.seen)

    @property
    def sessions(self) -> set[str]:
        return {value for seen in self.seen for value in seen.all("mcp-session-id")}

    def text(self) -> str:
        """Everything that came, as one text to search in."""
        heads = (f"{seen.method} {seen.target} {seen.fields}" for seen in self.seen)
        return "\n".join([*heads, *(seen.body.decode("latin-1") for seen in self.seen)])


class Verifier:
    """Fulfils the SDK's `TokenVerifier`: signature, issuer, audience, expiry, and whether it was revoked."""

    def __init__(self, issuer: AuthorizationServer, resource: str) -> None:
        self._issuer, self._resource = issuer, resource
        self._keys = jwt.PyJWKSet.from_dict(issuer.jwks)

    async def verify_token(self, token: str) -> AccessToken | None:
        try:
            kid = jwt.get_unverified_header(token)["kid"]
            claims: dict[str, Any] = jwt.decode(
                token,
                self._keys[kid],
                algorithms=["RS256", "ES256"],
                issuer=self._issuer.issuer,
                audience=self._resource,
            )
        except (jwt.PyJWTError, KeyError):
            return None
        if not self._issuer.is_active(token):
            return None
        return AccessToken(
            token=token,
            client_id=claims["client_id"],
            scopes=claims["scope"].split(),
            expires_at=claims["exp"],
            resource=self._resource,
            subject=claims["sub"],
            claims=claims,
        )


def guard(app: Starlette | Notes, url: str, issuer: AuthorizationServer, scopes: Sequence[str]) -> ASGIApp:
    """What the SDK builds for `auth=` and `token_verifier=`, around any application of ours."""
    resource, needed = _URL.validate_python(url), list(scopes)
    backend = BearerAuthBackend(Verifier(issuer, url), resource_server_url=resource)
    documents = create_protected_resource_routes(resource, [_URL.validate_python(issuer.issuer)], needed)
    return Starlette(
        routes=[
            *documents,
            Mount("/", RequireAuthMiddleware(app, needed, build_resource_metadata_url(resource))),
        ],
        middleware=[Middleware(AuthenticationMiddleware, backend=backend), Middleware(AuthContextMiddleware)],
    )


class _Quiet(uvicorn.Server):
    """A server inside a test: signals are the test runner's."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_up = asyncio.Event()
        self.is_over = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.is_up.set()

    async def main_loop(self) -> None:
        await self.is_over.wait()


@asynccontextmanager
async def everything(
    served: Served, issuer: AuthorizationServer | None = None, scopes: Sequence[str] = ()
) -> AsyncIterator[tuple[str, Notes]]:
    """Serve until the end of the block: URL and notes. With an issuer, to holders of its tokens only."""
    app = streamable_app("127.0.0.1") if served == "/mcp" else sse_app()
    notes = Notes(app)
    # The protocol is named, because asyncio turns off Nagle's algorithm only where it is: 40 ms an answer else.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}{served}"
        outermost = guard(notes, url, issuer, scopes) if issuer else notes
        config = uvicorn.Config(
            outermost, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=1
        )
        server = _Quiet(config)
        # The lifespan is the application's, however much stands before it.
        async with app.router.lifespan_context(app), asyncio.TaskGroup() as tasks:
            serving = tasks.create_task(server.serve([listener]))
            async with asyncio.timeout(5):
                await server.is_up.wait()
            try:
                yield url, notes
            finally:
                server.is_over.set()
                with contextlib.suppress(asyncio.CancelledError):
                    await serving
