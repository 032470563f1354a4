"""Which connection is used next: the one that was used last, and none that waited too long."""

from __future__ import annotations

from proxy.upstream.idle import Idle


def test_the_last_comes_first() -> None:
    """Own promise of idle.py."""
    idle: Idle[str] = Idle(3.0, 9)
    assert [idle.put(each, now) for now, each in enumerate("abc")] == [None] * 3
    assert [idle.take(2.5) for _ in range(4)] == ["c", "b", "a", None]


def test_what_waited_long_enough_is_not_taken() -> None:
    """The moment itself is too late: the server may be about to close."""
    idle: Idle[str] = Idle(3.0, 9)
    idle.put("a", 0.0)
    idle.put("b", 1.0)
    assert idle.take(4.0) is None
    assert len(idle) == 2
    assert idle.take(3.999) == "b"
    assert idle.take(3.0) is None


def test_those_that_end() -> None:
    """Each once, the longest waiting first, and when the next one will."""
    idle: Idle[str] = Idle(3.0, 9)
    assert idle.first_end() is None
    for now, each in enumerate("abc"):
        idle.put(each, float(now))
    assert (idle.ended(2.9), idle.first_end()) == ([], 3.0)
    assert (idle.ended(4.0), idle.first_end()) == (["a", "b"], 5.0)
    assert (idle.ended(9.0), idle.first_end(), len(idle)) == (["c"], None, 0)


def test_there_is_room_for_so_many() -> None:
    """Who waited longest goes."""
    idle: Idle[str] = Idle(3.0, 2)
    assert [idle.put(each, 0.0) for each in "abcd"] == [None, None, "a", "b"]
    assert [idle.take(0.0) for _ in range(3)] == ["d", "c", None]
