"""The sidecars that keep answers: `KeepStand` in its own memory, `SharedKeepStand` in a store with a second replica.

Cases share them. Each has a header of its own, once for each time it is tried: headers that reach the server are part
of what an answer is kept for, so that no case is told what another one was. Whatever a case says was kept before is
asked for once more, and must not reach the server: else there would be nothing that could be told wrongly.
"""

import asyncio
import json
import os
import pickle
import re
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tests.corpus.cases import Case, CorpusError
from tests.corpus.client import Connection
from tests.corpus.evidence import Reading, Told, number_of
from tests.corpus.fake_server import ALICE, BOB, NUMBER, TOOLS, as_json, plain
from tests.corpus.pressure import answer_on
from tests.corpus.scripts import Script
from tests.corpus.sidecar import READER, Sidecar, keeping, unread_bytes_at
from tests.corpus.stand import LEGACY, Around, Stand, until
from tests.corpus.wire import Message
from tests.valkey import Valkey

CAROL, DORA, ROOT = "carol", "dora", "root"
TOKENS = {ALICE: "TOK_ALICE", BOB: "TOK_BOB", CAROL: "TOK_CAROL", ROOT: "TOK_ADMIN"}
MARK = "X-Corpus-Case"
CAP_BYTES = 4 << 20
"""Of memory for answers; the corpus speaks of 32 MiB, and of so many more of them."""
_MAX_ENTRY_BYTES = 1 << 20
_MAX_ANSWER_BYTES = 128 << 20
"""CACHE-045 is not about what may pass."""
DOCS = 120
"""Of each of three callers: 360 reads of the 20,000 that the corpus asks for. None is left to chance: the store stands
still meanwhile, so that every client that leaves does so inside the read."""
_AT_ONCE = 40
_LEAVE = 2
"""Of those, 5 %."""
_LEAST_BYTES = 450
"""Of the question for one answer: as the store is asked now, 461, so that 39 are not taken for 40."""
_WRITERS = 4
_TURNS = 200
"""Within which both replicas have found the store."""

_NO_FIELDS: Mapping[str, str] = MappingProxyType({})
Setup = Callable[[Any, Case, re.Match[str]], Awaitable[dict[str, Any]]]


class KeepStand(Stand):
    """One whose answers are in its own memory."""

    def __init__(self, around: Around, name: str, form: str) -> None:
        self._turns: Counter[str] = Counter()
        self.mark = ""
        """Of the case."""
        super().__init__(around, name, form)

    async def begin(self) -> None:
        """Nothing is asked before the cases."""

    def policy(self) -> dict[str, Any]:
        return keeping(self.around.fixture)

    def sections(self) -> dict[str, Any]:
        return {"cache": self.cache(), "upstream": {"max_answer_bytes": _MAX_ANSWER_BYTES}}

    def cache(self) -> dict[str, Any]:
        """The section of its settings. Lists of older revisions are kept too: the cases ask for no others."""
        return {"max_bytes": CAP_BYTES, "max_entry_bytes": _MAX_ENTRY_BYTES, "legacy_lists_ttl_s": 60}

    def introduce(self, case: Case) -> None:
        """All may read but Dora, who has lost her role."""
        self._turns[case.id] += 1
        self.mark = f"{case.id}.{self._turns[case.id]}"
        for name in TOKENS.values():
            self.around.mint.give(name, self.around.mint.token(name, roles=[READER]))

    def dressed(self, sent: bytes) -> bytes:
        return sent.replace(b"\r\n", f"\r\n{MARK}: {self.mark}\r\n".encode(), 1)

    async def settle(self, case: Case) -> dict[str, Any]:
        for words in (case.title, *case.setup):
            for pattern, setup in _SETUPS:
                if match := pattern.fullmatch(words):
                    return await setup(self, case, match)
        return {}

    def like(
        self,
        case: Case,
        who: str = ALICE,
        *,
        arguments: Mapping[str, Any] | None = None,
        body: bytes | None = None,
        token: str | None = None,
        mark: str | None = None,
        without: Iterable[str] = (),
        fields: Mapping[str, str] = _NO_FIELDS,
    ) -> bytes:
        """The request of a case, but by `who`, and with other arguments or another body, `without` some headers and
        with other `fields`."""
        document = json.loads(self.around.mint.fill(case.request.content or b"{}"))
        if arguments is not None:
            document["params"]["arguments"] = arguments
        bearer = token or self.around.mint.value(TOKENS[who])
        left = {name: value for name, value in case.request.headers.items() if name not in without}
        own = {"Authorization": f"Bearer {bearer}", MARK: mark or self.mark}
        return self.framed(json.dumps(document).encode() if body is None else body, {**left, **own, **fields})

    async def tell(
        self, request: bytes, who: str = ALICE, *, script: Script | None = None, port: int | None = None
    ) -> Told:
        """Somebody asks, while upstream plays a script."""
        self.around.upstream.begin(script, sends_discover=False)
        exchange = await self.say(request, port)
        answer = next(iter(exchange.answers), None)
        return Told(
            who=who,
            number=None if answer is None else number_of(answer),
            is_kept=not self.around.upstream.take()[0],
            body=b"" if answer is None else answer.body[:4096],
        )

    async def keep(
        self, request: bytes, who: str = ALICE, *, script: Script | None = None, port: int | None = None
    ) -> Told:
        """The same, and the answer is kept. Raises CorpusError where it is not, or was before."""
        first = await self.tell(request, who, script=script, port=port)
        again = await self.tell(request, who, port=port)
        if first.number is None or first.is_kept or not again.is_kept or again.number != first.number:
            raise CorpusError(f"an answer to {who} was not kept, but {first.body[:200]!r}")
        return first


