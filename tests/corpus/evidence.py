"""What was seen while one case ran? Plain values, gathered by the arena, judged by the checks.

Checks are pure functions over an Evidence; whatever they need to know is a field here, so a made-up Evidence
can turn each of them red.
"""

import json
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from msgspec import Struct

from tests.corpus.cases import Case
from tests.corpus.fake_server import NUMBER
from tests.corpus.wire import Fields, Message, WireError, read_message


class Limits(Struct, frozen=True, kw_only=True):
    """Settings of the sidecar under test that a check measures against, seconds unless named."""

    head_timeout_s: float
    body_timeout_s: float
    slack_s: float
    """What a loaded machine may add to any time that is measured from outside."""
    fixture_head_timeout_s: float
    fixture_body_timeout_s: float
    """The timeouts the corpus' sentences were written for; times in them are scaled to ours."""
    stream_grace_s: float
    """How long a stream may outlive the credential it was opened with."""


class Round(Struct, frozen=True, kw_only=True):
    """One round of a race between DELETE and a call in the same session."""

    status: int | None
    """What the call was answered with."""
    executed: int
    """How often upstream was asked to run it."""


class Attempt(Struct, frozen=True, kw_only=True):
    """Somebody looked a tool up in the list and called it."""

    who: str
    tool: str
    listed: int
    """How often it was in the list."""
    status: int | None
    """What the call was answered with."""
    arrived: int
    """How many requests it caused upstream."""


class Told(Struct, frozen=True, kw_only=True):
    """Somebody asked beside the case, and was answered."""

    who: str
    number: str | None
    """That of the answer, which the server gives no two; None where it has none."""
    is_kept: bool
    """Nothing arrived upstream because of it."""
    body: bytes = b""


class Reading(Struct, frozen=True, kw_only=True):
    """Somebody asked for what was kept for several, while others left."""

    who: str
    doc: str
    number: str | None
    """That of what this one was told when it was kept."""
    told: str | None
    """That of the answer now; None where there is none."""
    has_left: bool = False
    """Before the answer came."""


class Outage(Struct, frozen=True, kw_only=True):
    """What became of calls while nobody listened upstream, and afterwards."""

    length_s: float
    """From when the server was left alone."""
    outcomes: tuple[str, ...]
    probes: int
    """Attempts to reach it in that time."""
    back_s: float | None
    """From the moment when somebody listened again to the first call that passed; None: none did."""


class ConfigRun(Struct, frozen=True, kw_only=True):
    """One start of the sidecar, or of its `check`, with a file that must not be accepted."""

    command: str
    """"run" or "check"."""
    file: str
    """Name of the configuration file, as the message should show it."""
    keys: tuple[str, ...]
    """Keys of the file one of which the message must name; empty where the file has no readable key."""
    has_lines: bool
    """False where there is no text that could have a line: a directory, a symlink loop."""
    exit_code: int | None
    """None: it had not ended when the patience did."""
    output: str
    peak_rss_growth_bytes: int
    """Peak resident memory above that of a start with a good file."""
    secret: str | None = None
    """A value of the file that must not be printed."""


class ConfigReload(Struct, frozen=True, kw_only=True):
    """A sidecar that runs was told to read a file that must not be accepted, and then the good one again."""

    file: str
    """Name of the settings file, as the message should show it."""
    keys: tuple[str, ...]
    """As those of `ConfigRun`."""
    has_lines: bool
    mistakes: tuple[str, ...] | None
    """What the log said was wrong; None: it did not say that the settings were not reloaded."""
    printed: str
    """All that was logged."""
    denied: str
    """What became (`outcome`) of a call that the settings of before deny, with the file in place."""
    permitted: str
    """The same of one that they allow."""
    readiness: str
    """What the readiness probe said then."""
    recovered: str
    """What it said with the good file in place."""
    gauge: tuple[float | None, float | None] = (None, None)
    """Its metric of whether the last reload was successful, before and with the file in place; None: it has none."""
    growth_bytes: int
    """Peak resident memory above that of before."""
    secret: str | None = None
    """A value of the file that must not be printed."""


