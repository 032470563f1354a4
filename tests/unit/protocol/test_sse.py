"""Events as the WHATWG has them, however the bytes were cut, and no byte lost."""

import itertools
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy.protocol.sse import Event, Splitter, TooLong, message, with_data
from tests.unit.protocol.patience import processor_seconds

PLENTY = 1_000_000


def dispatched(stream: bytes) -> list[tuple[str, bytes, bytes]]:
    """What a browser dispatches: type, data and last event id, by the letter of HTML 9.2.6.

    Written apart from the splitter and by another method: the whole text at once, cut by one expression. Bytes
    stand for characters, which changes nothing, for all that has a meaning is ASCII.
    """
    text = stream.decode("latin-1").removeprefix("\xef\xbb\xbf")
    *lines, _unfinished = re.split("\r\n|\n|\r", text)
    heard, data, kind, last_id = [], "", "", ""
    for line in lines:
        if line == "":
            if data != "":
                heard.append((kind, data.removesuffix("\n"), last_id))
            data, kind = "", ""
        elif not line.startswith(":"):
            field, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if field == "event":
                kind = value
            elif field == "data":
                data += value + "\n"
            elif field == "id" and "\0" not in value:
                last_id = value
    return [
        (kind.encode("latin-1").decode("utf-8", "replace"), data.encode("latin-1"), last.encode("latin-1"))
        for kind, data, last in heard
    ]


def fed(chunks: list[bytes], max_bytes: int = PLENTY) -> tuple[list[Event], Event | None]:
    splitter = Splitter(max_bytes)
    events = [event for chunk in chunks for event in splitter.feed(chunk)]
    return events, splitter.rest()


def as_heard(events: list[Event]) -> list[tuple[str, bytes, bytes]]:
    heard, last_id = [], b""
    for event in events:
        last_id = last_id if event.id is None else event.id
        if event.data is not None:
            heard.append((event.name, event.data, last_id))
    return heard


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    at = sorted({min(place, len(stream)) for place in places} | {0, len(stream)})
    return [stream[a:b] for a, b in itertools.pairwise(at)]


PIECES = (
    *(
        b"data",
        b"data:",
        b"data: ",
        b"data: {}",
        b"event:x",
        b"event: \xff",
        b"id",
        b"id: 7",
        b"retry: 5",
        b":",
    ),
    *(
        b": ping",
        b" ",
        b"x",
        b"\n",
        b"\n",
        b"\n\n",
        b"\r",
        b"\r",
        b"\r\n",
        b"\r\n\r\n",
        b"\n\r",
        b"\xef\xbb\xbf",
    ),
    *(b"\xc2\x85", b"\xe2\x80\xa8", b"\x0b", b"\x0c", b"\x1c", b"Data: x", b"data:\xef\xbb\xbf"),
)
streams = st.lists(st.sampled_from(PIECES), max_size=24).map(b"".join) | st.binary(max_size=60).map(
    lambda raw: raw.replace(b"\0", b"\n")
)
places = st.lists(st.integers(0, 80), max_size=10)


@given(stream=streams, places=places)
@example(stream=b"data: a\r\r\ndata: b\r\n\r\n", places=[8, 9])
@example(stream=b"data: a\r\n\r\ndata: b\r\n\r\n", places=[10])
@example(stream=b"\xef\xbb\xbfdata: a\n\n\xef\xbb\xbfdata: b\n\n", places=[1, 2])
@example(stream=b"data\n\ndata:\n\ndata: \n\n", places=[])
@example(stream=b"event: a\n\nid\ndata: b\n\ndata: c\n\n", places=[5])
@settings(max_examples=400, deadline=None)
def test_a_browser_would_hear_the_same_however_it_is_cut(stream: bytes, places: list[int]) -> None:
    """WHATWG HTML 9.2; own promise: every byte is passed on, in order, once."""
    events, rest = fed(cut(stream, places))
    assert as_heard(events) == dispatched(stream)
    assert b"".join(event.raw for event in [*events, *([rest] if rest else [])]) == stream