class SharedKeepStand(KeepStand):
    """Two replicas with one store: what `writer` keeps is not in the memory of the one that the case is put to."""

    def __init__(self, around: Around, name: str, form: str) -> None:
        self.store = Valkey()
        self.store.start()
        self._secret = around.folder / f"{name}.secret"
        self._secret.write_text(secrets.token_hex(32), encoding="ascii")
        super().__init__(around, name, form)
        self.cursed: Path | None = None
        """A folder that is made by whoever unpickles what was put into the store."""
        self.writer = Sidecar(self.argv(), around.folder, f"{name}-writer", self.settings)

    def sections(self) -> dict[str, Any]:
        # A busy machine makes no outage: longer than the 50 ms that are usual.
        store = {"url": self.store.url, "timeout_s": 5}
        return {**super().sections(), "shared_state": store}

    def cache(self) -> dict[str, Any]:
        return {**super().cache(), "shared": True, "secret": f"${{file:{self._secret}}}"}

    async def start(self) -> None:
        await asyncio.gather(super().start(), self.writer.start())

    async def stop(self, *, politely: bool = True) -> None:
        await super().stop(politely=politely)
        self.writer.stop(politely=politely)
        self.store.kill()

    async def settle(self, case: Case) -> dict[str, Any]:
        """What one replica keeps the other one tells: else nobody would read what lies in the store."""
        for turn in range(_TURNS):
            control = self.like(case, mark=f"{self.mark}.control.{turn}")
            first = await self.tell(control, port=self.writer.data_port)
            again = await self.tell(control)
            if again.is_kept and again.number == first.number:
                return await super().settle(case)
        raise CorpusError("the replicas share nothing")

    async def stored(self, request: bytes, who: str) -> tuple[Told, bytes]:
        """What somebody is told by the writer, and the key in the store under which it is kept."""
        before = self._keys()
        told = await self.keep(request, who, port=self.writer.data_port)
        new = self._keys() - before
        if len(new) != 1:
            raise CorpusError(f"an answer made {len(new)} keys in the store")
        return told, new.pop()

    def _keys(self) -> set[bytes]:
        found = self.store.say("KEYS", "*:entry:*")
        assert isinstance(found, list)
        return set(found)


