"""The least that aiohttp does to answer from memory: one answer, always. A process: prints `ready PORT`."""

from __future__ import annotations

import asyncio
from typing import Final

import uvloop
from aiohttp import web

from ..messages import MESSAGE_BYTES
from ..processes import term
from .calls import body_of

MARK: Final = '"_meta":{"dev.mcp-sidecar/cache":{"age_s":0,"state":"fresh"}},'
"""What the sidecar puts into a kept answer: the bare server sends the same bytes."""
BODY: Final = body_of(MESSAGE_BYTES).replace('"result":{', '"result":{' + MARK, 1).encode()


async def answer(request: web.BaseRequest) -> web.Response:
    await request.read()
    return web.Response(body=BODY, headers={"Content-Type": "application/json", "Age": "0"})


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(
        web.Server(answer, access_log=None), "127.0.0.1", 0, backlog=4_096
    )
    stopping = term()
    print("ready", server.sockets[0].getsockname()[1], flush=True)
    await stopping.wait()


if __name__ == "__main__":
    uvloop.run(main())
