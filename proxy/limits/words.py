"""What is a caller told that a limit refuses? A demand and what was decided → `Refused`. Pure.

Texts are made of settings and numbers only. Header fields as draft-ietf-httpapi-ratelimit-headers-11 words them: the
limit that refuses, its quota `q` in `w` seconds, what remains `r` until `t` seconds from now.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Final

from ..model import Reason, Refused, Rule
from .demand import Demand, Denied, Quota, Rate
from .rules import is_blocked

LARGEST: Final = 999_999_999_999_999
"""An Integer of structured fields (RFC 9651, 3.3.1)."""
_UNITS: Final = (("second", 1), ("minute", 60), ("hour", 3_600), ("day", 86_400))


def refused(demand: Demand, denied: Denied, rule: Rule, wall: float) -> Refused:
    """The refusal of a call that asked `demand` at `wall`, by a rule that may know something cheaper."""
    measure = demand.measure
    is_rate = isinstance(measure, Rate)
    wait_s = denied.retry_after_s if math.isfinite(denied.retry_after_s) else None
    data: dict[str, object] = {"limit": demand.limit, "remaining": denied.remaining}
    if demand.cost != 1:
        data["cost"] = demand.cost
    if not is_rate and wait_s is not None:
        data["resetsAt"] = _moment(wall + wait_s)
    sentences = [
        f"Limit {demand.limit} {_allows(measure)}.",
        _remains(demand, denied),
        _advice(demand, wait_s),
    ]
    if rule.instead:
        sentences.append(f"Instead: {rule.instead}")
    return Refused(
        Reason.RATE_LIMITED if is_rate else Reason.QUOTA_SPENT,
        " ".join(filter(None, sentences)),
        data=data,
        headers=_fields(demand, denied, wait_s, wall),
        retry_after_s=wait_s,
    )


def _allows(measure: Rate | Quota) -> str:
    if is_blocked(measure):
        return "allows nothing"
    if isinstance(measure, Rate):
        unit, length_s = next(
            (each for each in _UNITS if measure.per_s * each[1] >= 1),
            _UNITS[-1],
        )
        return f"allows {_count(measure.per_s * length_s)} {_a(unit)} and {measure.burst} at once"
    window = measure.window
    if window.kind == "sliding":
        return f"allows {measure.units} in any {_length(window.sliding_s)}"
    return f"allows {measure.units} {_a(window.kind)} ({window.timezone})"


def _a(unit: str) -> str:
    return f"an {unit}" if unit == "hour" else f"a {unit}"


def _count(number: float) -> str:
    """Six digits are enough for people, but none is told with an exponent."""
    return f"{number:.6g}" if number < 999_999 else f"{number:.0f}"


def _remains(demand: Demand, denied: Denied) -> str:
    if is_blocked(demand.measure):
        return ""
    left = {0: "Nothing is left", 1: "1 is left"}.get(denied.remaining, f"{denied.remaining} are left")
    return f"{left}." if demand.cost == 1 else f"{left}, and this call costs {demand.cost}."


def _advice(demand: Demand, wait_s: float | None) -> str:
    if wait_s is not None:
        if isinstance(demand.measure, Rate):
            return f"Call again in {_length(wait_s)}, not before."
        return f"Call again in {_length(wait_s)}; until then do without it, or tell your user."
    if is_blocked(demand.measure):
        return "Waiting does not help; tell your user."
    return "It never allows so much: waiting does not help, ask for less."


def _length(seconds: float) -> str:
    """A length of time for people and models, never shorter than it is."""
    if seconds <= 10:
        tenths = max(1, math.ceil(round(seconds * 10, 3)))
        return "1 second" if tenths == 10 else f"{tenths / 10:g} seconds"
    whole = math.ceil(round(seconds, 3))
    for unit, length_s, up_to in (("second", 1, 120), ("minute", 60, 120), ("hour", 3_600, 48)):
        if whole <= length_s * up_to:
            return f"{math.ceil(whole / length_s)} {unit}s"
    return f"{math.ceil(whole / 86_400)} days"


def _moment(unix_s: float) -> str:
    return datetime.fromtimestamp(math.ceil(round(unix_s, 3)), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _fields(
    demand: Demand, denied: Denied, wait_s: float | None, wall: float
) -> tuple[tuple[bytes, bytes], ...]:
    policy = f'"{demand.limit}";q={min(_quota(demand.measure), LARGEST)}'
    length_s = _window_s(demand.measure, wall)
    if length_s:
        policy += f";w={min(length_s, LARGEST)}"
    limit = f'"{demand.limit}";r={denied.remaining}'
    if wait_s is not None:
        limit += f";t={math.ceil(wait_s)}"
    return (b"RateLimit-Policy", policy.encode()), (b"RateLimit", limit.encode())


def _quota(measure: Rate | Quota) -> int:
    if isinstance(measure, Quota):
        return measure.units
    # Where a bucket fills within a second, a window of whole seconds holds more than the burst.
    return max(measure.burst, math.floor(measure.per_s)) if measure.per_s else 0


def _window_s(measure: Rate | Quota, wall: float) -> int:
    """The window in whole seconds; 0 where there is none to tell."""
    if is_blocked(measure):
        return 0
    if isinstance(measure, Rate):
        return max(1, math.ceil(measure.burst / measure.per_s))
    if measure.window.kind == "sliding":
        return math.ceil(measure.window.sliding_s)
    start, end = measure.window.at(wall)
    return round(end - start)
