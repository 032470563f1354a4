"""How many calls may be at the server at once, and what becomes of the others? The `capacity` section.

Without what the room needs to run: whoever checks settings must not pay for a loop.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Final, Literal, TypeAlias

from msgspec import Meta, Struct, field

from ..configuration.folding import fold
from ..configuration.globs import Glob
from ..configuration.mistakes import Unfit
from ..configuration.values import fit

MAX_PATTERNS: Final = 64
"""Of `per_tool`: each is looked at when a place is free and somebody waits."""
USUAL_DEPTH: Final = 128

Overload: TypeAlias = Literal["fail", "queue", "shed"]


def check_tenant(text: str) -> None:
    """Raise Unfit unless this names one tenant."""
    if not fold(text) or not text.isprintable():
        raise Unfit("is no tenant", "it is compared with what credentials say", "name one")


def check_weights(weights: Mapping[str, float]) -> None:
    """Raise Unfit where two spellings of one tenant have a weight each."""
    known: set[str] = set()
    for tenant in weights:
        if fold(tenant) in known:
            why = "case, width and outer blanks of a name do not count"
            raise Unfit("names a tenant again", why, "keep one", key=tenant)
        known.add(fold(tenant))


def check_patterns(patterns: Mapping[str, int]) -> None:
    """Raise Unfit where more patterns stand than one look at all of them should cost."""
    if len(patterns) > MAX_PATTERNS:
        raise Unfit("has too many patterns", f"at most {MAX_PATTERNS} are looked at", "use * in them")


Places = Annotated[int, Meta(ge=1, le=100_000)]
Tenant = Annotated[str, Meta(max_length=256), fit(check_tenant)]
Weight = Annotated[float, Meta(ge=0.01, le=1_000)]


class PaceSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How fast calls leave for the server. They wait for their moment, in order, at most max_wait_s."""

    rate_per_s: Annotated[float, Meta(ge=0.001, le=1_000_000)]
    """So many a second, attempts that are repeated included."""

    burst: Annotated[int, Meta(ge=1, le=1_000_000)] = 1
    """So many at once after a rest."""


class AdaptiveSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Places that follow how long calls take: fewer when the server slows down, more when it is quick again."""

    floor: Places | None = None
    """Never fewer places. Absent: an eighth of max_in_flight."""

    ceiling: Places | None = None
    """Never more. Absent: max_in_flight."""

    tolerance: Annotated[float, Meta(ge=1.1, le=10)] = 1.5
    """How many times as long as usual calls may take before places are taken away."""

    window: Annotated[int, Meta(ge=10, le=10_000)] = 50
    """Calls between two decisions."""


def check_adaptive(adaptive: AdaptiveSettings) -> None:
    """Raise Unfit where the bounds contradict each other."""
    if adaptive.ceiling is not None and adaptive.ceiling < (adaptive.floor or 1):
        raise Unfit("lies below floor", "no number would be right", "write more", key="ceiling")


class CapacitySettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many calls may be at the server at once. Pings, handshakes, answers, notifications, listening streams and
    task polls neither take a place nor wait for one."""

    max_in_flight: Places = 1_024
    """Calls at once, of everybody; each counts until its answer has ended, streams included."""

    per_tenant: Places | None = None
    """Calls of one tenant at once. Absent: no bound of its own."""

    per_tool: Annotated[Mapping[Glob, Places], fit(check_patterns)] = field(
        default_factory=lambda: MappingProxyType({})
    )
    """Calls at once of all tools that fit a pattern, together; a tool that fits several needs a place in each."""

    overload: Overload | None = None
    """What becomes of calls for which there is no place. fail: refused at once. queue: they wait, and a full queue
    refuses the tenant that has most waiting for its weight. shed: as queue, but of that tenant reads go first and
    dangerous calls last. Absent: queue where queue_depth is written, else fail."""

    queue_depth: Annotated[int, Meta(ge=0, le=100_000)] | None = None
    """Calls that wait, of everybody. Absent: 128 where calls wait."""

    max_wait_s: Annotated[float, Meta(gt=0, le=60)] = 2.0
    """How long a call waits for its place, and for its moment where there is a pace; clients give up too."""

    weights: Annotated[Mapping[Tenant, Weight], fit(check_weights)] = field(
        default_factory=lambda: MappingProxyType({})
    )
    """Shares of tenants whose calls wait: one with 4 has four turns while others have one. Others weigh 1."""

    pace: PaceSettings | None = None
    """How fast calls leave. Absent: as they come."""

    adaptive: Annotated[AdaptiveSettings, fit(check_adaptive)] | None = None
    """Places that follow how long calls take; {} for what is usual. Absent: max_in_flight, always."""

    @property
    def policy(self) -> Overload:
        """What becomes of calls for which there is no place."""
        return self.overload or ("queue" if self.queue_depth else "fail")

    @property
    def depth(self) -> int:
        """Calls that wait at once."""
        if self.policy == "fail":
            return 0
        return USUAL_DEPTH if self.queue_depth is None else self.queue_depth


def check_capacity(capacity: CapacitySettings) -> None:
    """Raise Unfit where two fields contradict each other."""
    if capacity.overload == "fail" and capacity.queue_depth:
        raise Unfit(
            "has nobody to hold", "overload: fail lets nobody wait", "leave it out", key="queue_depth"
        )
    if capacity.overload in ("queue", "shed") and capacity.queue_depth == 0:
        raise Unfit(
            "has no room", f"overload: {capacity.overload} lets calls wait", "write more", key="queue_depth"
        )
    adaptive = capacity.adaptive
    if adaptive is not None and max(adaptive.floor or 0, adaptive.ceiling or 0) > capacity.max_in_flight:
        raise Unfit("reaches above max_in_flight", "that is never exceeded", "write less", key="adaptive")


CapacitySection = Annotated[CapacitySettings, fit(check_capacity)]
"""As the settings of the house hold it."""
