"""A call goes out with the same fields whether its head came before or not, and every alteration is told."""

from __future__ import annotations

import gc
from pathlib import Path
from types import ModuleType

import pytest

from proxy.model import Call, Headers, Kind
from proxy.settings import load
from proxy.upstream.credentials import Stops
from proxy.upstream.fields import Field
from proxy.upstream.origin import Origin
from proxy.upstream.outgoing import Outgoing
from tests.fakes import Diary, FakeJourney, make_call

HOST = (b"Host", b"server.test:8000")
OWN = (b"X-Key", b"Bearer one")
TRACE = (b"traceparent", b"00-2")
HEAD = (
    *((b"Host", b"sidecar.test"), (b"Authorization", b"Bearer theirs"), (b"Accept-Encoding", b"gzip")),
    *((b"Connection", b"X-Hop"), (b"X-Hop", b"1"), (b"Cookie", b"theirs"), (b"TraceParent", b"00-1")),
    *((b"Last-Event-ID", b"7"), (b"Mcp-Session-Id", b"s"), (b"x-Two", b"1"), (b"X-two", b"2")),
)
PASSES = (HOST, (b"TraceParent", b"00-1"), (b"Mcp-Session-Id", b"s"), (b"x-Two", b"1"), (b"X-two", b"2"))
IDENTITY = (b"Accept-Encoding", b"identity")


def origin(key: str = "${KEY}", said: str = "one") -> Origin:
    overrides = ["upstream.url=http://server.test:8000/mcp", f'upstream.headers={{"X-Key": "Bearer {key}"}}']
    return Origin(load(None, overrides=overrides, environ={"KEY": said}).upstream)


def outgoing(to: Origin | None = None, *, forwards: bool = False, knows_callers: bool = True) -> Outgoing:
    stops = Stops(replaced=(b"X-Key",), forward_authorization=forwards)
    return Outgoing(to or origin(), stops, forwards=forwards, knows_callers=knows_callers)


def call(headers: Headers, diary: Diary | None = None, kind: Kind = Kind.REQUEST) -> Call:
    return make_call(headers=headers, kind=kind, journey=FakeJourney(diary))


def test_a_head_that_comes_again_goes_out_as_before() -> None:
    """design section 1, promise 1: what is altered is countable, each time."""
    headers, goes = Headers(HEAD), outgoing()
    for _ in range(3):
        diary: Diary = []
        assert tuple(goes(call(headers, diary))) == (*PASSES, IDENTITY, OWN)
        assert diary == [("j1", "altered", "last-event-id"), ("j1", "altered", "accept-encoding")]


def test_only_a_get_resumes() -> None:
    """protocol.md section 4; one head may be that of a POST and of a GET on one connection."""
    headers, goes = Headers(HEAD), outgoing()
    for _ in range(2):
        assert (b"Last-Event-ID", b"7") in goes(call(headers, kind=Kind.LISTEN))
        assert (b"Last-Event-ID", b"7") not in goes(call(headers))
    # Where callers are not told apart nobody is asked whose an event is.
    assert (b"Last-Event-ID", b"7") in outgoing(knows_callers=False)(call(headers))


@pytest.mark.parametrize(
    ("carried", "expected"),
    [
        ([TRACE], (*PASSES[:1], *PASSES[2:], IDENTITY, OWN, TRACE)),
        (
            [TRACE, (b"baggage", b""), (b"x-two", b"")],
            (*PASSES[:1], *PASSES[2:3], IDENTITY, OWN, TRACE),
        ),
        ([(b"x-key", b"")], (*PASSES, IDENTITY)),
        ([(b"x-key", b"k"), TRACE], (*PASSES[:1], *PASSES[2:], IDENTITY, (b"x-key", b"k"), TRACE)),
        ([(name.lower(), b"") for name, _ in (*PASSES, IDENTITY, OWN)], ()),
    ],
)
def test_what_an_attempt_carries_takes_the_place_of_others(
    carried: list[Field], expected: tuple[Field, ...]
) -> None:
    """model.Attempt.carries: names in any case, without a value they are only taken out."""
    headers, goes = Headers(HEAD), outgoing()
    for _ in range(2):
        assert tuple(goes(call(headers), carried)) == expected
        assert tuple(goes(call(headers))) == (*PASSES, IDENTITY, OWN)


def test_after_a_reload_other_settings_count() -> None:
    """design section 3: a reload builds everything anew; connections and what they know of heads go on."""
    headers = Headers(HEAD)
    before, after = outgoing(), outgoing(origin(said="two"), forwards=True)
    assert (b"X-Key", b"Bearer one") in before(call(headers))
    assert tuple(after(call(headers)))[:2] == (HOST, (b"Authorization", b"Bearer theirs"))
    assert (b"X-Key", b"Bearer two") in after(call(headers))
    assert tuple(before(call(headers))) == (*PASSES, IDENTITY, OWN)


def test_our_credential_is_what_its_file_says_now(tmp_path: Path) -> None:
    """Issue 3, 7: rotated secrets need no restart, and the old one is gone."""
    file = tmp_path / "key"
    file.write_text("one", encoding="utf-8")
    to, headers = origin(f"${{file:{file}}}"), Headers(HEAD)
    goes = outgoing(to)
    assert goes(call(headers))[-1] == OWN
    file.write_text("two", encoding="utf-8")
    to.own.renew()
    assert goes(call(headers))[-1] == (b"X-Key", b"Bearer two")


def reachable(thing: object) -> list[object]:
    """Everything that it keeps alive, but for classes and modules."""
    found: dict[int, object] = {}
    pending = [thing]
    while pending:
        each = pending.pop()
        if id(each) not in found and not isinstance(each, type | ModuleType):
            found[id(each)] = each
            pending += gc.get_referents(each)
    return list(found.values())


def test_what_ends_here_is_not_kept_and_neither_is_what_we_add() -> None:
    """design section 4: no credential lives longer for being remembered, and none goes where it does not belong."""
    headers, to = Headers(HEAD), origin()
    goes = outgoing(to)
    goes(call(headers), [TRACE])
    assert headers.notes
    texts = [each for each in reachable(dict(headers.notes)) if isinstance(each, bytes)]
    assert any(b"Mcp-Session-Id: s\r\n" in text for text in texts)
    assert not any(b"theirs" in text or b"Bearer" in text for text in texts)
    assert all(each is not to for each in reachable(dict(headers.notes)))


def test_what_a_stream_does_not_need_is_given_back() -> None:
    """design section 8: 20 KB for each idle stream."""
    headers, goes = Headers(HEAD), outgoing()
    goes(call(headers))
    headers.forget_index()
    assert not headers.notes
    assert tuple(goes(call(headers))) == (*PASSES, IDENTITY, OWN)
