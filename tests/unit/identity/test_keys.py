"""Keys are renewed in time, outlive their issuer's outages for a while, and no caller decides how often we ask."""

import functools
import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.identity.key_set import KeySet, PublicKey, read_key_set
from proxy.identity.keys import Keys, Miss
from tests.idp import jwk_of, key_for

REFRESH_S = 300.0
STALE_S = 3_600.0


@functools.cache
def published(*kids: str) -> KeySet:
    """Keys made for ES256 under these names."""
    keys = [{**jwk_of(key_for(kid, "ES256")), "kid": kid} for kid in kids]
    return read_key_set(json.dumps({"keys": keys}).encode(), {"ES256"})


def make(refresh_s: float = REFRESH_S, max_stale_s: float = STALE_S) -> Keys:
    return Keys(refresh_s=refresh_s, max_stale_s=max_stale_s)


def loaded(*kids: str, now: float = 0.0, **settings: float) -> Keys:
    keys = make(**settings)
    keys.began()
    keys.renewed(published(*kids or ("k1",)), None, now, 0.0)
    return keys


def fail(keys: Keys, now: float, *, times: int = 1, chance: float = 0.0) -> float:
    """Fail so often, at once; how long the pause is then."""
    for _ in range(times):
        keys.began()
        keys.failed("timeout", now, chance)
    return keys.wait_s(now)


def found(keys: Keys, kid: str | None, now: float) -> str | Miss | None:
    answer = keys.find(kid, "ES256", now)
    return answer.kid if isinstance(answer, PublicKey) else answer


# What is a missing key?


def test_before_the_first_fetch_nobody_can_tell() -> None:
    """503 and unready, never 401: it is our trouble that we have no keys."""
    keys = make()
    assert found(keys, "k1", 0) is Miss.NOBODY_KNOWS
    assert (keys.is_usable(0), keys.why_degraded(0)) == (False, "no keys: not fetched yet")
    assert keys.wait_s(0) == 0
    keys.began()
    assert found(keys, "k1", 0) is Miss.NOBODY_KNOWS
    fail(keys, 0)
    assert found(keys, "k1", 0) is Miss.NOBODY_KNOWS
    assert keys.why_degraded(0) == "no keys: timeout"


def test_a_key_that_is_there_is_found_whatever_goes_on() -> None:
    """Nobody whose key is known waits for a fetch, nor for its end."""
    keys = loaded()
    assert found(keys, "k1", 1) == "k1"
    assert found(keys, "kx", 1) is Miss.PENDING
    assert found(keys, "k1", 1) == "k1"
    keys.began()
    assert found(keys, "k1", 2) == "k1"
    fail(keys, 3, times=20)
    assert found(keys, "k1", STALE_S - 1) == "k1"


def test_the_first_unknown_kid_asks_for_a_fetch() -> None:
    keys = loaded()
    assert keys.wait_s(1) > 0
    assert found(keys, "k2", 1) is Miss.PENDING
    assert keys.wait_s(1) == 0
    # Before it has begun, and while it is under way, it may bring any other kid as well.
    assert found(keys, "k3", 1) is Miss.PENDING
    keys.began()
    assert found(keys, "k2", 1) is Miss.PENDING
    assert found(keys, "k3", 1) is Miss.PENDING
    assert keys.renewed(published("k1", "k2"), None, 2, 0.0)
    assert found(keys, "k2", 2) == "k2"


def test_an_unknown_kid_is_settled_when_a_fetch_did_not_bring_it() -> None:
    keys = loaded()
    found(keys, "k2", 1)
    keys.began()
    keys.renewed(published("k1"), None, 2, 0.0)
    assert found(keys, "k2", 2) is Miss.UNKNOWN
    assert found(keys, "k3", 30.9) is Miss.UNKNOWN
    assert keys.wait_s(30.9) > 0
    assert found(keys, "k3", 31) is Miss.PENDING
    assert keys.wait_s(31) == 0