class Curse:
    """What leaves a folder behind wherever it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self._folder),)


async def asked_before(stand: KeepStand, case: Case, match: re.Match[str]) -> dict[str, Any]:
    return {"told": (await stand.keep(stand.like(case)),)}


async def asked_with(stand: KeepStand, case: Case, match: re.Match[str]) -> dict[str, Any]:
    return {"told": (await stand.keep(stand.like(case, arguments=json.loads(match[1]))),)}


async def asked_with_id(stand: KeepStand, case: Case, match: re.Match[str]) -> dict[str, Any]:
    document = {**json.loads(case.request.content or b"{}"), "id": int(match[1])}
    return {"told": (await stand.keep(stand.like(case, body=json.dumps(document).encode())),)}


async def shifted(stand: KeepStand, case: Case, match: re.Match[str]) -> dict[str, Any]:
    """The other half of the title: what the case's tool and argument begin with, one after another."""
    document = json.loads(case.request.content or b"{}")
    params = {"name": "read_doc", "arguments": {"doc": "x"}}
    assert document["params"]["name"] + document["params"]["arguments"]["doc"] == "read_docx"
    body = json.dumps({**document, "params": params}).encode()
    return {"told": (await stand.keep(stand.like(case, body=body)),)}


async def private(stand: KeepStand, case: Case, match: re.Match[str]) -> dict[str, Any]:
    script = Script(result=_result(cacheScope="private"))
    return {"told": (await stand.keep(stand.like(case), script=script),)}


async def older_client(stand: KeepStand, case: Case, match: re.Match[str]) -> dict[str, Any]:
    document = json.loads(case.request.content or b"{}")
    del document["params"]["_meta"]
    mirrors = ("Mcp-Method", "Mcp-Name")
    body = json.dumps(document).encode()
    request = stand.like(case, body=body, without=mirrors, fields={"MCP-Protocol-Version": LEGACY})
    return {"told": (await stand.keep(request),)}


async def on_a_stream(stand: KeepStand, case: Case, match: re.Match[str]) -> dict[str, Any]:
    answer = json.dumps({"jsonrpc": "2.0", "id": 1, "result": _result()}).encode()
    send = _STREAM_HEAD + b"event: message\ndata: %b\n\n" % answer
    request = stand.like(case, fields={"Accept": "application/json, text/event-stream"})
    return {"told": (await stand.keep(request, script=Script(send=send, then="close")),)}


async def while_allowed(stand: KeepStand, case: Case, match: re.Match[str]) -> dict[str, Any]:
    token = stand.around.mint.token("TOK_DEMOTED", roles=["admin"])
    return {"told": (await stand.keep(stand.like(case, token=token), DORA),)}


def first(script: Callable[[], Script]) -> Setup:
    """A setup: the case's own request was answered so before, and nobody knows yet whether that is kept."""

    async def answered(stand: KeepStand, case: Case, match: re.Match[str]) -> dict[str, Any]:
        told = await stand.tell(stand.like(case), script=script())
        if told.is_kept:
            raise CorpusError("the first request of the case did not reach the server")
        return {"told": (told,)}

    return answered


async def left(stand: KeepStand, case: Case, match: re.Match[str]) -> dict[str, Any]:
    """A client leaves while its answer arrives upstream: its head has come, and half of its body."""
    upstream, sidecar = stand.around.upstream, stand.sidecar
    answer = as_json(200, {"jsonrpc": "2.0", "id": 1, "result": _result()})
    upstream.begin(Script(send=answer[:-20], then="hang"), sends_discover=False)
    mark = sidecar.log_size()
    connection = Connection()
    await connection.open(sidecar.data_port)
    await connection.send(stand.like(case))
    await _must(lambda: upstream.sent_bytes >= len(answer) - 20, "the server was not asked")
    connection.close(reset=True)
    await _must(lambda: b'"tool":"read_doc"' in sidecar.log_since(mark), "the call did not end")
    return {}


async def list_changed(stand: KeepStand, case: Case, match: re.Match[str]) -> dict[str, Any]:
    """A list was kept, and then the server says on the stream of a call that it has changed."""
    old = Script(tools=({**TOOLS[0], "description": "Of old."},), hints={})
    told = await stand.keep(stand.like(case), script=old)
    message = {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}
    answer = {"jsonrpc": "2.0", "id": 1, "result": _result()}
    events = b"".join(b"data: %b\n\n" % json.dumps(each).encode() for each in (message, answer))
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "echo", "arguments": {}}}
    request = stand.like(case, body=json.dumps(call).encode())
    await stand.tell(request, script=Script(send=_STREAM_HEAD + events, then="close"))
    return {"told": (told,)}


