"""What does the server say, and whose answer is it?

In: the bytes of a JSON answer or of one event's data. Out: what each message in it is, or `Malformed`.
`Tail` does the same for an answer too large to hold. Keeps nothing but what the unfinished answer needs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Final, NoReturn

import jiter
from msgspec import Struct

from ..model import RequestId, Verdict

MAX_ANSWER_DEPTH: Final = 200
"""Deeper than for requests: what comes back is data of the server, and 200 is where the parser stops."""
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
    result: object = None
    """The result as it was read, for rooms that learn from it; None for anything else."""
    method: str = ""


def read_answers(body: bytes) -> list[Said]:
    """Every message in `body`: one object, or the array that answers a batch. Raises Malformed."""
    if len(body) > HELD_BYTES:
        tail = Tail()
        tail.feed(body)
        return [tail.ended()]
    value = read_tree(body)
    return [_said(item) for item in value] if isinstance(value, list) else [_said(value)]


def read_tree(body: bytes) -> object:
    """The JSON value of something the server sent. Raises Malformed."""
    try:
        value: object = jiter.from_json(body, catch_duplicate_keys=True, allow_inf_nan=False)
    except (ValueError, RecursionError, OverflowError, MemoryError):
        return _read_leniently(body)
    return value


def _read_leniently(body: bytes) -> object:
    """Lone surrogates are what a server makes when it cuts a text inside an emoji: odd, but JSON, and clients
    in TypeScript read it. Everything else the strict reader refuses is refused here too."""
    try:
        return json.loads(
            body.decode("utf-8"), parse_constant=_no_constant, object_pairs_hook=_unique, parse_float=_finite
        )
    except (ValueError, RecursionError, OverflowError, MemoryError):
        raise Malformed from None


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
        if not isinstance(method, str):
            raise Malformed
        return Said(id=id, is_answer=False, method=method)
    if "error" in value and value.get("result") is None:
        return Said(id=id, is_answer=True, verdict=Verdict.RPC_ERROR)
    if "result" not in value:
        raise Malformed
    result = value["result"]
    failed = isinstance(result, Mapping) and result.get("isError") is True
    return Said(id=id, is_answer=True, verdict=Verdict.TOOL_ERROR if failed else Verdict.OK, result=result)


_MARK: Final = re.compile(rb'["{}\[\],:]')
_QUOTE_END: Final = re.compile(rb'["\\]')


class Tail:
    """Watches a JSON answer that is too large to hold, and knows its id and whether it is whole.

    `feed` looks at every byte and keeps only top-level keys and the id. The caller holds back the last byte
    until `ended` is asked: an answer is one only with its closing brace, so a foreign one never arrives.
    Checks the top level, nesting and uniqueness of top-level keys; what is inside passes as it is.
    """

    __slots__ = ("_capture", "_depth", "_escaped", "_in_string", "_key", "_keys", "_values", "_wants_value")

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = False
        self._escaped = False
        self._capture: bytearray | None = None  # bytes of the top-level key or scalar under way
        self._key = b""
        self._keys: set[bytes] = set()
        self._values: dict[bytes, bytes] = {}
        self._wants_value = False

    def feed(self, chunk: bytes) -> None:
        """Raises Malformed when the bytes cannot be one JSON object."""
        at, size = 0, len(chunk)
        while at < size:
            if self._in_string:
                at = self._through_string(chunk, at)
                continue
            mark = _MARK.search(chunk, at)
            between = chunk[at : mark.start() if mark else size]
            if self._depth == 0 and between.strip(b" \t\r\n"):
                raise Malformed
            self._keep(between)
            if mark is None:
                return
            self._see(mark.group())
            at = mark.end()

    def ended(self) -> Said:
        """What the whole answer was. Raises Malformed when it was cut short or is no answer."""
        if self._depth or self._in_string or not self._keys:
            raise Malformed
        try:
            members: dict[str, object] = {
                key.decode("utf-8"): json.loads(value) for key, value in self._values.items()
            }
        except (ValueError, RecursionError):
            raise Malformed from None
        for key in (b"result", b"error"):
            if key in self._keys and key not in self._values:
                members[key.decode()] = {}  # a container: it was there, and that is all we know
        if "error" in members and "result" in members:
            raise Malformed
        return _said(members)

    def _through_string(self, chunk: bytes, at: int) -> int:
        if self._escaped:
            self._escaped = False
            self._keep(chunk[at : at + 1])
            return at + 1
        found = _QUOTE_END.search(chunk, at)
        if found is None:
            self._keep(chunk[at:])
            return len(chunk)
        self._keep(chunk[at : found.end()])
        if found.group() == b"\\":
            self._escaped = True
        else:
            self._in_string = False
        return found.end()

    def _see(self, mark: bytes) -> None:
        if mark == b'"':
            self._in_string = True
            if self._depth == 1 and not self._wants_value:
                self._capture = bytearray()
            self._keep(mark)
        elif mark in b"{[":
            if self._depth == 0 and (mark == b"[" or self._keys):
                raise Malformed  # an array, or a second document
            self._depth += 1
            if self._depth > MAX_ANSWER_DEPTH:
                raise Malformed
            if self._depth == 1:
                self._capture = None
            elif self._depth == 2:
                self._values.pop(self._key, None)
                self._capture = None
        elif mark in b"}]":
            if self._depth == 1:
                self._close_member()
            self._depth -= 1
            if self._depth < 0:
                raise Malformed
        elif self._depth == 1:
            if mark == b":":
                self._open_member()
            else:
                self._close_member()

    def _open_member(self) -> None:
        try:
            key = json.loads(bytes(self._capture or b""))
        except ValueError:
            raise Malformed from None
        self._key = str(key).encode("utf-8", "surrogatepass")
        if self._key in self._keys:
            raise Malformed
        self._keys.add(self._key)
        self._wants_value = True
        self._capture = bytearray()

    def _close_member(self) -> None:
        if self._capture is not None and self._wants_value:
            self._values[self._key] = bytes(self._capture).strip()
        self._wants_value = False
        self._capture = None

    def _keep(self, piece: bytes) -> None:
        if self._capture is not None and self._depth == 1:
            self._capture += piece
            if len(self._capture) > 8_192:
                # No id and no key of JSON-RPC is that long.
                raise Malformed
