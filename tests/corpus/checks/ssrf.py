"""Sentences of ssrf: a URL that leads where it must not goes nowhere, however it is written and wherever it stands."""

from tests.corpus.checks.common import Check, nothing_forwarded

TABLE: dict[str, Check] = {
    "upstream sees the URL": Check(nothing_forwarded),
    'only top-level "url" checked': Check(nothing_forwarded),
    # Names are not resolved here: one that is not listed is refused, so there is no address to change.
    "address checked once, resolved again": Check(nothing_forwarded),
}
