"""Clients find the server's OAuth at our address, and nothing else of the server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence

import msgspec
import pytest

from proxy.model import Headers, PageRequest, Reason, Refused, Reply
from proxy.secret import Secret
from proxy.upstream.credentials import Stops
from proxy.upstream.oauth import (
    MAX_ANSWER_BYTES,
    MAX_DOCUMENT_BYTES,
    MAX_LEARNT,
    ServersOAuth,
)
from proxy.upstream.origin import Origin
from proxy.upstream.passing import Passing
from proxy.upstream.public_view import PublicView
from proxy.upstream.settings import UpstreamSettings
from proxy.upstream.transport import Answer, Lost, Unreached
from tests.fakes import FakeJourney, make_call

SERVER = "http://127.0.0.1:8000"
PUBLIC = "https://tools.example.com"
WELL_KNOWN = "/.well-known/oauth-protected-resource"
ISSUER = "/.well-known/oauth-authorization-server"
OWN = (b"X-Own", b"ours")
JSON = (b"Content-Type", b"application/json; charset=utf-8")

Field = tuple[bytes, bytes]


class FakeTransport:
    """Fulfils `Transport`: gives the answers it was given, in order, and remembers what was asked."""

    def __init__(self, *answers: Answer | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, str, list[Field], bytes | None]] = []
        self.closed = 0

    async def send(self, method: str, target: str, headers: Sequence[Field], body: bytes | None) -> Answer:
        self.asked.append((method, target, list(headers), body))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer

        def close() -> None:
            self.closed += 1

        return msgspec.structs.replace(answer, close=close)

    async def close(self) -> None: ...


async def chunks(*pieces: bytes | Exception) -> AsyncIterator[bytes]:
    for piece in pieces:
        if isinstance(piece, Exception):
            raise piece
        yield piece


def answer(body: bytes | AsyncIterator[bytes], *fields: Field, status: int = 200) -> Answer:
    pieces = chunks(body) if isinstance(body, bytes) else body
    return Answer(status=status, headers=Headers(fields), chunks=pieces, close=lambda: None)


def document(**members: object) -> Answer:
    return answer(json.dumps(members).encode(), JSON)


def make(
    *answers: Answer | Exception, timeout_s: float = 5.0, hide: Sequence[str] = ()
) -> tuple[ServersOAuth, FakeTransport]:
    settings = UpstreamSettings(
        url=f"{SERVER}/v1/mcp", headers={"X-Own": Secret("ours")}, forward_client_authorization=True
    )
    transport = FakeTransport(*answers)
    oauth = ServersOAuth(
        PublicView(settings.url, f"{PUBLIC}/mcp"),
        transport,
        origin=Origin(settings),
        stops=Stops(replaced=(), forward_authorization=True),
        passing=Passing(hide),
        document_timeout_s=timeout_s,
        endpoint_timeout_s=timeout_s,
    )
    return oauth, transport


async def ask(
    oauth: ServersOAuth, path: str, method: str = "GET", query: str = "", body: bytes = b"", *fields: Field
) -> Reply:
    page = oauth.page(path)
    assert page is not None
    assert method in page.methods
    return await page.answer(
        PageRequest(method=method, path=path, query=query, headers=Headers(fields), body=body)
    )


async def refusal(oauth: ServersOAuth, path: str, method: str = "GET") -> Refused:
    with pytest.raises(Refused) as caught:
        await ask(oauth, path, method)
    return caught.value


def challenge(oauth: ServersOAuth, *values: str, status: int = 401) -> list[bytes]:
    """What clients see of a challenge."""
    headers = Headers((b"WWW-Authenticate", value.encode()) for value in values)
    reply = oauth.reply(make_call(), Reply(status, headers))
    return [value for _, value in reply.headers.pairs]


# Challenges.


@pytest.mark.parametrize("status", [401, 403])
def test_a_challenge_sends_clients_to_us(status: int) -> None:
    """MCP basic/authorization: `resource_metadata` is where discovery begins."""
    oauth, _ = make()
    said = f'Bearer error="invalid_token",  resource_metadata="{SERVER}{WELL_KNOWN}/v1/mcp", scope="a b"'
    seen = f'Bearer error="invalid_token",  resource_metadata="{PUBLIC}{WELL_KNOWN}/mcp", scope="a b"'
    assert challenge(oauth, "Basic", said, status=status) == [b"Basic", seen.encode()]


@pytest.mark.parametrize(
    "value",
    [
        'Bearer resource_metadata="https://login.example.com/document"',
        f'Bearer resource_metadata="{PUBLIC}/document"',
        f"Bearer resource_metadata={SERVER}/document",
        f'Bearer realm="x" resource_metadata="{SERVER}/document"',
        f'Bearer error_description="resource_metadata={SERVER}/document"',
        f'Bearer resource_metadata="not a URL {SERVER}"',
    ],
)
def test_any_other_challenge_stays_as_it_is(value: str) -> None:
    oauth, _ = make()
    journey = FakeJourney()
    reply = Reply(401, Headers([(b"WWW-Authenticate", value.encode())]))
    before = reply.headers
    assert oauth.reply(make_call(journey=journey), reply).headers is before
    assert journey.diary == []


def test_other_statuses_carry_no_challenge() -> None:
    oauth, _ = make()
    value = f'Bearer resource_metadata="{SERVER}/document"'
    assert challenge(oauth, value, status=200) == [value.encode()]


def test_a_changed_challenge_is_on_record() -> None:
    oauth, _ = make()
    journey = FakeJourney()
    value = f'Bearer resource_metadata="{SERVER}/document"'.encode()
    oauth.reply(make_call(journey=journey), Reply(401, Headers([(b"WWW-Authenticate", value)])))
    assert journey.diary == [("j1", "altered", "challenge")]


@pytest.mark.parametrize("origin", [SERVER, PUBLIC])
async def test_a_document_of_the_servers_choice_is_served_once_it_was_announced(origin: str) -> None:
    """A server that knows its public address announces that one."""
    oauth, transport = make(document(resource=f"{SERVER}/v1/mcp"))
    assert oauth.page("/custom/document.json") is None
    challenge(oauth, f'Bearer resource_metadata="{origin}/custom/document.json"')
    reply = await ask(oauth, "/custom/document.json", query="a=b")
    assert json.loads(_body(reply)) == {"resource": f"{PUBLIC}/mcp"}
    assert transport.asked[0][1] == "/custom/document.json?a=b"


@pytest.mark.parametrize("path", ["/a/../secret", "/a%2e%2e/b", "//a", "/a/./b"])
def test_what_the_server_could_read_in_two_ways_is_not_served(path: str) -> None:
    oauth, _ = make()
    value = f'Bearer resource_metadata="{SERVER}{path}"'
    assert challenge(oauth, value) == [value.encode()]
    assert oauth.page(path) is None
    assert oauth.page(f"{ISSUER}{path}") is None


def test_announced_paths_are_bounded() -> None:
    """A server may announce another one with every answer. The one it repeats stays."""
    oauth, _ = make()
    for number in (*range(MAX_LEARNT), 0, MAX_LEARNT):
        challenge(oauth, f'Bearer resource_metadata="{SERVER}/{number}"')
    gone = [number for number in range(MAX_LEARNT + 1) if oauth.page(f"/{number}") is None]
    assert gone == [1]


# Documents.


def _body(reply: Reply) -> bytes:
    assert isinstance(reply.body, bytes)
    return reply.body


@pytest.mark.parametrize(
    ("path", "target"), [(WELL_KNOWN, WELL_KNOWN), (f"{WELL_KNOWN}/mcp", f"{WELL_KNOWN}/v1/mcp")]
)
async def test_the_resource_is_the_url_clients_use(path: str, target: str) -> None:
    """RFC 9728, 3.3: clients refuse a document about another URL than theirs."""
    oauth, transport = make(
        answer(
            json.dumps({"resource": f"{SERVER}/v1/mcp", "authorization_servers": [SERVER]}).encode(),
            JSON,
            (b"Cache-Control", b"max-age=5"),
            (b"ETag", b'"of the other bytes"'),
            (b"Content-Length", b"86"),
            (b"Set-Cookie", b"a=b"),
        )
    )
    reply = await ask(oauth, path, "GET", "", b"", (b"Authorization", b"Bearer mine"), (b"Cookie", b"c=d"))
    assert reply.status == 200
    assert json.loads(_body(reply)) == {"resource": f"{PUBLIC}/mcp", "authorization_servers": [PUBLIC]}
    assert reply.headers.pairs == (JSON, (b"Cache-Control", b"max-age=5"))
    fields = [(b"Host", b"127.0.0.1:8000"), (b"Accept", b"application/json"), OWN]
    assert (transport.asked, transport.closed) == ([("GET", target, fields, None)], 1)


async def test_a_document_that_names_us_already_keeps_its_bytes() -> None:
    raw = b'{ "resource" : "https://tools.example.com/mcp", "x": 1.0 }'
    oauth, _ = make(answer(raw, JSON))
    assert _body(await ask(oauth, WELL_KNOWN)) == raw


async def test_a_document_about_another_resource_stays_one() -> None:
    """Our clients must be able to refuse what the server's own would refuse."""
    oauth, _ = make(document(resource="https://evil.example.com/mcp"))
    assert json.loads(_body(await ask(oauth, WELL_KNOWN))) == {"resource": "https://evil.example.com/mcp"}


