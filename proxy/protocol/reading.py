"""One HTTP request to one Call: which era, which revision, and do headers and body say the same?

In: method, header fields, body. Out: a `Call`, or `Refused`. Keeps nothing; no IO, no clock.
The era is decided once, from body and header together, because servers differ: the Python SDK routes by the
header alone, the TypeScript SDK by the body. Where the two disagree nothing is forwarded.
Source: basic/versioning and streamable-http of 2026-07-28, basic/transports of the older revisions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from ..model import NOBODY, Call, Headers, IdKey, Journey, Kind, Peer, Reason, Refused, Revision, id_key
from .batch import split_array
from .headers import MIRRORS, PARAM_PREFIX, decode_value
from .jsonrpc import (
    INVALID_PARAMS,
    INVALID_REQUEST,
    MAX_STRUCTURE,
    META_CAPABILITIES,
    META_VERSION,
    NAMED_BY,
    Message,
    read_json,
    read_message,
)
from .revisions import BY_NAME, UNNAMED, supported

HEADER_MISMATCH: Final = -32020
VERSION_UNSUPPORTED: Final = -32022
MAX_BATCH: Final = 100
"""Messages in one batch."""

_SINGLE: Final = ("mcp-session-id", "last-event-id", "content-type", "authorization", "origin")
_NAMES: Final = ("name", "uri", "taskId")
_KINDS: Final = {"request": Kind.REQUEST, "notification": Kind.NOTIFICATION, "answer": Kind.ANSWER}
_NOTE: Final = "protocol.reading"


class _Head(Struct, frozen=True, kw_only=True):
    """What header fields say to the reader, whatever the body says."""

    named: str | None
    """`MCP-Protocol-Version` as it came."""
    revision: Revision | None
    """The one of that name, if we know it."""
    legacy: Revision | None
    """The same, unless it is modern."""
    method: str | None
    """`Mcp-Method`."""
    has_name: bool
    """`Mcp-Name` is there."""
    name: str | None
    """What it says; None where it is malformed."""
    has_bad_param: bool
    """An `Mcp-Param-*` is malformed."""
    may_contradict: bool
    """Something beside the version is to be compared with each body."""
    session: str | None
    last_event_id: str | None


def read_post(
    headers: Headers,
    body: bytes,
    *,
    received: float,
    journey: Journey,
    query: str = "",
    spoken: Revision | None = None,
    peer: Peer = NOBODY,
    max_structure: int = MAX_STRUCTURE,
) -> Call:
    """The Call a POST carries. `spoken` names the revision where the endpoint, not the message, decides it;
    `max_structure` is as `read_json` has it."""
    head = headers.notes.get(_NOTE) or _read_head(headers)
    value = read_json(body, max_structure=max_structure)
    if type(value) is list:
        return _read_batch(
            headers,
            head,
            body,
            value,
            received=received,
            journey=journey,
            query=query,
            spoken=spoken,
            peer=peer,
        )
    message = read_message(value, body)
    try:
        revision = spoken or _revision_of(message, head)
        if revision.mirrors_headers or head.may_contradict:
            _check(message, head, revision)
    except Refused as refused:
        refused.id = message.id
        raise
    return _call(message, revision, headers, head, received, journey, query, peer)


def read_bodiless(
    kind: Kind,
    headers: Headers,
    *,
    received: float,
    journey: Journey,
    query: str = "",
    spoken: Revision | None = None,
    peer: Peer = NOBODY,
) -> Call:
    """The Call of a GET or DELETE. Modern revisions have neither: 405, as their servers SHOULD answer."""
    head = headers.notes.get(_NOTE) or _read_head(headers)
    revision = spoken or (UNNAMED if head.named is None else _known(head))
    if not revision.has_get_stream:
        raise Refused(
            Reason.METHOD_NOT_ALLOWED,
            f"Revision {revision.name} has POST only.",
            headers=((b"Allow", b"POST"),),
        )
    call = Call(
        revision=revision,
        kind=kind,
        headers=headers,
        query=query,
        session=head.session,
        last_event_id=head.last_event_id,
        received=received,
        peer=peer,
        journey=journey,
    )
    journey.read(call)
    return call


def _read_head(headers: Headers) -> _Head:
    """What the fields say to the reader. Raises Refused; else it is read once, however often the head comes again."""
    _refuse_duplicates(headers)
    named, method, name = (headers.get(field) for field in MIRRORS)
    revision = None if named is None else BY_NAME.get(named.strip(" \t"))
    has_bad_param = any(
        field.startswith(PARAM_PREFIX) and decode_value(headers.get(field) or "") is None
        for field in headers.names()
    )
    head = _Head(
        named=named,
        revision=revision,
        legacy=None if revision is None or revision.is_modern else revision,
        method=None if method is None else method.strip(" \t"),
        has_name=name is not None,
        name=None if name is None else decode_value(name),
        has_bad_param=has_bad_param,
        may_contradict=method is not None or name is not None or has_bad_param,
        session=headers.get("mcp-session-id"),
        last_event_id=headers.get("last-event-id"),
    )
    headers.note(_NOTE, head)
    return head


def _refuse_duplicates(headers: Headers) -> None:
    """A field that decides something may come once: a first-copy and a last-copy reader would disagree."""
    for name in headers.repeated():
        if name in MIRRORS or name.startswith(PARAM_PREFIX):
            raise _mismatch("A mirrored header is repeated.")
        if name in _SINGLE:
            raise Refused(Reason.MALFORMED, f"The header {name} is repeated.", code=INVALID_REQUEST)


def _read_batch(
    headers: Headers,
    head: _Head,
    body: bytes,
    value: list[object],
    *,
    received: float,
    journey: Journey,
    query: str,
    spoken: Revision | None,
    peer: Peer,
) -> Call:
    revision = spoken or (UNNAMED if head.named is None else _known(head))
    if not revision.allows_batch:
        raise _batch(f"Revision {revision.name} takes one message in a body, not an array.")
    if not value:
        raise _batch("A batch holds at least one message.")
    if len(value) > MAX_BATCH:
        raise _batch(f"A batch holds at most {MAX_BATCH} messages.")
    messages: list[Message] = []
    ids: set[IdKey] = set()
    for item, text in zip(value, split_array(body), strict=True):
        message = read_message(item, text)
        if message.method == "initialize":
            raise _batch("`initialize` is never part of a batch.")
        if META_VERSION in message.meta:
            raise _batch("A message of a modern revision is never part of a batch.")
        _check(message, head, revision)
        if message.shape == "request" and message.id is not None:
            key = id_key(message.id)
            if key in ids:
                raise _batch("Two requests of a batch have the same id.")
            ids.add(key)
        messages.append(message)
    # Journeys open only now, when nothing can fail any more: each that opens must end.
    parts = [
        _call(each, revision, headers, head, received, journey.sibling() if at else journey, query, peer)
        for at, each in enumerate(messages)
    ]
    return Call(
        revision=revision,
        kind=Kind.BATCH,
        headers=headers,
        body=body,
        query=query,
        session=head.session,
        parts=tuple(parts),
        received=received,
        peer=peer,
        journey=journey,
    )


def _call(
    message: Message,
    revision: Revision,
    headers: Headers,
    head: _Head,
    received: float,
    journey: Journey,
    query: str,
    peer: Peer,
) -> Call:
    call = Call(
        revision=revision,
        kind=_KINDS[message.shape],
        id=message.id,
        method=message.method,
        target=message.target,
        params=message.params,
        headers=headers,
        body=message.body,
        query=query,
        session=head.session,
        last_event_id=head.last_event_id,
        received=received,
        peer=peer,
        journey=journey,
    )
    journey.read(call)
    return call


def _revision_of(message: Message, head: _Head) -> Revision:
    """Numbered as in the decision the specification leaves to a middlebox."""
    named = head.named
    # 1. The body claims a version: header and body must agree, and the version must be a modern one.
    if META_VERSION in message.meta:
        claim = message.meta[META_VERSION]
        if not isinstance(claim, str):  # null too: readers disagree on whether that is a claim
            raise Refused(
                Reason.MALFORMED, f'`_meta["{META_VERSION}"]` must be a string.', code=INVALID_PARAMS
            )
        if named is None or named.strip(" \t") != claim:
            raise _mismatch("The header MCP-Protocol-Version and the body name different versions.")
        revision = BY_NAME.get(claim)
        if revision is None or not revision.is_modern:
            raise _unsupported(claim, modern=True)
        return revision
    if head.legacy is not None:
        return head.legacy
    # 2. Neither says anything: what came before the header existed.
    if named is None:
        return _of_handshake(message)
    revision = _known(head)
    # 3. Only the header is modern. SDKs disagree on `initialize`, so the server decides; a notification has no
    #    rule; a posted answer does not exist in a modern revision; a request lacks what it must carry.
    if message.method == "initialize":
        return _of_handshake(message)
    if message.shape == "answer":
        raise Refused(Reason.MALFORMED, f"Clients post no answers in {revision.name}.", code=INVALID_REQUEST)
    if message.shape == "request":
        raise Refused(
            Reason.MALFORMED,
            f'`_meta["{META_VERSION}"]` is required in {revision.name}.',
            code=INVALID_PARAMS,
        )
    return revision


def _of_handshake(message: Message) -> Revision:
    asked = message.params.get("protocolVersion") if message.method == "initialize" else None
    revision = BY_NAME.get(asked) if isinstance(asked, str) else None
    # An unknown version in `initialize` is negotiation, not an error: the server offers another.
    fits = revision is not None and not revision.is_modern and not revision.answers_elsewhere
    return revision if revision is not None and fits else UNNAMED


def _known(head: _Head) -> Revision:
    if head.revision is None:
        raise _unsupported(head.named or "", modern=None)
    return head.revision


def _check(message: Message, head: _Head, revision: Revision) -> None:
    if revision.mirrors_headers and message.shape == "request":
        if not isinstance(message.meta.get(META_CAPABILITIES), dict):
            raise Refused(
                Reason.MALFORMED,
                f'`_meta["{META_CAPABILITIES}"]` is required in {revision.name} and is an object.',
                code=INVALID_PARAMS,
            )
        if head.method is None:
            raise _mismatch("The header Mcp-Method is required.")
        if message.method in NAMED_BY and not head.has_name:
            raise _mismatch(f"The header Mcp-Name is required for {message.method}.")
    if head.may_contradict:
        _compare_mirrors(message, head)


def _compare_mirrors(message: Message, head: _Head) -> None:
    """Whatever is mirrored must be true, also where the revision asks for no mirror: a router before or behind
    us may trust it."""
    if head.method is not None and head.method != message.method:
        raise _mismatch("The header Mcp-Method and the body name different methods.")
    if head.has_name:
        candidates = _named(message.params) if message.target is None else [message.target]
        if head.name is None:
            raise _mismatch("The header Mcp-Name has a malformed base64 value.")
        if candidates and head.name not in candidates:
            raise _mismatch("The header Mcp-Name and the body name different targets.")
    if head.has_bad_param:
        raise _mismatch("A header Mcp-Param-* has a malformed base64 value.")


def _named(params: Mapping[str, object]) -> list[str]:
    return [value for member in _NAMES if isinstance(value := params.get(member), str)]


def _mismatch(why: str) -> Refused:
    return Refused(Reason.HEADER_MISMATCH, why)


def _batch(why: str) -> Refused:
    return Refused(Reason.MALFORMED, why, code=INVALID_REQUEST)


def _unsupported(requested: str, *, modern: bool | None) -> Refused:
    names = supported(modern=modern)
    return Refused(
        Reason.VERSION_UNSUPPORTED,
        f"This protocol version is not supported; supported: {', '.join(names)}.",
        # Echoed as the specification demands, cut so that it cannot be used to carry anything.
        data={"supported": names, "requested": requested[:32]},
    )
