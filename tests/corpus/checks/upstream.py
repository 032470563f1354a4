"""Sentences of servers in trouble: whatever they say, one right answer in time, and nothing of it for anybody else."""

import json

from tests.corpus.checks.common import Check, header_lines, no_status, nothing_forwarded
from tests.corpus.evidence import PASSED, Evidence
from tests.corpus.trouble_stand import COMMAND, LEFT_ALONE, MASKED, MEMORY, OPEN_S, TIMEOUT_S
from tests.corpus.wire import Message

SPARE_FDS = 10
"""Connections that are kept for the next calls: as many as there were calls at once, and two."""
BACK_S = 2.0
_NO_HOP = frozenset({b"x-secret", b"keep-alive", b"proxy-authenticate", b"x-internal-pod"})
"""What the answer of UP-062 has that is not for the client."""


def answers_in_time(e: Evidence) -> str | None:
    """No 500, and an answer before the time of a call is over."""
    if e.first_answer_s is None:
        return "no answer"
    if e.first_answer_s > TIMEOUT_S + e.limits.slack_s:
        return f"answered after {e.first_answer_s:.1f} s"
    return no_status(500)(e)


def does_not_sleep(e: Evidence) -> str | None:
    """Nobody waits for as long as the server says, nor for as long as a call may take."""
    if e.first_answer_s is None:
        return "no answer"
    return f"answered after {e.first_answer_s:.1f} s" if e.first_answer_s > TIMEOUT_S / 2 else None


def everything_comes_back(e: Evidence) -> str | None:
    """Calls that filled all places have ended, and all places are free; no connection of theirs is open."""
    same, after = e.crowds.get("same", ()), e.crowds.get("afterwards", ())
    if not same or PASSED in same or "not answered" in same:
        return f"calls of the same were answered with {sorted(set(same))}"
    if after != (PASSED,) * len(same):
        return f"of {len(same)} places {after.count(PASSED)} are left"
    if e.hanging != 0:
        return f"{e.hanging} connections still wait for the server"
    if e.fds_growth is None or e.fds_growth > SPARE_FDS:
        return f"{e.fds_growth} more file descriptors"
    return None


def own_reason(e: Evidence) -> str | None:
    """The reason phrase is ours."""
    if not e.answers:
        return "no answer"
    return f"answered {e.answers[0].start!r}" if e.answers[0].start != b"HTTP/1.1 200 OK" else None


def is_filtered(e: Evidence) -> str | None:
    """Where the server says what must not pass, it does not, in whatever form: it is masked, or all is refused."""
    if not e.filtered:
        return "no answer to a server that says what must not pass"
    answer = e.filtered[0]
    if COMMAND in answer.raw:
        return "what must not pass was passed on"
    if 200 <= answer.status < 300 and MASKED not in answer.body:
        return f"neither masked nor refused: {answer.body[:80]!r}"
    return None


def memory_flat(e: Evidence) -> str | None:
    """Nobody holds what is too long."""
    if e.rss_growth_bytes is None:
        return "memory was not measured"
    return f"grew by {e.rss_growth_bytes >> 20} MB" if e.rss_growth_bytes > 32 << 20 else None


def no_danger(e: Evidence) -> str | None:
    """Whichever of two members a reader takes."""
    return "the answer shows danger" if b"danger" in e.received else None


def not_fetched(e: Evidence) -> str | None:
    """Nobody goes where a challenge leads."""
    return f"the trap was asked for {e.trapped}" if e.trapped else None


def own_challenge(e: Evidence) -> str | None:
    """Who is told to get a token is told where by us."""
    for answer in e.answers:
        for value in answer.values("www-authenticate"):
            if b"resource_metadata" in value and e.resource_metadata.encode() not in value:
                return f"the client is led to {value!r}"
    return None if e.answers else "no answer"


def no_cookie_later(e: Evidence) -> str | None:
    """What one call was told to keep goes with no other, neither of another caller nor of the same."""
    if len(e.later) != 2:
        return f"{len(e.later)} of 2 later calls arrived"
    if any(b"up=ALICE" in request.raw or request.values("cookie") for request in e.later):
        return "a later call had the cookie"
    return None


def no_cookie_down(e: Evidence) -> str | None:
    """Cookies are between us and the server."""
    return "the client was given a cookie" if b"up=ALICE" in e.received else None


def nobodys_answer(e: Evidence) -> str | None:
    """Who comes next is given the server's answer to him, and not what lay there."""
    received = e.twin_received or b""
    if b'"evil"' in received:
        return "Bob was given the answer that nobody had asked for"
    return None if received.startswith(b"HTTP/1.1 200 ") else f"Bob was answered with {received[:40]!r}"


def hop_by_hop_stops(e: Evidence) -> str | None:
    """What is for the next hop, or for nobody, ends here."""
    if not e.answers:
        return "no answer"
    answer = e.answers[0]
    found = sorted(header_lines(answer) & _NO_HOP)
    if b"uvicorn" in answer.values("server"):
        found.append(b"server")
    if found:
        return f"the client was given {found}"
    named = b"".join(answer.values("connection")).lower()
    return "the client was given Connection: X-Secret" if b"x-secret" in named else None


def not_forwarded(e: Evidence) -> str | None:
    """Of an answer what is not for the client, where a case is about answers; else nothing of the request."""
    return hop_by_hop_stops(e) if e.case.category == "upstream" else nothing_forwarded(e)


