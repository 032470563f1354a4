"""The sidecar, with a window on its gauges: `python -m tests.faults.watched run --set …`.

Whoever connects to the port that its line "gauges" names gets one JSON line and is hung up on. The product is not
changed: what is counted is what it keeps anyway.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import sys
from typing import cast

from proxy.__main__ import main
from proxy.house import House


class Window(asyncio.Protocol):
    """One look."""

    def __init__(self, house: House) -> None:
        self._house = house

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        house = self._house
        said = {
            "tasks": len(asyncio.all_tasks()),
            "places": house.rooms.capacity.in_flight,
            "waiting": house.rooms.capacity.waiting + house.rooms.capacity.held_back,
            "requests": house.requests_under_way,
            "connections": len(house.connections),
            "fds": len(os.listdir("/proc/self/fd")),
            "retiring": house.retiring,
            "kept": len(house._survivors),
        }
        # Counted while this connection is there: it is there each time.
        writer = cast(asyncio.Transport, transport)
        writer.write(json.dumps(said).encode() + b"\n")
        writer.close()


_open = House.open


async def opened(self: House) -> None:
    await _open(self)
    server = await asyncio.get_running_loop().create_server(functools.partial(Window, self), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    print(json.dumps({"msg": "gauges", "port": port}), file=sys.stderr, flush=True)


def watch() -> None:
    """Give every house of this process its window."""
    House.open = opened  # type: ignore[method-assign]  # the window that is the purpose of this program


if __name__ == "__main__":
    watch()
    sys.exit(main())
