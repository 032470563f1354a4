"""An opaque token is what its authorization server says it is, for a while; and nothing at all otherwise."""

import asyncio
import base64
import gc
import json
import math
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType

import pytest

from proxy.configuration.mistakes import Unfit
from proxy.identity import introspection
from proxy.identity.credential import Credential, of_certificate, of_header
from proxy.identity.introspection import MAX_BAD_S, MAX_QUESTIONS, Introspection
from proxy.identity.provider import Unavailable
from proxy.identity.settings import IntrospectionSettings
from proxy.model import Principal, Reason, Refused
from proxy.secret import Secret

ENDPOINT = "https://login.test/oauth/introspect"
RESOURCE = "https://tools.test/mcp"
START = 1_800_000_000.0
"""What the wall says when the monotonic clock says 0."""
ACTIVE: Mapping[str, object] = {
    "active": True,
    "aud": RESOURCE,
    "sub": "alice",
    "tenant": "acme",
    "scope": "read write",
    "roles": ["editor"],
    "exp": START + 3600,
}
ABSENT = object()


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def now(self) -> float:
        return self.now_s

    def wall(self) -> float:
        return START + self.now_s


class FakeServer:
    """Fulfils `Asks`: says of each token what a test has written."""

    def __init__(self) -> None:
        self.says: dict[str, object] = {}
        """An answer, its bytes, or the exception that stands for none. Of other tokens: not active."""
        self.asked: list[str] = []
        self.questions: list[tuple[object, ...]] = []
        self.hold: asyncio.Event | None = None
        self.came = asyncio.Event()

    async def ask(
        self, url: str, form: Mapping[str, str], *, user: str, secret: Secret, timeout_s: float
    ) -> bytes:
        self.questions.append((url, dict(form), user, secret, timeout_s))
        self.asked.append(form["token"])
        self.came.set()
        if self.hold is not None:
            await self.hold.wait()
        said = self.says.get(form["token"], {"active": False})
        if isinstance(said, Exception):
            raise said
        return said if isinstance(said, bytes) else json.dumps(said).encode()


class Stand:
    """An authenticator, its server and its clock."""

    def __init__(
        self, *, known_issuers: frozenset[str] = frozenset(), max_kept: int = 100, **settings: object
    ) -> None:
        self.server = FakeServer()
        self.clock = Clock()
        chosen: dict[str, object] = {
            "url": ENDPOINT,
            "client_id": "sidecar",
            "client_secret": Secret("s3cret"),
            "max_per_s": 10_000.0,
            **settings,
        }
        self.introspection = Introspection(
            IntrospectionSettings(**chosen),  # type: ignore[arg-type]  # chosen by each test
            frozenset({RESOURCE}),
            self.server,
            known_issuers=known_issuers,
            max_kept=max_kept,
            now=self.clock.now,
            wall=self.clock.wall,
        )

    def says(self, token: str = "t", /, **changes: object) -> None:
        """The server calls the token active from now on, with some members changed."""
        members = {**ACTIVE, **changes}
        self.server.says[token] = {name: each for name, each in members.items() if each is not ABSENT}

    async def of(self, token: str = "t") -> Principal | None:
        async with asyncio.timeout(5):
            return await self.introspection(bearer(token))

    async def no(self, token: str = "t") -> Refused:
        """The refusal that the token meets."""
        with pytest.raises(Refused) as caught:
            await self.of(token)
        return caught.value

    def starts(self, *tokens: str) -> list["asyncio.Future[Principal | None]"]:
        """Calls that bring these tokens, under way."""
        return [asyncio.ensure_future(self.introspection(bearer(token))) for token in tokens]


def bearer(token: str) -> Credential:
    return of_header("authorization", token)


async def turns() -> None:
    """Let everything that is ready to run, run."""
    for _ in range(20):
        await asyncio.sleep(0)


