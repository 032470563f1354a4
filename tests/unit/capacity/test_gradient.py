"""How many places there should be: synthetic servers, from the first call to what becomes of the number."""

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from proxy.capacity.gradient import MAX_TOOLS, Gradient
from tests.fuzz.bounded import FUZZ

Server = Callable[[int], float]
"""How long a call takes while so many are under way."""


def gradient(floor: int = 4, ceiling: int = 64, tolerance: float = 1.5, window: int = 20) -> Gradient:
    return Gradient(floor=floor, ceiling=ceiling, tolerance=tolerance, window=window)


def busy(machine: Gradient, server: Server, calls: int, tool: str = "t") -> list[int]:
    """Everybody who may calls all the time. The numbers of places there were."""
    limits = []
    for _ in range(calls):
        machine.took(tool, server(machine.limit), machine.limit)
        limits.append(machine.limit)
    return limits


def steady(_: int) -> float:
    return 0.1


def congested(places: int) -> Server:
    """A server that does `places` calls at once; more of them wait in it."""
    return lambda at_once: 0.1 * max(1.0, at_once / places)


def test_it_begins_half_way() -> None:
    assert gradient(floor=4, ceiling=64).limit == 16


def test_a_server_that_keeps_up_gets_all_there_is() -> None:
    machine = gradient()
    busy(machine, steady, 500)
    assert machine.limit == 64


def test_places_nobody_uses_do_not_become_more() -> None:
    machine = gradient()
    for _ in range(500):
        machine.took("t", 0.1, 3)
    assert machine.limit == 16


def test_a_server_that_slows_down_gets_fewer() -> None:
    """It does 8 at once: what is tolerated is one and a half times as many, and a step of probing."""
    machine = gradient()
    # Quiet hours teach what is usual.
    for _ in range(1_000):
        machine.took("t", 0.1, 3)
    limits = busy(machine, congested(8), 2_000)[1_000:]
    assert min(limits) >= 8
    assert max(limits) <= 8 * 1.5 + 6


def test_it_comes_back_when_the_server_does() -> None:
    machine = gradient()
    busy(machine, steady, 1_000)
    busy(machine, lambda _: 0.5, 200)
    assert machine.limit < 16
    busy(machine, steady, 500)
    assert machine.limit == 64


def test_an_overload_does_not_become_usual() -> None:
    """A thousand calls at three times the usual: still not what is expected of the server."""
    machine = gradient(floor=1)
    busy(machine, steady, 1_000)
    busy(machine, lambda _: 0.3, 1_000)
    assert machine.limit <= 2


def test_a_server_that_has_changed_is_believed_in_the_end() -> None:
    """A new version takes twice as long for good."""
    machine = gradient(floor=1)
    busy(machine, steady, 1_000)
    busy(machine, lambda _: 0.2, 20_000)
    assert machine.limit == 64


def test_a_slow_tool_is_no_slow_server() -> None:
    """Each is compared with itself: 10 ms and 10 s in any mixture."""
    machine = gradient()
    for _ in range(300):
        machine.took("quick", 0.01, 64)
    for _ in range(300):
        machine.took("slow", 10.0, 64)
    assert machine.limit == 64


def test_one_outlier_is_no_overload() -> None:
    machine = gradient(window=50)
    busy(machine, steady, 1_000)
    machine.took("t", 3_600.0, 64)
    busy(machine, steady, 49)
    assert machine.limit == 64


def test_a_failing_server_gets_fewer() -> None:
    machine = gradient()
    busy(machine, steady, 500)
    for _ in range(100):
        machine.broke(64)
    assert machine.limit == 4


def test_no_window_takes_more_than_half() -> None:
    machine = gradient(floor=1)
    busy(machine, steady, 500)
    limits = busy(machine, lambda _: 100.0, 20)
    assert limits[-1] == 32


def test_names_that_callers_invent_do_not_fill_the_memory() -> None:
    machine = gradient()
    for number in range(10 * MAX_TOOLS):
        machine.took(f"tool-{number}", 0.1, 1)
    assert machine.tools == MAX_TOOLS


@given(
    floor=st.integers(1, 20),
    more=st.integers(0, 100),
    window=st.integers(10, 30),
    samples=st.lists(
        st.none() | st.tuples(st.sampled_from("ab"), st.floats(0, 1e6), st.integers(0, 200)), max_size=300
    ),
)
@FUZZ
def test_it_never_leaves_its_bounds(
    floor: int, more: int, window: int, samples: list[tuple[str, float, int] | None]
) -> None:
    """Never below the floor, never above the ceiling, whatever is measured; None is a failure."""
    machine = Gradient(floor=floor, ceiling=floor + more, tolerance=1.5, window=window)
    for each in samples:
        if each is None:
            machine.broke(1)
        else:
            machine.took(*each)
        assert floor <= machine.limit <= floor + more
