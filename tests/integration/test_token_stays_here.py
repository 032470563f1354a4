"""A credential is for us: the client's stops here, ours goes on, and neither is ever logged."""

import json
from pathlib import Path

import pytest

from tests.integration.client import Client
from tests.integration.conftest import Connect, OpenSidecar
from tests.integration.house import Sidecar
from tests.integration.upstream import Upstream
from tests.integration.wire import LEGACY, REVISIONS, listen, post, request, result, tool_call

CLIENTS = "Bearer clients-own-word"
OURS = "Bearer our-own-word"


@pytest.mark.parametrize("revision", REVISIONS)
async def test_the_clients_token_stops_here(
    side: Sidecar, client: Client, upstream: Upstream, revision: str
) -> None:
    """basic/authorization: a server MUST NOT pass on the token it received."""
    client.send(post(tool_call(revision), revision, ("Authorization", CLIENTS)))
    exchange = await upstream.next()
    exchange.answer(result())
    await client.answer()
    assert b"clients-own-word" not in exchange.link.received


@pytest.mark.parametrize(
    "sent", [listen(("Authorization", CLIENTS)), request("DELETE", fields=[("Authorization", CLIENTS)])]
)
async def test_it_stops_on_get_and_delete_too(
    side: Sidecar, client: Client, upstream: Upstream, sent: bytes
) -> None:
    """The same for what carries no message."""
    client.send(sent)
    exchange = await upstream.next()
    exchange.answer(b"", status="405 Method Not Allowed", kind="")
    assert (await client.answer()).status == 405
    assert b"clients-own-word" not in exchange.link.received


async def test_it_goes_on_where_the_operator_says_so(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream
) -> None:
    """upstream.forward_client_authorization."""
    side = await open_sidecar("upstream.forward_client_authorization=true")
    client = await connect(side.port)
    client.send(post(tool_call(), LEGACY, ("Authorization", CLIENTS)))
    exchange = await upstream.next()
    exchange.answer(result())
    await client.answer()
    assert exchange.request.all("authorization") == [CLIENTS]


@pytest.mark.parametrize("forward", ["true", "false"])
async def test_our_own_credential_replaces_the_clients(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream, tmp_path: Path, forward: str
) -> None:
    """upstream.headers are added to every request, and nobody else can set them."""
    secret = tmp_path / "credential"
    secret.write_text(OURS, encoding="utf-8")
    side = await open_sidecar(
        f"upstream.forward_client_authorization={forward}",
        f"upstream.headers.Authorization=${{file:{secret}}}",
        "upstream.headers.X-Principal=sidecar",
    )
    client = await connect(side.port)
    claims = (("authorization", CLIENTS), ("x-principal", "admin"))
    client.send(post(tool_call(), LEGACY, *claims))
    exchange = await upstream.next()
    exchange.answer(result())
    await client.answer()
    assert exchange.request.all("authorization") == [OURS]
    assert exchange.request.all("x-principal") == ["sidecar"]
    logged = json.dumps(await side.lines.next_calls())
    assert "own-word" not in logged


async def test_a_token_in_the_query_is_refused(side: Sidecar, client: Client, upstream: Upstream) -> None:
    """basic/authorization: access tokens MUST NOT be in the query; it would be forwarded and logged."""
    answer = await client.asked(post(tool_call(), target="/mcp?access_token=clients-own-word"))
    assert (answer.status, upstream.seen) == (400, [])
    assert b"own-word" not in answer.body
