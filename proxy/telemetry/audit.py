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

from ..model import Call, Deadline, Outcome, Reason, Refused, Stage, Verdict
from ..refusals import Form
from .audit_log import AuditLog, Open, session_digest
from .audit_scribe import Sign
from .audit_settings import AuditSettings
from .audit_stage import Witnessed
from .journey import Record

_ERRORS: Final = frozenset({Verdict.TOOL_ERROR, Verdict.RPC_ERROR, Verdict.UPSTREAM_ERROR})
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

    @property
    def is_sync(self) -> bool:
        return self._is_sync

    @property
    def write_failures(self) -> int:
        """For `audit_write_failures_total`."""
        return self._log.write_failures

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
        if permit.rule.tool_class in self._classes:
            id = record.request_id
            opened = self._log.open[id] = Open(
                self._head(record, call, permit.rule.id, permit.rule.tool_class)
            )
            if not self._is_sync:
                self._log.calm[id] = opened

    def ended(self, record: Record) -> None:
        """An observer: the last word."""
        id = record.request_id
        opened = self._log.open.pop(id, None)
        if opened is None:
            self._denied(record)
            return
        self._log.calm.pop(id, None)
        self._result(opened, record)
        if self._is_sync:
            self._log.soon()

    def _denied(self, record: Record) -> None:
        """What policy says no to never becomes a permit."""
        call, rule = record.call, record.denied_by
        if (
            rule is None
            or call is None
            or call.method != "tools/call"
            or rule.tool_class not in self._classes
        ):
            return
        opened = Open(self._head(record, call, rule.id, rule.tool_class))
        self._result(opened, record)
        if self._is_sync:
            self._log.soon()

    def _head(self, record: Record, call: Call, rule: str, tool_class: str) -> tuple[object, ...]:
        """Who, what, where: in the order of `CallLine`."""
        principal, trace, session = record.principal, record.trace, call.session
        who = ("", "", "", "", "")
        if principal is not None:
            who = (
                principal.issuer,
                principal.subject,
                principal.tenant,
                principal.client,
                principal.fingerprint,
            )
        return (
            record.request_id,
            *who,
            call.method,
            call.target or "",
            tool_class,
            rule,
            call.peer.address,
            "" if session is None else session_digest(session),
            self._log.instance,
            "" if trace is None else trace.trace_id,
            self._log.args_hash(call.arguments),
        )

    def _result(self, opened: Open, record: Record) -> None:
        """The record of what became of a call, as far as is known; once more where it has ended otherwise."""
        refusal = record.refusal
        said = result_of(record), record.outcome, "" if refusal is None else refusal.reason.value
        if said == opened.said:
            return
        kind = "result" if opened.said is None else "amended"
        opened.said, opened.is_told = said, True
        reported = record.reported
        opened.number = self._log.call(
            kind,
            (
                *opened.head,
                *said,
                record.attempts,
                round(record.duration_s or self._now() - record.received, 6),
                record.approval_id,
                record.idempotency_key,
                "" if reported is None else reported[1].value,
            ),
        )

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
            numbers = [self._log.call("intent", each.head) for each in opened]
            if await self._log.written(numbers, timeout_s):
                return
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
        if not numbers or await self._log.written(numbers, timeout_s):
            return None
        return Refused(Reason.OUTCOME_UNKNOWN, _UNRECORDED)


def result_of(record: Record) -> str:
    """What happened at the server."""
    refusal, verdict = record.refusal, record.verdict
    if (
        refusal is not None
        and refusal.reason is Reason.OUTCOME_UNKNOWN
        and verdict
        in (
            None,
            Verdict.UPSTREAM_ERROR,
        )
    ):
        return "unknown"
    if verdict is not None:
        return "error" if verdict in _ERRORS else "ok"
    return "refused" if record.outcome_at_server is Outcome.NOT_REACHED else "unknown"
