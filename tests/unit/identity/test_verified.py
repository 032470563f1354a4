"""A token that was good is believed again for a short while, and no other token with it."""

import hashlib

from proxy.identity.verified import LONGEST_S, MOST_NAMES, Verified
from proxy.model import Principal


def digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def named(subject: str) -> Principal:
    return Principal(issuer="https://idp.test/", subject=subject, tenant="acme")


def test_only_the_very_same_token_is_known() -> None:
    """Another cache once took the first 20 characters for the token (CVE-2026-35030)."""
    verified = Verified()
    verified.put(digest("token"), named("alice"), 0, 100)
    assert verified.get(digest("token"), 1) == named("alice")
    first = digest("token")
    for other in (digest("tokem"), digest("token "), b"", first[:20], first[:31], first + b"\0", first[::-1]):
        assert verified.get(other, 1) is None


def test_nothing_is_believed_for_longer_than_a_minute() -> None:
    verified = Verified()
    verified.put(b"d", named("alice"), 100, 10_000)
    assert verified.get(b"d", 100 + LONGEST_S - 0.001) == named("alice")
    assert verified.get(b"d", 100 + LONGEST_S) is None
    assert len(verified) == 0
    assert LONGEST_S == 60


def test_nothing_is_believed_beyond_its_end() -> None:
    verified = Verified()
    verified.put(b"d", named("alice"), 100, 105)
    assert verified.get(b"d", 104.999) == named("alice")
    assert verified.get(b"d", 105) is None


def test_what_has_ended_is_not_even_kept() -> None:
    """A token within its leeway is verified each time."""
    verified = Verified()
    for until in (99.0, 100.0):
        verified.put(b"d", named("alice"), 100, until)
        assert len(verified) == 0


def test_a_hit_does_not_lengthen_it() -> None:
    """Else a token in constant use would outlive its key."""
    verified = Verified()
    verified.put(b"d", named("alice"), 0, 1_000)
    for now in range(0, 60, 5):
        assert verified.get(b"d", now) is not None
    assert verified.get(b"d", 60) is None


def test_the_table_is_bounded_and_the_oldest_goes() -> None:
    verified = Verified(most=3)
    for at in range(5):
        verified.put(bytes([at]), named(f"s{at}"), at, 1_000)
    assert len(verified) == 3
    assert [verified.get(bytes([at]), 5) for at in range(5)] == [
        None,
        None,
        named("s2"),
        named("s3"),
        named("s4"),
    ]


def test_one_that_is_verified_again_is_young_again() -> None:
    verified = Verified(most=2)
    verified.put(b"a", named("a"), 0, 1_000)
    verified.put(b"b", named("b"), 1, 1_000)
    verified.put(b"a", named("a2"), 2, 1_000)
    verified.put(b"c", named("c"), 3, 1_000)
    assert [verified.get(each, 4) for each in (b"a", b"b", b"c")] == [named("a2"), None, named("c")]
    assert len(verified) == 2


def test_everybody_is_forgotten_at_once() -> None:
    """A key that was withdrawn takes with it what it has verified."""
    verified = Verified()
    verified.put(b"a", named("a"), 0, 100)
    verified.clear()
    assert verified.get(b"a", 0) is None
    assert len(verified) == 0


def test_ten_thousand_are_enough() -> None:
    verified = Verified()
    for at in range(10_001):
        verified.put(at.to_bytes(32, "big"), named("a"), 0, 100)
    assert len(verified) == 10_000
    assert verified.get(bytes(32), 1) is None


def granted(scopes: int) -> Principal:
    return Principal(
        issuer="https://idp.test/", subject="bob", tenant="acme", scopes=frozenset(map(str, range(scopes)))
    )


def test_tokens_with_many_scopes_leave_room_for_fewer_of_them() -> None:
    """Attack: ten thousand of 2,000 scopes each, from an issuer that grants what is asked for, were 2.4 GB."""
    verified = Verified()
    heavy = granted(2_000)
    for at in range(1_000):
        verified.put(bytes([at // 250, at % 250]), heavy, 0, 100)
    assert len(verified) == MOST_NAMES // 2_000


def test_what_has_gone_takes_no_room() -> None:
    """By expiry, by a newer look, by forgetting everybody."""
    verified = Verified()
    half = granted(MOST_NAMES // 2)
    verified.put(b"a", half, 0, 100)
    verified.put(b"a", half, 1, 100)
    assert verified.get(b"a", 61) is None
    verified.put(b"b", half, 61, 200)
    verified.put(b"c", half, 61, 200)
    assert len(verified) == 2
    verified.clear()
    verified.put(b"d", half, 62, 200)
    verified.put(b"e", half, 62, 200)
    assert len(verified) == 2