@pytest.mark.parametrize(
    "given",
    [
        answer(b"<html>", (b"Content-Type", b"text/html")),
        answer(b"{}", (b"Content-Type", b"text/html")),
        answer(b'{"resource": "http://127.0.0.1:8000"}'),
        answer(b"", JSON, status=204),
        answer(b"[]", JSON),
        answer(b'{"secret": 1}', JSON),
        answer(b'{"resource": 1}', JSON),
    ],
    ids=range(7),
)
async def test_what_is_no_such_document_is_not_there(given: Answer) -> None:
    """Clients take anything but a clean 404 for the beginning of a flow, or for its end."""
    oauth, _ = make(given)
    assert (await refusal(oauth, WELL_KNOWN)).reason is Reason.PATH_UNKNOWN


@pytest.mark.parametrize("status", [401, 404, 429, 500, 503])
async def test_any_other_status_is_the_servers(status: int) -> None:
    value = f'Bearer resource_metadata="{SERVER}{WELL_KNOWN}"'.encode()
    oauth, _ = make(answer(b"no", (b"Retry-After", b"3"), (b"WWW-Authenticate", value), status=status))
    reply = await ask(oauth, WELL_KNOWN)
    seen = f'Bearer resource_metadata="{PUBLIC}{WELL_KNOWN}"'.encode()
    assert (reply.status, reply.body) == (status, b"no")
    assert reply.headers.pairs == ((b"Retry-After", b"3"), (b"WWW-Authenticate", seen))


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (answer(b'{"resource": "a", "resource": "b"}', JSON), Reason.UPSTREAM_NONSENSE),
        (answer(b"{", JSON), Reason.UPSTREAM_NONSENSE),
        (answer(b"{}", JSON, (b"Content-Encoding", b"gzip")), Reason.UPSTREAM_NONSENSE),
        (answer(b'{"resource": "x"}' + b" " * MAX_DOCUMENT_BYTES, JSON), Reason.UPSTREAM_NONSENSE),
        (answer(chunks(b"{", Lost())), Reason.UPSTREAM_BROKE),
        (Lost(), Reason.UPSTREAM_BROKE),
        (Unreached(), Reason.UPSTREAM_UNREACHABLE),
        (answer(b"", (b"Location", b"http://127.0.0.1:8001/"), status=307), Reason.UPSTREAM_NONSENSE),
        (answer(b"", (b"Location", b"http://[/"), status=302), Reason.UPSTREAM_NONSENSE),
        (answer(b"", status=302), Reason.UPSTREAM_NONSENSE),
        (answer(b"", status=304), Reason.UPSTREAM_NONSENSE),
    ],
    ids=range(11),
)
async def test_nonsense_is_no_document(given: Answer | Exception, reason: Reason) -> None:
    oauth, transport = make(given)
    assert (await refusal(oauth, WELL_KNOWN)).reason is reason
    assert transport.closed == (0 if isinstance(given, Exception) else 1)


