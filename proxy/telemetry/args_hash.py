"""Were the arguments of two calls the same? A keyed hash of them, for whoever keeps records of calls and no arguments.

In: a journey that policy let pass, or that has ended. Out: 16 hexadecimal digits in its `args_hash`: HMAC-SHA-256 (RFC
2104) of the canonical arguments, cut to 64 bits. Keeps the key, which is random for each process unless it is
configured: without it nobody can try short secrets until one fits.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Final

from ..protocol.canonical import written
from .journey import Record
from .keyed import Keyed

DIGITS: Final = 16
KEY_BYTES: Final = 32


class ArgsHash:
    """A sink, for `Observers.permitted` and `Observers.ended`."""

    def __init__(self, key: bytes | None = None) -> None:
        self._keyed = Keyed(key or secrets.token_bytes(KEY_BYTES))

    def of(self, arguments: Mapping[str, object]) -> str:
        """Raises ValueError or TypeError for what is no JSON."""
        return self._keyed(written(arguments))[:DIGITS]

    def __call__(self, record: Record) -> None:
        """Once a call: what has been forwarded may be without its arguments later."""
        call = record.call
        if record.args_hash is None and call is not None and call.method == "tools/call":
            record.args_hash = self.of(call.arguments)