def jwt(claims: str, header: str = '{"alg":"RS256","kid":"k1"}') -> str:
    """A token that looks signed."""
    parts = (header, claims, "signature")
    return ".".join(base64.urlsafe_b64encode(each.encode()).rstrip(b"=").decode() for each in parts)


# What is asked, and what becomes of the answer.


async def test_an_active_token_names_its_bearer() -> None:
    stand = Stand()
    stand.says()
    assert await stand.of() == Principal(
        issuer="https://login.test",
        subject="alice",
        tenant="acme",
        roles=frozenset({"editor"}),
        scopes=frozenset({"read", "write"}),
        fingerprint=bearer("t").fingerprint,
        valid_until=3600.0,
    )


async def test_the_question_is_rfc_7662s() -> None:
    """Section 2.1: the token in the form, our own credential beside it; the hint is optional and true."""
    stand = Stand(timeout_s=2.5)
    await stand.no("a+b/c=")
    form = {"token": "a+b/c=", "token_type_hint": "access_token"}
    assert stand.server.questions == [(ENDPOINT, form, "sidecar", Secret("s3cret"), 2.5)]


class Mounted:
    """Fulfils `Source`: a file that somebody else writes."""

    files = ("/run/secrets/oauth",)

    def __init__(self) -> None:
        self.text: str | None = "new"

    def read(self) -> str:
        if self.text is None:
            raise Unfit("is empty", "a secret is needed", "write one")
        return self.text


async def test_our_own_secret_can_be_renewed() -> None:
    """From the next question on; a file that cannot be used changes nothing."""
    mounted = Mounted()
    stand = Stand(client_secret=Secret("old", mounted))
    await stand.no("a")
    stand.introspection.renew_secret()
    await stand.no("b")
    mounted.text = None
    with pytest.raises(Unfit):
        stand.introspection.renew_secret()
    await stand.no("c")
    assert [question[3] for question in stand.server.questions] == [
        Secret("old"),
        Secret("new"),
        Secret("new"),
    ]


async def test_a_token_without_expiry_is_valid_until_asked_again() -> None:
    stand = Stand()
    stand.says(exp=ABSENT)
    principal = await stand.of()
    assert principal is not None
    assert principal.valid_until == math.inf


async def test_what_is_not_active_proves_nothing() -> None:
    """Section 2.2: nothing more is said, and whatever else is said does not count."""
    stand = Stand()
    stand.says(active=False)
    refused = await stand.no()
    assert (refused.reason, refused.why, refused.data) == (
        Reason.BAD_CREDENTIAL,
        "The token is not active.",
        {},
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": "https://other.test/mcp"},
        {"aud": ["https://other.test/mcp"]},
        {"aud": ABSENT},
        {"aud": None},
        {"aud": {"https://tools.test/mcp": 1}},
        {"iss": "https://evil.test"},
        {"iss": "https://login.test/"},
        {"iss": None},
        {"exp": str(START + 60)},
        {"exp": True},
        {"exp": None},
        {"exp": [START + 60]},
        {"exp": -1},
        {"exp": 10**30},
        {"sub": ABSENT},
        {"sub": ABSENT, "client_id": "robot"},
        {"sub": ABSENT, "username": "alice"},
        {"sub": "", "username": "alice"},
        {"sub": 7},
        {"tenant": ABSENT},
        {"tenant": "*"},
        {"tenant": ["acme"]},
        {"scope": 7},
        {"roles": {"editor": True}},
        {"cnf": {"jkt": "x"}},
        {"token_type": "DPoP"},
        {"token_type": ["Bearer"]},
        {"token_type": None},
        {"token_use": "refresh_token"},
        {"token_use": "id"},
        {"typ": "Refresh"},
        {"typ": "Offline"},
        {"typ": "ID"},
        {"typ": 1},
    ],
)
async def test_an_active_token_may_still_prove_nothing(changes: dict[str, object]) -> None:
    """One for another resource, of another issuer, of another kind, or one that names nobody."""
    stand = Stand()
    stand.says(**changes)
    refused = await stand.no()
    assert (refused.reason, dict(refused.data)) == (Reason.BAD_CREDENTIAL, {})
    # The endpoint has answered: there is nothing wrong with it.
    assert stand.introspection.why_degraded() is None


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://login.test"},
        {"aud": f"{RESOURCE}/"},
        {"aud": ["https://other.test", RESOURCE]},
        {"token_type": "bearer"},
        {"token_type": "BEARER"},
        {"token_use": "access_token"},
        {"token_use": "access"},
        {"typ": "Bearer"},
        {"typ": "at+jwt"},
        {"client_id": "robot", "username": "mallory"},
        {"exp": START + 0.5},
        # The server has just called it active, and knows its own clock.
        {"nbf": START + 5},
    ],
)
async def test_these_answers_still_mean_alice(changes: dict[str, object]) -> None:
    stand = Stand()
    stand.says(**changes)
    principal = await stand.of()
    assert principal is not None
    assert (principal.issuer, principal.subject) == ("https://login.test", "alice")