async def test_the_largest_document_passes() -> None:
    body = b'{"resource": "x"}'
    oauth, _ = make(answer(body + b" " * (MAX_DOCUMENT_BYTES - len(body)), JSON))
    assert (await ask(oauth, WELL_KNOWN)).status == 200


async def test_redirects_within_the_server_are_followed() -> None:
    """Some frameworks add or remove a slash."""
    moved = answer(b"", (b"Location", b"/elsewhere?a=b"), status=307)
    oauth, transport = make(moved, document(resource="x"))
    assert (await ask(oauth, WELL_KNOWN)).status == 200
    assert [target for _, target, _, _ in transport.asked] == [WELL_KNOWN, "/elsewhere?a=b"]


async def test_redirects_in_a_circle_end() -> None:
    oauth, transport = make(*(answer(b"", (b"Location", b"/again"), status=308) for _ in range(9)))
    assert (await refusal(oauth, WELL_KNOWN)).reason is Reason.UPSTREAM_NONSENSE
    assert len(transport.asked) == 3


@pytest.mark.parametrize("path", [WELL_KNOWN, ISSUER, "/token"])
async def test_a_silent_server_is_not_waited_for(path: str) -> None:
    async def silence() -> AsyncIterator[bytes]:
        await asyncio.Event().wait()
        yield b""

    oauth, transport = make(answer(silence(), JSON), timeout_s=0.01)
    assert (await refusal(oauth, path)).reason is Reason.DEADLINE
    assert transport.closed == 1


