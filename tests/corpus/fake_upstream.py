"""An MCP server that records every byte and answers as its fixture, or the case's script, says.

Raw sockets and this package's own strict parser. The sidecar's probes (a bare connect, `server/discover` that
the case did not send) are answered but not counted as seen.
"""

import asyncio
import itertools
import socket
import struct
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from typing import NoReturn

from tests import ledger
from tests.corpus.cases import CorpusError
from tests.corpus.fake_server import TOOLS, FakeServer, as_json, plain
from tests.corpus.scripts import Script
from tests.corpus.wire import Message, WireError, read_message

_SEND_BUFFER_BYTES = 65536
_RESULT = as_json(200, {"jsonrpc": "2.0", "id": 1, "result": {"content": []}})
_CUTS = (
    b"",
    b"HTTP/1.1 200 OK\r\nContent-Ty",
    _RESULT[:-9],
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n: alive\n\n\r\n",
)
"""How far answers come that are cut off."""


class FakeUpstream:
    """One listening server. `begin` starts a case's record, `take` ends it."""

    def __init__(self) -> None:
        self.port = 0
        self._mcp = FakeServer()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._requests: list[Message] = []
        self._pending: dict[int, bytes] = {}
        self._script: Script | None = None
        self._discover_is_ours = False
        self._barriers: dict[bytes, asyncio.Event] = {}
        self._fault: Exception | None = None
        self._cuts = itertools.cycle(_CUTS)
        self._socket: socket.socket | None = None
        self.sent_bytes = 0
        self.hanging = 0
        """Connections on which an answer never ends."""
        self.has_pushed = False
        """An answer was sent that nobody had asked for; once for each case."""

    def bind(self) -> None:
        """Take a free port of 127.0.0.1, or the last one again; nobody listens there, so connections are refused."""
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", self.port))
        self.port = self._socket.getsockname()[1]

    async def start(self) -> None:
        """Listen on a free port of 127.0.0.1, or on the one that is bound."""
        if self._socket is None:
            self.bind()
        self._server = await asyncio.start_server(self._serve, sock=self._socket, backlog=256)

    async def refuse(self) -> None:
        """End every connection and refuse others, until `start`."""
        await self.stop()
        self.bind()

    async def stop(self) -> None:
        """Close every connection and the listener."""
        for writer in tuple(self._writers):
            writer.transport.abort()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
        if self._socket is not None:
            self._socket.close()
        self._server = self._socket = None

    def begin(self, script: Script | None, *, sends_discover: bool) -> None:
        """Forget what was recorded; answer from `script` if given."""
        self._requests.clear()
        self._script = script
        if script is None:
            self._mcp.list_tools(None)
        else:
            listed = partial(script.listed, TOOLS)
            self._mcp.list_tools(listed, is_spaced=script.is_spaced, hints=script.hints)
        self._discover_is_ours = sends_discover
        self.sent_bytes = 0
        self.has_pushed = False

    def take(self) -> tuple[tuple[Message, ...], bytes]:
        """Requests since `begin`, and all their bytes, unfinished ones included.

        Raises CorpusError when this server failed meanwhile.
        """
        if self._fault is not None:
            fault, self._fault = self._fault, None
            raise CorpusError(f"the fake upstream failed: {fault!r}")
        return tuple(self._requests), b"".join(
            [*(request.raw for request in self._requests), *self._pending.values()]
        )

    def expect_barrier(self, marker: bytes) -> asyncio.Event:
        """An event set when a request holding `marker` arrives; that request is not recorded."""
        event = self._barriers[marker] = asyncio.Event()
        return event

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        sock: socket.socket = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        writer.transport.set_write_buffer_limits(high=_SEND_BUFFER_BYTES)
        try:
            await self._converse(reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            pass
        except Exception as error:
            # A case must not pass because the server it would have harmed was broken by ourselves.
            self._fault = error
        finally:
            self._pending.pop(id(writer), None)
            self._writers.discard(writer)
            self._tasks.discard(task)
            writer.close()
            with suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = bytearray()
        while chunk := await reader.read(262144):
            ledger.look("corpus upstream", chunk)
            data += chunk
            while data:
                # A pipe holds one unfinished request at most; keep its bytes where `take` finds them.
                self._pending[id(writer)] = bytes(data)
                try:
                    request = read_message(bytes(data), answers=False)
                except WireError:
                    await self._write(writer, plain(400, b"not HTTP"))
                    return
                if request is None:
                    break
                del data[: len(request.raw)]
                self._pending.pop(id(writer), None)
                await self._answer(request, reader, writer)

    async def _answer(
        self, request: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        barrier = next((marker for marker in self._barriers if marker in request.body), None)
        probe = b'"server/discover"' in request.body and not self._discover_is_ours
        if barrier is None and not probe:
            self._requests.append(request)
            script = self._script
            if script is not None and script.cuts:
                await self._write(writer, next(self._cuts))
                _reset(writer)
            if script is not None and (scripted := self._scripted(script, request)) is not None:
                await self._play(script, scripted, reader, writer)
                return
        async for part in self._mcp.answer(request, writer.write):
            await self._write(writer, part)
        if barrier is not None:
            self._barriers.pop(barrier).set()

    def _scripted(self, script: Script, request: Message) -> Iterable[bytes] | None:
        """The parts of the script's answer, where it has one of its own."""
        document = request.json
        if script.then == "hang" and isinstance(document, dict) and "id" not in document:
            return None  # the word that nobody waits for the answer any more, which takes no time
        if script.send is not None:
            return [script.send] if isinstance(script.send, bytes) else script.send()
        if script.result is None or not isinstance(document, dict) or "id" not in document:
            return None
        return [as_json(200, {"jsonrpc": "2.0", "id": document["id"], "result": script.result})]

    async def _play(
        self,
        script: Script,
        parts: Iterable[bytes],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        """Write the parts, with a pause before each but the first, and do what the script does then."""
        for number, part in enumerate(parts):
            if number and script.pause_s:
                await asyncio.sleep(script.pause_s)
            if number and script.gate is not None:
                await script.gate.wait()
            await self._write(writer, part)
        if script.then == "hang":
            self.hanging += 1
            try:
                while await reader.read(65536):
                    pass  # whatever else is said
            finally:
                self.hanging -= 1
            raise ConnectionResetError
        if script.then == "close":
            raise ConnectionResetError
        if script.then == "reset":
            _reset(writer)
        if script.pushes is not None and not self.has_pushed:
            await asyncio.sleep(script.pushes.after_s)
            await self._write(writer, script.pushes.answer)
            self.has_pushed = True

    async def _write(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        for at in range(0, len(data), 65536):
            writer.write(data[at : at + 65536])
            await writer.drain()
            self.sent_bytes = max(self.sent_bytes, at + 65536 - writer.transport.get_write_buffer_size())


def _reset(writer: asyncio.StreamWriter) -> NoReturn:
    """End the connection with RST. Raises ConnectionResetError: nothing more is answered on it."""
    sock: socket.socket = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    raise ConnectionResetError
