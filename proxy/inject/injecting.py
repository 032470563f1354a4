"""What becomes of a text of manifests? Text and wishes in; the text with sidecars, and what was done, out. Pure.

Refuses as a whole: a manifest of which half was worked on would be applied.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec import Struct, field

from ..configuration.mistakes import Mistake, SettingsError, shown
from .edits import Change, Edit, apply, edits_of, style_of
from .nodes import Document, read, refusal
from .pods import SPECS, Plan, Workload, plan, services_of
from .proof import is_as_meant
from .services import name_of, plan_service, selects
from .spots import Spot
from .wishes import Wish
from .writing import Style


class Injected(Struct, frozen=True):
    """The new text, and a line about each thing that was looked at."""

    text: str
    notes: tuple[str, ...]
    edits: tuple[Edit, ...]
    """What was done to the old one."""


class _Thing(Struct, frozen=True):
    """An object of Kubernetes: `kind/name`, and where it stands."""

    spot: Spot
    group: str
    kind: str
    name: str


class _Done(Struct):
    changes: list[Change] = field(default_factory=list)
    edits: list[Edit] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def injected(
    text: str, source: str, wish: Wish, *, services: Sequence[str] = (), only: Sequence[str] = ()
) -> Injected:
    """Add the sidecar to every workload in `text`, and lead its Services there.

    `services`: names of Services that are moved though nothing here shows that they lead to the server. `only`:
    `kind/name` of the workloads that get a sidecar; empty: all. Raises SettingsError with every mistake.
    """
    documents = read(text, source)
    things = [thing for each in documents for thing in _things(each, source)]
    _check_named(things, source, services, only)
    done = _Done()
    mistakes: list[Mistake] = []
    workloads: list[Workload] = []
    for thing in things:
        way = SPECS.get((thing.group, thing.kind))
        if way is None or (
            only and f"{thing.kind}/{thing.name}".lower() not in {each.lower() for each in only}
        ):
            continue
        try:
            leading = [
                it for it in things if _is_service(it) and selects(it.spot, *services_of(thing.spot, way))
            ]
            found = plan(thing.spot, thing.kind, way, wish, tuple(dict.fromkeys(it.name for it in leading)))
            _work(text, thing, found, done)
            workloads += [found.workload] if found.workload else []
        except SettingsError as error:
            mistakes += error.mistakes
    for thing in filter(_is_service, things):
        try:
            _work(text, thing, plan_service(thing.spot, wish, workloads, services), done)
        except SettingsError as error:
            mistakes += error.mistakes
    if mistakes:
        raise SettingsError(tuple(sorted(mistakes, key=lambda it: it.line or 0)))
    after = apply(text, done.edits)
    _prove(documents, after, done.changes, source)
    return Injected(after, tuple(done.notes), tuple(done.edits))


def _things(document: Document, source: str) -> Iterator[_Thing]:
    """The objects of a document: itself, or those of a List."""
    yield from _unlisted(Spot(document, source, document.root))


def _unlisted(spot: Spot) -> Iterator[_Thing]:
    version, kind = spot.text_of("apiVersion"), spot.text_of("kind")
    if version is None or kind is None:
        return
    group, slash, _ = version.partition("/")
    if kind == "List" and not slash:
        for each in spot.listed("items"):
            yield from _unlisted(each)
        return
    name = spot.text_of("metadata", "name") or spot.text_of("metadata", "generateName")
    yield _Thing(spot, group if slash else "", kind, name or "?")


def _is_service(thing: _Thing) -> bool:
    """Knative has Services too, and they are something else."""
    return (thing.group, thing.kind) == ("", "Service")


def _check_named(things: Sequence[_Thing], source: str, services: Sequence[str], only: Sequence[str]) -> None:
    """What an option names has to be there: a misspelt name would change nothing."""
    there = {name_of(each.spot) for each in things if _is_service(each)}
    kinds = {f"{each.kind}/{each.name}".lower() for each in things if (each.group, each.kind) in SPECS}
    for option, names, known in (
        ("--service", services, there),
        ("--only", [it.lower() for it in only], kinds),
    ):
        for each in names:
            if each not in known:
                words = ", ".join(shown(it) for it in sorted(known)) or "none"
                why = f"here are: {words}"
                raise refusal(
                    f"{source}: {option} {shown(each)}", None, "", "is not here", why, "name one of them"
                )


def _work(text: str, thing: _Thing, found: Plan, done: _Done) -> None:
    """Turn what was planned into edits, all or none of them. Raises Refusal."""
    edits = [edit for each in found.changes for edit in edits_of(text, each, _style(text, thing))]
    done.edits += edits
    done.changes += found.changes
    line = thing.spot.node.place.line
    done.notes += [
        f"{thing.spot.source}:{line}: {thing.kind} {shown(thing.name)}: {note}" for note in found.notes
    ]


def _style(text: str, thing: _Thing) -> Style:
    spot = thing.spot.down(*SPECS.get((thing.group, thing.kind), ()), "spec")
    return style_of(text, spot, "containers") if spot else Style()


def _prove(before: Sequence[Document], text: str, changes: Sequence[Change], source: str) -> None:
    what, remedy = "cannot be edited safely", "write what is in flow style, or behind ?, in lines of its own"
    why = "the result would not be what was meant; this is a mistake of ours"
    try:
        is_good = is_as_meant(before, read(text, source), changes)
    except SettingsError:
        is_good = False
    if not is_good:
        raise refusal(source, None, "", what, why, remedy)
