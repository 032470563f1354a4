"""The sidecar, but at another time and place: `python -m tests.corpus.elsewhere CLOCK run --config FILE`.

CLOCK is a file that is read whenever limits or the audit log look at the clock: `1774742399.9`, where it stands still
(unix seconds), `+30`, by how much it is ahead, or `-10`, by how much it is behind. Local time is that of a zone that
puts its clocks forward and back. Connections from 127.66.0.0/16 seem to come from ::1:0/112, those from 127.67.0.0/16
from the network of 64 bits beside it: lo has one address of IPv6, and a test adds none to the machine.
"""

import asyncio
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from proxy import assemble
from proxy.__main__ import main
from proxy.downstream import connection
from proxy.limits.building import Limiting
from proxy.model import Peer, Took
from proxy.settings import Settings
from proxy.telemetry.audit import Audit
from proxy.telemetry.logs import Log

ZONE = "Europe/Berlin"
SAME_NETWORK, NEXT_NETWORK = "127.66.", "127.67."
"""Of IPv4, as which an address of IPv6 is used."""

_limits, _audit, _peer = assemble._limits, assemble._audit, connection._peer


def command(file: Path) -> Sequence[str]:
    """How the sidecar is called whose clock is the file."""
    return [sys.executable, "-m", "tests.corpus.elsewhere", str(file)]


def clock(file: Path) -> Callable[[], float]:
    """The time as the file says."""

    def wall() -> float:
        said = file.read_text(encoding="ascii")
        return time.time() + float(said) if said.startswith(("+", "-")) else float(said)

    return wall


def moved(peer: Peer) -> Peer:
    """Where a connection seems to come from."""
    first, second, high, low = peer.address.split(".") if peer.address.count(".") == 3 else ("", "", "", "")
    here = f"{first}.{second}."
    if here not in (SAME_NETWORK, NEXT_NETWORK):
        return peer
    network = 0 if here == SAME_NETWORK else 1
    return Peer(f"0:0:0:{network}:0:0:1:{int(high):x}{int(low):02x}", peer.certificate)


def seen_elsewhere(transport: asyncio.BaseTransport) -> Peer:
    return moved(_peer(transport))


def elsewhen(file: Path) -> Callable[..., tuple[Limiting, object]]:
    """The limits of a house whose clock is the file."""
    wall = clock(file)

    def limits(settings: Settings, log: Log, watch: object, _: object, took: Took) -> tuple[Limiting, object]:
        return _limits(settings, log, watch, wall, took)  # type: ignore[arg-type]  # handed on as it is

    return limits


def audited_elsewhen(file: Path) -> Callable[..., Audit | None]:
    """The audit log of a house whose clock is the file."""
    wall = clock(file)

    def audit(settings: Settings, log: Log, generation: object, _: object) -> Audit | None:
        return _audit(settings, log, generation, wall)  # type: ignore[arg-type]  # handed on as it is

    return audit


if __name__ == "__main__":
    os.environ["TZ"] = ZONE
    time.tzset()
    assemble._limits = elsewhen(Path(sys.argv[1]))  # type: ignore[assignment]  # a clock that can be set
    assemble._audit = audited_elsewhen(Path(sys.argv[1]))
    connection._peer = seen_elsewhere
    sys.exit(main(sys.argv[2:]))
