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
from collections.abc import Callable, Collection, Mapping, Sequence
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
Changes: TypeAlias = list[tuple[slice, bytes]]
"""Other bytes for some places of a text; they do not overlap."""
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
            changes = cut.message(text, method_of)
        else:
            changes = [
                change
                for place in elements(text, MAX_ENTRIES)
                for change in _within(place, cut.message(text[place], method_of))
            ]
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

    def message(self, text: bytes, method_of: MethodOf) -> Changes:
        """What is to be changed in it. Raises ValueError where it is none, or its list is none."""
        where = members(text)
        place = where.get("result")
        if place is None or text[place] == b"null":
            return []
        method = method_of(_value(text[where["id"]]) if "id" in where else None)
        result = text[place]
        if method in INTRODUCTIONS:
            return _within(place, self._introduced(result))
        if method is None or method == OF_A_TASK:
            kinds = _lists_in(result)
            if not kinds and method is None and b'"serverInfo"' in result:
                return _within(place, self._introduced(result))
        elif method in LISTS:
            kinds = [LISTS[method]]
        else:
            return []
        return _within(place, self._result(result, kinds)) if kinds else []

    def _introduced(self, result: bytes) -> Changes:
        """Of the result of initialize or server/discover: what may not be shown of the server's instructions."""
        if self._introduce is None or result[:1] != b"{":
            return []
        place = members(result).get("instructions")
        text = None if place is None else _value(result[place])
        if place is None or not isinstance(text, str):
            return []
        left = self._introduce(text)
        if left == text:
            return []
        self.has_cleaned = True
        return [(place, json.dumps(left).encode("ascii"))]

    def _result(self, result: bytes, kinds: Sequence[Kind]) -> Changes:
        where = members(result)
        unread: frozenset[int] = frozenset()
        if self._heard is not None and TOOLS in kinds and "tools" in where:
            page = _page(result, where)
            unread = frozenset(index for index, tool in enumerate(page["tools"]) if tool is None)
            self._heard(page)
        changes: Changes = []
        for kind in kinds:
            place = where.get(kind.member)
            if place is None:
                raise ValueError("a list has entries")
            changes += _within(place, self._entries(result[place], kind, unread if kind is TOOLS else ()))
        scope = where.get("cacheScope")  # absent counts as private
        is_private = self._is_private or bool(changes)
        if scope is not None and self._is_modern and is_private and _value(result[scope]) != "private":
            changes.append((scope, b'"private"'))
        changes.sort(key=_begin)
        return changes

    def _entries(self, array: bytes, kind: Kind, unread: Collection[int]) -> Changes:
        """`unread` entries go: nobody could compare them with what was approved."""
        places = elements(array, MAX_ENTRIES)
        seen: set[str] = set()
        staying: list[bool] = []
        for index, name in enumerate(_Names(kind)(array, places)):
            is_new = name is not None and index not in unread and name not in seen
            stays = name is not None and is_new and self._shows(kind, name)
            staying.append(stays)
            if name is not None and stays:
                seen.add(name)
        changes: Changes = []
        if not all(staying):
            self.has_cut = True
            changes = _cuts(array, places, staying)
        if kind is TOOLS and self._clean is not None:
            for place, stays in zip(places, staying, strict=True):
                if stays and (clean := self._clean(entry := array[place])) is not entry:
                    self.has_cleaned = True
                    changes.append((place, clean))
        return changes


def _within(place: slice, changes: Changes) -> Changes:
    """Changes of what stands in one place of a text, as changes of the text."""
    by = place.start
    return [(slice(by + where.start, by + where.stop), left) for where, left in changes]


def _begin(change: tuple[slice, bytes]) -> int:
    begin: int = change[0].start
    return begin


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
    """What are the entries of a list called?"""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        key = b'"%s"' % kind.name.encode()
        self._key = key
        self._decoder, self._decoder_of_all = _DECODERS[kind]
        self._first = re.compile(rb'\{[ \t\r\n]*+%s[ \t\r\n]*+:[ \t\r\n]*+"([^"]*+)"' % key)

    def __call__(self, array: bytes, places: Sequence[slice]) -> list[str | None]:
        """The name of each entry; None where no call could name it, or two readers could differ on it."""
        names: list[str | None] = []
        for place, last in zip(places, self._last(array, places), strict=True):
            name = last
            first = self._first.match(array, place.start)
            if (
                first is None
                or not isinstance(last, str)
                or first.group(1) != last.encode("utf-8", "replace")
            ):
                name = self._agreed(array[place], last)
            # Else who takes the first of two equal keys reads what those read who take the last.
            names.append(name if can_be_named(name, self._kind.named_by) else None)
        return names

    def _agreed(self, entry: bytes, last: object) -> object:
        """Many tools have a parameter that is called so too, and a key may be spelt with escapes."""
        return self._only(entry) if entry.count(self._key) > 1 or b"\\u" in entry else last

    def _last(self, array: bytes, places: Sequence[slice]) -> list[object]:
        """The names as those read them who take the last of two equal keys. All at once: that takes a third of the
        time of one by one."""
        try:
            return [entry.name for entry in self._decoder_of_all.decode(array)]
        except _NOT_READ:
            return [self._last_of(array[place]) for place in places]

    def _last_of(self, entry: bytes) -> object:
        try:
            name: object = self._decoder.decode(entry).name
        except _NOT_READ:
            return self._only(entry)  # perhaps a lone surrogate
        return name

    def _only(self, entry: bytes) -> object:
        try:
            value = read_tree(entry)
        except Malformed:
            return None
        return value.get(self._kind.name) if isinstance(value, dict) else None


_NOT_READ: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def _decoders(kind: Kind) -> tuple[msgspec.json.Decoder[Any], msgspec.json.Decoder[Any]]:
    entry = msgspec.defstruct("Entry", [("name", object, None)], rename={"name": kind.name}, gc=False)
    return msgspec.json.Decoder(entry), msgspec.json.Decoder(list[entry])  # type: ignore[valid-type]  # made here


_DECODERS: Final = {kind: _decoders(kind) for kind in LISTS.values()}
"""Of one entry, and of all: only their names are kept."""


def _page(result: bytes, where: Mapping[str, slice]) -> dict[str, Any]:
    """One page of tools as it would have been read. An entry that two readers could differ on is none."""
    tools: list[object] = []
    for place in elements(result[where["tools"]], MAX_LEARNT):
        try:
            tools.append(read_tree(result[where["tools"]][place]))
        except Malformed:
            tools.append(None)
    page: dict[str, Any] = {"tools": tools}
    if "nextCursor" in where:
        page["nextCursor"] = _value(result[where["nextCursor"]])
    return page


def _value(text: bytes) -> object:
    try:
        return read_tree(text)
    except Malformed:
        raise ValueError("this is no value") from None


def _cuts(array: bytes, places: Sequence[slice], stays: Sequence[bool]) -> Changes:
    """What to take out of an array so that only the elements that stay are left. What stands before an element goes
    with it, so that whoever indents a list sees it as it was written."""
    if not any(stays):
        return [(slice(0, len(array)), b"[]")]
    cuts: Changes = []
    begin: int | None = None  # where the elements that go together begin
    end = 0  # where the last element ended
    has_kept = False
    for place, stay in zip(places, stays, strict=True):
        if not stay and begin is None:
            begin = end if has_kept else place.start
        elif stay:
            if begin is not None:
                cuts.append((slice(begin, end if has_kept else place.start), b""))
                begin = None
            has_kept = True
        end = place.stop
    if begin is not None:
        cuts.append((slice(begin, end), b""))
    return cuts
