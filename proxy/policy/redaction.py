"""What of an answer must not leave? Secrets and personal data in what tools return, found by patterns; per rule.

In: the bytes of one message of the server. Out: the same object where nothing was found, bytes in which what was
found is masked and all else stays, or `Blocked`. Keeps the compiled patterns. Pure but for whom it tells, which are
names and numbers, never a text.

Every string of a message is searched, names of members included, with JSON's escapes decoded; handles that clients
send back as they are (ids, cursors, request states) are not. Not found: numbers, what is encoded once more (base64,
percent, gzip, other alphabets), what is broken by blanks or invisible characters, except keys and tokens wrapped as
base64 is, and what is spread over several strings or messages. A mask may break a promise of the tool's output schema.
"""

from __future__ import annotations

import importlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import islice
from typing import Annotated, Final, Literal, NamedTuple, Protocol, TypeAlias

from msgspec import Meta, Struct

from ..configuration.mistakes import Unfit, did_you_mean
from ..model import Reason, Refused
from ..protocol.answers import Malformed, read_tree
from .redaction_patterns import BETWEEN, BUILT_IN, Check, Pattern, Span
from .redaction_texts import Places, decoded, members, utf8

Action: TypeAlias = Literal["log", "mask", "block"]
Tell: TypeAlias = Callable[[str, Action, int], None]
"""Told the name of a pattern, what was done, and how often it was found in one message."""

INSTALL: Final = "install it with pip install 'mcp-sidecar[redact]'"
UNSEARCHED: Final = "unsearched"
"""The name told for a message that was too long, or held more than is counted."""
MAX_SEARCHED_BYTES: Final = 8_388_608
"""Longer messages are not searched: 1.5 to 4.5 ms a megabyte, while other calls wait."""
MAX_READ_BYTES: Final = 4_194_304
"""Nor are longer ones in which something seems to be: to find out what takes 25 ms a megabyte."""
MAX_FOUND: Final = 5_000
"""Looked at in one message, with what only looked alike: 30 ms. Beyond it, it counts as too long."""
MAX_STRINGS: Final = 10_000
"""Looked at one by one in one message: 30 ms, or 200 ms where all patterns look at each. Beyond it, likewise."""
_ENGINE_BYTES: Final = 4_194_304
"""Memory RE2 may use for one expression; beyond it, it becomes slower, and stays right."""
_STRICTER: Final[dict[Action, int]] = {"log": 0, "mask": 1, "block": 2}
_NAME: Final = re.compile(r"[a-z0-9]+(?:_[a-z0-9]+)*")
_NO_ANCHOR: Final = re.compile(r"\\[^AzC]|\[\^?\]?(?:\\.|[^\]\\])*\]", re.DOTALL)
_ANCHOR: Final = re.compile(r"[$^]|\\[AzC]")


_NOTHING: Final = r"[^\x00-\x{10FFFF}]"
"""Finds no text."""


class Blocked(Struct, frozen=True):
    """The message must not leave. `patterns` are names, for records; empty where it could not be searched."""

    patterns: tuple[str, ...]


def withheld() -> Refused:
    """What the caller gets instead: fixed words, because what is named here could be what was hidden."""
    return Refused(
        Reason.NOT_ALLOWED,
        "The call was carried out, but its answer holds what must not leave the server and was withheld. "
        "Do not repeat it: the answer would be withheld again.",
    )


class _Match(Protocol):
    def span(self, group: int = 0) -> Span: ...


class _Regex(Protocol):
    """A compiled expression of RE2; offsets are of bytes."""

    groups: int

    def search(self, text: bytes, pos: int | None = None) -> _Match | None: ...


