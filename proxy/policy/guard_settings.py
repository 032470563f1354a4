"""Which calls wait for a person, are switched off, or count as a loop, and what may a server ask its user? The settings
of the guards.

Without what the guards need to run: whoever checks settings must not pay for a loop.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Literal, TypeAlias

from msgspec import Meta, Struct, field

from ..configuration.mistakes import Unfit
from ..configuration.values import fit

Approval: TypeAlias = Literal["auto", "gated", "denied"]
"""auto: passes; gated: a person decides about each call; denied: nobody is asked."""
Mode: TypeAlias = Literal["normal", "no-delete", "read-only", "maintenance"]


def check_tenant(text: str) -> None:
    """Raise Unfit unless this names one tenant."""
    if not text.strip() or text != text.strip() or not text.isprintable():
        raise Unfit(
            "is no tenant", "it is compared with what credentials say, exactly", "name one, without spaces"
        )
    if text == "*":
        raise Unfit("is no tenant", "one mode for all is that of the process", "write it as modes.process")


class ModeSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is switched off from the start; operators may switch off more at run time, never less."""

    process: Mode = "normal"
    """For everybody: normal, no-delete (dangerous tools refused), read-only (only tools of class read),
    maintenance (only handshakes, pings and lists)."""

    tenants: Mapping[Annotated[str, Meta(max_length=256), fit(check_tenant)], Mode] = field(
        default_factory=lambda: MappingProxyType({})
    )
    """For single tenants; the stricter of this and `process` holds."""

    retry_after_s: Annotated[float, Meta(gt=0, le=86_400)] = 60.0
    """When callers may try again during maintenance without a known end."""


class RepetitionSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When does the same call count as a loop?"""

    most: Annotated[int, Meta(ge=1, le=100)] = 10
    """Calls of one tool with the same arguments by the same caller within the window."""

    window_s: Annotated[float, Meta(gt=0, le=86_400)] = 60.0
    """How long a call counts."""


class ApprovalSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long do approvals last?"""

    approval_ttl_s: Annotated[float, Meta(ge=1, le=86_400)] = 600.0
    """How long a gated call waits for a person, and how long the person's yes then waits for the call."""


class ElicitationSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the server may ask its user for."""

    secrets: Literal["report", "block"]
    """A form that asks for a password, a key, a token, a code or a card. report: recorded, and it passes. block: the
    user sees what was withheld instead; a result that asks so (2026-07-28) is refused."""
