"""Is any answer ever told to the wrong one? `python -m tests.bench.cache_mixed --calls 1000000`: fifty callers of ten
tenants, reads that are kept for each, for tenants and for all, writes, tools nobody may use, and one call in twenty
given up; through a real sidecar, over sockets. Every answer says to which request it was one.

In: how many calls. Out: counts, and exit code 1 where one answer was wrong. What is compared, for each answer:

    whose     the same caller's, the same tenant's, anybody's: as the rule says, and the server where it says less;
              writes and what is not kept: one's own
    to what   the same tool and arguments, types included, but for an argument that does not count
    its id    the caller's
    how old   no older than the last write that its tenant was told of before it asked
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from array import array
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final, cast

import uvloop
from msgspec import Struct

from proxy.cache.entry import MARK
from proxy.refusals import META_KEY
from tests.conformance.processes import ProcessFailed
from tests.integration.keys import let_in

from .cache_hits import settings_of
from .processes import program, sidecar
from .wire import body_length, head_end

PEOPLE: Final = 50
TENANTS: Final = 10
CONNECTIONS: Final = 48
LEAVING: Final = 0.05
STUCK_S: Final = 30.0
"""Without any answer."""
QUIET_ABOVE: Final = 100_000
"""Calls of which no line is kept: a million are 400 MB."""

_KEPT: Final[dict[str, Any]] = {"allow": ["user"], "class": "read"}
RULES: Final = {
    "tools": [
        {"match": "own_*", **_KEPT, "cache": {"ttl_s": 600}},
        {"match": "team_*", **_KEPT, "cache": {"ttl_s": 600, "share": "tenant"}},
        {"match": "pub_*", **_KEPT, "cache": {"ttl_s": 600, "share": "all"}},
        {"match": "short_*", **_KEPT, "cache": {"ttl_s": 0.05, "share": "tenant", "stale_if_error_s": 1}},
        {"match": "loose_*", **_KEPT, "cache": {"ttl_s": 600, "share": "tenant", "vary": {"ignore": ["t"]}}},
        {"match": "plain_*", **_KEPT},
        {"match": "write_*", "allow": ["user"], "class": "write", "forget": ["*_a"]},
        {"match": "secret_*", "allow": ["admin"], "class": "read", "cache": {"ttl_s": 600, "share": "all"}},
    ]
}
SCOPES: Final = {"own": 0, "team": 1, "pub": 2, "short": 1, "loose": 1, "plain": -1, "write": -1}
"""Who else may be told: nobody, the tenant, everybody; below 0: nobody at all, not even the same caller again."""
TOOLS: Final = (
    *("own_a", "own_b", "team_a", "team_b", "pub_a", "pub_b", "short_a", "loose_a", "loose_b", "plain_a"),
    "secret_a",
)
WRITE: Final = "write_a"
DOCS: Final[tuple[object, ...]] = (0, 1, "1", 1.0, True, None)


class Kind(Struct, frozen=True):
    """Equal calls."""

    tool: str
    arguments: str
    """As JSON; 1, 1.0, "1" and true are four texts."""
    counted: str
    """Those that count."""

    @property
    def family(self) -> str:
        return self.tool.partition("_")[0]


def kinds() -> list[Kind]:
    """Everything that is asked beside writes."""
    found: list[Kind] = []
    for tool in TOOLS:
        for doc in DOCS:
            plain = json.dumps({"doc": doc})
            found.append(Kind(tool, plain, plain))
            if tool.startswith("loose"):
                found.append(Kind(tool, json.dumps({"doc": doc, "t": 1}), plain))
    return found


class Call(Struct):
    """One that is under way."""

    id: int
    who: int
    kind: Kind
    seen: int
    """The write that its tenant was told of last."""


class Book:
    """What was asked and what was told. Pure but for its dice."""

    def __init__(self, calls: int, seed: int) -> None:
        self._chance = random.Random(seed)
        self._left = calls
        self._kinds = [*kinds(), Kind(WRITE, "{}", "{}")]
        self._numbers = {kind: number for number, kind in enumerate(self._kinds)}
        self._who = array("B")
        self._what = array("H")
        self._written = [0] * TENANTS
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []

    @property
    def is_over(self) -> bool:
        return self._left <= 0

    def next(self) -> Call:
        self._left -= 1
        chance = self._chance
        who = chance.randrange(PEOPLE)
        kind = chance.choice(self._kinds) if chance.random() > 0.01 else self._kinds[-1]
        return self.note(who, kind, self.written(who))

    def note(self, who: int, kind: Kind, seen: int) -> Call:
        """A call that is made now."""
        self._who.append(who)
        self._what.append(self._numbers[kind])
        return Call(len(self._who) - 1, who, kind, seen)

    def written(self, who: int) -> int:
        """Which turn of the server's the last write was that the caller's tenant was told of."""
        return self._written[who % TENANTS]

    def leaves_after_s(self) -> float | None:
        """When its caller gives up; None: it waits."""
        return self._chance.random() * 0.004 if self._chance.random() < LEAVING else None

    def left(self) -> None:
        self.counts["given up"] += 1

    def told(self, call: Call, status: int, body: bytes) -> None:
        """Compare an answer; what is wrong with it stands in `wrong`."""
        why = self._compare(call, status, body)
        if why:
            self.counts["wrong"] += 1
            if len(self.wrong) < 10:
                self.wrong.append(f"call {call.id} of {call.who}, {call.kind}: {why}: {body[:300]!r}")

    def _compare(self, call: Call, status: int, body: bytes) -> str:
        if body.startswith(b": "):
            body = body.partition(b"data: ")[2]
        if status == 503 and body == b"oops":
            self.counts["failed"] += 1
            return "" if call.kind.family != "secret" else "it was asked for"
        said = json.loads(body)
        if said["id"] != call.id or isinstance(said["id"], str):
            return "another id"
        result = said["result"]
        refusal = result.get("_meta", {}).get(META_KEY)
        if call.kind.family == "secret":
            self.counts["denied"] += 1
            return "" if refusal is not None and refusal["reason"] == "not_allowed" else "it was not denied"
        if refusal is not None:
            self.counts["failed"] += 1
            return "" if refusal["reason"] in ("outcome_unknown", "upstream_broke") else "it was refused"
        return self._compare_nonce(call, result)

    def _compare_nonce(self, call: Call, result: Any) -> str:
        first, turn, tool, arguments = json.loads(result["content"][0]["text"])
        kind = call.kind
        is_kept = MARK in result.get("_meta", {})
        self.counts["kept or joined" if is_kept else "asked"] += 1
        if call.kind.tool == WRITE:
            tenant = call.who % TENANTS
            self._written[tenant] = max(self._written[tenant], turn)
        if first == call.id:
            return (
                "" if not is_kept and json.dumps(arguments) == kind.arguments else "it is not what was asked"
            )
        if not is_kept:
            return "it is another's, and nobody says so"
        scope, other = SCOPES[kind.family], self._who[first]
        original = self._kinds[self._what[first]]
        if scope < 0 or result.get("isError"):
            return "it must not be kept"
        if original.tool != tool or json.dumps(arguments) != original.arguments:
            return "it is not what another asked"
        if tool != kind.tool or original.counted != kind.counted:
            return "it answers another question"
        if other != call.who and original.arguments != original.counted:
            return "it may have been made up by another"
        if (scope == 0 or result.get("cacheScope") == "private") and other != call.who:
            return "it is another caller's"
        if scope == 1 and other % TENANTS != call.who % TENANTS:
            return "it is another tenant's"
        if tool.endswith("_a") and turn < call.seen:
            return "it is older than a write"
        return ""


class Caller(asyncio.Protocol):
    """One connection: the next call when the last is answered; a new connection when it gave one up."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._buffer = b""
        self._call: Call | None = None
        self._leaving: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self._next()

    def _next(self) -> None:
        assert self._transport is not None
        book = self._run.book
        if book.is_over:
            self._transport.close()
            return
        self._call = call = book.next()
        after_s = book.leaves_after_s()
        self._transport.write(self._run.request(call))
        if after_s is not None:
            self._leaving = asyncio.get_running_loop().call_later(after_s, self._leave)

    def _leave(self) -> None:
        self._leaving = None
        if self._call is not None and self._transport is not None:
            self._run.book.left()
            self._call = None
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        start = head_end(self._buffer)
        if start < 0 or self._call is None:
            return
        head = self._buffer[:start]
        if b"transfer-encoding: chunked" in head.lower():
            if not self._buffer.endswith(b"\r\n0\r\n\r\n"):
                return
            body = _unchunked(self._buffer[start:])
        elif len(self._buffer) < start + body_length(head):
            return
        else:
            body = self._buffer[start:]
        call, self._call, self._buffer = self._call, None, b""
        if self._leaving is not None:
            self._leaving.cancel()
            self._leaving = None
        self._run.answered += 1
        self._run.book.told(call, int(head[9:12]), body)
        self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._leaving is not None:
            self._leaving.cancel()
        if self._call is not None:
            self._run.book.counts["cut off"] += 1
        self._run.lost()


