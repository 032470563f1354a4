"""The hall with the policy room in it, between the bytes of a client and a server that a test writes.

In: a `policy` section, who calls, and bytes as a client sends them. Out: what the client got. Keeps every byte that
reached the server. Everything between is the product's own: the reader, the pipeline, the policy room, the stage that
forwards. No socket and no loop: nothing here waits, so a coroutine runs through at once, thousands of them a second.
"""

from __future__ import annotations

import base64
import functools
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias, TypeVar

import msgspec

from proxy.batches import merge, without
from proxy.model import Broken, Call, Headers, Principal, Refused, Reply, Revision, Stage, Stream
from proxy.pipeline import Pipeline
from proxy.policy.building import Policy
from proxy.policy.disguise import Disguise
from proxy.policy.pins import Drift
from proxy.policy.settings import PackSettings, PolicySettings
from proxy.protocol.reading import read_post
from proxy.refusals import explain, is_at_http
from proxy.telemetry.journey import Journeys, Observers
from proxy.upstream.ears import listening
from proxy.upstream.forward import Forward
from proxy.upstream.settings import UpstreamSettings
from proxy.upstream.transport import Answer
from tests.integration.wire import MODERN, events, fields_for, message

Pairs: TypeAlias = list[tuple[bytes, bytes]]
Said: TypeAlias = tuple[bytes, Sequence[bytes]]
"""A media type, and a body in chunks."""
Tool: TypeAlias = Mapping[str, Any]

JSON: Final = b"application/json"
EVENTS: Final = b"text/event-stream"
DECOY: Final = "x" + "0" * 32
"""What the server is asked instead of a hidden tool; nobody calls one so."""
MORE_THAN_HELD: Final = 262_144
"""Answers beyond are not read whole while they pass."""

T = TypeVar("T")


def run(doing: Coroutine[Any, Any, T]) -> T:
    """What a coroutine returns that only ever lets others have their turn."""
    while True:
        try:
            waits_for = doing.send(None)
        except StopIteration as ended:
            value: T = ended.value
            return value
        assert waits_for is None, "it waits for something"


class Server:
    """Fulfils `Transport`: answers what it is told to, and remembers what reached it."""

    def __init__(self, answer: Callable[[bytes], Said]) -> None:
        self.answer = answer
        self.heads: list[Pairs] = []
        self.bodies: list[bytes] = []

    async def send(
        self, method: str, target: str, headers: Sequence[tuple[bytes, bytes]], body: bytes | None
    ) -> Answer:
        self.heads.append(list(headers))
        self.bodies.append(body or b"")
        kind, chunks = self.answer(body or b"")
        status = 200 if any(chunks) else 202
        return Answer(
            status=status, headers=Headers([(b"Content-Type", kind)]), chunks=_each(chunks), close=_nothing
        )

    async def close(self) -> None:
        """Nothing is open."""

    @property
    def bytes(self) -> bytes:
        """Everything that reached it."""
        return b"\n".join([*self.bodies, *(b"%s: %s" % pair for head in self.heads for pair in head)])

    def called(self) -> list[object]:
        """The names in the calls that reached it, as each kind of reader behind us reads them."""
        return [name for body in self.bodies for hook in READERS for name in _called(body, hook)]


def first_wins(pairs: list[tuple[str, object]]) -> dict[str, object]:
    return dict(reversed(pairs))