@given(stream=streams)
@settings(max_examples=150, deadline=None)
def test_the_cuts_change_nothing_of_what_is_judged(stream: bytes) -> None:
    """Own promise: the machine sees one stream, whole or byte by byte."""
    whole, rest_of_whole = fed([stream])
    single, rest_of_single = fed([bytes([byte]) for byte in stream])

    def told(events: list[Event]) -> list[tuple[str, bytes | None, bytes | None]]:
        said = [(event.name, event.data, event.id) for event in events]
        return [each for each in said if each != ("", None, None)]

    assert told(single) == told(whole)
    assert told([rest_of_single] if rest_of_single else []) == told([rest_of_whole] if rest_of_whole else [])


@pytest.mark.parametrize(
    ("chunks", "raws"),
    [
        # An event is released with its blank line, not later.
        ([b"data: a\n\n"], [b"data: a\n\n"]),
        ([b"data: a\r\n\r\n"], [b"data: a\r\n\r\n"]),
        # A CR on a blank line ends the event; its LF, if one comes, goes by itself.
        ([b"data: a\r\n\r", b"\n"], [b"data: a\r\n\r", b"\n"]),
        ([b"data: a\r\r"], [b"data: a\r\r"]),
        # A keep-alive waits for nothing; inside an event it belongs to it.
        ([b": ping\n"], [b": ping\n"]),
        ([b":\r\n:\r\n"], [b":\r\n", b":\r\n"]),
        ([b"data: a\n: ping\n\n"], [b"data: a\n: ping\n\n"]),
        # What is unfinished stays.
        ([b"data: a\n"], []),
        ([b"data: a\r"], []),
        ([b": ping"], []),
    ],
)
def test_an_event_leaves_as_soon_as_it_is_whole(chunks: list[bytes], raws: list[bytes]) -> None:
    """protocol.md section 4: a buffered stream deadlocks when the server waits for an answer to its request."""
    events, _ = fed(chunks)
    assert [event.raw for event in events] == raws


@pytest.mark.parametrize(
    ("stream", "event"),
    [
        (b"id: 1\nretry: 5\ndata:\n\n", Event(raw=b"id: 1\nretry: 5\ndata:\n\n", data=b"", id=b"1")),
        (b"id: 1\n\n", Event(raw=b"id: 1\n\n", id=b"1")),
        (b"id\n\n", Event(raw=b"id\n\n", id=b"")),
        (b"retry: 5\n\n", Event(raw=b"retry: 5\n\n")),
        (b"data:  a\ndata:b\n\n", Event(raw=b"data:  a\ndata:b\n\n", data=b" a\nb")),
        (b"DATA: a\n data: b\n\n", Event(raw=b"DATA: a\n data: b\n\n")),
        (
            b"event: a\nevent: message\ndata: x\n\n",
            Event(raw=b"event: a\nevent: message\ndata: x\n\n", name="message", data=b"x"),
        ),
        (
            b"data: a\x0bb\xc2\x85c\xe2\x80\xa8d\n\n",
            Event(raw=b"data: a\x0bb\xc2\x85c\xe2\x80\xa8d\n\n", data=b"a\x0bb\xc2\x85c\xe2\x80\xa8d"),
        ),
    ],
)
def test_an_event_is_read_as_a_client_reads_it(stream: bytes, event: Event) -> None:
    """protocol.md section 4: a priming event has no JSON and must survive; lines end in CR, LF or CRLF only."""
    assert fed([stream]) == ([event], None)


def test_what_is_left_at_the_end_is_judged_as_well() -> None:
    """Own promise: bytes without their blank line are not passed unseen; some readers would take them."""
    assert fed([b"data: a\n\ndata: {", b"}"]) == (
        [Event(raw=b"data: a\n\n", data=b"a")],
        Event(raw=b"data: {}", data=b"{}"),
    )


@pytest.mark.parametrize("cuts", [[], list(range(100))])
def test_an_unfinished_event_stops_at_the_cap_exactly(cuts: list[int]) -> None:
    """design section 4: events are capped."""
    within = b"data: " + b"x" * 44
    assert fed(cut(within, cuts), max_bytes=50) == ([], Event(raw=within, data=b"x" * 44))
    with pytest.raises(TooLong):
        fed(cut(within + b"x", cuts), max_bytes=50)
    assert len(fed(cut((within[:48] + b"\n\n") * 9, cuts), max_bytes=50)[0]) == 9


