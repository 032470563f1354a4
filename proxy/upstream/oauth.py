"""What if the server itself asks for tokens? Then its challenges and documents name us, the address clients use.

In: replies of the server, and requests for the pages of OAuth discovery. Out: the same with the server's own
address replaced by ours, and pages that come from the server each time. Keeps, bounded, which other paths the
server has announced. Everything else is not served. Sources: MCP basic/authorization of every revision (2025-03-26:
the server is its own authorization server, with default endpoints), RFC 9728, RFC 8414, RFC 9207.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import OrderedDict
from typing import Final
from urllib.parse import quote, unquote_plus

from msgspec import structs

from ..configuration.mistakes import Unfit
from ..configuration.values import check_path
from ..model import Call, Headers, Page, PageRequest, Permit, Reason, Refused, Reply, Stage
from ..protocol.answers import Malformed, read_tree
from ..protocol.headers import end_to_end, media_type
from .challenge import with_param
from .credentials import Stops
from .forward import MAX_REDIRECTS
from .origin import Origin
from .passing import Passing, nonsense
from .public_view import PublicView, is_about_issuer
from .transport import Answer, Lost, Transport, Unreached

MAX_DOCUMENT_BYTES: Final = 262_144
MAX_ANSWER_BYTES: Final = 1_048_576
"""Of an authorization page or a token: pages with pictures inside are that long."""
DOCUMENT_TIMEOUT_S: Final = 10.0
ENDPOINT_TIMEOUT_S: Final = 30.0
"""As long as SDK clients wait for a token."""
MAX_LEARNT: Final = 32
_ENDPOINTS: Final = frozenset(
    {
        "authorization_endpoint",
        "device_authorization_endpoint",
        "jwks_uri",
        "pushed_authorization_request_endpoint",
        "registration_endpoint",
        "revocation_endpoint",
        "token_endpoint",
        "userinfo_endpoint",
    }
)
"""What clients use of a metadata document (RFC 8414, 7591, 7009, 8628, 9126); other members open nothing."""
DEFAULT_ENDPOINTS: Final = frozenset({"/authorize", "/token", "/register"})
"""Where a server without metadata has them (2025-03-26 basic/authorization, 2.3.3)."""

_KEPT: Final = frozenset({b"content-type", b"cache-control", b"expires"})
"""Of a document; the others speak of the bytes the server sent, not of ours."""
_CHALLENGES: Final = frozenset({401, 403})
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_ISS: Final = re.compile(rb"([?&#]iss=)([^&#]*)")


class _Paths(OrderedDict[str, str]):
    """Our path → the server's; of what it announced last."""

    def learn(self, here: str, there: str) -> None:
        self[here] = there
        self.move_to_end(here)
        if len(self) > MAX_LEARNT:
            self.popitem(last=False)


