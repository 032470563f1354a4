"""One function per sentence of the corpus: Evidence → None when it is honoured, else what was seen instead.

`find` looks a sentence up, first literally, then among the patterns (numbers and quoted words vary).
A sentence nobody wrote a checker for is not found, and the case that holds it fails: it is never passed over.
"""

from tests.corpus.checks import (
    auth,
    config,
    http,
    kept,
    limits,
    poisoning,
    reloads,
    rpc,
    sessions,
    ssrf,
    telemetry,
    upstream,
)
from tests.corpus.checks.common import Check, Judge, Pattern

TABLES = tuple(
    room.TABLE
    for room in (
        http,
        rpc,
        config,
        reloads,
        auth,
        sessions,
        ssrf,
        poisoning,
        limits,
        kept,
        upstream,
        telemetry,
    )
)
"""No sentence is in two of them: the cases with it would be judged by one."""
TABLE: dict[str, Check] = {text: check for table in TABLES for text, check in table.items()}
PATTERNS: tuple[Pattern, ...] = (*http.PATTERNS, *rpc.PATTERNS, *poisoning.PATTERNS)


def find(text: str) -> Check | None:
    """The checker for a sentence, or None."""
    if text in TABLE:
        return TABLE[text]
    for pattern, build in PATTERNS:
        if match := pattern.fullmatch(text):
            return build(match)
    return None


__all__ = ["PATTERNS", "TABLE", "TABLES", "Check", "Judge", "find"]
