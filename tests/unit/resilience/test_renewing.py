"""A lost session is begun anew: for whom, when not, how often, and what its client sees of it.

Source: issue 7, item 5 ("optional transparent re-initialise for rules that allow it"); basic/transports, "Session
Management", and basic/lifecycle of 2025-11-25; protocol.md 7.5 and trap 9.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest
from msgspec import structs

from proxy.model import (
    Broken,
    Call,
    Ending,
    Headers,
    Kind,
    Permit,
    Principal,
    Reason,
    Refused,
    Reply,
    Revision,
    Rule,
)
from proxy.protocol.revisions import BY_NAME
from proxy.resilience.handshakes import Handshakes
from proxy.resilience.renewing import Renewing
from tests.fakes import PRINCIPAL, FakeJourney, make_batch, make_call, make_headers
from tests.unit.resilience.scripted import SECONDS, Source, until

LEGACY: Final = BY_NAME["2025-11-25"]
REVISIONS: Final = [BY_NAME[name] for name in ("2025-03-26", "2025-06-18", "2025-11-25")]
ALLOWS: Final = Rule(id="r", reinitialise=True)
DOES_NOT: Final = Rule(id="r")
BOB: Final = structs.replace(PRINCIPAL, subject="bob")
SAID: Final[dict[str, object]] = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}}
HELLO: Final = b'{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"clientInfo":{"name":"x"}}}'
PYTHON1: Final = (
    b'{"jsonrpc":"2.0","id":"server-error","error":{"code":-32600,"message":"Session not found"}}'
)
PYTHON2: Final = b'{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"Session not found"}}'
TYPESCRIPT: Final = b'{"jsonrpc":"2.0","error":{"code":-32001,"message":"Session not found"},"id":null}'
TERMINATED: Final = PYTHON1.replace(b"Session not found", b"Not Found: Session has been terminated")
GO: Final = b"session not found\n"
JAVA: Final = b'{"code":-32600,"message":"Session not found: 7"}'


def asked(rule: Rule = ALLOWS, who: Principal = PRINCIPAL, **call: Any) -> Permit:
    fields = make_headers(authorization="Bearer of now", accept="*/*", mcp_protocol_version="2025-11-25")
    given = {"revision": LEGACY, "id": 7, "target": "t", "session": "s1", "body": b"call", **call}
    if given["session"] is not None:
        fields = Headers([*fields.pairs, (b"mcp-session-id", str(given["session"]).encode())])
    return Permit(call=make_call(**{"headers": fields, **given}), principal=who, rule=rule)


class Server:
    """Fulfils `Stage`: keeps sessions, loses them, and says how it is told to."""

    def __init__(self, handshakes: Handshakes) -> None:
        self._handshakes = handshakes
        self.seen: list[Call] = []
        self.alive: set[str] = set()
        self.names: Iterator[str] = (f"s{number}" for number in range(1, 100))
        self.said: object = SAID
        self.gone = PYTHON2
        self.gone_fields: list[tuple[bytes, bytes]] = []
        self.before: Callable[[Call], Any] = lambda call: None
        """What happens to a call: raises, or returns a reply or an awaitable."""
        self.source: Source | None = None
        """Where the answer to a handshake comes in events."""

    async def __call__(self, permit: Permit) -> Reply:
        call = permit.call
        self.seen.append(call)
        outcome = self.before(call)
        if asyncio.isfuture(outcome) or asyncio.iscoroutine(outcome):
            outcome = await outcome
        if isinstance(outcome, Reply):
            return outcome
        if call.method == "initialize":
            return self.begin(permit)
        named = call.headers.get("mcp-session-id") or ""
        fields = [(b"Mcp-Session-Id", named.encode())]
        if named not in self.alive:
            return Reply(404, Headers(self.gone_fields), self.gone)
        if call.kind is Kind.END:
            self.alive.discard(named)
        return Reply(
            202 if call.kind is Kind.NOTIFICATION else 200, Headers(fields), b"done in " + named.encode()
        )

    def begin(self, permit: Permit) -> Reply:
        name = next(self.names)
        self.alive.add(name)
        ear = self._handshakes.listen(permit, name)
        assert ear is not None
        if self.source is None:
            ear.result("initialize", self.said)
            return Reply(200, make_headers(mcp_session_id=name), b"hello")
        reply = self.source.reply()
        reply.headers = make_headers(mcp_session_id=name, content_type="text/event-stream")
        reply.body.tap(lambda _: ear.result("initialize", self.said))  # type: ignore[union-attr]
        return reply

    @property
    def methods(self) -> list[str]:
        return [call.method or call.kind.value for call in self.seen]


class Scene:
    def __init__(self, ends_s: float = math.inf) -> None:
        self.handshakes = Handshakes()
        self.server = Server(self.handshakes)
        self.ends_s = ends_s
        self.stage = Renewing(self.server, self.handshakes, deadline=lambda _: self.ends_s, now=lambda: 0.0)

    async def begins(self, who: Principal = PRINCIPAL, revision: Revision = LEGACY) -> None:
        """A client shakes hands, and then the server loses what it knew."""
        hello = make_call(method="initialize", id=0, revision=revision, body=HELLO)
        (await self.stage(Permit(call=hello, principal=who, rule=DOES_NOT))).done(Ending.COMPLETE)
        self.server.alive.clear()
        self.server.seen.clear()

    async def call(self, permit: Permit | None = None) -> Reply:
        async with asyncio.timeout(SECONDS):
            return await self.stage(permit or asked())


@pytest.fixture
async def scene() -> Scene:
    scene = Scene()
    await scene.begins()
    return scene


@pytest.mark.parametrize("gone", [PYTHON1, PYTHON2, TYPESCRIPT, TERMINATED, GO, JAVA, b"", b"\r\n"])
@pytest.mark.parametrize("revision", REVISIONS)
async def test_the_call_is_answered_in_a_new_session(gone: bytes, revision: Revision) -> None:
    """As five SDKs say that a session is gone, and as the specification says it, without a word."""
    scene = Scene()
    await scene.begins(revision=revision)
    scene.server.gone = gone
    reply = await scene.call(asked(revision=revision))
    assert (reply.status, reply.body) == (200, b"done in s2")
    assert scene.server.methods == ["tools/call", "initialize", "notifications/initialized", "tools/call"]
    assert (scene.stage.renewed, scene.stage.given_up) == (1, 0)


async def test_the_handshake_is_the_clients_own(scene: Scene) -> None:
    """Byte for byte, with the credential of now; nothing of the call that found out goes with it."""
    extra = [(b"Idempotency-Key", b'"k"'), (b"Mcp-Param-X", b"1"), (b"Mcp-Sidecar-Timeout-Ms", b"5")]
    permit = asked()
    headers = Headers([*permit.call.headers.pairs, *extra])
    permit = structs.replace(permit, call=structs.replace(permit.call, headers=headers, params={"name": "t"}))
    await scene.call(permit)
    first, hello, told, again = scene.server.seen
    assert (hello.body, hello.id, hello.kind, hello.session, hello.params) == (
        HELLO,
        0,
        Kind.REQUEST,
        None,
        {},
    )
    assert set(hello.headers.names()) == {"authorization", "accept"}
    assert hello.headers.get("authorization") == "Bearer of now"
    assert told.body == b'{"jsonrpc":"2.0","method":"notifications/initialized"}'
    assert told.kind is Kind.NOTIFICATION
    assert told.id is None
    assert set(told.headers.names()) == {"authorization", "accept", "mcp-session-id", "mcp-protocol-version"}
    assert told.headers.all("mcp-session-id") == ["s2"]
    assert first is permit.call
    assert again.headers.all("mcp-session-id") == ["s2"]
    assert [pair for pair in again.headers.pairs if pair[0] != b"Mcp-Session-Id"] == [
        pair for pair in headers.pairs if pair[0] != b"mcp-session-id"
    ]
    assert (again.body, again.id, again.session, again.journey) == (b"call", 7, "s1", first.journey)
    assert hello.journey is not first.journey is not told.journey


async def test_the_client_goes_on_in_its_old_session(scene: Scene) -> None:
    """Trap 9: clients adopt whatever session an answer names. Everything is translated, both ways, and counted."""
    await scene.call()
    scene.server.seen.clear()
    journey = FakeJourney()
    ways = [
        asked(journey=journey),
        asked(DOES_NOT, method="ping"),
        asked(DOES_NOT, kind=Kind.NOTIFICATION, id=None, method="notifications/cancelled"),
        asked(DOES_NOT, kind=Kind.ANSWER, method=""),
        asked(DOES_NOT, kind=Kind.LISTEN, id=None, method=""),
        structs.replace(
            asked(), call=structs.replace(make_batch(asked().call), session="s1", revision=REVISIONS[0])
        ),
    ]
    for permit in ways:
        reply = await scene.call(permit)
        assert reply.status < 300
        assert reply.headers.all("mcp-session-id") == ["s1"]
    assert [call.headers.all("mcp-session-id") for call in scene.server.seen] == [["s2"]] * len(ways)
    assert ("j1", "altered", "session") in journey.diary
    (await scene.call(asked(kind=Kind.END, id=None, method=""))).done(Ending.COMPLETE)
    assert scene.server.alive == set()
    assert len(scene.handshakes) == 0


async def test_where_nothing_was_lost_nothing_is_touched() -> None:
    """Promise 1: the same permit, the same reply."""
    scene = Scene()
    await scene.begins()
    scene.server.alive.add("s1")
    seen: list[Permit] = []
    reply = Reply(
        404, Headers(), b'{"jsonrpc":"2.0","id":7,"error":{"code":-32601,"message":"no such session tool"}}'
    )

    async def serve(permit: Permit) -> Reply:
        seen.append(permit)
        return reply

    stage = Renewing(serve, scene.handshakes, deadline=lambda _: math.inf)
    permit = asked()
    assert await stage(permit) is reply
    assert seen == [permit]


async def test_a_second_loss_is_made_good_as_the_first(scene: Scene) -> None:
    for name in ("s2", "s3"):
        assert (await scene.call()).body == f"done in {name}".encode()
        scene.server.alive.clear()
    assert scene.stage.renewed == 2


RESULT: Final = b'{"jsonrpc":"2.0","id":7,"result":{"content":[{"text":"session"}]}}'
ITS_OWN: Final = (
    b'{"jsonrpc":"2.0","id":7,"error":{"code":-32602,"message":"No such session in the archive"}}'
)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, PYTHON1),
        (
            400,
            b'{"jsonrpc":"2.0","error":{"code":-32000,"message":"Bad Request: No valid session ID"},"id":null}',
        ),
        (401, PYTHON1),
        (410, PYTHON1),
        (200, PYTHON2),
        (404, RESULT),
        (404, ITS_OWN),
        (404, ITS_OWN.replace(b"7", b'"x"').replace(b"error", b"result").replace(b"No such", b"A")),
        (404, b"<html>Cannot POST /mcp</html>"),
        (404, b'{"detail":"Not Found"}'),
        (404, b'{"jsonrpc":"2.0","id":null,"error":{"code":-32601,"message":"Method not found"}}'),
        (404, b"[" + PYTHON2 + b"," + ITS_OWN + b"]"),
        (503, b"session"),
    ],
)
async def test_only_what_the_protocol_says_of_a_session_counts(
    scene: Scene, status: int, body: bytes
) -> None:
    """A server that answers the request itself may have run it; 400 may mean anything. It all goes to the client."""
    scene.server.before = lambda _: Reply(status, Headers(), body)
    reply = await scene.call()
    assert (reply.status, reply.body) == (status, body)
    assert scene.server.methods == ["tools/call"]


async def test_a_stream_is_no_such_answer(scene: Scene) -> None:
    source = Source()
    scene.server.before = lambda _: source.reply(status=404)
    assert (await scene.call()).status == 404
    assert source.closed == 0
    assert scene.server.methods == ["tools/call"]


@pytest.mark.parametrize(
    "permit",
    [
        asked(DOES_NOT),
        asked(method="tools/list"),
        asked(method="tasks/get"),
        asked(kind=Kind.NOTIFICATION, id=None),
        asked(kind=Kind.ANSWER, method=""),
        asked(kind=Kind.END, method="", id=None),
        structs.replace(
            asked(), call=structs.replace(make_batch(asked().call), session="s1", revision=REVISIONS[0])
        ),
        asked(params={"name": "t", "task": {}}),
        asked(who=BOB),
        asked(session="s9"),
        asked(session=None),
        asked(revision=BY_NAME["2026-07-28"]),
        asked(revision=BY_NAME["2024-11-05"]),
    ],
)
async def test_nothing_else_begins_a_session(scene: Scene, permit: Permit) -> None:
    """Off unless a rule asks; never for somebody else, nor for what could not be carried over."""
    reply = await scene.call(permit)
    assert (reply.status, reply.body) == (404, PYTHON2)
    assert len(scene.server.seen) == 1
    assert scene.server.seen[0] is permit.call


@pytest.mark.parametrize("method", ["resources/subscribe", "logging/setLevel"])
async def test_a_session_that_held_something_is_over(method: str) -> None:
    """What the server would not do any more is not pretended away."""
    scene = Scene()
    await scene.begins()
    scene.server.alive.add("s1")
    assert (await scene.call(asked(DOES_NOT, method=method))).status == 200
    scene.server.alive.clear()
    assert (await scene.call()).status == 404
    assert "initialize" not in scene.server.methods


def _hands_out(*names: str) -> Callable[[Scene], None]:
    def change(scene: Scene) -> None:
        answer = Reply(200, Headers((b"Mcp-Session-Id", name.encode()) for name in names), b"hello")
        _answers("initialize", answer)(scene)

    return change


def _answers(method: str, outcome: Reply | BaseException) -> Callable[[Scene], None]:
    def before(call: Call) -> Reply | None:
        if call.method == method and isinstance(outcome, BaseException):
            raise outcome
        return outcome if call.method == method and isinstance(outcome, Reply) else None

    def change(scene: Scene) -> None:
        scene.server.before = before

    return change


def _says(said: object) -> Callable[[Scene], None]:
    def change(scene: Scene) -> None:
        scene.server.said = said

    return change


@pytest.mark.parametrize(
    ("change", "ends"),
    [
        (_says({**SAID, "protocolVersion": "2025-06-18"}), ["s2"]),
        (_says({**SAID, "capabilities": {}}), ["s2"]),
        (_says({**SAID, "instructions": "others"}), ["s2"]),
        (_answers("initialize", Reply(503, Headers(), b"")), []),
        (_answers("initialize", Reply(404, Headers(), b"")), []),
        (_answers("initialize", Reply(200, Headers(), b"stateless now")), []),
        (_answers("initialize", Refused(Reason.UPSTREAM_UNREACHABLE)), []),
        (_answers("initialize", Refused(Reason.BREAKER_OPEN)), []),
        (_answers("initialize", Refused(Reason.UPSTREAM_NONSENSE)), []),
        (_answers("initialize", Broken(told=False)), []),
        (_hands_out("a", "b"), []),
        (_hands_out("not an id"), []),
        (_hands_out("\x7f"), []),
        (_hands_out("ü"), []),
        (_hands_out("never answered"), []),
        (_hands_out("never-answered"), ["never-answered"]),
        (_hands_out("s1"), ["s1"]),
        (_answers("notifications/initialized", Reply(400, Headers(), b"")), ["s2"]),
        (_answers("notifications/initialized", Refused(Reason.UPSTREAM_BROKE)), ["s2"]),
    ],
)
async def test_what_goes_wrong_leaves_the_client_with_its_404(
    scene: Scene, change: Callable[[Scene], None], ends: list[str]
) -> None:
    """As it was; and a session that nobody will use is ended. The client begins anew by itself: we try no more."""
    change(scene)
    scene.server.gone_fields = [(b"X-Here", b"1")]
    reply = await scene.call()
    assert (reply.status, reply.body, reply.headers.get("x-here")) == (404, PYTHON2, "1")
    await until(lambda: len([call for call in scene.server.seen if call.kind is Kind.END]) == len(ends))
    said = [call for call in scene.server.seen if call.kind is Kind.END]
    assert [call.headers.get("mcp-session-id") for call in said] == ends
    assert [call.headers.get("authorization") for call in said] == ["Bearer of now"] * len(ends)
    assert scene.stage.given_up == 1
    assert len(scene.handshakes) == 0
    scene.server.seen.clear()
    assert (await scene.call()).status == 404
    assert scene.server.methods == ["tools/call"]


async def test_a_call_is_sent_again_once(scene: Scene) -> None:
    """A server that loses each session at once is not asked for ever."""
    original = scene.server.begin

    def begin(permit: Permit) -> Reply:
        reply = original(permit)
        scene.server.alive.clear()
        return reply

    scene.server.begin = begin  # type: ignore[method-assign]
    scene.server.before = lambda call: Reply(202, Headers()) if call.kind is Kind.NOTIFICATION else None
    assert (await scene.call()).status == 404
    assert scene.server.methods == ["tools/call", "initialize", "notifications/initialized", "tools/call"]
    assert len(scene.handshakes) == 0


async def test_the_same_name_again_is_good(scene: Scene) -> None:
    """A server may count its sessions from one each time it starts."""
    scene.server.names = iter(["s1"])
    journey = FakeJourney()
    assert (await scene.call(asked(journey=journey))).body == b"done in s1"
    assert journey.diary == []
    assert (await scene.call()).body == b"done in s1"


@pytest.mark.parametrize("count", [2, 50])
async def test_many_who_find_out_together_begin_one(scene: Scene, count: int) -> None:
    """Single flight; also those that may not begin one go on in it."""
    permits = [asked(id=number) for number in range(count)]
    permits += [asked(DOES_NOT, id=count, method="ping"), asked(DOES_NOT, kind=Kind.NOTIFICATION, id=None)]
    may_lose = asyncio.Event()

    def before(call: Call) -> Any:
        return answers_when(may_lose) if call.method == "initialize" else None

    scene.server.before = before
    calls = [asyncio.ensure_future(scene.call(permit)) for permit in permits]
    await until(lambda: len(scene.server.seen) == len(permits) + 1)
    may_lose.set()
    replies = await asyncio.gather(*calls)
    assert {reply.body for reply in replies} == {b"done in s2"}
    assert scene.server.methods.count("initialize") == 1
    assert scene.server.methods.count("notifications/initialized") == 1


async def answers_when(event: asyncio.Event) -> None:
    await event.wait()


async def test_who_hears_of_it_late_begins_no_other(scene: Scene) -> None:
    """Its 404 is of the old session, and by now there is a new one."""
    late = asyncio.Event()

    def before(call: Call) -> Any:
        is_late = call.id == "late" and call.headers.get("mcp-session-id") == "s1"
        return answers_when(late) if is_late else None

    scene.server.before = before
    waiting = asyncio.ensure_future(scene.call(asked(DOES_NOT, id="late", method="ping")))
    await until(lambda: len(scene.server.seen) == 1)
    await scene.call()
    late.set()
    assert (await waiting).body == b"done in s2"
    assert scene.server.methods.count("initialize") == 1


@pytest.mark.parametrize(
    "permit",
    [
        asked(DOES_NOT, kind=Kind.ANSWER, method="", id="late"),
        structs.replace(
            asked(),
            call=structs.replace(make_batch(asked().call), session="s1", id="late", revision=REVISIONS[0]),
        ),
        asked(DOES_NOT, kind=Kind.LISTEN, method="", id="late"),
        asked(DOES_NOT, kind=Kind.END, method="", id="late"),
    ],
)
async def test_what_belongs_to_the_old_session_is_not_said_in_the_new_one(
    scene: Scene, permit: Permit
) -> None:
    """An answer to a question of the old one, for instance. Whoever is told 404 begins anew by itself, so the new
    one is ended; a stream that is told so may be one that the server does not have."""
    late = asyncio.Event()

    async def gone() -> Reply:
        await late.wait()
        return Reply(404, Headers(), PYTHON2)

    scene.server.before = lambda call: gone() if call.id == "late" else None
    waiting = asyncio.ensure_future(scene.call(permit))
    await until(lambda: len(scene.server.seen) == 1)
    await scene.call()
    late.set()
    assert (await waiting).status == 404
    assert len([call for call in scene.server.seen if call.id == "late"]) == 1
    is_over = permit.call.kind is not Kind.LISTEN
    await until(lambda: (scene.server.alive == set()) == is_over)
    assert len(scene.handshakes) == (not is_over)


async def test_404_to_a_stream_says_nothing_of_the_session(scene: Scene) -> None:
    """Servers without a stream of their own answer a GET so, though they SHOULD say 405."""
    assert (await scene.call(asked(DOES_NOT, kind=Kind.LISTEN, method="", id=None))).status == 404
    assert (await scene.call()).body == b"done in s2"


async def test_its_failure_is_everybodys(scene: Scene) -> None:
    may_fail = asyncio.Event()

    async def fail() -> Reply:
        await may_fail.wait()
        return Reply(503, Headers())

    scene.server.before = lambda call: fail() if call.method == "initialize" else None
    calls = [asyncio.ensure_future(scene.call(asked(id=number))) for number in range(10)]
    await until(lambda: len(scene.server.seen) == 11)
    may_fail.set()
    assert {reply.status for reply in await asyncio.gather(*calls)} == {404}
    assert scene.server.methods.count("initialize") == 1


async def test_whoever_leaves_takes_nothing_from_the_others(scene: Scene) -> None:
    may_go = asyncio.Event()
    scene.server.before = lambda call: answers_when(may_go) if call.method == "initialize" else None
    first = asyncio.ensure_future(scene.call())
    await until(lambda: "initialize" in scene.server.methods)
    second = asyncio.ensure_future(scene.call())
    await until(lambda: len(scene.server.seen) == 3)
    first.cancel()
    async with asyncio.timeout(SECONDS):
        await asyncio.wait([first])
    assert first.cancelled()
    may_go.set()
    assert (await second).body == b"done in s2"


async def test_a_call_that_is_over_waits_no_more() -> None:
    """Within its deadline; what nobody uses then is ended, because the client was told that its session is over."""
    scene = Scene()
    await scene.begins()
    may_go = asyncio.Event()
    scene.server.before = lambda call: answers_when(may_go) if call.method == "initialize" else None
    patient = asyncio.ensure_future(scene.call())
    await until(lambda: "initialize" in scene.server.methods)
    scene.ends_s = 0.0
    assert (await scene.call()).status == 404
    may_go.set()
    assert (await patient).status == 404
    await until(lambda: scene.server.alive == set())
    assert scene.server.seen[-1].kind is Kind.END


async def test_a_server_that_never_answers_the_handshake_is_not_waited_for() -> None:
    scene = Scene(ends_s=0.01)
    await scene.begins()
    never = asyncio.Event()
    scene.server.before = lambda call: answers_when(never) if call.method == "initialize" else None
    reply = await scene.call()
    assert (reply.status, reply.body) == (404, PYTHON2)
    await until(lambda: scene.stage.given_up == 1)


async def test_a_handshake_that_is_answered_in_events_is_read_until_it_is(scene: Scene) -> None:
    """As the Python SDK does; a server that keeps the stream open holds nobody up."""
    scene.server.source = Source()
    scene.server.source.send(b": hello\n\n")
    assert (await scene.call()).body == b"done in s2"
    assert scene.server.source.closed == 1


async def test_a_session_that_is_ended_meanwhile_stays_so(scene: Scene) -> None:
    """The client said goodbye while another of its calls found out."""
    may_go = asyncio.Event()
    scene.server.before = lambda call: answers_when(may_go) if call.method == "initialize" else None
    calling = asyncio.ensure_future(scene.call())
    await until(lambda: "initialize" in scene.server.methods)
    assert (await scene.call(asked(kind=Kind.END, id=None, method=""))).status == 404
    may_go.set()
    assert (await calling).status == 404
    await until(lambda: scene.server.alive == set())


async def test_our_own_failure_is_not_taken_for_the_servers(scene: Scene) -> None:
    """The hall refuses what it does not expect."""
    _answers("initialize", RuntimeError("bug"))(scene)
    with pytest.raises(RuntimeError, match="bug"):
        await scene.call()


async def test_nothing_goes_on_when_the_house_comes_down(scene: Scene) -> None:
    never = asyncio.Event()
    scene.server.before = lambda call: answers_when(never) if call.method == "initialize" else None
    calling = asyncio.ensure_future(scene.call())
    await until(lambda: "initialize" in scene.server.methods)
    await scene.stage.close()
    async with asyncio.timeout(SECONDS):
        await asyncio.wait([calling])
    assert calling.cancelled()
