"""One JSON line a call: exactly these fields, whatever strangers wrote into the call."""

import json
import re

import pytest

from proxy.model import Cached, Call, Ending, Headers, Kind, Permit, Principal, Reason, Refused, Rule, Verdict
from proxy.protocol.revisions import BY_NAME
from proxy.secret import Secret
from proxy.telemetry.journey import Fields, Journeys, Observers, Record, Try
from proxy.telemetry.lines import LONGEST_TEXT, MOST_REMEMBERED, Words
from proxy.telemetry.logs import Log
from proxy.telemetry.redaction import HIDDEN, Redactor
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
        "class": "dangerous",
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


HOSTILE = [
    "a\nb",
    'a"b',
    "a\\",
    "\u2028\u2029",
    "\x00\x1b[31m",
    "\x1b[2J\x1b]0;x\x07",
    "\x7f",
    "\x85\x9b31m",
    "\u202ereversed\u2066",
    "\ufeff",
    "\U0001f600",
    "{}\r\n{}",
    "</script>",
    "${jndi:ldap://127.0.0.1/a}",
    "%s%n{0.__class__}",
]
OBEYED = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]")


def record_of(name: str) -> Record:
    """Everything that somebody can choose is this."""
    record = opened()
    call = make_call(target=name)
    principal = Principal(issuer="i", subject=name, tenant=name)
    record.read(call)
    record.identified(principal)
    record.permitted(Permit(call=call, principal=principal, rule=Rule(id=name)))
    record.refused(Refused(Reason.MODE, name))
    return record


CHOSEN = ("tenant", "principal", "tool", "rule", "why")


@pytest.mark.parametrize("name", HOSTILE)
def test_a_line_stays_one_line_whatever_names_are_in_it(name: str) -> None:
    """Corpus TEL-002 to TEL-005: a name cannot write a second line, hide one, or tell a terminal what to do."""
    lines: list[bytes] = []
    log = Log(lines.append)
    log.call(record_of(name))
    log.life("said", name=name, beside=[name, {name: name}])
    for raw in lines:
        text = raw.decode()
        assert OBEYED.sub("", text[:-1]) == text[:-1]
        assert len(text.splitlines()) == 1
    call, life = (json.loads(raw) for raw in lines)
    assert [call[field] for field in CHOSEN] == [name] * 5
    assert (life["name"], life["beside"]) == (name, [name, {name: name}])


def test_a_line_stays_short_whatever_names_are_in_it() -> None:
    """Own promise: what somebody chose is cut, so that a name does not fill a disk."""
    line = line_of(record_of("n" * 1_000_000))
    assert [line[field] for field in CHOSEN] == ["n" * (LONGEST_TEXT - 1) + "…"] * 5


def test_half_a_character_breaks_no_line() -> None:
    """Corpus "surrogate reaches a JSON log line and breaks it": readers of lines are strict."""
    lines: list[bytes] = []
    log = Log(lines.append)
    log.call(record_of("a\ud800b"))
    log.life("said", name="a\ud800b", deep=[{"\udfff": "\udc00"}])
    call, life = (json.loads(raw) for raw in lines)
    assert [call[field] for field in CHOSEN] == ["a\ufffdb"] * 5
    assert (life["name"], life["deep"]) == ("a\ufffdb", [{"\ufffd": "\ufffd"}])


def test_names_that_nobody_has_twice_take_no_memory() -> None:
    """Own promise: every table that a client can grow is bounded."""
    words = Words(Redactor(list, lambda: 0))
    for number in range(3 * MOST_REMEMBERED):
        words(f"tool-{number}")
        words("n" * 1_000 + str(number))
    assert 0 < len(words.known) <= MOST_REMEMBERED
    assert max(map(len, words.known)) <= LONGEST_TEXT


def test_a_known_secret_is_in_no_line_not_even_as_a_name() -> None:
    """Issue 8, 4: by the value of every known secret; also one that came after the name was written before."""
    lines: list[bytes] = []
    log = Log(lines.append)
    log.call(record_of("hunter2-hunter2"))
    assert b"hunter2-hunter2" in lines[0]
    secret = Secret("hunter2-hunter2")
    log.call(record_of("hunter2-hunter2"))
    log.life("said", why="it is hunter2-hunter2", beside={"hunter2-hunter2": [b"hunter2-hunter2"]})
    assert b"hunter2-hunter2" not in lines[1] + lines[2]
    assert json.loads(lines[1])["tool"] == HIDDEN
    assert secret.reveal()