def test_a_fetch_in_the_background_may_bring_it_too() -> None:
    """And does not use up the question of an unknown kid."""
    keys = loaded()
    keys.began()
    assert found(keys, "k2", 300) is Miss.PENDING
    keys.renewed(published("k1"), None, 301, 0.0)
    assert found(keys, "k2", 301) is Miss.PENDING
    assert keys.wait_s(301) == 0


def test_while_the_issuer_fails_an_unknown_kid_is_nobodys_fault() -> None:
    """The key may have been published meanwhile: 503. It does not hasten the next attempt either."""
    keys = loaded()
    found(keys, "k2", 1)
    pause_s = fail(keys, 2)
    assert pause_s > 0
    for now in (2.0, 40.0, 3_000.0):
        assert found(keys, "k2", now) is Miss.NOBODY_KNOWS
    assert keys.wait_s(2) == pause_s
    keys.began()
    assert found(keys, "k2", 3_001) is Miss.PENDING
    keys.renewed(published("k1"), None, 3_001, 0.0)
    assert found(keys, "k2", 3_001) is Miss.PENDING


def test_a_key_of_another_kind_is_as_unknown() -> None:
    """kid k1 is for ES256: a token that says EdDSA finds nothing, and may ask as seldom."""
    keys = loaded()
    assert keys.find("k1", "EdDSA", 1) is Miss.PENDING
    keys.began()
    keys.renewed(published("k1"), None, 1, 0.0)
    assert keys.find("k1", "EdDSA", 2) is Miss.UNKNOWN
    assert found(keys, None, 2) == "k1"


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 40), st.sampled_from(["k1", "kx", "ky", None])), max_size=60))
def test_whatever_arrives_there_is_one_question_in_thirty_seconds(
    steps: list[tuple[float, str | None]],
) -> None:
    """Issue: at most one fetch per 30 s because of unknown kids."""
    keys = loaded("k1", "k2", refresh_s=86_400.0, max_stale_s=1e9)
    now, asked = 0.0, []
    for pause_s, kid in steps:
        now += pause_s
        found(keys, kid, now)
        if keys.wait_s(now) == 0:
            asked.append(now)
            keys.began()
            keys.renewed(published("k1", "k2"), None, now, 0.0)
    assert all(later - earlier >= 30 for earlier, later in itertools.pairwise(asked))


def test_a_set_without_usable_keys_withdraws_what_there_was() -> None:
    """An issuer that publishes nothing has withdrawn everything; that nobody can be let in is no 401."""
    keys = loaded()
    keys.began()
    assert keys.renewed(published(), None, 10, 0.0) is False
    assert (keys.is_usable(10), keys.why_degraded(10)) == (False, "no keys: no key that can be used")
    assert found(keys, "k1", 10) is Miss.NOBODY_KNOWS
    assert keys.wait_s(10) == 0.25
    keys.began()
    keys.renewed(published("k1"), None, 11, 0.0)
    assert (found(keys, "k1", 11), keys.why_degraded(11)) == ("k1", None)


# When is the next fetch?


@pytest.mark.parametrize(
    ("refresh_s", "max_age_s", "interval_s"),
    [
        (300, None, 300),
        (300, 3_600, 300),
        (300, 299, 299),
        (300, 120, 120),
        (300, 60, 60),
        (300, 59, 60),
        (300, 0, 60),
        (60, 0, 60),
        (10, 0, 10),
        (10, 5, 10),
        (10, 3_600, 10),
        (1, None, 1),
    ],
)
def test_a_shorter_max_age_is_honoured_within_reason(
    refresh_s: float, max_age_s: float | None, interval_s: float
) -> None:
    """RFC 9111 5.2.2.1, down to a minute; the operator may ask for less, and never gets more than asked for."""
    keys = make(refresh_s=refresh_s)
    keys.renewed(published("k1"), max_age_s, 1_000, 0.0)
    assert keys.wait_s(1_000) == interval_s
    assert keys.wait_s(1_000 + interval_s) == 0
    assert keys.wait_s(1e6) == 0


