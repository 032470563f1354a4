"""A server of either Python SDK as most are: sessions in memory, no event store. Gone when the process is.

python plain_server.py PORT, with an interpreter that has mcp 1.x or 2.x. Its one tool tells the process that answers.
"""

import importlib
import os
import socket
import sys
from typing import Any

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


def main() -> None:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", int(sys.argv[1])))
    config = uvicorn.Config(server.streamable_http_app(), log_level="warning", timeout_graceful_shutdown=1)
    listener.listen()
    print("ready", flush=True)
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
