"""A server that cannot be reached, or that dies: told as each kind of message can bear it."""

import json
import socket
from collections.abc import Callable

import pytest

from tests.integration.client import Client
from tests.integration.conftest import Connect, OpenSidecar
from tests.integration.house import Sidecar
from tests.integration.test_answers_not_ours import reason_of
from tests.integration.upstream import Exchange, Upstream
from tests.integration.wire import (
    LEGACY,
    MODERN,
    REVISIONS,
    listen,
    message,
    post,
    request,
    result,
    tool_call,
)

pytestmark = pytest.mark.usefixtures("each_transport")

DISCOVER = message("server/discover", MODERN)
INITIALIZE = message("initialize", LEGACY, protocolVersion=LEGACY, capabilities={})


@pytest.fixture
def nowhere() -> str:
    """A URL where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}/mcp"


@pytest.mark.parametrize("revision", REVISIONS)
async def test_an_unreachable_server_is_told_to_the_model(
    open_sidecar: OpenSidecar, connect: Connect, nowhere: str, revision: str
) -> None:
    """design section 5: a 4xx or 5xx kills the whole session of Python 1.x clients."""
    side = await open_sidecar(url=nowhere)
    answer = await (await connect(side.port)).asked(post(tool_call(revision, "a"), revision))
    said = json.loads(answer.body)
    assert (answer.status, answer.get("content-type"), said["id"]) == (200, "application/json", "a")
    assert reason_of(answer.body) == "upstream_unreachable"
    assert said["result"].get("resultType") == ("complete" if revision == MODERN else None)
    assert nowhere not in answer.body.decode()
    line = (await side.lines.next_calls())[0]
    assert (line["outcome"], line["reason"]) == ("upstream_error", "upstream_unreachable")


@pytest.mark.parametrize(
    ("body", "revision", "status", "is_json"),
    [
        (message("tools/list", LEGACY), LEGACY, 200, True),
        (message("resources/read", LEGACY, uri="file:///a"), LEGACY, 200, True),
        (INITIALIZE, LEGACY, 502, False),
        (DISCOVER, MODERN, 502, False),
        (message("notifications/initialized", LEGACY, None), LEGACY, 502, True),
        (result("srv-1"), LEGACY, 502, True),
    ],
    ids=["list", "read", "initialize", "discover", "notification", "answer"],
)
async def test_an_unreachable_server_is_told_as_each_message_can_bear_it(
    open_sidecar: OpenSidecar,
    connect: Connect,
    nowhere: str,
    body: bytes,
    revision: str,
    status: int,
    is_json: bool,
) -> None:
    """design section 5; trap 2: anything else than a plain 5xx on the probe changes the era for good."""
    side = await open_sidecar(url=nowhere)
    answer = await (await connect(side.port)).asked(post(body, revision))
    assert (answer.status, answer.get("content-type") == "application/json") == (status, is_json)
    if is_json:
        assert reason_of(answer.body) == "upstream_unreachable"


@pytest.mark.parametrize("sent", [listen(), request("DELETE")], ids=["GET", "DELETE"])
async def test_an_unreachable_server_is_told_by_status_where_there_is_no_message(
    open_sidecar: OpenSidecar, connect: Connect, nowhere: str, sent: bytes
) -> None:
    """Nobody reads a JSON-RPC answer to a GET."""
    side = await open_sidecar(url=nowhere)
    assert (await (await connect(side.port)).asked(sent)).status == 502


@pytest.mark.parametrize("body", [tool_call(), message("tools/list", LEGACY)], ids=["call", "list"])
async def test_refusals_over_http(
    open_sidecar: OpenSidecar, connect: Connect, nowhere: str, body: bytes
) -> None:
    """refusals: http, for callers that are no SDKs."""
    side = await open_sidecar("refusals=http", url=nowhere)
    answer = await (await connect(side.port)).asked(post(body))
    said = json.loads(answer.body)
    assert (answer.status, said["id"], said["error"]["code"]) == (502, 1, 502)
    assert said["error"]["data"] == {"origin": "proxy", "reason": "upstream_unreachable"}


def die_at_once(exchange: Exchange) -> None:
    exchange.link.reset()


def die_politely(exchange: Exchange) -> None:
    exchange.link.close()


def die_in_the_head(exchange: Exchange) -> None:
    exchange.write(b"HTTP/1.1 200 OK\r\nContent-Type: app")
    exchange.link.close()


def speak_no_http(exchange: Exchange) -> None:
    exchange.write(b"SSH-2.0-OpenSSH_9.6\r\n")


def frame_badly(exchange: Exchange) -> None:
    exchange.write(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"
    )


Die = Callable[[Exchange], None]
DEATHS: list[Die] = [die_at_once, die_politely, die_in_the_head, speak_no_http, frame_badly]


@pytest.mark.parametrize("die", DEATHS, ids=lambda die: die.__name__)
async def test_a_call_whose_server_died_may_have_happened(
    side: Sidecar, client: Client, upstream: Upstream, die: Die
) -> None:
    """Promise 4: never sent twice; if its outcome is unknown we say so."""
    client.send(post(tool_call()))
    die(await upstream.next())
    answer = await client.answer()
    assert (answer.status, reason_of(answer.body)) == (200, "outcome_unknown")
    assert len(upstream.seen) == 1
    line = (await side.lines.next_calls())[0]
    assert (line["outcome"], line["attempts"]) == ("outcome_unknown", 1)


async def test_a_call_whose_framing_breaks_later_may_have_happened(
    side: Sidecar, client: Client, upstream: Upstream
) -> None:
    """Regression: what broke in another piece than the head's was never told, and its call waited for its deadline."""
    client.send(post(tool_call()))
    exchange = await upstream.next()
    exchange.begin(kind="application/json")
    for _ in range(3):
        await side.probe("/healthz")  # the head has been read
    exchange.write(b"zz\r\n")
    assert reason_of((await client.answer()).body) == "outcome_unknown"