class ReloadStorm(Struct, frozen=True, kw_only=True):
    """A sidecar was told to read its settings again and again."""

    asked: int
    length_s: float
    ended_at: tuple[float, ...]
    """When reloads ended, well or not: seconds."""


class ReloadUnderWay(Struct, frozen=True, kw_only=True):
    """The rules changed while calls of one tool were under way: it was allowed, and what it said was masked; now it is
    denied, and what it says would pass as it is. Each call as PASSED (masked), "bare", or the reason of its refusal."""

    begun: tuple[str, ...]
    """Calls that had arrived before, and were answered afterwards."""
    behind: tuple[str, ...]
    """Those that were sent once the new rules were in force, before the first of those was answered."""
    behind_arrived: int
    across: tuple[str, ...]
    """Those that came one after another while the rules changed to and fro."""
    across_arrived: int


class Claimed(Struct, frozen=True, kw_only=True):
    """Calls whose callers said that their traces are recorded. Each has an id of its own, by which it is named here."""

    inside: frozenset[str]
    """Those in the share that the sidecar records."""
    outside: frozenset[str] = frozenset()
    recorded: frozenset[str]
    """Of which there are spans."""
    told: frozenset[str]
    """Of which the server was told that they are recorded."""
    most: float
    """How many the sidecar was to record of such calls, in the time that these took."""


