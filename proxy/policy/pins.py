"""Is this tool still what was approved? A machine that sees lists pass and is asked about calls.

In: the tools of each page of tools/list with whoever asked for it. Out: a `Sight` for each tool (what is odd, whether
it changed, whether it may be listed), and for a call why it may not be. Keeps, bounded: what anybody saw last of each
tool, and of each caller only what was not in order. No clock, no IO.

A server may poison one caller only, so what each caller saw last counts for that caller; and what anybody saw last
counts for all, because whoever serves one poisoned list may serve the next caller another. Of two definitions of one
name in one walk through the pages the worse counts, whatever page it stands on.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from enum import StrEnum
from hashlib import sha256
from typing import Final

from msgspec import Struct, structs

from ..model import Identity
from .definitions import NAMELESS, Unreadable, define, hash_of, hash_of_text, name_of
from .flags import (
    flags_of,
    flags_of_text,
    is_longer,
    look_alikes,
    mentions_of,
    worst,
)
from .pin_changes import changes
from .pin_file import PinEntry, PinFile
from .pin_settings import Action, DefinitionSettings, PinSettings

MAX_UNPINNED: Final = 4_096
"""Tools without a pin whose last sight is kept; those with one are bounded by the lock file."""
MAX_IDENTITIES: Final = 10_000
MAX_BAD: Final = 65_536
"""Sights that were not in order, of all callers together: about 10 MB. What comes then counts for everybody until
other pins judge it."""
MAX_WALKS: Final = 128
MAX_WALK_NAMES: Final = 2_000
MAX_CACHED: Final = 4_096
"""Definitions whose flags are remembered."""


class State(StrEnum):
    """What a definition is to the lock file."""

    SAME = "same"
    CHANGED = "changed"
    UNPINNED = "unpinned"
    GONE = "gone"
    """Pinned, and no longer in a list that was seen whole."""
    UNWATCHED = "unwatched"
    """There is no lock file."""


class Sight(Struct, frozen=True, kw_only=True):
    """What was seen of one tool in one list."""

    name: str
    hash: str = ""
    state: State = State.UNWATCHED
    changes: tuple[str, ...] = ()
    """Fixed words for what changed: those of `pin_changes`, or renamed."""
    flags: tuple[str, ...] = ()
    """Fixed words for what is odd (flags.FLAGS), sorted."""
    action: Action = "report"
    """report: it is listed as it is. strip: without what hides in it. hide: it is not listed, calls are refused."""
    kinds: tuple[str, ...] = ()
    """What to strip (flags.stripped), where the action is strip."""

    @property
    def is_bad(self) -> bool:
        return self.state is State.CHANGED or self.action == "hide"


class Drift(Struct, frozen=True, kw_only=True):
    """Something differs from what was approved, or is odd: told once for each definition and caller."""

    identity: Identity
    sight: Sight


class _Looks(Struct, frozen=True):
    """What a definition is by itself, whoever shows it."""

    flags: frozenset[str]
    mentions: frozenset[str]


_Walk = Mapping[str, Sight]


class Pins:
    """`drifted` hears of everything that differs or is odd. `known_names` are those of the rules."""

    def __init__(
        self,
        drifted: Callable[[Drift], None],
        *,
        pinned: PinFile | None = None,
        settings: PinSettings | None = None,
        definitions: DefinitionSettings | None = None,
        known_names: Collection[str] = (),
    ) -> None:
        """`definitions` absent: nothing is looked for in definitions; `pinned` absent: nothing is compared."""
        self._drifted = drifted
        self._latest: dict[str, Sight] = {}
        self._latest_unpinned: OrderedDict[str, Sight] = OrderedDict()
        self._own: dict[Identity, dict[str, Sight]] = {}
        self._bad = 0
        self._for_all: dict[str, Sight] = {}
        self._walks: OrderedDict[tuple[Identity, bytes], _Walk] = OrderedDict()
        self._looks: OrderedDict[str, _Looks] = OrderedDict()
        self._told: OrderedDict[tuple[str, str, str], None] = OrderedDict()
        self.renew(pinned, settings, definitions, known_names)

    def renew(
        self,
        pinned: PinFile | None,
        settings: PinSettings | None,
        definitions: DefinitionSettings | None,
        known_names: Collection[str] = (),
    ) -> None:
        """Compare with other pins from now on. What was seen before is judged again: a reload approves nothing that
        the new file does not."""
        self._settings = settings
        self._definitions = definitions
        self._is_watching = pinned is not None
        self._pinned: dict[str, dict[str, PinEntry]] = {}
        self._nameless = set[str]()
        self._instructions = frozenset(pinned.instructions if pinned else ())
        for entry in pinned.tools if pinned else ():
            self._pinned.setdefault(entry.name, {})[entry.hash] = entry
            if NAMELESS in entry.digests and (entry.about or entry.parameters):
                self._nameless.add(entry.digests[NAMELESS])
        self._known = frozenset({*known_names, *self._pinned})
        self._looks.clear()
        self._walks.clear()
        for table in (self._for_all, *self._own.values()):
            for name, sight in list(table.items()):
                table[name] = self._again(sight)
        seen = [*self._latest_unpinned.values(), *self._latest.values()]
        self._latest.clear()
        self._latest_unpinned.clear()
        for sight in seen:
            self._seen_last(self._again(sight))
        self._forget_good()

    def heard(
        self, identity: Identity, tools: Sequence[object], *, cursor: str | None, next_cursor: str | None
    ) -> list[Sight]:
        """One page of tools/list passes: what was seen of each of its tools, in its order. `cursor` is what was asked
        for (None: the first page), `next_cursor` what the answer names (None: it was the last)."""
        walk = {} if cursor is None else self._walks.get((identity, _key(cursor)))
        before: _Walk = walk or {}
        sights = [self._look(tool) for tool in tools]
        names = {sight.name for sight in sights}
        alike = look_alikes((*names, *before), self._known) if self._definitions else frozenset[str]()
        everybody = self._known | names | before.keys()
        sights = [self._among(sight, alike, everybody) for sight in sights]
        standing = dict(before)
        copies: dict[str, list[int]] = {}
        for index, sight in enumerate(sights):
            first = standing.get(sight.name)
            if first is None or not sight.name:
                standing[sight.name] = sight
                copies.setdefault(sight.name, []).append(index)
            elif first.hash == sight.hash:
                sights[index] = self._flagged(sight, "duplicate_name")  # one of the two is listed
            else:
                twice = self._flagged(sight, "duplicate_name")
                sights[index] = twice
                standing[sight.name] = _worse(self._flagged(first, "duplicate_name"), twice)
                for at in copies.get(sight.name, ()):
                    sights[at] = self._flagged(sights[at], "duplicate_name")
                copies.setdefault(sight.name, []).append(index)
        for name in alike & before.keys():
            standing[name] = self._flagged(standing[name], "look_alike")
        for name, sight in standing.items():
            if sight is not before.get(name):
                self._keep(identity, sight, is_whole=walk is not None)
        for sight in sights:
            self._tell(identity, sight)
        self._walked(identity, standing, next_cursor, is_whole=walk is not None)
        return sights

    def heard_instructions(self, identity: Identity, text: str) -> Sight:
        """The server's instructions pass (initialize, server/discover). hide: take them out."""
        flags = set[str]()
        if self._definitions is not None:
            if is_longer(text, self._definitions.max_description_bytes):
                flags.add("too_long")
            else:
                flags |= flags_of_text(text)
        try:
            hash = hash_of_text(text)
        except Unreadable:
            hash = ""
        state = State.UNWATCHED
        if self._instructions:
            state = State.SAME if hash in self._instructions else State.CHANGED
        what = ("instructions",) if state is State.CHANGED else ()
        sight = self._decided(
            Sight(name="", hash=hash, state=state, changes=what, flags=tuple(sorted(flags)))
        )
        self._tell(identity, sight)
        return sight

    def why_not(self, identity: Identity, name: str) -> str | None:
        """Why a call to this tool is refused; None when it is not. Fixed texts, for a model to read."""
        own = self._own.get(identity, {}).get(name)
        for sight in (own, self._for_all.get(name), self.last_seen(name)):
            if sight is not None and sight.action == "hide":
                if not self._blocks(sight.state):
                    return _ODD
                return _CHANGED if sight.state is State.CHANGED else _NEW
        if self._settings is None or not self._is_watching:
            return None
        if name not in self._pinned:
            return _NEW if self._settings.on_new == "block" else None
        return _UNSEEN if self._settings.on_unseen == "block" and name not in self._latest else None

    def last_seen(self, name: str) -> Sight | None:
        """What anybody saw last of this tool, for people who ask."""
        return self._latest.get(name) or self._latest_unpinned.get(name)

    def _look(self, tool: object) -> Sight:
        name = ""
        try:
            name = name_of(tool)
            assert isinstance(tool, dict)
            hash = hash_of(tool)
        except Unreadable:
            state = State.UNWATCHED
            if self._is_watching:
                state = State.CHANGED if name in self._pinned else State.UNPINNED
            flags = ("unreadable",) if self._definitions is not None else ()
            return self._decided(Sight(name=name, state=state, flags=flags))
        looks = self._looks_of(tool, hash)
        state, what = self._compared(name, hash, tool)
        found = tuple(sorted(looks.flags))
        return self._decided(Sight(name=name, hash=hash, state=state, changes=what, flags=found))

    def _looks_of(self, tool: dict[str, object], hash: str) -> _Looks:
        settings = self._definitions
        if settings is None:
            return _NOTHING
        looks = self._looks.get(hash)
        if looks is None:
            flags = flags_of(tool, settings)
            mentions = frozenset[str]() if "too_long" in flags else mentions_of(tool)
            looks = self._looks[hash] = _Looks(flags, mentions)
            if len(self._looks) > MAX_CACHED:
                self._looks.popitem(last=False)
        else:
            self._looks.move_to_end(hash)
        return looks

    def _compared(self, name: str, hash: str, tool: dict[str, object]) -> tuple[State, tuple[str, ...]]:
        if not self._is_watching:
            return State.UNWATCHED, ()
        entries = self._pinned.get(name)
        if entries is not None and hash in entries:
            return State.SAME, ()
        try:
            definition = define(tool, hash)
        except Unreadable:
            return State.CHANGED, ("definition",)
        if entries is None:
            is_renamed = definition.parts[NAMELESS] in self._nameless
            return (State.CHANGED, ("renamed",)) if is_renamed else (State.UNPINNED, ())
        return State.CHANGED, min((tuple(changes(entry, definition)) for entry in entries.values()), key=len)

    def _again(self, sight: Sight) -> Sight:
        """What was seen, judged by the pins of today."""
        entries = self._pinned.get(sight.name)
        state = State.UNPINNED
        if not self._is_watching:
            state = State.UNWATCHED
        elif entries is not None:
            state = State.SAME if sight.hash in entries else State.CHANGED
        elif sight.changes == ("renamed",):
            state = State.CHANGED
        changed: tuple[str, ...] = ()
        if state is State.CHANGED:
            changed = sight.changes or ("definition",)
        flags = sight.flags if self._definitions is not None else ()
        return self._decided(structs.replace(sight, state=state, changes=changed, flags=flags))

    def _among(self, sight: Sight, alike: Collection[str], everybody: Collection[str]) -> Sight:
        """The sight with what only its neighbours show."""
        if sight.name in alike:
            sight = self._flagged(sight, "look_alike")
        looks = self._looks.get(sight.hash)
        if looks is not None and not looks.mentions.isdisjoint(everybody):
            sight = self._flagged(sight, "mentions_tools")
        return sight

    def _flagged(self, sight: Sight, flag: str) -> Sight:
        if self._definitions is None or flag in sight.flags:
            return sight
        return self._decided(structs.replace(sight, flags=tuple(sorted((*sight.flags, flag)))))

    def _decided(self, sight: Sight) -> Sight:
        """The sight with what becomes of it."""
        actions: dict[str, Action] = {}
        if self._definitions is not None:
            actions = {flag: self._definitions.action_of(flag) for flag in sight.flags}
        kinds = tuple(flag for flag, action in actions.items() if action == "strip")
        action: Action = "hide" if self._blocks(sight.state) else worst([*actions.values()])
        return structs.replace(sight, action=action, kinds=kinds if action == "strip" else ())

    def _blocks(self, state: State) -> bool:
        settings = self._settings
        if settings is None:
            return False
        return (state is State.CHANGED and settings.on_change == "block") or (
            state is State.UNPINNED and settings.on_new == "block"
        )

    def _keep(self, identity: Identity, sight: Sight, *, is_whole: bool) -> None:
        """Remember what this caller, and so somebody, saw last. A page whose walk is unknown improves nothing: the
        page before may have held the other half."""
        name = sight.name
        if not name:
            return
        latest = self.last_seen(name)
        if is_whole or latest is None or not latest.is_bad:
            self._seen_last(sight)
        own = self._own.get(identity)
        if sight.is_bad:
            self._keep_bad(identity, sight)
        elif is_whole and own is not None and own.pop(name, None) is not None:
            self._bad -= 1
            if not own:
                del self._own[identity]

    def _seen_last(self, sight: Sight) -> None:
        if sight.name in self._pinned:
            self._latest[sight.name] = sight
            return
        self._latest_unpinned[sight.name] = sight
        self._latest_unpinned.move_to_end(sight.name)
        if len(self._latest_unpinned) > MAX_UNPINNED:
            self._latest_unpinned.popitem(last=False)

    def _keep_bad(self, identity: Identity, sight: Sight) -> None:
        own = self._own.get(identity)
        if own is None or sight.name not in own:
            if self._bad >= MAX_BAD or (own is None and len(self._own) >= MAX_IDENTITIES):
                # Whose sight it was is not known any more: it counts until other pins judge it. Only what is pinned:
                # names that the server makes up have no end.
                if sight.name in self._pinned:
                    self._for_all[sight.name] = sight
                return
            self._bad += 1
        self._own.setdefault(identity, {})[sight.name] = sight

    def _forget_good(self) -> None:
        for identity, own in list(self._own.items()):
            for name in [name for name, sight in own.items() if not sight.is_bad]:
                del own[name]
                self._bad -= 1
            if not own:
                del self._own[identity]
        for name in [name for name, sight in self._for_all.items() if not sight.is_bad]:
            del self._for_all[name]

    def _walked(
        self, identity: Identity, standing: _Walk, next_cursor: str | None, *, is_whole: bool
    ) -> None:
        if next_cursor is not None:
            if is_whole and len(standing) <= MAX_WALK_NAMES:
                self._walks[identity, _key(next_cursor)] = standing
                self._walks.move_to_end((identity, _key(next_cursor)))
                if len(self._walks) > MAX_WALKS:
                    self._walks.popitem(last=False)
            return
        if is_whole:
            for name in self._pinned.keys() - standing.keys():
                self._tell(identity, Sight(name=name, state=State.GONE))
            for name in standing:
                self._told.pop((name, "", State.GONE), None)  # it may go again

    def _tell(self, identity: Identity, sight: Sight) -> None:
        if sight.state in (State.SAME, State.UNWATCHED) and not sight.flags:
            return
        whose = repr(identity) if sight.is_bad else ""
        told = (sight.name, sight.hash, f"{sight.state}{whose}" if sight.hash else sight.state)
        if told not in self._told:
            self._told[told] = None
            if len(self._told) > MAX_CACHED:
                self._told.popitem(last=False)
            self._drifted(Drift(identity=identity, sight=sight))


def _worse(one: Sight, other: Sight) -> Sight:
    return max(one, other, key=lambda sight: (sight.action == "hide", sight.is_bad, sight.action == "strip"))


def _key(cursor: str) -> bytes:
    """Cursors are the server's, and of any length."""
    return sha256(cursor.encode("utf-8", "surrogatepass")).digest()


_NOTHING: Final = _Looks(frozenset(), frozenset())
_CHANGED: Final = (
    "The definition of this tool is not the one that was approved, so it cannot be called. Use another tool, or ask "
    "the operator to look at the change and approve it."
)
_NEW: Final = (
    "This tool has not been approved, so it cannot be called. Use another tool, or ask the operator to look at it "
    "and approve it."
)
_ODD: Final = (
    "The definition of this tool breaks the rules for definitions here, so it cannot be called. Use another tool, or "
    "ask the operator to look at it."
)
_UNSEEN: Final = (
    "The definition of this tool has not been compared with the approved one yet. List the tools, then call it "
    "again."
)
