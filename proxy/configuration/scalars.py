"""What is an unquoted word? Text → text, number, boolean or null by the YAML 1.2 core rules. Pure.

Where YAML 1.1 would have read something else, nobody knows which reading the author had in mind: Unfit.
Sources: YAML 1.2.2 section 10.3.2 (core schema); yaml.org/type (bool, int, float, timestamp, merge of 1.1).
"""

import re
from math import isfinite
from typing import Final

from .mistakes import Unfit

MOST_DIGITS: Final = 40

_NULL: Final = frozenset(("", "~", "null", "Null", "NULL"))
_TRUE: Final = frozenset(("true", "True", "TRUE"))
_FALSE: Final = frozenset(("false", "False", "FALSE"))
_OLD_BOOLEAN: Final = re.compile(r"[yYnN]|[yY]es|YES|[nN]o|NO|[oO]n|ON|[oO]ff|OFF", re.ASCII)
_INT: Final = re.compile(r"[-+]?(?:0|[1-9][0-9]*)|0o[0-7]+|0x[0-9a-fA-F]+", re.ASCII)
_FLOAT: Final = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", re.ASCII)
_NOT_FINITE: Final = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", re.ASCII)
_LEADING_ZERO: Final = re.compile(r"[-+]?0[0-9_]+", re.ASCII)
_UNDERSCORED: Final = re.compile(
    r"[-+]?(?=[^_]*_)(?:[0-9][0-9_]*(?:\.[0-9_]*)?(?:[eE][-+]?[0-9]+)?|\.[0-9_]+|0x[0-9a-fA-F_]+)", re.ASCII
)
_BINARY: Final = re.compile(r"[-+]?0b[01_]+", re.ASCII)
_SIGNED_HEX: Final = re.compile(r"[-+]0[xo][0-9a-fA-F]+", re.ASCII)
_BASE_60: Final = re.compile(r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?", re.ASCII)
_TIMESTAMP: Final = re.compile(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:[Tt \t][0-9:. \tZz+-]*)?", re.ASCII)

# Tried in this order; every one is read differently by YAML 1.1 and 1.2 readers.
_OLD_READINGS: Final = (
    (_OLD_BOOLEAN, "is a boolean to YAML 1.1 readers and text to others", "quote it, or write true or false"),
    (
        _LEADING_ZERO,
        "is octal to YAML 1.1 readers and decimal to others",
        "quote it, or remove the leading zero",
    ),
    (
        _UNDERSCORED,
        "is a number to YAML 1.1 readers and text to others",
        "quote it, or remove the underscores",
    ),
    (
        _BINARY,
        "is a binary number to YAML 1.1 readers and text to others",
        "quote it, or write it in decimal",
    ),
    (_SIGNED_HEX, "is a number to some YAML readers and text to others", "quote it, or write it in decimal"),
    (_BASE_60, "is a number in base 60 to YAML 1.1 readers and text to others", "quote it"),
    (_TIMESTAMP, "is a date to YAML 1.1 readers and text to others", "quote it"),
)


def plain_value(text: str) -> str | int | float | bool | None:
    """The value of an unquoted scalar. Raises Unfit where readers disagree or no number can hold it."""
    if text in _NULL:
        return None
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    if text in ("<<", "="):
        raise Unfit("is a merge key", "they are refused, like aliases", "write the keys out, or quote it")
    for pattern, why, remedy in _OLD_READINGS:
        if pattern.fullmatch(text):
            raise Unfit("can be read two ways", f"unquoted it {why}", remedy)
    if _NOT_FINITE.fullmatch(text):
        raise Unfit("is not a finite number", "every limit has an end", "quote it, or write a number")
    if _INT.fullmatch(text):
        _check_length(text)
        return int(text, 0)
    if _FLOAT.fullmatch(text):
        _check_length(text)
        value = float(text)
        if not isfinite(value):
            raise Unfit("is not a finite number", "it is too large to be held", "quote it, or write less")
        return value
    return text


def _check_length(text: str) -> None:
    if len(text) > MOST_DIGITS:
        raise Unfit(
            "is too long a number", f"at most {MOST_DIGITS} characters are read", "quote it, or shorten it"
        )
