"""Whose bucket is it? Names → the key of a bucket. Pure.

A key is printable ASCII, of bounded length, and different for different holders; what is long is hashed. Spellings of
one name share a bucket: names come folded (configuration/folding.py).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Final

LONGEST: Final = 120
"""Characters of the readable part."""

_ODD: Final = re.compile(rb"[^A-Za-z0-9._~@:+=,-]", re.ASCII)


def key_of(limit: str, parts: Sequence[str]) -> str:
    """The key of the bucket that a limit, whose name is plain, has for these folded values."""
    readable = "/".join(map(_escaped, parts))
    if len(readable) <= LONGEST:
        return f"{limit}/{readable}"
    # No readable part holds a #. SHA-256: callers choose some names, and must not find two with one key.
    return f"{limit}/#{hashlib.sha256(readable.encode('ascii')).hexdigest()}"


def _escaped(part: str) -> str:
    encoded = part.encode("utf-8", "surrogatepass")
    return _ODD.sub(lambda match: b"%%%02X" % ord(match[0]), encoded).decode("ascii")
