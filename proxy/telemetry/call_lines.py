"""What does the line of a call say? A finished journey → one JSON line, field by field.

In: a `Record`. Out: bytes. Never a payload, a header value or a credential: who asked for what and the words of
refusals, which strangers chose, go through `Words`; everything else is a number, an id or a word of a closed set. Keeps
how callers and tools look in lines, at most `MOST` of them, until there is a secret that nobody looked for in them.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import msgspec
from msgspec import UNSET, Struct, field

from ..model import Ending, Kind, Refused
from .journey import Record
from .lines import Words, remembered
from .redaction import Redactor
from .settings import Level
from .trace_context import trace_id_of

MOST: Final = 4_096
LONGEST: Final = 512
"""Characters of what is remembered: about 8 MB when full of the longest."""

_Key: TypeAlias = tuple[str, str, str, str | None, str, str]
_COMPLETE: Final = Ending.COMPLETE
_REQUEST: Final = Kind.REQUEST
_COMPLETED: Final = f',"ending":"{_COMPLETE.value}"'
_encode: Final = msgspec.json.Encoder().encode  # words of closed sets as their values


class ClientId(Struct, kw_only=True):
    """By which id its caller knows it. Texts that somebody chose are `Raw`, from `Words`, here and below."""

    client_request_id: object


class Asked(Struct, kw_only=True):
    """Who asked for what, and by which rule they may. What is not set is not there, here and below."""

    tenant: object = UNSET
    principal: object = UNSET
    revision: object = UNSET
    kind: object = UNSET
    method: object = UNSET
    tool: object = UNSET
    tool_class: object = field(name="class", default=UNSET)
    rule: object = UNSET


class Why(Struct, kw_only=True):
    """Of what was refused."""

    reason: object = UNSET
    why: object = UNSET
    error: object = UNSET


class Rest(Struct, kw_only=True):
    """What there is to say of some."""

    waited_s: object = UNSET
    cache: object = UNSET
    args_hash: object = UNSET
    would_refuse: object = UNSET
    altered: object = UNSET
    unsaid: object = UNSET


class CallLines:
    """Of one log."""

    def __init__(self, redactor: Redactor) -> None:
        self._made = redactor.made
        self._learnt = -1
        """What that was when there was nothing remembered."""
        self._words = Words(redactor)
        self._asked: dict[_Key, str] = {}

    def line(self, record: Record, outcome: str, level: Level, now: str, unsaid: int) -> bytes:
        """`now` is the time; `unsaid`: how many such lines were left out before this one."""
        if self._made() != self._learnt:
            self._forget()
        call, principal, permit, refusal = record.call, record.principal, record.permit, record.refusal
        msg, asked = "message", None
        if call is not None and call.method == "tools/call":
            msg = "tool call"
            if principal is not None and permit is not None and call.kind is _REQUEST:
                rule = permit.rule
                key = (
                    principal.tenant,
                    principal.subject,
                    call.revision.name,
                    call.target,
                    rule.tool_class,
                    rule.id,
                )
                asked = self._asked.get(key) or self._remembered(key, self._asked_by(record))
        own_id = trace = why = ended = rest = ""
        if record.client_request_id is not None:
            own_id = part(ClientId(client_request_id=self._words(record.client_request_id)))
        if record.trace is not None:
            trace = f',"trace_id":"{record.trace.trace_id}"'
        elif level != "info" and call is not None and (trace_id := trace_id_of(call)) is not None:
            trace = f',"trace_id":"{trace_id}"'
        if refusal is not None:
            why = self._why(refusal)
        if record.ending is not None:
            ended = _COMPLETED if record.ending is _COMPLETE else f',"ending":"{record.ending.value}"'
        is_rare = record.waited_s or record.cache is not None or record.args_hash is not None
        if is_rare or record.reported is not None or record.altered_by or unsaid:
            rest = self._rest(record, unsaid)
        duration_s = int(record.duration_s * 1e6 + 0.5) / 1e6  # a third of what `round` costs
        return (
            f'{{"time":"{now}","level":"{level}","msg":"{msg}","request_id":"{record.request_id}"{own_id}{trace}'
            f'{asked or self._asked_by(record)},"outcome":"{outcome}"{why}{ended}'
            f',"duration_s":{_encode(duration_s).decode()},"attempts":{record.attempts}{rest}}}\n'
        ).encode()

    def _remembered(self, key: _Key, asked: str) -> str:
        tenant, subject, _, target, _, _ = key
        size = len(tenant) + len(subject) + len(target or "")
        return remembered(self._asked, key, asked, size, longest=LONGEST, most=MOST)

    def _asked_by(self, record: Record) -> str:
        """Who asked for what."""
        asked, words, call = Asked(), self._words, record.call
        if (principal := record.principal) is not None:
            asked.tenant = words(principal.tenant)
            asked.principal = words(principal.subject)
        if call is not None:
            asked.revision = call.revision.name
            asked.kind = call.kind
            if call.method:
                asked.method = words(call.method)
            if call.method == "tools/call":
                asked.tool = None if call.target is None else words(call.target)
        if (permit := record.permit) is not None:
            asked.tool_class = permit.rule.tool_class
            asked.rule = words(permit.rule.id)
        elif record.denied_by is not None:
            asked.tool_class = record.denied_by.tool_class
        return part(asked)

    def _forget(self) -> None:
        """There is a secret that nobody looked for."""
        self._learnt = self._made()
        self._words.known.clear()
        self._asked.clear()

    def _why(self, refused: Refused) -> str:
        why = Why(reason=refused.reason)
        if refused.why:
            why.why = self._words(refused.why)
        if refused.__cause__ is not None:
            # The type only: the text of a foreign exception may quote what it choked on.
            why.error = type(refused.__cause__).__name__
        return part(why)

    def _rest(self, record: Record, unsaid: int) -> str:
        rest = Rest()
        if record.waited_s:
            rest.waited_s = round(record.waited_s, 6)
        if record.cache is not None:
            rest.cache = record.cache
        if record.args_hash is not None:
            rest.args_hash = record.args_hash
        if record.reported is not None:
            rule, reason = record.reported
            rest.would_refuse = {"rule": self._words(rule), "reason": reason}
        if record.altered_by:
            rest.altered = record.altered_by
        if unsaid:
            rest.unsaid = unsaid
        return part(rest)


def part(fields: Struct) -> str:
    """Members of a JSON object, each with a comma before it."""
    members = _encode(fields)[1:-1].decode()
    return f",{members}" if members else ""
