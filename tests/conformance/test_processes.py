"""No process that a conformance run starts is left behind."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from asyncio.subprocess import Process
from pathlib import Path

import pytest

from tests.conformance.processes import child, tail

WAIT_S = 10

SLEEPER = "import time; print('up', flush=True); time.sleep(600)"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SLEEPER

PARENT = f"""
import asyncio, sys
from pathlib import Path
from tests.conformance.processes import child

async def main():
    async with child([sys.executable, "-c", {SLEEPER!r}], log=Path(sys.argv[1])) as process:
        await process.wait()

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("program", "ended_by"),
    [
        pytest.param(SLEEPER, signal.SIGTERM, id="by TERM"),
        pytest.param(STUBBORN, signal.SIGKILL, id="by KILL where TERM is ignored"),
    ],
)
async def test_a_child_ends_with_its_block(tmp_path: Path, program: str, ended_by: signal.Signals) -> None:
    started: list[Process] = []

    async def block_that_fails() -> None:
        command = [sys.executable, "-c", program]
        async with child(command, log=tmp_path / "log", piped=True, end_timeout_s=0.5) as process:
            assert process.stdout is not None
            assert await process.stdout.readline() == b"up\n"
            started.append(process)
            raise LookupError("the block fails")

    with pytest.raises(LookupError):
        await block_that_fails()
    assert [process.returncode for process in started] == [-ended_by]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent was killed")
def test_a_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    """The child holds the writing end of a pipe: the end of the pipe is the end of the child."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(pipe)])
    try:
        said = b""
        while not said.endswith(b"\n"):  # the line may come in pieces
            piece = _read(reader)
            assert piece, "the child ended before its parent"
            said += piece
    finally:
        parent.kill()
        parent.wait()
    try:
        assert _read(reader) == b""
    finally:
        os.close(reader)


def _read(reader: int) -> bytes:
    ready, _, _ = select.select([reader], [], [], WAIT_S)
    assert ready, f"nothing happened for {WAIT_S} s"
    return os.read(reader, 100)


def test_a_log_is_shown_by_its_end(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert tail(log) == "(no output)"
    log.write_text("first\nlast\n", encoding="utf-8")
    assert tail(log, characters=5) == "last"
