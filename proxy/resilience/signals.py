"""What does an outcome say of the server, and may the call be sent again? Pure.

In: a call, and what became of an attempt. Out: a `Signal` for the breaker and for quarantine, or whether there may be
another attempt. Keeps nothing; `when_ended` hangs on a reply until it has ended. Source: MCP for intermediaries:
what fails is connections, times, 502, 503, 504, a 500 that is no JSON-RPC, what was cut short and -32603, unless its
status blames the caller. Everything else a server answers, also "no", is an answer: HTTP status alone blames it for
mistakes of callers and misses failures that come as 200.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Final

from ..model import (
    OWN_WISH,
    UPSTREAM_FAULTS,
    Call,
    Ending,
    Kind,
    Reason,
    Refused,
    Reply,
    Rule,
    Stream,
    Verdict,
)
from ..protocol.answers import HELD_BYTES, Malformed, read_answers, read_tree
from ..protocol.sse import Splitter


class Signal(Enum):
    """What an outcome says of the server."""

    GOOD = "good"
    """It answered, whatever it said."""
    BAD = "bad"
    SILENT = "silent"
    """Nothing: its caller left, or the no was ours."""


_GOOD: Final = Signal.GOOD
_BAD: Final = Signal.BAD
_REQUEST: Final = Kind.REQUEST

INTERNAL_ERROR: Final = -32603
FAILS: Final = frozenset({502, 503, 504})
"""HTTP statuses of a server that is not there, or that cannot."""
CANNOT: Final = frozenset({501, 505})
"""It does not know the method or the version, and never will: as 405."""
TAKES_NOTHING: Final = frozenset({429, 503})
"""It takes nothing on at the moment, and says so before it has begun (RFC 6585 section 4, RFC 9110 section 15.6.4)."""

_SPELT: Final = b"-32603"
_MINUS: Final = _SPELT[0]


def signal_of(
    call: Call, outcome: Reply | BaseException, *, counts_internal_errors: bool = True
) -> Signal | None:
    """What an attempt that ended like this says; None where only the end of its reply will tell."""
    if isinstance(outcome, Reply):
        return _of_reply(call, outcome, counts_internal_errors)
    if not isinstance(outcome, Refused) or outcome.data.get("limit") == OWN_WISH:
        return Signal.SILENT
    is_fault = outcome.reason in UPSTREAM_FAULTS or outcome.reason is Reason.DEADLINE
    return Signal.BAD if is_fault else Signal.SILENT


def signal_at_end(ending: Ending) -> Signal:
    """What the end of a reply says whose head was good."""
    return _AT_END[ending]


_AT_END: Final = {
    Ending.COMPLETE: Signal.GOOD,
    Ending.UPSTREAM_BROKE: Signal.BAD,
    Ending.CLIENT_GONE: Signal.SILENT,
    Ending.PROXY_FAILED: Signal.SILENT,
}


def when_ended(reply: Reply, tell: Callable[[Signal], None], *, counts_internal_errors: bool = True) -> None:
    """Tell what a reply says of which that is not known yet, once, when it has ended."""
    errors = _Errors()
    if counts_internal_errors and isinstance(reply.body, Stream):
        reply.body.tap(errors.see)

    def ended(ending: Ending) -> None:
        tell(Signal.BAD if errors.has_internal else signal_at_end(ending))

    reply.when_done(ended)


def _of_reply(call: Call, reply: Reply, counts_internal_errors: bool) -> Signal | None:
    status, body = reply.status, reply.body
    if status >= 500 and (status in FAILS or (status not in CANNOT and not _is_error(body))):
        return _BAD
    is_blamed = counts_internal_errors and not 300 <= status <= 499
    if is_blamed and isinstance(body, bytes) and _is_internal(body):
        return _BAD
    if status >= 300:
        return _GOOD
    # Streams that listen are cut by every server that restarts, all at once, and by many that do not.
    is_to_come = isinstance(body, Stream) or (call.revision.answers_elsewhere and call.kind is _REQUEST)
    return None if is_to_come and not call.is_open_ended else _GOOD


def _is_error(body: bytes | Stream) -> bool:
    """Whether it says in JSON-RPC what went wrong."""
    if not isinstance(body, bytes):
        return False
    try:
        return any(said.verdict is Verdict.RPC_ERROR for said in read_answers(body))
    except Malformed:
        return False


def _is_internal(data: bytes) -> bool:
    # One byte is looked for twelve times as fast as several, and most answers have none.
    if _MINUS not in data or _SPELT not in data:
        return False
    try:
        value = read_tree(data)
    except Malformed:
        return False
    return any(map(_has_internal, value if isinstance(value, list) else [value]))


def _has_internal(message: object) -> bool:
    error = message.get("error") if isinstance(message, dict) else None
    return isinstance(error, dict) and error.get("code") == INTERNAL_ERROR


class _Errors:
    """Looks for internal errors in a stream, which comes in whole events."""

    has_internal = False

    def see(self, chunk: bytes) -> None:
        # What is larger holds more than an error, and reading it twice would hold up others.
        if _SPELT not in chunk or len(chunk) > HELD_BYTES:
            return
        splitter = Splitter(len(chunk))
        events = [*splitter.feed(chunk), splitter.rest()]
        self.has_internal |= any(_is_internal(event.data) for event in events if event and event.data)


class Repeat(Enum):
    """When a call may be sent again."""

    NEVER = "never"
    """Its client comes back by itself."""
    IF_UNREACHED = "if unreached"
    """When not a byte of it left."""
    ALWAYS = "always"
    """Whatever became of it, as long as nothing of an answer has been passed on."""


READS: Final = frozenset(
    {
        "completion/complete",
        "prompts/list",
        "resources/list",
        "resources/read",
        "resources/templates/list",
        "server/discover",
        "tasks/get",
        "tools/list",
    }
)
"""Requests that only ask. Every other may do something: begin a session, subscribe, take what is there once."""
BY_RULE: Final = frozenset({"prompts/get", "tools/call"})
"""Requests of which an operator may say that doing them twice is as good as once."""
_ONLY_ONCE: Final = frozenset({"inputResponses", "requestState", "task"})
"""What a request carries that goes on where another stopped, which servers may allow once, or that begins a task: of
two its caller would know one."""


def may_repeat(call: Call, rule: Rule) -> Repeat:
    """When a call that failed may be sent again, and nothing of an answer has been passed on."""
    if call.kind is Kind.END or (call.is_open_ended and not call.revision.answers_elsewhere):
        # Clients listen again by themselves, a thousand of them at once when a server restarts: what may be repeated
        # is for calls.
        return Repeat.NEVER
    if call.revision.answers_elsewhere:
        # Where an answer arrives on another connection, that one is still open when the POST has failed: the same
        # id again, while the first is alive, confuses servers and clients.
        return Repeat.IF_UNREACHED
    if call.kind is Kind.BATCH:
        # The rule of a batch is that of its envelope, and says nothing of what is in it.
        is_harmless = all(part.method in READS and _is_harmless(part, rule) for part in call.parts)
        return Repeat.ALWAYS if call.parts and is_harmless else Repeat.IF_UNREACHED
    return Repeat.ALWAYS if _is_harmless(call, rule) else Repeat.IF_UNREACHED


def may_have_run(call: Call, rule: Rule, status: int | None = None) -> bool:
    """Whether it matters what became of a call that was sent and got no answer: then its refusal is
    `outcome_unknown`. It does not where doing it twice is as good as once. `status` is that of an HTTP error without a
    word, where that is all that came: some say that nothing was begun."""
    if status in TAKES_NOTHING or status in CANNOT:
        return False
    if call.kind is Kind.BATCH:
        return any(part.method == "tools/call" for part in call.parts)
    return call.method == "tools/call" and not _is_harmless(call, rule)


def _is_harmless(call: Call, rule: Rule) -> bool:
    if call.kind is not Kind.REQUEST or not _ONLY_ONCE.isdisjoint(call.params):
        return False
    return call.method in READS or (call.method in BY_RULE and rule.idempotent)
