"""Has a person agreed to this call? A bounded table of challenges, given `now`.

In: calls that a rule or an operator gates, and the decisions of operators. Out: the challenge that a call waits for,
and whether it may run. Keeps open challenges and what operators set for tenants, until each ends.

A challenge is bound to who calls (issuer, subject, tenant), to the tool, to what the call says, and to the policy in
force. The same call asked again meets the same challenge; a released one lets one call pass and is gone. Everything
here is decided without waiting, so of two equal calls at once only one can use a release.
"""

from __future__ import annotations

import math
import re
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from typing import Final, Literal, TypeAlias, TypeVar

from msgspec import Struct, structs

from ..configuration.globs import regex_of
from ..model import Call, Identity, Lever, Principal, Reason, Refused, nobody_hears
from ..protocol.canonical import canonical, digest
from .guard_settings import Approval

State: TypeAlias = Literal["waiting", "released", "rejected"]

SHOWN_BYTES: Final = 4_096
"""Longest arguments that are kept for whoever decides."""
MAX_OVERRIDES: Final = 100
"""Of one tenant: each is compared with every call of it."""


class Bounds(Struct, frozen=True, kw_only=True):
    """How many challenges may be open. Nothing open is ever dropped for others: who reaches a bound waits."""

    subject: int = 32
    """One identity, so that a model in a loop does not silence its colleagues."""
    tenant: int = 256
    """One tenant, so that no flood of it reaches the others."""
    total: int = 2_048
    """With what is kept for whoever decides, 8 MiB at most."""


class Wanted(Struct, frozen=True, kw_only=True):
    """What somebody wants to do."""

    identity: Identity
    tool: str
    digest: bytes
    """SHA-256 of the tool and of everything the call says, however it is written."""
    arguments: bytes | None
    """The arguments as canonical JSON, for whoever decides; None where they are longer than SHOWN_BYTES."""

    @property
    def tenant(self) -> str:
        return self.identity[2]

    def __repr__(self) -> str:
        return f"Wanted({self.tool!r})"  # arguments may hold secrets, and reprs end up in logs


class Challenge(Struct, frozen=True, kw_only=True):
    """A call that waits for a person, or whose person has decided."""

    id: str
    wanted: Wanted
    state: State = "waiting"
    expires: float
    """Seconds, monotonic; then it is as unknown as one that never was."""
    decided_by: str = ""


class Override(Struct, frozen=True, kw_only=True):
    """What an operator set for tools of one tenant, whatever the rules say."""

    tenant: str
    tool: str
    """A glob, as in rules."""
    approval: Approval
    until: float = math.inf
    """Seconds, monotonic."""


def wanted(call: Call, principal: Principal) -> Wanted:
    """What a tools/call wants, without what differs each time it is sent.

    Everything in `params` counts but `_meta` (progress tokens, traces): in 2026-07-28 a call may continue another
    with answers of its user, and what was agreed to once must not let other answers pass.
    """
    arguments = canonical(call.arguments)
    return Wanted(
        identity=principal.identity,
        tool=call.target or "",
        digest=fingerprint(call),
        arguments=arguments if len(arguments) <= SHOWN_BYTES else None,
    )


def fingerprint(call: Call) -> bytes:
    """SHA-256 of the tool and of what is said to it. No arguments and empty ones are the same to every server."""
    rest = {key: value for key, value in call.params.items() if key not in ("_meta", "arguments", "name")}
    return digest([call.target, call.arguments, rest])


