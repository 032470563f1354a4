"""Is our child process up, and what did it say when it was not? Commands in, running processes out.

A child has a session of its own, so a Ctrl-C that the terminal sends to everybody reaches only us and we
stop the children in order. It never outlives us: on Linux the kernel kills it even when we are killed.
"""

import ctypes
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

POLL_S = 0.05
"""Between two looks whether a child is ready: its start takes ten times as long."""

STOP_S = 5.0
"""What a child has for stopping after SIGTERM, before it is killed."""

TAIL_BYTES = 4096
"""How much of a child's output an error quotes: its last words hold the reason."""

PR_SET_PDEATHSIG = 1
"""prctl(2): the signal this process gets when its parent dies."""


class ChildFailed(RuntimeError):
    """A child process ended or did not become ready; the text names it and quotes what it last said."""


class Child:
    """A running command whose output goes to a file. Use it with `with`: leaving stops it."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        *,
        environment: Mapping[str, str] | None = None,
        stop_s: float = STOP_S,
    ) -> None:
        self._stop_s = stop_s
        self.name = name
        self.log = log
        with log.open("ab") as out:
            # Held by whoever has this output, us not counted once the file is closed here: see _is_silent.
            # Two children cannot share a log: BlockingIOError here instead of waiting for the other's end.
            fcntl.flock(out, fcntl.LOCK_EX | fcntl.LOCK_NB)
            out.truncate(0)
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
                preexec_fn=_death_watch(),  # noqa: PLW1509  (we have no threads, and it must be set before exec)
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def code(self) -> int | None:
        """How it ended: 0 well, negative by a signal; None while it runs."""
        return self._process.poll()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def wait_until(self, is_ready: Callable[[], bool], what: str, *, timeout_s: float) -> None:
        """Return as soon as `is_ready()`. Raises ChildFailed when the child ends first or time is up."""
        deadline = time.monotonic() + timeout_s
        while not is_ready():
            if time.monotonic() >= deadline:
                raise ChildFailed(f"{self.name}: {what} not within {timeout_s:.0f} s{self.last_words()}")
            # The pause between two looks ends at once when there is nothing left to wait for.
            if self.ended(within_s=POLL_S):
                raise self.failure()

    def ended(self, *, within_s: float) -> bool:
        try:
            self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def failure(self) -> ChildFailed:
        """The error that says that this child should still be running."""
        return ChildFailed(f"{self.name}: ended with code {self.code}{self.last_words()}")

    def last_words(self) -> str:
        """The end of the child's output, indented under a line of its own, or a word that there is none."""
        text = self.log.read_bytes()[-TAIL_BYTES:].decode("utf-8", "replace").strip()
        return ":\n  " + text.replace("\n", "\n  ") if text else " and said nothing"

    def stop(self) -> None:
        """Ask the child to end, then kill it and what shares its group; wait for its own children too.

        Those are in other groups (the MCP SDK gives a stdio server its own) and end because their stdin
        does. Safe to call again.
        """
        if self.code is None:
            self._process.terminate()
            if not self.ended(within_s=self._stop_s):
                os.killpg(self.pid, signal.SIGKILL)
                self._process.wait()
        deadline = time.monotonic() + self._stop_s
        while not self._is_silent() and time.monotonic() < deadline:
            time.sleep(POLL_S)

    def _is_silent(self) -> bool:
        """Nobody who inherited our child's output is left: flock(2) belongs to the inherited open file."""
        with self.log.open("rb") as log:
            try:
                fcntl.flock(log, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
        return True


def _death_watch() -> Callable[[], None] | None:
    """What a child runs between fork and exec so that it dies with us, where the OS can do that."""
    if sys.platform != "linux":
        return None
    # Looked up here: after the fork a child must not load libraries.
    prctl = ctypes.CDLL(None).prctl
    parent = os.getpid()

    def arm() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        # We may have died between fork and prctl: then that signal never comes.
        if os.getppid() != parent:
            os._exit(1)

    return arm
