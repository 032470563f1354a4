"""How long may a call take, and what if it fails? The `resilience` section, which holds also where none is written.

Without what the room needs to run: whoever checks settings must not pay for a loop.
"""

from typing import Annotated

from msgspec import Meta, Struct, field

from ..configuration.mistakes import Unfit
from ..configuration.values import fit

Seconds = Annotated[float, Meta(ge=0.001, le=86_400)]
Ratio = Annotated[float, Meta(gt=0, le=1)]
Calls = Annotated[int, Meta(ge=1, le=100_000)]


class RetryBudgetSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many attempts may be repeated in any ten seconds, of everybody: what repeats without bound turns the
    stumbling of a server into an outage."""

    ratio: Annotated[float, Meta(ge=0, le=1)] = 0.2
    """So many for each call: 0.2 is one for five."""

    min_per_s: Annotated[float, Meta(ge=0.1, le=10_000)] = 10
    """And so many a second in any case; ten seconds' worth may come at once. attempts: 1 repeats nothing at all."""


class BreakerSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a server that keeps failing is left alone: nothing is sent but one call now and then, to see."""

    enabled: bool = True
    """false: it never is."""

    failures: Calls = 5
    """So many failures in a row."""

    failure_ratio: Ratio = 0.5
    """Or such a part of the calls of window_s, once there are min_calls."""

    min_calls: Calls = 20
    """Fewer calls than this say nothing of a part."""

    window_s: Seconds = 10
    """How long a call counts."""

    open_s: Seconds = 5
    """How long the server is left alone; twice as long each time it fails again."""

    max_open_s: Seconds = 60
    """Never longer."""

    counts_internal_errors: bool = True
    """true: a JSON-RPC error -32603 is a failure, in whatever status it comes. false: it is an answer like others."""


class QuarantineSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a single tool that keeps failing is left alone, while all others are called."""

    failure_ratio: Ratio = 0.5
    """Such a part of its calls failed within window_s."""

    min_calls: Calls = 20
    """Fewer calls than this say nothing of it."""

    window_s: Seconds = 60
    """How long a call counts."""

    for_s: Seconds = 60
    """How long the tool is left alone. Then a call tries it."""


def check_breaker(breaker: BreakerSettings) -> None:
    """Raise Unfit where two fields contradict each other."""
    if breaker.max_open_s < breaker.open_s:
        raise Unfit("lies below open_s", "no length would be right", "write more", key="max_open_s")


class ResilienceSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long a call may take, which attempts are repeated, and when the server is left alone. Repeated is only what
    never left, what only asks, and tools that a rule calls idempotent."""

    timeout_s: Seconds = 60
    """How long a call may take, with all that it waits for. A rule's timeout_s goes before, also where it is longer.
    Clients of the TypeScript SDK wait 60 s."""

    client_may_shorten: bool = True
    """true: a caller may ask for less time. Nobody may ask for more."""

    stream_idle_timeout_s: Seconds = 300
    """How long a stream may be silent; any byte counts. Servers send a comment every 15 s, so stay well above."""

    stream_max_s: Annotated[float, Meta(ge=0.001, le=31_536_000)] | None = None
    """How long a stream may last, however busy. Absent: as long as it wants."""

    attempts: Annotated[int, Meta(ge=1, le=10)] = 3
    """How often a call may be sent, the first time included."""

    backoff_s: Seconds = 0.1
    """How long to wait at most before the second attempt; twice as long before each further one, by chance less."""

    backoff_cap_s: Seconds = 5
    """Never longer, unless the server asks for it by Retry-After."""

    retry_budget: RetryBudgetSettings = field(default_factory=RetryBudgetSettings)
    """How many attempts may be repeated."""

    breaker: Annotated[BreakerSettings, fit(check_breaker)] = field(default_factory=BreakerSettings)
    """When a server that keeps failing is left alone."""

    quarantine: QuarantineSettings | None = None
    """When a single tool that keeps failing is left alone; {} for what is usual. Absent: never."""


def check_resilience(resilience: ResilienceSettings) -> None:
    """Raise Unfit where two fields contradict each other."""
    if resilience.backoff_cap_s < resilience.backoff_s:
        raise Unfit("lies below backoff_s", "no wait would be right", "write more", key="backoff_cap_s")


ResilienceSection = Annotated[ResilienceSettings, fit(check_resilience)]
"""As the settings of the house hold it."""
