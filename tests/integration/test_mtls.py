"""A client certificate is a credential: whom it names, who is turned away, and how long it is believed."""

from __future__ import annotations

import datetime
import json
import ssl
from pathlib import Path
from typing import Any

import pytest

from tests.certificates import Authority, Issued, a_name
from tests.integration.client import Client
from tests.integration.conftest import OpenSidecar
from tests.integration.house import Sidecar
from tests.integration.tls import REFUSED, Pki, tls_connected
from tests.integration.upstream import Upstream
from tests.integration.wire import LEGACY, Answer, listen, post, result, tool_call

ID = "spiffe://example.org/ns/team/billing"
MTLS = {"kind": "mtls", "tenant": "acme", "spiffe": "spiffe://example.org/ns/team/*", "roles": ["viewer"]}
ANONYMOUS = {"kind": "anonymous", "tenant": "public"}


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return Pki(tmp_path)


class Open:
    """Opens sidecars that believe client certificates."""

    def __init__(self, open_sidecar: OpenSidecar, pki: Pki) -> None:
        self._open_sidecar = open_sidecar
        self._pki = pki

    async def __call__(self, *authenticators: dict[str, Any], optional: bool = False) -> Sidecar:
        return await self._open_sidecar(
            *self._pki.overrides(mutual=True, optional=optional),
            f"identity.authenticators={json.dumps(authenticators)}",
        )


@pytest.fixture
def open_mutual(open_sidecar: OpenSidecar, pki: Pki) -> Open:
    return Open(open_sidecar, pki)


async def called(client: Client, upstream: Upstream) -> Answer:
    """The answer to a call, which the server answers if it comes there."""
    upstream.follow(answers)
    return await client.asked(post(tool_call()))


async def answers(exchange: Any) -> None:
    exchange.answer(result())


async def called_anew(side: Sidecar, context: ssl.SSLContext, upstream: Upstream) -> int | None:
    """The status of a call on a new connection; None where TLS lets nobody in."""
    try:
        async with tls_connected(side.port, context) as client:
            return (await called(client, upstream)).status
    except REFUSED:
        return None


async def test_a_certificate_names_who_calls(open_mutual: Open, pki: Pki, upstream: Upstream) -> None:
    """SPIFFE ID and tenant stand in the line of the call; nothing of the certificate goes upstream."""
    side = await open_mutual(MTLS)
    issued = pki.clients.issue(uris=[ID])
    async with tls_connected(side.port, pki.context(issued)) as client:
        for _ in range(2):
            assert (await called(client, upstream)).body == result()
    lines = await side.lines.next_calls(2)
    assert [(line["tenant"], line["principal"]) for line in lines] == [("acme", ID)] * 2
    assert not [name for name, _ in upstream.seen[0].fields if "cert" in name.lower()]


async def test_without_a_certificate_nobody_comes_in_where_it_is_required(
    open_mutual: Open, pki: Pki, upstream: Upstream
) -> None:
    """Not even as somebody anonymous: the handshake fails, and nothing is read."""
    side = await open_mutual(MTLS, ANONYMOUS)
    assert await called_anew(side, pki.context(), upstream) is None
    assert (side.lines.calls, upstream.seen) == ([], [])


async def test_without_a_certificate_other_means_may_prove_who_calls(
    open_mutual: Open, pki: Pki, upstream: Upstream
) -> None:
    """listen.tls.client_certificate: optional."""
    side = await open_mutual(MTLS, ANONYMOUS, optional=True)
    assert await called_anew(side, pki.context(), upstream) == 200
    assert await called_anew(side, pki.context(pki.clients.issue(uris=[ID])), upstream) == 200
    lines = await side.lines.next_calls(2)
    assert [line["tenant"] for line in lines] == ["public", "acme"]


async def test_without_a_certificate_and_other_means_a_call_is_unauthenticated(
    open_mutual: Open, pki: Pki, upstream: Upstream
) -> None:
    """401 for whoever presents nothing."""
    side = await open_mutual(MTLS, optional=True)
    assert await called_anew(side, pki.context(), upstream) == 401
    assert upstream.seen == []


@pytest.mark.parametrize(
    ("subject", "uris"),
    [
        pytest.param(a_name(CN="billing"), ["spiffe://example.org/ns/other/billing"], id="another team"),
        pytest.param(a_name(CN="billing"), [], id="no ID"),
        pytest.param(a_name(CN="billing"), [ID, "spiffe://example.org/ns/team/b"], id="two IDs"),
    ],
)
async def test_a_certificate_that_nobody_listed_is_no_credential(
    open_mutual: Open, pki: Pki, upstream: Upstream, subject: Any, uris: list[str]
) -> None:
    """Verified is not authorised; and a bad credential is never worth as much as none."""
    side = await open_mutual(MTLS, ANONYMOUS)
    issued = pki.clients.issue(subject, uris=uris)
    assert await called_anew(side, pki.context(issued), upstream) == 401
    assert upstream.seen == []
    assert [line["outcome"] for line in await side.lines.next_calls()] == ["unauthenticated"]


