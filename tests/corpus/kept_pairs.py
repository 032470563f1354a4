"""Made-up evidence for the sentences of checks/kept.py: what honours each, and ways to break it.

Read by test_checkers.py.
"""

from typing import Any

from msgspec.structs import replace

from tests.corpus.cache_stand import CAROL, ROOT, SAME_KEY
from tests.corpus.evidence import Reading, Told
from tests.corpus.fake_server import ALICE, BOB, NUMBER
from tests.corpus.made_up import CALL, answer, answered, case, refusal, request, seen

Change = dict[str, Any]

OLD = "corpus-answer-1"
NEW = "corpus-answer-2"


def document(number: str | None = NEW, id: Any = 1, **members: Any) -> Change:
    """An answer with a number."""
    meta = {} if number is None else {"_meta": {NUMBER: number}}
    return {"jsonrpc": "2.0", "id": id, "result": {"content": [], **meta, **members}}


def told(number: str | None = OLD, who: str = ALICE, *, is_kept: bool = False, body: bytes = b"") -> Told:
    return Told(who=who, number=number, is_kept=is_kept, body=body)


def said(number: str | None = NEW, **members: Any) -> Change:
    """The change to Evidence: this was the answer, something was told before, and the server was asked."""
    return {**answered(200, document(number, **members)), "told": (told(),), **seen()}


def afterwards(*kept: bool) -> Change:
    return {"afterwards": tuple(told(f"later-{at}", is_kept=each) for at, each in enumerate(kept))}


def reading(place: int, told: str | None = "", *, has_left: bool = False) -> Reading:
    """One of a crowd; told what it is to be told unless something is given."""
    number = f"kept-{place}"
    return Reading(who=BOB, doc="7", number=number, told=number if told == "" else told, has_left=has_left)


UNASKED: Change = {"upstream": (), "upstream_bytes": b""}
HIT = {**said(OLD), **UNASKED}
NOT_ASKED = {**said(), **UNASKED}
LEFT = (reading(0, None, has_left=True),)
READ = {**said(), "readings": (*LEFT, *(reading(place) for place in range(1, 20)))}
MINE = request(body={**CALL, "id": "mine"})
OWN_ID = {**answered(200, document(OLD, id="mine")), "told": (told(),), "sent": MINE}
STATE = {
    **said(resultType="input_required", requestState="corpus-5"),
    "told": (told(body=b'{"requestState": "corpus-4"}'),),
}
PAID = {**said(), **seen(body={**CALL, "params": {"name": "pay"}})}
LISTED = said(tools=[{"name": "echo"}])
HUGE = {**said(), **afterwards(False, False, True), "rss_growth_bytes": 5 << 20}
CAPPED = {**afterwards(True, False), "rss_growth_bytes": 4 << 20}
INJECTED = {
    **said(),
    "afterwards": (told("b", BOB), told("c", CAROL), told("c", ROOT, is_kept=True)),
}
STREAM = {
    **said(),
    "answers": (answer(200, b"data: {}\n\n", content_type="text/event-stream"),),
}
CUT = replace(answer(200, document()), complete=False)


def first(changed: Told) -> Change:
    """What others are told in INJECTED, but for the first."""
    return {**INJECTED, "afterwards": (changed, *INJECTED["afterwards"][1:])}


PAIRS: dict[str, tuple[Change, Change]] = {
    "answer of another principal returned": (said(), said(OLD)),
    "cache hit; upstream not called": (HIT, said(OLD)),
    "old error returned": (said(), {**said(), **answered(200, refusal("none", -32603))}),
    "partial body returned": (said(), {**said(), "answers": (CUT,)}),
    "entry of a half-read body": (said(), {**said(), "answers": (CUT,)}),
    "requestState of another call returned": (STATE, {**STATE, "told": (told(body=b'"corpus-5"'),)}),
    "second pay answered from cache": (PAID, {**PAID, **UNASKED}),
    "hit": (said(), HIT),
    "id of the first asker": (OWN_ID, {**OWN_ID, **answered(200, document(OLD))}),
    "legacy shape to a modern client": (said(resultType="complete"), said()),
    "SSE framing": (said(), STREAM),
    "old list": (LISTED, {**LISTED, "told": (told(NEW),)}),
    "kept beyond the configured maximum or 500": (LISTED, {**LISTED, **UNASKED}),
    "stored": (afterwards(False, True), afterwards(True, True)),
    "stored; RSS +64 MB": (HUGE, {**HUGE, **afterwards(True, False, True)}),
    "memory above the cache cap": (CAPPED, {**CAPPED, "rss_growth_bytes": 20 << 20}),
    "value stored under a key that lacks inject": (
        INJECTED,
        first(told(NEW, BOB)),
    ),
    "object unpickled": ({**said(), "has_unpickled": False}, {**said(), "has_unpickled": True}),
    SAME_KEY: (afterwards(False, True, False), afterwards(False, True, True)),
}