# A server that is its own authorization server.


@pytest.mark.parametrize(
    ("path", "target"),
    [
        (ISSUER, ISSUER),
        (f"{ISSUER}/mcp", f"{ISSUER}/v1/mcp"),
        (f"{ISSUER}/tenant", f"{ISSUER}/tenant"),
        ("/tenant/.well-known/openid-configuration", "/tenant/.well-known/openid-configuration"),
    ],
)
async def test_the_issuer_is_at_our_origin(path: str, target: str) -> None:
    """RFC 8414, 3.3: clients compare it with the URL they built the path from."""
    oauth, transport = make(
        document(
            issuer=SERVER,
            token_endpoint="http://localhost:8000/oauth/token",
            authorization_endpoint="https://login.example.com/authorize",
        )
    )
    assert json.loads(_body(await ask(oauth, path))) == {
        "issuer": PUBLIC,
        "token_endpoint": f"{PUBLIC}/oauth/token",
        "authorization_endpoint": "https://login.example.com/authorize",
    }
    assert transport.asked[0][1] == target


async def test_endpoints_are_served_once_the_metadata_names_them() -> None:
    oauth, _ = make(
        document(
            issuer=SERVER,
            token_endpoint=f"{SERVER}/oauth/token",
            jwks_uri=f"{PUBLIC}/oauth/keys",
            authorization_endpoint="https://login.example.com/elsewhere",
            registration_endpoint=f"{SERVER}/a/../b",
            revocation_endpoint=SERVER,
            service_documentation=f"{SERVER}/handbook",
        )
    )
    paths = ["/oauth/token", "/oauth/keys", "/elsewhere", "/a/../b", "/b", "/", "/handbook"]
    assert [path for path in paths if oauth.page(path)] == []
    await ask(oauth, ISSUER)
    assert [path for path in paths if oauth.page(path)] == ["/oauth/token", "/oauth/keys"]


async def test_endpoints_are_bounded() -> None:
    """The server may say something else each time it is asked."""
    answers = [document(issuer=SERVER, token_endpoint=f"{SERVER}/e{n}") for n in range(MAX_LEARNT + 1)]
    oauth, _ = make(*answers)
    for _ in answers:
        await ask(oauth, ISSUER)
    assert [oauth.page(f"/e{number}") is not None for number in (0, 1, MAX_LEARNT)] == [False, True, True]


@pytest.mark.parametrize("name", ["pwn_endpoint", "registration_client_uri", "issuer_endpoint"])
async def test_only_what_clients_use_opens_a_page(name: str) -> None:
    """Attack: whoever can put a document on the server's origin must not open what lies there."""
    oauth, _ = make(document(issuer=SERVER, **{name: f"{SERVER}/inner"}))
    await ask(oauth, ISSUER)
    assert oauth.page("/inner") is None


