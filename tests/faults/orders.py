"""A program of the laboratory hears orders on stdin, one JSON line each, and answers each with one line.

It says `ready PORT` first, and ends with its input: whoever started it need not be alive to end it.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable

MAX_LINE_BYTES = 1_048_576


async def obey(port: int, do: Callable[[bytes], Awaitable[bytes]]) -> None:
    """Say where we are, and do as we are told until the input ends."""
    reader = asyncio.StreamReader(limit=MAX_LINE_BYTES)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer)
    print("ready", port, flush=True)
    while line := await reader.readline():
        answer = await do(line)
        sys.stdout.buffer.write(answer + b"\n")
        sys.stdout.buffer.flush()
