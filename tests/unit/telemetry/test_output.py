"""Lines leave the process in order, and nobody ever waits for whoever should read them. Issue 8, 4."""

from __future__ import annotations

import asyncio
import fcntl
import os
import select
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from proxy.telemetry.output import Output, standard_error
from tests.integration.waiting import within


def lost(count: int) -> bytes:
    return b"lost %d\n" % count


class Pipe:
    """A real one. Its reader reads when the test says so."""

    def __init__(self) -> None:
        self.reads, self.writes = os.pipe()
        os.set_blocking(self.reads, False)

    def read(self) -> list[bytes]:
        """Whole lines that lie in it now, and what was written of the last one."""
        data = b""
        while select.select([self.reads], [], [], 0)[0] and (piece := os.read(self.reads, 1 << 20)):
            data += piece
        return data.splitlines(keepends=True)

    def close(self, *ends: int) -> None:
        for end in ends or (self.reads, self.writes):
            os.close(end)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    for end in (made.reads, made.writes):
        with suppress(OSError):
            os.close(end)


def line(number: int, size: int = 100) -> bytes:
    return b"%0*d\n" % (size - 1, number)


async def written(pipe: Pipe, output: Output) -> list[bytes]:
    """All that comes, once nothing waits any more."""
    found: list[bytes] = []
    async with within():
        while output.waiting_bytes:
            found += pipe.read()
            await asyncio.sleep(0.001)
    return b"".join([*found, *pipe.read()]).splitlines(keepends=True)


async def test_lines_of_one_turn_are_written_together(pipe: Pipe) -> None:
    """Own promise: in their order, in the next turn of the loop, and as few writes as may be."""
    output = Output(pipe.writes, lost=lost)
    output.write(b"one\n")
    output.write(b"two\n")
    assert pipe.read() == []
    await asyncio.sleep(0)
    assert pipe.read() == [b"one\n", b"two\n"]
    output.write(b"three\n")
    await asyncio.sleep(0)
    assert pipe.read() == [b"three\n"]


async def test_lines_that_can_wait_are_written_together(pipe: Pipe) -> None:
    """Own promise: a line of a call costs a piece of a write. None waits for ever, and none is overtaken."""
    output = Output(pipe.writes, lost=lost)
    output.gather(b"one\n")
    await asyncio.sleep(0)
    output.gather(b"two\n")
    await asyncio.sleep(0)
    assert pipe.read() == []
    output.write(b"three\n")
    await asyncio.sleep(0)
    assert pipe.read() == [b"one\n", b"two\n", b"three\n"]
    output.gather(b"four\n")
    assert await written(pipe, output) == [b"four\n"]


async def test_what_fills_a_write_does_not_wait(pipe: Pipe) -> None:
    """Own promise: as much as is written at once anyway has nothing to wait for."""
    output = Output(pipe.writes, lost=lost)
    count = 0
    while output.waiting_bytes < select.PIPE_BUF - 100:
        output.gather(line(count))
        count += 1
    await asyncio.sleep(0)
    assert pipe.read() == []
    output.gather(line(count))
    await asyncio.sleep(0)
    assert pipe.read() == [*map(line, range(count + 1))]


async def test_what_waits_is_written_where_the_next_loop_never_runs(pipe: Pipe) -> None:
    """Own promise: a line that can wait is not lost with the loop whose timer would have written it."""
    output = Output(pipe.writes, lost=lost)

    def in_a_loop_of_its_own() -> None:
        loop = asyncio.new_event_loop()
        loop.call_soon(lambda: output.gather(b"one\n"))
        loop.call_soon(loop.stop)
        loop.run_forever()
        loop.close()

    await asyncio.to_thread(in_a_loop_of_its_own)
    assert pipe.read() == []
    output.close()
    assert pipe.read() == [b"one\n"]


def test_without_a_loop_a_line_is_written_at_once(pipe: Pipe) -> None:
    """Own promise: what is said before the start, and after the end, is not lost."""
    output = Output(pipe.writes, lost=lost)
    output.write(b"one\n")
    assert pipe.read() == [b"one\n"]
    output.write(b"two\n")
    assert pipe.read() == [b"two\n"]


