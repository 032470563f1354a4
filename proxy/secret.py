"""How is a credential kept from being seen? Text goes in once; only `reveal` gives it out again.

A credential that lies in files can be read from them again: `renewed`. Whoever writes asks `living` which texts must
not be in what it writes.
"""

from _operator import _compare_digest
from collections.abc import Callable
from itertools import count
from typing import Final, NoReturn, Protocol, TypeAlias
from weakref import WeakValueDictionary

_CREDENTIAL_NAMES: Final = ("authorization", "cookie", "key", "token", "secret", "password")


class Source(Protocol):
    """Where a secret comes from."""

    @property
    def files(self) -> tuple[str, ...]: ...

    def read(self) -> str:
        """What is there now. Raises Unfit. IO: reads `files`."""
        ...


Check: TypeAlias = Callable[["Secret"], object]
"""Raises Unfit for a secret that cannot be used."""


class Secret:
    """A text that no log line, message, traceback, JSON or pickle shows by accident.

    Two secrets are equal when their texts are, wherever they come from.
    """

    __slots__ = ("__weakref__", "_checks", "_source", "_text")

    _text: str
    _source: Source | None
    _checks: tuple[Check, ...]

    def __init__(self, text: str, source: Source | None = None, checks: tuple[Check, ...] = ()) -> None:
        object.__setattr__(self, "_text", text)
        object.__setattr__(self, "_source", source)
        object.__setattr__(self, "_checks", checks)
        _register.add(self)

    def reveal(self) -> str:
        """The text itself, for the one place that sends or compares it."""
        return self._text

    @property
    def files(self) -> tuple[str, ...]:
        """The absolute paths of the files it was read from, each once; none where it never changes."""
        return () if self._source is None else self._source.files

    def renewed(self) -> "Secret":
        """What the files hold now. Raises Unfit when they cannot be read, or hold what does not fit.

        Reads files: small ones, but not for every call.
        """
        if self._source is None:
            return self
        now = Secret(self._source.read(), self._source, self._checks)
        for check in self._checks:
            check(now)
        return now

    def checked(self, check: Check) -> "Secret":
        """The same secret, found fit by `check`; whatever it is renewed to must be, too."""
        check(self)
        return Secret(self._text, self._source, (*self._checks, check))

    def __repr__(self) -> str:
        return "Secret(…)"

    __str__ = __repr__

    def __format__(self, specification: str) -> str:
        return repr(self)

    def __eq__(self, other: object) -> bool:
        """Compare in a time that depends on the lengths only."""
        if not isinstance(other, Secret):
            return NotImplemented
        return _compare_digest(
            self._text.encode("utf-8", "surrogatepass"), other._text.encode("utf-8", "surrogatepass")
        )

    def __hash__(self) -> int:
        return hash(("Secret", self._text))

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a Secret never changes")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("a Secret never changes")

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a Secret is not written anywhere")

    def __getstate__(self) -> NoReturn:
        raise TypeError("a Secret is not written anywhere")

    def __copy__(self) -> "Secret":
        return self

    def __deepcopy__(self, memo: object) -> "Secret":
        return self


class _Register:
    """Which secrets there are."""

    def __init__(self) -> None:
        self._count = count(1)
        self.made = 0
        """The number of the last one."""
        self.living: WeakValueDictionary[int, Secret] = WeakValueDictionary()
        """Each under a number of its own: equal ones are kept apart, because one of them may go before the other."""

    def add(self, secret: Secret) -> None:
        """From any thread: a reload reads settings in one."""
        number = next(self._count)
        self.living[number] = secret
        self.made = number  # at last: whoever sees another number finds the secret


_register: Final = _Register()


def living() -> list[Secret]:
    """Every secret that somebody holds: those of the settings in force, and those that were renewed."""
    # All references at once: `values` walks, and other threads make secrets meanwhile.
    return [secret for each in _register.living.valuerefs() if (secret := each()) is not None]


def made() -> int:
    """The number of the last secret that was made: changes when there is another one."""
    return _register.made


def names_a_credential(name: str) -> bool:
    """Whether a header or field of this name usually holds a credential, so that clear text is refused."""
    lower = name.lower()
    return any(part in lower for part in _CREDENTIAL_NAMES)
