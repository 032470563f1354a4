"""FastMCP's own proxy before a server, without sessions, answers as JSON. A process: the server's port in, prints
`ready PORT` and runs until TERM.
"""

from __future__ import annotations

import logging
import socket
import sys

import uvicorn
from fastmcp.server import create_proxy


def main(upstream_port: int) -> None:
    logging.disable(logging.CRITICAL)
    app = create_proxy(f"http://127.0.0.1:{upstream_port}/mcp", name="proxy").http_app(
        path="/mcp", stateless_http=True, json_response=True
    )
    listening = socket.create_server(("127.0.0.1", 0), backlog=4_096)
    print("ready", listening.getsockname()[1], flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="critical", access_log=False)).run([listening])


if __name__ == "__main__":
    main(int(sys.argv[1]))
