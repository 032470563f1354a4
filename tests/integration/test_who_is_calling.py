"""Who is let in, what everybody else is told, and that it is the same on every method and path."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.idp import AUDIENCE, Idp, Scripted
from tests.integration.client import Client
from tests.integration.conftest import Connect, OpenSidecar
from tests.integration.house import Sidecar
from tests.integration.upstream import Upstream
from tests.integration.wire import (
    LEGACY,
    REVISIONS,
    Answer,
    listen,
    message,
    post,
    request,
    result,
    tool_call,
)

METADATA = "https://tools.example.com/.well-known/oauth-protected-resource/mcp"
CHALLENGE = f'Bearer resource_metadata="{METADATA}"'


@pytest.fixture
async def idp() -> AsyncIterator[Idp]:
    async with Idp() as idp:
        yield idp


def jwt(idp: Idp, **changed: object) -> str:
    authenticator = {"kind": "jwt", "issuer": idp.issuer, "jwks_url": idp.jwks_url, **changed}
    return f"identity.authenticators={json.dumps([authenticator])}"


@pytest.fixture
async def guarded(open_sidecar: OpenSidecar, idp: Idp) -> Sidecar:
    """A sidecar that takes tokens of `idp`, with its keys loaded."""
    side = await open_sidecar(f"identity.resource={AUDIENCE}", jwt(idp))
    await idp.fetched(1)
    return side


@pytest.fixture
async def client(guarded: Sidecar, connect: Connect) -> Client:
    return await connect(guarded.port)


def bearer(token: str) -> tuple[str, str]:
    return ("Authorization", f"Bearer {token}")


async def forwarded(upstream: Upstream, client: Client, sent: bytes) -> tuple[Answer, bytes]:
    """The answer to what the server is to see, and every byte that reached it."""
    client.send(sent)
    exchange = await upstream.next()
    exchange.answer(result())
    return await client.answer(), bytes(exchange.link.received)


@pytest.mark.parametrize("revision", REVISIONS)
async def test_a_token_lets_in_and_stays_here(
    guarded: Sidecar, client: Client, upstream: Upstream, idp: Idp, revision: str
) -> None:
    """Issue 3, 1 and 7: the server sees the call, and nothing of the token."""
    token = idp.token(sub="alice", tenant=" acme ")
    answer, seen = await forwarded(upstream, client, post(tool_call(revision), revision, bearer(token)))
    assert answer.status == 200
    assert not any(part.encode() in seen for part in token.split("."))
    [line] = await guarded.lines.next_calls()
    assert (line["tenant"], line["principal"], line["outcome"]) == ("acme", "alice", "ok")


@pytest.mark.parametrize(
    "sent",
    [
        post(tool_call()),
        post(message("initialize", LEGACY, protocolVersion=LEGACY)),
        post(message("ping", LEGACY)),
        post(message("notifications/initialized", LEGACY, None)),
        post(message("server/discover", REVISIONS[-1]), REVISIONS[-1]),
        post(b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]', "2025-03-26"),
        listen(),
        request("DELETE", fields=[("Mcp-Session-Id", "s")]),
    ],
)
async def test_whoever_presents_nothing_is_told_the_same_everywhere(
    client: Client, upstream: Upstream, sent: bytes
) -> None:
    """Issue 3, 6; protocol.md 6.2: the challenge stands on every method."""
    client.send(sent)
    answer = await client.answer()
    assert (answer.status, answer.get("www-authenticate")) == (401, CHALLENGE)
    assert upstream.seen == []


@pytest.mark.parametrize("target", ["/sse", "/messages?sessionId=1"])
async def test_the_two_endpoints_ask_too(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream, idp: Idp, target: str
) -> None:
    """Issue 3, 6: legacy SSE and messages."""
    side = await open_sidecar(f"identity.resource={AUDIENCE}", jwt(idp), url=f"{upstream.url[:-3]}sse")
    await idp.fetched(1)
    client = await connect(side.port)
    client.send(listen(target=target) if target == "/sse" else post(tool_call(), "2025-03-26", target=target))
    answer = await client.answer()
    assert (answer.status, answer.get("www-authenticate")) == (401, CHALLENGE)
    assert upstream.seen == []


@pytest.mark.parametrize(
    "sent",
    [
        post(b"{", LEGACY),
        post(b'{"jsonrpc":"2.0","id":1,"method":"ping"}', "2099-01-01"),
        request("GET", "/mcp", [("MCP-Protocol-Version", "2099-01-01")]),
        post(b'{"jsonrpc":"2.0","id":1,"method":"ping"}', LEGACY, ("Authorization", "Bearer \u00ff")),
    ],
)
async def test_a_stranger_is_not_told_what_is_wrong_with_a_message(
    client: Client, idp: Idp, sent: bytes
) -> None:
    """Corpus HTTP-097 and AUTH-020: what the reader thinks of it is for callers."""
    client.send(sent)
    answer = await client.answer()
    assert answer.status == 401
    assert (answer.get("www-authenticate") or "").startswith(CHALLENGE)


@pytest.mark.parametrize("framing", [("Content-Length", "65537"), ("Transfer-Encoding", "chunked")])
async def test_a_stranger_is_not_waited_for_while_it_sends_a_long_body(
    client: Client, framing: tuple[str, str]
) -> None:
    """Attack: a hundred connections of 4 MiB each that never say who they are were 400 MB of ours."""
    client.send(request("POST", fields=[("Content-Type", "application/json"), framing]))
    answer = await client.answer()
    assert (answer.status, answer.get("www-authenticate")) == (401, CHALLENGE)


async def test_a_caller_may_send_a_long_body(client: Client, upstream: Upstream, idp: Idp) -> None:
    """The other side of it."""
    body = message("tools/call", LEGACY, name="echo", arguments={"text": "x" * 70_000})
    answer, _ = await forwarded(upstream, client, post(body, LEGACY, bearer(idp.token())))
    assert answer.status == 200


async def test_a_caller_is_told_what_is_wrong_with_a_message(client: Client, idp: Idp) -> None:
    """The other side of it."""
    client.send(post(b"{", LEGACY, bearer(idp.token())))
    assert (await client.answer()).status == 400


async def test_an_event_id_on_a_post_goes_nowhere(client: Client, upstream: Upstream, idp: Idp) -> None:
    """Corpus MIS-042: it means nothing there, and nobody asked whose it is."""
    sent = post(tool_call(), LEGACY, bearer(idp.token()), ("Last-Event-ID", "of-bob"))
    answer, seen = await forwarded(upstream, client, sent)
    assert answer.status == 200
    assert b"of-bob" not in seen


async def test_a_bad_token_is_called_invalid(client: Client, upstream: Upstream, idp: Idp) -> None:
    """RFC 6750 section 3.1; the description says why, in fixed words."""
    client.send(post(tool_call(), LEGACY, bearer(idp.token(exp=1))))
    answer = await client.answer()
    assert answer.status == 401
    assert answer.get("www-authenticate") == (
        f'{CHALLENGE}, error="invalid_token", error_description="The token has expired."'
    )
    assert upstream.seen == []


async def test_a_missing_scope_is_asked_for(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream, idp: Idp
) -> None:
    """MCP 2025-11-25 basic/authorization: 403 insufficient_scope with the scopes."""
    side = await open_sidecar(
        f"identity.resource={AUDIENCE}", jwt(idp, required_scopes=["mcp:call", "mcp:x"])
    )
    await idp.fetched(1)
    client = await connect(side.port)
    client.send(post(tool_call(), LEGACY, bearer(idp.token(scope="mcp:call"))))
    answer = await client.answer()
    assert answer.status == 403
    assert 'scope="mcp:call mcp:x", error="insufficient_scope"' in (answer.get("www-authenticate") or "")
    answer, _ = await forwarded(
        upstream, client, post(tool_call(), LEGACY, bearer(idp.token(scope="mcp:x mcp:call more")))
    )
    assert answer.status == 200


@pytest.mark.parametrize("path", ["", "/mcp"])
async def test_the_document_needs_no_credential(client: Client, path: str) -> None:
    """RFC 9728; protocol.md 6.2: a 401 there breaks discovery."""
    client.send(request("GET", f"/.well-known/oauth-protected-resource{path}"))
    answer = await client.answer()
    assert answer.status == 200
    assert isinstance(answer.json, dict)
    assert answer.json["resource"] == AUDIENCE


async def test_without_oauth_the_document_is_a_clean_404(
    open_sidecar: OpenSidecar, connect: Connect, tmp_path: Path
) -> None:
    """protocol.md 6.2: anything else starts a bogus flow. API keys are no OAuth."""
    keys = tmp_path / "keys.yaml"
    keys.write_text("version: 1\npepper: AAAAAAAAAAAAAAAAAAAAAAAA\nkeys: []\n", encoding="utf-8")
    authenticators = json.dumps([{"kind": "api_key", "keys_file": str(keys)}])
    for side in (await open_sidecar(), await open_sidecar(f"identity.authenticators={authenticators}")):
        for path in ("", "/mcp"):
            client = await connect(side.port)
            client.send(request("GET", f"/.well-known/oauth-protected-resource{path}"))
            answer = await client.answer()
            assert (answer.status, answer.get("www-authenticate")) == (404, None)


async def test_a_foreign_host_decides_nothing(open_sidecar: OpenSidecar, connect: Connect, idp: Idp) -> None:
    """Corpus AUTH-131: the document's address comes from the settings."""
    side = await open_sidecar(
        f"identity.resource={AUDIENCE}",
        jwt(idp),
        'listen.allowed_hosts=["tools.example.com", "other.example"]',
    )
    client = await connect(side.port)
    client.send(request("GET", "/mcp", [("Accept", "text/event-stream")], host="other.example"))
    answer = await client.answer()
    assert (answer.status, answer.get("www-authenticate")) == (401, CHALLENGE)


