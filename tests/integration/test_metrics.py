"""What happened, as a scraper sees it: real calls over real sockets, and the page of the operations port.

Source: issue 8, point 3; design.md section 6.
"""

from __future__ import annotations

import itertools
import json
import platform
from pathlib import Path

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.integration.client import Client
from tests.integration.conftest import Connect, OpenSidecar
from tests.integration.keys import key, let_in
from tests.integration.scrape import Page, scrape, scraped
from tests.integration.test_policy import PINNED, entry_of
from tests.integration.test_reload import File, file, reload
from tests.integration.upstream import Exchange, Upstream, fields_of
from tests.integration.waiting import until
from tests.integration.wire import LEGACY, MODERN, message, post, request, result, tool_call

__all__ = ["file"]  # a fixture

ANN, EVE = "ann.secret-of-ann-01", "eve.secret-of-eve-01"
PEOPLE = {ANN: ("acme", "ann", ["user"]), EVE: ("umbrella", "eve", ["user"])}
DESIGN = """
    tool_calls_total tool_latency_seconds outbound_latency_seconds in_flight_tool_calls queue_depth auth_failures_total
    rate_limited_total budget_exceeded_total policy_denied_total danger_tool_attempt_total tool_timeouts_total
    tool_retries_total would_refuse_total cache_events_total cache_bytes breaker_state tool_drift_total
    config_last_reload_successful audit_write_failures_total loop_lag_seconds
"""

TOOLS = [
    {"match": "echo", "class": "read", "allow": ["*"], "cache": {"ttl_s": 60}},
    {"match": "forbidden", "class": "dangerous", "deny": ["*"], "id": "never"},
    {"match": "slow", "class": "read", "idempotent": True, "allow": ["*"], "timeout_s": 0.1},
    {"match": "slow_write", "class": "write", "allow": ["*"], "timeout_s": 0.1},
    {"match": "broken", "class": "write", "allow": ["*"]},
    {"match": "flaky", "class": "read", "allow": ["*"], "idempotent": True},
    {"match": "trial", "class": "write", "deny": ["*"], "report": True},
    {"match": "*", "class": "write", "allow": ["*"]},
]
LIMITS = [
    {"name": "rate", "key": ["tenant"], "tools": ["limited"], "rate_per_s": 0.001, "burst": 1},
    {"name": "daily", "key": ["tenant"], "tools": ["budgeted"], "quota": 1, "window": "day"},
]


class Server:
    """Answers by the name of the tool."""

    def __init__(self) -> None:
        self._flaked = False

    async def __call__(self, exchange: Exchange) -> None:
        said = json.loads(exchange.request.body or b"{}")
        name = said.get("params", {}).get("name")
        if said.get("method") == "tools/list":
            answer = {
                "jsonrpc": "2.0",
                "id": said["id"],
                "result": {"tools": [{**PINNED, "title": "Another"}]},
            }
            exchange.answer(json.dumps(answer).encode())
        elif name == "broken" or (name == "flaky" and not self._flaked):
            self._flaked = self._flaked or name == "flaky"
            exchange.link.reset()
        elif "id" not in said:
            exchange.answer(b"", status="202 Accepted", kind="")
        elif name not in ("slow", "slow_write"):
            exchange.answer(result(said["id"]))


async def called(client: Client, tool: str, *, who: str = ANN, revision: str = LEGACY) -> bytes:
    client.send(post(tool_call(revision, tool=tool), revision, key(who)))
    return (await client.answer()).body


def calls(page: Page, tool: str, status: str, tenant: str = "acme") -> float | None:
    return page("tool_calls_total", tool=tool, tenant=tenant, status=status)