def test_the_cap_does_not_depend_on_the_cuts() -> None:
    """Own promise: whole or byte by byte, the same events pass and the same ones are too long."""
    stream = b"data: a\n\n" + b"data: " + b"x" * 60 + b"\n\n"

    def passed(chunks: list[bytes]) -> list[bytes]:
        splitter, events = Splitter(50), list[Event]()
        try:
            for chunk in chunks:
                events += splitter.feed(chunk)
        except TooLong:
            pass
        return [event.raw for event in events]

    assert passed([stream]) == passed([bytes([byte]) for byte in stream]) == [b"data: a\n\n"]


def test_an_id_with_nul_is_none() -> None:
    """WHATWG HTML 9.2.6: ignored by clients, so that nobody can come back with it."""
    assert fed([b"id: a\0b\ndata: x\n\n"])[0][0].id is None


def test_an_event_of_many_lines_is_read_in_linear_time() -> None:
    """design section 8: no loop lag beyond 100 ms; 16 MiB of short data lines took minutes."""
    with processor_seconds(1.5):
        fed([b"data:x\n" * 300_000 + b"\n"], max_bytes=4_000_000)


def test_lines_that_end_in_cr_are_read_in_linear_time() -> None:
    """design section 8: no loop lag beyond 100 ms; nobody sends CR alone but those who mean it."""
    with processor_seconds(1.5):
        fed([b"d\r" * 1_000_000], max_bytes=4_000_000)


def test_a_message_of_ours_is_one_event() -> None:
    """2024-11-05: answers arrive as `message` events."""
    written = message(b'{"a":"\xe2\x80\xa8"}')
    assert fed([written]) == ([Event(raw=written, name="message", data=b'{"a":"\xe2\x80\xa8"}')], None)


@pytest.mark.parametrize(
    ("raw", "left"),
    [
        (b"id: 7\ndata:old\nretry: 5\n\n\n", b"id: 7\ndata:new\nretry: 5\n\n\n"),
        (b"data: o\r\nid: old\r\ndata: ld\r\n\r\n", b"data: new\r\nid: old\r\n\r\n"),
        (b"event: old\r: old\rdata: old\r\r", b"event: old\rdata: new\r\r"),
        (b"data\nid: data\n\n", b"data: new\nid: data\n\n"),
        (b"data: old", b"data: new"),
        (b"data: a\ndata\ndata\n\n", b"data: new\n\n"),
    ],
)
def test_an_event_says_something_else(raw: bytes, left: bytes) -> None:
    """Promise 1: what is changed on purpose is the data and nothing else."""
    splitter = Splitter(PLENTY)
    event = [*splitter.feed(raw), splitter.rest()][0]
    assert event is not None
    assert with_data(event, b"new") == left


_LINES = st.sampled_from(
    [b"data: a", b"data:a", b"data", b"data: data: a", b": a", b"id: a", b"event: a", b"x"]
)
_ENDS = st.sampled_from([b"\n", b"\r\n"])


@settings(max_examples=300)
@given(
    before=st.lists(_LINES, max_size=3),
    after=st.lists(_LINES, max_size=3),
    end=_ENDS,
    mark=st.booleans(),
    is_first=st.booleans(),
    data=st.sampled_from([b"a", b"b", b"a\nb", b"data: a"]),
)
def test_readers_see_the_new_data_and_the_old_rest(
    before: list[bytes], after: list[bytes], end: bytes, mark: bool, is_first: bool, data: bytes
) -> None:
    """Read back, only the data differs; a mark of order is one at the start of a stream only."""
    raw = b"\xef\xbb\xbf" * mark + end.join((*before, b"x: ", b"data: a", *after, end))

    def read(raw: bytes) -> Event:
        splitter = Splitter(PLENTY)
        if not is_first:
            splitter.feed(b"data: 0\n\n")
        [event] = [each for each in splitter.feed(raw) if each.data is not None]
        return event

    old, new = read(raw), read(with_data(read(raw), data))
    assert (new.data, new.id, new.name) == (data, old.id, old.name)
