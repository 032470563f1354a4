"""What the server remembers between requests: who watches what, and which extras are on the lists.

One State serves every session. It reaches handlers as the SDK's lifespan context.
"""

from __future__ import annotations

from typing import get_args

from mcp.server.context import ServerRequestContext
from mcp.server.subscriptions import InMemorySubscriptionBus
from mcp_types import LoggingLevel
from starlette.requests import Request

SEVERITIES: tuple[LoggingLevel, ...] = get_args(LoggingLevel)
"""From ``debug`` to ``emergency``, in the order the specification gives them."""


class State:
    """Subscriptions, log levels and the two switches that make a list change."""

    def __init__(self) -> None:
        self.bus = InMemorySubscriptionBus()
        """Carries changes to the listen streams of 2026-07-28."""
        self.extra_tool = False
        self.extra_prompt = False
        self._watched: set[tuple[str, str]] = set()
        self._levels: dict[str, LoggingLevel] = {}

    def watch(self, session: str, uri: str) -> None:
        self._watched.add((session, uri))

    def forget(self, session: str, uri: str) -> None:
        self._watched.discard((session, uri))

    def watches(self, session: str, uri: str) -> bool:
        return (session, uri) in self._watched

    def set_level(self, session: str, level: LoggingLevel) -> None:
        self._levels[session] = level

    def wants(self, session: str, level: LoggingLevel) -> bool:
        """Say whether the session asked for messages of this severity; one that never asked gets all."""
        least = self._levels.get(session, "debug")
        return SEVERITIES.index(level) >= SEVERITIES.index(least)


Context = ServerRequestContext[State, Request]


def session_of(ctx: Context) -> str:
    """The session of a request: from a header in the streamable revisions, from the query in 2024-11-05."""
    if ctx.request is None:
        return ""
    return ctx.request.headers.get("mcp-session-id") or ctx.request.query_params.get("session_id", "")
