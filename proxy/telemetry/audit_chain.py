"""How do lines of an audit file hold on to each other? Pure: no IO, no clock.

In: the JSON objects of records. Out: lines, each of which names the hash of the one before and ends with its own. Keeps
the last hash and how many lines there were.

    {"seq":7,"chain":"…","prev":"<hash of line 6>","time":"…","kind":"result", … ,"hash":"<hash of this line>"}

The hash is SHA-256, in hexadecimal digits, over the bytes of the line before `,"hash":`. The first line of a chain
names 64 zeros. A chain goes on through rotated files and restarts; its random id and its numbers tell where a line
belongs. A clock that goes back leaves the order as it is. `kind` is one of

    file         the first line of each file
    intent       a call is about to be sent, or has been under way for a while
    result       what became of it
    amended      it ended otherwise than its result said
    event        what an operator or the process did
    torn         what stands before was half a line, when the file was opened; kept, measured and hashed
    checkpoint   a number and a hash that can be signed, and told elsewhere
"""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import sha256
from typing import Any, Final, TypeAlias

import msgspec
from msgspec import Struct

FORMAT: Final = "mcp-sidecar audit 1"
NOTHING: Final = 64 * "0"
"""The hash before the first line."""
LONGEST_LINE_BYTES: Final = 262_144
"""No writer of ours makes a longer one."""
LONGEST_TEXT: Final = 128
"""Characters of a text that somebody else chose, where a line is not as it should be."""
LONG_LINE_BYTES: Final = 2_048
"""What is longer has a text in it that nobody needs."""

_MARK: Final = b',"hash":"'
_END: Final = b'"}\n'
_SEAL_BYTES: Final = len(_MARK) + 64 + len(_END)


class Line(Struct, omit_defaults=True, gc=False):
    """What stands in a line behind its place in the chain and its time: the fields of a record, or some of them."""


class Asked(Line, omit_defaults=True, gc=False):
    """Who asked for what, and by which rule they may: the same for many calls."""

    issuer: str = ""
    subject: str = ""
    tenant: str = ""
    client: str = ""
    credential: str = ""
    method: str = ""
    tool: str = ""
    tool_class: str = msgspec.field(default="", name="class")
    rule: str = ""


class Place(Line, omit_defaults=True, gc=False):
    """From where, and through which sidecar: the same for many calls, too."""

    peer: str = ""
    session: str = ""
    instance: str = ""


class Beside(Line, omit_defaults=True, gc=False):
    """What there is to say of few calls."""

    approval_id: str = ""
    idempotency_key: str = ""
    would_refuse: str = ""


class EventLine(Line, omit_defaults=True, gc=False):
    """Anything but a call."""

    kind: str = ""
    what: str = ""
    fields: dict[str, object] = {}


class CheckpointLine(Line, omit_defaults=True, gc=False):
    """`signature` is Ed25519 over `signed_text`, in hexadecimal digits; `key` names the key."""

    kind: str = ""
    why: str = ""
    key: str = ""
    signature: str = ""


Entry: TypeAlias = tuple[float, str]
"""When it happened (seconds from 1970), and the fields of its line, encoded."""


class Chain:
    """The writing end."""

    __slots__ = ("id", "last", "seq")

    def __init__(self, id: str, seq: int = 0, last: str = NOTHING) -> None:
        self.id = id
        """32 hexadecimal digits."""
        self.seq = seq
        """Of the last line."""
        self.last = last
        """Its hash."""

    def sealed(self, time: str, fields: str) -> bytes:
        """The next line, of these fields."""
        self.seq = seq = self.seq + 1
        text = f'{{"seq":{seq},"chain":"{self.id}","prev":"{self.last}","time":"{time}",{fields}'.encode()
        self.last = hash_ = sha256(text).hexdigest()
        return b"".join((text, _MARK, hash_.encode(), _END))


def hash_of(line: bytes) -> str | None:
    """The hash that a whole line ends with, where it is that of the line."""
    text, seal = line[:-_SEAL_BYTES], line[-_SEAL_BYTES:]
    hash_ = sha256(text).hexdigest()
    return hash_ if seal == _MARK + hash_.encode() + _END else None


def signed_text(chain: str, seq: int, prev: str, time: str) -> bytes:
    """What the signature of a checkpoint is over: all that came before it, by the hash of the last line."""
    return f"{FORMAT} checkpoint\n{chain}\n{seq}\n{prev}\n{time}\n".encode()


Redact: TypeAlias = Callable[[bytes], bytes]
_encode = msgspec.json.Encoder().encode


def encoded(line: Line, redact: Redact = bytes) -> str:
    """The members of a JSON object, without its braces, in printable ASCII, whatever its texts hold: nobody who chooses
    one can end the line, hide in it, or make it long. `redact` takes JSON and gives it back without what must not be in
    it."""
    try:
        body = _encode(line)
    except (UnicodeEncodeError, TypeError):
        body = _harmless(line)
    else:
        if not body.isascii() or len(body) > LONG_LINE_BYTES or b"\x7f" in body:
            body = _harmless(line)
    return redact(body)[1:-1].decode()


def _harmless(line: Line) -> bytes:
    """The same for texts that are long or odd: cut, and escaped."""
    names = {each.name: each.encode_name for each in msgspec.structs.fields(line)}
    values = {names[name]: _bounded(value) for name, value in msgspec.structs.asdict(line).items()}
    values["fields"] = values.get("fields") or None
    text = json.dumps({name: value for name, value in values.items() if value not in ("", None)})
    return text.replace("\x7f", "\\u007f").encode("ascii")


def _bounded(value: Any, depth: int = 0) -> Any:
    if isinstance(value, str):
        # Without lone surrogates: there are readers of JSON that choke on them.
        text = value.encode("utf-8", "backslashreplace").decode()
        if len(text) <= LONGEST_TEXT:
            return text
        # Two long names that begin alike are still two.
        return f"{text[:LONGEST_TEXT]}... sha256:{sha256(text.encode()).hexdigest()[:16]}"
    if isinstance(value, bool | int | float) or value is None:
        return value if abs(value or 0) < 1e18 else "too large"
    if depth < 2 and isinstance(value, dict):
        return {_bounded(str(key)): _bounded(each, depth + 1) for key, each in list(value.items())[:64]}
    if depth < 2 and isinstance(value, list | tuple | set | frozenset):
        return [_bounded(each, depth + 1) for each in list(value)[:64]]
    return _bounded(type(value).__name__)
