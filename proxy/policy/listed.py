"""What of a list may its caller see? Entries are cut out of the server's bytes; what stays, stays as it is.

In: the bytes of an answer, which list it is, and who may see what. Out: the same bytes, or fewer. Keeps nothing; pure.

An entry stays when it has a name that a call could name, when the caller may use that name, and when no entry before it
in the same page has it. Of two definitions of one tool the first is shown: clients keep the last one, or both, so that
the second would change silently what was looked at first; and showing neither would hide what the caller may use.

Texts are not read whole, which would cost as much again as all the rest: only where things stand, and what entries are
called. Readers who take the first of two equal keys, or the last, find the same: a message or a result that has two is
not understood, and an entry that could have two names is read strictly.
Source: server/tools, server/prompts, server/resources and server/utilities/caching of 2026-07-28.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import msgspec
from msgspec import Struct

from ..protocol.answers import HELD_BYTES, Malformed, read_tree
from ..protocol.jsonrpc import can_be_named
from ..protocol.splice import elements, members, spliced
from .learning import INTRODUCTIONS

MAX_LIST_BYTES: Final = 4_194_304
"""Twelve times 500 tools of 700 bytes each. Clients in Python read no event beyond a quarter of this."""
MAX_LIST_COMMAS: Final = 131_072
"""In a list that is larger than what any answer may be: 15 times those of 500 tools. What is looked at costs by the
number of things, not by their size."""
MAX_ENTRIES: Final = 10_000
"""In one page, or messages in one answer. Looked at in 20 ms."""


MAX_LEARNT: Final = 5_000
"""Tools in a page that is compared with what was approved, where it was too large to be read while it came."""


class Kind(Struct, frozen=True):
    """One of the four lists."""

    member: str
    """Of the result: where the entries stand."""
    name: str
    """Of an entry: what it is called."""
    named_by: str
    """Of `params`: where a call names it."""


TOOLS: Final = Kind("tools", "name", "name")
PROMPTS: Final = Kind("prompts", "name", "name")
RESOURCES: Final = Kind("resources", "uri", "uri")
TEMPLATES: Final = Kind("resourceTemplates", "uriTemplate", "uri")

LISTS: Final[Mapping[str, Kind]] = {
    "tools/list": TOOLS,
    "prompts/list": PROMPTS,
    "resources/list": RESOURCES,
    "resources/templates/list": TEMPLATES,
}

OF_A_TASK: Final = "tasks/result"
"""Its result may be that of any request: a task ran it."""
MAY_LIST: Final = frozenset((*LISTS, OF_A_TASK))
"""The methods whose answers are looked at, whoever wants to know what of them."""

Shows: TypeAlias = Callable[[Kind, str], bool]
"""Whether a list may show an entry of this name."""
Clean: TypeAlias = Callable[[bytes], bytes]
"""What is shown of one tool that is shown: the very same bytes where nothing hides in it. Raises Malformed."""
Heard: TypeAlias = Callable[[Mapping[str, object]], None]
"""Hears one page of tools before it is looked at: `tools`, and `nextCursor` where it has one. Raises Refused."""
MethodOf: TypeAlias = Callable[[object], str | None]
"""Which method the result with this id belongs to; None where nobody knows. Asked once for each result, in order."""


class Seen(Struct, frozen=True):
    """What is left of an answer."""

    text: bytes
    """The very same bytes where nothing was changed."""
    is_cut: bool = False
    """Entries were taken out."""
    is_cleaned: bool = False
    """Something was taken out of texts."""


def shown(
    text: bytes,
    method_of: MethodOf,
    shows: Shows,
    *,
    is_modern: bool,
    is_private: bool,
    clean: Clean | None = None,
    introduce: Callable[[str], str] | None = None,
    heard: Heard | None = None,
) -> Seen:
    """An answer, or an array of them, without what its caller may not see. Raises Malformed where a list is too large,
    or is none.

    `is_private`: a list is nobody else's also where nothing was taken out. `introduce` gives what is shown of the
    server's instructions. `heard` is told of the tools in answers that were too large to be read while they came.
    """
    check_size(text)
    if len(text) <= HELD_BYTES:
        heard = None
    cut = _Cut(
        shows, is_modern=is_modern, is_private=is_private, clean=clean, introduce=introduce, heard=heard
    )
    try:
        if text.lstrip()[:1] != b"[":
            return Seen(cut.message(text, method_of), cut.has_cut, cut.has_cleaned)
        changes: list[tuple[slice, bytes]] = []
        for place in elements(text, MAX_ENTRIES):
            said = text[place]
            left = cut.message(said, method_of)
            if left is not said:
                changes.append((place, left))
        return Seen(spliced(text, changes), cut.has_cut, cut.has_cleaned)
    except ValueError:
        raise Malformed from None


def check_size(text: bytes) -> None:
    """Raise Malformed where looking at the list would block the loop."""
    if len(text) > HELD_BYTES and (len(text) > MAX_LIST_BYTES or text.count(b",") > MAX_LIST_COMMAS):
        raise Malformed


def may_hold_list(text: bytes) -> bool:
    """Whether the result in an answer of any size looks like a list; arrays of answers are not looked into."""
    if not any(b'"%s"' % kind.member.encode() in text for kind in LISTS.values()):
        return False
    try:
        where = members(text)
        return "result" in where and bool(_lists_in(text[where["result"]]))
    except ValueError:
        return True


class _Cut:
    """Looks at the messages of one answer."""

    def __init__(
        self,
        shows: Shows,
        *,
        is_modern: bool,
        is_private: bool,
        clean: Clean | None,
        introduce: Callable[[str], str] | None,
        heard: Heard | None,
    ) -> None:
        self._shows = shows
        self._is_modern = is_modern
        self._is_private = is_private
        self._clean = clean
        self._introduce = introduce
        self._heard = heard
        self.has_cut = False
        self.has_cleaned = False

    def message(self, text: bytes, method_of: MethodOf) -> bytes:
        """Raises ValueError where it is none, or its list is none."""
        where = members(text)
        place = where.get("result")
        if place is None or text[place] == b"null":
            return text
        method = method_of(_value(text[where["id"]]) if "id" in where else None)
        result = text[place]
        if method in INTRODUCTIONS:
            left = self._introduced(result)
            return text if left is result else spliced(text, [(place, left)])
        if method is None or method == OF_A_TASK:
            kinds = _lists_in(result)
            if not kinds and method is None and b'"serverInfo"' in result:
                left = self._introduced(result)
                return text if left is result else spliced(text, [(place, left)])
        elif method in LISTS:
            kinds = [LISTS[method]]
        else:
            return text
        left = self._result(result, kinds) if kinds else result
        return text if left is result else spliced(text, [(place, left)])

    def _introduced(self, result: bytes) -> bytes:
        """The result of initialize or server/discover with what may be shown of the server's instructions."""
        if self._introduce is None or result[:1] != b"{":
            return result
        place = members(result).get("instructions")
        text = None if place is None else _value(result[place])
        if place is None or not isinstance(text, str):
            return result
        left = self._introduce(text)
        if left == text:
            return result
        self.has_cleaned = True
        return spliced(result, [(place, json.dumps(left).encode("ascii"))])

    def _result(self, result: bytes, kinds: Sequence[Kind]) -> bytes:
        where = members(result)
        if self._heard is not None and TOOLS in kinds and "tools" in where:
            self._heard(_page(result, where))
        changes: list[tuple[slice, bytes]] = []
        for kind in kinds:
            place = where.get(kind.member)
            if place is None:
                raise ValueError("a list has entries")
            entries = result[place]
            left = self._entries(entries, kind)
            if left is not entries:
                changes.append((place, left))
        scope = where.get("cacheScope")  # absent counts as private
        if scope is not None and self._is_modern and (changes or self._is_private):
            if _value(result[scope]) != "private":
                changes.append((scope, b'"private"'))
            changes.sort(key=lambda change: change[0].start)
        return spliced(result, changes)

    def _entries(self, array: bytes, kind: Kind) -> bytes:
        places = elements(array, MAX_ENTRIES)
        read = _Names(kind)
        seen: set[str] = set()
        staying: list[bool] = []
        for place in places:
            name = read(array[place])
            stays = name is not None and name not in seen and self._shows(kind, name)
            staying.append(stays)
            if name is not None and stays:
                seen.add(name)
        if not all(staying):
            self.has_cut = True
            array = _without(array, places, staying)
            places = elements(array, MAX_ENTRIES) if self._clean is not None else []
        return array if kind is not TOOLS or self._clean is None else self._cleaned(array, places)

    def _cleaned(self, array: bytes, places: Sequence[slice]) -> bytes:
        assert self._clean is not None
        changes: list[tuple[slice, bytes]] = []
        for place in places:
            entry = array[place]
            clean = self._clean(entry)
            if clean is not entry:
                changes.append((place, clean))
        self.has_cleaned = self.has_cleaned or bool(changes)
        return spliced(array, changes)


