"""Does anybody use memory that was given back? `PYTHONMALLOC=debug python -m tests.compiled tests.faults.lost_callers
[--seconds S]`: the whole house without a kernel, callers that leave at any moment, and a collector that runs all the
time.

In: how long, for each dress. Out: how many calls there were; a crash is one. Compiled coroutines that await each other
are what cython/cython#7958 is about: whoever is cancelled in the middle of such a chain, when the collector runs, must
leave nothing behind that somebody else resumes.
"""

from __future__ import annotations

import argparse
import asyncio
import faulthandler
import gc
import random
import sys
import time
from collections.abc import Callable
from typing import Any, Final

import uvloop

from proxy import pipeline
from proxy.downstream.connection import Connection as Client
from proxy.house import House
from proxy.upstream import transport_lean
from tests.bench import hot_path
from tests.bench.messages import REVISIONS, answer, id_of
from tests.bench.standard_error import into_a_file

SECONDS: Final = 30.0
TURNS: Final = 4
LEAVE: Final = 0.3
"""Of the callers of a turn."""
ANSWER_S: Final = 0.002
"""The longest that an answer takes: some of those who leave have theirs, others have not."""
_chance: Final = random.Random(7)
_makes: Final[list[Callable[[], Client]]] = []
_made: Final = [0]
"""How many calls there were."""


class _Late(hot_path._ServerSide):
    """Answers after a moment."""

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        said = hot_path._HEAD + answer(id_of(bytes(data)))
        loop = asyncio.get_running_loop()
        loop.call_later(_chance.random() * ANSWER_S, self.connection.data_received, said)


class _House(House):
    """Tells how connections are made."""

    async def open(self) -> None:
        await super().open()
        _makes[:] = [self._door.server]


async def _round(clients: list[Client], requests: list[bytes]) -> float:
    for turn in range(TURNS):
        for at, client in enumerate(clients):
            client.data_received(requests[(turn * len(clients) + at) % len(requests)])
        await asyncio.sleep(_chance.random() * ANSWER_S)
        for at, client in enumerate(clients):
            if _chance.random() < LEAVE:
                client.connection_lost(None if _chance.random() < 0.5 else ConnectionResetError())
                clients[at] = _makes[0]()
                clients[at].connection_made(hot_path._ClientSide())
        await asyncio.sleep(2 * ANSWER_S)
    _made[0] += TURNS * len(clients)
    return 0.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.lost_callers")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for each dress")
    seconds = parser.parse_args().seconds
    faulthandler.enable()
    gc.set_threshold(50, 3, 3)
    transport_lean.LeanTransport = hot_path.NoKernel  # type: ignore[misc]  # there is no kernel
    hot_path._ServerSide = _Late  # type: ignore[misc]
    hot_path.House = _House  # type: ignore[attr-defined]
    hot_path._round = _round
    form = "compiled" if not pipeline.__file__.endswith(".py") else "as Python"
    for dress in hot_path.DRESSES:
        began, before = time.monotonic(), _made[0]
        with into_a_file():
            uvloop.run(hot_path.measured(dress, REVISIONS[0], 1, spin_s=seconds))
        print(f"{form}, {dress}: {_made[0] - before:,} calls in {time.monotonic() - began:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
