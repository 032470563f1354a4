"""Which bytes stand for a JSON value, however it was written? For digests that must not depend on spelling.

In: a value as one of the readers gives it. Out: bytes, the same for equal values and for no others. Keeps nothing.
Order of keys, blanks and escapes do not count; types do: `1`, `1.0`, `"1"` and `true` are four values. Numbers with
a fraction or an exponent are compared as doubles, which is how they are read. Not RFC 8785: that makes `1` and `1.0`
one.
"""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Final

import msgspec

# The depth was bounded by whoever read the value, and what is read has no cycles.
_ENCODER: Final = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False, check_circular=False
)
_SORTED: Final = msgspec.json.Encoder(order="sorted")


def canonical(value: object) -> bytes:
    """The bytes: JSON, but for lone surrogates, which stay apart from everything else. Keys are texts, as readers
    give them. Raises ValueError or TypeError for NaN, infinities and what is no JSON value."""
    return _ENCODER.encode(value).encode("utf-8", "surrogatepass")


def written(value: object) -> bytes:
    """Other bytes with the same promise, within one process and version, for an eighth of the cost: lone surrogates
    alone are written as above, and no text of this one is the same. Of what was read strictly: it has no NaN, which
    would be written as null. Raises ValueError (an integer of 5,000 digits) or RecursionError."""
    try:
        return _SORTED.encode(value)
    except UnicodeEncodeError:
        return canonical(value)


def digest(value: object) -> bytes:
    """SHA-256 of the canonical bytes."""
    return sha256(canonical(value)).digest()