def _lists_in(result: bytes) -> list[Kind]:
    """The lists that a result of an unknown request looks like."""
    if result[:1] != b"{":
        return []
    where = members(result)
    return [
        kind
        for kind in LISTS.values()
        if (place := where.get(kind.member)) is not None and result[place.start : place.start + 1] == b"["
    ]


class _Names:
    """What is an entry called?"""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        key = b'"%s"' % kind.name.encode()
        self._key = key
        self._decode = _DECODERS[kind].decode
        self._first = re.compile(rb'\{[ \t\r\n]*+%s[ \t\r\n]*+:[ \t\r\n]*+"([^"]*+)"' % key)

    def __call__(self, entry: bytes) -> str | None:
        """The name; None where no call could name it, or two readers could differ on it."""
        try:
            if b"\\" in entry and b"\\u" in entry:
                return self._nameable(self._only(entry))
            name: object = self._decode(entry).name
            if entry.count(self._key) > 1:
                # Many tools have a parameter of that name. Who begins with the last name has no other first one.
                first = self._first.match(entry)
                if first is None or not isinstance(name, str) or first.group(1) != name.encode():
                    name = self._only(entry)
        except (Malformed, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        return self._nameable(name)

    def _nameable(self, name: object) -> str | None:
        return name if can_be_named(name, self._kind.named_by) else None

    def _only(self, entry: bytes) -> object:
        value = read_tree(entry)
        return value.get(self._kind.name) if isinstance(value, dict) else None


_DECODERS: Final[Mapping[Kind, msgspec.json.Decoder[Any]]] = {
    kind: msgspec.json.Decoder(
        msgspec.defstruct("Entry", [("name", object, None)], rename={"name": kind.name})
    )
    for kind in LISTS.values()
}
"""Of entries without any escape in a key: only their name is kept."""


def _page(result: bytes, where: Mapping[str, slice]) -> dict[str, object]:
    """One page of tools as it would have been read. An entry that two readers could differ on is none."""
    tools: list[object] = []
    for place in elements(result[where["tools"]], MAX_LEARNT):
        try:
            tools.append(read_tree(result[where["tools"]][place]))
        except Malformed:
            tools.append(None)
    page: dict[str, object] = {"tools": tools}
    if "nextCursor" in where:
        page["nextCursor"] = _value(result[where["nextCursor"]])
    return page


def _value(text: bytes) -> object:
    try:
        return read_tree(text)
    except Malformed:
        raise ValueError("this is no value") from None


def _without(array: bytes, places: Sequence[slice], stays: Sequence[bool]) -> bytes:
    """An array without the elements that do not stay. What stood before an element goes with it, so that whoever
    indents a list sees it as it was written."""
    if not any(stays):
        return b"[]"
    pieces = [array[: places[0].start]]
    run: int | None = None  # where the elements that stay together begin
    before = places[0].start
    for place, stay in zip(places, stays, strict=True):
        if stay and run is None:
            run = place.start if len(pieces) == 1 else before
        elif not stay and run is not None:
            pieces.append(array[run:before])
            run = None
        before = place.stop
    if run is not None:
        pieces.append(array[run:before])
    return b"".join((*pieces, array[before:]))
