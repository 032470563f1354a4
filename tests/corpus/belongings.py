"""What is Alice's, what is Bob's? Placeholders of ids → ids that the server handed out through the sidecar.

Nothing here is made up: sessions come from `initialize`, event ids and questions from open streams, tasks from calls,
each under the credential of its owner. A sidecar that hands none out fails the case.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from tests.corpus.cases import CorpusError
from tests.corpus.client import Exchange
from tests.corpus.stand import Listening, SseStand, Stand

_NAMES = re.compile(rb"\{\{([A-Z][A-Z0-9_]*)")
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": "corpus-initialize",
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {"elicitation": {}},
        "clientInfo": {"name": "corpus", "version": "1"},
    },
}


def named_in(request: bytes) -> frozenset[str]:
    """The placeholders of a request."""
    return frozenset(name.decode() for name in _NAMES.findall(request))


class Belongings:
    """Obtains what a case names and gives it to the mint. Streams stay open until `close`."""

    def __init__(self, stand: Stand) -> None:
        self._stand = stand
        self._mint = stand.around.mint
        self._streams: list[Listening] = []
        self._began = 0

    @property
    def overheard(self) -> bytes:
        """What arrived on the open streams since everything was obtained."""
        return b"".join(stream.received for stream in self._streams)[self._began :]

    async def obtain(self, names: frozenset[str]) -> None:
        """Give the mint whatever of `names` is an id. Raises CorpusError when the sidecar hands it not out."""
        if names & {"SID_ALICE", "EVT_ALICE_STREAM2"}:
            # Bob's comes right after hers, so that whoever counts hers on finds his.
            self._mint.give("SID_ALICE", await self.session("alice"))
            self._mint.give("SID_BOB", await self.session("bob"))
        elif names & {"SID_BOB", "EVT_BOB", "SRV_REQ_ID_BOB"}:
            self._mint.give("SID_BOB", await self.session("bob"))
        if "SID_ALICE_ENDED" in names:
            session = await self.session("alice")
            await self._end(session)
            self._mint.give("SID_ALICE_ENDED", session)
        if "SID_DEMOTED" in names:
            token = self._mint.token("TOK_DEMOTED", roles=["admin"])
            fields = {"Authorization": f"Bearer {token}"}
            fields["Mcp-Session-Id"] = await self.open(fields)
            # Whoever never had a right cannot lose it.
            call = _request("tools/call", {"name": "danger", "arguments": {}})
            _result(await self._stand.ask(call, fields), "content")
            self._mint.give("SID_DEMOTED", fields["Mcp-Session-Id"])
        if names & {"EVT_BOB", "SRV_REQ_ID_BOB"}:
            await self._listen_as_bob()
        if "EVT_ALICE_STREAM2" in names:
            await self._second_stream()
        if "TASK_BOB" in names:
            params = {"name": "echo", "arguments": {}, "task": {"ttl": 60_000}}
            called = await self._stand.ask(_request("tools/call", params), self._fields("bob"))
            self._mint.give("TASK_BOB", str(_result(called, "task")["task"]["taskId"]))
        if "SSE_SID_BOB" in names:
            assert isinstance(self._stand, SseStand)
            stream, endpoint = await self._stand.open_pair(self._fields("bob"))
            self._streams.append(stream)
            self._mint.give("SSE_SID_BOB", endpoint.partition("sessionId=")[2])
        self._began = len(self.overheard)

    async def close(self) -> None:
        """Leave every stream."""
        for stream in self._streams:
            await stream.close()

    async def session(self, who: str) -> str:
        """The id of a new session of Alice's or Bob's."""
        return await self.open(self._fields(who))

    async def open(self, fields: Mapping[str, str]) -> str:
        """The id of a new session opened with these headers. Raises CorpusError when there is none."""
        answers = (await self._stand.ask(INITIALIZE, fields)).answers
        found = answers[0].values("mcp-session-id") if answers else ()
        if len(found) != 1:
            seen = answers[0].start if answers else b"no answer"
            raise CorpusError(f"initialize brought no session, but {seen!r}")
        return found[0].decode("latin-1")

    def _fields(self, who: str) -> dict[str, str]:
        return self._stand.as_who(who)

    async def _end(self, session: str) -> None:
        fields = {**self._fields("alice"), "Mcp-Session-Id": session, "Host": self._stand.around.host}
        lines = ["DELETE /mcp HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
        lines.append("MCP-Protocol-Version: 2025-11-25")
        ended = await self._stand.say("\r\n".join(lines).encode() + b"\r\n\r\n")
        if not ended.answers or ended.answers[0].status != 200:
            raise CorpusError("a session could not be ended")

    async def _listen(self, who: str, session: str) -> Listening:
        fields = {**self._fields(who), "Mcp-Session-Id": session, "MCP-Protocol-Version": "2025-11-25"}
        stream = await self._stand.listen("/mcp", fields, r"(?m)^id: (\S+-0)$")
        self._streams.append(stream)
        return stream

    async def _listen_as_bob(self) -> None:
        stream = await self._listen("bob", self._mint.value("SID_BOB"))
        self._mint.give("EVT_BOB", stream.heard)
        self._mint.give("SRV_REQ_ID_BOB", await stream.hear(r'"id": ?"(corpus-asks-\d+)"'))

    async def _second_stream(self) -> None:
        """The first event of a call's stream, while another stream of the same session is open."""
        session = self._mint.value("SID_ALICE")
        await self._listen("alice", session)
        call = _request("tools/call", {"name": "stream", "arguments": {}, "_meta": {"progressToken": "s2"}})
        heard = await self._stand.ask(call, {**self._fields("alice"), "Mcp-Session-Id": session})
        match = re.search(rb"(?m)^id: (\S+-0)$", heard.received)
        if match is None:
            raise CorpusError(f"a stream brought no event id, but {heard.received[:80]!r}")
        self._mint.give("EVT_ALICE_STREAM2", match[1].decode("latin-1"))


def _request(method: str, params: Mapping[str, Any]) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": "corpus-obtains", "method": method, "params": params}


def _result(exchange: Exchange, wanted: str) -> dict[str, Any]:
    document = exchange.answers[0].json if exchange.answers else None
    result = document.get("result") if isinstance(document, dict) else None
    if not isinstance(result, dict) or wanted not in result or result.get("isError"):
        raise CorpusError(f"no {wanted} was handed out, but {json.dumps(document)[:120]}")
    return result
