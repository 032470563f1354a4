"""Which of an issuer's keys are there, how old are they, and when are they fetched again? Pure, given `now`.

In: what fetching brought, or why it failed; the kid of a token. Out: a key or what its absence means, and how
long to wait for the next fetch. Keeps the last good key set of one issuer. Nothing here waits or fetches: that is
`key_fetch.py`. Times are seconds, monotonic.
"""

from __future__ import annotations

import math
from enum import Enum
from typing import Final

from .key_set import KeySet, PublicKey

COOL_DOWN_S: Final = 30.0
"""Between two fetches because of a kid we do not have: anybody can invent kids, as many as they like."""
MIN_MAX_AGE_S: Final = 60.0
"""The shortest Cache-Control max-age that is honoured; some issuers say 0 of keys that live for months."""
NO_KEYS_RETRY_S: Final = (0.25, 2.0)
"""First and longest pause between attempts while nobody can be let in: ready soon after the issuer is back."""
KEYS_RETRY_S: Final = (5.0, 60.0)
"""The same while the keys we have still serve."""
_REFRESH_JITTER: Final = 0.1
"""Part of the interval that chance may take away, so that replicas do not ask in step."""


class Miss(Enum):
    """Why there is no key."""

    PENDING = "a fetch that may bring it is wanted or under way"
    UNKNOWN = "the issuer was asked lately and does not publish it"
    NOBODY_KNOWS = "the issuer does not answer, or published no key that can be used"


class Keys:
    """The keys of one issuer over time."""

    def __init__(self, *, refresh_s: float, max_stale_s: float) -> None:
        """Fetched again every `refresh_s`; used for `max_stale_s` after the last good fetch."""
        # A set that lives shorter than its refresh would leave nobody to let in between the two.
        self._refresh_s = min(refresh_s, max_stale_s / 2)
        self._max_stale_s = max_stale_s
        self._set = KeySet()
        self._why = "not fetched yet"
        self._failures = 0
        self._due_at = -math.inf
        self._asked_at = -math.inf
        self._is_wanted = False
        self._is_under_way = False
        self.usable_until = -math.inf
        """The keys prove nothing after this moment."""

    def find(self, kid: str | None, alg: str, now: float) -> PublicKey | Miss:
        """The key a token names. One that is not there may ask for a fetch, once in a while."""
        if not self.is_usable(now):
            return Miss.NOBODY_KNOWS
        key = self._set.find(kid, alg)
        if key is not None:
            return key
        if self._is_wanted or self._is_under_way:
            return Miss.PENDING
        if self._failures:
            return Miss.NOBODY_KNOWS
        if now - self._asked_at < COOL_DOWN_S:
            return Miss.UNKNOWN
        self._asked_at = now
        self._is_wanted = True
        return Miss.PENDING

    def wait_s(self, now: float) -> float:
        """How long until the next fetch is due; 0 when it is."""
        return 0.0 if self._is_wanted else max(0.0, self._due_at - now)

    def began(self) -> None:
        """A fetch is under way."""
        self._is_wanted = False
        self._is_under_way = True

    def renewed(self, key_set: KeySet, max_age_s: float | None, now: float, chance: float) -> bool:
        """A fetch has brought a key set, called fresh for `max_age_s` by its issuer. Chance is within 0 and 1.

        Returns whether every key of the old set is still there.
        """
        kept = key_set.keeps(self._set)
        self._set = key_set
        if not key_set:
            # Withdrawn all of it, or only keys nobody here can use: not the callers' fault either way.
            self.failed("no key that can be used", now, chance)
            return kept
        self.usable_until = now + self._max_stale_s
        self._why = "too old"
        self._failures = 0
        self._is_under_way = False
        interval_s = self._refresh_s
        if max_age_s is not None:
            interval_s = min(interval_s, max(max_age_s, MIN_MAX_AGE_S))
        self._due_at = now + interval_s * (1 - _REFRESH_JITTER * chance)
        return kept

    def failed(self, why: str, now: float, chance: float) -> None:
        """A fetch has brought nothing. The old set stays."""
        self._why = why
        self._failures += 1
        self._is_under_way = False
        first_s, longest_s = NO_KEYS_RETRY_S
        if self.is_usable(now):
            first_s, longest_s = KEYS_RETRY_S
            # Not slower than without trouble, and at once when the keys end.
            longest_s = min(longest_s, self._refresh_s, self.usable_until - now)
        pause_s = min(longest_s, first_s * 2 ** min(self._failures - 1, 10))
        self._due_at = now + pause_s * (1 - chance / 2)

    @property
    def was_loaded(self) -> bool:
        """Whether there has ever been a key."""
        return self.usable_until > -math.inf

    def is_usable(self, now: float) -> bool:
        """Whether tokens can be verified."""
        return bool(self._set) and now < self.usable_until

    def why_degraded(self, now: float) -> str | None:
        """What an operator should know, in fixed words; None when the last fetch was good."""
        if not self.is_usable(now):
            return f"no keys: {self._why}"
        return f"keys not renewed: {self._why}" if self._failures else None
