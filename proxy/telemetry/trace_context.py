"""To which trace does a call belong, by what its caller says? W3C Trace Context and Baggage, read strictly.

In: a `Call`. Out: a `Received`. Keeps nothing. Garbage is ignored and never an error: a call is worth more than its
trace. Which carrier counts is the rule of OpenTelemetry's MCP page: the context of the message (`params._meta`) is the
parent where it is valid, and that of HTTP is linked; else HTTP's is the parent.
Sources: W3C Trace Context levels 1 and 2, W3C Baggage, SEP-414, semantic-conventions-genai docs/gen-ai/mcp.md.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from ..model import Call

SAMPLED: Final = 1
RANDOM: Final = 2
"""Flag of level 2: the id's lower bits are random, so that a share of traces can be told from them."""
MAX_STATE_BYTES: Final = 512
MAX_STATE_MEMBERS: Final = 32
LONG_MEMBER_BYTES: Final = 128
"""Of tracestate: longer members go first (Trace Context 3.3.1.5)."""
MAX_BAGGAGE_BYTES: Final = 8_192

# Of version 00 nothing may follow; of later ones something may, behind a dash (3.2.4).
_PARENT: Final = re.compile(
    r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-[!-~]{0,200})?",
    re.ASCII,
)
_STATE_MEMBER: Final = re.compile(
    r"(?:[a-z][_0-9a-z*/-]{0,255}|[a-z0-9][_0-9a-z*/-]{0,240}@[a-z][_0-9a-z*/-]{0,13})"
    r"=[ -+\--<>-~]{0,255}[!-+\--<>-~]",
    re.ASCII,
)
_BAGGAGE: Final = re.compile(r"[\t -~]*", re.ASCII)


class Remote(NamedTuple):
    """A span of somebody else."""

    trace_id: str
    """32 hexadecimal digits, in lower case, and not all zero."""
    span_id: str
    """16 of them, likewise."""
    flags: int
    """Those that are defined: `SAMPLED`, `RANDOM`."""


class Received(NamedTuple):
    """What a call came with."""

    parent: Remote | None = None
    linked: Remote | None = None
    """The context of HTTP, where that of the message is the parent and another one."""
    state: str = ""
    """The parent's tracestate."""
    baggage: str = ""


NOTHING: Final = Received()


def received(call: Call) -> Received:
    """What the caller says of its trace."""
    headers, meta = call.headers, call.params.get("_meta")
    names = headers.names()
    of_http = read_traceparent(_only(headers.all("traceparent"))) if "traceparent" in names else None
    baggage = headers.all("baggage") if "baggage" in names else ()
    parent = read_traceparent(meta.get("traceparent")) if isinstance(meta, dict) else None
    if parent is not None:
        assert isinstance(meta, dict)
        linked = None if of_http is None or of_http[:2] == parent[:2] else of_http
        state, own = meta.get("tracestate"), meta.get("baggage")
        given = (own,) if isinstance(own, str) and own else baggage
        return Received(
            parent,
            linked,
            read_tracestate((state,)) if state is not None else "",
            read_baggage(given) if given else "",
        )
    if of_http is not None:
        state = read_tracestate(headers.all("tracestate")) if "tracestate" in names else ""
        return Received(of_http, None, state, read_baggage(baggage) if baggage else "")
    return Received(baggage=read_baggage(baggage)) if baggage else NOTHING


def trace_id_of(call: Call) -> str | None:
    """The trace its caller says a call belongs to; for lines about errors where no traces are kept."""
    parent = received(call).parent
    return None if parent is None else parent.trace_id


def read_traceparent(text: object) -> Remote | None:
    """The context in a `traceparent`; None where it is not valid."""
    if not isinstance(text, str):
        return None
    found = _PARENT.fullmatch(text)
    if found is None or (found[5] is not None and found[1] == "00"):
        return None
    return Remote(found[2], found[3], int(found[4], 16) & (SAMPLED | RANDOM))


def write_traceparent(trace_id: str, span_id: str, flags: int) -> bytes:
    """A `traceparent` of version 00."""
    return f"00-{trace_id}-{span_id}-0{flags}".encode()


def read_tracestate(values: Sequence[object]) -> str:
    """The `tracestate` of one or more fields, in bounds: whole members, the most recent first. Empty where one of them
    is not well-formed, or comes twice (3.3.1.3: then none of it may be passed on)."""
    members: dict[str, str] = {}
    for value in values:
        if not isinstance(value, str):
            return ""
        for text in value.split(","):
            member = text.strip(" \t")
            if not member:
                continue
            key = member.partition("=")[0]
            if key in members or not _STATE_MEMBER.fullmatch(member):
                return ""
            members[key] = member
    return _in_bounds(list(members.values()))


def _in_bounds(members: list[str]) -> str:
    del members[MAX_STATE_MEMBERS:]
    size = sum(map(len, members)) + len(members) - 1
    for is_long in (True, False):
        for index in range(len(members) - 1, -1, -1):
            if size <= MAX_STATE_BYTES:
                break
            if not is_long or len(members[index]) > LONG_MEMBER_BYTES:
                size -= len(members.pop(index)) + 1
    return ",".join(members)


def read_baggage(values: Sequence[object]) -> str:
    """The `baggage` of one or more fields, in bounds: whole members, the first first. Empty where it holds what no
    header field may."""
    texts = [value for value in values if isinstance(value, str)]
    if not all(map(_BAGGAGE.fullmatch, texts)):
        return ""
    text = ",".join(texts)
    if len(text) > MAX_BAGGAGE_BYTES:
        # As far as it fits: what is cut in two would say something else.
        text = (
            text[: text.rfind(",", 0, MAX_BAGGAGE_BYTES + 1)] if "," in text[: MAX_BAGGAGE_BYTES + 1] else ""
        )
    return text.strip(" \t")


def _only(values: Sequence[str]) -> str | None:
    """Of two traceparents nobody knows which is meant."""
    return values[0] if len(values) == 1 else None
