"""What does the server say, and whose answer is it?

In: the bytes of a JSON answer or of one event's data. Out: what each message in it is, or `Malformed`.
`Tail` does the same for an answer too large to hold. Keeps nothing but what the unfinished answer needs.
"""

from __future__ import annotations

import json
import re
from enum import Enum
from typing import Final, NoReturn

from jiter import from_json
from msgspec import Struct

from ..model import Refused, RequestId, Verdict
from .jsonrpc import check_tree

_OK: Final = Verdict.OK
_TOOL_ERROR: Final = Verdict.TOOL_ERROR
_RPC_ERROR: Final = Verdict.RPC_ERROR

MAX_ANSWER_DEPTH: Final = 201
"""Deeper than for requests: what comes back is data of the server, and this is where the parser stops."""
HELD_BYTES: Final = 262_144
"""Answers and events up to this size are held and read whole (10 ms at the worst); larger ones are watched by
a `Tail` while they pass."""


class Malformed(Exception):
    """The server said something that is not JSON-RPC."""


class Said(Struct, frozen=True, kw_only=True):
    """One message of the server."""

    id: RequestId | float | None
    is_answer: bool
    """A response to one of our client's requests; else a request or a notification of the server."""
    verdict: Verdict | None = None
    code: int | None = None
    """Of a JSON-RPC error, where it was read whole and is one of 32 bits."""
    result: object = None
    """The result as it was read, for rooms that learn from it; None for anything else."""
    method: str = ""
    params: object = None
    """Of a request or a notification of the server, likewise."""


def read_answers(body: bytes) -> list[Said]:
    """Every message in `body`: one object, or the array that answers a batch. Raises Malformed."""
    if len(body) > HELD_BYTES:
        tail = Tail()
        tail.feed(body)
        return tail.ended()
    value = read_tree(body)
    return [_said(item) for item in value] if isinstance(value, list) else [_said(value)]


def read_tree(body: bytes) -> object:
    """The JSON value of something the server sent. Raises Malformed."""
    try:
        value: object = from_json(body, catch_duplicate_keys=True, allow_inf_nan=False)
    except (ValueError, RecursionError, OverflowError, MemoryError):
        return _read_leniently(body)
    return value


def _read_leniently(body: bytes) -> object:
    """Lone surrogates are what a server makes when it cuts a text inside an emoji: odd, but JSON, and clients
    in TypeScript read it. Everything else the strict reader refuses is refused here too."""
    try:
        value: object = json.loads(
            body.decode("utf-8"), parse_constant=_no_constant, object_pairs_hook=_unique, parse_float=_finite
        )
        check_tree(value, MAX_ANSWER_DEPTH)
    except (ValueError, RecursionError, OverflowError, MemoryError, Refused):
        raise Malformed from None
    return value


def _no_constant(_: str) -> NoReturn:
    raise ValueError


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError
    return value


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError
    return value


def _said(value: object) -> Said:
    if not isinstance(value, dict):
        raise Malformed
    id = value.get("id")
    if id is not None and (isinstance(id, bool) or not isinstance(id, int | float | str)):
        raise Malformed
    method = value.get("method")
    if method is not None:
        if not isinstance(method, str) or "result" in value or "error" in value:
            raise Malformed  # two readers, two messages
        return Said(id=id, is_answer=False, method=method, params=value.get("params"))
    if "error" in value and value.get("result") is None:
        return Said(id=id, is_answer=True, verdict=_RPC_ERROR, code=_code(value["error"]))
    if "result" not in value or value.get("error") is not None:
        raise Malformed
    result = value["result"]
    failed = isinstance(result, dict) and result.get("isError") is True
    return Said(id=id, is_answer=True, verdict=_TOOL_ERROR if failed else _OK, result=result)


def _code(error: object) -> int | None:
    code = error.get("code") if isinstance(error, dict) else None
    return code if type(code) is int and -(2**31) <= code < 2**31 else None


_MARK: Final = re.compile(rb'["{}\[\],:]')
# Possessive: everything below the top level up to the next bracket, in one pass and without a step of Python. Once
# begun, a string of it always matches, to the end of the chunk (2) if need be: before 3.11.5, Python does not go back
# to where the last round of a possessive group began (python/cpython#106052).
_INSIDE: Final = re.compile(
    rb'[^"{}\[\]]*+(?:("[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|(\\?\Z)))[^"{}\[\]]*+)*+', re.DOTALL
)
_QUOTE_END: Final = re.compile(rb'["\\]')
_MAX_CAPTURE: Final = 8_192
"""No key, number or id of JSON-RPC is longer."""
_READ_AS_TEXT: Final = frozenset({"id", "method"})
_OPENING: Final = {ord("}"): ord("{"), ord("]"): ord("[")}


class _At(Enum):
    """What may come next at the level of a message's members, or of the messages of an array."""

    START = 0
    FIRST_KEY = 1
    KEY = 2
    COLON = 3
    VALUE = 4
    SCALAR = 5
    NEXT = 6
    FIRST_MESSAGE = 7
    MESSAGE = 8
    NEXT_MESSAGE = 9
    END = 10