async def test_every_metric_of_the_design_after_a_few_real_calls(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream, tmp_path: Path
) -> None:
    """Issue 8: allowed, denied, limited, cached, failed upstream, timed out, and what else there is to see."""
    lock = tmp_path / "tools.lock.yaml"
    lock.write_text(json.dumps({"version": 1, "tools": [entry_of(PINNED)]}), encoding="utf-8")
    side = await open_sidecar(
        let_in(tmp_path, PEOPLE),
        f"policy.tools={json.dumps(TOOLS)}",
        f"policy.pins.file={lock}",
        "policy.pins.on_change=report",
        f"limits={json.dumps(LIMITS)}",
        "cache.max_bytes=16777216",
        "resilience.attempts=2",
        "resilience.backoff_s=0.001",
    )
    upstream.follow(Server())
    client = await connect(side.port)
    for tool in ("echo", "echo", "forbidden", "slow", "slow_write", "broken", "flaky", "trial"):
        await called(client, tool)
    for tool in ("limited", "limited", "budgeted", "budgeted"):
        await called(client, tool)
    await called(client, "echo", who=EVE)
    await called(client, "echo", who="ann.wrong-secret-000")
    await called(client, "made-up-by-a-stranger", revision=MODERN)
    client.send(post(message("tools/list", LEGACY), LEGACY, key(ANN)))
    await client.answer()
    page = await scraped(side.operations, "mcp_requests_total", 1, method="tools/list", status="ok")

    assert calls(page, "echo", "ok") == 2
    assert calls(page, "echo", "ok", "umbrella") == 1
    assert page("tool_calls_total", tool="echo", tenant="none", status="unauthenticated") == 1
    assert calls(page, "forbidden", "denied") == 1
    assert calls(page, "slow", "timeout") == 1
    assert calls(page, "slow_write", "outcome_unknown") == 1
    assert calls(page, "broken", "outcome_unknown") == 1
    assert calls(page, "flaky", "ok") == 1
    assert calls(page, "trial", "ok") == 1
    assert calls(page, "limited", "ok") == 1
    assert calls(page, "limited", "rate_limited") == 1, "no rule names it, but the server has answered it"
    assert calls(page, "budgeted", "rate_limited") == 1
    assert page("tool_latency_seconds_count", tool="echo") == 3
    assert page("tool_latency_seconds_count", tool="slow") == 1
    assert page("tool_latency_seconds_bucket", tool="slow", le="0.05") == 0
    assert page("tool_latency_seconds_count", tool="forbidden") is None
    assert page("auth_failures_total", reason="bad_credential") == 1
    assert page("rate_limited_total", tenant="acme") == 1
    assert page("budget_exceeded_total", tenant="acme", budget_type="daily") == 1
    assert page("policy_denied_total", rule_id="never") == 1
    assert page("danger_tool_attempt_total", tool="forbidden") == 1
    assert page("tool_timeouts_total", tool="slow") == 1
    assert page("tool_timeouts_total", tool="slow_write") == 1
    assert page("tool_timeouts_total", tool="broken") is None
    assert page("tool_retries_total", tool="flaky") == 1
    assert page("would_refuse_total", rule_id="trial") == 1
    assert page("cache_events_total", event="hit") == 1
    assert page("cache_events_total", event="stored") == 2
    assert (page("cache_bytes") or 0) > 0
    assert page("breaker_state") == 0
    assert page("tool_drift_total", tool="echo") == 1
    assert page("config_last_reload_successful") == 1
    assert page("audit_write_failures_total") == 0
    assert (page("loop_lag_seconds_count") or 0) > 0
    # echo for two; two slow ones, and the words that nobody waits; flaky twice; broken, trial, limited,
    # budgeted, the stranger's, and the list
    assert page("outbound_latency_seconds_count", dependency="upstream") == 14
    assert page("limit_decisions_total", limit="rate", decision="refused") == 1
    assert page("connections_open") == 1
    assert page("mcp_sidecar_build_info", version="0.1.0", python=platform.python_version()) == 1
    for name in DESIGN.split():
        assert f"# TYPE {name} " in page.text
    for secret in ("secret-of-ann", "wrong-secret", "hello"):
        assert secret not in page.text


async def test_what_is_under_way_and_what_waits(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream
) -> None:
    side = await open_sidecar(
        'policy.tools=[{"match": "echo", "allow": ["*"]}, {"match": "*", "allow": ["*"]}]',
        "capacity.max_in_flight=1",
        "capacity.queue_depth=4",
        "capacity.max_wait_s=30",
    )
    clients = [await connect(side.port) for _ in range(4)]
    for client, tool in zip(clients, ("echo", "echo", "echo", "made-up"), strict=True):
        client.send(post(tool_call(tool=tool)))
    await until(lambda: side.house.rooms.capacity.waiting == 3)
    page = await scraped(side.operations, "in_flight_tool_calls", 3, tool="echo")
    assert page("in_flight_tool_calls", tool="other") == 1
    assert (page("queue_depth", tool="echo"), page("queue_depth", tool="other")) == (2, 1)
    assert page("capacity_places", state="awaited") == 3
    assert page("requests_in_flight") == 4
    for client in clients:
        (await upstream.next()).answer(result())
        await client.answer()
    page = await scraped(side.operations, "capacity_places", 0, state="awaited")
    assert not page("queue_depth", tool="echo")
    assert not page("in_flight_tool_calls", tool="echo")


