"""Sentences of the cache: nobody is told what is not theirs, nothing is told again that is not whole and good.

Where a sentence is about something that must not be told again, the evidence shows that something like it would be.
"""

from tests.corpus.cache_stand import CAP_BYTES, SAME_KEY
from tests.corpus.checks.common import Check, sent_document
from tests.corpus.evidence import Evidence

SPARE_BYTES = 6 << 20
"""What the process may take meanwhile beside what it keeps: connections, garbage, what the allocator does not give
back."""
LEFT_AT_LEAST = 0.05
"""Part of the clients of CACHE-053 that leave."""


def is_new(e: Evidence) -> str | None:
    """The answer is the server's own to this request: it was asked, and nobody was told the same before."""
    if e.number is None:
        return "the answer is no result of the server"
    for told in e.told:
        if told.number == e.number:
            return f"answered with what {told.who} was told before"
    return None if e.upstream else "the server was not asked"


def is_new_and_good(e: Evidence) -> str | None:
    """And it is no error."""
    if e.result.get("isError"):
        return "answered with an error"
    return is_new(e)


def is_new_and_whole(e: Evidence) -> str | None:
    """And it is all there."""
    if not e.answers or not e.answers[0].complete:
        return "the answer is cut short"
    return is_new(e)


def is_callers(e: Evidence) -> str | None:
    """The answer, and every one that was read while others left, is what its caller is to be told."""
    if e.readings:
        return _read_by_each(e)
    return is_new(e)


def _read_by_each(e: Evidence) -> str | None:
    others = {reading.number for reading in e.readings}
    for reading in e.readings:
        if reading.told != reading.number and reading.told in others - {None}:
            return f"{reading.who} was told what belongs to another, of {reading.doc}"
    stayed = [reading for reading in e.readings if not reading.has_left]
    if len(e.readings) - len(stayed) < LEFT_AT_LEAST * len(e.readings):
        return f"only {len(e.readings) - len(stayed)} of {len(e.readings)} left"
    if silent := sum(reading.told is None for reading in stayed):
        return f"{silent} of {len(stayed)} who stayed were told nothing"
    read = sum(reading.told == reading.number for reading in stayed)
    if read < len(stayed) / 2:
        return f"only {read} of {len(stayed)} were told what is kept"
    return is_new(e)


def is_told_again(e: Evidence) -> str | None:
    """The answer is that of before, and the server was not asked."""
    if e.upstream:
        return "the server was asked"
    if e.number is None or e.number not in {told.number for told in e.told}:
        return "the answer is not what was told before"
    return None


def has_own_id(e: Evidence) -> str | None:
    """What is told again carries the id of whoever asks, as it was written."""
    sent, said = sent_document(e), e.answers[0].json if e.answers else None
    if not isinstance(said, dict) or type(said.get("id")) is not type(sent["id"]) or said["id"] != sent["id"]:
        return f"the answer is to {said.get('id') if isinstance(said, dict) else said!r}"
    return is_told_again(e)


def has_own_state(e: Evidence) -> str | None:
    """A question to the caller is asked anew, with a state of its own."""
    state = e.result.get("requestState")
    if not isinstance(state, str):
        return "the answer has no requestState"
    if any(state.encode() in told.body for told in e.told):
        return "answered with the requestState of before"
    return is_new(e)


def pays_each_time(e: Evidence) -> str | None:
    """The call has reached the server, once."""
    if len(e.calls) != 1:
        return f"the server was called {len(e.calls)} times"
    return is_new(e)


def is_modern(e: Evidence) -> str | None:
    """The server has answered a client of this revision, in its words."""
    if e.result.get("resultType") != "complete":
        return "the result has no resultType"
    return is_new(e)


def is_json(e: Evidence) -> str | None:
    """One JSON text, and no events."""
    kinds = e.answers[0].values("content-type") if e.answers else ()
    if kinds != (b"application/json",):
        return f"the answer is {kinds}"
    return None if e.number is not None else "the answer is no result of the server"


