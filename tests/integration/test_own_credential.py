"""The server does not accept the sidecar: whose trouble is that? Not the caller's, whose credential stays here."""

import json
from collections.abc import AsyncIterator, Sequence

import pytest

from tests.idp import AUDIENCE, Idp
from tests.integration.conftest import Connect, OpenSidecar
from tests.integration.house import Sidecar
from tests.integration.upstream import Upstream
from tests.integration.wire import LEGACY, MODERN, NOTE, listen, message, post, request, result, tool_call

LEADS = 'WWW-Authenticate: Bearer resource_metadata="http://169.254.169.254/"'
NO = "401 Unauthorized"


@pytest.fixture
async def idp() -> AsyncIterator[Idp]:
    async with Idp() as idp:
        yield idp


async def guarded(open_sidecar: OpenSidecar, idp: Idp, *more: str) -> Sidecar:
    authenticators = [
        {"kind": "jwt", "issuer": idp.issuer, "jwks_url": idp.jwks_url},
        {"kind": "anonymous", "tenant": "local"},
    ]
    side = await open_sidecar(
        f"identity.resource={AUDIENCE}", f"identity.authenticators={json.dumps(authenticators)}", *more
    )
    await idp.fetched(1)
    return side


def bearer(idp: Idp) -> tuple[str, str]:
    return ("Authorization", f"Bearer {idp.token()}")


@pytest.mark.parametrize("status", [NO, "407 Proxy Authentication Required"])
@pytest.mark.parametrize(("form", "expected"), [("result", 200), ("http", 502)])
@pytest.mark.parametrize("revision", [LEGACY, MODERN])
async def test_a_call_is_told_so_and_nobody_follows_the_challenge(
    open_sidecar: OpenSidecar,
    connect: Connect,
    upstream: Upstream,
    idp: Idp,
    revision: str,
    form: str,
    expected: int,
    status: str,
) -> None:
    """UP-056, in both forms."""
    side = await guarded(open_sidecar, idp, f"refusals={form}")
    client = await connect(side.port)
    client.send(post(tool_call(revision), revision, bearer(idp)))
    (await upstream.next()).answer(b"log in", LEADS, status=status, kind="text/plain")
    answer = await client.answer()
    assert (answer.status, answer.get("www-authenticate")) == (expected, None)
    assert b"169.254" not in answer.body
    assert b"does not accept the sidecar's own credential" in answer.body
    (line,) = await side.lines.next_calls()
    assert (line["outcome"], line["reason"]) == ("upstream_error", "upstream_broke")
    assert (line["attempts"], line["altered"]) == (1, ["challenge"])


def others(idp: Idp) -> Sequence[bytes]:
    fields = ("Authorization", f"Bearer {idp.token()}")
    return [
        post(message("initialize", LEGACY, protocolVersion=LEGACY), LEGACY, fields),
        post(message("server/discover", MODERN), MODERN, fields),
        post(NOTE, LEGACY, fields),
        listen(fields),
        request("DELETE", fields=[fields]),
    ]


@pytest.mark.parametrize("number", range(5))
async def test_so_is_everything_else(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream, idp: Idp, number: int
) -> None:
    """SDK clients begin to sign in at any 401."""
    side = await guarded(open_sidecar, idp)
    client = await connect(side.port)
    client.send(others(idp)[number])
    (await upstream.next()).answer(b"", LEADS, status=NO, kind="")
    answer = await client.answer()
    assert (answer.status, answer.get("www-authenticate")) == (502, None)


async def test_operators_hear_of_it_and_the_breaker_does_not(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream, idp: Idp
) -> None:
    """One line, not one a call; /readyz is degraded until the server accepts us. A server that says no is well."""
    side = await guarded(open_sidecar, idp, "resilience.breaker.failures=2")
    client = await connect(side.port)
    for _ in range(6):
        client.send(post(tool_call(), LEGACY, bearer(idp)))
        (await upstream.next()).answer(b"", LEADS, status=NO, kind="")
        assert b"upstream_broke" in (await client.answer()).body
    (line,) = [line for line in side.lines.life if line["msg"] == "own credential is refused"]
    assert (line["level"], line["calls"]) == ("warning", 1)
    assert "upstream.headers" in line["why"]
    reason = "the server does not accept the sidecar's own credential"
    assert side.house.health.why_degraded() == [reason]
    client.send(post(tool_call(), LEGACY, bearer(idp)))
    (await upstream.next()).answer(result())
    assert (await client.answer()).body == result()
    assert side.house.health.why_degraded() == []


@pytest.mark.parametrize("is_anonymous", [True, False])
async def test_where_the_callers_word_may_reach_the_server_the_challenge_is_theirs(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream, idp: Idp, is_anonymous: bool
) -> None:
    """Issue 3: a server that does its own OAuth is passed on."""
    forwards = "upstream.forward_client_authorization=true"
    side = await (open_sidecar() if is_anonymous else guarded(open_sidecar, idp, forwards))
    client = await connect(side.port)
    client.send(post(tool_call(), LEGACY))  # whatever it would be led to, this caller may go there
    (await upstream.next()).answer(b"", 'WWW-Authenticate: Bearer error="invalid_token"', status=NO, kind="")
    answer = await client.answer()
    assert (answer.status, answer.body) == (401, b"")
    assert answer.get("www-authenticate") == 'Bearer error="invalid_token"'