async def test_an_audience_may_be_optional_but_never_wrong() -> None:
    stand = Stand(audience_required=False)
    stand.says("none", aud=ABSENT)
    stand.says("wrong", aud="https://other.test/mcp")
    assert await stand.of("none") is not None
    assert (await stand.no("wrong")).reason is Reason.BAD_CREDENTIAL


async def test_the_settings_say_who_issued_it_and_for_whom() -> None:
    stand = Stand(
        issuer="https://id.test/", tenant="umbrella", roles_claim="/access/roles", required_scopes=("read",)
    )
    stand.says(iss="https://id.test/", tenant=ABSENT, access={"roles": "viewer"})
    principal = await stand.of()
    assert principal is not None
    assert principal.identity == ("https://id.test/", "alice", "umbrella")
    assert principal.roles == {"viewer"}
    stand.says("poor", iss="https://id.test/", scope="write")
    refused = await stand.no("poor")
    assert (refused.reason, refused.scopes) == (Reason.SCOPE_MISSING, ("read",))
    # From the table it is the same no, with the scopes that its challenge names.
    again = await stand.no("poor")
    assert (again.reason, again.scopes, again.why) == (refused.reason, refused.scopes, refused.why)
    assert stand.server.asked == ["t", "poor"]


async def test_one_that_has_expired_is_no_guess() -> None:
    """`exp` itself is the first moment it no longer counts (RFC 7519, 4.1.4)."""
    stand = Stand()
    stand.says(exp=START)
    refused = await stand.no()
    assert (refused.reason, dict(refused.data)) == (Reason.BAD_CREDENTIAL, {"expired": True})
    assert dict((await stand.no()).data) == {"expired": True}


# What is no answer.


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (Unavailable("timeout"), "timeout"),
        (Unavailable("status 401"), "status 401"),
        (Unavailable("status 503"), "status 503"),
        (b"", "no JSON"),
        (b"<html>", "no JSON"),
        (b'{"active":true', "no JSON"),
        (b'{"active":true,"active":true,"sub":"alice"}', "no JSON"),
        (b'{"active":true}{"active":true}', "no JSON"),
        (b'{"active":true,"sub":"\xff"}', "no JSON"),
        (b'{"active":true,"exp":1e999}', "no JSON"),
        (b"[" * 70 + b"]" * 70, "no JSON"),
        (b"true", "no introspection answer"),
        (b'[{"active":true}]', "no introspection answer"),
        (b"{}", "no introspection answer"),
        ({**ACTIVE, "active": "true"}, "no introspection answer"),
        ({**ACTIVE, "active": 1}, "no introspection answer"),
        ({**ACTIVE, "active": None}, "no introspection answer"),
        ({**ACTIVE, "active": [True]}, "no introspection answer"),
        ({**ACTIVE, "active": ABSENT, "Active": True}, "no introspection answer"),
    ],
)
async def test_no_answer_is_neither_yes_nor_no(answer: object, why: str) -> None:
    """Identity room: trouble of the provider is a 503, never a 401; nothing of it is kept."""
    stand = Stand()
    if isinstance(answer, dict):
        answer = {name: each for name, each in answer.items() if each is not ABSENT}
    stand.server.says["t"] = answer
    refused = await stand.no()
    assert (refused.reason, refused.retry_after_s) == (Reason.IDP_UNAVAILABLE, 1)
    assert refused.why == "The authorization server does not say whether the token is valid."
    assert stand.introspection.why_degraded() == f"no introspection: {why}"
    stand.says()
    assert await stand.of() is not None
    assert stand.introspection.why_degraded() is None
    assert stand.server.asked == ["t", "t"]