def is_new_list(e: Evidence) -> str | None:
    """The list is the server's own of now."""
    return "no tools are listed" if e.tools_shown is None else is_new(e)


def odd_is_nothing(e: Evidence) -> str | None:
    """What says an odd thing of how long it is good is not kept at all: that is within every maximum."""
    return "answered 500" if e.status == 500 else is_new_list(e)


def is_not_stored(e: Evidence) -> str | None:
    """Who asks the same afterwards is told something new, and that is kept."""
    kept = tuple(told.is_kept for told in e.afterwards)
    if kept[:1] == (True,):
        return "it was told again"
    return None if kept == (False, True) else f"afterwards nothing is kept at all: {kept}"


def huge_is_not_stored(e: Evidence) -> str | None:
    """Neither kept nor held, and a short answer of the same tool is kept."""
    kept = tuple(told.is_kept for told in e.afterwards)
    if kept[:1] == (True,):
        return "it was told again"
    if kept != (False, False, True):
        return f"afterwards nothing is kept at all: {kept}"
    if e.rss_growth_bytes is None:
        return "memory was not measured"
    return f"grew by {e.rss_growth_bytes >> 20} MB" if e.rss_growth_bytes >= 64 << 20 else None


def within_cap(e: Evidence) -> str | None:
    """Memory grows by what may be kept; new answers are kept, and old ones go for them."""
    kept = tuple(told.is_kept for told in e.afterwards)
    if kept != (True, False):
        return f"of the last and the first, kept are {kept}"
    if e.rss_growth_bytes is None:
        return "memory was not measured"
    allowed = CAP_BYTES + SPARE_BYTES
    return f"grew by {e.rss_growth_bytes >> 20} MB" if e.rss_growth_bytes > allowed else None


def own_words_stay_own(e: Evidence) -> str | None:
    """What one caller brought in where the rule does not look is told to nobody else; what has nothing of the kind is
    shared."""
    for told in e.afterwards:
        if told.number is None or told.number == e.number or b"<b>" in told.body:
            return f"{told.who} was told what another had brought in"
    kept = tuple(told.is_kept for told in e.afterwards)
    if True in kept[:2]:
        return "somebody was told what another had brought in"
    if kept != (False, False, True):
        return f"afterwards nothing is shared at all: {kept}"
    return is_new(e)


def nothing_unpickled(e: Evidence) -> str | None:
    """What somebody put into the store is bytes, and no answer."""
    if e.has_unpickled is None:
        return "nobody looked"
    return "an object came to life" if e.has_unpickled else is_new(e)


def digits_count(e: Evidence) -> str | None:
    """Who writes more digits asks for something else, unless the rule says that they do not count."""
    kept = tuple(told.is_kept for told in e.afterwards)
    if kept[:2] != (False, True):
        return f"nothing is kept at all: {kept}"
    return None if kept == (False, True, False) else "answered with what is kept for 0.1"


TABLE: dict[str, Check] = {
    "answer of another principal returned": Check(is_callers),
    "cache hit; upstream not called": Check(is_told_again),
    "old error returned": Check(is_new_and_good),
    "partial body returned": Check(is_new_and_whole),
    "entry of a half-read body": Check(is_new_and_whole),
    "requestState of another call returned": Check(has_own_state),
    "second pay answered from cache": Check(pays_each_time),
    "hit": Check(is_new),
    "id of the first asker": Check(has_own_id),
    "legacy shape to a modern client": Check(is_modern),
    "SSE framing": Check(is_json),
    "old list": Check(is_new_list),
    "kept beyond the configured maximum or 500": Check(odd_is_nothing),
    "stored": Check(is_not_stored),
    "stored; RSS +64 MB": Check(huge_is_not_stored, True),
    "memory above the cache cap": Check(within_cap, True),
    "value stored under a key that lacks inject": Check(own_words_stay_own),
    "object unpickled": Check(nothing_unpickled),
    SAME_KEY: Check(digits_count),
}