class ServersOAuth:
    """The server's OAuth, as clients see it through us."""

    def __init__(
        self,
        view: PublicView,
        transport: Transport,
        *,
        origin: Origin,
        stops: Stops,
        passing: Passing | None = None,
        document_timeout_s: float = DOCUMENT_TIMEOUT_S,
        endpoint_timeout_s: float = ENDPOINT_TIMEOUT_S,
    ) -> None:
        self._document_timeout_s = document_timeout_s
        self._endpoint_timeout_s = endpoint_timeout_s
        self._view = view
        self._transport = transport
        self._origin = origin
        self._endpoint_of_mcp = _folded(origin.target.partition("?")[0])
        self._stops = stops
        self._passing = passing or Passing()
        self._resources = _Paths()
        """Documents that challenges have named."""
        self._endpoints = _Paths()
        """Endpoints that the metadata of the server's own authorization server has named."""
        asked = frozenset({"GET", "OPTIONS"})
        self._resource_page = Page(methods=asked, answer=self._resource)
        self._issuer_page = Page(methods=asked, answer=self._issuer)
        self._endpoint_page = Page(methods=asked | {"POST"}, answer=self._endpoint)

    def page(self, path: str) -> Page | None:
        """Fulfils `FindPage`."""
        if path in self._view.resource_paths or path in self._resources:
            return self._resource_page
        if is_about_issuer(path) and _has_one_spelling(path):
            return self._issuer_page
        return self._endpoint_page if path in DEFAULT_ENDPOINTS or path in self._endpoints else None

    def reply(self, call: Call, reply: Reply) -> Reply:
        """A reply whose challenge sends clients to us."""
        if reply.status in _CHALLENGES and "www-authenticate" in reply.headers:
            seen = self._challenged(reply.headers)
            if seen != reply.headers:
                call.journey.altered("challenge")
                reply.headers = seen
        return reply

    def _challenged(self, headers: Headers) -> Headers:
        return Headers(
            (name, with_param(value, "resource_metadata", self._announced))
            if name.lower() == b"www-authenticate"
            else (name, value)
            for name, value in headers.pairs
        )

    def _announced(self, url: str) -> str:
        """Where clients find the document at `url`; from now on we serve it there."""
        there = self._view.own_path(url)
        if there is None or not _has_one_spelling(there):
            return url
        self._resources.learn(self._view.path_here(there), there)
        return self._view.metadata_url(url)

    async def _resource(self, request: PageRequest) -> Reply:
        return await self._document(request, "resource")

    async def _issuer(self, request: PageRequest) -> Reply:
        return await self._document(request, "issuer")

    async def _document(self, request: PageRequest, required: str) -> Reply:
        """A document of the server as it is at this moment. Only one of the right kind is shown: what else may
        lie at such a path is nobody's business."""
        answer, body = await self._fetched(self._target(request))
        if answer.status >= 300:
            self._passing.check(answer)
            return Reply(answer.status, self._challenged(self._passing(answer)), body)
        kind, _ = media_type(answer.headers.get("content-type"))
        if answer.status != 200 or not (kind == "application/json" or kind.endswith("+json")):
            raise Refused(Reason.PATH_UNKNOWN)  # web applications answer every path with their start page
        self._passing.check(answer)
        try:
            document = read_tree(body)
        except Malformed:
            raise nonsense("Its document was not JSON.") from None
        if not isinstance(document, dict) or not isinstance(document.get(required), str):
            raise Refused(Reason.PATH_UNKNOWN)
        if required == "issuer":
            self._learn_endpoints(document)
        seen = self._view.document(document)
        fields = Headers(pair for pair in self._passing(answer).pairs if pair[0].lower() in _KEPT)
        return Reply(200, fields, body if seen == document else json.dumps(seen).encode("ascii"))

    def _target(self, request: PageRequest) -> str:
        path = self._resources.get(request.path) or self._view.path_there(request.path)
        return f"{path}?{request.query}" if request.query else path

    async def _fetched(self, target: str) -> tuple[Answer, bytes]:
        """What a GET brings, redirects within the server's origin followed."""
        for _ in range(MAX_REDIRECTS):
            fields = [
                (b"Host", self._origin.host),
                (b"Accept", b"application/json"),
                *self._origin.own.fields,
            ]
            answer, body = await self._asked(
                "GET", target, fields, None, limit=MAX_DOCUMENT_BYTES, seconds=self._document_timeout_s
            )
            if answer.status not in _REDIRECTS:
                return answer, body
            target = self._redirected(target, answer.headers.get("location"))
        raise nonsense(f"It redirected more than {MAX_REDIRECTS} times.")

    def _redirected(self, target: str, location: str | None) -> str:
        try:
            within = self._origin.resolve(target, location or "")
        except ValueError:
            within = None
        if not location or within is None:
            raise nonsense("It redirected a document to another origin.")
        return within

    def _learn_endpoints(self, document: dict[str, object]) -> None:
        for name, value in document.items():
            if isinstance(value, str) and name in _ENDPOINTS:
                path = self._view.own_path(value)
                if path is None or path == "/" or not _has_one_spelling(path):
                    continue
                # Nobody is asked for a credential at a page: there must be none before the server's own door,
                # whatever a document says that somebody may have put beside it.
                if _folded(path) != self._endpoint_of_mcp:
                    self._endpoints.learn(path, path)

    async def _endpoint(self, request: PageRequest) -> Reply:
        """An endpoint of the server's own authorization server, as it is: the browser is redirected, not we."""
        target = f"{request.path}?{request.query}" if request.query else request.path
        fields = [(b"Host", self._origin.host), *end_to_end(request.headers, self._stops)]
        if "accept-encoding" in request.headers:
            fields.append((b"Accept-Encoding", b"identity"))
        # Nothing of our own: nobody was asked who sends this.
        body = request.body if request.method == "POST" else None
        answer, said = await self._asked(
            request.method, target, fields, body, limit=MAX_ANSWER_BYTES, seconds=self._endpoint_timeout_s
        )
        is_redirect = 300 <= answer.status <= 399
        self._passing.check(structs.replace(answer, status=200) if is_redirect else answer)
        headers = self._passing(answer)
        return Reply(answer.status, self._returning(headers) if is_redirect else headers, said)

    def _returning(self, headers: Headers) -> Headers:
        """A redirect whose `iss` is the issuer that our metadata names: clients compare (RFC 9207).

        Nothing else of it is touched. It leads to the client, and a client on our machine has our address too.
        """

        def seen(match: re.Match[bytes]) -> bytes:
            issuer = unquote_plus(match[2].decode("latin-1"))
            public = self._view.url(issuer)
            return match[0] if public == issuer else match[1] + quote(public, safe="").encode("ascii")

        return Headers(
            (name, _ISS.sub(seen, value) if name.lower() == b"location" else value)
            for name, value in headers.pairs
        )

    async def _asked(
        self,
        method: str,
        target: str,
        fields: list[tuple[bytes, bytes]],
        body: bytes | None,
        *,
        limit: int,
        seconds: float,
    ) -> tuple[Answer, bytes]:
        """A whole answer. Raises Refused."""
        try:
            async with asyncio.timeout(seconds):
                answer = await self._transport.send(method, target, fields, body)
                try:
                    return answer, await _whole(answer, limit)
                finally:
                    answer.close()
        except TimeoutError:
            raise Refused(Reason.DEADLINE) from None
        except Unreached as error:
            raise Refused(Reason.UPSTREAM_UNREACHABLE) from error
        except Lost as error:
            raise Refused(Reason.UPSTREAM_BROKE) from error


class Challenged:
    """Fulfils `Stage`: the next one's replies, with challenges that send clients to us."""

    def __init__(self, serve: Stage, oauth: ServersOAuth) -> None:
        self._serve = serve
        self._oauth = oauth

    async def __call__(self, permit: Permit) -> Reply:
        return self._oauth.reply(permit.call, await self._serve(permit))


async def _whole(answer: Answer, limit: int) -> bytes:
    held = bytearray()
    async for chunk in answer.chunks:
        held += chunk
        if len(held) > limit:
            raise nonsense(f"It was longer than {limit} bytes.")
    return bytes(held)


def _folded(path: str) -> str:
    """As lenient routers read a path: in any case, with a slash at its end or without."""
    return path.lower().rstrip("/")


def _has_one_spelling(path: str) -> bool:
    """Whether the server cannot take it for another path: no escapes, no dot segments, no double slashes."""
    try:
        check_path(path)
    except Unfit:
        return False
    return True
