"""What becomes of a batch of which some messages were refused (2025-03-26 only).

In: the batch and the refusals. Out: the batch that is left, and an answer that holds both the server's words
and ours, in the form the server chose: an array, or a stream of events. Keeps nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec

from .model import Call, Headers, Refused, Reply, Stream
from .protocol.batch import join_array, split_array
from .protocol.headers import media_type
from .protocol.sse import message as event
from .refusals import Form, message


def without(batch: Call, allowed: list[Call]) -> Call:
    """The same batch with the allowed messages only, each with its own bytes."""
    return msgspec.structs.replace(
        batch, parts=tuple(allowed), body=join_array(each.body for each in allowed)
    )


def merge(reply: Reply | None, refusals: list[tuple[Call, Refused]], *, form: Form) -> Reply:
    """Our refusals put into the answer to the rest. Nobody waits for a word on a refused notification."""
    ours = [message(refused, call, form) for call, refused in refusals if call.wants_answer]
    if reply is None:
        return _whole(ours, Headers()) if ours else Reply(202, Headers())
    if not ours or reply.status >= 300:
        return reply  # an HTTP error answers the whole request
    if isinstance(reply.body, Stream):
        kind, _ = media_type(reply.headers.get("content-type"))
        events = kind == "text/event-stream"
        chunks = _before_events(ours, reply.body) if events else _before_json(ours, reply.body)
        reply.body = Stream(chunks, reply.body.close)
        reply.headers = _without(reply.headers, b"content-length")
        return reply
    theirs = reply.body.strip()
    if theirs[:1] == b"[":
        ours = [*split_array(theirs), *ours]
    elif theirs:
        ours = [theirs, *ours]
    merged = _whole(ours, reply.headers)
    merged.when_done(reply.done)
    return merged


def _whole(messages: list[bytes], headers: Headers) -> Reply:
    body = join_array(messages)
    fields = _without(headers, b"content-length", b"content-type").pairs
    ours = ((b"Content-Type", b"application/json"), (b"Content-Length", b"%d" % len(body)))
    return Reply(200, Headers((*fields, *ours)), body)


def _without(headers: Headers, *names: bytes) -> Headers:
    return Headers(pair for pair in headers.pairs if pair[0].lower() not in names)


async def _before_events(ours: list[bytes], rest: Stream) -> AsyncIterator[bytes]:
    yield b"".join(map(event, ours))
    async for chunk in rest:
        yield chunk


async def _before_json(ours: list[bytes], rest: Stream) -> AsyncIterator[bytes]:
    """One array of our messages and theirs, of which the server's text may be an array or a lone object."""
    head = b"[" + b",".join(ours)
    is_array: bool | None = None  # None until the first byte that is not blank
    async for chunk in rest:
        text = chunk
        if is_array is None:
            text = chunk.lstrip()
            if text:
                is_array = text[:1] == b"["
                text = text.removeprefix(b"[")
        if head and is_array is not None:
            # An empty array adds nothing, and no comma stands before its end.
            text = text.lstrip()
            if not text:
                continue
            text = head + (text if text[:1] == b"]" else b"," + text)
            head = b""
        if is_array is not None:
            yield text
    if not is_array:
        yield head + b"]"