async def test_what_is_left_of_one_loop_is_written_in_the_next(pipe: Pipe) -> None:
    """Own promise: also where the loop ended before its next turn came."""
    output = Output(pipe.writes, lost=lost)

    def in_a_loop_of_its_own() -> None:
        loop = asyncio.new_event_loop()
        loop.call_soon(output.write, b"one\n")
        loop.call_soon(loop.stop)
        loop.run_forever()
        loop.close()

    await asyncio.to_thread(in_a_loop_of_its_own)
    assert pipe.read() == []
    output.write(b"two\n")
    await asyncio.sleep(0)
    assert pipe.read() == [b"one\n", b"two\n"]


async def test_a_reader_that_has_stopped_holds_nobody_up(pipe: Pipe) -> None:
    """Issue 8, 4: a full pipe drops lines with a counter: whole ones, the newest, and no more than it must."""
    output = Output(pipe.writes, lost=lost, max_waiting_bytes=100_000)
    holds = fcntl.fcntl(pipe.writes, fcntl.F_GETPIPE_SZ)
    count = 3 * (holds + 100_000) // 100
    for number in range(count):
        output.write(line(number))
        await asyncio.sleep(0)  # a write that waits would wait for ever: nobody reads
    assert 99_000 <= output.waiting_bytes <= 100_000
    assert output.dropped > count // 2
    lines = await written(pipe, output)
    # All that came before the gap, and then, in its place, how large it is.
    assert lines == [*map(line, range(count - output.dropped)), lost(output.dropped)]
    output.write(b"again\n")
    await asyncio.sleep(0)
    assert pipe.read() == [b"again\n"]


async def test_the_gap_is_told_before_what_comes_behind_it(pipe: Pipe) -> None:
    """Issue 8, 4: said in a line when there is room again; the lines of before stand before it."""
    output = Output(pipe.writes, lost=lost, max_waiting_bytes=10_000)
    number = 0
    while not output.dropped:
        output.write(line(number))
        number += 1
        await asyncio.sleep(0)
    pipe_full = output.waiting_bytes
    output.write(line(number))  # there is still no room: the gap has one place
    lines: list[bytes] = []
    async with within():
        while output.waiting_bytes >= pipe_full // 2:
            lines += pipe.read()
            await asyncio.sleep(0.001)
    output.write(b"behind\n")
    lines += await written(pipe, output)
    whole = b"".join(lines).splitlines(keepends=True)
    assert whole[-2:] == [lost(2), b"behind\n"]
    assert whole[:-2] == [line(each) for each in range(len(whole) - 2)]


async def test_the_description_that_others_share_stays_as_it_is(pipe: Pipe) -> None:
    """Brief of issue 8: whoever started us writes to the same pipe, and expects it to wait."""
    output = Output(pipe.writes, lost=lost, max_waiting_bytes=10_000)
    while not output.dropped:
        output.write(line(1))
        await asyncio.sleep(0)
    assert os.get_blocking(pipe.writes)


async def test_a_line_longer_than_a_pipe_holds_comes_whole(pipe: Pipe) -> None:
    """Own promise: in pieces no write waits for."""
    output = Output(pipe.writes, lost=lost)
    long = line(7, 300_000)
    output.write(long)
    output.write(b"behind\n")
    await asyncio.sleep(0)
    assert await written(pipe, output) == [long, b"behind\n"]


async def test_a_line_longer_than_all_that_may_wait_is_missing_alone(pipe: Pipe) -> None:
    """Own promise: it does not take those behind it along."""
    output = Output(pipe.writes, lost=lost, max_waiting_bytes=1_000)
    output.write(line(7, 2_000))
    output.write(b"behind\n")
    await asyncio.sleep(0)
    assert pipe.read() == [lost(1), b"behind\n"]
    assert output.dropped == 1


