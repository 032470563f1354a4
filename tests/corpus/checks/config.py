"""Clauses of the config outcomes: what a start with a bad file must do."""

import re

from tests.corpus.checks.common import Check
from tests.corpus.evidence import ConfigReload, ConfigRun, Evidence

SPARE_RSS_BYTES = 16 << 20
"""A refused file may cost no more memory than this over a good one."""


def refused_with_place(e: Evidence) -> str | None:
    """Exit 2, and a message with file, line and a key of the file, at no great cost."""
    for run in e.runs:
        if run.exit_code != 2:
            return f"{run.command} ended with {run.exit_code}"
        if said := names_place(run, run.output):
            return f"{run.command} {said}"
        if run.peak_rss_growth_bytes > SPARE_RSS_BYTES:
            return f"{run.command} grew by {run.peak_rss_growth_bytes >> 20} MB"
    return None if e.runs else "nothing was started"


def names_place(of: ConfigRun | ConfigReload, output: str) -> str | None:
    """File, line and a key of the file, in what was said about it."""
    place = re.escape(of.file) + (r":\d+" if of.has_lines else "")
    if not re.search(place, output):
        return f"names no {'file:line' if of.has_lines else 'file'}: {output[-200:]!r}"
    if of.keys and not any(re.search(rf"(?<!\w){re.escape(key)}(?!\w)", output) for key in of.keys):
        return f"names none of {of.keys}: {output[-200:]!r}"
    return None


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
    """The message does not show the value, neither at a start nor in a process that runs."""
    said = [(run.command, run.secret, run.output) for run in e.runs]
    said += [("a reload", each.secret, each.printed) for each in e.reloads]
    for what, secret, output in said:
        if secret is None:
            return "the file holds no secret to look for"
        if secret in output:
            return f"{what} printed it"
    return None if e.runs and e.reloads else "it was not started, or not reloaded"


TABLE: dict[str, Check] = {
    "start: exit 2 with file:line and key": Check(refused_with_place),
    "or linear-time engine": Check(ends_in_time),
    "startup refused unless allowed": Check(refused_with_place),
    "refused or warned": Check(refused_or_warned),
    "never printed": Check(secret_not_printed),
}
