"""Start the server; see the package for what it is.

Prints ``ready http://HOST:PORT/mcp`` (``/sse`` with ``--sse``; ``http+unix://FILE/mcp`` with ``--file``) once it
accepts connections, and nothing else on standard output. Ends on SIGTERM and SIGINT, open streams or not.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import warnings

import uvicorn
from mcp.shared.exceptions import MCPDeprecationWarning

from proxy.configuration.socket_urls import url_of_socket

from .server import sse_app, streamable_app

GRACE_S = 1
"""How long open streams may hold up the end; a test's client has left by then or never will."""


class _Announced(uvicorn.Server):
    """A uvicorn server that says when it is ready."""

    def __init__(self, config: uvicorn.Config, url: str) -> None:
        super().__init__(config)
        self._url = url

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            print(f"ready {self._url}", flush=True)


def _listener(host: str, port: int) -> socket.socket:
    """Bind here and not in uvicorn, so that port 0 is known before the first line is printed."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named, because asyncio switches Nagle's algorithm off only then: 40 ms an answer otherwise.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    return listener


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.servers.everything", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 picks a free one (default)")
    parser.add_argument("--file", help="listen on this unix socket, and on no port")
    parser.add_argument("--sse", action="store_true", help="serve 2024-11-05 HTTP+SSE instead")
    options = parser.parse_args()
    # Sampling, logging and roots are deprecated since 2026-07-28 and still part of what is tested here.
    warnings.filterwarnings("ignore", category=MCPDeprecationWarning)
    path = "/sse" if options.sse else "/mcp"
    if options.file:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(options.file)
        url = url_of_socket(options.file, path)
    else:
        listener = _listener(options.host, options.port)
        shown_host = f"[{options.host}]" if ":" in options.host else options.host
        url = f"http://{shown_host}:{listener.getsockname()[1]}{path}"
    app = sse_app() if options.sse else streamable_app(options.host)
    # Not whatever is installed: with httptools blanks behind a field's value reach the SDK, which takes none.
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=GRACE_S, http="h11")
    asyncio.run(_Announced(config, url).serve(sockets=[listener]))


if __name__ == "__main__":
    main()