class Evidence(Struct, frozen=True, kw_only=True):
    """Everything a check may look at."""

    case: Case
    form: str
    """"http" or "result": how the sidecar was told to refuse."""
    limits: Limits
    sent: bytes
    """What the client wrote, placeholders filled."""
    received: bytes
    """What came back, to the byte."""
    answers: tuple[Message, ...]
    """The answers in it, interim ones (1xx) left out."""
    interim: tuple[Message, ...] = ()
    closed: bool
    """The sidecar ended the connection by itself."""
    held_s: float
    """From the connection's opening to its end, or to the end of the runner's patience."""
    first_answer_s: float | None
    """From the last byte sent to the first answer's end; None without an answer."""
    answered_at: float | None = None
    """When that was: seconds, monotonic."""
    upstream: tuple[Message, ...]
    """Requests the fake upstream received because of this case; the sidecar's own probes are not in it."""
    upstream_bytes: bytes
    """Every byte it received because of this case, unfinished requests included."""
    upstream_read_bytes: int = 0
    """Bytes of its answer that the sidecar read, where the case measures that."""
    credentials: tuple[tuple[str, str], ...]
    """Headers that the sidecar was told to add upstream."""
    resource_metadata: str
    """The URL that every challenge must name."""
    log: bytes = b""
    """What the sidecar wrote to its standard streams meanwhile."""
    metrics: bytes | None = None
    """Its /metrics after the case; None while it has none."""
    alive: bool = True
    serves_after: bool = True
    """An ordinary call after the case was answered and reached upstream."""
    loop_gap_s: float | None = None
    """Longest time in which the operations port did not answer, least of the tries; None if not measured."""
    rss_growth_bytes: int | None = None
    fds_growth: int | None = None
    log_lines: int | None = None
    """Lines logged during a storm, None if there was none."""
    storm_s: float = 0.0
    valid_client_s: float | None = None
    """How long a well-behaved client waited meanwhile; None: it got no answer, or there was none."""
    twin_received: bytes | None = None
    """What the second client of a `then` step received."""
    asked: int = 0
    """How often a `then` step repeated the request."""
    repeats: tuple[int, ...] = ()
    """Statuses of the answers to those repetitions."""
    runs: tuple[ConfigRun, ...] = ()
    reloads: tuple[ConfigReload, ...] = ()
    reload_storm: ReloadStorm | None = None
    under_way: ReloadUnderWay | None = None
    trapped: tuple[str, ...] = ()
    """What fell into the trap: whatever a token or a redirect pointed at."""
    reference: tuple[Message, ...] | None = None
    """Answers to the same request with a session id nobody ever had; None where nobody asked."""
    owners: frozenset[str] | None = None
    """Who may use a session that was opened with the headers of the case; None where none was."""
    burst: tuple[int, ...] = ()
    """Statuses of invalid credentials presented with ever new values of the case's header."""
    outlived_s: float | None = None
    """How long after its token's expiry a stream ended; None where nobody looked."""
    overheard: bytes = b""
    """What arrived meanwhile on the streams of those whose ids the case names."""
    is_first_forgotten: bool | None = None
    """Of many sessions of one caller, the first is unknown again; None where nobody looked."""
    rounds: tuple[Round, ...] = ()
    presented: tuple[bytes, ...] = ()
    """Secrets that good calls presented beside the case, each in its own way."""
    presented_upstream: bytes = b""
    """Every byte that arrived because of those calls."""
    presented_calls: int = 0
    """How many of them arrived."""
    permitted: tuple[Message, ...] = ()
    """What arrived of the same request for a tool that the caller may use."""
    near_s: tuple[float, ...] = ()
    far_s: tuple[float, ...] = ()
    """Times to the answer for a key that is nearly right, and for one that is not."""

    usual: tuple[str, ...] = ()
    """Names of the tools that were listed before upstream listed anything odd."""
    offered: tuple[Mapping[str, Any], ...] = ()
    """What it lists then, without the rest, which is as ever."""
    attempts: tuple[tuple[Attempt, ...], ...] = ()
    """What callers tried afterwards; each row against a sidecar of its own, or one that others used before."""

    crowds: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    """What became of further requests (`outcome`), by what was tried with them."""
    granted_s: tuple[tuple[float, float], ...] = ()
    """When those of a burst that passed were sent and answered: seconds, monotonic."""
    buckets: Mapping[str, frozenset[str]] = MappingProxyType({})
    """Names of buckets that came to be meanwhile, by where they are kept."""
    refilled_at: float | None = None
    """When the request of the case passed, asked again and again: seconds, monotonic."""

    told: tuple[Told, ...] = ()
    """What was told before, to the callers that the case names, and was kept if that may be."""
    afterwards: tuple[Told, ...] = ()
    """What was told after the case."""
    readings: tuple[Reading, ...] = ()
    has_unpickled: bool | None = None
    """An object in the store came to life; None where nobody put one there."""

    filtered: tuple[Message, ...] | None = None
    """Answers to the same request from a sidecar that looks for what must not pass, where the server says it in the
    form of the case; None where nobody asked."""
    later: tuple[Message, ...] = ()
    """What arrived upstream of calls after the case, by somebody else and by the same caller."""
    replayed: Mapping[str, bytes] = MappingProxyType({})
    """What callers received who went on with a stream of theirs, by their name."""
    hanging: int | None = None
    """Connections of calls that had ended on which upstream still answers; None where nobody looked."""
    outage: Outage | None = None

    sinks: Mapping[str, bytes] = MappingProxyType({})
    """All that the sidecar has told, by where it did; empty where nobody looked."""
    secrets: tuple[bytes, ...] = ()
    """What none of them may hold."""
    claims: Mapping[str, Claimed] = MappingProxyType({})
    """By how the ids were chosen; empty where nobody claimed anything."""
    verified: int | None = None
    """The exit code of `audit verify` for what the audit file held; None where nobody asked."""

    @property
    def number(self) -> str | None:
        """That of the first answer, None where it is no result of the server."""
        return number_of(self.answers[0]) if self.answers else None

    @property
    def result(self) -> Mapping[str, Any]:
        """That of the first answer; empty where it has none."""
        document = self.answers[0].json if self.answers else None
        result = document.get("result") if isinstance(document, dict) else None
        return result if isinstance(result, dict) else {}

    @property
    def tools_shown(self) -> tuple[Mapping[str, Any], ...] | None:
        """The definitions in the first answer; None where it lists none."""
        return tools_in(self.answers)

    @property
    def log_entries(self) -> tuple[dict[str, Any], ...]:
        """The lines of the log that are JSON objects."""
        return entries_in(self.log)

    @property
    def status(self) -> int | None:
        """Status of the first answer."""
        return self.answers[0].status if self.answers else None

    @property
    def refusal(self) -> dict[str, Any] | None:
        """The JSON-RPC error object of the first answer, if it has one."""
        document = self.answers[0].json if self.answers else None
        error = document.get("error") if isinstance(document, dict) else None
        return error if isinstance(error, dict) else None

    @property
    def reason(self) -> str | None:
        """The sidecar's own reason for refusing, from wherever this form carries it."""
        said = self.refusal_facts.get("reason")
        return None if said is None else str(said)

    @property
    def refusal_facts(self) -> Mapping[str, Any]:
        """What the sidecar says of its refusal, from wherever this form carries it; empty where it did not refuse."""
        return _facts(self.answers[0]) if self.answers else {}

    @property
    def sent_fields(self) -> Fields:
        """Header fields of the first request, as far as it has a readable head."""
        lines = self.sent.split(b"\r\n\r\n", 1)[0].split(b"\r\n")[1:]
        pairs = (line.partition(b":") for line in lines if b":" in line)
        return tuple((name, value.strip(b" \t")) for name, _, value in pairs)

    def sent_value(self, name: str) -> bytes:
        """The last value of a header of the first request, empty where it has none."""
        wanted = name.lower().encode()
        return next((value for field, value in reversed(self.sent_fields) if field.lower() == wanted), b"")

    @property
    def sent_trailers(self) -> Fields:
        """Trailer fields of a chunked first request."""
        match = re.search(rb"\r\n0\r\n((?:[^\r\n]+\r\n)+)\r\n", self.sent)
        pairs = (line.partition(b":") for line in match[1].split(b"\r\n") if line) if match else ()
        return tuple((name, value.strip(b" \t")) for name, _, value in pairs)

    @property
    def sent_body(self) -> bytes:
        """Content of the first request, decoded from chunks where it was sent so."""
        try:
            message = read_message(self.sent, answers=False, closed=True)
        except WireError:
            message = None
        if message is not None:
            return message.body
        return self.sent.partition(b"\r\n\r\n")[2]

    @property
    def calls(self) -> tuple[Message, ...]:
        """Upstream requests that call a tool."""
        return tuple(request for request in self.upstream if _method(request) == "tools/call")

    @property
    def tools(self) -> tuple[str, ...]:
        """Names of the tools upstream was asked for."""
        return tuple(str((call.json.get("params") or {}).get("name")) for call in self.calls)


