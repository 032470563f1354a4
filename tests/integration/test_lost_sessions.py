"""A server loses its sessions, and clients do not notice where a rule allows it: over real sockets, with ownership.

Source: issue 7, item 5; basic/transports, "Session Management", of 2025-03-26 to 2025-11-25; protocol.md 7.5, trap 9.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.integration.client import Client
from tests.integration.conftest import Connect, OpenSidecar
from tests.integration.house import Sidecar
from tests.integration.test_ownership import ANN, BOB, RENEWED, goodbye, identity, key, session
from tests.integration.upstream import Exchange, Upstream, fields_of
from tests.integration.waiting import until, within
from tests.integration.wire import LEGACY, NOTE, event, listen, message, post, result, tool_call

__all__ = ["identity"]

TOOLS = [{"match": "echo", "allow": ["*"], "reinitialise": True}, {"match": "*", "allow": ["*"]}]
POLICY = "policy=" + json.dumps({"tools": TOOLS, "methods": {"*": {"allow": ["*"]}}})
OLDER = ("2025-03-26", "2025-06-18", "2025-11-25")
GONE = b'{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"Session not found"}}'


class Server:
    """Speaks the handshake and keeps sessions, until it loses them."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._count = 0
        self.alive: set[str] = set()
        self.capabilities: dict[str, object] = {"tools": {}}
        self.in_events = False
        self.hands_out: str | None = None
        upstream.follow(self.answer)

    @property
    def methods(self) -> list[str]:
        """What came, in order."""
        return [
            json.loads(each.body).get("method", "answer") if each.body else each.method
            for each in self._upstream.seen
        ]

    def sessions(self, method: str = "tools/call") -> list[str]:
        """The sessions that came with a method, in order."""
        pairs = zip(self.methods, self._upstream.seen, strict=True)
        return [",".join(fields_of(request, "Mcp-Session-Id")) for each, request in pairs if each == method]

    async def answer(self, exchange: Exchange) -> None:
        request = exchange.request
        said: Any = json.loads(request.body) if request.body else {}
        named = "".join(fields_of(request, "Mcp-Session-Id"))
        if said.get("method") == "initialize":
            self._begin(exchange, said)
        elif named not in self.alive:
            exchange.answer(GONE, status="404 Not Found")
        elif request.method == "GET":
            exchange.begin(f"Mcp-Session-Id: {named}")
            exchange.chunk(event(NOTE))
        elif request.method == "DELETE":
            self.alive.discard(named)
            exchange.answer(b"")
        elif "id" in said and "method" in said:
            exchange.answer(result(said["id"], f"in {named}"), f"Mcp-Session-Id: {named}")
        else:
            exchange.answer(b"", f"Mcp-Session-Id: {named}", status="202 Accepted", kind="")

    def _begin(self, exchange: Exchange, said: Any) -> None:
        self._count += 1
        name = self.hands_out or f"server-{self._count}"
        self.alive.add(name)
        info = {"name": "scripted", "version": "1"}
        answer = {"protocolVersion": said["params"]["protocolVersion"], "serverInfo": info}
        answer["capabilities"] = self.capabilities
        body = json.dumps({"jsonrpc": "2.0", "id": said["id"], "result": answer}).encode()
        if self.in_events:
            exchange.begin(f"Mcp-Session-Id: {name}")
            exchange.chunk(event(body))  # and it does not end
        else:
            exchange.answer(body, f"Mcp-Session-Id: {name}")


@pytest.fixture
def server(upstream: Upstream) -> Server:
    return Server(upstream)


@pytest.fixture
async def side(open_sidecar: OpenSidecar, identity: str) -> Sidecar:
    return await open_sidecar(POLICY, identity)


async def shakes_hands(client: Client, revision: str = LEGACY, who: str = ANN) -> str:
    """The session that the client is given."""
    params = {"protocolVersion": revision, "capabilities": {"roots": {}}, "clientInfo": {"name": "x"}}
    client.send(post(message("initialize", revision, 0, **params), "2025-03-26", key(who)))
    answer = await client.head()
    assert answer.status == 200
    if answer.get("content-type") == "text/event-stream":
        await client.until(b"\n\n")
        await client.closed()
    else:
        await client.rest()
    return answer.get("mcp-session-id") or ""


async def says(client: Client, id: str, tool: str = "echo", who: str = ANN, revision: str = LEGACY) -> Any:
    """Status, session and text (or reason) of the answer to a call."""
    answer = await client.asked(post(tool_call(revision, tool=tool), revision, key(who), session(id)))
    body: Any = answer.json
    text = body["result"]["content"][0]["text"] if "result" in body else body["error"]["message"]
    return answer.status, answer.get("mcp-session-id"), text


@pytest.mark.parametrize("in_events", [False, True])
@pytest.mark.parametrize("revision", OLDER)
async def test_a_client_goes_on_as_if_nothing_had_been(
    side: Sidecar, server: Server, connect: Connect, revision: str, in_events: bool
) -> None:
    server.in_events = in_events
    id = await shakes_hands(await connect(side.port), revision)
    client = await connect(side.port)
    assert await says(client, id, revision=revision) == (200, id, f"in {id}")
    server.alive.clear()
    assert await says(client, id, revision=revision) == (200, id, "in server-2")
    assert await says(client, id, "other", revision=revision) == (200, id, "in server-2")
    assert server.sessions() == [id, id, "server-2", "server-2"]
    assert server.sessions("notifications/initialized") == ["server-2"]
    lines = (await side.lines.next_calls(4))[-2:]
    assert [(line["outcome"], line["attempts"]) for line in lines] == [("ok", 2), ("ok", 1)]
    hellos = [request for request in server._upstream.seen if b'"initialize"' in request.body]
    assert hellos[0].body == hellos[1].body


