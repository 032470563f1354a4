"""Several rooms listen to one exchange."""

import pytest

from proxy.model import Ear, Ending, Listen, Permit, Reason, Refused
from proxy.upstream.ears import listening
from tests.fakes import PRINCIPAL, RULE, Diary, FakeEar, make_call

PERMIT = Permit(call=make_call(), principal=PRINCIPAL, rule=RULE)


def always(ear: Ear | None) -> Listen:
    return lambda permit, handed_out: ear


def test_where_nobody_listens_nothing_is_asked() -> None:
    """design section 4: what is off costs nothing."""
    assert listening() is None
    assert listening(None, None) is None
    one = always(None)
    assert listening(None, one) is one


def test_only_those_who_want_to_hear_this_exchange() -> None:
    ear = FakeEar([])
    both = listening(always(None), always(ear), None)
    assert both is not None
    assert both(PERMIT, None) is ear
    neither = listening(always(None), always(None))
    assert neither is not None
    assert neither(PERMIT, None) is None


def test_each_is_told_what_is_handed_out() -> None:
    told: list[str | None] = []

    def listen(permit: Permit, handed_out: str | None) -> None:
        told.append(handed_out)

    both = listening(listen, listen)
    assert both is not None
    assert both(PERMIT, "s") is None
    assert told == ["s", "s"]


def two(first: Ear, second: Ear) -> Ear:
    both = listening(always(first), always(second))
    assert both is not None
    ear = both(PERMIT, None)
    assert ear is not None
    return ear


def test_all_hear_everything_in_order() -> None:
    diary: Diary = []
    ear = two(FakeEar(diary), FakeEar(diary))
    ear.event_id(b"7")
    ear.request(1, "ping", None)
    ear.notification("notifications/x", {})
    ear.result("tools/call", {})
    ear.ended(Ending.COMPLETE)
    said: Diary = [
        ("event id", b"7"),
        ("request", 1),
        ("notification", "notifications/x", {}),
        ("result", "tools/call", {}),
        ("ear", Ending.COMPLETE),
    ]
    assert diary == [each for each in said for _ in range(2)]


def test_the_next_one_gets_what_the_first_left() -> None:
    ear = two(FakeEar([], changes={b"a": b"b"}), FakeEar([], changes={b"b": b"c"}))
    assert [ear.passed_on(data) for data in (b"a", b"b", b"d")] == [b"c", b"c", b"d"]
    data = b"untouched"
    assert ear.passed_on(data) is data


def test_what_one_refuses_the_next_one_does_not_hear() -> None:
    """Own promise: what is not released teaches nothing."""
    diary: Diary = []
    ear = two(FakeEar([], error=Refused(Reason.UPSTREAM_NONSENSE)), FakeEar(diary))
    with pytest.raises(Refused):
        ear.result("tools/list", {})
    assert diary == []


def test_all_hear_of_the_end_whatever_one_of_them_raises() -> None:
    class Clumsy(FakeEar):
        def ended(self, ending: Ending) -> None:
            raise RuntimeError("clumsy")

    diary: Diary = []
    with pytest.raises(RuntimeError, match="clumsy"):
        two(Clumsy([]), FakeEar(diary)).ended(Ending.CLIENT_GONE)
    assert diary == [("ear", Ending.CLIENT_GONE)]
