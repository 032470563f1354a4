"""Made-up evidence for the sentences of checks/upstream.py: what honours each, and ways to break it.

Read by test_checkers.py.
"""

from typing import Any

from msgspec.structs import replace

from tests.corpus.evidence import PASSED, Outage
from tests.corpus.made_up import (
    CALL,
    METADATA,
    answer,
    answered,
    case,
    refusal,
    refused_result,
    request,
    seen,
)
from tests.corpus.trouble_stand import COMMAND, LEFT_ALONE, MASKED, MEMORY, PLACES
from tests.corpus.wire import Message, read_message

Change = dict[str, Any]


def result(*content: object) -> Change:
    return {"jsonrpc": "2.0", "id": 1, "result": {"content": list(content)}}


def filtered(status: int, text: bytes) -> Change:
    """The change to Evidence: the server said a command in the form of the case, and this came of it."""
    return {"filtered": (answer(status, text),)}


def events(data: bytes) -> Change:
    """The change to Evidence: this stream was the answer."""
    return answered(200, data, content_type="text/event-stream")


def places(*after: str, same: str = "deadline", **more: Any) -> Change:
    crowds = {"same": (same,) * PLACES, "afterwards": after or (PASSED,) * PLACES}
    return {"crowds": crowds, "hanging": 0, "fds_growth": 3, **more}


def phrase(start: bytes) -> Change:
    return {"answers": (replace(answer(200, result()), start=start),)}


def arrived(*lines: str) -> Message:
    message = read_message(request(*lines), answers=False)
    assert message is not None
    return message


def led(where: str) -> Change:
    """The change to Evidence: the client is told to get a token, and where."""
    message = answer(401, refusal("upstream", 401), f'WWW-Authenticate: Bearer resource_metadata="{where}"')
    return {"answers": (message,), "received": message.raw}


def fields(*lines: str) -> Change:
    of_answers = replace(case(), category="upstream")
    return {"case": of_answers, "answers": (answer(200, result(), *lines),)}


def outage(**changes: Any) -> Change:
    good = Outage(length_s=1.5, outcomes=("upstream_unreachable", LEFT_ALONE), probes=5, back_s=0.2)
    return {"outage": replace(good, **changes)}


def went_on(alice: bytes = b"", bob: bytes = b"") -> Change:
    return {
        "replayed": {"alice": b"HTTP/1.1 200 OK\r\n\r\n" + alice, "bob": b"HTTP/1.1 200 OK\r\n\r\n" + bob}
    }


LINES = b'data: {"id":1,"result":{"content":[{"type":"text","text":"a\xc2\x85data: b\xe2\x80\xa8c"}]}}\n\n'
SPLIT = b'data: {"id":1,"result":{"content":["\xc3\xa9"]}}\n\n'
LAST = b'data: {"jsonrpc":"2.0","id":1,"error":{"code":-32603}}\n\n'
PROGRESS = b'data: {"method":"notifications/progress","params":{"progressToken":"%b"}}\n\n'
LIST = seen(body={"jsonrpc": "2.0", "id": 1, "method": "tools/list"})
ONCE = seen(body=CALL)
MASKS = filtered(200, MASKED)
PASSES = filtered(200, b"text: " + COMMAND)
BOBS = {"twin_received": b"HTTP/1.1 200 OK\r\n\r\n{}"}
FILTERS = (
    "filters skipped because the type is unknown",
    "filter skipped",
    "event not seen by the filter but seen by the client",
    "filter and client disagree",
    "first event skips the filter",
)

PAIRS: dict[str, tuple[Change, Change]] = {
    "500 or hang": (answered(502, refusal("upstream_broke", 502)), answered(500, b"")),
    "proxy sleeps": (answered(429, refusal("upstream", 429)), {"first_answer_s": 0.9}),
    "slot, task or connection leak": (places(), places(*(PASSED,) * 7, "overloaded")),
    "reason copied": (phrase(b"HTTP/1.1 200 OK"), phrase(b"HTTP/1.1 200 O\x1b[31mK <script>")),
    **dict.fromkeys(FILTERS, (MASKS, PASSES)),
    MEMORY: ({"rss_growth_bytes": 5 << 20}, {"rss_growth_bytes": 40 << 20}),
    "danger shown": (
        answered(200, {"result": {"tools": []}}),
        answered(200, {"result": {"tools": [{"name": "danger"}]}}),
    ),
    "fetched by the proxy": ({}, {"trapped": ("/",)}),
    "passed to the client as our challenge": (led(METADATA), led("http://169.254.169.254/")),
    "cookie sent with the next request of Bob": (
        {"later": (arrived(), arrived())},
        {"later": (arrived("Cookie: up=ALICE"), arrived())},
    ),
    "cookie passed to the client": (fields(), {"received": b"Set-Cookie: up=ALICE; Path=/"}),
    "the next caller gets the pushed answer": (
        BOBS,
        {"twin_received": b'HTTP/1.1 200 OK\r\n\r\n{"id":1,"result":{"who":"evil"}}'},
    ),
    "client left without a JSON-RPC error event": (events(LAST), events(PROGRESS % b"1")),
    "UnicodeDecodeError": (events(SPLIT), {**events(SPLIT), "log": b"UnicodeDecodeError: 'utf-8'"}),
    "text broken or split into two events": (events(LINES), events(LINES.replace(b"\xc2\x85", b"\n"))),
    "replay mixes streams": (went_on(b"for alice"), went_on(b"for bob")),
    "delivered to Alice": (events(SPLIT), events(PROGRESS % b"p-bob")),
    "one upstream tools/list per notification": (LIST, {"upstream": LIST["upstream"] * 2}),
    "more than 1 probe per half-open interval": (outage(), outage(probes=8)),
    "retried": (ONCE, {"upstream": ONCE["upstream"] * 2}),
}

