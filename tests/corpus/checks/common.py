"""What a checker is, and what several of them ask."""

import re
from collections.abc import Callable
from typing import Any

from msgspec import Struct

from tests.corpus.evidence import Evidence
from tests.corpus.wire import Message

Judge = Callable[[Evidence], str | None]


class Check(Struct, frozen=True):
    """A judgement, and whether it rests on a measurement that a busy machine can spoil."""

    judge: Judge
    measured: bool = False
    """True: a red result is tried again, at most twice; the best one counts."""


Pattern = tuple[re.Pattern[str], Callable[[re.Match[str]], Check]]


def nothing_forwarded(e: Evidence) -> str | None:
    """Not one byte of the case reached upstream."""
    if e.upstream_bytes:
        return f"upstream received {len(e.upstream_bytes)} bytes: {e.upstream_bytes[:60]!r}…"
    return None


def not_accepted(e: Evidence) -> str | None:
    """Neither forwarded nor answered with success."""
    if e.status is not None and 200 <= e.status < 300 and e.form == "http":
        return f"answered {e.status}"
    return nothing_forwarded(e)


def never_upstream(word: bytes) -> Judge:
    """A judge that finds `word` in what upstream received."""

    def judge(e: Evidence) -> str | None:
        return f"upstream received {word!r}" if word in e.upstream_bytes else None

    return judge


def no_status(code: int) -> Judge:
    """A judge that finds an answer, interim or final, with this status."""

    def judge(e: Evidence) -> str | None:
        return f"answered {code}" if any(one.status == code for one in (*e.interim, *e.answers)) else None

    return judge


def bytes_unchanged(e: Evidence) -> str | None:
    """What upstream got is what the client sent, byte for byte."""
    bodies = [request.body for request in e.upstream]
    if bodies != [e.sent_body]:
        return f"upstream received {len(bodies)} bodies, {[body[:120] for body in bodies]!r}"
    return None


def header_lines(message: Message) -> set[bytes]:
    """Names of a message's fields, lower case."""
    return {name.lower() for name, _ in message.fields}


def not_in_log(sample: bytes, what: str, e: Evidence) -> str | None:
    """`sample` stands neither in the log nor in the metrics."""
    if sample and sample in e.log:
        return f"{what} is in the log"
    if sample and sample in (e.metrics or b""):
        return f"{what} is in the metrics"
    return None


def sent_document(e: Evidence) -> Any:
    """The first request's content as JSON, None when it is none."""
    try:
        return Message(start=b"", fields=(), body=e.sent_body, raw=b"").json
    except (RecursionError, ValueError):
        return None