async def test_an_endpoint_that_is_silent_is_waited_for_no_longer_than_said() -> None:
    stand = Stand(timeout_s=0.02)
    stand.server.hold = asyncio.Event()
    assert (await stand.no()).reason is Reason.IDP_UNAVAILABLE
    assert stand.introspection.why_degraded() == "no introspection: timeout"
    stand.server.hold = None
    stand.says()
    assert await stand.of() is not None


async def test_what_was_proven_holds_while_the_endpoint_is_down() -> None:
    """For as long as it would have held anyway, and no longer."""
    stand = Stand(cache_ttl_s=60.0)
    stand.says()
    await stand.of()
    stand.server.says["t"] = Unavailable("not reached")
    stand.clock.now_s = 59.9
    assert await stand.of() is not None
    stand.clock.now_s = 60.0
    assert (await stand.no()).reason is Reason.IDP_UNAVAILABLE


async def test_a_fault_of_ours_is_told_and_not_kept() -> None:
    """The room refuses what it does not understand; here it must not become an answer."""
    stand = Stand()
    stand.server.says["t"] = RuntimeError("a fault")
    with pytest.raises(RuntimeError, match="a fault"):
        await stand.of()
    stand.says()
    assert await stand.of() is not None


# How long an answer is believed.


async def test_an_answer_is_believed_for_its_time() -> None:
    """A revoked token works until then, and not a moment longer."""
    stand = Stand(cache_ttl_s=60.0)
    stand.says()
    assert stand.introspection.known(bearer("t")) is None
    principal = await stand.of()
    del stand.server.says["t"]
    stand.clock.now_s = 59.9
    assert await stand.of() is principal
    assert stand.introspection.known(bearer("t")) is principal
    assert stand.server.asked == ["t"]
    stand.clock.now_s = 60.0
    assert stand.introspection.known(bearer("t")) is None
    assert (await stand.no()).reason is Reason.BAD_CREDENTIAL
    assert stand.server.asked == ["t", "t"]


async def test_no_answer_outlives_its_token() -> None:
    stand = Stand(cache_ttl_s=60.0)
    stand.says(exp=START + 10)
    await stand.of()
    stand.clock.now_s = 9.9
    assert stand.introspection.known(bearer("t")) is not None
    stand.clock.now_s = 10.0
    assert stand.introspection.known(bearer("t")) is None
    assert (await stand.no()).data == {"expired": True}


async def test_an_answer_is_as_old_as_its_question() -> None:
    """It was true when it was given; the way back may have taken seconds."""
    stand = Stand(cache_ttl_s=60.0)
    stand.says()
    stand.server.hold = asyncio.Event()
    [call] = stand.starts("t")
    await stand.server.came.wait()
    stand.clock.now_s = 3.0
    stand.server.hold.set()
    principal = await call
    assert principal is not None
    assert principal.valid_until == 3600.0
    stand.clock.now_s = 59.9
    assert stand.introspection.known(bearer("t")) is principal
    stand.clock.now_s = 60.0
    assert stand.introspection.known(bearer("t")) is None


