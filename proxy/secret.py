"""How is a credential kept from being seen? Text goes in once; only `reveal` gives it out again."""

from _operator import _compare_digest
from typing import Final, NoReturn

_CREDENTIAL_NAMES: Final = ("authorization", "cookie", "key", "token", "secret", "password")


class Secret:
    """A text that no log line, message, traceback, JSON or pickle shows by accident."""

    __slots__ = ("_text",)

    _text: str

    def __init__(self, text: str) -> None:
        object.__setattr__(self, "_text", text)

    def reveal(self) -> str:
        """The text itself, for the one place that sends or compares it."""
        return self._text

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


def names_a_credential(name: str) -> bool:
    """Whether a header or field of this name usually holds a credential, so that clear text is refused."""
    lower = name.lower()
    return any(part in lower for part in _CREDENTIAL_NAMES)
