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
        return _whole(ours) if ours else Reply(202, Headers())
    if not ours:
        return reply
    kind, _ = media_type(reply.headers.get("content-type"))
    if isinstance(reply.body, Stream):
        if kind == "text/event-stream":
            reply.body = Stream(_first(b"".join(map(event, ours)), reply.body), reply.body.close)
            reply.headers = _without_length(reply.headers)
        return reply
    if reply.status == 202:
        merged = _whole(ours)
    elif reply.status == 200 and reply.body:
        theirs = split_array(reply.body) if reply.body.lstrip()[:1] == b"[" else [reply.body]
        merged = _whole([*theirs, *ours])
    else:
        return reply  # an HTTP error answers the whole request
    merged.when_done(reply.done)
    return merged


def _whole(messages: list[bytes]) -> Reply:
    body = join_array(messages)
    fields = [(b"Content-Type", b"application/json"), (b"Content-Length", str(len(body)).encode())]
    return Reply(200, Headers(fields), body)


def _without_length(headers: Headers) -> Headers:
    return Headers(pair for pair in headers.pairs if pair[0].lower() != b"content-length")


async def _first(chunk: bytes, rest: Stream) -> AsyncIterator[bytes]:
    yield chunk
    async for more in rest:
        yield more
