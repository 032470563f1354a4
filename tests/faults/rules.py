"""What the faulter may be told to do, as data. Light: the faulter is started hundreds of times.

A rule strikes exchanges (a request and its answer); it counts those whose request carries a nonce, so that the
sidecar's own probes neither are struck nor count.
"""

from __future__ import annotations

import re
from typing import Final, Literal, TypeAlias

from msgspec import Struct

NONCE: Final = re.compile(rb"-([0-9a-f]{16})\b")
"""In a tool's name: servers, faulter and the sidecar's own lines all show it."""

Deed: TypeAlias = Literal[
    # How the bytes pass.
    "latency",
    "bandwidth",
    "slice",
    # What happens at one place of a message.
    "reset",
    "cut",
    "half_open",
    "swallow",
    "flip",
    "inject",
    # What becomes of the connection when the answer has passed.
    "hang_up",
    "slow_close",
    # What becomes of whoever wants to connect.
    "refuse",
    "black_hole",
    "tar_pit",
]

AT_THE_DOOR: Final = frozenset({"refuse", "black_hole", "tar_pit"})
IN_A_MANNER: Final = frozenset({"latency", "bandwidth", "slice"})
SPOILS: Final = frozenset({"reset", "cut", "half_open", "swallow"})
"""What comes behind the place does not arrive."""


class Rule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One fault on the wire."""

    does: Deed
    where: Literal["request", "answer"] = "answer"
    at: int = 0
    """The place in the message: so many bytes pass first (`flip`: so many bits). Beyond its end: the end."""
    sweeps: bool = False
    """Each exchange that is struck, `step` places further; from the beginning again after the end."""
    step: int = 37
    """A prime: a short run strikes all parts of a message, a long one every place of it."""
    every: int = 1
    """Strikes each so-manieth exchange."""
    is_reused: bool = False
    """Strikes only what is not the first exchange of its connection."""
    seconds: float = 0.0
    """How long bytes are held back, or after which the deed is done."""
    bytes_per_s: float = 0.0
    payload: str = ""
    """What is put in; in Latin-1."""


class Order(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One line to the faulter; it answers each with one line."""

    rules: tuple[Rule, ...] | None = None
    """From now on these, counted from zero."""
    drops: bool = False
    """Reset every connection."""
    reports: bool = False


class Struck(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of the faulter's file: what it did to an exchange, or that one has come (`does` is empty)."""

    nonce: str
    at_ns: int
    """Monotonic; the same clock in all processes."""
    does: str = ""
    where: str = ""
    place: int = 0
    of: int = 0
    """How long the message was."""


def spoils(struck: Struck) -> bool:
    """Whether the answer cannot have arrived whole."""
    return struck.does in SPOILS and (struck.place < struck.of or struck.where == "request")
