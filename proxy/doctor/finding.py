"""What is a finding? One sentence about one thing, how bad it is, and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

from msgspec import Struct

Level: TypeAlias = Literal["ok", "warn", "fail"]


class Finding(Struct, frozen=True, kw_only=True):
    """For people and for scripts."""

    check: str
    """Which of the checks says so."""
    level: Level
    """fail: calls are refused, or rules can be walked around. warn: it will be so, or an operator should know."""
    says: str
    remedy: str = ""
    """Empty where nothing is to be done."""


Findings: TypeAlias = Sequence[Finding]


def ok(check: str, says: str) -> Finding:
    return Finding(check=check, level="ok", says=says)


def warn(check: str, says: str, remedy: str) -> Finding:
    return Finding(check=check, level="warn", says=says, remedy=remedy)


def fail(check: str, says: str, remedy: str) -> Finding:
    return Finding(check=check, level="fail", says=says, remedy=remedy)