@pytest.mark.parametrize("path", ["/authorize", "/token", "/register"])
async def test_the_default_endpoints_are_passed_on_as_they_are(path: str) -> None:
    """2025-03-26 basic/authorization, 2.3.3: where a server without metadata has them. Nobody is asked who sends
    this, so it does not go with our own credential."""
    oauth, transport = make(answer(b"said", (b"Cache-Control", b"no-store"), status=201))
    sent = ((b"Authorization", b"Basic eDp5"), (b"Content-Type", b"application/x-www-form-urlencoded"))
    reply = await ask(
        oauth, path, "POST", "a=b", b"code=x", *sent, (b"Cookie", b"c=d"), (b"Accept-Encoding", b"gzip")
    )
    assert (reply.status, reply.body, reply.headers.pairs) == (
        201,
        b"said",
        ((b"Cache-Control", b"no-store"),),
    )
    fields = [(b"Host", b"127.0.0.1:8000"), *sent, (b"Accept-Encoding", b"identity")]
    assert (transport.asked, transport.closed) == ([("POST", f"{path}?a=b", fields, b"code=x")], 1)


async def test_a_person_who_agrees_sends_no_body() -> None:
    oauth, transport = make(answer(b"<html>", (b"Content-Type", b"text/html")))
    assert _body(await ask(oauth, "/authorize", query="state=s")) == b"<html>"
    assert transport.asked == [("GET", "/authorize?state=s", [(b"Host", b"127.0.0.1:8000")], None)]


@pytest.mark.parametrize(
    ("location", "seen"),
    [
        ("http://localhost:3030/cb?code=c&iss=http%3A%2F%2Flocalhost%3A8000&state=s", f"{PUBLIC}"),
        ("http://localhost:3030/cb?iss=http://127.0.0.1:8000/", f"{PUBLIC}/"),
        ("http://localhost:3030/cb#iss=http://127.0.0.1:8000", PUBLIC),
    ],
)
async def test_the_issuer_of_an_authorization_is_the_one_clients_know(location: str, seen: str) -> None:
    """RFC 9207, 2.4: simple string comparison with the metadata."""
    oauth, _ = make(answer(b"", (b"Location", location.encode()), status=302))
    reply = await ask(oauth, "/authorize")
    said = reply.headers.get("location") or ""
    before, _, after = location.partition("iss=")
    encoded = seen.replace(":", "%3A").replace("/", "%2F")
    rest = after[after.index("&") :] if "&" in after else ""
    assert said == f"{before}iss={encoded}{rest}"


@pytest.mark.parametrize(
    "location",
    [
        "http://localhost:8000/callback?code=c&state=http://localhost:8000",
        "http://localhost:3030/cb?iss=https%3A%2F%2Flogin.example.com",
        "http://localhost:3030/cb?iss=https://login.example.com",
        "http://localhost:3030/cb?miss=http%3A%2F%2Flocalhost%3A8000",
        "/login",
    ],
)
async def test_a_redirect_leads_where_the_server_says(location: str) -> None:
    """A client's machine may have a `localhost:8000` as well: its callback must not become our address."""
    oauth, _ = make(answer(b"", (b"Location", location.encode()), status=303))
    reply = await ask(oauth, "/authorize")
    assert (reply.status, reply.headers.get("location")) == (303, location)


@pytest.mark.parametrize(
    "given",
    [
        answer(b"a" * (MAX_ANSWER_BYTES + 1)),
        answer(b"", (b"Content-Encoding", b"br")),
        answer(b"", (b"Location", b"/a\x00b"), status=302),
        answer(b"", status=199),
    ],
    ids=["too long", "compressed", "control characters", "no status"],
)
async def test_an_endpoint_that_answers_nonsense_is_refused(given: Answer) -> None:
    oauth, transport = make(given)
    assert (await refusal(oauth, "/authorize")).reason is Reason.UPSTREAM_NONSENSE
    assert transport.closed == 1


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/mcp",
        "/v1/mcp",
        "/login",
        "/.well-known",
        f"{WELL_KNOWN}/v1/mcp",
        f"{WELL_KNOWN}/other",
        "/tokens",
    ],
)
def test_nothing_else_is_served(path: str) -> None:
    assert make()[0].page(path) is None


@pytest.mark.parametrize(("path", "status"), [("/token", 200), ("/authorize", 302), (WELL_KNOWN, 404)])
async def test_pages_hide_what_answers_hide(path: str, status: int) -> None:
    """UP-062: the server's software is named on no page of it; where to go on is."""
    fields = ((b"Server", b"uvicorn"), (b"Location", b"https://client.example/cb"))
    oauth, _ = make(answer(b"", *fields, status=status), hide=["server"])
    assert (await ask(oauth, path)).headers == Headers(fields[1:])
