"""Faults as data: what the wire does, what callers do meanwhile, and how their calls may end.

The generic script for all of them is `wire.run`. What a wire cannot do (signals, stores, slow clients) has scripts of
its own in scripts.py. `needs` names what the sidecar must be able to do; what is not in wired.py waits.
"""

from __future__ import annotations

from typing import Final, Literal

from msgspec import Struct

from .caller import CUT, DAMAGED, LEFT, UNENDED
from .messages import LEGACY, MODERN
from .rules import Rule
from .wired import UNENDED_ANSWER, UNSAID_CLOSE

UNKNOWN: Final = "outcome_unknown"
NONSENSE: Final = "upstream_nonsense"
UNREACHABLE: Final = "upstream_unreachable"

UNSAID: Final = (CUT,) if UNSAID_CLOSE else ()
UNENDED_TOO: Final = (UNENDED,) if UNENDED_ANSWER else ()

BEHIND: Final = 2**31
"""Behind the end of any message."""

PLANTED: Final = (
    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 92\r\n\r\n"
    '{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"planted for another"}]}}'
)
"""An answer that nobody asked for."""

IDEMPOTENT: Final = (
    'policy.tools=[{"match":"*","allow":["*"],"class":"read","idempotent":true}]',
    'policy.default={"allow":["*"]}',
)
"""Every tool may be repeated, says the operator."""


class Fault(Struct, frozen=True, kw_only=True):
    """One fault on the wire, under a crowd."""

    name: str
    rules: tuple[Rule, ...]
    may: tuple[str, ...] = ()
    """How calls may end, beside the right answer."""
    tool: str = "do"
    arguments: dict[str, object] = {}
    count: int = 1_000
    at_once: int = 16
    patience_s: float = 10.0
    revision: str = LEGACY
    settings: tuple[str, ...] = ()
    is_idempotent: bool = False
    needs: frozenset[str] = frozenset()
    until: frozenset[str] = frozenset()
    """Runs until the sidecar can do this; another fault takes its place then."""
    counted: Literal["faulter", "told"] = "faulter"
    """Who knows how often it was injected: a door that is shut sees nobody."""
    least: int = 1
    """It must have been injected so often."""
    must: tuple[str, ...] = ()
    """Ends that must have happened: a fault that harms nobody has not been there."""

    is_complete: bool = False
    """Every place of a message must have been struck, at full size."""


def _broken_off(does: Literal["reset", "cut", "half_open"], *, counts: dict[str, int]) -> tuple[Fault, ...]:
    return tuple(
        Fault(
            name=f"{does} at every byte of {what}",
            rules=(Rule(does=does, sweeps=True, where="request" if tool == "" else "answer"),),
            tool=tool or "do",
            count=counts[what],
            is_complete=True,
            revision=revision,
            may=(UNKNOWN, *(UNSAID if tool == "sse" else ())),
            must=(UNKNOWN,),
        )
        for what, tool, revision in (
            ("an answer", "do", LEGACY),
            ("a stream", "sse", LEGACY),
            ("a modern answer", "do", MODERN),
            ("a modern stream", "sse", MODERN),
            ("a request", "", LEGACY),
        )
        if counts.get(what)
    )


