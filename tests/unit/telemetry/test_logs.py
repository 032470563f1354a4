"""One JSON line a call: exactly these fields, whatever strangers wrote into the call."""

import asyncio
import json
import re

import pytest

from proxy.model import Cached, Call, Ending, Headers, Kind, Permit, Principal, Reason, Refused, Rule, Verdict
from proxy.protocol.revisions import BY_NAME
from proxy.telemetry.journey import Journeys, Observers, Record
from proxy.telemetry.logs import Log
from proxy.telemetry.settings import Level
from tests.fakes import PRINCIPAL, RULE, FakeJourney, make_batch, make_call

SECRET = "hunter2"


def logged(lines: list[bytes]) -> dict[str, object]:
    """The one line that was written, read back; its time is checked here."""
    assert len(lines) == 1
    assert lines[0].endswith(b"\n")
    assert lines[0].count(b"\n") == 1
    line = json.loads(lines[0])
    assert isinstance(line, dict)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", line.pop("time"))
    return line


def line_of(record: Record) -> dict[str, object]:
    lines: list[bytes] = []
    log = Log(lines.append)
    log.call(record)
    return logged(lines)


def opened() -> Record:
    return Journeys(Observers(), lambda: 2.0000004).open(1.0)


def test_a_call_that_was_answered_is_one_line_with_these_fields() -> None:
    """design section 6: what is logged is listed, field by field."""
    lines: list[bytes] = []
    record = Journeys(Observers(ended=[Log(lines.append).call]), lambda: 2.0000004).open(1.0)
    call = make_call(target="echo", id=5, revision=BY_NAME["2025-11-25"], params={"arguments": {"a": SECRET}})
    record.read(call)
    record.identified(PRINCIPAL)
    record.permitted(Permit(call=call, principal=PRINCIPAL, rule=RULE))
    record.attempted()
    record.answered(Verdict.TOOL_ERROR)
    record.altered("redirect")
    record.cached(Cached.MISS)
    record.ended(Ending.COMPLETE)
    assert logged(lines) == {
        "level": "info",
        "msg": "tool call",
        "request_id": record.request_id,
        "tenant": "acme",
        "principal": "ann",
        "revision": "2025-11-25",
        "kind": "request",
        "method": "tools/call",
        "tool": "echo",
        "rule": "r-1",
        "outcome": "tool_error",
        "ending": "complete",
        "duration_s": 1.0,
        "attempts": 1,
        "cache": "miss",
        "altered": ["redirect"],
    }


def test_what_could_not_be_read_is_a_line_as_well() -> None:
    """design section 4: observe from the first byte, so that malformed requests are seen too."""
    record = opened()
    record.refused(Refused(Reason.MALFORMED, "Why."))
    record.ended(Ending.COMPLETE)
    assert line_of(record) == {
        "level": "info",
        "msg": "message",
        "request_id": record.request_id,
        "outcome": "invalid",
        "reason": "malformed",
        "why": "Why.",
        "ending": "complete",
        "duration_s": 1.0,
        "attempts": 0,
    }


def test_our_own_fault_is_an_error_that_names_its_type_only() -> None:
    """Own promise: the text of a foreign exception may quote what it choked on."""
    record = opened()
    refused = Refused(Reason.INTERNAL)
    refused.__cause__ = KeyError(SECRET)
    record.refused(refused)
    line = line_of(record)
    assert (line["level"], line["error"], line["reason"]) == ("error", "KeyError", "internal")
    assert SECRET not in json.dumps(line)


@pytest.mark.parametrize(
    "call",
    [
        make_call(
            target="echo",
            id=SECRET,
            params={"name": "echo", "arguments": {SECRET: SECRET}, "_meta": {"progressToken": SECRET}},
            body=SECRET.encode(),
            headers=Headers([(b"Authorization", b"Bearer hunter2"), (b"Mcp-Session-Id", b"hunter2")]),
        ),
        make_call(method="prompts/get", target=SECRET, id=1),
        make_call(method="resources/read", target=f"file:///{SECRET}", id=1),
        make_batch(make_call(id=SECRET, body=SECRET.encode())),
    ],
    ids=["tool call", "prompt", "resource", "batch"],
)
def test_no_argument_header_id_or_address_is_logged(call: Call) -> None:
    """design section 4: no payloads; a URI may hold one, a session id acts as a credential."""
    record = opened()
    record.read(call)
    record.answered(Verdict.OK)
    record.ended(Ending.COMPLETE)
    assert SECRET not in json.dumps(line_of(record))


@pytest.mark.parametrize(
    "name",
    [
        "a\nb",
        'a"b',
        "a\\",
        "\u2028\u2029",
        "\x00\x1b[31m",
        "\U0001f600",
        "{}\r\n{}",
        "n" * 10_000,
        "</script>",
    ],
)
def test_a_line_stays_one_line_whatever_names_are_in_it(name: str) -> None:
    """Own promise: a name cannot write a second line into the log, nor hide one."""
    record = opened()
    call = make_call(target=name)
    principal = Principal(issuer="i", subject=name, tenant=name)
    record.read(call)
    record.identified(principal)
    record.permitted(Permit(call=call, principal=principal, rule=Rule(id=name)))
    record.refused(Refused(Reason.MODE, name))
    line = line_of(record)
    assert [line[field] for field in ("tenant", "principal", "tool", "rule", "why")] == [name] * 5