@pytest.mark.parametrize("die", DEATHS, ids=lambda die: die.__name__)
async def test_a_list_whose_server_died_has_no_effect_to_fear(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream, die: Die
) -> None:
    """The same for what cannot have had an effect; with as many attempts as there are."""
    client = await connect((await open_sidecar("resilience.attempts=1")).port)
    client.send(post(message("tools/list", LEGACY)))
    die(await upstream.next())
    answer = await client.answer()
    assert (answer.status, reason_of(answer.body)) == (200, "upstream_broke")
    assert len(upstream.seen) == 1


@pytest.mark.parametrize(("body", "revision"), [(INITIALIZE, LEGACY), (DISCOVER, MODERN)])
async def test_a_handshake_whose_server_died_is_a_plain_502(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream, body: bytes, revision: str
) -> None:
    """Trap 40: initialize is never sent again by us either; discover is, as often as settings say."""
    client = await connect((await open_sidecar("resilience.attempts=1")).port)
    client.send(post(body, revision))
    die_at_once(await upstream.next())
    answer = await client.answer()
    assert (answer.status, answer.get("content-type")) == (502, "text/plain; charset=utf-8")
    assert len(upstream.seen) == 1


async def test_the_next_call_after_a_death_is_served(
    side: Sidecar, client: Client, upstream: Upstream
) -> None:
    """A sidecar outlives its server."""
    client.send(post(tool_call()))
    die_at_once(await upstream.next())
    await client.answer()
    client.send(post(tool_call(id=2)))
    (await upstream.next()).answer(result(2))
    assert (await client.answer()).body == result(2)


async def test_a_batch_whose_server_is_gone_is_answered_call_by_call(
    open_sidecar: OpenSidecar, connect: Connect, nowhere: str
) -> None:
    """2025-03-26: every request of a batch has its own answer, ours as well as theirs."""
    revision = "2025-03-26"
    batch = b"[" + tool_call(revision, 1) + b"," + message("ping", revision, "b") + b"]"
    side = await open_sidecar(url=nowhere)
    answer = await (await connect(side.port)).asked(post(batch, revision))
    said = json.loads(answer.body)
    assert answer.status == 200
    assert isinstance(said, list)
    assert [each["id"] for each in said] == [1, "b"]
