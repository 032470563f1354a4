"""How long did the sidecar's loop not turn? A process of its own that asks /healthz without pause.

Its own process, so that neither the runner's sending nor its interpreter lock is measured. A line "PORT" on
stdin starts it, which it answers with a line "watching" once it has asked; a line "stop" ends the
measurement and the longest wait in seconds is printed. End of input ends the process.
"""

import asyncio
import select
import socket
import subprocess
import sys
import time
from typing import BinaryIO

_PAUSE_S = 0.002
_ANSWER_S = 10.0
_ASK = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


class Prober:
    """The runner's handle on the probing process."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tests.corpus.prober"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    async def start(self, port: int) -> None:
        """Ask this operations port until `stop`; it was asked once when this returns."""
        self._tell(f"{port}\n")
        await self._hear()

    async def stop(self) -> float:
        """The longest wait since `start`, in seconds."""
        self._tell("stop\n")
        return float(await self._hear())

    def close(self) -> None:
        """End the process."""
        self._process.communicate(timeout=_ANSWER_S + 5)

    async def _hear(self) -> bytes:
        assert self._process.stdout is not None
        return await asyncio.to_thread(self._process.stdout.readline)

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode())
        self._process.stdin.flush()


def longest_wait(port: int, orders: BinaryIO) -> float:
    """Ask until there is another order to read; the longest an answer took, in seconds."""
    longest = 0.0
    connection: socket.socket | None = None
    while True:
        asked = time.monotonic()
        try:
            connection = connection or socket.create_connection(("127.0.0.1", port), timeout=_ANSWER_S)
            connection.sendall(_ASK)
            if not connection.recv(65536):
                raise ConnectionResetError
        except OSError:
            if connection is not None:
                connection.close()
            connection = None
        if not longest:
            print("watching", flush=True)
        longest = max(longest, time.monotonic() - asked)
        if select.select([orders], [], [], _PAUSE_S)[0]:
            break
    if connection is not None:
        connection.close()
    return longest


def main() -> None:
    """Serve the runner until its end of the pipe closes."""
    # Unbuffered: a "stop" that was read ahead would never make the descriptor readable again.
    with open(0, "rb", buffering=0, closefd=False) as orders:
        for line in iter(orders.readline, b""):
            if line.strip().isdigit():
                print(f"{longest_wait(int(line), orders):.6f}", flush=True)


if __name__ == "__main__":
    main()