def _unchunked(body: bytes) -> bytes:
    pieces: list[bytes] = []
    while body:
        size, _, body = body.partition(b"\r\n")
        pieces.append(body[: int(size, 16)])
        body = body[int(size, 16) + 2 :]
    return b"".join(pieces)


class Run:
    """Keeps the connections, until every call was made."""

    def __init__(self, port: int, keys: list[str], book: Book) -> None:
        self.book = book
        self.answered = 0
        self._port = port
        self._open = 0
        self._over = asyncio.Event()
        self._opening: set[asyncio.Task[object]] = set()
        self._heads = [
            (
                "POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: application/json, text/event-stream\r\n"
                "Content-Type: application/json\r\nMCP-Protocol-Version: 2026-07-28\r\n"
                f"Mcp-Method: tools/call\r\nX-API-Key: {key}\r\n"
            ).encode()
            for key in keys
        ]

    def request(self, call: Call) -> bytes:
        body = (
            b'{"jsonrpc":"2.0","id":%d,"method":"tools/call","params":{"name":"%b","arguments":%b,"_meta":%b}}'
            % (call.id, call.kind.tool.encode(), call.kind.arguments.encode(), _META)
        )
        named = b"Mcp-Name: %b\r\nContent-Length: %d\r\n\r\n" % (call.kind.tool.encode(), len(body))
        return self._heads[call.who] + named + body

    async def __call__(self) -> None:
        """Raises ProcessFailed where nothing is answered any more."""
        for _ in range(CONNECTIONS):
            self._connect()
        before = -1
        while not self._over.is_set():
            if before == self.answered:
                raise ProcessFailed(f"no answer for {STUCK_S:g} s")
            before = self.answered
            await asyncio.wait({asyncio.ensure_future(self._over.wait())}, timeout=STUCK_S)

    def _connect(self) -> None:
        self._open += 1
        loop = asyncio.get_running_loop()
        task: asyncio.Task[object] = loop.create_task(_connected(loop, lambda: Caller(self), self._port))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    def lost(self) -> None:
        self._open -= 1
        if not self.book.is_over:
            self._connect()
        elif not self._open:
            self._over.set()


