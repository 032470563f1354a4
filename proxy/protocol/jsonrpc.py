"""Strict JSON and the JSON-RPC envelope.

In: bytes. Out: a `Message`, or `Refused` (malformed). Keeps nothing.
Sources: RFC 8259, JSON-RPC 2.0, MCP basic/index of every revision. The strictness is not pedantry: every peer
we tried takes the last of two equal keys, and some fold case, so that a reader that takes the first one judges
another call than the one that runs.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from math import isfinite
from typing import Any, Final, Literal, TypeAlias, TypeGuard

from jiter import from_json
from msgspec import Struct

from ..model import Reason, Refused, RequestId

MAX_DEPTH: Final = 64
"""Nesting of arrays and objects, the message itself included. Real calls stay below 20."""
MAX_STRUCTURE: Final = 65_536
"""Commas and brackets outside strings. Parsing blocks the loop by structure, not by size: 4 MiB of `[]` cost
600 ms, this many cost 20."""
MAX_ID_CHARACTERS: Final = 1_024
MAX_METHOD_CHARACTERS: Final = 256
MAX_TARGET_CHARACTERS: Final = {"name": 1_024, "uri": 8_192}
"""The specification recommends 128 for tool names; URIs of resources are longer in the wild."""

PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
INVALID_PARAMS: Final = -32602

NAMED_BY: Final[Mapping[str, str]] = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
"""Methods that name a target, and the member of `params` that holds it."""

_DECIDED_BY_NAME: Final = frozenset(
    {
        *NAMED_BY,
        *("completion/complete", "resources/subscribe", "resources/unsubscribe", "subscriptions/listen"),
        *("tools/list", "prompts/list", "resources/list", "resources/templates/list", "logging/setLevel"),
        *("tasks/get", "tasks/list", "tasks/result", "tasks/update", "tasks/cancel"),
        *("initialize", "server/discover", "ping"),
    }
)
"""Methods about which something is decided: nothing else may look like one to a lenient reader."""

Shape: TypeAlias = Literal["request", "notification", "answer"]

_ENVELOPE: Final = frozenset({"jsonrpc", "id", "method", "params", "result", "error"})
_PARAMS: Final = frozenset(
    {
        "_meta",
        "argument",
        "arguments",
        "capabilities",
        "clientInfo",
        "cursor",
        "filter",
        "inputResponses",
        "name",
        "protocolVersion",
        "ref",
        "requestState",
        "task",
        "taskId",
        "uri",
    }
)
META_PREFIX: Final = "io.modelcontextprotocol/"
META_VERSION: Final = META_PREFIX + "protocolVersion"
META_CAPABILITIES: Final = META_PREFIX + "clientCapabilities"
_META: Final = frozenset(
    {
        META_VERSION,
        META_CAPABILITIES,
        META_PREFIX + "clientInfo",
        META_PREFIX + "logLevel",
        META_PREFIX + "subscriptionId",
        "progressToken",
        "traceparent",
        "tracestate",
        "baggage",
    }
)

# Possessive, and an unclosed string reaches to the end: neither stack nor time beyond one pass.
_STRING: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


class Message(Struct, frozen=True, gc=False):
    """One JSON-RPC message, read strictly."""

    shape: Shape
    body: bytes
    """The bytes this message was read from."""
    id: RequestId | None = None
    method: str = ""
    params: Mapping[str, object] = {}
    meta: Mapping[str, object] = {}
    target: str | None = None


def read_json(body: bytes, *, max_depth: int = MAX_DEPTH, max_structure: int = MAX_STRUCTURE) -> object:
    """The value of a JSON text in UTF-8.

    Refuses everything two readers could disagree on: duplicate keys at any depth, NaN and Infinity (also as
    1e400), byte order marks, bytes after the value, lone surrogates, integers of more than 4,300 digits; and
    what would block the loop: nesting beyond `max_depth`, structure beyond `max_structure`.
    """
    if _has_too_much_structure(body, max_structure):
        raise _invalid(f"The JSON text has more than {max_structure} elements; send less in one message.")
    try:
        value: object = from_json(body, catch_duplicate_keys=True, allow_inf_nan=False)
    except (ValueError, RecursionError, OverflowError, MemoryError) as error:
        # The parser's message names positions and keys; a key may be a secret, so it stays here.
        raise Refused(Reason.MALFORMED, _what_is_wrong(error), code=PARSE_ERROR) from None
    check_tree(value, max_depth)
    return value


def read_message(value: object, body: bytes) -> Message:
    """The envelope of one message whose JSON value is `value`."""
    if not isinstance(value, dict):
        raise _invalid("A message is a JSON object.")
    id = _read_id(value)
    try:
        return _read_envelope(value, id, body)
    except Refused as refused:
        refused.id = id
        raise


def _read_envelope(value: dict[str, object], id: RequestId | None, body: bytes) -> Message:
    if not _ENVELOPE.issuperset(value):
        _refuse_look_alikes(value, _ENVELOPE, _ENVELOPE_FOLDED, "the message")
    if value.get("jsonrpc") != "2.0":
        raise _invalid('`jsonrpc` must be the string "2.0".')
    if "method" not in value:
        return _read_answer(value, id, body)
    if "result" in value or "error" in value:
        raise _invalid("A message has either `method` or `result`/`error`.")
    method = value["method"]
    if not isinstance(method, str) or not method:
        raise _invalid("`method` must be a string with at least one character.")
    if method not in _DECIDED_BY_NAME:
        if len(method) > MAX_METHOD_CHARACTERS or _CONTROL.search(method):
            raise _invalid(
                f"`method` has control characters or more than {MAX_METHOD_CHARACTERS} characters."
            )
        if _looks_decided(method):
            raise _invalid("`method` is one of the protocol's, written in another way.")
    params = value.get("params", _NOTHING)
    if not isinstance(params, dict):
        raise _invalid("`params` must be an object.", code=INVALID_PARAMS)
    if not _PARAMS.issuperset(params):
        _refuse_look_alikes(params, _PARAMS, _PARAMS_FOLDED, "`params`")
    meta = params.get("_meta", _NOTHING)
    if not isinstance(meta, dict):
        raise _invalid("`params._meta` must be an object.", code=INVALID_PARAMS)
    if not _META.issuperset(meta):
        _refuse_look_alikes(meta, _META, _META_FOLDED, "`params._meta`")
    member = NAMED_BY.get(method)
    target = None if member is None else _read_target(member, params)
    return Message("notification" if id is None else "request", body, id, method, params, meta, target)


_NOTHING: Final[dict[str, object]] = {}


def _read_id(value: Mapping[str, object]) -> RequestId | None:
    """The id of a message; None where it has none. Null, fractions and containers are no ids in MCP."""
    if "id" not in value:
        return None
    id = value["id"]
    # bool is an int in Python and is not one on the wire.
    if type(id) is int:
        if id.bit_length() > 256:
            raise _invalid("`id` is a number of more than 256 bits.")
        return id
    if isinstance(id, str):
        if len(id) > MAX_ID_CHARACTERS:
            raise _invalid(f"`id` has more than {MAX_ID_CHARACTERS} characters.")
        return id
    raise _invalid("`id` must be a string or an integer.")


def _read_answer(value: Mapping[str, object], id: RequestId | None, body: bytes) -> Message:
    if ("result" in value) == ("error" in value):
        raise _invalid("A message has `method`, `result` or `error`, and only one of them.")
    if id is None:
        raise _invalid("An answer repeats the `id` of its request.")
    if "error" in value and not isinstance(value["error"], dict):
        raise _invalid("`error` must be an object.")
    return Message("answer", body, id)


def _read_target(member: str, params: Mapping[str, object]) -> str:
    target = params.get(member)
    if not isinstance(target, str) or not target:
        raise _invalid(
            f"`params.{member}` must be a string with at least one character.", code=INVALID_PARAMS
        )
    if len(target) > (most := MAX_TARGET_CHARACTERS[member]):
        raise _invalid(f"`params.{member}` has more than {most} characters.", code=INVALID_PARAMS)
    if not target.isprintable() and _CONTROL.search(target):
        # A reader in C stops at NUL, a log line at a newline: nobody names a tool so in good faith.
        raise _invalid(f"`params.{member}` has control characters.", code=INVALID_PARAMS)
    arguments = params.get("arguments")
    if arguments is not None and not isinstance(arguments, dict):
        raise _invalid("`params.arguments` must be an object.", code=INVALID_PARAMS)
    return target


def can_be_named(target: object, member: str) -> TypeGuard[str]:
    """Whether a request may name this target in `member` of its params."""
    return (
        isinstance(target, str)
        and 0 < len(target) <= MAX_TARGET_CHARACTERS[member]
        # Nearly every name; the search costs five times as much.
        and (target.isprintable() or _CONTROL.search(target) is None)
    )


def _fold(key: str) -> str:
    """How the most lenient known reader would see a key: case folded, blanks and control characters dropped."""
    return _CONTROL.sub("", key).strip().casefold()


def _looks_decided(method: str) -> bool:
    """Whether a reader that overlooks case, blanks, width or a slash at an end takes it for one of those methods."""
    text = method if method.isascii() else unicodedata.normalize("NFKC", method)
    return "".join(text.split()).strip("/").casefold() in _DECIDED_FOLDED


_DECIDED_FOLDED: Final = frozenset(method.casefold() for method in _DECIDED_BY_NAME)
_ENVELOPE_FOLDED: Final = frozenset(map(_fold, _ENVELOPE))
_PARAMS_FOLDED: Final = frozenset(map(_fold, _PARAMS))
_META_FOLDED: Final = frozenset(map(_fold, _META))


def _refuse_look_alikes(
    value: Mapping[str, object], known: frozenset[str], folded: frozenset[str], where: str
) -> None:
    """Go SDKs read `METHOD` and `paramſ` as what they resemble (CVE-2026-27896); a policy here would not. For where not
    all keys are known."""
    for key in value:
        if key not in known and _fold(key) in folded:
            raise _invalid(f"A member of {where} resembles a known one but is spelt differently.")


def _has_too_much_structure(body: bytes, limit: int) -> bool:
    """Whether commas and brackets outside strings exceed `limit`; cheap where the answer is no."""
    if len(body) <= limit or _structure(body) <= limit:
        return False
    quotes = body.count(b'"') - body.count(b'\\"')
    if quotes > 4 * limit + 4:
        return True  # at most two strings stand before each comma; counting exactly would cost what it should save
    return _structure(_STRING.sub(b"", body)) > limit


def _structure(body: bytes) -> int:
    return body.count(b",") + body.count(b"[") + body.count(b"{")


def check_tree(value: object, max_depth: int) -> None:
    """One walk, without recursion: no nesting beyond `max_depth`, no number that overflowed to infinity. `value` is
    what a parser made: its types are the built-in ones."""
    level: list[Iterable[Any]] = [(value,)]
    for _ in range(max_depth + 1):
        below: list[Iterable[Any]] = []
        for container in level:
            for item in container:
                kind = type(item)
                # Nearly everything is one of these, and nothing of them is nested or infinite.
                if kind is str or kind is int:
                    continue
                if kind is dict:
                    below.append(item.values())
                elif kind is list:
                    below.append(item)
                elif kind is float and not isfinite(item):
                    raise _invalid("A number is too large to be represented.")
        if not below:
            return
        level = below
    raise _invalid(f"The JSON text is nested more than {max_depth} deep.")


def _what_is_wrong(error: BaseException) -> str:
    text = str(error)
    if "duplicate key" in text:
        return "The body is not acceptable JSON: a key appears twice in one object."
    if "recursion" in text or isinstance(error, RecursionError):
        return f"The body is not acceptable JSON: it is nested more than {MAX_DEPTH} deep."
    return "The body is not one JSON value in UTF-8 (RFC 8259)."


def _invalid(why: str, *, code: int = INVALID_REQUEST) -> Refused:
    return Refused(Reason.MALFORMED, why, code=code)
