"""What is counted of journeys: each message once, by names of the design, and never too many series."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from proxy.model import Cached, Call, Ending, Kind, Permit, Principal, Reason, Refused, Rule, Verdict
from proxy.telemetry.families import ALL, BY_NAME, STATUSES
from proxy.telemetry.journey import Fields, Journeys, Observers, Record, Try
from proxy.telemetry.labels import MOST_SERIES
from proxy.telemetry.metrics import Metrics
from proxy.telemetry.windows import Windows
from tests.fakes import PRINCIPAL, RULE, make_call
from tests.unit.telemetry.metered import Page, Requests, counts, journeys

DESIGN = (
    "tool_calls_total{tool,tenant,status} tool_latency_seconds{tool} outbound_latency_seconds{dependency} "
    "in_flight_tool_calls{tool} queue_depth{tool} auth_failures_total{reason} rate_limited_total{tenant} "
    "budget_exceeded_total{tenant,budget_type} policy_denied_total{rule_id} danger_tool_attempt_total{tool} "
    "tool_timeouts_total{tool} tool_retries_total{tool} would_refuse_total{rule_id} cache_events_total{event} "
    "cache_bytes breaker_state tool_drift_total{tool} config_last_reload_successful audit_write_failures_total "
    "loop_lag_seconds"
)
"""design section 6, word for word."""


READS = structs.replace(RULE, tool_class="read")


def of(tenant: str) -> Principal:
    return structs.replace(PRINCIPAL, tenant=tenant)


def told(
    journeys: Journeys,
    *steps: str,
    target: str | None = "echo",
    method: str = "tools/call",
    kind: Kind = Kind.REQUEST,
    tenant: str = "acme",
    rule: Rule = READS,
    reason: Reason = Reason.NOT_ALLOWED,
    verdict: Verdict = Verdict.OK,
    ending: Ending | None = Ending.COMPLETE,
    cached: Cached = Cached.HIT,
    data: dict[str, object] | None = None,
) -> Record:
    """A journey that is told these steps in their order, and then its end."""
    record = journeys.open(10.0)
    call = make_call(method=method, target=target, kind=kind, journey=record)
    principal = of(tenant)
    for step in steps:
        match step:
            case "read":
                record.read(call)
            case "identified":
                record.identified(principal)
            case "permitted":
                record.permitted(Permit(call=call, principal=principal, rule=rule))
            case "denied":
                record.denied(rule)
            case "attempted":
                record.attempted().ended()
            case "answered":
                record.answered(verdict)
            case "refused":
                record.refused(Refused(reason, data=data))
            case "cached":
                record.cached(cached)
            case "reported":
                record.would_refuse(rule, reason)
            case "altered":
                record.altered("redirect")
            case _:
                raise AssertionError(step)
    if ending is not None:
        record.ended(ending)
    return record


SERVED = ("read", "identified", "permitted", "attempted", "answered")


def test_every_metric_of_the_design_is_there_with_its_labels() -> None:
    """design section 6: every one of them, exactly as written, no prefix."""
    wanted = {}
    for each in DESIGN.split():
        name, _, labels = each.partition("{")
        wanted[name] = {label for label in labels.rstrip("}").split(",") if label}
    ours = {
        family.name: {
            each for each in (family.row, family.word, "tenant" if family.has_tenant else None) if each
        }
        for family in ALL
    }
    assert {name: ours.get(name) for name in wanted} == wanted
    text = Page(Metrics()).text
    for name in wanted:
        assert f"# TYPE {name.removesuffix('_total')} " in text
        assert f"# HELP {name.removesuffix('_total')} " in text


@pytest.mark.parametrize(
    "name", ["process_cpu_seconds_total", "process_resident_memory_bytes", "python_info"]
)
def test_the_process_is_there_too(name: str) -> None:
    """Issue 8, point 3: build info, process metrics."""
    page = Page(Metrics())
    assert page.all(name)
    assert page.all("mcp_sidecar_build_info")


def test_every_metric_is_explained() -> None:
    """docs/telemetry.md, "Metrics": the table is the reference, labels included."""
    text = (Path(__file__).parents[3] / "docs" / "telemetry.md").read_text(encoding="utf-8")
    for family in ALL:
        labels = [each for each in (family.row, "tenant" if family.has_tenant else None, family.word) if each]
        forms = {f"{family.name}{{{','.join(each)}}}" for each in itertools.permutations(labels)}
        wanted = forms if labels else {family.name}
        assert any(f"`{form}`" in text for form in wanted), family.name


STEPS = [
    "read",
    "identified",
    "permitted",
    "denied",
    "attempted",
    "answered",
    "refused",
    "cached",
    "reported",
]


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "steps": st.lists(st.sampled_from(STEPS[1:]), max_size=8),
                "target": st.sampled_from(["echo", "search", "strange", None]),
                "method": st.sampled_from(["tools/call", "tools/call", "tools/list", "made/up", ""]),
                "kind": st.sampled_from([Kind.REQUEST, Kind.NOTIFICATION, Kind.LISTEN]),
                "tenant": st.sampled_from(["acme", "globex", "other", "none"]),
                "reason": st.sampled_from(Reason),
                "verdict": st.sampled_from(Verdict),
                "ending": st.sampled_from(Ending),
                "cached": st.sampled_from(Cached),
                "is_read": st.booleans(),
            }
        ),
        max_size=12,
    )
)
def test_every_message_increments_exactly_one_status(messages: Sequence[dict[str, object]]) -> None:
    """Issue 8: every outcome increments exactly one series by one, whatever the rooms told and in whatever order."""
    metrics = Metrics()
    metrics.listed(["echo", "search"])
    of_journeys = journeys(metrics)
    before = counts(metrics)
    for message in messages:
        words = dict(message)
        steps = words.pop("steps")
        assert isinstance(steps, list)
        is_read = words.pop("is_read")
        told(of_journeys, *(["read"] if is_read else []), *steps, **words)  # type: ignore[arg-type]
        after = counts(metrics)
        grown = {
            key: value - before.get(key, 0)
            for key, value in after.items()
            if key[0] in ("tool_calls_total", "mcp_requests_total") and value != before.get(key, 0)
        }
        is_call = is_read and words["method"] == "tools/call"
        ((name, (_, _, status)), by), *others = grown.items()
        assert (name, by, others) == ("tool_calls_total" if is_call else "mcp_requests_total", 1, [])
        assert status in STATUSES
        assert all(after.get(key, 0) >= value for key, value in before.items())
        before = after


@pytest.mark.parametrize("reason", Reason)
def test_a_status_is_what_the_journey_says(reason: Reason) -> None:
    metrics = Metrics()
    record = told(journeys(metrics), *SERVED, "refused", reason=reason)
    assert record.outcome in STATUSES
    page = Page(metrics)
    assert {dict(each)["status"] for each in page.all("tool_calls_total")} == {record.outcome}


def test_100_000_names_leave_few_series() -> None:
    """Issue 8: random tool and tenant names, as listed by a server, asked for by strangers, and answered well."""
    metrics = Metrics()
    metrics.allow_tenants(900)
    of_journeys = journeys(metrics)
    chance = random.Random(8)
    for count in range(100_000):
        name, tenant = f"tool-{chance.getrandbits(64):x}", f"tenant-{chance.getrandbits(64):x}"
        if count % 3 == 0:
            metrics.listed([name])
        rule = structs.replace(RULE, id=f"rule-{name}", tool_class="dangerous")
        extra: tuple[str, ...] = ("refused", "denied", "reported", "altered") if count % 2 else ()
        reason = (Reason.QUOTA_SPENT, Reason.RATE_LIMITED, Reason.DEADLINE, Reason.NOT_ALLOWED)[count % 4]
        told(
            of_journeys,
            *SERVED,
            "attempted",
            *extra,
            target=name,
            tenant=tenant,
            rule=rule,
            reason=reason,
            method="tools/call" if count % 5 else name,
            data={"limit": name},
        )
        metrics.drifted(name)
    told(of_journeys, *SERVED, ending=None, target="under way")
    page = Page(metrics)
    assert {name: count for name, count in page.series.items() if count > MOST_SERIES} == {}
    assert max(page.series.values()) > MOST_SERIES // 2, "or the test shows nothing"
    assert sum(page.all("tool_calls_total").values()) == 80_000
    assert sum(page.all("mcp_requests_total").values()) == 20_000
    assert page("tool_latency_seconds_count", tool="other")


def test_a_name_that_a_stranger_made_up_is_no_label() -> None:
    """design section 4: label values from closed sets or capped to `other`. The server knows no such tool."""
    metrics = Metrics()
    of_journeys = journeys(metrics)
    told(of_journeys, *SERVED, target="made-up", verdict=Verdict.TOOL_ERROR)
    told(of_journeys, *SERVED, target="made-up", verdict=Verdict.RPC_ERROR)
    told(of_journeys, "read", "refused", target="made-up", reason=Reason.NO_CREDENTIAL)
    # Called without an id: the server takes any name, and answers nothing.
    told(
        of_journeys, "read", "identified", "permitted", "attempted", target="made-up", kind=Kind.NOTIFICATION
    )
    told(of_journeys, "read", "identified", "permitted", target="made-up", ending=None)
    page = Page(metrics)
    assert "made-up" not in page.text
    assert page("in_flight_tool_calls", tool="other") == 1


@pytest.mark.parametrize("how", ["named", "answered"])
def test_a_tool_that_there_is_has_a_label(how: str) -> None:
    metrics = Metrics()
    if how == "named":
        metrics.listed(["echo"])
    told(journeys(metrics), *SERVED, "attempted")
    page = Page(metrics)
    assert page("tool_calls_total", tool="echo", tenant="acme", status="ok") == 1
    assert page("tool_retries_total", tool="echo") == 1
    assert page("outbound_latency_seconds_count", dependency="upstream") == 2


def test_a_tool_that_becomes_known_is_counted_by_its_name() -> None:
    """And what was counted of it as `other` stays there. Nothing is remembered of a name that is not known: there is no
    end to these."""
    metrics = Metrics()
    of_journeys = journeys(metrics)
    for is_known in (False, True):
        if is_known:
            metrics.listed(["echo"])
        told(of_journeys, *SERVED, verdict=Verdict.TOOL_ERROR, rule=RULE)
    page = Page(metrics)
    for tool in ("echo", "other"):
        assert page("tool_calls_total", tool=tool, tenant="acme", status="tool_error") == 1
        assert page("danger_tool_attempt_total", tool=tool) == 1


def test_a_hostile_name_costs_no_page() -> None:
    """Half a surrogate pair in a list, a tenant and a limit: nothing of it can be written."""
    metrics = Metrics()
    metrics.listed(["a\ud800", "b\nc", "x" * 5_000])
    of_journeys = journeys(metrics)
    for target in ("a\ud800", "b\nc", "x" * 5_000):
        told(
            of_journeys,
            *SERVED,
            "refused",
            target=target,
            tenant=target,
            rule=structs.replace(RULE, id=target),
            reason=Reason.QUOTA_SPENT,
            data={"limit": target},
        )
        metrics.drifted(target)
    page = Page(metrics)
    assert page("tool_calls_total", tool="other", tenant="other", status="rate_limited") == 3
    assert page("budget_exceeded_total", tenant="other", budget_type="other") == 3


def test_tenants_have_labels_up_to_their_number() -> None:
    """Setting telemetry.metrics_tenants; who is nobody is `none`, and takes no place."""
    metrics = Metrics()
    metrics.allow_tenants(2)
    of_journeys = journeys(metrics)
    told(of_journeys, "read", "refused", reason=Reason.NO_CREDENTIAL)
    for tenant in ("a", "b", "c", "a"):
        told(of_journeys, *SERVED, tenant=tenant)
    page = Page(metrics)
    counts = {dict(each)["tenant"]: value for each, value in page.all("tool_calls_total").items()}
    assert counts == {"none": 1, "a": 2, "b": 1, "other": 1}


def test_refusals_are_counted_by_who_refused() -> None:
    metrics = Metrics()
    metrics.listed(["echo"])
    of_journeys = journeys(metrics)
    dangerous = structs.replace(RULE, id="danger", tool_class="dangerous")
    told(of_journeys, "read", "refused", reason=Reason.BAD_CREDENTIAL)
    told(of_journeys, "read", "identified", "denied", "refused", rule=dangerous)
    told(of_journeys, "read", "identified", "permitted", "refused", reason=Reason.APPROVAL_REQUIRED)
    told(of_journeys, "read", "identified", "permitted", "refused", reason=Reason.RATE_LIMITED)
    told(of_journeys, *SERVED[:3], "refused", reason=Reason.QUOTA_SPENT, data={"limit": "daily"})
    told(of_journeys, *SERVED[:4], "refused", reason=Reason.DEADLINE, rule=dangerous)
    told(of_journeys, *SERVED, "reported", rule=structs.replace(READS, id="trial"))
    page = Page(metrics)
    assert page("auth_failures_total", reason="bad_credential") == 1
    assert page("policy_denied_total", rule_id="danger") == 1
    assert page("policy_denied_total", rule_id=RULE.id) == 1
    assert page("rate_limited_total", tenant="acme") == 1
    assert page("budget_exceeded_total", tenant="acme", budget_type="daily") == 1
    assert page("tool_timeouts_total", tool="echo") == 1
    assert page("danger_tool_attempt_total", tool="echo") == 2, "a denied attempt is one"
    assert page("would_refuse_total", rule_id="trial") == 1


def test_latency_is_that_of_calls_that_took_their_time() -> None:
    """Refusals take microseconds: among them a slow tool would look fast."""
    metrics = Metrics()
    metrics.listed(["echo"])
    told(journeys(metrics, now=10.2), "read", "identified", "denied", "refused")
    told(journeys(metrics, now=10.2), *SERVED, ending=Ending.CLIENT_GONE, verdict=Verdict.OK)
    told(journeys(metrics, now=17.0), *SERVED, "refused", reason=Reason.DEADLINE)
    page = Page(metrics)
    assert page("tool_latency_seconds_count", tool="echo") == 2
    assert page("tool_latency_seconds_bucket", tool="echo", le="0.1") == 0
    assert page("tool_latency_seconds_bucket", tool="echo", le="0.25") == 1
    assert page("tool_latency_seconds_bucket", tool="echo", le="10.0") == 2
    assert page("tool_latency_seconds_sum", tool="echo") == pytest.approx(7.2)


class Traced:
    """Fulfils `Trace`."""

    def __init__(self, *, is_recorded: bool) -> None:
        self.is_recorded = is_recorded
        self.trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"

    def attempted(self, attempt: Try) -> Fields:
        return ()

    def attempt_ended(self, attempt: Try) -> None: ...
    def ended(self, record: Record) -> None: ...


@pytest.mark.parametrize("trace", [None, Traced(is_recorded=False), Traced(is_recorded=True)])
def test_a_bucket_names_a_trace_that_can_be_looked_up(trace: Traced | None) -> None:
    """Issue 8, point 3: exemplars; a trace that was sampled out is nowhere to be found."""
    metrics = Metrics(wall=lambda: 1_700_000_000.0)
    observers = Observers(trace=lambda _: trace, ended=[metrics.ended])
    told(Journeys(observers, lambda: 10.3), *SERVED)
    exemplars = Page(metrics).exemplars
    if trace is None or not trace.is_recorded:
        assert exemplars == []
    else:
        (only,) = exemplars
        assert (only.labels, float(only.timestamp or 0)) == ({"trace_id": trace.trace_id}, 1_700_000_000.0)
        assert only.value == pytest.approx(0.3)


def test_calls_under_way_are_counted_until_they_end() -> None:
    metrics = Metrics()
    metrics.listed(["echo"])
    of_journeys = journeys(metrics)
    records = [told(of_journeys, *SERVED[:3], ending=None) for _ in range(3)]
    told(of_journeys, *SERVED[:3], method="tools/list", ending=None)
    assert Page(metrics)("in_flight_tool_calls", tool="echo") == 3
    records[0].ended(Ending.CLIENT_GONE)
    records[0].ended(Ending.COMPLETE)
    assert Page(metrics)("in_flight_tool_calls", tool="echo") == 2
    for each in records:
        each.ended(Ending.COMPLETE)
    assert not Page(metrics)("in_flight_tool_calls", tool="echo")


def test_a_stream_that_lasts_for_hours_is_no_latency_of_the_server() -> None:
    metrics = Metrics()
    told(journeys(metrics), "read", "identified", "permitted", "attempted", method="", kind=Kind.LISTEN)
    page = Page(metrics)
    assert page("outbound_latency_seconds_count", dependency="upstream") == 0
    assert page("mcp_requests_total", method="GET", status="ok") == 1


def test_a_method_that_a_client_made_up_is_other() -> None:
    metrics = Metrics()
    of_journeys = journeys(metrics)
    for method in ("tools/list", "made/up", "GET"):
        told(of_journeys, "read", method=method)
    told(of_journeys, "refused", reason=Reason.MALFORMED)
    page = Page(metrics)
    assert page.labels("mcp_requests_total", "method") == ["GET", "other", "tools/list", "unread"]


def test_what_others_take_is_counted() -> None:
    metrics = Metrics()
    metrics.asked("jwks", 0.3)
    page = Page(metrics)
    assert page("outbound_latency_seconds_sum", dependency="jwks") == 0.3


def test_where_answers_came_from_is_counted() -> None:
    metrics = Metrics()
    for how in Cached:
        told(journeys(metrics), *SERVED, "cached", cached=how)
    page = Page(metrics)
    assert [page("cache_events_total", event=how.value) for how in Cached] == [1] * len(Cached)


def test_what_has_a_closed_set_shows_it_before_anything_happens() -> None:
    """A series that begins with 1 was never seen to rise: the first failure would be missed by rate()."""
    page = Page(Metrics())
    assert page("auth_failures_total", reason="bad_credential") == 0
    assert page("audit_write_failures_total") == 0
    assert page("outbound_latency_seconds_count", dependency="upstream") == 0


def test_no_family_can_outgrow_its_bound_by_its_words_alone() -> None:
    assert all(len(family.words) * family.each <= MOST_SERIES for family in ALL)
    assert set(BY_NAME["tool_calls_total"].words) == set(STATUSES)


def test_a_queue_is_told_by_tool() -> None:
    class Places(Requests):
        refused: dict[str, int] = {}  # noqa: RUF012  a Struct copies it
        in_flight: int = 4
        waiting: int = 3
        limit: int = 4
        queued: tuple[str, ...] = ("echo", "echo", "made-up")

    metrics = Metrics()
    metrics.listed(["echo"])
    page = Page(metrics, Windows(requests=Requests(), places=Places()))
    assert (page("queue_depth", tool="echo"), page("queue_depth", tool="other")) == (2, 1)
    assert page("capacity_places", state="awaited") == 3


def test_every_call_of_a_batch_counts() -> None:
    """2025-03-26: each message has a journey of its own, that of the envelope is the first one's."""
    metrics = Metrics()
    metrics.listed(["echo"])
    of_journeys = journeys(metrics)
    first = of_journeys.open(10.0)
    parts: list[Call] = []
    for record in (first, first.sibling()):
        call = make_call(target="echo", journey=record)
        record.read(call)
        record.identified(PRINCIPAL)
        parts.append(call)
    for each in parts:
        each.journey.answered(Verdict.OK)
        each.journey.ended(Ending.COMPLETE)
    first.ended(Ending.COMPLETE)
    assert sum(Page(metrics).all("tool_calls_total").values()) == 2