@pytest.mark.parametrize("kind", [Kind.LISTEN, Kind.END, Kind.ANSWER, Kind.BATCH])
def test_a_message_without_a_method_names_none(kind: Kind) -> None:
    """The wire has none: nothing is made up."""
    record = opened()
    record.read(make_call(method="", id=None, kind=kind, journey=FakeJourney()))
    line = line_of(record)
    assert (line["msg"], line["kind"]) == ("message", kind.value)
    assert not {"method", "tool", "tenant", "rule", "reason", "ending"} & line.keys()


def test_the_life_of_the_process_is_told_in_lines_too() -> None:
    """Style guide 11: a log line names the thing."""
    lines: list[bytes] = []
    log = Log(lines.append)
    log.life("draining", under_way=3)
    assert logged(lines) == {"level": "info", "msg": "draining", "under_way": 3}
    lines.clear()
    log.life("failed", "error", error="KeyError")
    assert logged(lines) == {"level": "error", "msg": "failed", "error": "KeyError"}


def test_whoever_tries_credentials_does_not_fill_a_disk() -> None:
    """Corpus AUTH-136: one line a second about addresses that are not listened to, and it counts the others."""
    lines: list[bytes] = []
    log = Log(lines.append)

    def one(now: float, reason: Reason) -> None:
        record = Journeys(Observers(), lambda: now).open(now)
        record.refused(Refused(reason))
        record.ended(Ending.COMPLETE)
        log.call(record)

    for now in (5.0, 5.1, 5.9, 6.0, 6.1):
        one(now, Reason.TOO_MANY_FAILURES)
    one(6.2, Reason.BAD_CREDENTIAL)
    one(7.5, Reason.TOO_MANY_FAILURES)
    read = [json.loads(line) for line in lines]
    assert [(line["reason"], line.get("unsaid")) for line in read] == [
        ("too_many_failures", None),
        ("too_many_failures", 2),
        ("bad_credential", None),
        ("too_many_failures", 1),
    ]


class Writes:
    """Standard error, write by write."""

    def __init__(self) -> None:
        self.buffer = self
        self.writes: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.writes.append(data)

    def flush(self) -> None:
        """Nothing is held back here."""


def messages(data: bytes) -> list[str]:
    return [json.loads(line)["msg"] for line in data.splitlines()]


def test_lines_of_one_turn_are_written_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Own promise: in their order, before the loop waits, and also in the last turn there is."""
    said = Writes()
    monkeypatch.setattr("sys.stderr", said)
    log = Log()

    async def two_turns() -> None:
        log.life("one")
        log.life("two")
        await asyncio.sleep(0)
        assert [messages(each) for each in said.writes] == [["one", "two"]]
        log.life("three")

    asyncio.run(two_turns())
    assert [messages(each) for each in said.writes] == [["one", "two"], ["three"]]


def test_without_a_loop_a_line_is_written_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Own promise: what is said before the start, and after the end, is not lost."""
    said = Writes()
    monkeypatch.setattr("sys.stderr", said)
    log = Log()
    log.life("one")
    log.life("two")
    assert [messages(each) for each in said.writes] == [["one"], ["two"]]


def test_the_time_of_a_line_is_utc_in_milliseconds() -> None:
    """design section 6: each line has its own, also where the second is the same, and after a clock was put back."""
    lines: list[bytes] = []
    moments = (0.0, 0.0019, 0.999_999, 1_772_323_199.25, 1_772_323_200.0, 59.5)
    log = Log(lines.append, iter(moments).__next__)
    for _ in moments:
        log.life("tick")
    assert [json.loads(line)["time"] for line in lines] == [
        "1970-01-01T00:00:00.000+00:00",
        "1970-01-01T00:00:00.001+00:00",
        "1970-01-01T00:00:00.999+00:00",
        "2026-02-28T23:59:59.250+00:00",
        "2026-03-01T00:00:00.000+00:00",
        "1970-01-01T00:00:59.500+00:00",
    ]


@pytest.mark.parametrize(
    ("lowest", "written"),
    [
        ("debug", ["info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_lines_below_the_level_are_not_written(lowest: Level, written: list[str]) -> None:
    """Design section 3, telemetry.log_level; lines about calls and about life alike."""
    lines: list[bytes] = []
    log = Log(lines.append)
    log.say_from(lowest)
    broke = Refused(Reason.UPSTREAM_UNREACHABLE)
    failed = Refused(Reason.INTERNAL)
    failed.__cause__ = ValueError()
    for refused in (None, broke, failed):
        record = Journeys(Observers(ended=[log.call])).open(0.0)
        if refused is not None:
            record.refused(refused)
        record.ended(Ending.COMPLETE)
    assert [json.loads(line)["level"] for line in lines] == written
    lines.clear()
    for level in ("info", "warning", "error"):
        log.life("said", level)
    assert [json.loads(line)["level"] for line in lines] == written
