"""Settings → the policy room, with what it hears and what stands before the server's side.

In: settings and packs. Out: a `Policy`: who authorises, which ears listen, and the stages around the server. Without a
policy section there are none of these, and everything is allowed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from ..configuration.globs import has_wildcard
from ..model import Call, Listen, Principal, Rule, Shelve, Stage, shelve_nothing
from ..refusals import Form
from .approvals import Approvals
from .guards import Guarded
from .learning import Learning, Lessons
from .listing import Listing, VisibleOnly
from .modes import Modes
from .redacting import Redactions
from .redaction import Redaction, Tell
from .repetition import Repetition
from .rules import Rules, no_pins
from .schemas import Schemas
from .settings import PackSettings, PolicySettings
from .tool_classes import HintTable

if TYPE_CHECKING:
    from .pin_file import PinFile
    from .pins import Drift, Pins


class Policy:
    """The policy room as the house uses it."""

    def __init__(
        self,
        settings: PolicySettings | None,
        packs: Sequence[PackSettings] = (),
        *,
        form: Form,
        found: Tell,
        drifted: Callable[[Drift], None],
        token: Callable[[], str],
        shelve: Shelve = shelve_nothing,
    ) -> None:
        """`form` is that of refusals; `found` hears what is found in what the server says, never its text; `drifted`
        of tools that are not as they were approved; `token` gives 128 fresh random bits as printable text.
        `shelve` gives what operators set and what the server taught before a reload; until `enter` that is as it was.
        Raises SettingsError for a lock file that cannot be read."""
        self._settings = settings
        chosen = settings or PolicySettings()
        self.generation = generation_of(chosen, packs)
        """Names the policy in force."""
        self._chosen = chosen
        self.approvals = shelve(
            "approvals", None, lambda: Approvals(chosen.approvals.approval_ttl_s, self.generation, token)
        )
        """What operators release, reject and set for tenants."""
        self.modes = shelve("modes", None, lambda: Modes(chosen.modes))
        """What operators switch off."""
        hints = shelve("hints", None, HintTable)
        # Each asks the other: which tools are validated, and why a call does not fit.
        schemas = self._schemas = shelve("schemas", None, lambda: Schemas(self._validates))
        self._pinned = self._read_pins()
        is_watching = chosen.pins is not None or chosen.definitions is not None
        self.pins: Pins | None = None
        if is_watching:
            from .pins import Pins  # its patterns take longer than all other rules

            self.pins = shelve("pins", None, lambda: self._compare(Pins(drifted)))
        unpinned = self._why_unpinned if is_watching else no_pins
        self.rules = Rules(settings, packs, hints.of, schemas.why_not, found, unpinned)
        self._redactions: Redactions | None = None
        self.listens: tuple[Listen, ...] = ()
        """Ears for exchanges, in the order in which they hear."""
        self._listing: Listing | None = None
        self._repetition: Repetition | None = None
        if settings is None:
            return
        if (repetition := settings.repetition) is not None:
            self._repetition = shelve("repetition", repetition, lambda: Repetition(repetition))
        # Learnt before anything is cut out: a tool that one caller may not see has hints all the same.
        lessons = Lessons(
            tools=(hints.learn, schemas.heard, self._see_tools),
            instructions=() if self.pins is None else (self._see_instructions,),
            changed=(schemas.changed,) if self.rules.validates_any else (),
        )
        self.listens = (Learning(lessons),)
        if settings.elicitation is not None:
            from .elicitation import ASKED, Forms

            is_blocking = settings.elicitation.secrets == "block" and settings.mode == "enforce"
            forms = Forms(is_blocking=is_blocking, found=lambda action: found(ASKED, action, 1))
            self.listens = (*self.listens, forms)
        if self.rules.redactions:
            every = Redaction.joined(self.rules.redactions, found)
            self._redactions = Redactions(self.rules.redaction_of, every, found, form=form)
            self.listens = (*self.listens, self._redactions.listen)
        if settings.mode == "enforce":
            cleaning = None
            if settings.definitions is not None and self.pins is not None:
                from .cleaning import Cleaning

                cleaning = Cleaning(settings.definitions, self.pins)
            self._listing = Listing(
                self.rules.may_use,
                self.rules.may_use_template,
                lists_differ=self.rules.tells_callers_apart,
                cleaning=cleaning,
                learn=lessons.learn,
            )
            self.listens = (*self.listens, self._listing.listen)

    def shown(self, serve: Stage) -> Stage:
        """The stage behind what shows callers only what they may use, and see only what they may."""
        if self._redactions is not None:
            serve = self._redactions.guarded(serve)
        return serve if self._listing is None else VisibleOnly(serve, self._listing)

    def guarded(self, serve: Stage) -> Stage:
        """The stage behind modes, approvals and the repetition guard."""
        if self._settings is None:
            return serve
        return Guarded(
            serve,
            rule_of=self.rule_of,
            modes=self.modes,
            approvals=self.approvals,
            repetition=self._repetition,
            generation=self.generation,
        )

    @property
    def pin_files(self) -> tuple[str, ...]:
        """The lock file, where there is one: read again when it changes."""
        pins = self._settings.pins if self._settings else None
        return () if pins is None else (pins.file,)

    def enter(self) -> None:
        """It is in force from now on, also for what was there before."""
        chosen = self._chosen
        self.approvals.begin(chosen.approvals.approval_ttl_s, self.generation)
        self.modes.begin(chosen.modes)
        self._schemas.follow(self._validates)
        if self.pins is not None:
            self._compare(self.pins)

    def renew_pins(self) -> None:
        """Compare with what the lock file says now. Raises SettingsError, and keeps the old pins, where it is none."""
        if self.pins is not None and self._chosen.pins is not None:
            self._pinned = self._read_pins()
            self._compare(self.pins)

    def _read_pins(self) -> PinFile | None:
        """Raises SettingsError for a lock file that cannot be read."""
        if self._chosen.pins is None:
            return None
        from .pin_file import read_pins

        return read_pins(self._chosen.pins.file)

    def _compare(self, pins: Pins) -> Pins:
        chosen = self._chosen
        known = [rule.match for rule in chosen.tools if not has_wildcard(rule.match)]
        pins.renew(self._pinned, chosen.pins, chosen.definitions, known)
        return pins

    def _see_tools(self, principal: Principal, call: Call, page: Mapping[str, object]) -> None:
        tools = page.get("tools")
        if self.pins is None or not isinstance(tools, list):
            return
        cursor, following = call.params.get("cursor"), page.get("nextCursor")
        self.pins.heard(
            principal.identity,
            tools,
            cursor=cursor if isinstance(cursor, str) else None,
            next_cursor=following if isinstance(following, str) else None,
        )

    def _see_instructions(self, principal: Principal, text: str) -> None:
        if self.pins is not None:
            self.pins.heard_instructions(principal.identity, text)

    def _why_unpinned(self, principal: Principal, name: str) -> str | None:
        return None if self.pins is None else self.pins.why_not(principal.identity, name)

    def _validates(self, name: str) -> bool:
        return self.rules.validates(name)

    def rule_of(self, call: Call, principal: Principal) -> Rule:
        """The rule that decides one message."""
        return self.rules.decide(call, principal).rule


def generation_of(settings: PolicySettings, packs: Sequence[PackSettings]) -> str:
    """Names the policy in force: what a person agreed to under one does not hold under another."""
    said = msgspec.json.encode([settings, list(packs)], order="deterministic", enc_hook=_plain)
    return hashlib.sha256(said).hexdigest()[:16]


def _plain(value: object) -> object:
    """Settings hold mappings that cannot be changed."""
    assert isinstance(value, Mapping)
    return dict(value)