@pytest.mark.parametrize(
    "name", ["X-Principal", "X-Auth-Request-Email", "X-Forwarded-User", "X-Tenant", "X_Principal"]
)
async def test_nobody_is_somebody_else_by_a_header(
    client: Client, upstream: Upstream, idp: Idp, name: str
) -> None:
    """Corpus AUTH-117 to AUTH-125."""
    sent = post(tool_call(), LEGACY, bearer(idp.token()), (name, "root-of-all"), ("Cookie", "root-of-all"))
    answer, seen = await forwarded(upstream, client, sent)
    assert answer.status == 200
    assert b"root-of-all" not in seen


async def test_the_provider_is_not_asked_for_every_call(client: Client, upstream: Upstream, idp: Idp) -> None:
    """Keys are fetched in the background; a verified token is remembered."""
    for _ in range(3):
        await forwarded(upstream, client, post(tool_call(), LEGACY, bearer(idp.token())))
    assert idp.fetches == 1


async def test_readiness_tells_of_the_provider(
    open_sidecar: OpenSidecar, upstream: Upstream, idp: Idp, connect: Connect
) -> None:
    """Issue 3, 1: IdP trouble is 503 and readiness, never 401 and never a yes."""
    idp.jwks_answer = Scripted(status=500)
    side = await open_sidecar(f"identity.resource={AUDIENCE}", jwt(idp))
    await idp.fetched(1)
    probe = await side.probe("/readyz")
    assert (probe.status, probe.json) == (503, {"status": "unavailable", "reason": "keys not loaded"})
    client = await connect(side.port)
    client.send(post(tool_call(), LEGACY, bearer(idp.token())))
    answer = await client.answer()
    assert (answer.status, answer.get("www-authenticate")) == (503, None)
    assert answer.get("retry-after") == "1"
    assert upstream.seen == []
    assert (await side.probe("/healthz")).status == 200
    assert (await side.probe("/startupz")).status == 200