def folds(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """As old Go SDKs read: neither case nor control characters matter in a key, the last one wins."""
    known = {"method", "params", "id", "name"}
    said: dict[str, object] = {}
    for key, value in pairs:
        folded = key.replace("\0", "").strip().casefold()
        said[folded if folded in known else key] = value
    return said


Reader: TypeAlias = Callable[[list[tuple[str, object]]], dict[str, object]]
READERS: Final[tuple[Reader, ...]] = (dict, first_wins, folds)


def _called(body: bytes, hook: Reader) -> Iterable[object]:
    """Whatever in a body could be a call: a request or not, alone or in an array of arrays."""
    try:
        waiting = [json.loads(body.decode("utf-8", "surrogatepass"), object_pairs_hook=hook)]
    except ValueError:
        return
    while waiting:
        one = waiting.pop()
        if isinstance(one, list):
            waiting.extend(one)
        elif isinstance(one, dict) and str(one.get("method")).casefold() == "tools/call":
            params = one.get("params")
            yield params.get("name") if isinstance(params, dict) else None


async def _each(chunks: Iterable[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


def _nothing() -> None:
    pass


class Hall:
    """A policy in force. `who` calls; `drifts` are what the pins told."""

    def __init__(
        self,
        policy: Mapping[str, Any],
        server: Server,
        who: Principal,
        *,
        packs: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        self.who = who
        self.server = server
        self.drifts: list[Drift] = []
        self.policy = Policy(
            msgspec.convert(policy, PolicySettings),
            [msgspec.convert({"version": 1, **pack}, PackSettings) for pack in packs],
            form="result",
            found=_unheard,
            drifted=self.drifts.append,
            token=lambda: "0" * 22,
        )
        self._journeys = Journeys(Observers())
        serve: Stage = Forward(
            UpstreamSettings(url="http://127.0.0.1/mcp"),
            server,
            "result",
            listen=listening(*self.policy.listens),
        )
        self._pipeline = Pipeline(
            identify=self._identify,
            authorise=self.policy.rules,
            limit=None,
            serve=self.policy.guarded(self.policy.shown(serve)),
            explain=functools.partial(explain, form="result"),
            merge=functools.partial(merge, form="result"),
            is_whole=is_at_http,
            without=without,
            disguise=Disguise(lambda: DECOY),
        )

    async def _identify(self, call: Call) -> Principal:
        return self.who

    def ask(self, body: bytes, fields: Pairs, *, spoken: Revision | None = None) -> tuple[int, bytes]:
        """Status and body of the answer to a POST of these bytes."""
        return run(self._asked(body, fields, spoken))

    async def _asked(self, body: bytes, fields: Pairs, spoken: Revision | None) -> tuple[int, bytes]:
        try:
            call = read_post(
                Headers(fields), body, received=0.0, journey=self._journeys.open(0.0), spoken=spoken
            )
        except Refused as refused:
            return await _whole(explain(refused, None, "result"))
        return await _whole(await self._pipeline(call))

    def request(self, method: str, revision: str = MODERN, **params: object) -> tuple[int, bytes]:
        """The same for a request as a client of `revision` writes it."""
        body = message(method, revision, 1, **params)
        return self.ask(body, plain_fields(body, revision))

    def listed(
        self, method: str = "tools/list", revision: str = MODERN, **params: object
    ) -> list[dict[str, Any]]:
        """The entries of a list that the caller gets."""
        status, body = self.request(method, revision, **params)
        assert status == 200, body
        [said] = events(body) or [body]
        entries: list[dict[str, Any]] = json.loads(said)["result"][ENTRIES[method]]
        return entries

    def call(self, name: str, revision: str = MODERN, **arguments: object) -> bool:
        """Whether a call to this tool reaches the server."""
        before = len(self.server.bodies)
        self.request("tools/call", revision, name=name, arguments=arguments)
        return any(name == each for body in self.server.bodies[before:] for each in _called(body, dict))


ENTRIES: Final = {
    "tools/list": "tools",
    "prompts/list": "prompts",
    "resources/list": "resources",
    "resources/templates/list": "resourceTemplates",
}


async def _whole(reply: Reply) -> tuple[int, bytes]:
    body = reply.body
    async with reply:
        if not isinstance(body, Stream):
            return reply.status, body
        held = b""
        try:
            async for chunk in body:
                held += chunk
        except Broken:
            pass
        return reply.status, held


def _unheard(*words: object) -> None:
    pass


def plain_fields(body: bytes, revision: str) -> Pairs:
    return [(name.encode(), value.encode()) for name, value in coded(fields_for(body, revision))]


def coded(fields: Iterable[tuple[str, str]]) -> Iterable[tuple[str, str]]:
    """Mirror headers carry what is not plain ASCII in base64 (2026-07-28 streamable HTTP, "value encoding")."""
    for name, value in fields:
        if name == "Mcp-Name" and (not value.isascii() or value != value.strip() or not value.isprintable()):
            yield name, f"=?base64?{base64.b64encode(value.encode('utf-8', 'surrogatepass')).decode()}?="
        else:
            yield name, value


def whole(value: object) -> Said:
    """A JSON body."""
    return JSON, [value if isinstance(value, bytes) else json.dumps(value).encode()]


def as_event(value: object) -> Said:
    """One event of a stream."""
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return EVENTS, [b"event: message\ndata: " + text + b"\n\n"]


def answering(
    lists: Mapping[str, Sequence[object]], *, say: Callable[[object], Said] = whole
) -> Callable[[bytes], Said]:
    """A server that has these lists, and answers everything else with a text."""

    def one(said: Mapping[str, Any]) -> dict[str, Any] | None:
        if "id" not in said or "method" not in said:
            return None
        result: dict[str, Any] = {"content": [{"type": "text", "text": "done"}], "resultType": "complete"}
        if said["method"] in lists:
            result = {ENTRIES[said["method"]]: lists[said["method"]], "resultType": "complete"}
        return {"jsonrpc": "2.0", "id": said["id"], "result": result}

    def answer(body: bytes) -> Said:
        said = json.loads(body)
        answers = [each for each in map(one, said if isinstance(said, list) else [said]) if each]
        if not answers:
            return JSON, [b""]
        return say(answers if isinstance(said, list) else answers[0])

    return answer
