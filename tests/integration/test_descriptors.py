"""File descriptors run out, in a real process with few of them: nobody is cut off, probes are answered, and it comes
back. Source: issue 7, 7.

Before there was a guard, with 128 descriptors and 300 clients: uvloop accepted and closed every connection on both
ports, probes too; asyncio's loop used a whole core, wrote 26 MB of log a second and answered no probe.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import pytest

from proxy.upstream.probe import Probe
from proxy.upstream.settings import UpstreamSettings
from proxy.upstream.transport import NoRoom, Transport
from proxy.upstream.transport_aiohttp import AiohttpTransport
from proxy.upstream.transport_lean import LeanTransport
from tests.integration.conftest import Connect
from tests.integration.house import Process, probe, process, run_words
from tests.integration.upstream import Exchange, Upstream
from tests.integration.waiting import until, within
from tests.integration.wire import post, request, result, tool_call

DESCRIPTORS = 128
RESERVE = 32
FLOOD = 300
WITHOUT_UVLOOP = 'import sys; sys.modules["uvloop"] = None; from proxy.__main__ import main; sys.exit(main())'
TRANSPORTS = [AiohttpTransport, LeanTransport]
REASON = "file descriptors are used up, and no connections are accepted"
REFUSAL = "dev.mcp-sidecar/refusal"


async def serve(exchange: Exchange) -> None:
    exchange.answer(result(json.loads(exchange.request.body)["id"]))


def opened(running: Process) -> int:
    return len(os.listdir(f"/proc/{running.process.pid}/fd"))


def cpu_s(running: Process) -> float:
    fields = Path(f"/proc/{running.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def said(running: Process, msg: str) -> list[dict[str, object]]:
    return [line for line in running.lines.life if line["msg"] == msg]


async def until_said(running: Process, msg: str) -> None:
    await running.lines.when(lambda lines: any(line["msg"] == msg for line in lines.life))


@pytest.mark.parametrize("start", [("-m", "proxy"), ("-c", WITHOUT_UVLOOP)], ids=["uvloop", "asyncio"])
async def test_a_flood_of_clients_waits_and_probes_are_answered(
    upstream: Upstream, connect: Connect, start: Sequence[str]
) -> None:
    """No busy loop, the operations port answers, one line, and everybody is served in the end."""
    upstream.follow(serve)
    async with process(*run_words(upstream.url), start=start, descriptors=f"-n {DESCRIPTORS}") as running:
        data, operations = await running.listening()
        clients = [await connect(data) for _ in range(FLOOD)]
        await until_said(running, "no connections are accepted")
        loop = asyncio.get_running_loop()
        began_s, used_s = loop.time(), cpu_s(running)
        for _ in range(20):
            assert (await probe(operations, "/healthz")).status == 200
        assert (await probe(operations, "/startupz")).status == 200
        answer = await probe(operations, "/readyz")
        assert (answer.status, answer.json) == (200, {"status": "degraded", "reasons": [REASON]})
        assert DESCRIPTORS - RESERVE <= opened(running) + 4 < DESCRIPTORS
        await until_said(running, "degraded")
        assert cpu_s(running) - used_s < 0.5 * (loop.time() - began_s) + 0.1
        # Who is in is served, and everybody else when those leave; nobody was cut off.
        for number, client in enumerate(clients):
            async with within(10):
                assert (await client.asked(post(tool_call(id=number)))).body == result(number)
            client.close()
        await until_said(running, "recovered")
        assert (await (await connect(data)).asked(request("GET", "/nothing"))).status == 404
        assert len(said(running, "no connections are accepted")) == 1
        assert running.other == []


async def test_a_server_is_not_blamed_for_our_lack_of_descriptors(
    upstream: Upstream, connect: Connect
) -> None:
    """Nothing was sent: `overloaded`, to be repeated, and no failure for the breaker; what is under way goes on."""
    held: list[Exchange] = []
    release = asyncio.Event()

    async def hold(exchange: Exchange) -> None:
        held.append(exchange)
        await release.wait()
        await serve(exchange)

    upstream.follow(hold)
    words = run_words(upstream.url, "resilience.breaker.failures=1", "capacity.max_in_flight=200")
    async with process(*words, descriptors=f"-n {DESCRIPTORS}") as running:
        data, operations = await running.listening()
        clients = [await connect(data) for _ in range(70)]
        for client in clients:
            # Accepted, not only queued by the kernel: what the calls open would keep the rest out.
            assert (await client.asked(post(b"no call"))).status == 400
        asked = await running.lines.next_calls(len(clients))
        for number, client in enumerate(clients):
            client.send(post(tool_call(id=number)))
        await until(lambda: len(held) + len(running.lines.calls) - len(asked) == len(clients))
        refused = {line["request_id"] for line in running.lines.calls[len(asked) :]}
        assert len(refused) > 20 < len(held)
        assert opened(running) < DESCRIPTORS
        assert (await probe(operations, "/healthz")).status == 200
        release.set()
        facts = []
        for number, client in enumerate(clients):
            body = (await client.answer()).body
            if body != result(number):
                facts.append(json.loads(body)["result"]["_meta"][REFUSAL])
        assert facts == [{"reason": "overloaded", "limit": "descriptors", "retryAfterMs": 1000}] * len(
            refused
        )
        # The server is as good as before, for a breaker that opens at the first failure.
        for number, client in enumerate(clients):
            assert (await client.asked(post(tool_call(id=number)))).body == result(number)
        outcomes = [line["outcome"] for line in running.lines.calls[len(asked) :]]
        assert sorted(set(outcomes)) == ["ok", "overloaded"]
        assert running.other == []


@contextlib.contextmanager
def no_descriptors() -> Iterator[None]:
    """Not one file can be opened in this process."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    pipes = []
    with contextlib.suppress(OSError):
        # Holes below what is open are filled first.
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 1, limits[1])
        )
        while True:
            pipes.append(os.dup(0))
    try:
        yield
    finally:
        for each in pipes:
            os.close(each)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.parametrize("make", TRANSPORTS)
