"""A server of either Python SDK as most are: sessions in memory, no event store. Gone when the process is.

python plain_server.py PORT, with an interpreter that has mcp 1.x or 2.x. One tool tells the process that answers, one
hangs when it is called first, and one tells whether that call was cancelled.
"""

import contextlib
import importlib
import itertools
import os
import signal
import socket
import sys
from typing import Any

import anyio

PATIENCE_S = 5.0

uvicorn: Any = importlib.import_module("uvicorn")


def made() -> Any:
    try:
        return importlib.import_module("mcp.server.mcpserver").MCPServer("plain")
    except ImportError:
        return importlib.import_module("mcp.server.fastmcp").FastMCP("plain")


server = made()


@server.tool()  # type: ignore[untyped-decorator]  # of two SDKs
def who() -> str:
    return str(os.getpid())


calls = itertools.count(1)
left = anyio.Event()


@server.tool()  # type: ignore[untyped-decorator]  # of two SDKs
async def slow_once() -> str:
    number = next(calls)
    if number == 1:
        try:
            await anyio.sleep(60)
        except anyio.get_cancelled_exc_class():
            left.set()
            raise
    return f"call {number}"


@server.tool()  # type: ignore[untyped-decorator]  # of two SDKs
async def was_left() -> str:
    with anyio.move_on_after(PATIENCE_S):
        await left.wait()
        return "left"
    return "still running"


def main() -> None:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", int(sys.argv[1])))
    listener.listen()
    running = uvicorn.Server(uvicorn.Config(server.streamable_http_app(), log_level="warning"))
    # At once, as a process that is killed: it would wait for streams that are open.
    running.capture_signals = contextlib.nullcontext
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    print("ready", flush=True)
    running.run(sockets=[listener])


if __name__ == "__main__":
    main()
