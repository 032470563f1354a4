"""Which calls are the same call? A `Permit` in; out the names under which its answer is kept, or none. Pure.

Two calls have one name if, and only if, nothing is different that the server can see, or that decides who may see the
answer: its material is a JSON text of all of it, written in one way only. Order of keys, blanks and escapes do not
count; types do (`1`, `1.0`, `"1"` and `true` are four values, and an absent member is not null); numbers are compared
digit for digit, however they are written; texts code point by code point.

Everything counts but what is known not to change answers: a request's id, and the lists below. A header or a member
of `_meta` that nobody has heard of may be what a gateway says of the user.
Source: server/utilities/caching of 2026-07-28; protocol facts of the revisions in `protocol/revisions`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from hashlib import sha256
from typing import Final, Literal, TypeAlias

import jiter
from msgspec import Struct

from ..model import TIMEOUT_HEADER, TIMEOUT_META_KEY, Headers, Keep, Permit, Principal
from ..protocol.canonical import written
from ..protocol.headers import HOP_BY_HOP
from ..protocol.jsonrpc import META_PREFIX, META_VERSION

FORMAT: Final = "mcp-sidecar key 2"
"""Begins all material. Another choice of what counts is another format."""

Share: TypeAlias = Literal["caller", "tenant", "all"]

META_NOT_COUNTED: Final = frozenset(
    {
        META_VERSION,  # the revision counts
        META_PREFIX + "clientInfo",  # "SHOULD NOT be relied upon": what a client calls itself
        META_PREFIX + "logLevel",  # calls that have it are not kept, like those with the next one
        TIMEOUT_META_KEY,  # how long this caller waits
        "progressToken",
        "traceparent",
        "tracestate",
        "baggage",
    }
)
_HEADERS_NOT_COUNTED: Final = frozenset(
    {
        *(name.decode() for name in HOP_BY_HOP),
        # About the message. What the client accepts does not count: all clients MUST accept JSON.
        *("accept", "accept-charset", "accept-encoding", "content-length", "content-type", "date", "expect"),
        *(
            "host",
            "origin",
            "priority",
            "referer",
            "save-data",
            "user-agent",
            "via",
            "cache-control",
            "pragma",
        ),
        # The same as in the body, which the reader has compared, or in the key as themselves.
        *("mcp-method", "mcp-name", "mcp-protocol-version", "mcp-session-id", "last-event-id"),
        TIMEOUT_HEADER,
        # Tracing.
        *("traceparent", "tracestate", "baggage", "b3", "sentry-trace", "uber-trace-id", "x-amzn-trace-id"),
        *("x-cloud-trace-context", "x-correlation-id", "x-request-id", "request-id"),
    }
)
_HEADERS_NOT_COUNTED_BEFORE: Final = ("sec-", "x-b3-", "x-datadog-", "x-envoy-")


_NOTHING: Final[Mapping[str, object]] = {}
_NONE: Final[Sequence[str]] = ()
_ALL: Final = _NONE, None
"""What `_counting` says of a rule by which everything counts."""

MOST_CALLERS: Final = 1_024
LONGEST_CALLER: Final = 1_024
"""Callers whose part of the material is remembered, and the bytes of one; issuers choose what is in a token."""


class Key(Struct, frozen=True):
    """A name under which an answer is kept."""

    material: bytes
    """All that counts, written in one way only. No header's value stands in it: one may be a credential."""
    digest: bytes
    """SHA-256 of it: where to look."""
    tenant: str
    """Whose answer it is; "" where it is shared by all."""


class Keys(Struct, frozen=True):
    """The names of one call, from the narrowest. Whoever looks asks for `own` first."""

    own: Key
    """For callers with this identity, these roles and these scopes."""
    shared: Key | None
    """For others too; None where nobody said so."""
    is_counted: bool
    """Nothing the server sees was left out because a rule says that it does not count. An answer to such a call may be
    anything the caller likes: it is never given to others."""


class Keying:
    """Makes the keys of calls under one policy and for one server."""

    def __init__(
        self,
        upstream: str,
        generation: str,
        *,
        stops: Callable[[bytes], bool] | None = None,
        ignore_headers: Iterable[str] = (),
    ) -> None:
        """`upstream` is the server's identity, its URL; `generation` names the policy. `stops` tells which headers
        (lower case) do not reach the server; without it none stops."""
        self._begin = FORMAT, upstream, generation
        self._stops = stops
        self._ignored = _HEADERS_NOT_COUNTED | {name.lower() for name in ignore_headers}
        self._note = object()
        self._callers: dict[tuple[object, ...], bytes] = {}

    def keys(
        self, permit: Permit, *, share: Share, keep: Keep | None = None, definition: str = ""
    ) -> Keys | None:
        """The names of a call. `definition` is the hash of the tool's definition. None where it cannot be written
        down, or would hold up other calls: such a call is not kept."""
        call, principal = permit.call, permit.principal
        body, params = call.body, call.params
        if len(body) > MAX_CHEAP_BYTES and _has_long_integers(body):
            return None
        meta: Mapping[str, object] = _NOTHING
        is_counted, any_session = True, False
        counting: tuple[Sequence[str], Sequence[str] | None] = _ALL
        if "_meta" in params:
            params, meta = _without_meta(params), _meta(params)
        if keep is not None:
            any_session = keep.any_session
            if keep.ignore or keep.only is not None:
                params, is_counted = _params(params, keep)
                counting = _counting(keep)
        headers: str | None = call.headers.notes.get(self._note)
        begin = self._begin
        try:
            if headers is None:
                headers = self._headers(call.headers)
                call.headers.note(self._note, headers)
            common = written(
                (
                    begin[0],
                    begin[1],
                    begin[2],
                    call.revision.name,
                    call.method,
                    params,
                    _NONE if _is_exact(body) else _exactly(body, keep, params),
                    meta,
                    definition,
                    None if any_session else call.session,
                    call.query,
                    headers,
                    # Two rules may count other arguments of one tool.
                    (permit.rule.id, any_session, *counting),
                )
            )
            own = self._caller(principal)
            tenant = principal.tenant
            if share == "caller":
                return Keys(_key(common + own, tenant), None, is_counted)
            owner = tenant if share == "tenant" else ""
            others = written([share, owner])
        except (ValueError, RecursionError):
            return None  # an integer of 5,000 digits, or nesting that nobody can write
        return Keys(_key(common + own, tenant), _key(common + others, owner), is_counted)

    def _caller(self, principal: Principal) -> bytes:
        """Who may have what is kept for one caller."""
        who = (*principal.identity, principal.roles, principal.scopes)
        known = self._callers.get(who)
        if known is None:
            known = written(
                ["caller", *principal.identity, sorted(principal.roles), sorted(principal.scopes)]
            )
            if len(known) <= LONGEST_CALLER:
                if len(self._callers) >= MOST_CALLERS:
                    self._callers.clear()
                self._callers[who] = known
        return known

    def _headers(self, headers: Headers) -> str:
        """A digest of the headers that reach the server and may change what it says; "" without any."""
        names = headers.names() - self._ignored
        if not names:
            return ""
        stops = self._stops
        counted = {
            name: list(headers.all(name))
            for name in names
            if not name.startswith(_HEADERS_NOT_COUNTED_BEFORE)
            and (stops is None or not stops(name.encode("latin-1")))
        }
        return sha256(written(counted)).hexdigest() if counted else ""