async def test_a_reader_that_is_gone_costs_lines_and_nothing_else(pipe: Pipe) -> None:
    """Issue 8, 4: SIGPIPE is ignored by Python, EPIPE by us; nothing piles up."""
    output = Output(pipe.writes, lost=lost)
    pipe.close(pipe.reads)
    for number in range(10):
        output.write(line(number))
        await asyncio.sleep(0)
    assert (output.dropped, output.waiting_bytes) == (10, 0)
    output.close()


@pytest.mark.parametrize("is_closed", [True, False])
async def test_where_there_is_no_standard_error_there_are_no_lines(pipe: Pipe, is_closed: bool) -> None:
    """Issue 8, 4: closed before we began (None), or by somebody later."""
    output = Output(pipe.writes if is_closed else None, lost=lost)
    if is_closed:
        pipe.close(pipe.writes)
    output.write(b"one\n")
    await asyncio.sleep(0)
    assert (output.dropped, output.waiting_bytes, pipe.read()) == (1, 0, [])


async def test_a_file_takes_everything_at_once(tmp_path: Path) -> None:
    """Own promise: regular files do not wait for readers."""
    path = tmp_path / "log"
    with path.open("wb") as file:
        output = Output(file.fileno(), lost=lost)
        lines = [line(number, 1_000) for number in range(900)]
        for each in lines:
            output.write(each)
        await asyncio.sleep(0)
        assert path.read_bytes() == b"".join(lines)


def test_a_full_disk_costs_lines_and_nothing_else() -> None:
    """Own promise: ENOSPC is no reason to fail a call."""
    with Path("/dev/full").open("wb", buffering=0) as file:
        output = Output(file.fileno(), lost=lost)
        output.write(b"one\n")
    assert (output.dropped, output.waiting_bytes) == (1, 0)


def test_the_last_lines_have_half_a_second(pipe: Pipe) -> None:
    """Issue 8, 4: at exit what can be written within a bound; a reader that reads gets all of it."""
    output = Output(pipe.writes, lost=lost)
    lines = [line(number, 1_000) for number in range(500)]
    for each in lines:
        output.write(each)
    assert output.waiting_bytes > 400_000
    found: list[bytes] = []
    is_over = threading.Event()

    def read() -> None:
        while select.select([pipe.reads], [], [], 5)[0] and (piece := os.read(pipe.reads, 1 << 20)):
            found.append(piece)
        is_over.set()

    reading = threading.Thread(target=read)
    reading.start()
    output.close(within_s=5)
    pipe.close(pipe.writes)
    assert is_over.wait(5)
    reading.join()
    assert b"".join(found) == b"".join(lines)


def test_nobody_waits_longer_for_the_last_lines(pipe: Pipe) -> None:
    """Issue 8, 4: a reader that has stopped does not keep us from ending."""
    output = Output(pipe.writes, lost=lost)
    for number in range(500):
        output.write(line(number, 1_000))
    output.close(within_s=0.01)
    assert output.waiting_bytes > 400_000


async def test_threads_may_say_something_while_the_loop_stands_still(pipe: Pipe) -> None:
    """The watch of the loop says that it is blocked, while it is."""
    output = Output(pipe.writes, lost=lost)
    thread = threading.Thread(target=output.write, args=(b"blocked\n",))
    thread.start()
    thread.join()  # the loop stands still
    assert pipe.read() == [b"blocked\n"]


async def test_what_a_thread_could_not_write_is_written_by_the_loop(pipe: Pipe) -> None:
    """Own promise: nothing waits for the next line that somebody says."""
    output = Output(pipe.writes, lost=lost)
    output.write(b"first\n")
    await asyncio.sleep(0)
    pipe.read()

    def fill() -> None:
        while not output.waiting_bytes:
            output.write(line(1))

    thread = threading.Thread(target=fill)
    thread.start()
    thread.join()
    assert set(await written(pipe, output)) == {line(1)}


def test_standard_error_that_was_never_there_has_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python sets `sys.stderr` to None then; number 2 may be a client's connection by now."""
    monkeypatch.setattr("sys.stderr", None)
    assert standard_error() is None
