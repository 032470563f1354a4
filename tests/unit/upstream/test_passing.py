"""Which fields of an answer pass. Source: promise 1; UP-062; RFC 9110 sections 5.1 and 7.6.1."""

from collections.abc import AsyncIterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.model import Headers, Refused
from proxy.protocol.headers import end_to_end
from proxy.upstream.fields import Field
from proxy.upstream.passing import HIDDEN, MAX_KNOWN, MAX_KNOWN_BYTES, Passing
from proxy.upstream.transport import Answer
from tests.fakes import Diary, FakeJourney, make_call
from tests.fuzz.bounded import FUZZ

LINES = (
    *((b"Content-Type", b"text/plain"), (b"Server", b"uvicorn"), (b"X-Internal-Pod", b"10.0.0.1")),
    *((b"x-internal-zone", b"a"), (b"X-Internal", b"b"), (b"Mcp-Session-Id", b"s"), (b"Mcp-Internal", b"c")),
    *((b"SERVER", b"again"), (b"X_Internal_Pod", b"d"), (b"X-\xc4", b"e"), (b"Set-Cookie", b"f=1")),
    *((b"Connection", b"X-Secret"), (b"X-Secret", b"1")),
)


async def nothing() -> AsyncIterator[bytes]:
    for chunk in list[bytes]():
        yield chunk


def answer() -> Answer:
    return Answer(status=200, headers=Headers(LINES), chunks=nothing(), close=lambda: None)


ALWAYS = {b"Set-Cookie", b"Connection", b"X-Secret"}
"""What ends here whatever settings say."""


@pytest.mark.parametrize(
    ("hide", "hidden"),
    [
        ((), set()),
        (("Server",), {b"Server", b"SERVER"}),
        (("sERVER", "X-Nothing"), {b"Server", b"SERVER"}),
        (("X-Internal-*",), {b"X-Internal-Pod", b"x-internal-zone"}),
        (("x-internal*",), {b"X-Internal-Pod", b"x-internal-zone", b"X-Internal"}),
        (("*-Internal",), {b"X-Internal"}),
        (("X-?nternal",), {b"X-Internal"}),
        (("X-Secret", "Set-Cookie"), set()),
        (("Serve",), set()),
    ],
)
def test_what_settings_name_is_left_out_and_told(hide: tuple[str, ...], hidden: set[bytes]) -> None:
    """In any case, and nothing that only looks alike; what is left keeps its order and its bytes."""
    diary: Diary = []
    got = Passing(hide)(answer(), make_call(journey=FakeJourney(diary)))
    assert got.pairs == tuple(pair for pair in LINES if pair[0] not in ALWAYS | hidden)
    assert diary == [("j1", "altered", HIDDEN)] * len([pair for pair in LINES if pair[0] in hidden])


def test_heads_that_outlive_a_reload_pass_by_the_settings_in_force() -> None:
    """Regression: the transport, and the last head with it, stays where only other settings change; each reload left
    its own notes on that head."""
    came = answer()
    for _ in range(3):
        for hide, hidden in ((), set()), (("Server",), {b"Server", b"SERVER"}):
            passing = Passing(hide)
            for _ in range(2):
                places = passing.check(came)
                got = passing.passed(came, places, None)
                assert got.pairs == tuple(pair for pair in LINES if pair[0] not in ALWAYS | hidden)
    assert len(came.headers.notes) == 1


def test_what_the_protocol_has_is_never_hidden() -> None:
    """`*-Internal` fits Mcp-Internal too; a page has no record."""
    assert (b"Mcp-Internal", b"c") in Passing(("*-internal",))(answer()).pairs


names = st.sampled_from(
    [
        *(
            b"Content-Type",
            b"content-type",
            b"X-Hop",
            b"x-hop",
            b"X-Other",
            b"Server",
            b"Set-Cookie",
            b"Date",
        ),
        *(b"Connection", b"connection", b"Keep-Alive", b"Content-Encoding", b"Mcp-Session-Id", b"X-\xc4"),
    ]
)
values = st.sampled_from([b"", b"1", b"identity", b"gzip", b"X-Hop", b"x-other, close", b"server", b"a\rb"])
heads = st.lists(st.tuples(names, values), max_size=5).map(tuple)


def said(pairs: tuple[Field, ...], status: int = 200) -> Answer:
    return Answer(status=status, headers=Headers(pairs), chunks=nothing(), close=lambda: None)


def why_not(passing: Passing, answer: Answer) -> str | None:
    try:
        passing.check(answer)
    except Refused as refused:
        return refused.why
    return None


def refusal(pairs: tuple[Field, ...]) -> str | None:
    """What RFC 9110 and own promises say of a head, read anew."""
    headers = Headers(pairs)
    if not {"", "identity"}.issuperset(headers.all("content-encoding")):
        return "It compressed an answer although it was asked not to."
    if len(headers.all("content-type")) > 1:
        return "It has several types."
    if any(b"\r" in value for _, value in pairs):
        return "One of its header fields holds control characters."
    return None


@FUZZ
@given(st.lists(heads, max_size=6), st.sampled_from([(), ("server", "x-*")]))
@example([((b"Connection", b"X-Hop"), (b"X-Hop", b"1")), ((b"Connection", b"close"), (b"X-Hop", b"1"))], ())
@example([((b"Connection", b"1"), (b"Connection", said), (b"X-Hop", b"")) for said in (b"X-Hop", b"1")], ())
@example([((b"Date", b"1"),), ((b"Date", b"a\rb"),)], ())
def test_what_is_known_of_other_answers_changes_nothing(
    some: list[tuple[Field, ...]], hide: tuple[str, ...]
) -> None:
    """design section 1, promise 1, whatever the server said before: the same names, and other values."""
    passing = Passing(hide)
    for pairs in [*some, *some]:
        diary: Diary = []
        kept = end_to_end(Headers(pairs), lambda name: name == b"set-cookie")
        hidden = [pair for pair in kept if hide and pair[0].lower().startswith((b"server", b"x-"))]
        got = passing(said(pairs), make_call(journey=FakeJourney(diary)))
        assert got.pairs == tuple(pair for pair in kept if pair not in hidden)
        assert diary == [("j1", "altered", HIDDEN)] * len(hidden)
        assert why_not(passing, said(pairs)) == refusal(pairs)


@pytest.mark.parametrize("status", [0, 100, 199, 206, 300, 304, 399, 600])
def test_a_status_that_is_no_answer_is_refused(status: int) -> None:
    """RFC 9110 section 15: nobody asked for a part, and redirects are followed before or not at all."""
    assert why_not(Passing(), said((), status)) == f"Its HTTP status was {status}."
    assert [why_not(Passing(), said((), good)) for good in (200, 202, 299, 400, 599)] == [None] * 5


def test_places_are_those_of_the_first_field_of_a_name() -> None:
    """As `Headers.get` has it; none is nowhere."""
    pairs = ((b"A", b""), (b"content-LENGTH", b"1"), (b"Mcp-Session-Id", b"s"), (b"mcp-session-id", b"t"))
    places = Passing().check(said(pairs))
    assert (places.length, places.session, places.type, places.codings) == (1, 2, -1, ())


def test_what_is_known_of_names_is_bounded() -> None:
    """style guide, section 8: every table that others can grow."""
    passing = Passing()
    for number in range(3 * MAX_KNOWN):
        passing(said(((b"X-%d" % number, b"1"),)))
    assert len(passing._known) <= MAX_KNOWN
    before = list(passing._known)
    passing(said(((b"x" * (MAX_KNOWN_BYTES + 1), b"1"),)))
    assert list(passing._known) == before
