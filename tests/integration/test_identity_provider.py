"""An identity provider that rotates, withdraws, hangs, breaks and comes back: who is let in meanwhile?

First the authenticator by itself, with a clock that a test may put forward; then whole sidecars.
"""

import asyncio
import contextlib
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from proxy.identity.credential import BEARER, of_header
from proxy.identity.jwt import Jwt
from proxy.identity.key_fetch import PATIENCE_S
from proxy.identity.provider import Provider
from proxy.identity.settings import JwtSettings
from proxy.model import Reason, Refused
from tests.idp import AUDIENCE, Idp, Scripted, key_for
from tests.integration.client import Client, connected
from tests.integration.conftest import Connect, OpenSidecar
from tests.integration.house import Sidecar
from tests.integration.upstream import Exchange, Upstream
from tests.integration.waiting import within
from tests.integration.wire import LEGACY, post, result, tool_call


class Clock:
    """Monotonic seconds that a test may let pass at once."""

    skipped_s = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.skipped_s


async def until(is_true: Callable[[], bool]) -> None:
    """Let the loop turn, sockets included, until it is so."""
    async with within():
        while not is_true():  # noqa: ASYNC110  # nothing tells; a turn is all that it takes
            await asyncio.sleep(0)


@asynccontextmanager
async def verifying(
    idp: Idp, clock: Clock | None = None, patience_s: float = PATIENCE_S, **settings: Any
) -> AsyncIterator[Jwt]:
    """An authenticator that has fetched the keys of `idp`."""
    provider = Provider()
    jwt = Jwt(
        JwtSettings(issuer=idp.issuer, jwks_url=idp.jwks_url, **settings),
        frozenset({AUDIENCE}),
        provider,
        now=clock or Clock(),
        wall=time.time,
        patience_s=patience_s,
    )
    job = asyncio.ensure_future(jwt.run())
    try:
        await until(lambda: jwt.is_usable)
        yield jwt
    finally:
        job.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await job
        await provider.close()


async def outcome(jwt: Jwt, token: str) -> str:
    """The subject that is proven, or why nobody is."""
    try:
        async with within():
            principal = await jwt(of_header(BEARER, token))
    except Refused as refused:
        return refused.reason
    return "nobody" if principal is None else principal.subject


async def outcomes(jwt: Jwt, tokens: list[str]) -> Counter[str]:
    return Counter(await asyncio.gather(*(outcome(jwt, token) for token in tokens)))


def many(idp: Idp, kid: str, count: int = 200) -> list[str]:
    """Tokens of which none was seen before."""
    return [idp.token(kid=kid, jti=str(at)) for at in range(count)]


def forged(idp: Idp, count: int) -> list[str]:
    """Tokens that name keys which do not exist, each another one."""
    key = key_for("evil", "ES256")
    return [idp.token(kid=f"x{at}", alg="ES256", key=key) for at in range(count)]


# The authenticator.


async def test_after_a_rotation_nobody_is_refused_wrongly() -> None:
    """The first who brings a token of the new key causes a fetch; all others wait for that one."""
    async with Idp() as idp, verifying(idp) as jwt:
        assert await outcomes(jwt, many(idp, "k1")) == {"alice": 200}
        idp.publish("k2")
        idp.withdraw("k1")
        assert await outcomes(jwt, many(idp, "k2")) == {"alice": 200}
        assert idp.fetches == 2


async def test_a_rotation_during_the_cool_down_is_seen_after_it() -> None:
    """Somebody who invents kids uses up the question; 30 s later there is another one, and no 401 any more."""
    clock = Clock()
    async with Idp() as idp, verifying(idp, clock) as jwt:
        assert await outcomes(jwt, forged(idp, 50)) == {Reason.BAD_CREDENTIAL: 50}
        idp.publish("k2")
        idp.withdraw("k1")
        assert await outcomes(jwt, many(idp, "k2", 5)) == {Reason.BAD_CREDENTIAL: 5}
        clock.skipped_s = 30
        everybody = [*many(idp, "k2"), *forged(idp, 50)]
        assert await outcomes(jwt, everybody) == {"alice": 200, Reason.BAD_CREDENTIAL: 50}
        clock.skipped_s = 59
        assert await outcomes(jwt, everybody) == {"alice": 200, Reason.BAD_CREDENTIAL: 50}
        assert idp.fetches == 3


async def test_a_thousand_unknown_kids_cause_two_fetches_at_most() -> None:
    """The one at the start, and one for all of them. Nobody here is in a hurry: 500 at once keep a busy machine at it
    for longer than a caller waits."""
    async with Idp() as idp, verifying(idp, patience_s=60) as jwt:
        tokens = forged(idp, 1_000)
        assert await outcomes(jwt, tokens[:500]) == {Reason.BAD_CREDENTIAL: 500}
        for token in tokens[500:]:
            assert await outcome(jwt, token) == Reason.BAD_CREDENTIAL
        assert idp.fetches == 2