def ends_with_an_error(e: Evidence) -> str | None:
    """The last word to the client is an error for its request, as an event or as the whole answer."""
    if not e.answers:
        return "no answer"
    if not e.answers[0].complete:
        return "the stream was cut off"
    said = e.answers[0].json
    if not isinstance(said, dict) or said.get("id") != 1 or not _is_no(said):
        return f"the last word was {said}"
    return None


def _is_no(said: dict[str, object]) -> bool:
    result = said.get("result")
    return "error" in said or (isinstance(result, dict) and result.get("isError") is True)


def reads_split_text(e: Evidence) -> str | None:
    """A character in two segments is one character."""
    if b"UnicodeDecodeError" in e.log:
        return "UnicodeDecodeError in the log"
    return _says(e, ["é"])


def keeps_text_whole(e: Evidence) -> str | None:
    """Only CR and LF end a line: what Unicode calls one is text."""
    return _says(e, [{"type": "text", "text": "a\u0085data: b\u2028c"}])


def _says(e: Evidence, content: object) -> str | None:
    said = _events(e.answers[0]) if e.answers else []
    if len(said) != 1:
        return f"{len(said)} events"
    result = said[0].get("result") if isinstance(said[0], dict) else None
    found = result.get("content") if isinstance(result, dict) else None
    return None if found == content else f"the client was told {found!r}"


def _events(answer: Message) -> list[object]:
    """What a strict reader of event streams reads: lines end with CR, LF or both, and an event with an empty line.
    Source: WHATWG HTML, section 9.2.6. An answer in JSON is one event."""
    if answer.values("content-type") == (b"application/json",):
        return [answer.json]
    text = answer.body.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    found: list[object] = []
    for block in text.split(b"\n\n")[:-1]:
        lines = [
            line.partition(b":")[2].removeprefix(b" ")
            for line in block.split(b"\n")
            if line.startswith(b"data:")
        ]
        if lines:
            try:
                found.append(json.loads(b"\n".join(lines)))
            except ValueError:
                found.append(None)
    return found


def streams_stay_apart(e: Evidence) -> str | None:
    """Who goes on behind an event id is told nothing of another stream with that id."""
    if set(e.replayed) != {"alice", "bob"}:
        return "nobody went on"
    for who, other in (("alice", "bob"), ("bob", "alice")):
        if not e.replayed[who].startswith(b"HTTP/1.1 "):
            return f"{who} was not answered"
        if f"for {other}".encode() in e.replayed[who]:
            return f"{who} was told what was for {other}"
    return None


def foreign_progress_stops(e: Evidence) -> str | None:
    """Progress of a token that this caller did not send is not for this caller; the answer is."""
    if b"p-bob" in e.received:
        return "the progress of another was delivered"
    return None if e.answers and e.answers[0].status == 200 else "no answer"


def asks_no_list(e: Evidence) -> str | None:
    """What a server says so often is not asked about so often."""
    lists = sum(b'"tools/list"' in request.body for request in e.upstream)
    return f"{lists} lists were asked for" if lists > 1 else None


def looks_seldom(e: Evidence) -> str | None:
    """A server that is left alone is asked once in each of its intervals, and again as soon as it is there."""
    outage = e.outage
    if outage is None or LEFT_ALONE not in outage.outcomes:
        return "the server was never left alone"
    if PASSED in outage.outcomes or "not answered" in outage.outcomes:
        return f"calls were answered with {sorted(set(outage.outcomes))}"
    most = outage.length_s / OPEN_S + 1
    if not 1 <= outage.probes <= most:
        return f"{outage.probes} probes in {outage.length_s:.1f} s, allowed are {most:.1f}"
    if outage.back_s is None or outage.back_s > BACK_S:
        return f"the first call passed after {outage.back_s} s"
    return None


def asked_once(e: Evidence) -> str | None:
    """An answer is an answer."""
    return None if len(e.calls) == 1 else f"the server was called {len(e.calls)} times"


TABLE: dict[str, Check] = {
    "500 or hang": Check(answers_in_time, True),
    "proxy sleeps": Check(does_not_sleep, True),
    "slot, task or connection leak": Check(everything_comes_back, True),
    "reason copied": Check(own_reason),
    "filters skipped because the type is unknown": Check(is_filtered),
    "filter skipped": Check(is_filtered),
    "event not seen by the filter but seen by the client": Check(is_filtered),
    "filter and client disagree": Check(is_filtered),
    "first event skips the filter": Check(is_filtered),
    MEMORY: Check(memory_flat, True),
    "danger shown": Check(no_danger),
    "fetched by the proxy": Check(not_fetched),
    "passed to the client as our challenge": Check(own_challenge),
    "cookie sent with the next request of Bob": Check(no_cookie_later),
    "cookie passed to the client": Check(no_cookie_down),
    "the next caller gets the pushed answer": Check(nobodys_answer),
    "forwarded": Check(not_forwarded),
    "client left without a JSON-RPC error event": Check(ends_with_an_error),
    "UnicodeDecodeError": Check(reads_split_text),
    "text broken or split into two events": Check(keeps_text_whole),
    "replay mixes streams": Check(streams_stay_apart),
    "delivered to Alice": Check(foreign_progress_stops),
    "one upstream tools/list per notification": Check(asks_no_list),
    "more than 1 probe per half-open interval": Check(looks_seldom, True),
    "retried": Check(asked_once),
}