@pytest.mark.parametrize(("cache_ttl_s", "believed_s"), [(60.0, MAX_BAD_S), (4.0, 4.0)])
async def test_a_no_is_believed_too_but_not_for_long(cache_ttl_s: float, believed_s: float) -> None:
    """A client that repeats a bad token costs the server nothing; a new token soon works everywhere."""
    stand = Stand(cache_ttl_s=cache_ttl_s)
    first = await stand.no()
    stand.says()
    stand.clock.now_s = believed_s - 0.1
    again = await stand.no()
    assert (again.reason, again.why) == (first.reason, first.why)
    assert again is not first  # else its traceback would hold the credential of the first call
    assert stand.server.asked == ["t"]
    stand.clock.now_s = believed_s
    assert await stand.of() is not None


async def test_a_kept_no_holds_nothing_of_its_token() -> None:
    """A raised exception holds the frames it came through: of ten thousand, tokens and answers."""
    stand = Stand()
    stand.says("wrong", aud="https://other.test/mcp")
    before = traces()
    for token in ("unknown", "wrong") * 2:
        with suppress(Refused):
            await stand.of(token)
    assert stand.server.asked == ["unknown", "wrong"]
    assert [trace for trace in traces() if trace not in before] == []


def traces() -> list[TracebackType]:
    """What is left of exceptions that came through the authenticator."""
    gc.collect()
    found = [each for each in gc.get_objects() if isinstance(each, TracebackType)]
    return [each for each in found if each.tb_frame.f_code.co_filename == introspection.__file__]


async def test_zero_keeps_nothing() -> None:
    stand = Stand(cache_ttl_s=0.0)
    stand.says()
    for _ in range(2):
        await stand.of()
        await stand.no("unknown")
    assert stand.introspection.known(bearer("t")) is None
    assert stand.server.asked == ["t", "unknown"] * 2


async def test_tokens_that_differ_in_one_character_are_two() -> None:
    stand = Stand()
    stand.says("token")
    await stand.of("token")
    for other in ("tokem", "Token", "token=", "toke"):
        assert (await stand.no(other)).reason is Reason.BAD_CREDENTIAL


async def test_the_tables_are_bounded() -> None:
    """The one that was used longest ago is forgotten, that is: asked about again."""
    stand = Stand(max_kept=3)
    for token in ("a", "b", "c"):
        stand.says(token)
        await stand.of(token)
    stand.says("d")
    await stand.of("a")
    await stand.of("d")
    kept = [token for token in "abcd" if stand.introspection.known(bearer(token))]
    assert kept == ["a", "c", "d"]
    stand.server.asked.clear()
    for token in ("w", "x", "y", "z", "x", "w"):
        await stand.no(token)
    assert stand.server.asked == ["w", "x", "y", "z", "w"]


async def test_guesses_do_not_push_proven_tokens_out() -> None:
    stand = Stand(max_kept=3)
    stand.says()
    await stand.of()
    for guess in range(10):
        await stand.no(f"guess-{guess}")
    assert stand.introspection.known(bearer("t")) is not None


@pytest.mark.parametrize("member", ["scope", "roles"])
async def test_many_names_take_more_room(member: str) -> None:
    """What an answer may cost in memory is bounded, not only how many there are."""
    stand = Stand(max_kept=3)
    stand.says("small")
    stand.says("large", **{member: [f"name-{number:02}" for number in range(40)]})
    stand.says("huge", **{member: [f"name-{number:02}" for number in range(50)]})
    await stand.of("small")
    await stand.of("large")
    assert stand.introspection.known(bearer("small")) is None
    assert stand.introspection.known(bearer("large")) is not None
    assert await stand.of("huge") is not None
    assert stand.introspection.known(bearer("huge")) is None


# Many calls at once.


async def test_a_hundred_calls_with_one_token_are_one_question() -> None:
    stand = Stand(cache_ttl_s=0.0)
    stand.says()
    stand.server.hold = asyncio.Event()
    calls = stand.starts(*["t"] * 100)
    await turns()
    stand.server.hold.set()
    principals = await asyncio.gather(*calls)
    assert {each and each.subject for each in principals} == {"alice"}
    assert stand.server.asked == ["t"]