def _facts(answer: Message) -> Mapping[str, Any]:
    document = answer.json
    if not isinstance(document, dict):
        return {}
    error, result = document.get("error"), document.get("result")
    data = error.get("data") if isinstance(error, dict) else None
    if isinstance(data, dict) and data.get("origin") == "proxy":
        return data
    meta = result.get("_meta") if isinstance(result, dict) else None
    own = meta.get("dev.mcp-sidecar/refusal") if isinstance(meta, dict) else None
    return own if isinstance(own, dict) else {}


PASSED = "passed"


def outcome(answer: Message | None) -> str:
    """What became of a request: PASSED, the sidecar's reason for refusing it, or the status of what is neither."""
    if answer is None:
        return "not answered"
    if (reason := _facts(answer).get("reason")) is not None:
        return str(reason)
    return PASSED if 200 <= answer.status < 300 else str(answer.status)


def number_of(answer: Message) -> str | None:
    """The number of a result, by which it is known again."""
    document = answer.json
    result = document.get("result") if isinstance(document, dict) else None
    meta = result.get("_meta") if isinstance(result, dict) else None
    number = meta.get(NUMBER) if isinstance(meta, dict) else None
    return None if number is None else str(number)


def entries_in(log: bytes) -> tuple[dict[str, Any], ...]:
    """The lines of a log that are JSON objects."""
    found = []
    for line in log.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict):
            found.append(entry)
    return tuple(found)


def tools_in(answers: tuple[Message, ...]) -> tuple[Mapping[str, Any], ...] | None:
    """The tools that the first answer lists, None where it is no list."""
    document = answers[0].json if answers else None
    result = document.get("result") if isinstance(document, dict) else None
    tools = result.get("tools") if isinstance(result, dict) else None
    return tuple(tools) if isinstance(tools, list) else None


def _method(request: Message) -> str | None:
    document = request.json
    return document.get("method") if isinstance(document, dict) else None
