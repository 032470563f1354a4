"""The benchmark measures what it says: whole messages, right answers, crowds that stay. No number is judged."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.bench import load, standard_error
from tests.bench.messages import FIRST_ID, MESSAGE_BYTES, REVISIONS, Calls, answer, id_of, listening
from tests.bench.processes import cpu_s, holding, program, rss_bytes
from tests.bench.report import Figure, Machine, table, this_machine
from tests.bench.scenarios import BARE, DIRECT, MANY, SIDECAR, Size, calling
from tests.bench.wire import body_length, head_end
from tests.conformance.processes import ProcessFailed

ID = b"%d" % FIRST_ID


@pytest.mark.parametrize("revision", REVISIONS)
def test_a_call_has_the_length_it_announces_and_its_id(revision: str) -> None:
    request = Calls(revision, 1).request(ID)
    at = head_end(request)
    body = request[at:]
    assert body_length(request[:at]) == len(body) == MESSAGE_BYTES
    read = json.loads(body)
    assert (read["id"], read["method"], read["params"]["name"]) == (
        FIRST_ID,
        "tools/call",
        "search_documents",
    )
    assert id_of(body) == ID


def test_the_answer_to_a_call_has_its_id_and_the_same_length() -> None:
    assert json.loads(answer(ID))["id"] == FIRST_ID
    assert len(answer(ID)) == MESSAGE_BYTES


@pytest.mark.parametrize("body", [b"", b"{}", b'{"id":1,"method":"x"}', b'{"id":"abcdefg"}'])
def test_what_is_no_call_of_the_benchmark_has_no_id(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"id|subsection"):
        id_of(body)


@pytest.mark.parametrize(
    ("head", "length"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n", 12),
        (b"HTTP/1.1 200 OK\r\ncontent-length:7\r\nX: y\r\n\r\n", 7),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 0),
    ],
)
def test_the_length_of_an_answer_is_read_from_its_head(head: bytes, length: int) -> None:
    assert body_length(head) == length
    assert head_end(head + b"body") == len(head)
    assert head_end(head[:-1]) == -1


def test_a_quantile_is_a_value_that_occurred() -> None:
    ordered = [float(number) for number in range(1, 101)]
    assert [load.quantile(ordered, share) for share in (0.0, 0.5, 0.99, 1.0)] == [1.0, 51.0, 100.0, 100.0]
    assert load.quantile([3.0], 0.99) == 3.0


def test_a_missed_aim_is_said_and_the_machine_is_named() -> None:
    machine = Machine(
        cpu="Slow 3000",
        cores=2,
        load_average=0.5,
        system="Linux 1",
        python="3.11",
        packages={"a": "1"},
        commit="c0ffee",
    )
    met = Figure(name="met", value=5, unit="KB", at_most=5)
    missed = Figure(name="missed by a little", value=1234.5, unit="KB", at_most=5)
    free = Figure(name="free", value=12.34, unit="us")
    lines = table(machine, [met, missed, free]).splitlines()
    assert lines[0] == "mcp-sidecar c0ffee on Slow 3000, 2 cores, Linux 1"
    assert [line.split("  ")[0] for line in lines[3:]] == ["met", "missed by a little", "free"]
    assert ["MISSED" in line for line in lines[3:]] == [False, True, False]
    assert "1,23" in lines[4]
    assert lines[5].endswith("12.3 us")


def test_standard_error_is_back_after_it_was_a_file(capfd: pytest.CaptureFixture[str]) -> None:
    """Own promise: what is measured does not write into the table, and whoever fails is heard."""

    @standard_error.into_a_file()
    def fails() -> None:
        os.write(2, b"measured")
        raise KeyError

    with pytest.raises(KeyError):
        fails()
    os.write(2, b"after")
    assert capfd.readouterr().err == "after"


def test_this_machine_is_known() -> None:
    machine = this_machine()
    assert machine.cores >= 1
    assert machine.cpu
    assert machine.packages.keys() == {"aiohttp", "uvloop", "msgspec", "jiter"}


Answers = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(answers: Answers) -> AsyncIterator[int]:
    """A server that does with each connection what `answers` does, on a port of its own."""

    under_way: set[asyncio.Task[object]] = set()

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        under_way.add(task)
        try:
            await answers(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(once, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)


async def _answer_another(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    body = answer(b"%d" % (FIRST_ID + 5))
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    await reader.read()


async def _fail_with_the_right_words(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    body = answer(id_of(await reader.readexactly(MESSAGE_BYTES)))
    writer.write(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    await reader.read()


async def _refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n")
    await reader.read()


async def _leave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")


@pytest.mark.parametrize("answers", [_answer_another, _fail_with_the_right_words, _refuse, _leave])
async def test_a_run_ends_with_an_error_when_an_answer_is_wrong(answers: Answers) -> None:
    """A fast no would count as a fast call."""
    async with asyncio.timeout(5), serving(answers) as port:
        with pytest.raises(load.Wrong):
            await load.run(port, connections=2, seconds=60, revision=REVISIONS[0], watched=1)
        with pytest.raises(load.Wrong):
            await load.answer_times(port, count=2, revision=REVISIONS[0])


async def test_a_crowd_is_held_until_it_may_go(tmp_path: Path) -> None:
    async with asyncio.timeout(20), program("responder", logs=tmp_path) as upstream:
        for kind in ("streams", "connections"):
            async with holding(upstream.port, kind, 40, tmp_path):
                assert len(await load.answer_times(upstream.port, count=3, revision=REVISIONS[1])) == 3


async def _greet_and_leave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(listening(0)[:20])
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")


@pytest.mark.parametrize("answers", [_greet_and_leave, _refuse])
async def test_a_crowd_that_thins_out_is_an_error(answers: Answers, tmp_path: Path) -> None:
    """Memory per stream would be divided by streams that are not there."""
    async with asyncio.timeout(20), serving(answers) as port:
        with pytest.raises(ProcessFailed):
            async with holding(port, "streams", 4, tmp_path):
                # A round trip through our own loop per client: each has met the end of its stream by then.
                await load_is_idle(port)


async def load_is_idle(port: int) -> None:
    """A connection of our own that is served and closed after those that came before it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(listening(port))
    await reader.read()
    writer.close()


def test_memory_and_time_of_a_process_are_read() -> None:
    """Of ourselves: an interpreter with pytest in it has more than 10 MB, and has computed."""
    assert 10_000_000 < rss_bytes(os.getpid()) < 100_000_000_000
    assert cpu_s(os.getpid()) > 0


@pytest.mark.slow
async def test_calls_are_measured_on_every_way(tmp_path: Path) -> None:
    """The whole of one scenario, short: direct, through bare aiohttp, through the sidecar."""
    size = Size(starts=1, streams=1, connections=1, rounds=1, seconds=0.2)
    async with asyncio.timeout(60):
        figures = {figure.name: figure for figure in await calling(size, tmp_path)}
    for way in (DIRECT, BARE, SIDECAR):
        for at in ("1 connection", f"{MANY} connections"):
            assert figures[f"{way}, at {at}"].value > 0
    assert figures[f"sidecar, at {MANY} connections, CPU per call"].value > 0
    assert figures["added at 1 connection, p50"].at_most == 0.25
