"""What comes again in the records of calls? Who asked for what, and from where: encoded once, written often.

In: a call, and whose it is. Out: parts of its record, each with a comma before it, without secrets. Keeps parts, at
most `MOST` of each kind, until there is a secret that nobody looked for in them.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Final, TypeAlias

from ..model import Call, Principal, Rule
from .audit_chain import Asked, Line, Place, encoded
from .lines import remembered
from .redaction import Redactor

MOST: Final = 4_096
LONGEST: Final = 1_024
"""Characters of what is remembered: about 4 MB of each kind, when full of the longest."""
_SESSION_DIGITS: Final = 16

_Who: TypeAlias = tuple[str, str, str, str, str, str, str, str]
_Where: TypeAlias = tuple[str, str | None, str]


class Parts:
    """Of the records of one process."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._made = redactor.made
        self._learnt = -1
        """What that was when there was nothing remembered."""
        self._asked: dict[_Who, str] = {}
        self._places: dict[_Where, str] = {}
        self._has_digits = False

    def of_call(
        self, principal: Principal, call: Call, rule: Rule, instance: str, trace_id: str
    ) -> tuple[str, str, str]:
        """Who asked for what, and from where; and the trace id, which the caller may have chosen."""
        if self._made() != self._learnt:
            self._forget()
        if self._has_digits:
            trace_id = self._redactor.text(trace_id)
        who = (
            principal.issuer,
            principal.subject,
            principal.tenant,
            principal.client,
            principal.fingerprint,
            call.target or "",
            rule.tool_class,
            rule.id,
        )
        where = call.peer.address, call.session, instance
        return (
            self._asked.get(who) or self._who(who),
            self._places.get(where) or self._where(where),
            trace_id,
        )

    def of(self, fields: Line) -> str:
        """Whatever does not come again."""
        part = encoded(fields, self._redactor.bytes)
        return f",{part}" if part else ""

    def _who(self, who: _Who) -> str:
        issuer, subject, tenant, client, fingerprint, tool, tool_class, rule = who
        asked = Asked(issuer, subject, tenant, client, fingerprint, "tools/call", tool, tool_class, rule)
        return remembered(self._asked, who, self.of(asked), sum(map(len, who)), longest=LONGEST, most=MOST)

    def _where(self, where: _Where) -> str:
        address, session, instance = where
        digest = "" if session is None else session_digest(session)
        place, size = self.of(Place(address, digest, instance)), len(session or "")
        return remembered(self._places, where, place, size, longest=LONGEST, most=MOST)

    def _forget(self) -> None:
        """There is a secret that nobody looked for."""
        self._learnt = self._made()
        self._asked.clear()
        self._places.clear()
        self._has_digits = self._redactor.knows_digits()


def session_digest(session: str) -> str:
    """Tells sessions apart without naming them: who knows one speaks in it."""
    return sha256(session.encode("utf-8", "surrogateescape")).hexdigest()[:_SESSION_DIGITS]
