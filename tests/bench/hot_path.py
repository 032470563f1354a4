"""Where does the time of a call go? `python -m tests.bench.hot_path [dress ...] [--rounds N] [--profile | --modules]`:
the whole house in this process, but no kernel: clients and the server are objects that take bytes and give bytes.

In: names of dress codes. Out: processor time a call, threads included; the least of many rounds, because other
processes only add to it. Calls are under way 32 at a time, as behind 32 connections. `--spin S` does nothing else for S
seconds, so that a profiler (py-spy) can look.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import pstats
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import uvloop

from proxy.downstream.connection import Connection as Client
from proxy.house import House
from proxy.settings import load
from proxy.telemetry.logs import Log
from proxy.upstream import transport_lean
from proxy.upstream.lean_connection import Connection as Upstream
from proxy.upstream.transport_lean import LeanTransport
from tests.idp import AUDIENCE, Idp

from . import standard_error
from .messages import FIRST_ID, MESSAGE_BYTES, REVISIONS, Calls, answer, id_of
from .report import Figure, table, this_machine
from .side.sidecars import KEPT, LIMITS, RULES, everything, setting

CONNECTIONS: Final = 32
TURNS: Final = 12
"""Calls of each connection in a round."""
ROUNDS: Final = 60
PORT: Final = 9
_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\nServer: bench\r\nDate: Sun, 22 Nov 2026 00:00:00 GMT\r\n"
    b"Content-Type: application/json\r\nContent-Length: %d\r\nConnection: keep-alive\r\n\r\n" % MESSAGE_BYTES
)
DRESSES: Final = ("transparent", "guarded", "everything", "hit")


_SERVER_SIDES: Final[list[socket.socket]] = []


class _Side(asyncio.Transport):
    """One end of a connection without a kernel; the socket is for whoever asks whether anything has come."""

    def __init__(self, sock: socket.socket | None = None) -> None:
        super().__init__({"peername": ("127.0.0.1", PORT), "sockname": ("127.0.0.1", PORT), "socket": sock})

    def is_closing(self) -> bool:
        return False

    def close(self) -> None: ...
    def abort(self) -> None: ...
    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def get_write_buffer_size(self) -> int:
        return 0


class _ClientSide(_Side):
    """Counts answers."""

    written = 0

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        _ClientSide.written += 1


class _ServerSide(_Side):
    """Answers each request in the next turn of the loop."""

    connection: Upstream

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        asyncio.get_running_loop().call_soon(
            self.connection.data_received, _HEAD + answer(id_of(bytes(data)))
        )


class NoKernel(LeanTransport):
    """The lean transport with another way to a connection. A class of its own: a compiled one cannot be changed."""

    async def _connected(self) -> Upstream:
        connection = self._make()
        ours, theirs = socket.socketpair()
        _SERVER_SIDES.append(theirs)  # closed, it would be news
        side = _ServerSide(ours)
        side.connection = connection
        connection.connection_made(side)
        return connection


def _settings_of(dress: str, identity: tuple[str, ...], folder: Path) -> list[str]:
    return {
        "transparent": [],
        "guarded": [setting("policy", RULES), setting("limits", LIMITS)],
        "everything": everything(identity, folder),
        "hit": [setting("policy", KEPT), setting("cache", {})],
    }[dress]


async def _round(clients: list[Client], requests: list[bytes]) -> float:
    """Processor time a call, in µs."""
    began = time.process_time()
    for turn in range(TURNS):
        wanted = _ClientSide.written + len(clients)
        for at, client in enumerate(clients):
            client.data_received(requests[turn * len(clients) + at])
        while _ClientSide.written < wanted:  # noqa: ASYNC110  the turns of the loop are what is measured
            await asyncio.sleep(0)
    return (time.process_time() - began) / (TURNS * len(clients)) * 1e6


async def measured(
    dress: str, revision: str, rounds: int, spin_s: float = 0, profile: cProfile.Profile | None = None
) -> Figure:
    """A call in this dress; `profile` sees one round."""
    with tempfile.TemporaryDirectory(prefix="mcp-sidecar-bench-") as name:
        async with Idp() as idp:
            issuer = {"kind": "jwt", "issuer": idp.issuer, "jwks_url": idp.jwks_url, "tenant_claim": "org_id"}
            identity = (f"identity.resource={AUDIENCE}", setting("identity.authenticators", [issuer]))
            sets = [
                *(f"upstream.url=http://127.0.0.1:{PORT}/mcp", "listen.address=127.0.0.1:0"),
                *("operations.address=127.0.0.1:0", *_settings_of(dress, identity, Path(name))),
            ]
            house = House(load(None, overrides=sets, environ={}), Log())
            await house.open()
            token = idp.token(exp=int(time.time()) + 7_200, org_id="acme") if dress == "everything" else ""
            made: Callable[[], Client] = house._door.server
            clients = []
            for _ in range(CONNECTIONS):
                clients.append(made())
                clients[-1].connection_made(_ClientSide())
            calls = Calls(revision, PORT, token)
            requests = [calls.request(b"%d" % (FIRST_ID + n)) for n in range(CONNECTIONS * TURNS)]
            while house.rooms.identity.why_unready():  # noqa: ASYNC110  keys come once
                await asyncio.sleep(0.01)
            for _ in range(3):
                await _round(clients, requests)
            until = time.monotonic() + spin_s
            while time.monotonic() < until:
                await _round(clients, requests)
            if profile is not None:
                with profile:
                    await _round(clients, requests)
            runs = [await _round(clients, requests) for _ in range(rounds)]
            await house.close(grace_s=0)
    return Figure(name=f"{dress}, {revision}", value=min(runs), unit="µs")


def _figure(dress: str, options: argparse.Namespace) -> Figure:
    profile = cProfile.Profile() if options.profile else None
    figure = uvloop.run(measured(dress, options.revision, options.rounds, options.spin, profile))
    if profile is not None:
        pstats.Stats(profile, stream=sys.stdout).sort_stats("tottime").print_stats(50)
    return figure


def _modules(dress: str, options: argparse.Namespace) -> set[str]:
    """The files of the product that a call passes through, as paths below the checkout."""
    root = Path(__file__).parents[2]
    profile = cProfile.Profile()
    uvloop.run(measured(dress, options.revision, 1, profile=profile))
    files = {Path(entry.code.co_filename) for entry in profile.getstats() if not isinstance(entry.code, str)}
    return {str(file.relative_to(root)) for file in files if file.is_relative_to(root / "proxy")}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.hot_path")
    parser.add_argument("dresses", nargs="*", metavar="dress", help=", ".join(DRESSES))
    parser.add_argument("--revision", default=REVISIONS[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--spin", type=float, default=0, metavar="S")
    parser.add_argument("--profile", action="store_true", help="print what cProfile says of one round")
    parser.add_argument(
        "--modules", action="store_true", help="print which files calls pass through, nothing else"
    )
    options = parser.parse_args()
    transport_lean.LeanTransport = NoKernel  # type: ignore[misc]  # the kernel is not what is measured
    dresses = options.dresses or DRESSES
    if options.modules:
        with standard_error.into_a_file():
            files = set().union(*(_modules(dress, options) for dress in dresses))
        print("\n".join(sorted(files)))
        return 0
    machine = this_machine()
    with standard_error.into_a_file():
        figures = [_figure(dress, options) for dress in dresses]
    print(table(machine, figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