async def odd_hint(stand: KeepStand, case: Case, match: re.Match[str]) -> dict[str, Any]:
    """A list that says so; one that says nothing is kept."""
    await stand.keep(stand.like(case, mark=f"{stand.mark}.control"), script=Script(hints={}))
    hints = {"ttlMs": json.loads(match[1]), "cacheScope": "public"}
    return {"told": (await stand.tell(stand.like(case), script=Script(hints=hints)),)}


async def empty(stand: KeepStand, case: Case, match: re.Match[str]) -> dict[str, Any]:
    """Of what the case asks for: its header is new."""
    return {}


async def huge(stand: KeepStand, case: Case, match: re.Match[str]) -> dict[str, Any]:
    """Nothing yet: from here on memory is measured, after a call of which everything that calls need is there."""
    await stand.keep(stand.like(case, arguments={"mb": 0}))
    stand.sidecar.forget_peak()
    return {"rss_growth_bytes": -stand.sidecar.rss_bytes()}


async def pickled(stand: SharedKeepStand, case: Case, match: re.Match[str]) -> dict[str, Any]:
    """Whoever unpickles what lies there makes a folder."""
    _, key = await stand.stored(stand.like(case), ALICE)
    folder = stand.around.folder / f"unpickled-{secrets.token_hex(4)}"
    stand.store.client.set(key, pickle.dumps(Curse(folder)), keepttl=True)
    stand.cursed = folder
    return {}


async def copied(stand: SharedKeepStand, case: Case, match: re.Match[str]) -> dict[str, Any]:
    told, hers = await stand.stored(stand.like(case, CAROL), CAROL)
    _, key = await stand.stored(stand.like(case), ALICE)
    value = stand.store.client.get(hers)
    assert isinstance(value, bytes)
    stand.store.client.set(key, value, keepttl=True)
    return {"told": (told,)}


