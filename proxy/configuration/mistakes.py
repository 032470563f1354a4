"""What is wrong with the settings, and where? The words every other file here reports with.

No message ever holds a value from the settings: a position finds it, and a secret written into the wrong line
must not reach a log. Names (keys, variables, files) are shown, made harmless for a terminal.
"""

from collections.abc import Iterable

from msgspec import Struct

SHOWN_CHARACTERS = 60


class Position(Struct, frozen=True):
    """A place to look: a file with line and column (both from 1), or an override, which has neither."""

    source: str
    line: int | None = None
    column: int | None = None


class Unfit(ValueError):
    """A value does not fit: what is wrong, why it matters, and the remedy. Holds no value.

    `key` names the entry of a mapping or the item of a list that is meant, where the whole of it was judged.
    """

    def __init__(self, what: str, why: str, remedy: str, *, key: str | int | None = None) -> None:
        super().__init__(f"{what}, {why}, {remedy}")
        self.what = what
        self.why = why
        self.remedy = remedy
        self.key = key


class Mistake(Struct, frozen=True):
    """One thing to put right, on one line: `file:line:column: path: what, why, remedy`."""

    file: str
    line: int | None
    column: int | None
    path: str
    what: str
    why: str
    remedy: str

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.file, self.line, self.column) if part is not None)
        path = f"{self.path}: " if self.path else ""
        return f"{place}: {path}{self.what}, {self.why}, {self.remedy}"


class SettingsError(Exception):
    """The settings cannot be used. Holds every mistake, in file order, then those of overrides."""

    def __init__(self, mistakes: tuple[Mistake, ...]) -> None:
        super().__init__(mistakes)
        self.mistakes = mistakes

    def __str__(self) -> str:
        return "\n".join(str(mistake) for mistake in self.mistakes)


class Report:
    """Collects mistakes while reading goes on, and remembers where each path was written."""

    def __init__(self) -> None:
        self._mistakes: list[Mistake] = []
        self._places: dict[str, Position] = {}

    def add(self, at: Position, path: str, what: str, why: str, remedy: str) -> None:
        self._mistakes.append(Mistake(at.source, at.line, at.column, path, what, why, remedy))

    def add_unfit(self, at: Position, path: str, unfit: Unfit) -> None:
        self.add(at, path, unfit.what, unfit.why, unfit.remedy)

    def remember(self, path: str, at: Position) -> None:
        self._places[path] = at

    def place_of(self, path: str) -> Position:
        """Where `path` was written, or, if it is a default, the nearest section around it."""
        while path not in self._places and path:
            path = path.rpartition(".")[0]
        return self._places[path]

    @property
    def has_mistakes(self) -> bool:
        return bool(self._mistakes)

    @property
    def mistakes(self) -> tuple[Mistake, ...]:
        """In file order; overrides, which have no line, follow in the order they were read."""
        return tuple(sorted(self._mistakes, key=lambda it: (it.line is None, it.line or 0, it.column or 0)))


def shown(name: str, longest: int = SHOWN_CHARACTERS) -> str:
    """A name as a harmless piece of a line: bounded, no control, bidi or lone surrogate characters."""
    short = name if len(name) <= longest else name[:longest] + "…"
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in short)


def joined(path: str, name: str) -> str:
    """The path of `name` inside `path`; a name that would be misread as a path is quoted."""
    plain = name.replace("-", "").replace("_", "").isalnum()
    step = shown(name) if plain else f'"{shown(name)}"'
    return f"{path}.{step}" if path else step


def did_you_mean(name: str, known: Iterable[str], prefix: str = "") -> str:
    """The remedy for an unknown name: the nearest known one, else all of them. Shows known names only.

    `prefix` begins all of them, and would make any two look alike.
    """
    from difflib import get_close_matches  # only on the way to an error: it costs milliseconds to import

    names = list(known)
    by_lower = {one.removeprefix(prefix).lower(): one for one in names}
    near = get_close_matches(name.removeprefix(prefix)[:SHOWN_CHARACTERS].lower(), by_lower, n=1, cutoff=0.6)
    if near:
        return f'did you mean "{by_lower[near[0]]}"?'
    return "known here: " + ", ".join(names)