def _key(material: bytes, tenant: str) -> Key:
    return Key(material, sha256(material).digest(), tenant)


def _exactly(body: bytes, keep: Keep | None, params: Mapping[str, object]) -> list[str]:
    """The numbers with a fraction or an exponent, digit for digit, in the order in which the material names them, where
    the floats in `params` do not say all of them: 0.1 with 40 digits may be another number to the server. Raises
    ValueError where the body does not say."""
    floats = _numbers(params)
    if not floats:
        return []
    tree = jiter.from_json(body, float_mode="decimal")
    read = tree.get("params") if isinstance(tree, dict) else None
    if not isinstance(read, Mapping):
        raise ValueError("this is no request")
    read = _without_meta(read)
    exact = _numbers(read if keep is None else _params(read, keep)[0])
    return [] if exact == floats else exact


MAX_CHEAP_BYTES: Final = 65_536
MAX_CHEAP_DIGITS: Final = 500
"""Of an integer in a larger body. To write one down takes the square of its digits: 4 MiB of 4,200 each are 0.25 s."""


def _has_long_integers(body: bytes) -> bool:
    """Whether integers that long may stand in a body. Digits in texts count, too: rather no than a second look."""
    return b"0" * MAX_CHEAP_DIGITS in body.translate(_AS_NUMERALS)


_AS_NUMERALS: Final = bytes.maketrans(b"123456789.E", b"0000000000e")
_TOO_LONG: Final = b"0" * (sys.float_info.dig + 1)


def _is_exact(body: bytes) -> bool:
    """Whether no two numbers that could stand in a body are one float: decimals of at most 15 digits never are, but for
    those too small to be normal. Digits in texts count, too: rather no than a second reading."""
    numerals = body.translate(_AS_NUMERALS)
    # A single byte is looked for at a tenth of the cost of three.
    return not (_TOO_LONG in numerals or (b"-" in numerals and b"0e-" in numerals))


def _numbers(value: object) -> list[str]:
    """The numbers with a fraction or an exponent, members in the order of their names."""
    found: list[str] = []
    waiting: list[object] = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, Decimal | float):
            found.append(_digits(Decimal(repr(one)) if isinstance(one, float) else one))
        elif isinstance(one, dict):
            waiting.extend(one[name] for name in sorted(one, reverse=True))
        elif isinstance(one, list):
            waiting.extend(reversed(one))
    return found


def _digits(number: Decimal) -> str:
    """1.50 and 15e-1 are one number. Not Decimal.normalize, which rounds."""
    sign, digits, exponent = number.as_tuple()
    text = "".join(map(str, digits)).lstrip("0")
    kept = text.rstrip("0")
    if not kept or not isinstance(exponent, int):
        return f"{'-' if sign else ''}0"
    return f"{'-' if sign else ''}{kept}e{exponent + len(text) - len(kept)}"


def _without_meta(params: Mapping[str, object]) -> Mapping[str, object]:
    """The params, but for `_meta`."""
    left = dict(params)
    left.pop("_meta", None)
    return left


def _params(params: Mapping[str, object], keep: Keep) -> tuple[Mapping[str, object], bool]:
    """What a rule counts of the params; and whether that is all of it."""
    arguments = params.get("arguments")
    if not isinstance(arguments, dict):
        return params, True
    left = {
        name: value
        for name, value in arguments.items()
        if name not in keep.ignore and (keep.only is None or name in keep.only)
    }
    return {**params, "arguments": left}, len(left) == len(arguments)


def _meta(params: Mapping[str, object]) -> Mapping[str, object]:
    meta = params.get("_meta")
    if not isinstance(meta, dict):
        return _NOTHING
    return {name: value for name, value in meta.items() if name not in META_NOT_COUNTED}


def _counting(keep: Keep) -> tuple[Sequence[str], Sequence[str] | None]:
    """Which arguments a rule counts: those it ignores, and the only ones."""
    return sorted(keep.ignore), None if keep.only is None else sorted(keep.only)