async def leaving(stand: SharedKeepStand, case: Case, match: re.Match[str]) -> dict[str, Any]:
    """Three callers read what was kept for each, and some of them leave before the store answers."""
    wanted = [
        (who, f"{number}", stand.like(case, who, arguments={"doc": f"{number}"}))
        for number in range(DOCS)
        for who in (ALICE, BOB, CAROL)
    ]
    kept = await asyncio.gather(*(_kept(stand, wanted[at::_WRITERS]) for at in range(_WRITERS)))
    numbers = {name: number for each in kept for name, number in each.items()}
    readings: list[Reading] = []
    stand.around.upstream.begin(None, sends_discover=False)
    for at in range(0, len(wanted), _AT_ONCE):
        group = wanted[at : at + _AT_ONCE]
        leavers = {(at // _AT_ONCE + step * _AT_ONCE // _LEAVE) % len(group) for step in range(_LEAVE)}
        told = await _read_at_once(stand, [request for _, _, request in group], leavers)
        readings += [
            Reading(
                who=who, doc=doc, number=numbers[who, doc], told=told.get(place), has_left=place in leavers
            )
            for place, (who, doc, _) in enumerate(group)
        ]
    return {"readings": tuple(readings)}


async def _kept(
    stand: SharedKeepStand, wanted: list[tuple[str, str, bytes]]
) -> dict[tuple[str, str], str | None]:
    """The numbers of what the writer tells to each of each document."""
    connection = Connection()
    await connection.open(stand.writer.data_port)
    try:
        return {(who, doc): _number(await answer_on(connection, request)) for who, doc, request in wanted}
    finally:
        connection.close()


async def _read_at_once(
    stand: SharedKeepStand, requests: list[bytes], leavers: set[int]
) -> dict[int, str | None]:
    """The numbers that are told to those who stay, by their place. The store stands still until the others have left,
    inside the read, and the sidecar has seen it."""
    sidecar, store = stand.sidecar, stand.store
    connections = [Connection() for _ in requests]
    for connection in connections:
        await connection.open(sidecar.data_port)
    stayed = [place for place in range(len(requests)) if place not in leavers]
    mark = sidecar.log_size()
    store.hang()
    try:
        least = unread_bytes_at(store.port) + len(requests) * _LEAST_BYTES
        # Who leaves asks first: what the replicas ask the store of themselves may be taken for the last of them.
        for place in (*leavers, *stayed):
            await connections[place].send(requests[place])
        await _must(lambda: unread_bytes_at(store.port) >= least, "the store was not asked")
        for place in leavers:
            connections[place].close(reset=True)
        ended = b'"tool":"read_doc"'
        await _must(lambda: sidecar.log_since(mark).count(ended) >= len(leavers), "nobody has left")
    finally:
        store.go_on()
    answers = await asyncio.gather(*(answer_on(connections[place]) for place in stayed))
    for place in stayed:
        connections[place].close()
    return {place: _number(answer) for place, answer in zip(stayed, answers, strict=True)}


def _number(answer: Message | None) -> str | None:
    return None if answer is None else number_of(answer)


def _result(**members: Any) -> dict[str, Any]:
    """A result with a number of its own."""
    number = f"corpus-answer-{secrets.token_hex(4)}"
    return {"content": [{"type": "text", "text": "told before"}], "_meta": {NUMBER: number}, **members}


def _error() -> Script:
    error = {"code": -32603, "message": "of old"}
    return Script(send=as_json(200, {"jsonrpc": "2.0", "id": 1, "error": error}))


def _cut() -> Script:
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "result": _result()}).encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n"
    return Script(send=head + body[: len(body) // 2], then="close")


def _half_a_stream() -> Script:
    message = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": 1}}
    return Script(send=_STREAM_HEAD + b"data: %b\n\n" % json.dumps(message).encode(), then="close")


_STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
_SETUPS: tuple[tuple[re.Pattern[str], Setup], ...] = tuple(
    (re.compile(words), setup)
    for words, setup in (
        (r"Alice asked (?:the same )?before", asked_before),
        (r"Alice asked; upstream result has cacheScope private", private),
        (r"first answer was error -32603", first(_error)),
        (r"first answer was result with isError true", first(lambda: Script(result=_result(isError=True)))),
        (r"first answer was 500", first(lambda: Script(send=plain(500, b"of old")))),
        (r"first answer cut: no Content-Length, connection closed in the middle of JSON", first(_cut)),
        (r"first answer was SSE with 1 event then close", first(_half_a_stream)),
        (r"first client reset after headers", left),
        (r"first answer resultType input_required", first(Script)),
        # It says that everybody may have it for a long time.
        (r"same call before", first(lambda: Script(result=_result(ttlMs=60_000, cacheScope="public")))),
        (r"asked with id (\d+)", asked_with_id),
        (r"asked with (\{.*\})", asked_with),
        (r"delimiter shift between tool and arguments", shifted),
        (r"asked by a 2025-11-25 client", older_client),
        (r"asked by an SSE client", on_a_stream),
        (r"entry stored while allowed", while_allowed),
        (r"upstream sent notifications/tools/list_changed", list_changed),
        (r"upstream ttlMs (\S+)", odd_hint),
        (r"empty cache|unkeyed argument list configured", empty),
        (r"entry of 64 MB", huge),
        (r"redis: value = pickle bytes", pickled),
        (r"redis: value of Carol copied to the key of Alice", copied),
        (r"fault: 5 % of clients reset inside the cache read, 20 000 requests", leaving),
    )
)
"""What a `setup`, or a title, says was so before the case."""

SAME_KEY = "cache key equal to the one of 0.1 without policy saying so"
_SHARED = frozenset({"CACHE-051", "CACHE-052", "CACHE-053"})


def knows(sentence: str) -> bool:
    """Whether it is a setup that is done here."""
    return any(pattern.fullmatch(sentence) for pattern, _ in _SETUPS)


def stand_of(case: Case) -> type[KeepStand] | None:
    """Which of them a case is put to, None where it is not about kept answers."""
    if case.id in _SHARED:
        return SharedKeepStand
    return KeepStand if case.category == "cache" or SAME_KEY in case.texts() else None


async def _must(is_so: Callable[[], bool], otherwise: str) -> None:
    """Wait until something is so. Raises CorpusError, which says `otherwise`."""
    if not await until(is_so):
        raise CorpusError(otherwise)
