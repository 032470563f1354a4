"""A redirect within the server's origin is followed for the client, any other is nonsense."""

import json

import pytest

from tests.integration.client import Client
from tests.integration.house import Sidecar
from tests.integration.test_answers_not_ours import reason_of
from tests.integration.upstream import Exchange, Upstream
from tests.integration.wire import listen, post, result, tool_call

pytestmark = pytest.mark.usefixtures("each_transport")


def redirect(exchange: Exchange, location: str, status: str) -> None:
    exchange.answer(b"moved", f"Location: {location}", status=status, kind="text/plain")


@pytest.mark.parametrize("status", ["307 Temporary Redirect", "308 Permanent Redirect"])
@pytest.mark.parametrize("where", ["/mcp/", "mcp/", "{origin}/mcp/"])
async def test_within_the_origin_it_is_followed_with_the_body(
    side: Sidecar, client: Client, upstream: Upstream, status: str, where: str
) -> None:
    """Trap 19: clients do not follow it on a POST."""
    client.send(post(tool_call()))
    first = await upstream.next()
    redirect(first, where.format(origin=f"http://127.0.0.1:{upstream.port}"), status)
    second = await upstream.next()
    second.answer(result())
    assert (await client.answer()).body == result()
    assert (second.request.method, second.request.target) == ("POST", "/mcp/")
    assert second.request.body == first.request.body == tool_call()
    assert (await side.lines.next_calls())[0]["altered"] == ["redirect"]


async def test_a_get_is_followed_too(side: Sidecar, client: Client, upstream: Upstream) -> None:
    """The same for the stream of server messages."""
    client.send(listen())
    redirect(await upstream.next(), "/mcp/", "307 Temporary Redirect")
    second = await upstream.next()
    second.answer(b"", status="405 Method Not Allowed", kind="")
    assert (await client.answer()).status == 405
    assert (second.request.method, second.request.target) == ("GET", "/mcp/")


@pytest.mark.parametrize(
    ("location", "status"),
    [
        ("http://127.0.0.2:{port}/mcp", "307 Temporary Redirect"),
        ("https://127.0.0.1:{port}/mcp", "307 Temporary Redirect"),
        ("http://127.0.0.1:1/mcp", "308 Permanent Redirect"),
        ("//example.com/mcp", "307 Temporary Redirect"),
        ("", "307 Temporary Redirect"),
        ("/mcp/", "301 Moved Permanently"),
        ("/mcp/", "302 Found"),
        ("/mcp/", "303 See Other"),
        ("http://[", "307 Temporary Redirect"),
    ],
)
async def test_any_other_redirect_is_refused(
    side: Sidecar, client: Client, upstream: Upstream, location: str, status: str
) -> None:
    """No redirects across origins; one that changes the method would lose the body."""
    client.send(post(tool_call()))
    redirect(await upstream.next(), location.format(port=upstream.port), status)
    answer = await client.answer()
    assert (answer.status, reason_of(answer.body)) == (200, "upstream_nonsense")
    assert b"example.com" not in answer.body
    assert len(upstream.seen) == 1


async def test_a_circle_ends(side: Sidecar, client: Client, upstream: Upstream) -> None:
    """A server that sends us round and round is told so, and its call ends."""
    client.send(post(tool_call()))
    for _ in range(3):
        redirect(await upstream.next(), "/mcp", "307 Temporary Redirect")
    answer = await client.answer()
    assert reason_of(answer.body) == "upstream_nonsense"
    assert json.loads(answer.body)["id"] == 1
    assert len(upstream.seen) == 3
