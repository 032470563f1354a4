"""Which limits does a message meet, and whose bucket in each? Permit → demands. Pure.

In: the settings, permits. Out: `Asked`. Keeps the answers for callers seen lately, bounded, and what each limit has
decided.

What counts: for rates every message, also what nobody may refuse (a flood of it empties the bucket of everything else);
for quotas calls of tools, at the cost of their rule; unless the limit chooses otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from ..configuration.folding import fold
from ..configuration.globs import Globs
from ..model import Call, Kind, Permit, Principal, Rule
from .demand import Demand, Quota, Rate, Window
from .keys import key_of
from .settings import LimitSettings, Override, override_parts

TOOL_CALL: Final = "tools/call"
ALWAYS_PASS: Final = frozenset({"initialize", "server/discover", "subscriptions/listen"})
"""Requests: a refusal of the first two makes clients change their revision for good, and of the third leaves them
deaf."""
TOLD_ALWAYS: Final = frozenset({"notifications/initialized", "notifications/cancelled"})
"""Notifications: without the first a session never begins; the second frees what others wait for."""
# Members of an Enum are slow to look up, too.
_REQUEST: Final = Kind.REQUEST
_NOTIFICATION: Final = Kind.NOTIFICATION
MOST_KNOWN: Final = 2_048
LONGEST_KNOWN: Final = 512
"""Characters of names that are remembered; callers choose some of them."""


class Tally(Struct):
    """What a limit has decided."""

    granted: int = 0
    refused: int = 0
    reported: int = 0
    """What it would have refused."""


class Asked(Struct, frozen=True, kw_only=True):
    """What one message asks of limits."""

    demands: tuple[Demand, ...]
    tallies: tuple[Tally, ...]
    reported: tuple[Demand, ...] = ()
    """Of limits that only report."""
    report_tallies: tuple[Tally, ...] = ()
    settles: bool = False
    """Whether something of `demands` is given back where the server was never reached."""
    eased: Asked | None = None
    """What is asked instead where it continues a call that has counted; None: the same."""


NOTHING: Final = Asked(demands=(), tallies=())
_DENIED: Final = Rule(id="denied")
"""Of no cost of its own."""


class Rules:
    """The limits in force."""

    def __init__(self, limits: Sequence[LimitSettings]) -> None:
        self._limits = tuple(map(_Limit, limits))
        self._names_tools = any(each.names_tools for each in self._limits)
        self._counting_all = tuple(
            each for each in self._limits if each.counts_everything and not each.is_reported
        )
        self._known: dict[tuple[object, ...], Asked] = {}
        self.tallies = {each.name: each.tally for each in self._limits}
        """By the name of the limit."""
        self.eases = any(each.is_free_for_continuations for each in self._limits)
        """Whether continuations are told apart."""

    def of(self, permit: Permit) -> Asked:
        """What the message of a permit asks."""
        call, principal, rule = permit.call, permit.principal, permit.rule
        method = call.method
        is_tool = method == TOOL_CALL
        kind = call.kind
        key = (
            # Members of an Enum are slow to hash.
            kind is _REQUEST,
            kind is _NOTIFICATION,
            method,
            call.target if is_tool and self._names_tools else None,
            principal.tenant,
            principal.subject,
            principal.issuer,
            principal.client,
            (rule.tool_class, rule.cost) if is_tool else None,
        )
        known = self._known.get(key)
        if known is None:
            known = self._asked(call, principal, rule)
            if sum(len(each) for each in key if isinstance(each, str)) <= LONGEST_KNOWN:
                if len(self._known) >= MOST_KNOWN:
                    self._known.clear()
                self._known[key] = known
        return known

    def of_denied(self, call: Call, principal: Principal) -> Asked:
        """What a message asks that policy has refused: only of limits that count everything."""
        if not self._counting_all:
            return NOTHING
        message = _Message(call, principal, _DENIED)
        pairs = [
            (each, demand) for each in self._counting_all if (demand := each.demand(message)) is not None
        ]
        return _joined(pairs, None)

    def _asked(self, call: Call, principal: Principal, rule: Rule) -> Asked:
        message = _Message(call, principal, rule)
        pairs = [
            (each, demand)
            for each in self._limits
            if each.is_meant(message) and (demand := each.demand(message)) is not None
        ]
        paying = [(each, demand) for each, demand in pairs if not each.is_free_for_continuations]
        return _joined(pairs, None if len(paying) == len(pairs) else _joined(paying, None))


class _Message:
    """What limits look at."""

    def __init__(self, call: Call, principal: Principal, rule: Rule) -> None:
        is_tool = call.method == TOOL_CALL
        # Streams, goodbyes and posted answers have no method, whatever stands in theirs.
        self.method = call.method if call.kind in (_REQUEST, _NOTIFICATION) else None
        self.tool = (call.target or "") if is_tool else None
        self.tool_class = rule.tool_class if is_tool else None
        self.cost = rule.cost if is_tool else 1
        self.must_pass = must_pass(call)
        self.values = {
            "tenant": fold(principal.tenant),
            "subject": fold(principal.subject),
            "issuer": fold(principal.issuer),
            "client": fold(principal.client or principal.subject),
            "tool": fold(self.tool or ""),
            "class": self.tool_class or "",
        }


class _Limit:
    """One limit, ready to be asked."""

    def __init__(self, settings: LimitSettings) -> None:
        self.name = settings.name
        self.is_reported = settings.report
        self.names_tools = bool(settings.tools) or "tool" in settings.key
        self.is_free_for_continuations = not settings.is_rate and settings.continuations != "counted"
        self.tally = Tally()
        self._is_rate = settings.is_rate
        self._words = () if settings.key == ("everyone",) else settings.key
        self._tools = Globs(settings.tools) if settings.tools else None
        self._classes = frozenset(settings.classes)
        self._methods = Globs(settings.methods) if settings.methods else None
        self._measure = _measure(settings, Override())
        self._overrides = {
            override_parts(name): _measure(settings, each) for name, each in settings.overrides.items()
        }

    @property
    def counts_everything(self) -> bool:
        """Whether every message counts, whatever it is."""
        return self._is_rate and self._tools is None and not self._classes and self._methods is None

    def is_meant(self, message: _Message) -> bool:
        if self._methods is not None:
            return message.method is not None and bool(self._methods.fitting(message.method))
        if self._tools is not None or self._classes or not self._is_rate:
            return (
                message.tool is not None
                and (self._tools is None or bool(self._tools.fitting(message.tool)))
                and (not self._classes or message.tool_class in self._classes)
            )
        return True

    def demand(self, message: _Message) -> Demand | None:
        """What it is asked; None where the message is free."""
        parts = tuple(message.values[word] for word in self._words)
        measure = self._measure_of(parts)
        if not message.cost and not is_blocked(measure):
            return None
        return Demand(
            limit=self.name,
            key=key_of(self.name, parts),
            measure=measure,
            cost=message.cost,
            must_pass=message.must_pass,
            # Who shares a bucket across tenants shares its room too, or each tenant could have one of its own.
            holder=message.values["tenant"] if "tenant" in self._words else "",
        )

    def _measure_of(self, parts: tuple[str, ...]) -> Rate | Quota:
        for length in range(len(parts), 0, -1) if self._overrides else ():
            found = self._overrides.get(parts[:length])
            if found is not None:
                return found
        return self._measure


def must_pass(call: Call) -> bool:
    """Whether a message passes whatever a limit says."""
    if call.kind is _REQUEST:
        return call.method in ALWAYS_PASS
    if call.kind is _NOTIFICATION:
        return call.method in TOLD_ALWAYS
    return True


def is_blocked(measure: Rate | Quota) -> bool:
    return not (measure.per_s if isinstance(measure, Rate) else measure.units)


def _measure(settings: LimitSettings, override: Override) -> Rate | Quota:
    if settings.rate_per_s is not None:
        per_s = settings.rate_per_s if override.rate_per_s is None else override.rate_per_s
        return Rate(per_s, override.burst or settings.burst or 1)
    if settings.window is None:
        window = Window("sliding", sliding_s=settings.sliding_s or 0)
    else:
        window = Window(settings.window, settings.timezone or "UTC")
    return Quota((settings.quota or 0) if override.quota is None else override.quota, window)


def _joined(pairs: Sequence[tuple[_Limit, Demand]], eased: Asked | None) -> Asked:
    held = [(each, demand) for each, demand in pairs if not each.is_reported]
    told = [(each, demand) for each, demand in pairs if each.is_reported]
    return Asked(
        demands=tuple(demand for _, demand in held),
        tallies=tuple(each.tally for each, _ in held),
        reported=tuple(demand for _, demand in told),
        report_tallies=tuple(each.tally for each, _ in told),
        settles=any(isinstance(demand.measure, Quota) for _, demand in held),
        eased=eased,
    )