async def test_our_credential_upstream_follows_its_file(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream, tmp_path: Path
) -> None:
    """Issue 3, 7: re-read when the file changes; a bad one keeps the old, and no line shows either."""
    file = tmp_path / "token"
    file.write_text("first-word", encoding="utf-8")
    side = await open_sidecar(f"upstream.headers.X-Upstream-Token=${{file:{file}}}")
    client = await connect(side.port)
    for content, expected in (("second-word", "second-word"), ("bad\nword", "second-word")):
        file.write_text(content, encoding="utf-8")
        await side.house.watch.look()
        _, seen = await forwarded(upstream, client, post(tool_call()))
        assert f"X-Upstream-Token: {expected}\r\n".encode() in seen
    said = [line["msg"] for line in side.lines.life]
    assert said == ["reloaded", "not reloaded"]
    assert "word" not in json.dumps(side.lines.life)


async def test_a_listed_page_may_read_who_issues_tokens(
    open_sidecar: OpenSidecar, connect: Connect, idp: Idp
) -> None:
    """A client in a browser finds its way to a token only where it may read the document."""
    origin = "https://app.example"
    side = await open_sidecar(
        f"identity.resource={AUDIENCE}", jwt(idp), f'listen.allowed_origins=["{origin}"]'
    )
    client = await connect(side.port)
    target = "/.well-known/oauth-protected-resource/mcp"
    client.send(request("GET", target, [("Origin", origin)]))
    answer = await client.answer()
    assert (answer.status, answer.get("access-control-allow-origin"), answer.get("vary")) == (
        200,
        origin,
        "Origin",
    )
    asks = [("Origin", origin), ("Access-Control-Request-Method", "GET")]
    client.send(request("OPTIONS", target, asks))
    answer = await client.answer()
    assert (answer.status, answer.get("access-control-allow-methods")) == (204, "GET, OPTIONS")
    client.send(request("GET", target))
    assert (await client.answer()).get("access-control-allow-origin") is None


async def test_odd_bytes_for_a_page_of_the_server_are_a_bad_request(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream, tmp_path: Path
) -> None:
    """Pages pass Authorization on: what two readers would decode differently is not passed on."""
    keys = tmp_path / "keys.yaml"
    keys.write_text("version: 1\npepper: AAAAAAAAAAAAAAAAAAAAAAAA\nkeys: []\n", encoding="utf-8")
    authenticators = json.dumps([{"kind": "api_key", "keys_file": str(keys), "header": "Authorization"}])
    side = await open_sidecar(
        f"identity.resource={AUDIENCE}",
        f"identity.authenticators={authenticators}",
        "upstream.forward_client_authorization=true",
    )
    client = await connect(side.port)
    client.send(b"GET /authorize HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer \xff\r\n\r\n")
    assert (await client.answer()).status == 400
    assert upstream.seen == []