async def test_a_failure_is_everybodys_who_waited() -> None:
    stand = Stand()
    stand.server.says["t"] = Unavailable("status 500")
    stand.server.hold = asyncio.Event()
    calls = stand.starts("t", "t", "t")
    await turns()
    stand.server.hold.set()
    said = await asyncio.gather(*calls, return_exceptions=True)
    assert [each.reason for each in said if isinstance(each, Refused)] == [Reason.IDP_UNAVAILABLE] * 3
    assert stand.server.asked == ["t"]


async def test_who_asked_first_may_leave() -> None:
    """Neither the others nor the answer are lost with it."""
    stand = Stand()
    stand.says()
    stand.server.hold = asyncio.Event()
    leader, *followers = stand.starts("t", "t", "t")
    await turns()
    leader.cancel()
    await turns()
    assert leader.cancelled()
    stand.server.hold.set()
    assert [each and each.subject for each in await asyncio.gather(*followers)] == ["alice", "alice"]
    assert stand.server.asked == ["t"]


async def test_when_all_have_left_the_answer_is_kept() -> None:
    """Who comes back finds it."""
    stand = Stand()
    stand.says()
    stand.server.hold = asyncio.Event()
    [call] = stand.starts("t")
    await turns()
    call.cancel()
    stand.server.hold.set()
    await turns()
    assert stand.introspection.known(bearer("t")) is not None
    assert await stand.of() is not None
    assert stand.server.asked == ["t"]


async def test_a_follower_that_leaves_takes_nobody_with_it() -> None:
    stand = Stand()
    stand.says()
    stand.server.hold = asyncio.Event()
    leader, follower = stand.starts("t", "t")
    await turns()
    follower.cancel()
    await turns()
    stand.server.hold.set()
    assert await leader is not None


async def test_only_so_many_questions_wait() -> None:
    """As many as can get their turn in time; the next one is told at once, and may come again."""
    stand = Stand(max_per_s=0.4, timeout_s=5.0)
    stand.server.hold = asyncio.Event()
    asked, waiting = stand.starts("a", "b")
    await turns()
    refused = await stand.no("c")
    assert (refused.reason, refused.retry_after_s) == (Reason.IDP_UNAVAILABLE, 1)
    # Who brings a token that is being asked about is no further question.
    [follower] = stand.starts("b")
    stand.server.hold.set()
    assert isinstance((await asyncio.gather(asked, return_exceptions=True))[0], Refused)
    # There is room again: this one waits for its turn, as the others do.
    [later] = stand.starts("c")
    await turns()
    assert not any(call.done() for call in (waiting, follower, later))
    assert stand.server.asked == ["a"]
    await stand.introspection.close()
    await asyncio.gather(waiting, follower, later, return_exceptions=True)


async def test_there_never_are_a_thousand_and_one_questions() -> None:
    """Each holds a connection, however many the pace would allow."""
    stand = Stand(max_per_s=10_000.0, timeout_s=5.0)
    stand.server.hold = asyncio.Event()
    calls = stand.starts(*map(str, range(MAX_QUESTIONS)))
    await turns()
    assert len(stand.server.asked) == MAX_QUESTIONS
    assert (await stand.no("another")).reason is Reason.IDP_UNAVAILABLE
    await stand.introspection.close()
    await asyncio.gather(*calls, return_exceptions=True)


async def test_questions_keep_their_pace() -> None:
    """A tenth of a second's questions at once, then one after the other, all within their time."""
    stand = Stand(max_per_s=20.0, timeout_s=5.0)
    calls = stand.starts("a", "b", "c")
    await turns()
    assert stand.server.asked == ["a", "b"]
    await asyncio.gather(*calls, return_exceptions=True)
    assert stand.server.asked == ["a", "b", "c"]


