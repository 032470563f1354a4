"""FastMCP's own proxy before a server, without sessions for its callers, answers as JSON. A process: the server's port
in, prints `ready PORT` and runs until TERM.

As its documentation has it, each call gets a session of its own with the server. With --one-session, which it warns
of, all callers share one that is opened first.
"""

from __future__ import annotations

import argparse
import logging
import socket

import uvicorn
import uvloop
from fastmcp import Client, FastMCP
from fastmcp.server import create_proxy


async def main(upstream_port: int, is_shared: bool) -> None:
    logging.disable(logging.CRITICAL)
    url = f"http://127.0.0.1:{upstream_port}/mcp"
    if not is_shared:
        await _serve(create_proxy(url, name="proxy"))
        return
    async with Client(url) as connected:
        await _serve(create_proxy(connected, name="proxy"))


async def _serve(proxy: FastMCP) -> None:
    app = proxy.http_app(path="/mcp", stateless_http=True, json_response=True)
    listening = socket.create_server(("127.0.0.1", 0), backlog=4_096)
    print("ready", listening.getsockname()[1], flush=True)
    await uvicorn.Server(uvicorn.Config(app, log_level="critical", access_log=False)).serve([listening])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.bench.side.fastmcp_proxy")
    parser.add_argument("--one-session", action="store_true")
    parser.add_argument("upstream_port", type=int)
    options = parser.parse_args()
    uvloop.run(main(options.upstream_port, options.one_session))
