"""What an operator turns on in `telemetry` reaches the wire and the log of a real sidecar. Issue 8, 4."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from proxy.telemetry.debugging import CLOSED, OPENED
from proxy.telemetry.redaction import HIDDEN
from tests.integration.conftest import Connect, OpenSidecar
from tests.integration.house import sidecar
from tests.integration.upstream import Exchange, Upstream
from tests.integration.wire import LEGACY, Answer, fields_for, request, result, tool_call

NAMED = "telemetry.request_id_header=X-Request-Id"


async def served(exchange: Exchange) -> None:
    """As a server does that knows the header too."""
    exchange.answer(result(json.loads(exchange.request.body or b"{}").get("id")))


def called(*extra: tuple[str, str], body: bytes | None = None) -> bytes:
    body = body or tool_call()
    return request("POST", "/mcp", [*fields_for(body, LEGACY), *extra], body)


def ids(answer: Answer) -> list[str]:
    return [value for name, value in answer.fields if name.lower() == "x-request-id"]


async def test_a_client_knows_its_request_again_everywhere(
    open_sidecar: OpenSidecar, upstream: Upstream, connect: Connect
) -> None:
    """Its id is passed on, logged and answered; refusals have it too, also of what is no message at all."""
    upstream.follow(served)
    side = await open_sidecar(NAMED)
    client = await connect(side.port)
    seen = [
        await client.asked(called(("x-request-id", "from-client"))),
        await client.asked(called(("X-Request-Id", "other"), body=b"{")),
        await client.asked(request("GET", "/nowhere", [("X-Request-Id", "third")])),
    ]
    assert [(answer.status, ids(answer)) for answer in seen] == [
        (200, ["from-client"]),
        (400, ["other"]),
        (404, ["third"]),
    ]
    lines = await side.lines.next_calls(3)
    assert [line["client_request_id"] for line in lines] == ["from-client", "other", "third"]
    assert len({line["request_id"] for line in lines}) == 3
    assert b"\r\nx-request-id: from-client\r\n" in upstream.links[0].received


@pytest.mark.parametrize("sent", [None, "with blanks in it", "x" * 200])
async def test_whoever_sends_no_id_that_is_safe_gets_ours(
    open_sidecar: OpenSidecar, upstream: Upstream, connect: Connect, sent: str | None
) -> None:
    """The one in the log."""
    upstream.follow(served)
    side = await open_sidecar(NAMED)
    client = await connect(side.port)
    answer = await client.asked(called(*([] if sent is None else [("X-Request-Id", sent)])))
    (line,) = await side.lines.next_calls(1)
    assert ids(answer) == [line["request_id"]]
    assert "client_request_id" not in line


async def test_what_is_not_even_http_is_answered_with_our_id(
    open_sidecar: OpenSidecar, connect: Connect
) -> None:
    """Every reply carries one."""
    side = await open_sidecar(NAMED)
    client = await connect(side.port)
    answer = await client.asked(b"POST /mcp HTTP/1.1\r\nHost: a\r\nbroken\r\n\r\n")
    (line,) = await side.lines.next_calls(1)
    assert ids(answer) == [line["request_id"]]


async def test_an_id_of_the_server_does_not_stand_beside_ours(
    open_sidecar: OpenSidecar, upstream: Upstream, connect: Connect
) -> None:
    """Own promise: one id, or nobody knows which."""

    async def with_its_own(exchange: Exchange) -> None:
        body = result()
        exchange.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-REQUEST-ID: of-the-server\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        )

    upstream.follow(with_its_own)
    client = await connect((await open_sidecar(NAMED)).port)
    assert ids(await client.asked(called(("X-Request-Id", "ours")))) == ["ours"]


async def test_without_the_setting_replies_are_the_servers(
    open_sidecar: OpenSidecar, upstream: Upstream, connect: Connect
) -> None:
    """Design section 1: transparent unless asked for."""
    upstream.follow(served)
    side = await open_sidecar()
    client = await connect(side.port)
    assert ids(await client.asked(called(("X-Request-Id", "mine")))) == []
    (line,) = await side.lines.next_calls(1)
    assert "client_request_id" not in line


async def test_arguments_are_known_again_where_it_is_asked_for(
    open_sidecar: OpenSidecar, upstream: Upstream, connect: Connect
) -> None:
    """Design section 6, args_hash."""
    upstream.follow(served)
    side = await open_sidecar("telemetry.args_hash=true")
    client = await connect(side.port)
    for _ in range(2):
        await client.asked(called())
    first, second = await side.lines.next_calls(2)
    assert first["args_hash"] == second["args_hash"]
    assert len(first["args_hash"]) == 16


def settings(folder: Path, tenant: str | None) -> Path:
    file = folder / "config.yaml"
    until = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    debug: list[Any] = [] if tenant is None else [{"tenant": tenant, "until": until}]
    file.write_text(json.dumps({"version": 1, "telemetry": {"debug": debug}}), encoding="utf-8")
    return file


async def test_a_tenant_is_looked_at_closely_until_a_reload_ends_it(
    open_sidecar: OpenSidecar, upstream: Upstream, connect: Connect, tmp_path: Path
) -> None:
    """Issue 8, 4: time-boxed debug per tenant, and its beginning and end are told."""
    upstream.follow(served)
    side = await open_sidecar(file=settings(tmp_path, "local"))
    client = await connect(side.port)

    def details() -> list[dict[str, Any]]:
        return [line for line in side.lines.calls if line["msg"] == "call in detail"]

    await client.asked(called())
    await side.lines.next_calls(2)
    (line,) = details()
    assert [step["step"] for step in line["steps"]] == ["identified", "permitted", "attempt", "ended"]
    assert line["steps"][2]["status"] == 200
    for tenant, count in (("somebody", 3), (None, 4)):
        settings(tmp_path, tenant)
        assert await side.house.reload()
        await client.asked(called())
        await side.lines.next_calls(count)
    assert len(details()) == 1
    told = [(line["msg"], line["tenant"]) for line in side.lines.life if line["msg"] in (OPENED, CLOSED)]
    assert told == [(OPENED, "local"), (CLOSED, "local"), (OPENED, "somebody"), (CLOSED, "somebody")]


async def test_no_sink_holds_a_known_secret_whoever_chose_the_text(
    upstream: Upstream, connect: Connect, tmp_path: Path
) -> None:
    """Issue 8, 4: by the value of every known secret, in audit lines and spans as in the log."""
    upstream.follow(served)
    exporter, audit, key = InMemorySpanExporter(), tmp_path / "audit.jsonl", tmp_path / "key"
    key.write_text("hunter2-the-secret", encoding="utf-8")
    async with sidecar(
        upstream.url,
        f'upstream.headers={{"X-Key":"${{file:{key}}}"}}',
        f"telemetry.audit.file={audit}",
        'telemetry.audit.classes=["read","write","dangerous"]',
        'telemetry.traces={"exporter":"none","sample":1}',
        exporter=exporter,
    ) as side:
        client = await connect(side.port)
        await client.asked(called(body=tool_call(tool="hunter2-the-secret")))
        (line,) = await side.lines.next_calls(1)
        assert line["tool"] == HIDDEN
    spans = exporter.get_finished_spans()
    assert [span.attributes["gen_ai.tool.name"] for span in spans if span.attributes] == [HIDDEN, HIDDEN]
    recorded = [json.loads(each) for each in audit.read_bytes().splitlines()]
    assert [each["tool"] for each in recorded if each["kind"] == "result"] == [HIDDEN]
    assert b"hunter2" not in audit.read_bytes()


async def test_debug_windows_are_recorded(
    open_sidecar: OpenSidecar, upstream: Upstream, connect: Connect, tmp_path: Path
) -> None:
    """Issue 8, 4: debug is audited."""
    audit = tmp_path / "audit.jsonl"
    side = await open_sidecar(f"telemetry.audit.file={audit}", file=settings(tmp_path, "local"))
    settings(tmp_path, None)
    assert await side.house.reload()
    await side.house.close(grace_s=0)
    recorded = [json.loads(each) for each in audit.read_bytes().splitlines()]
    events = [each["what"] for each in recorded if each["kind"] == "event"]
    assert [each for each in events if each in (OPENED, CLOSED)] == [OPENED, CLOSED]
