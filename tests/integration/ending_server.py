"""A server that dies of TERM at once, with whatever it is doing: the worst that stands behind a sidecar.

    python -m tests.integration.ending_server

Prints its port, then a line with the id of each call that has come. A line `ID` on standard input answers that call.
"""

import asyncio
import json
import sys

from tests.integration.wire import read_request, result


async def serve() -> None:
    waiting: dict[str, asyncio.Future[None]] = {}

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        buffer = bytearray()
        while data := await reader.read(65536):
            buffer += data
            while (request := read_request(buffer)) is not None:
                said = json.loads(request.body or b"{}")
                if said.get("method") == "tools/call":
                    released = waiting[str(said["id"])] = asyncio.get_running_loop().create_future()
                    print(said["id"], flush=True)
                    await released
                body = result(said.get("id"))
                head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
                writer.write(head.encode() + body)
        writer.close()

    server = await asyncio.start_server(connection, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        waiting[line.strip()].set_result(None)


asyncio.run(serve())