@pytest.mark.parametrize(("chance", "interval_s"), [(0.0, 300.0), (0.5, 285.0), (1.0, 270.0)])
def test_replicas_do_not_ask_in_step(chance: float, interval_s: float) -> None:
    keys = make()
    keys.renewed(published("k1"), None, 0, chance)
    assert keys.wait_s(0) == interval_s


def test_keys_are_fetched_again_before_they_end() -> None:
    """Settings may ask for a longer interval than the keys are good for."""
    keys = loaded(refresh_s=300.0, max_stale_s=60.0)
    assert keys.wait_s(0) == 30


def test_without_keys_attempts_follow_each_other_quickly() -> None:
    """Ready at most 5 s after the issuer is back: no pause is longer than 2 s."""
    keys = make()
    assert [fail(keys, 0) for _ in range(6)] == [0.25, 0.5, 1.0, 2.0, 2.0, 2.0]
    assert fail(keys, 0, times=5_000) == 2.0


def test_with_keys_attempts_are_calmer() -> None:
    keys = loaded()
    assert [fail(keys, 0) for _ in range(6)] == [5.0, 10.0, 20.0, 40.0, 60.0, 60.0]


@pytest.mark.parametrize(("chance", "pause_s"), [(0.0, 2.0), (0.5, 1.5), (1.0, 1.0)])
def test_pauses_are_shortened_by_chance(chance: float, pause_s: float) -> None:
    assert fail(make(), 0, times=9, chance=chance) == pause_s


def test_a_good_fetch_ends_the_trouble() -> None:
    keys = loaded()
    fail(keys, 100, times=5)
    assert keys.why_degraded(100) == "keys not renewed: timeout"
    keys.began()
    keys.renewed(published("k1"), None, 200, 0.0)
    assert (keys.why_degraded(200), keys.wait_s(200)) == (None, REFRESH_S)
    assert fail(keys, 200) == 5.0


def test_failing_is_never_slower_than_succeeding() -> None:
    assert fail(loaded(refresh_s=2.0), 0) == 2.0


def test_when_the_keys_end_the_next_attempt_is_due() -> None:
    """Else a calm pause that began while they were good would go on after them."""
    keys = loaded()
    assert fail(keys, STALE_S - 10, times=9) == 10
    assert fail(keys, STALE_S) == 2.0


# How long are keys good?


def test_stale_keys_serve_for_a_while_and_then_no_longer() -> None:
    """jwks_max_stale_s after the last good fetch, not after the first failure."""
    keys = loaded(now=100)
    fail(keys, 400)
    last = 100 + STALE_S - 0.001
    assert (found(keys, "k1", last), keys.is_usable(last), keys.usable_until) == ("k1", True, 100 + STALE_S)
    assert (found(keys, "k1", 100 + STALE_S), keys.is_usable(100 + STALE_S)) == (Miss.NOBODY_KNOWS, False)
    assert keys.why_degraded(100 + STALE_S) == "no keys: timeout"


def test_keys_that_nobody_renews_end_too() -> None:
    """Nothing failed, because nothing was tried: the time counts all the same."""
    keys = loaded()
    assert keys.why_degraded(STALE_S - 1) is None
    assert keys.why_degraded(STALE_S) == "no keys: too old"


def test_whether_there_ever_was_a_key() -> None:
    """Ready means loaded once; later trouble is another matter."""
    keys = make()
    seen = [keys.was_loaded]
    for kids in ((), ("k1",), ()):
        keys.renewed(published(*kids), None, 0, 0.0)
        seen.append(keys.was_loaded)
    fail(keys, STALE_S)
    assert [*seen, keys.was_loaded] == [False, False, True, True, True]


def test_whether_all_keys_are_kept_is_told() -> None:
    """What was verified with a key that is gone is forgotten."""
    keys = make()
    assert keys.renewed(published("k1"), None, 0, 0.0)
    assert keys.renewed(published("k1", "k2"), None, 1, 0.0)
    assert not keys.renewed(published("k2"), None, 2, 0.0)
    assert keys.renewed(published("k2"), None, 3, 0.0)
