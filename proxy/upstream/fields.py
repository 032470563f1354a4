"""The header fields of a request, and how they are written.

In: pairs of name and value. Out: the same, and their lines, which are joined and looked through once: what goes out
with one call goes out with the next one, too. Source: RFC 9112 section 5.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, TypeAlias, overload

Field: TypeAlias = tuple[bytes, bytes]

# Numbers: Python looks for them in bytes five times as fast as for bytes.
_LF: Final = 0x0A
_CR: Final = 0x0D
_NUL: Final = 0x00


class Fields(Sequence[Field]):
    """Fields in their order; `lines` are their bytes in a request."""

    __slots__ = ("_rest", "_without", "lines", "pairs")

    def __init__(self, pairs: Iterable[Field] = ()) -> None:
        """Raises ValueError where a field would end its line."""
        self.pairs = tuple(pairs)
        self.lines = _lines(self.pairs)
        self._without: tuple[bytes, ...] = ()
        self._rest: Fields | None = None
        """What is left without those, where that is not all."""

    def without(self, names: tuple[bytes, ...]) -> Fields:
        """Those of other names than `names` (lower case)."""
        if names != self._without:
            kept = [pair for pair in self.pairs if pair[0].lower() not in names]
            self._rest = Fields(kept) if len(kept) < len(self.pairs) else None
            self._without = names
        return self if self._rest is None else self._rest

    def __add__(self, more: Fields) -> Fields:
        return self._with(more.pairs, more.lines) if more.pairs else self

    def and_also(self, more: tuple[Field, ...]) -> Fields:
        """With fields of this request alone behind them. Raises ValueError where one would end its line."""
        return self._with(more, _lines(more))

    def _with(self, pairs: tuple[Field, ...], lines: bytes) -> Fields:
        both = Fields.__new__(Fields)
        both.pairs = self.pairs + pairs
        both.lines = self.lines + lines
        both._without, both._rest = (), None
        return both

    @overload
    def __getitem__(self, at: int) -> Field: ...
    @overload
    def __getitem__(self, at: slice) -> tuple[Field, ...]: ...
    def __getitem__(self, at: int | slice) -> Field | tuple[Field, ...]:
        return self.pairs[at]

    def __len__(self) -> int:
        return len(self.pairs)

    def __iter__(self) -> Iterator[Field]:
        return iter(self.pairs)


def _lines(pairs: tuple[Field, ...]) -> bytes:
    lines: list[bytes] = []
    for name, value in pairs:
        line = name + b": " + value
        # Readers of requests and of settings refuse such fields; here the last one would become another request.
        if _LF in line or _CR in line or _NUL in line:
            raise ValueError("a header field holds the end of a line")
        lines += (line, b"\r\n")
    return b"".join(lines)
