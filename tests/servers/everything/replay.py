"""The event store behind ``Last-Event-ID``: what was sent on a stream, so that it can be sent again.

Event ids are a counter over all streams. The oldest events go when the store is full.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import count

from mcp.server.streamable_http import EventCallback, EventId, EventMessage, EventStore, StreamId
from mcp_types import JSONRPCMessage

MOST_EVENTS = 10_000
"""Far more than one run of the suite sends."""


class Replay(EventStore):
    """An in-memory event store for one server."""

    def __init__(self, most_events: int = MOST_EVENTS) -> None:
        self._most_events = most_events
        self._ids = count(1)
        self._events: OrderedDict[EventId, tuple[StreamId, JSONRPCMessage | None]] = OrderedDict()

    async def store_event(self, stream_id: StreamId, message: JSONRPCMessage | None) -> EventId:
        event_id = str(next(self._ids))
        self._events[event_id] = (stream_id, message)
        if len(self._events) > self._most_events:
            self._events.popitem(last=False)
        return event_id

    async def replay_events_after(
        self, last_event_id: EventId, send_callback: EventCallback
    ) -> StreamId | None:
        """Send what followed on the same stream; ``None`` for an id that is unknown or forgotten."""
        last = self._events.get(last_event_id)
        if last is None:
            return None
        stream_id = last[0]
        for event_id, (stream, message) in list(self._events.items()):
            # A priming event (no message) is not sent twice: it only carried its id.
            if int(event_id) > int(last_event_id) and stream == stream_id and message is not None:
                await send_callback(EventMessage(message, event_id))
        return stream_id