async def test_a_provider_that_hangs_delays_nobody_whose_key_is_known() -> None:
    """Corpus AUTH-094. Those whose key is unknown are told within a second that nobody can tell."""
    async with Idp() as idp, verifying(idp) as jwt:
        hold = asyncio.Event()
        idp.jwks_answer = Scripted(hold=hold)
        unknown = asyncio.ensure_future(outcomes(jwt, many(idp, "k2", 20)))
        await idp.fetched(2)
        began = time.monotonic()
        for token in many(idp, "k1", 100):
            assert await outcome(jwt, token) == "alice"
        assert not unknown.done()
        assert await unknown == {Reason.IDP_UNAVAILABLE: 20}
        assert time.monotonic() - began < 2
        assert idp.fetches == 2
        hold.set()


TROUBLE = [
    Scripted(body=b"<html><body>Sign in</body></html>", headers={"Content-Type": "text/html"}),
    Scripted(status=500),
    Scripted(status=404, body=b'{"keys":[]}'),
    Scripted(status=302, headers={"Location": "http://169.254.169.254/"}, body=b""),
    Scripted(body=json.dumps({"keys": [], "pad": "x" * 300 * 1024}).encode()),
    Scripted(body=b'{"keys":[],"keys":[]}'),
    Scripted(body=b""),
]


@pytest.mark.parametrize("trouble", TROUBLE)
async def test_an_answer_that_is_no_key_set_keeps_the_old_keys(trouble: Scripted) -> None:
    """Corpus AUTH-093, 096, 101: no key is withdrawn by a page, an error or half a document."""
    async with Idp() as idp, verifying(idp) as jwt:
        idp.jwks_answer = trouble
        assert await outcome(jwt, idp.token(kid="k2")) == Reason.IDP_UNAVAILABLE
        why = jwt.why_degraded()
        assert why is not None
        assert why.startswith("keys not renewed: ")
        assert await outcomes(jwt, many(idp, "k1", 5)) == {"alice": 5}
        assert jwt.is_usable


async def test_two_keys_of_one_name_keep_the_old_ones() -> None:
    """Corpus AUTH-099: the second is the attacker's."""
    async with Idp() as idp, verifying(idp) as jwt:
        evil = idp.token(key=key_for("evil", "RS256"))
        idp.publish("evil")
        idp.jwks["evil"]["kid"] = "k1"
        assert await outcome(jwt, idp.token(kid="k2")) == Reason.IDP_UNAVAILABLE
        assert jwt.why_degraded() == "keys not renewed: one kid names two keys"
        assert await outcome(jwt, evil) == Reason.BAD_CREDENTIAL
        assert await outcome(jwt, idp.token()) == "alice"


async def test_a_withdrawn_key_takes_its_tokens_with_it() -> None:
    """Corpus AUTH-103, and also those that were verified a moment ago."""
    async with Idp() as idp, verifying(idp) as jwt:
        old = idp.token()
        assert await outcome(jwt, old) == "alice"
        assert jwt.known(of_header(BEARER, old)) is not None
        idp.publish("k2")
        idp.withdraw("k1")
        assert await outcome(jwt, idp.token(kid="k2")) == "alice"
        assert jwt.known(of_header(BEARER, old)) is None
        assert await outcome(jwt, old) == Reason.BAD_CREDENTIAL


async def test_keys_of_each_issuer_are_its_own() -> None:
    """Corpus AUTH-066: another trusted issuer, with a key of the same name, signs nothing for this one."""
    async with Idp() as one, Idp() as other:
        other.publish("k1", key_for("the other's", "RS256"))
        async with verifying(one) as first, verifying(other) as second:
            assert await outcome(first, one.token()) == "alice"
            assert await outcome(second, one.token()) == "nobody"
            assert await outcome(first, other.token()) == "nobody"
            assert await outcome(second, other.token(iss=one.issuer)) == "nobody"
            assert await outcome(first, other.token(iss=one.issuer)) == Reason.BAD_CREDENTIAL


# Whole sidecars.


async def serve(exchange: Exchange) -> None:
    exchange.answer(result())


Open = Callable[..., Any]


@pytest.fixture
def guarded(open_sidecar: OpenSidecar, upstream: Upstream) -> Callable[..., Any]:
    """Opens a sidecar that lets in whom these issuers name."""
    upstream.follow(serve)

    async def opened(*idps: Idp, **settings: Any) -> Sidecar:
        chosen = [
            {"kind": "jwt", "issuer": each.issuer, "jwks_url": each.jwks_url, **settings} for each in idps
        ]
        return await open_sidecar(
            f"identity.resource={AUDIENCE}",
            f"identity.authenticators={json.dumps(chosen)}",
            "identity.failed_attempts.most=100000",
        )

    return opened


async def status(client: Client, token: str) -> int:
    answer = await client.asked(post(tool_call(), LEGACY, ("Authorization", f"Bearer {token}")))
    return answer.status