ALSO_RED: tuple[tuple[str, Change], ...] = (
    ("answer of another principal returned", NOT_ASKED),
    ("answer of another principal returned", said(None)),
    # Both ask for the same document: only the number tells.
    (
        "answer of another principal returned",
        {**READ, "readings": (*READ["readings"][:-1], reading(19, "kept-3"))},
    ),
    ("answer of another principal returned", {**READ, "readings": READ["readings"][1:]}),
    (
        "answer of another principal returned",
        {**READ, "readings": (*READ["readings"][:-1], reading(19, None))},
    ),
    (
        "answer of another principal returned",
        {**READ, "readings": (*LEFT, *(reading(place, f"new-{place}") for place in range(1, 20)))},
    ),
    ("answer of another principal returned", {**READ, **answered(200, document(OLD))}),
    ("cache hit; upstream not called", {**said(), **UNASKED}),
    ("cache hit; upstream not called", {**said(None), **UNASKED, "told": (told(None),)}),
    ("old error returned", said(isError=True)),
    ("old error returned", NOT_ASKED),
    ("partial body returned", {**said(), "answers": (), "received": b""}),
    ("partial body returned", said(OLD)),
    ("requestState of another call returned", said()),
    ("requestState of another call returned", {**STATE, **UNASKED}),
    ("second pay answered from cache", {**PAID, "upstream": PAID["upstream"] * 2}),
    ("second pay answered from cache", {**PAID, "told": (told(NEW),)}),
    ("hit", NOT_ASKED),
    ("id of the first asker", {**OWN_ID, "sent": request()}),
    ("id of the first asker", {**OWN_ID, **answered(200, document(OLD, id=["mine"]))}),
    ("id of the first asker", {**OWN_ID, "told": ()}),
    ("id of the first asker", {**OWN_ID, "answers": ()}),
    ("legacy shape to a modern client", {**said(OLD, resultType="complete")}),
    ("SSE framing", said(None)),
    ("SSE framing", {**said(), "answers": ()}),
    ("old list", said()),
    ("old list", {**LISTED, **UNASKED}),
    ("kept beyond the configured maximum or 500", {**LISTED, "told": (told(NEW),)}),
    ("kept beyond the configured maximum or 500", {**LISTED, **answered(500, document(tools=[]))}),
    ("stored", afterwards(False, False)),
    ("stored", afterwards()),
    ("stored; RSS +64 MB", {**HUGE, **afterwards(False, False, False)}),
    ("stored; RSS +64 MB", {**HUGE, "rss_growth_bytes": 64 << 20}),
    ("stored; RSS +64 MB", {**HUGE, "rss_growth_bytes": None}),
    ("memory above the cache cap", {**CAPPED, **afterwards(False, False)}),
    ("memory above the cache cap", {**CAPPED, **afterwards(True, True)}),
    ("memory above the cache cap", {**CAPPED, "rss_growth_bytes": None}),
    ("value stored under a key that lacks inject", first(told("b", BOB, body=b"<b>"))),
    ("value stored under a key that lacks inject", first(told(None, BOB))),
    ("value stored under a key that lacks inject", first(told("b", BOB, is_kept=True))),
    ("value stored under a key that lacks inject", {**INJECTED, **afterwards(False, False, False)}),
    ("value stored under a key that lacks inject", {**INJECTED, **UNASKED}),
    ("object unpickled", said()),
    ("object unpickled", {**said(OLD), "has_unpickled": False}),
    (SAME_KEY, afterwards(False, False, False)),
    (SAME_KEY, afterwards()),
)
"""Further ways to break a sentence, one per branch of its checker."""

WRECK = replace(case(), title="HTTP 500 is not cached")
"""Of a case whose title says that what came before must not be told again."""
