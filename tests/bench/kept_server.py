"""The least that aiohttp does to answer from memory: its bare server, one answer of which nothing but the id changes,
the same bytes as a kept answer of the sidecar. A process: prints `ready PORT`.
"""

from __future__ import annotations

import asyncio

import uvloop
from aiohttp import web

from .kept import kept
from .messages import id_of
from .processes import term


async def answer(request: web.BaseRequest) -> web.Response:
    body = kept(id_of(await request.read()))
    return web.Response(body=body, headers={"Content-Type": "application/json", "Age": "0"})


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(
        web.Server(answer, access_log=None), "127.0.0.1", 0, backlog=4_096
    )
    stopping = term()
    print("ready", server.sockets[0].getsockname()[1], flush=True)
    await stopping.wait()


if __name__ == "__main__":
    uvloop.run(main())