class Approvals:
    """The challenges that are open, and what operators set."""

    def __init__(
        self, ttl_s: float, generation: str, token: Callable[[], str], bounds: Bounds | None = None
    ) -> None:
        """`generation` names the policy in force; `token` gives 128 fresh random bits as printable text."""
        self._ttl_s = ttl_s
        self._generation = generation
        self._token = token
        self._bounds = bounds or Bounds()
        # In the order in which they expire: every entry is put at the end with the same time to live.
        self._open: OrderedDict[str, Challenge] = OrderedDict()
        self._ids: dict[tuple[Identity, bytes], str] = {}
        self._of_subject: Counter[Identity] = Counter()
        self._of_tenant: Counter[str] = Counter()
        self._overrides: dict[str, list[tuple[re.Pattern[str], Override]]] = {}
        self.lever: Lever = nobody_hears

    def __len__(self) -> int:
        return len(self._open)

    def begin(self, ttl_s: float, generation: str) -> None:
        """Another policy is in force: what was asked under the last one has to be asked again. What operators
        set for tenants stays."""
        if (ttl_s, generation) != (self._ttl_s, self._generation):
            self._ttl_s, self._generation = ttl_s, generation
            for id in list(self._open):
                self._drop(id)

    def approval(self, tenant: str, tool: str, rule: Approval, now: float) -> Approval:
        """What holds for a tool of a tenant: what an operator set last for it, else what the rule says."""
        found = self.override_of(tenant, tool, now) if self._overrides else None
        return rule if found is None else found.approval

    @property
    def has_overrides(self) -> bool:
        """Whether operators set anything."""
        return bool(self._overrides)

    def override_of(self, tenant: str, tool: str, now: float) -> Override | None:
        """What an operator set last for a tool of a tenant."""
        for pattern, override in self._overrides.get(tenant, ()):
            if now < override.until and pattern.fullmatch(tool):
                return override
        return None

    def ask(self, wants: Wanted, generation: str, now: float) -> Challenge:
        """The challenge of this call, opened where there is none yet. Raises Refused where there is no room, and
        where the call was judged by another policy than the one in force."""
        if generation != self._generation:
            raise Refused(
                Reason.APPROVAL_REQUIRED,
                "The policy changed while it was under way; send the call once more.",
            )
        self._sweep(now)
        key = wants.identity, wants.digest
        id = self._ids.get(key)
        return self._opened(wants, key, now) if id is None else self._open[id]

    def use(self, ids: Sequence[str], now: float) -> tuple[Challenge, ...] | None:
        """The calls of these challenges run now: their releases are spent. None, and nothing is spent, where one
        of them is no release that can be."""
        known = [self._known(id, now) for id in ids]
        if len(set(ids)) < len(ids) or any(each is None or each.state != "released" for each in known):
            return None
        return tuple(self._drop(id) for id in ids)

    def release(self, id: str, by: str, now: float) -> Challenge | None:
        """A person agreed. None where nothing of this id waits."""
        known = self._known(id, now)
        if known is None or known.state != "waiting":
            return None
        released = structs.replace(known, state="released", decided_by=by, expires=now + self._ttl_s)
        self._open[id] = released
        self._open.move_to_end(id)
        self._told("approval given", released)
        return released

    def reject(self, id: str, by: str, now: float) -> Challenge | None:
        """A person said no, or took a yes back that no call has used. The same call is not asked about again
        before the challenge expires. None where there is nothing to reject."""
        known = self._known(id, now)
        if known is None or known.state == "rejected":
            return None
        rejected = structs.replace(known, state="rejected", decided_by=by)
        self._open[id] = rejected
        self._told("approval refused", rejected)
        return rejected

    def _told(self, what: str, challenge: Challenge) -> None:
        wants = challenge.wanted
        issuer, subject, tenant = wants.identity
        self.lever(
            what,
            by=challenge.decided_by,
            approval_id=challenge.id,
            tool=wants.tool,
            issuer=issuer,
            subject=subject,
            tenant=tenant,
        )

    def pending(self, now: float, tenant: str | None = None) -> tuple[Challenge, ...]:
        """What waits for a person, the oldest first; of one tenant, or of all."""
        self._sweep(now)
        return tuple(
            each
            for each in self._open.values()
            if each.state == "waiting" and tenant in (None, each.wanted.tenant)
        )

    def override(self, override: Override, now: float) -> None:
        """Set what holds for tools of a tenant: of several that fit a tool, the one set last. Raises ValueError
        where the tenant has too many."""
        mine = [
            (pattern, each)
            for pattern, each in self._overrides.get(override.tenant, ())
            if now < each.until and each.tool != override.tool
        ]
        if len(mine) >= MAX_OVERRIDES:
            raise ValueError(f"one tenant has at most {MAX_OVERRIDES} overrides; clear some first")
        pattern = re.compile(regex_of(override.tool), re.DOTALL)
        self._overrides[override.tenant] = [(pattern, override), *mine]
        lasts_s = None if override.until == math.inf else round(override.until - now, 3)
        self.lever(
            "approval policy set",
            tenant=override.tenant,
            tool=override.tool,
            approval=override.approval,
            lasts_s=lasts_s,
        )

    def clear(self, tenant: str, tool: str) -> bool:
        """Take back what was set for exactly this glob. False where nothing was."""
        mine = self._overrides.get(tenant, [])
        left = [each for each in mine if each[1].tool != tool]
        if left:
            self._overrides[tenant] = left
        else:
            self._overrides.pop(tenant, None)
        if len(left) < len(mine):
            self.lever("approval policy taken back", tenant=tenant, tool=tool)
        return len(left) < len(mine)

    def overrides(self, now: float, tenant: str | None = None) -> tuple[Override, ...]:
        """What is set, the newest of each tenant first."""
        return tuple(
            each
            for name, mine in self._overrides.items()
            for _, each in mine
            if now < each.until and tenant in (None, name)
        )

    def _opened(self, wants: Wanted, key: tuple[Identity, bytes], now: float) -> Challenge:
        bounds = self._bounds
        if (
            self._of_subject[wants.identity] >= bounds.subject
            or self._of_tenant[wants.tenant] >= bounds.tenant
            or len(self._open) >= bounds.total
        ):
            raise Refused(
                Reason.APPROVAL_REQUIRED,
                "Too many calls wait for a person already, so this one was not put to anybody. Do not repeat it "
                "before some of those were decided.",
            )
        id = self._token()
        if id in self._open:
            raise RuntimeError("the source of random ids repeats itself")
        challenge = Challenge(id=id, wanted=wants, expires=now + self._ttl_s)
        self._open[id] = challenge
        self._ids[key] = id
        self._of_subject[wants.identity] += 1
        self._of_tenant[wants.tenant] += 1
        return challenge

    def _known(self, id: str, now: float) -> Challenge | None:
        known = self._open.get(id)
        return known if known is not None and now < known.expires else None

    def _sweep(self, now: float) -> None:
        while self._open:
            id, oldest = next(iter(self._open.items()))
            if now < oldest.expires:
                return
            self._drop(id)

    def _drop(self, id: str) -> Challenge:
        challenge = self._open.pop(id)
        wants = challenge.wanted
        del self._ids[wants.identity, wants.digest]
        _one_less(self._of_subject, wants.identity)
        _one_less(self._of_tenant, wants.tenant)
        return challenge


