"""One function per sentence of the corpus: Evidence → None when it is honoured, else what was seen instead.

`find` looks a sentence up, first literally, then among the patterns (numbers and quoted words vary).
A sentence nobody wrote a checker for is not found, and the case that holds it fails: it is never passed over.
"""

from tests.corpus.checks import auth, config, http, kept, limits, poisoning, rpc, sessions, ssrf
from tests.corpus.checks.common import Check, Judge, Pattern

TABLE: dict[str, Check] = {
    **http.TABLE,
    **rpc.TABLE,
    **config.TABLE,
    **auth.TABLE,
    **sessions.TABLE,
    **ssrf.TABLE,
    **poisoning.TABLE,
    **limits.TABLE,
    **kept.TABLE,
}
PATTERNS: tuple[Pattern, ...] = (*http.PATTERNS, *rpc.PATTERNS, *poisoning.PATTERNS)


def find(text: str) -> Check | None:
    """The checker for a sentence, or None."""
    if text in TABLE:
        return TABLE[text]
    for pattern, build in PATTERNS:
        if match := pattern.fullmatch(text):
            return build(match)
    return None


__all__ = ["PATTERNS", "TABLE", "Check", "Judge", "find"]