class Tail:
    """Watches a JSON answer that is too large to hold, and knows whose it is and whether it is whole.

    `feed` looks at every byte and keeps only keys, ids and scalars of the top level. The caller holds back the
    last piece until `ended` is asked: an answer is one only with its closing bracket, so a foreign one never
    arrives. The top level is read strictly (members once, in JSON's grammar); inside it strings and brackets
    must match, and the rest passes as it is.
    """

    __slots__ = ("_at", "_base", "_capture", "_escaped", "_in_string", "_key", "_members", "_said", "_stack")

    def __init__(self) -> None:
        self._stack = bytearray()
        self._base = 0  # how deep the members of a message are: 1, or 2 in an array
        self._at = _At.START
        self._in_string = False
        self._escaped = False
        self._capture: bytearray | None = None
        self._key = ""
        self._members: dict[str, object] = {}
        self._said: list[Said] = []

    def feed(self, chunk: bytes) -> None:
        """Raises Malformed when the bytes cannot be one answer, or an array of them."""
        at, size = 0, len(chunk)
        while at < size:
            if self._in_string:
                at = self._through_string(chunk, at)
                continue
            if self._is_inside and (skipped := _INSIDE.match(chunk, at)):
                at = skipped.end() if skipped.start(2) < 0 else skipped.start(1)
            mark = _MARK.search(chunk, at)
            self._between(chunk[at : mark.start() if mark else size])
            if mark is None:
                return
            self._see(chunk[mark.start()])
            at = mark.end()

    def ended(self) -> list[Said]:
        """What the answers were. Raises Malformed when they were cut short."""
        if self._at is not _At.END:
            raise Malformed
        return self._said

    @property
    def _is_inside(self) -> bool:
        """Below the members of a message: only strings and brackets matter."""
        return 0 < self._base < len(self._stack)

    def _through_string(self, chunk: bytes, at: int) -> int:
        if self._escaped:
            self._escaped = False
            self._keep(chunk[at : at + 1])
            return at + 1
        found = _QUOTE_END.search(chunk, at)
        end = found.end() if found else len(chunk)
        self._keep(chunk[at:end])
        if found is None:
            return end
        if found.group() == b"\\":
            self._escaped = True
        else:
            self._in_string = False
            self._string_ended()
        return end

    def _string_ended(self) -> None:
        if self._is_inside:
            return
        if self._at is _At.VALUE:
            # Text of other members may be long, and says nothing about whose answer this is.
            self._members[self._key] = "" if self._capture is None else self._captured()
            self._at = _At.NEXT
            return
        key = self._captured()
        if not isinstance(key, str) or key in self._members:
            raise Malformed
        self._key = key
        self._at = _At.COLON

    def _between(self, text: bytes) -> None:
        if self._is_inside or not text:
            return
        if self._at is _At.SCALAR:
            self._keep(text)
        elif text.strip(b" \t\r\n"):
            if self._at is not _At.VALUE:
                raise Malformed
            self._at = _At.SCALAR
            self._capture = bytearray()
            self._keep(text)

    def _see(self, mark: int) -> None:
        if mark == 0x22:
            self._open_string()
        elif mark in b"{[":
            self._open(mark)
        elif mark in b"}]":
            self._close(mark)
        elif not self._is_inside:
            self._separate(mark)

    def _open_string(self) -> None:
        self._in_string = True
        if self._is_inside:
            return
        if self._at in (_At.FIRST_KEY, _At.KEY) or (self._at is _At.VALUE and self._key in _READ_AS_TEXT):
            self._capture = bytearray(b'"')
        elif self._at is _At.VALUE:
            self._capture = None
        else:
            raise Malformed

    def _open(self, mark: int) -> None:
        if not self._is_inside:
            is_object = mark == 0x7B
            if self._at is _At.START:
                self._base = 1 if is_object else 2
                self._at = _At.FIRST_KEY if is_object else _At.FIRST_MESSAGE
            elif self._at in (_At.FIRST_MESSAGE, _At.MESSAGE) and is_object:
                self._at = _At.FIRST_KEY
            elif self._at is _At.VALUE:
                self._capture = None
            else:
                raise Malformed
        self._stack.append(mark)
        if len(self._stack) > MAX_ANSWER_DEPTH:
            raise Malformed

    def _close(self, mark: int) -> None:
        if not self._stack or self._stack[-1] != _OPENING[mark]:
            raise Malformed
        if self._is_inside:
            self._stack.pop()
            if len(self._stack) == self._base:
                self._members[self._key] = {}  # it was there, and that is all we know
                self._at = _At.NEXT
            return
        self._end_scalar()
        if mark == 0x5D:
            if self._at not in (_At.FIRST_MESSAGE, _At.NEXT_MESSAGE):
                raise Malformed
        else:
            if self._at not in (_At.FIRST_KEY, _At.NEXT):
                raise Malformed
            self._said.append(_said(self._members))
            self._members = {}
        self._stack.pop()
        self._at = _At.NEXT_MESSAGE if self._stack else _At.END

    def _separate(self, mark: int) -> None:
        self._end_scalar()
        after = _SEPARATED.get((mark, self._at))
        if after is None:
            raise Malformed
        self._at = after

    def _end_scalar(self) -> None:
        if self._at is _At.SCALAR:
            self._members[self._key] = self._captured()
            self._at = _At.NEXT

    def _captured(self) -> object:
        capture, self._capture = self._capture, None
        try:
            value: object = json.loads((capture or b"").decode("utf-8"), parse_constant=_no_constant)
        except (ValueError, RecursionError):
            raise Malformed from None
        return value

    def _keep(self, piece: bytes) -> None:
        if self._capture is not None and not self._is_inside:
            self._capture += piece
            if len(self._capture) > _MAX_CAPTURE:
                raise Malformed


_SEPARATED: Final = {
    (0x3A, _At.COLON): _At.VALUE,
    (0x2C, _At.NEXT): _At.KEY,
    (0x2C, _At.NEXT_MESSAGE): _At.MESSAGE,
}