@lru_cache(maxsize=512)
def _compiled(regex: str) -> _Regex:
    """Raises Unfit, where RE2 is missing or does not take it."""
    try:
        re2 = importlib.import_module("re2")  # 2.6 MB and 7 ms, only where a rule redacts
    except ImportError:
        raise Unfit("needs the package google-re2", "it searches in linear time", INSTALL) from None
    options = re2.Options()
    options.max_mem = _ENGINE_BYTES
    options.log_errors = False
    try:
        found: _Regex = re2.compile(regex.encode(), options)
    except (re2.error, UnicodeError):
        raise Unfit(
            "is no expression of RE2",
            "look-around and back-references cannot be searched in linear time",
            "see https://github.com/google/re2/wiki/Syntax",
        ) from None
    return found


class RedactRule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One kind of thing to look for in what a tool returns."""

    pattern: Annotated[str, Meta(min_length=1, max_length=64)]
    """The name of a built-in pattern, or, with `regex`, a new name in lower case."""

    action: Action = "mask"
    """log: counted and passed on. mask: replaced by `[redacted: NAME]`. block: the whole answer is withheld."""

    regex: Annotated[str, Meta(min_length=1, max_length=2_048)] | None = None
    """A pattern of your own in RE2 syntax. A group in it says which part is masked."""


def check_redact(rules: Sequence[RedactRule]) -> None:
    """Raise Unfit unless all of them can be looked for."""
    seen: set[str] = set()
    for place, rule in enumerate(rules):
        try:
            _check(rule)
            if rule.pattern in seen:
                raise Unfit("is there twice", "one name, one action", "keep one")
        except Unfit as unfit:
            raise Unfit(unfit.what, unfit.why, unfit.remedy, key=place) from None
        seen.add(rule.pattern)


def _check(rule: RedactRule) -> None:
    own = rule.regex
    if own is None:
        if rule.pattern not in BUILT_IN:
            raise Unfit(
                "names no pattern",
                "it is not built in and has no regex",
                did_you_mean(rule.pattern, BUILT_IN),
            )
        _compiled(BUILT_IN[rule.pattern].regex)
        return
    if rule.pattern in BUILT_IN or rule.pattern == UNSEARCHED:
        raise Unfit("has the name of a built-in pattern", "records could not tell them apart", "rename it")
    if not _NAME.fullmatch(rule.pattern):
        raise Unfit("is no name", "it stands in masks and metrics", "use a-z, 0-9 and single _")
    if _ANCHOR.search(_NO_ANCHOR.sub("", own)):
        why = "texts are found wherever they stand"
        raise Unfit(
            "is bound to where a text begins or ends", why, r"remove ^, $, \A, \z and \C; \b may stay"
        )
    regex = _compiled(own)
    if regex.search(b"") is not None:
        raise Unfit("finds the empty text", "it would find something everywhere", "make it need a character")
    if regex.search(_mask(rule.pattern)) is not None:
        raise Unfit(
            "finds its own mask", "what is masked would be found again", "make it narrower, or rename it"
        )


Redact = Annotated[tuple[RedactRule, ...], Meta(max_length=64, extra={"fit": check_redact})]


def _mask(name: str, number: int = 1) -> bytes:
    """Letters, digits, blanks and brackets: nothing JSON would have to escape."""
    return f"[redacted: {name}]".encode() if number == 1 else f"[redacted: {name} {number}]".encode()


class _Finder(NamedTuple):
    name: str
    action: Action
    regex: _Regex
    check: Check | None
    reads_keys: bool

    def spans(self, text: bytes) -> Iterator[Span | None]:
        """What is found in `text`, in order, each span behind the one before; None for what only looked alike."""
        at = 0
        while at < len(text) and (match := self.regex.search(text, at)) is not None:
            begin, end = match.span()
            meant = next(
                (span for group in range(1, self.regex.groups + 1) if (span := match.span(group))[0] >= 0),
                (begin, end),
            )
            found = meant if self.check is None else self.check(text, *meant)
            # What only looked alike may hide the beginning of what is meant.
            at = begin + 1 if found is None else max(found[1], begin + 1)
            yield found if found is not None and found[0] < found[1] else None


def _finder(rule: RedactRule, action: Action) -> _Finder:
    known = BUILT_IN.get(rule.pattern) if rule.regex is None else Pattern(rule.regex)
    if known is None:
        raise Unfit(
            "names no pattern", "it is not built in and has no regex", did_you_mean(rule.pattern, BUILT_IN)
        )
    return _Finder(rule.pattern, action, _compiled(known.regex), known.check, known.reads_keys)


class _Tally:
    """What one message was found to hold."""

    __slots__ = ("found", "looked_at", "strings")

    def __init__(self) -> None:
        self.found: Counter[int] = Counter()
        """How often, by the place of the finder: rules of two tools may give one name to two patterns."""
        self.looked_at = 0
        self.strings = 0

    @property
    def is_full(self) -> bool:
        return self.looked_at > MAX_FOUND or self.strings > MAX_STRINGS


class Redaction:
    """What one rule wants redacted, compiled."""

    def __init__(self, rules: Sequence[RedactRule], tell: Tell, *, only_report: bool = False) -> None:
        """`only_report`: whatever the rules say, it is counted and passed on. Raises Unfit as `check_redact`."""
        self.rules = tuple(rules)
        self._tell = tell
        self._finders = [_finder(rule, "log" if only_report else rule.action) for rule in rules]
        self.may_change = any(each.action != "log" for each in self._finders)
        """Whether a message may come out other than it went in."""
        texts = [BUILT_IN[rule.pattern].regex if rule.regex is None else rule.regex for rule in rules]
        self._any = _compiled("|".join(f"(?:{text})" for text in sorted(set(texts))) or _NOTHING)

    @classmethod
    def joined(cls, several: Iterable[Redaction], tell: Tell) -> Redaction:
        """All that any of them wants, the strictest where they differ: for messages of which it is not known
        what they answer."""
        rules: dict[tuple[str, str | None], RedactRule] = {}
        for each in several:
            for rule, finder in zip(each.rules, each._finders, strict=True):
                known = rules.get((rule.pattern, rule.regex))
                if known is None or _STRICTER[known.action] < _STRICTER[finder.action]:
                    rules[rule.pattern, rule.regex] = RedactRule(
                        pattern=rule.pattern, action=finder.action, regex=rule.regex
                    )
        return cls(tuple(rules.values()), tell)

    def finds(self, message: bytes) -> bool:
        """Whether something in it might have to be redacted. False is certain."""
        return self._any.search(decoded(message)) is not None

    def apply(self, message: bytes, *, blocks: bool = True) -> bytes | Blocked:
        """The message as it may leave; `message` itself where nothing is to be changed. Not `blocks`: what would block
        it is masked, and not counted again. Never raises."""
        if len(message) > MAX_SEARCHED_BYTES:
            return self._unsearched(message)
        if not self.finds(message):
            return message
        if len(message) > MAX_READ_BYTES:
            return self._unsearched(message)
        try:
            handles = _handles(read_tree(message))
        except Malformed:
            return self._in_words(message, blocks)
        return self._in_json(message, handles, blocks)

    def _unsearched(self, message: bytes) -> bytes | Blocked:
        self._tell(UNSEARCHED, "block" if self.may_change else "log", 1)
        return Blocked(()) if self.may_change else message

    def _in_json(
        self, message: bytes, handles: frozenset[tuple[bytes, bytes]], blocks: bool
    ) -> bytes | Blocked:
        tally = _Tally()
        cuts: list[tuple[int, int, bytes]] = []
        masked_keys = 0
        for member in members(message, self._may_matter):
            tally.strings += 1
            key = b"" if member.key is None else message[slice(*member.key)]
            value = b"" if member.value is None else message[slice(*member.value)]
            name, text = decoded(key), decoded(value)
            if (name, text) in handles:
                continue
            if member.key is not None:
                spans = self._look(name, tally)
                # Two members of one name are no JSON to strict readers: a number tells them apart.
                masked_keys += bool(spans)
                cuts += _cuts(key, member.key[0], spans, masked_keys)
            if member.value is not None:
                spans = self._look(text, tally, None if member.key is None else name)
                cuts += _cuts(value, member.value[0], spans)
            if tally.is_full:
                return self._unsearched(message)
        return self._decided(message, tally.found, cuts, blocks)

    def _may_matter(self, text: bytes) -> bool:
        return self._any.search(text) is not None

    def _look(self, text: bytes, tally: _Tally, key: bytes | None = None) -> list[tuple[Span, str]]:
        """What of `text` is to be masked; counts everything. `key` is the name of the member it stands in."""
        spans: list[tuple[Span, str]] = []
        joined = None if key is None else key + BETWEEN + text
        if self._any.search(text if joined is None else joined) is None:
            return spans
        for place, finder in enumerate(self._finders):
            before, where = 0, text
            if joined is not None and key is not None and finder.reads_keys:
                before, where = len(key) + len(BETWEEN), joined
            for span in islice(finder.spans(where), MAX_FOUND + 1 - tally.looked_at):
                tally.looked_at += 1
                if span is None or span[1] <= before:
                    continue  # only alike, or in the name, which was looked at by itself
                tally.found[place] += 1
                if finder.action != "log":
                    spans.append(((max(span[0], before) - before, span[1] - before), finder.name))
        return spans

    def _in_words(self, message: bytes, blocks: bool) -> bytes | Blocked:
        """What is no JSON: the page of an HTTP error, for example. Searched as it is, and as one might read it."""
        written, read = _Tally(), _Tally()
        spans = self._look(message, written)
        self._look(decoded(message), read)
        hides = any(count > written.found[place] for place, count in read.found.items())
        if written.is_full or read.is_full or (self.may_change and hides):
            # Hidden: it stands behind escapes, and nobody knows where those end.
            return self._unsearched(message)
        return self._decided(message, written.found, _cuts(message, 0, spans, is_escaped=False), blocks)

    def _decided(
        self, message: bytes, found: Counter[int], cuts: Iterable[tuple[int, int, bytes]], blocks: bool
    ) -> bytes | Blocked:
        if blocks:
            blocking = []
            for place, finder in enumerate(self._finders):
                if found[place]:
                    self._tell(finder.name, finder.action, found[place])
                    blocking += [finder.name] if finder.action == "block" else []
            if blocking:
                return Blocked(tuple(blocking))
        pieces: list[bytes] = []
        at = 0
        for begin, end, mask in cuts:
            pieces += (message[at:begin], mask)
            at = end
        return b"".join((*pieces, message[at:])) if pieces else message


def _cuts(
    raw: bytes, offset: int, spans: list[tuple[Span, str]], number: int = 1, *, is_escaped: bool = True
) -> Iterator[tuple[int, int, bytes]]:
    """Where in the message masks go: `raw` begins at `offset`. What overlaps is one cut, of the first's name."""
    if not spans:
        return
    place: Callable[[int], int] = Places(raw) if is_escaped and b"\\" in raw else int
    spans.sort(key=lambda each: (each[0][0], -each[0][1]))
    (begin, end), name = spans[0]
    for (next_begin, next_end), next_name in spans[1:]:
        if next_begin < end:
            end = max(end, next_end)
            continue
        yield offset + place(begin), offset + place(end), _mask(name, number)
        begin, end, name = next_begin, next_end, next_name
    yield offset + place(begin), offset + place(end), _mask(name, number)


_HANDLES: Final = (
    "id",
    "method",
    "requestState",
    "nextCursor",
    "taskId",
    "progressToken",
    "requestId",
    "elicitationId",
)
"""What the client sends back as it is, or takes for its own; no model reads it."""


def _handles(message: object) -> frozenset[tuple[bytes, bytes]]:
    """Names and texts of the handles of a message, from the places where they have that meaning."""
    if not isinstance(message, dict):
        return frozenset()
    places: list[object] = [message]
    for part in (message.get("result"), message.get("params")):
        if isinstance(part, dict):
            places += (part, part.get("task"), part.get("_meta"))
    return frozenset(
        (name.encode(), utf8(text))
        for place in places
        if isinstance(place, dict)
        for name in _HANDLES
        if isinstance(text := place.get(name), str)
    )
