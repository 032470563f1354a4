"""Which fields of an answer pass. Source: promise 1; UP-062; RFC 9110 sections 5.1 and 7.6.1."""

from collections.abc import AsyncIterator

import pytest

from proxy.model import Headers
from proxy.upstream.passing import HIDDEN, Passing
from proxy.upstream.transport import Answer
from tests.fakes import Diary, FakeJourney, make_call

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


def test_what_the_protocol_has_is_never_hidden() -> None:
    """`*-Internal` fits Mcp-Internal too; a page has no record."""
    assert (b"Mcp-Internal", b"c") in Passing(("*-internal",))(answer()).pairs
