"""Choices out of drawn bytes: one draw for a whole policy or message takes a twentieth of the time of one draw for each
part of it, and zeros, which are the first choices, are what a failure shrinks to."""

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from hypothesis import strategies as st

T = TypeVar("T")
RARELY: Final = [False, False, False, True]


class Dice:
    """What was drawn; the first choice for ever when it is used up."""

    def __init__(self, drawn: bytes) -> None:
        self._left = list(reversed(drawn))

    def one(self, choices: Sequence[T]) -> T:
        return choices[(self._left.pop() if self._left else 0) % len(choices)]

    def some(self, choices: Sequence[T], most: int) -> list[T]:
        return [self.one(choices) for _ in range(self.one(range(most + 1)))]

    def times(self, most: int, make: Callable[[], T]) -> list[T]:
        return [make() for _ in range(self.one(range(most + 1)))]

    def shuffled(self, things: Sequence[T]) -> list[T]:
        left = list(things)
        return [left.pop(self.one(range(len(left)))) for _ in things]


dice = st.binary(min_size=200, max_size=200).map(Dice)