ALSO_RED: tuple[tuple[str, Change], ...] = (
    ("500 or hang", {"first_answer_s": None}),
    ("500 or hang", {"first_answer_s": 2.6}),
    ("proxy sleeps", {"first_answer_s": None}),
    ("slot, task or connection leak", places(same="not answered")),
    ("slot, task or connection leak", places(same=PASSED)),
    ("slot, task or connection leak", {}),
    ("slot, task or connection leak", places(hanging=1)),
    ("slot, task or connection leak", places(hanging=None)),
    ("slot, task or connection leak", places(fds_growth=11)),
    ("slot, task or connection leak", places(fds_growth=None)),
    ("reason copied", {"answers": ()}),
    *((text, {"filtered": ()}) for text in FILTERS),
    *((text, filtered(200, b"something else")) for text in FILTERS),
    ("filter skipped", filtered(502, COMMAND)),
    (MEMORY, {"rss_growth_bytes": None}),
    ("passed to the client as our challenge", {"answers": ()}),
    ("cookie sent with the next request of Bob", {"later": (arrived(),)}),
    ("cookie sent with the next request of Bob", {"later": (arrived(), arrived("Cookie: a=b"))}),
    ("the next caller gets the pushed answer", {}),
    ("the next caller gets the pushed answer", {"twin_received": b"HTTP/1.1 502 Bad Gateway\r\n\r\n"}),
    ("forwarded", {**fields(), "answers": ()}),
    ("forwarded", fields("X-Secret: 1")),
    ("forwarded", fields("Keep-Alive: timeout=5")),
    ("forwarded", fields("Proxy-Authenticate: x")),
    ("forwarded", fields("Server: uvicorn")),
    ("forwarded", fields("X-Internal-Pod: 10.0.0.1")),
    ("forwarded", fields("Connection: X-Secret")),
    ("client left without a JSON-RPC error event", {"answers": ()}),
    ("client left without a JSON-RPC error event", answered(200, result())),
    ("client left without a JSON-RPC error event", answered(200, refused_result("upstream_broke", id=2))),
    (
        "client left without a JSON-RPC error event",
        {"answers": (replace(answer(200, refused_result("upstream_broke")), complete=False),)},
    ),
    ("UnicodeDecodeError", events(SPLIT.replace(b"\xc3\xa9", b"\xef\xbf\xbd\xef\xbf\xbd"))),
    ("UnicodeDecodeError", {"answers": ()}),
    ("text broken or split into two events", events(LINES + LINES)),
    ("text broken or split into two events", answered(200, refusal("upstream_nonsense", 502))),
    ("replay mixes streams", went_on(bob=b"for alice")),
    ("replay mixes streams", {}),
    ("replay mixes streams", {"replayed": {"alice": b"", "bob": b""}}),
    ("delivered to Alice", {"answers": ()}),
    ("more than 1 probe per half-open interval", {}),
    ("more than 1 probe per half-open interval", outage(probes=0)),
    ("more than 1 probe per half-open interval", outage(outcomes=("upstream_unreachable",))),
    ("more than 1 probe per half-open interval", outage(outcomes=(LEFT_ALONE, PASSED))),
    ("more than 1 probe per half-open interval", outage(back_s=None)),
    ("more than 1 probe per half-open interval", outage(back_s=2.5)),
    ("retried", {}),
)
"""Further ways to break a sentence, one per branch of its checker."""

FINE: tuple[tuple[str, Change], ...] = (
    ("forwarded", fields("Server: sidecar")),
    ("filter skipped", filtered(502, b"")),
    ("client left without a JSON-RPC error event", answered(502, refusal("upstream_broke", 502))),
    ("client left without a JSON-RPC error event", answered(200, refused_result("upstream_broke"))),
    ("text broken or split into two events", events(LINES.replace(b"\n\n", b"\r\r"))),
    ("text broken or split into two events", events(b"\xef\xbb\xbfevent: message\r" + LINES[:-1] + b"\r\n")),
    ("passed to the client as our challenge", answered(502, refusal("upstream_nonsense", 502))),
)
"""Further ways to honour one."""
