"""Is this text a SPIFFE ID, and of which trust domain? Pure.

Source: the SPIFFE ID specification, section 2: one spelling for each ID, so that comparing texts is comparing IDs.
"""

from __future__ import annotations

import re
from typing import Final

SCHEME: Final = "spiffe://"
MAX_CHARACTERS: Final = 2048

_ID: Final = re.compile(r"spiffe://([a-z0-9._-]{1,255})(?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._-]+)*", re.ASCII)


def trust_domain_of(text: str) -> str | None:
    """The trust domain of a SPIFFE ID; None for anything that is none, or another spelling of one."""
    found = _ID.fullmatch(text) if len(text) <= MAX_CHARACTERS else None
    return None if found is None else found[1]


def fits(id: str, pattern: str) -> bool:
    """Whether an ID is the one of the pattern, or, where the pattern ends in `/*`, lies below it: one segment or
    more. The ID must be one; nothing of it is compared but whole segments."""
    return id.startswith(pattern[:-1]) if pattern.endswith("/*") else id == pattern
