"""What becomes of a server's no to our own credential, and who hears of it. Source: UP-056; issue 7."""

from __future__ import annotations

import pytest

from proxy.model import Ending, Kind, Permit, Principal, Reason, Refused, Reply, Rule, Stream
from proxy.upstream.own_credential import TELL_EVERY_S, OwnCredential
from tests.fakes import Diary, FakeJourney, make_call, make_headers

LEADS: str = 'Bearer resource_metadata="http://169.254.169.254/"'


def permit(kind: Kind = Kind.REQUEST, diary: Diary | None = None) -> Permit:
    principal = Principal(issuer="test", subject="ann", tenant="acme")
    call = make_call(kind=kind, journey=FakeJourney(diary))
    return Permit(call=call, principal=principal, rule=Rule(id="r"))


class Scene:
    """The stage with a clock of its own, before a server that says what a test wants."""

    def __init__(self) -> None:
        self.now = 100.0
        self.told: list[int] = []
        self.reply: Reply | Refused = Reply(200, make_headers())
        self.stage = OwnCredential(self.serve, refused=self.told.append, now=lambda: self.now)

    async def serve(self, permit: Permit) -> Reply:
        if isinstance(self.reply, Refused):
            raise self.reply
        return self.reply

    async def meets(self, status: int, asked: Permit | None = None) -> Reply | Refused:
        self.reply = Reply(status, make_headers(www_authenticate=LEADS), b"x")
        try:
            return await self.stage(asked or permit())
        except Refused as refused:
            return refused


@pytest.mark.parametrize("status", [401, 407])
@pytest.mark.parametrize("kind", [Kind.REQUEST, Kind.NOTIFICATION, Kind.LISTEN, Kind.END, Kind.ANSWER])
async def test_the_no_is_told_as_an_outage(status: int, kind: Kind) -> None:
    """On every connection: SDK clients begin an OAuth flow at any 401, that of a GET too."""
    diary: Diary = []
    said = await Scene().meets(status, permit(kind, diary))
    assert isinstance(said, Refused)
    assert (said.reason, said.status, said.headers) == (Reason.UPSTREAM_BROKE, None, ())
    assert diary == [("j1", "altered", "challenge")]


async def test_what_was_open_for_the_answer_is_closed() -> None:
    """A 401 may come as a stream, and who holds a place for it is told."""
    ended: list[object] = []

    async def chunks() -> object:
        yield b"x"

    stream = Stream(chunks(), lambda: ended.append("closed"))  # type: ignore[arg-type]  # a generator is one
    scene = Scene()
    scene.reply = Reply(401, make_headers(), stream)
    scene.reply.when_done(ended.append)
    with pytest.raises(Refused):
        await scene.stage(permit())
    assert ended == ["closed", Ending.COMPLETE]


async def test_other_errors_pass_without_a_challenge() -> None:
    """RFC 6750 section 3.1: insufficient_scope comes with a 403, and leads clients just the same."""
    scene, diary = Scene(), list[tuple[object, ...]]()
    reply = Reply(403, make_headers(x_one="1", www_authenticate=LEADS, x_two="2"), b"no")
    scene.reply = reply
    assert await scene.stage(permit(diary=diary)) is reply
    assert reply.headers == make_headers(x_one="1", x_two="2")
    assert diary == [("j1", "altered", "challenge")]
    assert scene.told == []


@pytest.mark.parametrize("status", [200, 202, 400, 403, 404, 500, 503])
async def test_what_has_no_challenge_is_not_changed(status: int) -> None:
    """Promise 1, and nothing is told."""
    scene, diary = Scene(), list[tuple[object, ...]]()
    headers = make_headers(x_one="1")
    scene.reply = Reply(status, headers, b"x")
    reply = await scene.stage(permit(diary=diary))
    assert (reply.headers, diary, scene.told) == (headers, [], [])
    assert scene.stage.why_degraded() == []


async def test_an_operator_is_told_at_once_and_then_each_minute() -> None:
    """A thousand calls a second must not fill a disk; none of them is forgotten."""
    scene = Scene()
    for _ in range(5):
        await scene.meets(401)
    assert scene.told == [1]
    scene.now += TELL_EVERY_S - 0.1
    await scene.meets(407)
    assert scene.told == [1]
    scene.now += 0.1
    await scene.meets(401)
    assert scene.told == [1, 6]


async def test_it_is_degraded_until_the_server_accepts_us() -> None:
    """An error says nothing of that, nor does an answer that never came."""
    scene = Scene()
    await scene.meets(401)
    reasons = ["the server does not accept the sidecar's own credential"]
    assert (scene.stage.why_degraded(), scene.stage.why_unready()) == (reasons, None)
    await scene.meets(503)
    scene.reply = Refused(Reason.UPSTREAM_UNREACHABLE)
    with pytest.raises(Refused):
        await scene.stage(permit())
    assert scene.stage.why_degraded() == reasons
    await scene.meets(200)
    assert scene.stage.why_degraded() == []