async def test_its_stream_and_its_goodbye_go_to_the_new_session(
    side: Sidecar, server: Server, client: Client, connect: Connect
) -> None:
    id = await shakes_hands(client)
    server.alive.clear()
    await says(client, id)
    stream = await connect(side.port)
    stream.send(listen(key(ANN), session(id)))
    assert (await stream.head()).get("mcp-session-id") == id
    await stream.until(b"notifications/message")
    assert server.sessions("GET") == ["server-2"]
    assert (await client.asked(goodbye(key(ANN), session(id)))).status == 200
    assert server.sessions("DELETE") == ["server-2"]
    before = len(server.methods)
    assert (await says(client, id))[0] == 404
    assert len(server.methods) == before, "a session that has ended is nobody's"


async def test_the_new_session_is_as_much_its_owners_as_the_old_one(
    side: Sidecar, server: Server, client: Client
) -> None:
    """Promise 3: nobody else may use either; a renewed credential may."""
    id = await shakes_hands(client)
    server.alive.clear()
    assert (await says(client, id, who=BOB))[0] == 404
    assert server.methods == ["initialize"], "a stranger begins nothing"
    assert await says(client, id, who=RENEWED) == (200, id, "in server-2")
    before = len(server.methods)
    for each in (id, "server-2"):
        assert (await says(client, each, who=BOB))[0] == 404
    assert len(server.methods) == before


async def test_a_server_that_hands_out_somebody_elses_session_gets_nothing(
    side: Sidecar, server: Server, client: Client
) -> None:
    """It would put Ann into Bob's session."""
    id = await shakes_hands(client)
    bobs = await shakes_hands(client, who=BOB)
    server.alive.discard(id)
    server.hands_out = bobs
    status, named, _ = await says(client, id)
    assert (status, named) == (404, None)
    assert (await says(client, bobs, who=BOB))[0] == 200
    assert server.sessions()[-1] == bobs
    assert "DELETE" not in server.methods


async def test_what_the_rule_does_not_say_is_passed_on(side: Sidecar, server: Server, client: Client) -> None:
    """As ever: the client is told, and begins anew by itself."""
    id = await shakes_hands(client)
    server.alive.clear()
    answer = await client.asked(post(tool_call(tool="other"), LEGACY, key(ANN), session(id)))
    assert (answer.status, answer.body) == (404, GONE)
    assert (await says(client, id))[0] == 404
    assert server.methods == ["initialize", "tools/call"]
    new = await shakes_hands(client)
    assert await says(client, new) == (200, new, f"in {new}")


async def test_a_server_that_is_another_one_now_is_not_pretended_away(
    side: Sidecar, server: Server, client: Client
) -> None:
    id = await shakes_hands(client)
    server.alive.clear()
    server.capabilities = {"tools": {}, "resources": {}}
    assert (await says(client, id))[0] == 404
    await until(lambda: server.sessions("DELETE") == ["server-2"])
    assert server.alive == set()


@pytest.mark.parametrize(
    ("method", "params"), [("resources/subscribe", {"uri": "a:b"}), ("logging/setLevel", {"level": "info"})]
)
async def test_what_would_be_lost_is_not_lost_silently(
    side: Sidecar, server: Server, client: Client, method: str, params: dict[str, object]
) -> None:
    id = await shakes_hands(client)
    sent = post(message(method, LEGACY, 5, **params), LEGACY, key(ANN), session(id))
    assert (await client.asked(sent)).status == 200
    server.alive.clear()
    assert (await says(client, id))[0] == 404
    assert "initialize" not in server.methods[1:]


async def test_many_calls_at_once_begin_one_session(
    side: Sidecar, server: Server, client: Client, connect: Connect
) -> None:
    id = await shakes_hands(client)
    server.alive.clear()
    clients = [await connect(side.port) for _ in range(20)]
    async with within():
        told = await asyncio.gather(*(says(each, id) for each in clients))
    assert set(told) == {(200, id, "in server-2")}
    assert server.methods.count("initialize") == 2
    assert side.house.rooms.capacity.in_flight == 0


async def test_where_all_are_anonymous_it_works_as_well(
    open_sidecar: OpenSidecar, connect: Connect, server: Server
) -> None:
    side = await open_sidecar(POLICY)
    client = await connect(side.port)
    id = await shakes_hands(client)
    server.alive.clear()
    assert await says(client, id) == (200, id, "in server-2")


async def test_off_is_not_there(open_sidecar: OpenSidecar) -> None:
    """No rule asks: nothing is remembered, and no stage looks at sessions."""
    side = await open_sidecar()
    assert side.house.rooms.resilience.renewing is None
    asking = await open_sidecar(POLICY)
    assert asking.house.rooms.resilience.renewing is not None


async def test_a_server_that_restarts_is_found_again(
    side: Sidecar, server: Server, client: Client, upstream: Upstream
) -> None:
    """Its port was closed for a while, and what it knew is gone."""
    id = await shakes_hands(client)
    await upstream.close()
    server.alive.clear()
    await upstream.open()
    assert await says(client, id) == (200, id, "in server-2")
