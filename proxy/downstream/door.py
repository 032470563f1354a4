"""Who answers the next request? One door for all connections; behind it stands the listener in force.

In: connections, and a listener for each reading of the settings. Out: requests for the listener in force, which
finishes what it has begun when another one comes. Keeps the connections.
"""

from __future__ import annotations

from collections.abc import Awaitable

from ..model import Refused
from .connection import Connection, Done, Incoming, Server
from .listener import Listener
from .settings import ListenSettings


class Door:
    """What aiohttp knows of us."""

    def __init__(self, settings: ListenSettings, listener: Listener) -> None:
        self._listener = listener
        self.server = Server(settings, self._answer, self._refuse_unparsed)

    def let_in(self, settings: ListenSettings, listener: Listener) -> None:
        """From now on `listener` answers: the next request of each connection, and what new connections may do."""
        self._listener = listener
        self.server.settings = settings

    @property
    def connections(self) -> list[Connection]:
        """Those that are open."""
        return [each for each in self.server.connections if isinstance(each, Connection)]

    def close_idle(self) -> None:
        """Close the connections that wait for a request."""
        for each in self.connections:
            if each.is_idle:
                each.force_close()

    def _answer(self, incoming: Incoming) -> Awaitable[Done]:
        return self._listener(incoming)

    def _refuse_unparsed(self, connection: Connection, refused: Refused) -> Done:
        return self._listener.refuse_unparsed(connection, refused)
