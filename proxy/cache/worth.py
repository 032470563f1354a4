"""May this call be answered from here, and may this answer be kept: how long, and for whom? Pure; time is given.

In: a `Permit`, later the status, headers and bytes of the answer to it. Out: `Asked`, later an `Entry` under its `Key`;
None for everything that is not certain to be safe. Keeps nothing.

Only what an operator's rule says of a tool that reads (annotations of a server never do), and what a server of
2026-07-28 says of its lists and resources. Where several say something, the narrowest holds: a server can shorten what
a rule allows, and make it private, and never more.
Source: server/utilities/caching and basic/patterns/mrtr of 2026-07-28; RFC 9111 section 5.2 for Cache-Control.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Final, Literal, TypeAlias

from msgspec import Struct

from ..model import Headers, Keep, Kind, Permit, RequestId
from ..protocol.headers import media_type
from ..protocol.jsonrpc import META_PREFIX
from ..protocol.splice import members
from ..protocol.sse import Splitter, TooLong
from .entry import ERROR_STATUS, ONCE_ONLY_META, Entry, Places, looked_at, places_of, written
from .key import Key, Keying, Keys, Share
from .settings import CacheSettings

LISTS: Final = frozenset({"tools/list", "prompts/list", "resources/list", "resources/templates/list"})
HINTED: Final = LISTS | {"server/discover", "resources/read"}
"""The methods whose results say how long they are good."""
_NOT_FOUND: Final = (b"-32601", b"-32602")
"""Codes of errors that say that there is no such thing, or not for these arguments."""
_ASKS_FOR_MORE: Final = frozenset({"task", "inputResponses", "requestState"})
_TOLD_ON_THE_WAY: Final = frozenset({"progressToken", META_PREFIX + "logLevel"})
_ONCE_ONLY: Final = frozenset({"inputRequests", "requestState", "task", "taskId"})
"""Members of a result that are for one caller, once."""
_JSON: Final = "application/json"
_MEDIA_TYPES: Final = frozenset({_JSON, "text/event-stream"})
_NOTHING: Final = frozenset[str]()
_NOWHERE: Final = slice(0, 0)
_BLANKS: Final = b" \t\r\n"

_TTL_MS: Final = re.compile(rb"[1-9][0-9]{0,14}")
"""A number of milliseconds as the specification has it. What is odd, or lasts longer than 31,000 years, is 0."""

_REQUEST: Final = Kind.REQUEST
"""Members of an Enum are slow to look up."""

By: TypeAlias = Literal["rule", "hints", "legacy"]


class Asked(Struct, frozen=True):
    """A call whose answer may be kept."""

    by: By
    """Who says so."""
    may_look: bool
    """Whether it may be answered from here, or with the answer to an equal call under way; else its client wants one of
    its own."""
    may_join: bool
    """Whether it may wait for the answer to an equal call: not where its client wants to be told on the way."""
    share: Share
    """Who else may be given the answer, if it agrees."""
    keep: Keep | None
    """What the rule says, where it is one."""


class Worth:
    """What is worth keeping, under these settings."""

    def __init__(
        self,
        settings: CacheSettings,
        *,
        upstream: str,
        generation: str,
        stops: Callable[[bytes], bool] | None = None,
    ) -> None:
        """As for `Keying`, which makes the keys."""
        self._max_entry_bytes = settings.max_entry_bytes
        self._max_ttl_s = settings.max_ttl_s
        self._hints = HINTED if settings.honour_hints else frozenset[str]()
        self._legacy_lists_ttl_s = min(settings.legacy_lists_ttl_s, settings.max_ttl_s)
        self._keying = Keying(upstream, generation, stops=stops, ignore_headers=settings.ignore_headers)
        self._generation = generation

    def asked(self, permit: Permit) -> Asked | None:
        """Whether the answer to a call may be kept, as far as the call tells. None: the cache has nothing to do with
        it, neither before nor after."""
        call, rule = permit.call, permit.rule
        by: By
        share: Share
        keep = rule.keep
        if call.method == "tools/call":
            if keep is None or rule.tool_class != "read":
                return None
            by, share = "rule", keep.share
        elif call.revision.is_modern and call.method in self._hints:
            by, share, keep = "hints", "all", None
        elif not call.revision.is_modern and call.method in LISTS and self._legacy_lists_ttl_s > 0:
            by, share, keep = "legacy", "caller", None
        else:
            return None
        if call.kind is not _REQUEST or call.revision.answers_elsewhere or call.last_event_id is not None:
            return None
        params = call.params
        # It asks for one answer and nothing else: no task, no continuation. A member that is null is there.
        if not _ASKS_FOR_MORE.isdisjoint(params):
            return None
        may_look = True
        if "cache-control" in call.headers:
            wishes = _cache_control(call.headers)
            if "no-store" in wishes:
                return None
            may_look = "no-cache" not in wishes and "max-age=0" not in wishes
        may_join = may_look and ("_meta" not in params or not _wants_to_be_told(params))
        return Asked(by, may_look, may_join, share, keep)

    def keys(self, permit: Permit, asked: Asked, definition: str = "") -> Keys | None:
        """The names of such a call (`Keying.keys`)."""
        return self._keying.keys(permit, share=asked.share, keep=asked.keep, definition=definition)

    def entry(
        self,
        permit: Permit,
        asked: Asked,
        keys: Keys,
        *,
        status: int,
        headers: Headers,
        text: bytes,
        wall: float,
    ) -> tuple[Key, Entry] | None:
        """What is kept of an answer, and under which name. `text` is the whole of its JSON, `wall` when it came."""
        kind, charset = media_type(headers.get("content-type"))
        if kind not in _MEDIA_TYPES or charset not in (None, "utf-8"):
            return None
        wishes = _cache_control(headers)
        if "no-store" in wishes or len(text) > self._max_entry_bytes:
            return None
        try:
            name, said = _said(text, permit.call.id)
            if name == "error":
                found = self._of_error(asked, status, said)
            else:
                found = self._of_result(asked, said) if status == 200 else None
        except ValueError:
            return None
        if found is None:
            return None
        # What came in events was cut to what this caller may see before it came to us (policy/listing.py).
        is_whole = kind == _JSON or asked.by == "rule"
        may_share = found.may_share and is_whole and keys.is_counted and "private" not in wishes
        key = keys.shared if may_share and keys.shared is not None else keys.own
        if len(key.material) + len(found.text) > self._max_entry_bytes:
            return None
        stale = None if found.is_error else asked.keep
        return key, Entry(
            material=key.material,
            result=found.text,
            stored_s=wall,
            fresh_s=found.fresh_s,
            swr_s=0 if stale is None else stale.stale_while_revalidate_s,
            sie_s=0 if stale is None else stale.stale_if_error_s,
            tenant=key.tenant,
            method=permit.call.method,
            target=permit.call.target or "",
            generation=self._generation,
            is_error=found.is_error,
            status=status,
            places=found.places,
        )

    def _of_result(self, asked: Asked, text: bytes) -> _Found | None:
        """Raises ValueError where it is no object in which each member comes once."""
        known, meta = looked_at(text)
        if known.keys() & _ONCE_ONLY or meta.keys() & ONCE_ONLY_META:
            return None
        if text[known.get("isError", _NOWHERE)] not in (b"", b"false"):
            return None
        if text[known.get("resultType", _NOWHERE)] not in (b"", b'"complete"'):
            return None
        scope = text[known.get("cacheScope", _NOWHERE)]
        ttl = text[known.get("ttlMs", _NOWHERE)]
        # Absent, a hint is no permission; and where a rule gave that, it takes nothing away.
        is_public = scope == b'"public"' or (not scope and asked.by == "rule")
        if not ttl and asked.by != "hints":
            fresh_s = self._longest_s(asked)
        else:
            fresh_s = min(int(ttl) / 1_000, self._longest_s(asked)) if _TTL_MS.fullmatch(ttl) else 0
        return _Found(text, fresh_s, is_public, places_of(text, known, meta)) if fresh_s > 0 else None

    def _of_error(self, asked: Asked, status: int, text: bytes) -> _Found | None:
        """An error is for its caller alone: it may say what that one may not. Raises ValueError as above."""
        longest_s = 0 if asked.keep is None else min(asked.keep.negative_ttl_s, self._max_ttl_s)
        if longest_s <= 0 or status not in ERROR_STATUS:
            return None
        code = text[members(text).get("code", _NOWHERE)]
        return _Found(text, longest_s, may_share=False, is_error=True) if code in _NOT_FOUND else None

    def _longest_s(self, asked: Asked) -> float:
        if asked.by == "legacy":
            return self._legacy_lists_ttl_s
        return self._max_ttl_s if asked.keep is None else min(asked.keep.ttl_s, self._max_ttl_s)


class _Found(Struct, frozen=True):
    text: bytes
    fresh_s: float
    may_share: bool
    places: Places | None = None
    is_error: bool = False


def _wants_to_be_told(params: Mapping[str, object]) -> bool:
    """Whether a client asks for progress or log lines. What is kept came without any, and so does what is told again.
    Some SDKs ask with every call."""
    meta = params.get("_meta")
    return isinstance(meta, dict) and not _TOLD_ON_THE_WAY.isdisjoint(meta)


def _cache_control(headers: Headers) -> frozenset[str]:
    """The directives, in lower case. A comma in quotes makes more of them, and then less is kept."""
    values = headers.all("cache-control")
    if not values:
        return _NOTHING
    return frozenset(
        "".join(each.split()).replace('"', "").lower() for line in values for each in line.split(",")
    )


def _said(text: bytes, id: RequestId | None) -> tuple[str, bytes]:
    """What the answer to the request with this id says, and as what: `result` or `error`. Raises ValueError where it is
    none, or where something stands beside it that would be lost."""
    if id is None:
        raise ValueError("nobody asked")
    # As SDKs write it, in Python and in TypeScript: what stands between is the result if it is one JSON object.
    own = written(id)
    begin, end = b'{"jsonrpc":"2.0","id":%b,"result":' % own, b',"jsonrpc":"2.0","id":%b}' % own
    if text.startswith(begin) and text.endswith(b"}"):
        return "result", text[len(begin) : -1].strip(_BLANKS)
    if text.startswith(b'{"result":') and text.endswith(end):
        return "result", text[10 : -len(end)].strip(_BLANKS)
    known = members(text)
    name = "error" if "error" in known else "result"
    if known.keys() != {"jsonrpc", "id", name} or text[known["jsonrpc"]] != b'"2.0"':
        raise ValueError("this is no answer")
    said = text[known["id"]]
    if said != own and (not isinstance(id, str) or said[:1] != b'"' or json.loads(said) != id):
        raise ValueError("this is the answer to another request")
    return name, text[known[name]]


def is_answer(text: bytes, id: RequestId | None) -> bool:
    """Whether this is the answer to the request with this id, and nothing beside it."""
    try:
        _said(text, id)
    except ValueError:
        return False
    return True


class Overheard:
    """Listens to an event stream: was the answer all that came? Comments, pings and the event that only carries an id
    are nothing; a notification or a second answer is something that another caller would miss."""

    __slots__ = ("_answer", "_splitter")

    def __init__(self, max_bytes: int) -> None:
        """`max_bytes` of one event; what is longer is not kept."""
        self._splitter: Splitter | None = Splitter(max_bytes)
        """None: something else came."""
        self._answer: bytes | None = None

    def feed(self, chunk: bytes) -> None:
        """Listen to what passes. Never raises: it is somebody else's stream."""
        if self._splitter is None:
            return
        try:
            events = self._splitter.feed(chunk)
        except TooLong:
            self._spoil()
            return
        for event in events:
            if event.data is None or not event.data.strip():
                continue
            if self._answer is not None or event.name not in ("", "message"):
                self._spoil()
                return
            self._answer = event.data

    def ended(self) -> bytes | None:
        """The JSON text of the answer, where the stream has ended as it should: nothing is left that had begun."""
        return None if self._splitter is None or self._splitter.rest() is not None else self._answer

    def _spoil(self) -> None:
        self._splitter = self._answer = None