async def _connected(loop: asyncio.AbstractEventLoop, make: Any, port: int) -> None:
    await loop.create_connection(make, "127.0.0.1", port)


_META: Final = json.dumps(
    {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    }
).encode()


async def mixed(calls: int, seed: int, folder: Path) -> Book:
    """Make so many calls. Raises ProcessFailed where a process fails."""
    people = {
        f"p{number}.secret-of-p{number:04}": (f"t{number % TENANTS}", f"p{number}", ["user"])
        for number in range(PEOPLE)
    }
    if calls > QUIET_ABOVE:
        (folder / "sidecar.log").symlink_to("/dev/null")
    book = Book(calls, seed)
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(program("nonce_server", logs=folder))
        settings = (*settings_of(RULES), let_in(folder, people))
        proxy = await stack.enter_async_context(sidecar(upstream.port, folder, *settings))
        await Run(proxy.port, list(people), book)()
    return book


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.cache_mixed")
    parser.add_argument("--calls", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="mcp-sidecar-bench-") as folder:
        try:
            book = uvloop.run(mixed(options.calls, options.seed, Path(folder)))
        except ProcessFailed as failed:
            print(failed, file=sys.stderr)
            return 1
    seconds = time.perf_counter() - started
    print(f"{options.calls:,} calls in {seconds:.0f} s, seed {options.seed}")
    for name, count in sorted(book.counts.items()):
        print(f"{name:<16}{count:>12,}")
    print("\n".join(book.wrong) or "0 wrong answers")
    return 1 if book.counts["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