async def test_a_connection_that_fails_for_want_of_descriptors_says_so(
    upstream: Upstream, make: Callable[..., Transport]
) -> None:
    """EMFILE from the system itself: when a limit was lowered, or the machine has none left (ENFILE)."""
    transport = make(upstream.url, connect_timeout_s=1.0)
    try:
        with no_descriptors(), pytest.raises(NoRoom):
            await transport.send("POST", "/mcp", [(b"Host", b"a")], b"{}")
    finally:
        await transport.close()


@pytest.mark.parametrize("make", TRANSPORTS)
@pytest.mark.parametrize("kind", ["streamable_http", "http_sse"])
async def test_without_descriptors_nobody_knows_whether_the_server_is_there(
    upstream: Upstream, kind: Literal["streamable_http", "http_sse"], make: Callable[..., Transport]
) -> None:
    """/readyz: what was so last stays so, in both directions; the server is not to blame."""
    upstream.follow(serve)
    transport = make(upstream.url, connect_timeout_s=1.0)
    clock = [0.0]
    probing = Probe(UpstreamSettings(url=upstream.url, transport=kind), transport, now=lambda: clock[0])

    async def answers() -> bool:
        clock[0] += 60
        return await probing()

    try:
        with no_descriptors():
            assert not await answers()
        assert await answers()
        with no_descriptors():
            assert await answers()
    finally:
        await transport.close()


@pytest.mark.parametrize("make", TRANSPORTS)
async def test_a_refused_connection_is_looked_for_before_a_name(make: Callable[..., Transport]) -> None:
    """A look-up without descriptors fails as if there were no such name; who asks first does not look it up."""
    transport = make("http://no-such-name.invalid", connect_timeout_s=1.0, may_connect=lambda: False)
    try:
        with pytest.raises(NoRoom):
            await transport.send("POST", "/mcp", [(b"Host", b"a")], b"{}")
    finally:
        await transport.close()


async def test_as_many_as_allowed_are_used(upstream: Upstream) -> None:
    """The soft limit is raised to the hard one, as Go programs do: 1,024 are for programs that use select(2)."""
    async with process(*run_words(upstream.url), descriptors="-n 300; ulimit -S -n 200") as running:
        await running.listening()
        limits = Path(f"/proc/{running.process.pid}/limits").read_text().splitlines()
        assert next(line.split()[3:5] for line in limits if line.startswith("Max open files")) == [
            "300",
            "300",
        ]