def test_a_secret_that_another_sink_has_met_first_is_in_no_line() -> None:
    """Issue 8, 4: what was remembered is forgotten by each who remembers, whoever looks for the secret first."""
    lines: list[bytes] = []
    log = Log(lines.append)
    log.call(record_of("hunter3-hunter3"))
    secret = Secret("hunter3-hunter3")
    assert log.redactor.text("hunter3-hunter3") == HIDDEN
    log.call(record_of("hunter3-hunter3"))
    assert b"hunter3-hunter3" not in lines[1]
    assert secret.reveal()


def test_what_names_itself_a_credential_is_not_shown() -> None:
    """Issue 8, 4: by key name at any depth."""
    lines: list[bytes] = []
    Log(lines.append).life(
        "said",
        headers={"Authorization": "a", "X-Api-Key": ["b"], "Accept": "c"},
        deep=[{"nested": {"PASSWORD": {"x": "d"}, "set-cookie": 1, "sessionId": "e", "privateKey": "f"}}],
    )
    assert logged(lines)["headers"] == {"Authorization": HIDDEN, "X-Api-Key": HIDDEN, "Accept": "c"}
    assert json.loads(lines[0])["deep"] == [
        {"nested": dict.fromkeys(("PASSWORD", "set-cookie", "sessionId", "privateKey"), HIDDEN)}
    ]


TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


@pytest.mark.parametrize(
    ("header", "meta", "reason", "trace_id"),
    [
        (PARENT, None, Reason.UPSTREAM_BROKE, TRACE),
        (None, PARENT, Reason.UPSTREAM_BROKE, TRACE),
        (PARENT, None, Reason.MODE, None),
        ("zz", None, Reason.UPSTREAM_BROKE, None),
        (f"00-{'0' * 32}-b7ad6b7169203331-01", None, Reason.UPSTREAM_BROKE, None),
        (f"ff-{TRACE}-b7ad6b7169203331-01", None, Reason.UPSTREAM_BROKE, None),
        (f"00-{TRACE}-{'0' * 16}-01", None, Reason.UPSTREAM_BROKE, None),
        (PARENT + "\n", None, Reason.UPSTREAM_BROKE, None),
        (None, None, Reason.UPSTREAM_BROKE, None),
    ],
)
def test_trouble_names_the_trace_that_the_client_has(
    header: str | None, meta: str | None, reason: Reason, trace_id: str | None
) -> None:
    """Issue 8, 4: the trace id in every error line; W3C Trace Context 3.2.2: what is not valid is nothing."""
    record = opened()
    fields = [] if header is None else [(b"traceparent", header.encode())]
    params = {} if meta is None else {"_meta": {"traceparent": meta}}
    record.read(make_call(target="echo", id=1, headers=Headers(fields), params=params))
    record.refused(Refused(reason))
    record.ended(Ending.COMPLETE)
    record.call = make_call(target="echo", id=1, headers=Headers(fields), params=params)
    assert line_of(record).get("trace_id") == trace_id


class _Trace:
    trace_id = TRACE
    is_recorded = False

    def attempted(self, attempt: Try) -> Fields:
        return ()

    def attempt_ended(self, attempt: Try) -> None: ...
    def ended(self, record: Record) -> None: ...


def test_a_call_that_is_traced_waited_and_has_an_id_of_its_client_says_so() -> None:
    """Design section 6, trace_id; issue 8, 4: queueing, request id in and out."""
    record = opened()
    record.trace = _Trace()
    record.waited(0.25)
    record.named("from-the-client")
    record.args_hash = "0123456789abcdef"
    line = line_of(record)
    assert {name: line[name] for name in ("trace_id", "waited_s", "client_request_id", "args_hash")} == {
        "trace_id": TRACE,
        "waited_s": 0.25,
        "client_request_id": "from-the-client",
        "args_hash": "0123456789abcdef",
    }


def test_people_read_words_and_machines_read_json() -> None:
    """Issue 8, 4: human lines for life events; lines about calls stay JSON, and nothing stranger gets through."""
    lines: list[bytes] = []
    log = Log(lines.append, lambda: 0.5)
    log.say_life("text")
    log.life("started", listen="http://127.0.0.1:1/mcp", enforces=["caps"], odd="a b\x1b[2J\n\u2028")
    log.call(record_of("echo"))
    log.say_life("json")
    log.life("stopped")
    assert lines[0].decode() == (
        "1970-01-01 00:00:00Z INFO    started  listen=http://127.0.0.1:1/mcp  "
        'enforces=["caps"]  odd="a b\\u001b[2J\\n\\u2028"\n'
    )
    assert [json.loads(line)["msg"] for line in lines[1:]] == ["tool call", "stopped"]


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
