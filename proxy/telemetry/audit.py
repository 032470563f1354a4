"""Who did what? Records of calls that may change something, and of what operators do.

In: journeys, and events. Out: records for the file, and whether it has them in time. Keeps nothing of its own; the file
and the calls under way are `audit_log.py`'s, which outlives a reload. Never an argument, a header or a body.

What the `result` of a record says is what happened at the server:

    ok, error   it answered; error: with an error, or that its tool failed
    refused     nothing was sent to it
    unknown     it was sent, and nobody knows: there was no answer, or none was expected
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from ..model import Call, Deadline, Outcome, Principal, Reason, Refused, Rule, Stage, Verdict
from ..refusals import Form
from .audit_chain import Beside
from .audit_log import AuditLog, Open
from .audit_scribe import Sign
from .audit_settings import AuditSettings
from .audit_stage import LATE, Witnessed
from .journey import Record

NOBODY: Final = Principal(issuer="", subject="", tenant="")
_INTENT: Final = '"kind":"intent",'
_OK: Final = Verdict.OK
_USUAL: Final = ',"result":"ok","outcome":"ok"'
_number: Final = msgspec.json.Encoder().encode
"""As JSON has it; Python takes twice as long."""
_UNRECORDED: Final = "Its answer is withheld, because what became of it could not be recorded."


class Audit:
    """By one reading of the settings. Fulfils `Part`."""

    def __init__(
        self,
        settings: AuditSettings,
        log: AuditLog,
        sign: Sign | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._classes = frozenset(settings.classes)
        self._log = log
        self._sign = sign
        self._now = now
        self._is_sync = settings.mode == "sync"
        self._calm: dict[str, Record] = {}
        """Calls under way that have no record, by request id (batch)."""
        log.seen_by(self)

    @property
    def is_sync(self) -> bool:
        return self._is_sync

    @property
    def log(self) -> AuditLog:
        """Who writes, also by the next reading of the settings."""
        return self._log

    def enter(self) -> None:
        """These settings are in force."""
        self._log.follow(self._settings, self._sign)

    def event(self, what: str, **fields: object) -> None:
        """An operator or the process did something: what, and by whom where that is known (`by`). Never a secret."""
        self._log.event(what, **fields)

    def why_unready(self) -> str | None:
        """None: what need not be recorded is served, and a no is an answer."""
        return None

    def why_degraded(self) -> Sequence[str]:
        return self._log.why_degraded()

    # What journeys tell

    def permitted(self, record: Record) -> None:
        """An observer: policy lets it pass."""
        call, permit = record.call, record.permit
        if call is None or permit is None or call.method != "tools/call":
            return
        rule = permit.rule
        if rule.tool_class not in self._classes:
            return
        if self._is_sync or call.revision.answers_elsewhere:
            # What it carries may be forgotten before it ends.
            self._log.open[record.request_id] = Open(self._head(record, call, rule))
        else:
            self._calm[record.request_id] = record

    def see(self) -> None:
        """Records of calls that are under way and have none: should the process die, they were seen."""
        calm, self._calm = self._calm, {}
        for id, record in calm.items():
            if record.call is not None and record.permit is not None:
                head = self._head(record, record.call, record.permit.rule)
                self._log.open[id] = Open(head)
                self._log.put(_INTENT + head)

    def ended(self, record: Record) -> None:
        """An observer: the last word."""
        id = record.request_id
        call = record.call
        if self._calm.pop(id, None) is not None:
            # Nearly always, in batch mode; the rest of this file is about the others.
            assert call is not None
            assert record.permit is not None
            head = self._head(record, call, record.permit.rule)
            self._log.put(f'"kind":"result",{head}{self._tail(record, _said_of(record))}')
            return
        opened = self._log.open.pop(id, None)
        if opened is None:
            rule = record.denied_by  # what policy says no to never becomes a permit
            if rule is None or call is None or call.method != "tools/call":
                return
            if rule.tool_class not in self._classes:
                return
            opened = Open(self._head(record, call, rule))
        self._result(opened, record)
        if self._is_sync:
            self._log.soon()

    def _head(self, record: Record, call: Call, rule: Rule) -> str:
        """Who, what, where: the fields that all records of a call have."""
        log, trace = self._log, record.trace
        trace_id = "" if trace is None else trace.trace_id
        who, where, trace_id = log.parts.of_call(
            record.principal or NOBODY, call, rule, log.instance, trace_id
        )
        traced = f',"trace_id":"{trace_id}"' if trace_id else ""
        hash_ = log.args_hash(call.arguments)
        hashed = f',"args_hash":"{hash_}"' if hash_ else ""
        return f'"request_id":"{record.request_id}"{who}{where}{traced}{hashed}'

    def _tail(self, record: Record, said: str) -> str:
        """What became of it."""
        attempts = f',"attempts":{record.attempts}' if record.attempts else ""
        duration_s = int((record.duration_s or self._now() - record.received) * 1e6) / 1e6
        beside = ""
        if record.approval_id or record.idempotency_key or record.reported is not None:
            would_refuse = "" if record.reported is None else record.reported[1]
            beside = self._log.parts.of(Beside(record.approval_id, record.idempotency_key, would_refuse))
        return f'{said}{attempts},"duration_s":{_number(duration_s).decode()}{beside}'

    def _result(self, opened: Open, record: Record) -> None:
        """The record of what became of a call, as far as is known; once more where it has ended otherwise."""
        said = _said_of(record)
        if said != opened.said:
            kind = "result" if opened.said is None else "amended"
            opened.said = said
            opened.number = self._log.put(f'"kind":"{kind}",{opened.head}{self._tail(record, said)}')

    # What calls wait for

    def guarded(self, serve: Stage, deadline: Deadline, form: Form) -> Stage:
        """The stage that waits for the disk; `serve` itself in batch mode."""
        return Witnessed(serve, self, deadline=deadline, form=form, now=self._now) if self._is_sync else serve

    @property
    def timeout_s(self) -> float:
        return self._settings.timeout_s

    def asked(self, call: Call) -> Open | None:
        """The record of a call under way; None where it leaves none."""
        return self._log.open.get(call.journey.request_id)

    async def recorded(self, calls: Sequence[Call]) -> Refused | None:
        """The same for answers that arrive elsewhere than their calls were sent."""
        asked = [(call, opened) for call in calls if (opened := self.asked(call)) is not None]
        return await self.result(asked, self.timeout_s) if asked else None

    async def intent(self, opened: Sequence[Open], timeout_s: float) -> None:
        """Wait until the disk has what is about to be done. Raises Refused."""
        if self._log.trouble is None:
            numbers = [self._log.put(_INTENT + each.head) for each in opened]
            if await self._log.written(numbers, timeout_s, is_patient=timeout_s >= self.timeout_s):
                return
            if self._log.trouble is None:
                raise Refused(Reason.OVERLOADED, LATE)
        raise Refused(
            Reason.AUDIT_UNAVAILABLE, "Nothing was sent to the server: the call can be repeated, later."
        )

    async def result(self, calls: Sequence[tuple[Call, Open]], timeout_s: float) -> Refused | None:
        """Wait until the disk has what became of these. The refusal that is told instead of the answer, where it has
        not."""
        for call, opened in calls:
            if isinstance(call.journey, Record):
                self._result(opened, call.journey)
        numbers = [each.number for _, each in calls if each.number is not None]
        is_patient = timeout_s >= self.timeout_s
        if not numbers or await self._log.written(numbers, timeout_s, is_patient=is_patient):
            return None
        return Refused(Reason.OUTCOME_UNKNOWN, _UNRECORDED)


def _said_of(record: Record) -> str:
    """What there is to say again where it differs: words of closed sets."""
    refusal = record.refusal
    if refusal is None and record.verdict is _OK:
        return _USUAL
    reason = "" if refusal is None else f',"reason":"{refusal.reason}"'
    return f',"result":"{result_of(record)}","outcome":"{record.outcome}"{reason}'


def result_of(record: Record) -> str:
    """What happened at the server."""
    refusal, verdict = record.refusal, record.verdict
    if verdict is Verdict.OK:
        return "ok"
    is_mute = verdict is None or verdict is Verdict.UPSTREAM_ERROR
    if is_mute and refusal is not None and refusal.reason is Reason.OUTCOME_UNKNOWN:
        return "unknown"
    if verdict is not None:
        return "error"
    return "refused" if record.outcome_at_server is Outcome.NOT_REACHED else "unknown"