async def test_who_gets_no_turn_in_time_is_refused() -> None:
    """That says nothing about the endpoint."""
    stand = Stand(max_per_s=0.5, timeout_s=0.02)
    assert (await stand.no("a")).reason is Reason.BAD_CREDENTIAL
    assert (await stand.no("b")).reason is Reason.IDP_UNAVAILABLE
    assert stand.server.asked == ["a"]
    assert stand.introspection.why_degraded() is None


async def test_closing_gives_questions_up() -> None:
    """Who waits is refused, not cancelled: a cancelled call looks as if its client had left."""
    stand = Stand(timeout_s=30.0)
    stand.says()
    stand.server.hold = asyncio.Event()
    calls = stand.starts("t", "t")
    await turns()
    async with asyncio.timeout(5):
        await stand.introspection.close()
    said = await asyncio.gather(*calls, return_exceptions=True)
    assert [each.reason for each in said if isinstance(each, Refused)] == [Reason.IDP_UNAVAILABLE] * 2
    assert (await stand.no()).reason is Reason.IDP_UNAVAILABLE
    assert stand.server.asked == ["t"]
    await stand.introspection.close()


# Which tokens the server hears of.

KNOWN = frozenset({"https://jwt.test/"})


@pytest.mark.parametrize(
    "token",
    [
        jwt('{"iss":"https://jwt.test/","sub":"alice"}'),
        jwt('{"iss":"https://jwt.test/"}', '{"alg":"none"}'),
        jwt('{"iss":"https://jwt.test/"}').rpartition(".")[0] + ".",
        jwt('{"iss":["https://jwt.test/"]}'),
        # A reader that takes the first of two equal members, and one that takes the last.
        jwt('{"iss":"https://jwt.test/","iss":"https://login.test"}'),
        jwt('{"iss":"https://login.test","iss":"https://jwt.test/"}'),
        jwt('{"ISS":"https://jwt.test/"}'),
    ],
)
async def test_a_forged_token_of_a_known_issuer_is_not_asked_about(token: str) -> None:
    """Its signature tells; the endpoint would be a way around the key set, and hear of every forgery."""
    stand = Stand(known_issuers=KNOWN)
    stand.says(token)
    assert await stand.of(token) is None
    assert stand.server.asked == []


async def test_a_token_that_may_be_of_anybody_is_not_asked_about() -> None:
    stand = Stand(known_issuers=KNOWN)
    stand.says(jwt("not json"))
    assert (await stand.no(jwt("not json"))).reason is Reason.BAD_CREDENTIAL
    assert stand.server.asked == []


async def test_a_signed_token_of_another_issuer_is_opaque_to_us() -> None:
    stand = Stand(known_issuers=KNOWN)
    token = jwt('{"iss":"https://login.test"}')
    stand.says(token)
    assert await stand.of(token) is not None


async def test_without_key_sets_every_token_is_opaque() -> None:
    """Also one whose claims nobody can read."""
    stand = Stand()
    for token in (jwt("not json"), jwt('{"iss":"https://jwt.test/"}')):
        stand.says(token)
        assert await stand.of(token) is not None


@pytest.mark.parametrize("token", ["", "a b", "a\tb", "a\nb", "a\x00", "ä", "a\u200b", "x" * 16_385])
async def test_only_visible_ascii_of_bounded_length_is_asked_about(token: str) -> None:
    stand = Stand()
    stand.says(token)
    assert await stand.of(token) is None
    assert stand.server.asked == []


async def test_the_longest_token_is_asked_about() -> None:
    stand = Stand()
    stand.says("~" * 16_384)
    assert await stand.of("~" * 16_384) is not None


async def test_only_bearer_tokens_are_asked_about() -> None:
    """A key of another header belongs to another authenticator, and to nobody's log at the server."""
    stand = Stand()
    stand.says("k")
    assert await stand.introspection(of_header("x-api-key", "k")) is None
    assert await stand.introspection(of_certificate(b"k")) is None
    assert stand.server.asked == []
