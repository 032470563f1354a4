"""Coming up and coming down: probes, signals and exit codes of a real process."""

import asyncio
import json
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from proxy.demo.ports import free_ports
from tests.integration.client import Client, Cut
from tests.integration.conftest import Connect
from tests.integration.house import Process, Sidecar, probe, process, run_words
from tests.integration.upstream import Upstream
from tests.integration.waiting import within
from tests.integration.wire import event, listen, post, request, result, tool_call


async def serve_probe(upstream: Upstream) -> None:
    """Answer the `server/discover` of the readiness probe."""
    exchange = await upstream.next()
    exchange.answer(b'{"jsonrpc":"2.0","id":1,"result":{}}')


async def ready(port: int, status: int, reason: str | None = None) -> dict[str, str]:
    """Wait until /readyz says so, for this reason where one is named; it remembers its last answer for 2 s."""
    async with within(6):
        while True:
            answer = await probe(port, "/readyz")
            said = json.loads(answer.body)
            assert isinstance(said, dict)
            if answer.status == status and reason in (None, said.get("reason")):
                return said
            await asyncio.sleep(0.05)


async def test_probes_follow_what_they_ask_for(side: Sidecar, upstream: Upstream) -> None:
    """design section 4, lifecycle: a restart must not follow every outage of the server."""
    _, answer = await asyncio.gather(serve_probe(upstream), side.probe("/readyz"))
    assert answer.status == 200
    await upstream.close()
    assert (await ready(side.operations, 503))["reason"] == "upstream does not answer"
    assert [(await side.probe(path)).status for path in ("/healthz", "/startupz")] == [200, 200]
    await upstream.open()
    await asyncio.gather(serve_probe(upstream), ready(side.operations, 200))


async def test_any_http_answer_counts_as_one(side: Sidecar, upstream: Upstream) -> None:
    """lifecycle: a legacy server says 400 to `server/discover`, and is well."""
    asking = asyncio.ensure_future(side.probe("/readyz"))
    exchange = await upstream.next()
    exchange.answer(b"<h1>Bad Request</h1>", status="400 Bad Request", kind="text/html")
    assert (await asking).status == 200
    assert b"initialize" not in exchange.link.received


async def test_probes_are_not_on_the_data_port(side: Sidecar, client: Client) -> None:
    """No tenant data here, no probes there."""
    assert (await side.probe("/mcp")).status == 404
    assert (await client.asked(request("GET", "/readyz"))).status == 404


@pytest.fixture
async def running(upstream: Upstream) -> AsyncIterator[Process]:
    async with process(*run_words(upstream.url, "drain_s=10")) as started:
        yield started


async def test_a_call_in_flight_finishes_after_term(
    running: Process, upstream: Upstream, connect: Connect
) -> None:
    """lifecycle: unready at once, new refused after a grace, in-flight finished, exit 0."""
    data, operations = await running.listening()
    client, idle, other = [await connect(data) for _ in range(3)]
    client.send(post(tool_call()))
    call = await upstream.next()
    other.send(post(tool_call(id=2)))
    streaming = await upstream.next()
    streaming.begin()
    await other.head()
    running.signal(signal.SIGTERM)
    await ready(operations, 503, "draining")
    assert await idle.ended() == b""
    with pytest.raises(OSError, match=r"refused|Connect call failed"):
        await connect(data)
    call.answer(result())
    answer = await client.answer()
    assert (answer.status, answer.body, answer.get("connection")) == (200, result(), "close")
    streaming.chunk(event(result(2)))
    streaming.end()
    assert await other.rest() == event(result(2))
    assert await running.exit_code() == 0
    assert [line["outcome"] for line in running.lines.calls] == ["ok", "ok"]
    assert next(line for line in running.lines.life if line["msg"] == "stopped")["cut_off"] == 0


async def test_a_new_request_on_an_open_connection_is_refused_while_draining(
    running: Process, upstream: Upstream, connect: Connect
) -> None:
    """design section 5: draining is 503, with Retry-After."""
    data, _ = await running.listening()
    client = await connect(data)
    client.send(post(tool_call()))
    call = await upstream.next()
    client.more(post(tool_call(id=2)))
    idle = await connect(data)
    running.signal(signal.SIGTERM)
    assert await idle.ended() == b""  # closed when the grace is over
    call.begin()
    call.chunk(event(result()))
    call.end()
    assert (await client.answer()).body == event(result())
    try:
        answer = await client.answer()
    except Cut:
        return  # closed behind the answer: the client knows that the second was not served
    assert (answer.status, answer.get("retry-after")) == (503, "1")


async def test_a_listening_stream_is_ended_properly(
    running: Process, upstream: Upstream, connect: Connect
) -> None:
    """lifecycle: close streams politely; their clients come back elsewhere."""
    data, _ = await running.listening()
    client = await connect(data)
    client.send(listen())
    stream = await upstream.next()
    stream.begin()
    await client.head()
    running.signal(signal.SIGTERM)
    assert await client.rest() == b""
    await stream.left()
    assert await running.exit_code() == 0


