"""The recording MCP server: writes down each call that it runs, before it answers. A process.

    python -m tests.faults.server --port 0 --log FILE

What a tool does is its name before the nonce ("do-0123456789abcdef"):
  do     answers at once               sse    the same as a stream of events
  slow   after `arguments.s` seconds   hold   when it is ordered to release
  never  does not answer               big    with `arguments.bytes` bytes of text
  till   until the connection closes   drip   a stream with a note each `arguments.s` seconds, `arguments.notes` times
  open   a stream with a note at once, and with the answer when it is ordered to release
Orders on stdin: `{"storm": {"status": 503, "fields": "", "body": "", "every": 1}}` (null ends it), `{"release": true}`,
`{"holding": N, "within_s": S}` (answered when N calls are held, or time is up), `{}`; each is answered with
`{"ran", "holding", "open"}`.
The file survives SIGKILL: each line is one write.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, cast

import msgspec
import uvloop
from msgspec import Struct

from .http import head_end, whole_length
from .messages import answer_body, event, text_for
from .orders import obey
from .rules import NONCE

_STREAM = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n"
)
_NOTE = b'{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"noted"}}'


class Storm(Struct, frozen=True, forbid_unknown_fields=True):
    """What is answered instead of running a call."""

    status: int
    fields: str = ""
    body: str = ""
    every: int = 1


class Order(Struct, frozen=True, forbid_unknown_fields=True):
    storm: Storm | msgspec.UnsetType | None = msgspec.UNSET
    release: bool = False
    holding: int = 0
    within_s: float = 0.0


class Server:
    """What all connections share."""

    def __init__(self, log: Path) -> None:
        self._file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self.ran = 0
        self.stormed = 0
        self.links: set[Link] = set()
        self.held: list[tuple[Link, bytes]] = []
        self.storm: Storm | None = None
        self._news = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    def note(self, nonce: str, what: str) -> None:
        self.ran += what == "ran"
        line = b'{"nonce":"%b","at_ns":%d,"what":"%b"}\n' % (
            nonce.encode(),
            time.monotonic_ns(),
            what.encode(),
        )
        os.write(self._file, line)

    def hold(self, link: Link, answer: bytes) -> None:
        self.held.append((link, answer))
        self._news.set()

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def rages(self) -> bool:
        """Whether the storm takes this call."""
        if self.storm is None:
            return False
        self.stormed += 1
        return self.stormed % self.storm.every == 0

    async def do(self, line: bytes) -> bytes:
        order = msgspec.json.decode(line, type=Order)
        if order.storm is not msgspec.UNSET:
            self.storm, self.stormed = order.storm, 0
        if order.holding:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(order.within_s):
                    while self.holding < order.holding:
                        self._news.clear()
                        await self._news.wait()
        said = {"ran": self.ran, "holding": self.holding, "open": len(self.links)}
        if order.release:
            held, self.held = self.held, []
            for link, answer in held:
                link.write(answer)
        return msgspec.json.encode(said)

    @property
    def holding(self) -> int:
        return sum(link.is_open for link, _ in self.held)


class Link(asyncio.Protocol):
    """One connection."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._server.links.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._server.links.discard(self)

    @property
    def is_open(self) -> bool:
        return self._transport is not None

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (length := whole_length(self._buffer)) is not None:
            request = bytes(self._buffer[:length])
            del self._buffer[:length]
            self._answer(request)

    def _answer(self, request: bytes) -> None:
        if request.startswith(b"GET "):
            self.write(_STREAM + chunk(event(_NOTE)))
            return
        if request.startswith(b"DELETE "):
            self.write(plain(200, b""))
            return
        try:
            said: dict[str, Any] = msgspec.json.decode(request[head_end(request) :])
        except msgspec.DecodeError:
            self.write(plain(400, b"not JSON"))
            return
        if "id" not in said or "method" not in said:
            self.write(plain(202, b""))
        elif said["method"] == "tools/call":
            self._call(said)
        else:
            self.write(as_json(msgspec.json.encode(_other(said))))

    def _call(self, said: dict[str, Any]) -> None:
        params = said["params"]
        tool, found = params["name"], NONCE.search(params["name"].encode())
        nonce = found[1].decode() if found is not None else ""
        storm = self._server.storm
        if self._server.rages() and storm is not None:
            self._server.note(nonce, "stormed")
            self.write(plain(storm.status, storm.body.encode(), storm.fields))
            return
        self._server.note(nonce, "ran")
        does, arguments = tool.partition("-")[0], params.get("arguments") or {}
        body = answer_body(said["id"], nonce, int(arguments.get("bytes", 0)))
        if does == "sse":
            self.write(_STREAM + chunk(event(_NOTE)) + chunk(event(body)) + b"0\r\n\r\n")
        elif does == "till":
            self.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n" + body
            )
            self.close()
        elif does == "drip":
            self._server.start(self._drip(float(arguments["s"]), int(arguments["notes"]), body))
        elif does == "slow":
            asyncio.get_running_loop().call_later(float(arguments["s"]), self.write, as_json(body))
        elif does == "hold":
            self._server.hold(self, as_json(body))
        elif does == "open":
            self.write(_STREAM + chunk(event(_NOTE)))
            self._server.hold(self, chunk(event(body)) + b"0\r\n\r\n")
        elif does != "never":
            self.write(as_json(body))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    async def _drip(self, seconds: float, notes: int, body: bytes) -> None:
        self.write(_STREAM)
        for _ in range(notes):
            self.write(chunk(event(_NOTE)))
            await asyncio.sleep(seconds)
        self.write(chunk(event(body)) + b"0\r\n\r\n")


def _other(said: dict[str, Any]) -> dict[str, object]:
    """Answers to what is no tool call."""
    result: dict[str, object] = {"resultType": "complete"}
    if said["method"] == "initialize":
        result = {
            "protocolVersion": said["params"]["protocolVersion"],
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "recorder", "version": "1"},
        }
    elif said["method"] == "tools/list":
        result["tools"] = [{"name": text_for("list"), "inputSchema": {"type": "object"}}]
    return {"jsonrpc": "2.0", "id": said["id"], "result": result}


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def as_json(body: bytes) -> bytes:
    return plain(200, body, "Content-Type: application/json\r\n")


def plain(status: int, body: bytes, fields: str = "") -> bytes:
    return b"HTTP/1.1 %d X\r\n%bContent-Length: %d\r\n\r\n%b" % (status, fields.encode(), len(body), body)


async def main(port: int, log: Path) -> None:
    server = Server(log)
    # A server that was killed comes back on its port while its old connections still linger.
    own = socket.socket()
    own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    own.bind(("127.0.0.1", port))
    listening = await asyncio.get_running_loop().create_server(lambda: Link(server), sock=own, backlog=4_096)
    await obey(listening.sockets[0].getsockname()[1], server.do)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.faults.server")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--log", type=Path, required=True)
    options = parser.parse_args()
    uvloop.run(main(options.port, options.log))