async def ready(side: Sidecar) -> tuple[int, dict[str, Any]]:
    answer = await side.probe("/readyz")
    said = answer.json
    assert isinstance(said, dict)
    return answer.status, said


async def became_ready(side: Sidecar) -> None:
    async with within():
        while (await ready(side))[0] != 200:
            pass


async def test_a_provider_that_is_down_at_the_start_holds_nobody_up(
    guarded: Open, connect: Connect, upstream: Upstream
) -> None:
    """Corpus AUTH-092: unready and 503, never 401 and never a yes; ready at most 5 s after it is back."""
    idp = Idp()
    await idp.start()
    await idp.stop()
    side = await guarded(idp)
    client = await connect(side.port)
    assert (await side.probe("/startupz")).status == 200
    assert await ready(side) == (503, {"status": "unavailable", "reason": "keys not loaded"})
    answer = await client.asked(post(tool_call(), LEGACY, ("Authorization", f"Bearer {idp.token()}")))
    assert (answer.status, answer.get("Retry-After"), answer.get("WWW-Authenticate")) == (503, "1", None)
    assert upstream.seen == []
    await idp.start()
    back = time.monotonic()
    await became_ready(side)
    assert time.monotonic() - back < 5
    assert await status(client, idp.token()) == 200
    await idp.stop()


async def test_a_provider_that_goes_down_later_is_only_degraded(guarded: Open, connect: Connect) -> None:
    """Keys serve on; an operator sees that something is wrong."""
    async with Idp() as idp:
        side = await guarded(idp)
        client = await connect(side.port)
        await became_ready(side)
        idp.jwks_answer = Scripted(status=500)
        assert await status(client, idp.token(kid="k2")) == 503
        assert await status(client, idp.token()) == 200
        code, said = await ready(side)
        assert (code, said["status"]) == (200, "degraded")
        assert "status 500" in str(said["reasons"])


async def test_a_hanging_provider_holds_no_call_up(guarded: Open, connect: Connect) -> None:
    """Refreshed in the background: 100 calls pass while the refresh hangs."""
    async with Idp() as idp:
        side = await guarded(idp, jwks_refresh_s=1.0)
        client = await connect(side.port)
        await became_ready(side)
        hold = asyncio.Event()
        idp.jwks_answer = Scripted(hold=hold)
        await idp.fetched(idp.fetches + 1)
        fetches = idp.fetches
        async with within(4):  # the fetch itself is given up after 5 s
            for token in many(idp, "k1", 100):
                assert await status(client, token) == 200
        assert idp.fetches == fetches
        hold.set()


async def test_a_rotation_under_load_refuses_nobody(guarded: Open, upstream: Upstream) -> None:
    """Eight clients call without a pause while keys come and go as issuers rotate them."""
    async with Idp() as idp:
        side = await guarded(idp)
        await became_ready(side)
        kid = "k1"
        seen: Counter[int] = Counter()
        stopping = False

        async def call(name: str) -> None:
            async with connected(side.port) as client:
                at = 0
                while not stopping:
                    at += 1
                    seen[await status(client, idp.token(kid=kid, sub=name, jti=str(at)))] += 1

        async def calls(count: int) -> None:
            enough = seen.total() + count
            await until(lambda: seen.total() >= enough)

        async with asyncio.TaskGroup() as group:
            for at in range(8):
                group.create_task(call(f"client {at}"))
            await calls(50)
            idp.publish("k2")
            kid = "k2"
            await calls(50)
            idp.withdraw("k1")
            await calls(50)
            stopping = True
        assert set(seen) == {200}
        assert idp.fetches == 2


async def test_a_withdrawn_key_is_refused_after_the_next_refresh(guarded: Open, connect: Connect) -> None:
    """Without anybody who brings a new kid: the refresh alone empties the cache of verified tokens."""
    async with Idp() as idp:
        idp.publish("k2")
        side = await guarded(idp, jwks_refresh_s=1.0)
        client = await connect(side.port)
        await became_ready(side)
        old = idp.token()
        assert await status(client, old) == 200
        idp.withdraw("k1")
        # Two more: when the second comes, the answer to the first has been read.
        await idp.fetched(idp.fetches + 2)
        assert await status(client, old) == 401
        assert await status(client, idp.token(kid="k2")) == 200


async def test_several_issuers_let_in_their_own(guarded: Open, connect: Connect) -> None:
    """A token is judged by the issuer it names, and by no other."""
    async with Idp() as one, Idp() as other:
        other.publish("k1", key_for("the other's", "RS256"))
        side = await guarded(one, other)
        client = await connect(side.port)
        await became_ready(side)
        assert await status(client, one.token()) == 200
        assert await status(client, other.token()) == 200
        assert await status(client, other.token(iss=one.issuer)) == 401
        assert await status(client, one.token(iss=other.issuer)) == 401
        assert await status(client, one.token(iss="https://nobody.test/")) == 401
        assert await status(client, one.token() + "=") == 401