Owner = TypeVar("Owner", Identity, str)


def _one_less(counter: Counter[Owner], owner: Owner) -> None:
    counter[owner] -= 1
    if not counter[owner]:
        del counter[owner]


def denied() -> Refused:
    """Nobody is asked about this tool."""
    return Refused(
        Reason.NOT_ALLOWED, "No approval is given for this tool. Do not repeat the call; tell your user."
    )


def unheard() -> Refused:
    """A notification cannot be told what it waits for."""
    return Refused(Reason.APPROVAL_REQUIRED, "Send it as a request, or no confirmation id can be answered.")


def twice() -> Refused:
    """One release lets one call pass."""
    return Refused(
        Reason.APPROVAL_REQUIRED, "The batch holds the same call twice. Send each in a request of its own."
    )


def required(challenges: list[Challenge], now: float, *, in_batch: bool = False) -> Refused:
    """What a call is told that waits for a person, or whose person said no."""
    first = next((each for each in challenges if each.state == "rejected"), challenges[0])
    ids = [each.id for each in challenges]
    if first.state == "rejected":
        why = (
            f"A person has rejected it (confirmation id {first.id}). Do not repeat it; ask your user what to do "
            "instead."
        )
    else:
        why = (
            f"Nothing was done. Give the confirmation id {', '.join(ids)} to your user or to whoever may approve "
            "it, and wait: do not repeat the call before they say that it is approved. Then send exactly the same "
            "call once; the approval holds for one call with these arguments."
        )
    data: dict[str, object] = {
        "confirmationId": first.id,
        "expiresInMs": int(max(0.0, min(each.expires for each in challenges) - now) * 1000),
    }
    if in_batch:
        why = f"{why} Nothing of its batch was forwarded."
        data["confirmationIds"] = ids
    return Refused(Reason.APPROVAL_REQUIRED, why, data=data)