async def test_a_drained_stream_is_no_failure_of_the_server(
    running: Process, upstream: Upstream, connect: Connect
) -> None:
    """section 7.5: what we close ourselves must not feed breaker and alarms."""
    data, _ = await running.listening()
    client = await connect(data)
    client.send(listen())
    (await upstream.next()).begin()
    await client.head()
    running.signal(signal.SIGINT)
    await running.exit_code()
    assert [line["outcome"] for line in running.lines.calls] == ["ok"]


async def test_a_listening_stream_that_begins_late_does_not_hold_the_drain(
    running: Process, upstream: Upstream, connect: Connect
) -> None:
    """lifecycle: a stream without an end must not cost drain_s."""
    data, _ = await running.listening()
    client = await connect(data)
    client.send(listen())
    stream = await upstream.next()
    idle = await connect(data)
    running.signal(signal.SIGINT)
    assert await idle.ended() == b""
    stream.begin()
    assert await running.exit_code(2) == 0


async def test_time_runs_out_for_a_call_without_an_end(upstream: Upstream, connect: Connect) -> None:
    """drain_s, exceeded: the process ends all the same, and says how many it cut off."""
    async with process(*run_words(upstream.url, "drain_s=0.5")) as running:
        data, _ = await running.listening()
        client = await connect(data)
        client.send(post(tool_call()))
        call = await upstream.next()
        begin = time.monotonic()
        running.signal(signal.SIGTERM)
        assert await running.exit_code() == 0
        assert time.monotonic() - begin < 4
        await call.left()
        assert next(line for line in running.lines.life if line["msg"] == "stopped")["cut_off"] == 1
        assert len(running.lines.calls) == 1


async def test_ctrl_c_waits_for_no_load_balancer(running: Process) -> None:
    """INT with nothing in flight is over at once: no grace."""
    await running.listening()
    begin = time.monotonic()
    running.signal(signal.SIGINT)
    assert await running.exit_code() == 0
    assert time.monotonic() - begin < 0.9


async def test_a_taken_port_is_named(upstream: Upstream) -> None:
    """Exit code 1 and one line that names the address."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        async with process(*run_words(upstream.url, f"listen.address=127.0.0.1:{port}")) as running:
            assert await running.exit_code() == 1
    assert [line["msg"] for line in running.lines.life] == ["cannot listen"]
    assert str(port) in json.dumps(running.lines.life)
    assert running.other == []


async def test_bad_settings_end_it_before_it_begins() -> None:
    """Exit code 2, every mistake."""
    async with process("run", "--set", "upstream.url=ftp://x", "--set", "drain_s=soon") as running:
        assert await running.exit_code() == 2
    said = "".join(running.other)
    assert "upstream.url" in said
    assert "drain_s" in said


async def test_healthcheck_asks_a_probe(running: Process) -> None:
    """For exec probes: exit 0 for 200, 1 for anything else."""
    _, operations = await running.listening()
    codes = []
    for path in ("/healthz", "/startupz", "/nothing"):
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "proxy", "healthcheck"),
            *("--address", f"127.0.0.1:{operations}", "--path", path),
            stderr=asyncio.subprocess.DEVNULL,
        )
        codes.append(await child.wait())
    assert codes == [0, 0, 1]


async def test_another_process_takes_over_at_the_same_ports(upstream: Upstream, connect: Connect) -> None:
    """Issue 7, point 6: hand-over on restart. What the first has begun it finishes, and the second answers the rest."""
    data, operations = free_ports(2)
    words = run_words(
        upstream.url,
        "drain_s=10",
        "listen.reuse_port=true",
        f"listen.address=127.0.0.1:{data}",
        f"operations.address=127.0.0.1:{operations}",
    )
    async with process(*words) as first:
        await first.listening()
        old = await connect(data)
        old.send(post(tool_call()))
        call = await upstream.next()
        async with process(*words) as second:
            await second.listening()
            first.signal(signal.SIGTERM)
            await first.lines.when(lambda lines: any(line["msg"] == "draining" for line in lines.life))
            async with within(10):
                while not second.lines.calls:
                    # Until the first listens no more, some come to it; the last of them may be reset.
                    with suppress(Cut, OSError):
                        await (await connect(data)).asked(request("GET", "/nowhere"))
            call.answer(result())
            assert (await old.answer()).body == result()
            assert await first.exit_code() == 0
            for _ in range(20):
                new = await connect(data)
                new.send(post(tool_call()))
                (await upstream.next()).answer(result())
                assert (await new.answer()).body == result()


async def test_nobody_listens_beside_us_unasked(upstream: Upstream) -> None:
    """Hostile: another process must not get our callers."""
    data, operations = free_ports(2)
    words = run_words(
        upstream.url, f"listen.address=127.0.0.1:{data}", f"operations.address=127.0.0.1:{operations}"
    )
    async with process(*words) as first:
        await first.listening()
        async with process(*words, "--set", "listen.reuse_port=true") as second:
            assert await second.exit_code() == 1