async def test_a_reload_makes_no_counter_fall(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream, file: File
) -> None:
    """Own promise: rooms begin anew with each reading of the settings, their counts do not."""
    limit = {"name": "rate", "key": ["tenant"], "rate_per_s": 0.001, "burst": 2}
    file.allows(limits=[limit])
    side = await open_sidecar(file=file.path)
    client = await connect(side.port)
    pages = [await scrape(side.operations)]
    upstream.follow(Server())
    for burst in (2, 4, 6):
        for _ in range(3):
            client.send(post(tool_call()))
            await client.answer()
        file.allows(limits=[{**limit, "burst": burst + 2}], capacity={"max_in_flight": 10 + burst})
        await reload(side)
        reloads = burst / 2
        pages.append(await scraped(side.operations, "config_reloads_total", reloads, result="succeeded"))
    for before, after in itertools.pairwise(pages):
        fallen = {
            key: (value, after.counters().get(key))
            for key, value in before.counters().items()
            if after.counters().get(key, -1) < value
        }
        assert fallen == {}
    last = pages[-1]
    granted = last("limit_decisions_total", limit="rate", decision="granted") or 0
    refused = last("limit_decisions_total", limit="rate", decision="refused") or 0
    assert granted + refused == 9
    assert refused > 0
    assert last("rate_limited_total", tenant="local") == refused


async def test_settings_that_cannot_be_put_into_force_are_told(open_sidecar: OpenSidecar, file: File) -> None:
    """Corpus: the name of the design is config_last_reload_successful."""
    side = await open_sidecar(file=file.path)
    await scraped(side.operations, "config_last_reload_successful", 1)
    file.says(nonsense=True)
    assert not await side.house.reload()
    page = await scraped(side.operations, "config_last_reload_successful", 0)
    assert page("config_reloads_total", result="failed") == 1
    file.says()
    assert await side.house.reload()
    await scraped(side.operations, "config_last_reload_successful", 1)


async def test_nothing_is_counted_where_it_is_not_wanted(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream, file: File
) -> None:
    """`telemetry.metrics`: off by a reload, on again by another; who scrapes sees that there is nothing."""
    file.says()
    side = await open_sidecar(file=file.path)
    client = await connect(side.port)

    async def call() -> None:
        client.send(post(tool_call()))
        (await upstream.next()).answer(result())
        await client.answer()

    await call()
    await scraped(side.operations, "tool_calls_total", 1, tool="echo", tenant="local", status="ok")
    file.says(telemetry={"metrics": False})
    await reload(side)
    assert (await side.probe("/metrics")).status == 404
    await call()
    file.says()
    await reload(side)
    await call()
    await scraped(side.operations, "tool_calls_total", 2, tool="echo", tenant="local", status="ok")


async def test_a_tool_that_a_list_has_shown_has_a_label(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream
) -> None:
    """Without any policy: it is the server that says which tools there are."""
    side = await open_sidecar()
    client = await connect(side.port)
    client.send(post(message("tools/list", LEGACY)))
    listed = {"jsonrpc": "2.0", "id": 1, "result": {"tools": [{"name": "failing"}, {"name": 7}, "odd"]}}
    (await upstream.next()).answer(json.dumps(listed).encode())
    await client.answer()
    failed = {"jsonrpc": "2.0", "id": 1, "error": {"code": -32603, "message": "no"}}
    for tool in ("failing", "unknown"):
        client.send(post(tool_call(tool=tool)))
        (await upstream.next()).answer(json.dumps(failed).encode())
        await client.answer()
    page = await scraped(
        side.operations, "tool_calls_total", 1, tool="failing", tenant="local", status="rpc_error"
    )
    assert page("tool_calls_total", tool="other", tenant="local", status="rpc_error") == 1


@pytest.mark.parametrize("sample", [0, 1])
async def test_a_bucket_leads_to_the_trace_of_a_call(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream, sample: int
) -> None:
    """Exemplars: in OpenMetrics only, and only of a call that is to be found where traces are collected."""
    side = await open_sidecar(
        "telemetry.traces.exporter=none", f"telemetry.traces.sample={sample}", exporter=InMemorySpanExporter()
    )
    client = await connect(side.port)
    client.send(post(tool_call()))
    exchange = await upstream.next()
    (parent,) = fields_of(exchange.request, "traceparent")
    exchange.answer(result())
    await client.answer()
    await side.lines.next_calls()
    operator = await connect(side.operations)
    operator.send(request("GET", "/metrics", [("Accept", "application/openmetrics-text;version=1.0.0")]))
    answer = await operator.answer()
    assert (answer.get("content-type") or "").startswith("application/openmetrics-text")
    trace_id = parent.split("-")[1]
    assert (f'trace_id="{trace_id}"'.encode() in answer.body) is bool(sample)
    assert b"trace_id" not in (await side.probe("/metrics")).body


@pytest.mark.parametrize("path", ["/metrics"])
async def test_the_data_port_has_no_such_page(open_sidecar: OpenSidecar, connect: Connect, path: str) -> None:
    """Corpus, category telemetry: who may call must not see what others do."""
    side = await open_sidecar()
    client = await connect(side.port)
    client.send(b"GET %b HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" % path.encode())
    answer = await client.answer()
    assert answer.status == 404
    assert b"tool_calls" not in answer.body
