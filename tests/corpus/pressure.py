"""Many connections, resets, readers that never read: the sends that one request on one connection is not.

Each returns changes to the Evidence: what was measured from outside while the sidecar was under pressure.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct

from tests.corpus import client
from tests.corpus.client import Connection
from tests.corpus.evidence import outcome
from tests.corpus.sidecar import unread_bytes
from tests.corpus.stand import Stand
from tests.corpus.wire import Message, read_answers

_SETTLE_S = 3.0
_AT_ONCE = 4


async def crowd(stand: Stand, sent: bytes, count: int) -> dict[str, Any]:
    """`count` connections with an unfinished request each, and one well-behaved client."""
    began = time.monotonic()
    connections = await client.occupy(stand.sidecar.data_port, count, sent)
    try:
        asked = time.monotonic()
        answered = await stand.barrier()
        waited_s = time.monotonic() - asked
    finally:
        for connection in connections:
            connection.close(reset=True)
    return {"held_s": time.monotonic() - began, "valid_client_s": waited_s if answered else None}


async def storm(stand: Stand, sent: bytes, per_second: int) -> dict[str, Any]:
    """A second of connections that are reset."""
    sidecar = stand.sidecar
    mark = sidecar.log_size()
    fds = await _settled(sidecar.open_fds)
    took_s = await client.reset_storm(sidecar.data_port, per_second, sent)
    await stand.barrier()
    fds_after = await _settled(sidecar.open_fds)
    lines = sidecar.log_since(mark).count(b"\n")
    return {"held_s": took_s, "fds_growth": fds_after - fds, "log_lines": lines, "storm_s": took_s}


async def unread(stand: Stand, sent: bytes) -> dict[str, Any]:
    """A client that asks for much and reads nothing."""
    sidecar, upstream = stand.sidecar, stand.around.upstream
    await stand.barrier()
    rss = sidecar.rss_bytes()
    connection = await client.ask_and_never_read(sidecar.data_port, sent)
    peak, quiet_since, last = rss, time.monotonic(), -1
    ended = time.monotonic() + _SETTLE_S
    # Until upstream's answer has stood still for half a second, or three have passed.
    while time.monotonic() < ended and (last <= 0 or time.monotonic() - quiet_since < 0.5):
        peak = max(peak, sidecar.rss_bytes())
        if upstream.sent_bytes != last:
            last, quiet_since = upstream.sent_bytes, time.monotonic()
        await asyncio.sleep(0.02)
    read_bytes = upstream.sent_bytes - unread_bytes(upstream.port)
    connection.close(reset=True)
    return {"held_s": _SETTLE_S, "rss_growth_bytes": peak - rss, "upstream_read_bytes": read_bytes}


async def repeated(
    port: int, request: Callable[[], bytes], times: int, source: str | None = None
) -> tuple[int, ...]:
    """Statuses of `times` requests on four kept connections."""

    async def some(count: int) -> list[int]:
        connection = Connection(source=source)
        await connection.open(port)
        try:
            return [status for _ in range(count) if (status := await _status(connection, request()))]
        finally:
            connection.close()

    lists = await asyncio.gather(*(some(times // _AT_ONCE) for _ in range(_AT_ONCE)))
    return tuple(code for codes in lists for code in codes)


class Tried(Struct, frozen=True):
    """One request of a crowd."""

    outcome: str
    """As `evidence.outcome` has it."""
    sent_at: float
    """Seconds, monotonic."""
    answered_at: float


async def crowd_of(
    ports: Sequence[int], requests: Sequence[bytes], *, at_once: int = _AT_ONCE, sources: Sequence[str] = ()
) -> list[Tried]:
    """What became of requests on so many connections, dealt out to the ports by turns, in no order.

    All connections are open before the first request is sent. A connection that ends is replaced. With `sources` each
    request has a connection of its own, from the address with its number.
    """
    gate = asyncio.Barrier(at_once)

    async def some(first: int) -> list[Tried]:
        port = ports[first % len(ports)]
        connection: Connection | None = None
        found = []
        try:
            for at in range(first, len(requests), at_once):
                if connection is None:
                    connection = Connection(source=sources[at] if sources else None)
                    await connection.open(port)
                if at == first:
                    await gate.wait()
                sent_at = time.monotonic()
                answer = await answer_on(connection, requests[at])
                found.append(Tried(outcome(answer), sent_at, time.monotonic()))
                if answer is None or sources:
                    connection.close()
                    connection = None
        finally:
            if connection is not None:
                connection.close()
        return found

    assert at_once <= len(requests)
    lists = await asyncio.gather(*map(some, range(at_once)))
    return [tried for each in lists for tried in each]


async def timed(port: int, requests: list[bytes], source: str) -> list[tuple[int, float]]:
    """Status and time of each request, one after another on one kept connection."""
    connection = Connection(source=source)
    await connection.open(port)
    found = []
    try:
        for request in requests:
            asked = time.perf_counter()
            status = await _status(connection, request)
            found.append((status, time.perf_counter() - asked))
    finally:
        connection.close()
    return found


async def _status(connection: Connection, request: bytes) -> int:
    """Status of one answer, 0 when the connection ends before."""
    answer = await answer_on(connection, request)
    return 0 if answer is None else answer.status


async def answer_on(connection: Connection, request: bytes = b"") -> Message | None:
    """One answer, None when the connection ends before; bytes behind it are not looked at. Without a request: to one
    that was sent."""
    loop = asyncio.get_running_loop()
    data = b""
    try:
        await loop.sock_sendall(connection.socket, request)
        while not (found := read_answers(data, closed=False)[0]):
            chunk = await loop.sock_recv(connection.socket, 65536)
            if not chunk:
                return None
            data += chunk
    except OSError:
        return None
    return found[0]


async def _settled(count: Callable[[], int]) -> int:
    """A count once it has stopped falling, for three seconds at most."""
    least, since = count(), time.monotonic()
    ended = since + _SETTLE_S
    while time.monotonic() < min(ended, since + 0.3):
        if (now := count()) < least:
            least, since = now, time.monotonic()
        await asyncio.sleep(0.02)
    return least
