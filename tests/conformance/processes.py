"""Child processes that end when we do.

``child`` starts one and ends it when its block is left, whatever the reason: TERM, then KILL. On Linux the
kernel sends TERM as well when we are killed without a chance to leave the block.
"""

from __future__ import annotations

import asyncio
import ctypes
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

END_TIMEOUT_S = 10
"""From TERM to KILL."""

_PR_SET_PDEATHSIG = 1  # prctl(2)


class ProcessFailed(RuntimeError):
    """A process ended when it should not, or did not do in time what it was started for."""


def end_with_parent() -> Callable[[], None] | None:
    """What a process runs, before its program, to get TERM when the one that started it dies. Linux only.

    The C library is looked up before the fork: between fork and exec almost nothing is allowed.
    """
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

    return ask


@asynccontextmanager
async def child(
    command: Sequence[str | Path],
    *,
    log: Path,
    env: Mapping[str, str] | None = None,
    piped: bool = False,
    cwd: Path | None = None,
    end_timeout_s: float = END_TIMEOUT_S,
) -> AsyncIterator[Process]:
    """Run ``command`` while the block runs; its output goes to ``log``, or stdout to a pipe if ``piped``."""
    with log.open("ab") as sink:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=DEVNULL,
            stdout=PIPE if piped else sink,
            stderr=sink if piped else STDOUT,
            env=env,
            cwd=cwd,
            preexec_fn=end_with_parent(),
        )
    try:
        yield process
    finally:
        await _end(process, end_timeout_s)


async def _end(process: Process, timeout_s: float) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(timeout_s):
            await process.wait()
    except TimeoutError:
        pass
    finally:
        # Also when we are cancelled while waiting: nothing of ours stays behind.
        if process.returncode is None:
            process.kill()
            await process.wait()


def tail(log: Path, characters: int = 2000) -> str:
    """The end of a log, for the text of an error."""
    if not log.exists():
        return "(no output)"
    return log.read_text(encoding="utf-8", errors="replace")[-characters:].strip() or "(no output)"
