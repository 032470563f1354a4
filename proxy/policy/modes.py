"""What is switched off at the moment? Modes of the process and of single tenants, given `now`.

In: what operators set, and calls with their class. Out: a refusal, or nothing. Keeps the modes, each until its end.

The strictest of all that hold for a tenant wins: the settings', the process's, the tenant's own. So a lever can only
tighten what the settings say, and what a pod was configured to refuse it still refuses after a restart.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from ..model import Call, Kind, Lever, Reason, Refused, nobody_hears
from .guard_settings import Mode, ModeSettings

STRICTNESS: Final[Mapping[Mode, int]] = {"normal": 0, "no-delete": 1, "read-only": 2, "maintenance": 3}
MAX_TENANTS: Final = 10_000
"""With a mode of their own, set by operators."""

IN_MAINTENANCE: Final = frozenset(
    {
        "initialize",
        "ping",
        "server/discover",
        "prompts/list",
        "resources/list",
        "resources/templates/list",
        "tasks/list",
        "tools/list",
    }
)
"""What keeps sessions alive, so that clients are still there afterwards."""
HARMLESS: Final = IN_MAINTENANCE | {
    "completion/complete",
    "logging/setLevel",
    "prompts/get",
    "resources/read",
    "resources/subscribe",
    "resources/unsubscribe",
    "subscriptions/listen",
    "tasks/cancel",
    "tasks/get",
    "tasks/result",
    "tasks/update",
}
"""What only reads, and what ends or continues a task that was allowed. A method that nobody knows may do anything."""


class InForce(Struct, frozen=True):
    """A mode and its end: seconds, monotonic."""

    mode: Mode = "normal"
    until: float = math.inf


NORMAL: Final = InForce()


class Modes:
    """The modes of the process and of tenants."""

    def __init__(self, settings: ModeSettings | None = None, *, most_tenants: int = MAX_TENANTS) -> None:
        self._most_tenants = most_tenants
        self._process = NORMAL
        self._tenants: dict[str, InForce] = {}
        self.lever: Lever = nobody_hears
        self.begin(settings or ModeSettings())

    def begin(self, settings: ModeSettings) -> None:
        """Other settings are in force. What operators set stays."""
        self._settings = settings
        self.is_normal = self._all_normal()
        """Whether no mode is in force, for anybody."""

    def set(self, mode: Mode, now: float, *, tenant: str | None = None, until: float = math.inf) -> None:
        """Set the mode of a tenant, or of the process; normal takes back what was set. Raises ValueError where
        too many tenants have one."""
        if tenant is None:
            self._process = InForce(mode, until)
        else:
            tenants = {
                name: each for name, each in self._tenants.items() if now < each.until and name != tenant
            }
            if mode != "normal":
                if len(tenants) >= self._most_tenants:
                    raise ValueError(
                        f"at most {self._most_tenants} tenants have a mode; take back some, or set the process's"
                    )
                tenants[tenant] = InForce(mode, until)
            self._tenants = tenants
        self.is_normal = self._all_normal()
        # How long is a length: moments of our own clock say nothing to whoever reads it later.
        lasts_s = None if until == math.inf else round(until - now, 3)
        self.lever("mode set", mode=mode, tenant=tenant, lasts_s=lasts_s)

    def in_force(self, tenant: str, now: float) -> InForce:
        """The strictest that holds for a tenant, until it ends."""
        if self.is_normal:
            return NORMAL
        settings = self._settings
        strictest = NORMAL
        for each in (
            InForce(settings.process),
            InForce(settings.tenants.get(tenant, "normal")),
            self._process,
            self._tenants.get(tenant, NORMAL),
        ):
            if now < each.until and _rank(each) > _rank(strictest):
                strictest = each
        return strictest

    def levers(self, now: float) -> tuple[InForce, dict[str, InForce]]:
        """What operators set: for the process, and for tenants."""
        process = self._process if now < self._process.until else NORMAL
        return process, {name: each for name, each in self._tenants.items() if now < each.until}

    def refusal(self, call: Call, tool_class: str, tenant: str, now: float) -> Refused | None:
        """Why the call is switched off at the moment, if it is. `tool_class` is that of a tools/call."""
        if self.is_normal:
            return None
        force = self.in_force(tenant, now)
        if passes(force.mode, call, tool_class):
            return None
        data = {"mode": force.mode}
        left_s = None if force.until == math.inf else force.until - now
        if force.mode == "maintenance":
            return Refused(
                Reason.MODE,
                "The server is under maintenance. Nothing was done; wait before you try again.",
                # RFC 9110, 15.6.4. What nobody waits for is dropped as ever: a 5xx ends sessions.
                status=503 if call.wants_answer else None,
                data=data,
                retry_after_s=self._settings.retry_after_s if left_s is None else left_s,
            )
        return Refused(Reason.MODE, _WORDS[force.mode], data=data, retry_after_s=left_s)

    def _all_normal(self) -> bool:
        settings = self._settings
        modes = [settings.process, *settings.tenants.values(), self._process.mode]
        return not self._tenants and all(each == "normal" for each in modes)


_WORDS: Final[Mapping[Mode, str]] = {
    "read-only": "Only what reads is possible until an operator ends this. Nothing was done; do not repeat the call, "
    "tell your user.",
    "no-delete": "What may destroy something is not possible until an operator ends this; other calls are. Nothing was "
    "done; do not repeat the call, tell your user.",
}


def passes(mode: Mode, call: Call, tool_class: str) -> bool:
    """Whether a mode lets a message through. Notifications, answers and what belongs to connections always pass:
    they start nothing. A tools/call counts by its class, however it is sent."""
    if mode == "normal" or call.kind in (Kind.ANSWER, Kind.LISTEN, Kind.END):
        return True
    method = call.method
    if method.startswith("notifications/") and call.kind is Kind.NOTIFICATION:
        return True
    if mode == "maintenance":
        return method in IN_MAINTENANCE
    if method in HARMLESS:
        return True
    if method != "tools/call":
        return False
    return tool_class == "read" or (mode == "no-delete" and tool_class == "write")


def _rank(force: InForce) -> int:
    return STRICTNESS[force.mode]
