"""Did a credential leave the sidecar anywhere in this run? What was issued, and all that was seen.

Fakes that issue credentials tell `secret`; whatever a sidecar logs, answers or sends to its server is shown to
`look`. tests/conftest.py fails the whole run when one was found in the other. In: texts and bytes. Keeps secrets of
this process, and where they were found; never shows one.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Final

SHORTEST: Final = 16
"""Characters of what is no coincidence."""
_WORD: Final = re.compile(rb"[A-Za-z0-9_-]{%d,}" % SHORTEST)

_secrets: dict[bytes, str] = {}
found: list[str] = []
"""Where something was seen, and of what kind it was."""
looked: Counter[str] = Counter()
"""Bytes looked through, by where they were seen."""


def secret(text: str, kind: str) -> str:
    """Remember a token, a key or a password; of a JWT its claims and its signature, whose header is no secret."""
    parts = text.split(".")
    for part in parts[1:] if len(parts) > 1 else parts:
        for word in _WORD.findall(part.encode("utf-8", "surrogatepass")):
            _secrets[word] = kind
    return text


def look(where: str, data: bytes) -> None:
    """Look for every secret in what a sidecar let out."""
    looked[where] += len(data)
    for word in _WORD.findall(data):
        if word in _secrets:
            found.append(f"{_secrets[word]} in {where}")


def forget(text: str) -> None:
    """It is to be seen from now on: somebody forwards it on purpose."""
    for word in _WORD.findall(text.encode()):
        _secrets.pop(word, None)
