"""A request has one id that both sides know. Issue 8, 4: request id in and out."""

import pytest

from proxy.model import Headers
from proxy.telemetry.request_ids import RequestIds
from tests.fakes import FakeJourney

NAME = RequestIds("X-Request-Id")


@pytest.mark.parametrize("sent", ["a", "7e0b6c1e-0b4f-4d8e-9f43-000000000001", "a/b:c=d+e@f~g.h", "x" * 128])
def test_what_a_client_sends_is_used(sent: str) -> None:
    journey = FakeJourney()
    assert NAME(journey, Headers([(b"x-request-ID", sent.encode())])) == (b"X-Request-Id", sent.encode())
    assert journey.diary == [("j1", "named", sent)]


@pytest.mark.parametrize(
    "fields",
    [
        [],
        [b""],
        [b"x" * 129],
        [b"a b"],
        [b"a\tb"],
        [b'a"b'],
        [b"a,b"],
        [b"\x1b[2J"],
        ["ä".encode()],
        [b"\xff"],
        [b"a", b"a"],
        [b"a\n"],
    ],
)
def test_what_is_not_safe_is_as_if_it_was_not_sent(fields: list[bytes]) -> None:
    """Own promise: nothing of it reaches a line or a reply; two ids are none."""
    journey = FakeJourney()
    headers = Headers([(b"X-Request-Id", each) for each in fields])
    assert NAME(journey, headers) == (b"X-Request-Id", b"j1")
    assert journey.diary == []
