"""Opaque tokens, asked about over real sockets: the whole way from a credential to a principal."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from proxy.identity.credential import of_header
from proxy.identity.introspection import Introspection
from proxy.identity.provider import Provider
from proxy.identity.settings import IntrospectionSettings
from proxy.model import Principal, Reason, Refused
from proxy.secret import Secret
from tests.idp import AUDIENCE, Idp, Scripted
from tests.integration.waiting import within


class Clock:
    """Monotonic seconds that a test may let pass at once."""

    skipped_s = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.skipped_s


@asynccontextmanager
async def introspection(
    idp: Idp,
    *,
    clock: Clock | None = None,
    secret: str | None = None,
    known_issuers: frozenset[str] = frozenset(),
    timeout_s: float = 3.0,
) -> AsyncIterator[Introspection]:
    """An authenticator that asks `idp`."""
    provider = Provider()
    opened = Introspection(
        IntrospectionSettings(
            url=idp.introspection_url,
            client_id=idp.client_id,
            client_secret=Secret(idp.client_secret if secret is None else secret),
            timeout_s=timeout_s,
        ),
        frozenset({AUDIENCE}),
        provider,
        known_issuers=known_issuers,
        now=clock or Clock(),
        wall=time.time,
    )
    yield opened
    await opened.close()
    await provider.close()


async def of(asking: Introspection, token: str) -> Principal | None:
    async with within():
        return await asking(of_header("authorization", token))


async def why_not(asking: Introspection, token: str) -> Reason:
    with pytest.raises(Refused) as caught:
        await of(asking, token)
    return caught.value.reason


async def test_an_opaque_token_is_worth_what_its_issuer_says() -> None:
    async with Idp() as idp, introspection(idp) as asking:
        idp.grant("opaque", scope="read write", token_type="Bearer", client_id="cli", username="al")
        principal = await of(asking, "opaque")
        assert principal is not None
        assert principal.identity == (idp.url, "alice", "acme")
        assert principal.scopes == {"read", "write"}
        assert 590 < principal.valid_until - time.monotonic() <= 600
        assert await why_not(asking, "unknown") is Reason.BAD_CREDENTIAL
        assert idp.introspections == ["opaque", "unknown"]


async def test_a_token_for_somebody_else_is_refused() -> None:
    """Protocol notes 6.3: accepting it would make every server of the issuer our impersonator."""
    async with Idp() as idp, introspection(idp) as asking:
        idp.grant("audience", aud="https://mail.example.com/")
        idp.grant("issuer", iss="https://evil.example.com/")
        idp.grant("nobody", sub=None, client_id="cli")
        idp.grant("expired", exp=1)
        for token in idp.tokens:
            assert await why_not(asking, token) is Reason.BAD_CREDENTIAL
        assert asking.why_degraded() is None


async def test_a_hundred_calls_at_once_are_one_question() -> None:
    async with Idp() as idp, introspection(idp) as asking:
        idp.grant("opaque")
        hold = asyncio.Event()
        idp.introspection_answer = Scripted(hold=hold)
        calls = [asyncio.ensure_future(of(asking, "opaque")) for _ in range(100)]
        await idp.introspected(1)
        calls[0].cancel()
        hold.set()
        async with within():
            said = await asyncio.gather(*calls, return_exceptions=True)
        assert isinstance(said[0], asyncio.CancelledError)
        assert {each.subject for each in said[1:] if isinstance(each, Principal)} == {"alice"}
        assert len([each for each in said if isinstance(each, Principal)]) == 99
        assert idp.introspections == ["opaque"]


async def test_a_revoked_token_works_until_its_answer_is_old() -> None:
    clock = Clock()
    async with Idp() as idp, introspection(idp, clock=clock) as asking:
        idp.grant("opaque")
        await of(asking, "opaque")
        idp.revoke("opaque")
        clock.skipped_s = 55.0
        assert await of(asking, "opaque") is not None
        clock.skipped_s = 60.0
        assert await why_not(asking, "opaque") is Reason.BAD_CREDENTIAL
        # The no is kept too, for a shorter while.
        clock.skipped_s = 65.0
        assert await why_not(asking, "opaque") is Reason.BAD_CREDENTIAL
        assert idp.introspections == ["opaque"] * 2
        idp.grant("opaque")
        clock.skipped_s = 71.0
        assert await of(asking, "opaque") is not None


async def test_an_endpoint_that_is_down_says_neither_yes_nor_no() -> None:
    """And is believed again as soon as it is back: nothing of the outage is kept."""
    async with Idp() as idp, introspection(idp) as asking:
        idp.grant("opaque")
        await idp.stop()
        assert await why_not(asking, "opaque") is Reason.IDP_UNAVAILABLE
        assert asking.why_degraded() == "no introspection: not reached"
        await idp.start()
        assert await of(asking, "opaque") is not None
        assert asking.why_degraded() is None


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (Scripted(status=500), "status 500"),
        (Scripted(status=429), "status 429"),
        (Scripted(status=302, headers={"Location": "/jwks"}), "redirect"),
        (Scripted(body=b"<html>maintenance</html>"), "no JSON"),
        (Scripted(body=b" " * 300_000), "too large"),
        (Scripted(body=b'{"active":"true"}'), "no introspection answer"),
        (Scripted(headers={"Content-Encoding": "gzip"}), "compressed"),
    ],
)
async def test_nonsense_is_no_answer(answer: Scripted, why: str) -> None:
    async with Idp() as idp, introspection(idp) as asking:
        idp.grant("opaque")
        idp.introspection_answer = answer
        assert await why_not(asking, "opaque") is Reason.IDP_UNAVAILABLE
        assert asking.why_degraded() == f"no introspection: {why}"
        idp.introspection_answer = None
        assert await of(asking, "opaque") is not None


async def test_our_own_wrong_secret_is_not_the_callers_fault() -> None:
    """A 401 to us must not become a 401 to them: they would throw good tokens away."""
    async with Idp() as idp, introspection(idp, secret="old") as asking:
        idp.grant("opaque")
        assert await why_not(asking, "opaque") is Reason.IDP_UNAVAILABLE
        assert asking.why_degraded() == "no introspection: status 401"


async def test_a_silent_endpoint_is_left_in_time() -> None:
    async with Idp() as idp, introspection(idp, timeout_s=0.05) as asking:
        idp.grant("opaque")
        idp.introspection_answer = Scripted(hold=asyncio.Event())
        assert await why_not(asking, "opaque") is Reason.IDP_UNAVAILABLE
        assert asking.why_degraded() == "no introspection: timeout"


async def test_a_token_of_a_key_set_never_reaches_the_endpoint() -> None:
    """Neither a forgery nor a good one: whose signature can be checked is nobody's to be asked about."""
    known = frozenset({"https://jwt.example.com/"})
    async with Idp(issuer=min(known)) as idp, introspection(idp, known_issuers=known) as asking:
        good, forged = idp.token(), idp.token(kid="nobody's", sub="mallory")
        for token in (good, forged, good[:-4], f"{good}=", idp.token(alg="none")):
            idp.grant(token)
            assert await of(asking, token) is None
        other = idp.token(iss=idp.url)
        idp.grant(other, iss=idp.url)
        assert await of(asking, other) is not None
        assert idp.introspections == [other]