async def test_the_first_authenticator_that_knows_a_certificate_decides(
    open_mutual: Open, pki: Pki, upstream: Upstream
) -> None:
    """Several teams, each with a tenant of its own."""
    ours = {**MTLS, "tenant": "ours", "spiffe": "spiffe://example.org/ns/ours/*"}
    named = {"kind": "mtls", "tenant": "named", "subject": "CN=robot,O=Example"}
    side = await open_mutual(ours, MTLS, named)
    for issued in (
        pki.clients.issue(uris=[ID]),
        pki.clients.issue(a_name(O="Example", CN="robot")),
        pki.clients.issue(uris=["spiffe://example.org/ns/ours/a"]),
    ):
        assert await called_anew(side, pki.context(issued), upstream) == 200
    assert [line["tenant"] for line in await side.lines.next_calls(3)] == ["acme", "named", "ours"]


async def test_a_session_belongs_to_the_certificates_owner_not_to_the_certificate(
    open_mutual: Open, pki: Pki, upstream: Upstream
) -> None:
    """Certificates are renewed every hour; sessions outlive them, and are nobody else's."""
    side = await open_mutual(MTLS)
    initialize = post(tool_call().replace(b"tools/call", b"initialize"))
    stays = ("Mcp-Session-Id", "s-1")

    async def hand_out(exchange: Any) -> None:
        exchange.answer(result(), "Mcp-Session-Id: s-1")

    upstream.follow(hand_out)
    async with tls_connected(side.port, pki.context(pki.clients.issue(uris=[ID]))) as first:
        assert (await first.asked(initialize)).get("mcp-session-id") == "s-1"
    upstream.follow(answers)
    async with tls_connected(side.port, pki.context(pki.clients.issue(uris=[ID]))) as renewed:
        assert (await renewed.asked(post(tool_call(), LEGACY, stays))).status == 200
    other = pki.clients.issue(uris=["spiffe://example.org/ns/team/other"])
    async with tls_connected(side.port, pki.context(other)) as stranger:
        assert (await stranger.asked(post(tool_call(), LEGACY, stays))).status == 404


async def test_files_that_change_are_used_without_a_restart(
    open_mutual: Open, pki: Pki, upstream: Upstream
) -> None:
    """The watcher sees them; running connections and a silent stream go on."""
    side = await open_mutual(MTLS)
    old, authority = pki.clients.issue(uris=[ID]), Authority("next")
    new = authority.issue(uris=[ID])
    old_context = pki.context(old)
    async with (
        tls_connected(side.port, old_context) as calls,
        tls_connected(side.port, old_context) as listens,
    ):
        listens.send(listen())
        stream = await upstream.next()
        stream.begin()
        assert (await listens.head()).status == 200
        first = pki.own
        pki.client_ca.write_bytes(authority.pem)
        second = pki.new_own()
        assert calls.shown == first.der
        await side.house.watch.look()
        assert await called_anew(side, old_context, upstream) is None
        async with tls_connected(side.port, pki.context(new)) as client:
            assert (client.shown, (await called(client, upstream)).status) == (second.der, 200)
        assert (await called(calls, upstream)).status == 200
        stream.chunk(b": still here\n\n")
        assert await listens.until(b"\n\n") == b": still here\n\n"
    assert (await side.probe("/readyz")).status == 200


async def test_files_that_do_not_serve_are_reported_and_not_used(
    open_mutual: Open, pki: Pki, upstream: Upstream
) -> None:
    """A line with the file and the remedy; the port serves on with what it has."""
    side = await open_mutual(MTLS)
    context = pki.context(pki.clients.issue(uris=[ID]))
    pki.key.write_bytes(b"-----BEGIN PRIVATE KEY-----\nsesame\n-----END PRIVATE KEY-----\n")
    await side.house.watch.look()
    told = [line for line in side.lines.life if str(pki.key) in json.dumps(line)]
    assert len(told) == 1
    assert "listen.tls.key_file" in json.dumps(told)
    assert "sesame" not in json.dumps(side.lines.life)
    assert await called_anew(side, context, upstream) == 200


async def test_a_certificate_that_ends_meanwhile_is_not_believed_any_more(
    open_mutual: Open, pki: Pki, upstream: Upstream
) -> None:
    """The connection was made in time; the next call on it is not."""
    side = await open_mutual(MTLS)
    lasts = datetime.timedelta(seconds=2.5)
    issued: Issued = pki.clients.issue(uris=[ID], lasts=lasts)
    async with tls_connected(side.port, pki.context(issued)) as client:
        assert (await called(client, upstream)).status == 200
        while (answer := await called(client, upstream)).status == 200:
            assert datetime.datetime.now(datetime.UTC).timestamp() < issued.ends + 1
        assert answer.status == 401
    assert datetime.datetime.now(datetime.UTC).timestamp() >= issued.ends
