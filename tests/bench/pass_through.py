"""The least that aiohttp does between two sockets: its bare server, its bare client, every byte copied, nothing
looked at. What the sidecar costs beyond this is ours. A process: `UPSTREAM_PORT` in, prints `ready PORT`.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Final

import aiohttp
import uvloop
from aiohttp import web

from .processes import term

_OF_ONE_CONNECTION: Final = frozenset({"host", "content-length", "transfer-encoding", "connection"})


async def main(upstream_port: int) -> None:
    url = f"http://127.0.0.1:{upstream_port}"
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(
        connector=connector, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar()
    ) as session:

        async def copy(request: web.BaseRequest) -> web.Response:
            fields = [pair for pair in request.headers.items() if pair[0].lower() not in _OF_ONE_CONNECTION]
            async with session.request(
                request.method,
                url + request.path_qs,
                headers=fields,
                data=await request.read(),
                allow_redirects=False,
            ) as answer:
                return web.Response(
                    status=answer.status,
                    headers={"Content-Type": answer.headers.get("Content-Type", "")},
                    body=await answer.read(),
                )

        server = await asyncio.get_running_loop().create_server(
            web.Server(copy, access_log=None), "127.0.0.1", 0, backlog=4_096
        )
        stopping = term()
        print("ready", server.sockets[0].getsockname()[1], flush=True)
        await stopping.wait()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
