"""Clauses of the config outcomes: what a start with a bad file must do."""

import re

from tests.corpus.checks.common import Check
from tests.corpus.evidence import Evidence

SPARE_RSS_BYTES = 16 << 20
"""A refused file may cost no more memory than this over a good one."""


def refused_with_place(e: Evidence) -> str | None:
    """Exit 2, and a message with file, line and a key of the file, at no great cost."""
    for run in e.runs:
        if run.exit_code != 2:
            return f"{run.command} ended with {run.exit_code}"
        place = re.escape(run.file) + (r":\d+" if run.has_lines else "")
        if not re.search(place, run.output):
            return f"{run.command} names no {'file:line' if run.has_lines else 'file'}: {run.output[-200:]!r}"
        if run.keys and not any(re.search(rf"(?<!\w){re.escape(key)}(?!\w)", run.output) for key in run.keys):
            return f"{run.command} names none of {run.keys}: {run.output[-200:]!r}"
        if run.peak_rss_growth_bytes > SPARE_RSS_BYTES:
            return f"{run.command} grew by {run.peak_rss_growth_bytes >> 20} MB"
    return None if e.runs else "nothing was started"


def ends_in_time(e: Evidence) -> str | None:
    """No pattern of the file keeps the process busy."""
    for run in e.runs:
        if run.exit_code is None:
            return f"{run.command} had not ended"
    return None if e.runs else "nothing was started"


def refused_or_warned(e: Evidence) -> str | None:
    """A secret in clear is refused, or at least said."""
    for run in e.runs:
        if run.exit_code != 2 and not re.search(r"(?i)warn", run.output):
            return f"{run.command} took it without a word"
    return None if e.runs else "nothing was started"


def secret_not_printed(e: Evidence) -> str | None:
    """The message does not show the value."""
    for run in e.runs:
        if run.secret is None:
            return "the file holds no secret to look for"
        if run.secret in run.output:
            return f"{run.command} printed it"
    return None if e.runs else "nothing was started"


TABLE: dict[str, Check] = {
    "start: exit 2 with file:line and key": Check(refused_with_place),
    "or linear-time engine": Check(ends_in_time),
    "startup refused unless allowed": Check(refused_with_place),
    "refused or warned": Check(refused_or_warned),
    "never printed": Check(secret_not_printed),
}
