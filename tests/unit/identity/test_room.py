"""Which authenticator decides, what counts as one credential, and what never happens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
import pytest

from proxy.identity.attempts import Attempts
from proxy.identity.credential import BEARER, Credential, bad, unavailable
from proxy.identity.room import CERTIFICATE, Room, Way
from proxy.model import Call, Headers, Peer, Principal, Reason, Refused
from tests.fakes import awaited, make_call

BOB = Principal(issuer="i", subject="bob", tenant="t")
ANN = Principal(issuer="i", subject="ann", tenant="t")
ANYBODY = Principal(issuer="anonymous", subject="anybody", tenant="t")

Answer = Principal | Exception | None


class Fake:
    """An authenticator with one answer; notes what it was asked."""

    def __init__(self, answer: Answer, *, remembers: Principal | None = None) -> None:
        self.answer = answer
        self.remembers = remembers
        self.asked: list[str] = []

    def known(self, credential: Credential) -> Principal | None:
        return self.remembers

    async def __call__(self, credential: Credential) -> Principal | None:
        self.asked.append(credential.text or "certificate")
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def room(
    *ways: Way, anonymous: Principal | None = None, most: int = 100, now: Callable[[], float] = lambda: 0.0
) -> Room:
    return Room(ways, anonymous=anonymous, attempts=Attempts(most, 60), owns=None, now=now)


def calling(*fields: tuple[str, str], certificate: bytes | None = None) -> Call:
    pairs = ((name.encode(), value.encode()) for name, value in fields)
    return make_call(headers=Headers(pairs), peer=Peer("192.0.2.1", certificate))


def bearer(token: str = "tok") -> Call:
    return calling(("Authorization", f"Bearer {token}"))


def refused(room: Room, call: Call) -> Refused:
    with pytest.raises(Refused) as caught:
        asyncio.run(awaited(room(call)))
    return caught.value


def test_the_first_that_knows_the_credential_decides() -> None:
    """Design 3: tried in order."""
    first, second, third = Fake(None), Fake(BOB), Fake(ANN)
    ways = [Way(BEARER, each) for each in (first, second, third)]
    assert asyncio.run(awaited(room(*ways)(bearer()))) is BOB
    assert (first.asked, second.asked, third.asked) == (["tok"], ["tok"], [])


def test_a_bad_credential_never_falls_through() -> None:
    """Design 3: a token that names a known issuer never falls through, nor to anonymous."""
    second = Fake(ANN)
    with_all = room(Way(BEARER, Fake(bad("no"))), Way(BEARER, second), anonymous=ANYBODY)
    assert refused(with_all, bearer()).reason is Reason.BAD_CREDENTIAL
    assert second.asked == []


def test_a_credential_nobody_knows_is_not_anonymous() -> None:
    """Only whoever presents nothing is anonymous."""
    mixed = room(Way(BEARER, Fake(None)), anonymous=ANYBODY)
    assert refused(mixed, bearer()).reason is Reason.BAD_CREDENTIAL
    assert asyncio.run(awaited(mixed(calling()))) is ANYBODY


def test_nothing_presented_is_no_credential() -> None:
    """Corpus AUTH-001."""
    assert refused(room(Way(BEARER, Fake(BOB))), calling()).reason is Reason.NO_CREDENTIAL


def test_two_headers_may_name_two_callers() -> None:
    """Corpus AUTH-113: the identity of one, the limits of the other."""
    both = room(Way(BEARER, Fake(BOB)), Way("x-api-key", Fake(ANN)))
    two = calling(("Authorization", "Bearer tok"), ("X-API-Key", "a.b"))
    assert refused(both, two).reason is Reason.BAD_CREDENTIAL
    twice = calling(("X-API-Key", "a.b"), ("X-API-Key", "a.b"))
    assert refused(both, twice).reason is Reason.BAD_CREDENTIAL


def test_a_header_that_no_authenticator_reads_is_no_credential() -> None:
    """It is the server's business, or nobody's."""
    keys = room(Way("x-api-key", Fake(ANN)))
    two = calling(("Authorization", "Basic eDp5"), ("X-API-Key", "a.b"))
    assert asyncio.run(awaited(keys(two))) is ANN


@pytest.mark.parametrize(
    "value",
    [
        "",
        "Bearer",
        "Bearer ",
        "Basic eDp5",
        "tok",
        "Bearer a b",
        "Bearer a,b",
        "Bearer a\tb",
        "Bearer ü",
        "Token t",
    ],
)
def test_what_is_no_bearer_token_is_refused_unseen(value: str) -> None:
    """Corpus AUTH-007 to AUTH-020: no authenticator meets odd bytes."""
    asked = Fake(BOB)
    assert (
        refused(room(Way(BEARER, asked)), calling(("Authorization", value))).reason is Reason.BAD_CREDENTIAL
    )
    assert asked.asked == []


@pytest.mark.parametrize("value", ["bearer tok", "BEARER tok", "Bearer   tok", " Bearer tok "])
def test_the_scheme_has_no_case(value: str) -> None:
    """RFC 9110 section 11.1."""
    asked = Fake(BOB)
    assert asyncio.run(awaited(room(Way(BEARER, asked))(calling(("Authorization", value))))) is BOB
    assert asked.asked == ["tok"]


@pytest.mark.parametrize("value", ["", "a b", "ü.b", "a\x7f"])
def test_what_is_no_key_is_refused_unseen(value: str) -> None:
    """Corpus AUTH-110."""
    asked = Fake(BOB)
    assert (
        refused(room(Way("x-api-key", asked)), calling(("X-API-Key", value))).reason is Reason.BAD_CREDENTIAL
    )
    assert asked.asked == []


def test_a_credential_of_20_kb_is_not_looked_at() -> None:
    """Hashing and parsing are work."""
    asked = Fake(BOB)
    assert refused(room(Way(BEARER, asked)), bearer("a" * 20_000)).reason is Reason.BAD_CREDENTIAL
    assert asked.asked == []


@pytest.mark.parametrize("query", ["k=tok", "api_key=t%6Fk&a=b", "tok"])
def test_a_credential_in_the_query_too_would_go_upstream(query: str) -> None:
    """MCP basic/authorization: tokens MUST NOT be in the URI query string."""
    call = msgspec.structs.replace(bearer(), query=query)
    assert refused(room(Way(BEARER, Fake(BOB))), call).reason is Reason.BAD_CREDENTIAL
    other = msgspec.structs.replace(bearer(), query="sessionId=1")
    assert asyncio.run(awaited(room(Way(BEARER, Fake(BOB)))(other))) is BOB


def test_an_exception_is_never_a_default_identity() -> None:
    """Corpus AUTH-133: 401 or 503, and what went wrong stays with us."""
    broken = room(Way(BEARER, Fake(RuntimeError("the token was tok"))), anonymous=ANYBODY)
    why = refused(broken, bearer())
    assert why.reason is Reason.IDP_UNAVAILABLE
    assert isinstance(why.__cause__, RuntimeError)
    assert "tok " not in why.why + " "


def test_too_many_failures_are_not_listened_to_any_more() -> None:
    """Issue 3: before expensive work, per source."""
    asked = Fake(bad("no"))
    limited = room(Way(BEARER, asked), most=3)
    for _ in range(3):
        assert refused(limited, bearer()).reason is Reason.BAD_CREDENTIAL
    late = refused(limited, bearer())
    assert (late.reason, len(asked.asked)) == (Reason.TOO_MANY_FAILURES, 3)
    assert late.retry_after_s == pytest.approx(60.0)


def test_whoever_was_proven_a_moment_ago_is_heard_all_the_same() -> None:
    """Others behind the same address must not lock a caller out who is at work."""
    asked = Fake(bad("no"))
    limited = room(Way(BEARER, asked), most=1)
    refused(limited, bearer())
    asked.remembers = BOB
    assert asyncio.run(awaited(limited(bearer()))) is BOB


class Fickle(Fake):
    """Believes what it is told to believe."""

    def __init__(self, *good: str) -> None:
        super().__init__(None)
        self.good = set(good)

    async def __call__(self, credential: Credential) -> Principal | None:
        self.asked.append(credential.text)
        if credential.text not in self.good:
            raise bad("no")
        return BOB


def test_guesses_do_not_shut_out_who_was_proven_before_at_the_same_address() -> None:
    """Attack: behind a gateway everybody has one address; a stranger's hundred guesses a minute were an outage for
    everybody as soon as their last proof was forgotten, which is after a minute."""
    fickle = Fickle("tok")
    strict = room(Way(BEARER, fickle), most=2)
    assert asyncio.run(awaited(strict(bearer()))) is BOB
    for guess in ("g1", "g2"):
        assert refused(strict, bearer(guess)).reason is Reason.BAD_CREDENTIAL
    assert refused(strict, bearer("g3")).reason is Reason.TOO_MANY_FAILURES
    assert asyncio.run(awaited(strict(bearer()))) is BOB


def test_what_was_proven_once_and_is_bad_now_is_a_guess_like_others() -> None:
    """One look at what was withdrawn, and no more of them while the address is not listened to."""
    fickle = Fickle("tok")
    strict = room(Way(BEARER, fickle), most=2)
    assert asyncio.run(awaited(strict(bearer()))) is BOB
    for guess in ("g1", "g2"):
        refused(strict, bearer(guess))
    fickle.good.clear()
    assert refused(strict, bearer()).reason is Reason.BAD_CREDENTIAL
    assert refused(strict, bearer()).reason is Reason.TOO_MANY_FAILURES
    assert fickle.asked == ["tok", "g1", "g2", "tok"]


def test_a_valid_credential_starts_anew() -> None:
    """Issue 3: reset on success."""
    asked = Fake(bad("no"))
    limited = room(Way(BEARER, asked), most=2)
    refused(limited, bearer())
    asked.answer = BOB
    asyncio.run(awaited(limited(bearer())))
    asked.answer = bad("no")
    refused(limited, bearer())
    assert refused(limited, bearer()).reason is Reason.BAD_CREDENTIAL


@pytest.mark.parametrize(
    "answer", [bad("old", expired=True), unavailable("down"), Refused(Reason.SCOPE_MISSING), RuntimeError()]
)
def test_what_is_no_guess_does_not_count(answer: Exception) -> None:
    """An expired token, an outage of the provider or of ours: nobody tries anything."""
    limited = room(Way(BEARER, Fake(answer)), most=1)
    first = refused(limited, bearer()).reason
    assert refused(limited, bearer()).reason is first is not Reason.TOO_MANY_FAILURES


def test_a_known_certificate_does_not_cover_a_bad_token() -> None:
    """The order of the settings decides, also when something is remembered."""
    tokens, certificates = Fake(bad("no")), Fake(ANN, remembers=ANN)
    both = calling(("Authorization", "Bearer tok"), certificate=b"der")
    ordered = room(Way(BEARER, tokens), Way(CERTIFICATE, certificates))
    assert refused(ordered, both).reason is Reason.BAD_CREDENTIAL
    assert asyncio.run(awaited(ordered(calling(certificate=b"der")))) is ANN
    turned = room(Way(CERTIFICATE, certificates), Way(BEARER, tokens))
    assert asyncio.run(awaited(turned(both))) is ANN


def test_a_head_that_comes_again_proves_nothing_by_having_been_good() -> None:
    """README "A head that comes again is known": never who calls. Credentials end, and are withdrawn."""
    ann = Fake(ANN, remembers=ANN)
    asking, same = room(Way(BEARER, ann)), bearer()
    assert asyncio.run(awaited(asking(same))) is ANN
    ann.remembers, ann.answer = None, bad("withdrawn")
    assert refused(asking, same).reason is Reason.BAD_CREDENTIAL
    ann.remembers = BOB
    assert asyncio.run(awaited(asking(same))) is BOB


def test_a_head_that_comes_again_after_a_reload_is_read_by_the_settings_of_now() -> None:
    """Other headers may hold credentials then."""
    before, after = room(Way(BEARER, Fake(ANN))), room(Way("x-key", Fake(BOB)), anonymous=ANYBODY)
    same = calling(("Authorization", "Bearer tok"), ("X-Key", "id.secret"))
    assert [asyncio.run(awaited(each(same))) for each in (before, after, before)] == [ANN, BOB, ANN]


def test_a_certificate_belongs_to_its_connection_whatever_the_head() -> None:
    """Own promise: what is remembered of a head says nothing of who is at the other end."""
    certificates = room(Way(CERTIFICATE, Fake(ANN, remembers=ANN)))
    with_one = calling(certificate=b"der")
    without = make_call(headers=with_one.headers)
    assert asyncio.run(awaited(certificates(with_one))) is ANN
    assert refused(certificates, without).reason is Reason.NO_CREDENTIAL


def test_a_certificate_that_nobody_reads_is_no_credential() -> None:
    """TLS alone proves nothing to a room without mtls."""
    only_tokens = room(Way(BEARER, Fake(BOB)))
    assert refused(only_tokens, calling(certificate=b"der")).reason is Reason.NO_CREDENTIAL


def test_what_the_call_names_must_be_the_callers_own() -> None:
    """Issue 3, 8: before policy and limits."""

    class Nobodys:
        def check(self, call: Call, principal: Principal) -> None:
            assert principal is BOB
            raise Refused(Reason.SESSION_UNKNOWN)

    owning = Room(
        [Way(BEARER, Fake(BOB))], anonymous=None, attempts=Attempts(1, 60), owns=Nobodys(), now=lambda: 0.0
    )
    assert refused(owning, bearer()).reason is Reason.SESSION_UNKNOWN
    assert refused(owning, bearer()).reason is Reason.SESSION_UNKNOWN