FAULTS: Final[tuple[Fault, ...]] = (
    # Slow wires.
    Fault(name="50 ms of latency", rules=(Rule(does="latency", seconds=0.05),), count=600),
    Fault(
        name="50 ms of latency before the server",
        rules=(Rule(does="latency", where="request", seconds=0.05),),
        count=600,
    ),
    Fault(name="2 kB/s", rules=(Rule(does="bandwidth", bytes_per_s=2_000),), count=600, at_once=32),
    Fault(
        name="1 byte/s",
        rules=(Rule(does="bandwidth", bytes_per_s=1),),
        count=80,
        at_once=20,  # an older client that closes has a second of grace, and its place with it
        patience_s=2,
        may=(LEFT,),
        must=(LEFT,),
    ),
    Fault(name="answers in slices of a byte", rules=(Rule(does="slice"),), count=600),
    Fault(name="streams in slices of a byte", rules=(Rule(does="slice"),), tool="sse", count=600),
    Fault(name="requests in slices of a byte", rules=(Rule(does="slice", where="request"),), count=600),
    Fault(name="slow close", rules=(Rule(does="slow_close", seconds=0.5),), tool="till", count=96),
    # Broken wires. The first three hold what the issue promises of 100,000 calls together.
    *_broken_off(
        "reset",
        counts={
            "an answer": 40_000,
            "a stream": 6_000,
            "a modern answer": 4_000,
            "a modern stream": 4_000,
            "a request": 6_000,
        },
    ),
    *_broken_off("cut", counts={"an answer": 4_000, "a stream": 4_000, "a request": 4_000}),
    *_broken_off("half_open", counts={"an answer": 4_000, "a stream": 4_000}),
    Fault(
        name="silent from every byte of an answer on",
        is_complete=True,
        rules=(Rule(does="swallow", sweeps=True),),
        count=480,
        at_once=20,
        patience_s=0.5,
        may=(LEFT,),
        must=(LEFT,),
        until=frozenset({"deadlines"}),
    ),
    Fault(
        name="silent from every byte of a stream on",
        is_complete=True,
        rules=(Rule(does="swallow", sweeps=True),),
        tool="sse",
        count=960,
        at_once=20,
        patience_s=0.5,
        may=(LEFT,),
        must=(LEFT,),
        until=frozenset({"deadlines"}),
    ),
    Fault(
        name="requests that are swallowed",
        is_complete=True,
        rules=(Rule(does="swallow", where="request", sweeps=True),),
        count=480,
        at_once=20,
        patience_s=0.5,
        may=(LEFT,),
        must=(LEFT,),
        until=frozenset({"deadlines"}),
    ),
    Fault(
        name="every bit of an answer flipped",
        is_complete=True,
        rules=(Rule(does="flip", sweeps=True),),
        count=2_400,
        at_once=20,
        patience_s=1,
        may=(DAMAGED, NONSENSE, UNKNOWN, LEFT),
        must=(DAMAGED, NONSENSE),
    ),
    Fault(
        name="every bit of a stream flipped",
        is_complete=True,
        rules=(Rule(does="flip", sweeps=True),),
        tool="sse",
        count=6_000,
        at_once=20,
        patience_s=1,
        may=(DAMAGED, NONSENSE, UNKNOWN, LEFT, *UNENDED_TOO, *UNSAID),
        must=(DAMAGED, NONSENSE),
    ),
    # Answers nobody asked for.
    Fault(
        name="an unasked answer before the answer",
        rules=(Rule(does="inject", payload=PLANTED),),
        may=(NONSENSE,),
        must=(NONSENSE,),
    ),
    Fault(
        name="an unasked answer behind the answer",
        rules=(Rule(does="inject", at=BEHIND, payload=PLANTED),),
        may=(NONSENSE, UNKNOWN),
    ),
    Fault(
        name="an unasked answer on an idle connection",
        rules=(Rule(does="inject", at=BEHIND, payload=PLANTED, seconds=0.003),),
        may=(NONSENSE, UNKNOWN),
    ),
    # Connections that were kept for too long.
    *(
        Fault(
            name=f"keep-alive race, closed {ms:g} ms after an answer",
            rules=(Rule(does="hang_up", seconds=ms / 1_000),),
            count=10_000,
            may=(UNKNOWN,),
        )
        for ms in (0, 0.5, 2)
    ),
    Fault(
        name="kept connections that take nothing any more",
        rules=(Rule(does="reset", where="request", is_reused=True),),
        count=10_000,
        may=(UNKNOWN,),
        must=(UNKNOWN,),
    ),
    Fault(
        name="kept connections that die with the call",
        rules=(Rule(does="reset", is_reused=True),),
        count=10_000,
        may=(UNKNOWN,),
        must=(UNKNOWN,),
    ),
    # Doors.
    Fault(
        name="nobody listens",
        rules=(Rule(does="refuse"),),
        count=2_000,
        # The first calls may meet connections of before, of whose reset nobody has heard yet.
        may=(UNREACHABLE, UNKNOWN),
        must=(UNREACHABLE,),
        counted="told",
    ),
    Fault(
        name="black hole",
        rules=(Rule(does="black_hole"),),
        count=96,
        at_once=48,
        may=(UNREACHABLE,),
        must=(UNREACHABLE,),
        counted="told",
    ),
    Fault(
        name="tar pit",
        rules=(Rule(does="tar_pit"),),
        count=80,
        at_once=20,
        patience_s=1,
        may=(LEFT,),
        must=(LEFT,),
        until=frozenset({"deadlines"}),
    ),
    # What retries, deadlines and breaker change. Off until wired.py names them.
    Fault(
        name="retried: every third answer reset",
        rules=(Rule(does="reset", every=3),),
        count=6_000,
        settings=IDEMPOTENT,
        is_idempotent=True,
        may=("upstream_broke", UNKNOWN),
        needs=frozenset({"retries"}),
    ),
    Fault(
        name="retried within the budget: every answer reset",
        rules=(Rule(does="reset"),),
        count=6_000,
        settings=IDEMPOTENT,
        is_idempotent=True,
        may=("upstream_broke", UNKNOWN),
        needs=frozenset({"retries"}),
    ),
    Fault(
        name="never retried: every third answer reset",
        rules=(Rule(does="reset", every=3),),
        count=6_000,
        may=(UNKNOWN,),
        must=(UNKNOWN,),
        needs=frozenset({"retries"}),
    ),
    *(
        Fault(
            name=f"deadline of 1 s: {name}",
            rules=(rule,),
            tool=tool,
            count=480,
            at_once=48,
            patience_s=4,
            settings=(
                "resilience.timeout_s=1",
                "resilience.stream_idle_timeout_s=1",
            ),
            may=(UNKNOWN, "deadline", *(UNSAID if tool == "sse" else ()), *also),
            needs=frozenset({"deadlines"}),
        )
        for name, rule, tool, also in (
            ("1 byte/s", Rule(does="bandwidth", bytes_per_s=1), "do", ()),
            ("silent from any byte of an answer on", Rule(does="swallow", sweeps=True), "do", ()),
            ("silent from any byte of a stream on", Rule(does="swallow", sweeps=True), "sse", ()),
            ("requests that are swallowed", Rule(does="swallow", where="request", sweeps=True), "do", ()),
            ("tar pit", Rule(does="tar_pit"), "do", ()),
            ("bits of an answer flipped", Rule(does="flip", sweeps=True), "do", (DAMAGED, NONSENSE)),
        )
    ),
)
