"""Any bytes as a token become a Principal, None or Refused, nothing else; and no changed token names anybody."""

import asyncio
import hashlib
import json
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from proxy.identity.credential import BEARER, Credential
from proxy.identity.jwt import Jwt
from proxy.identity.settings import JwtSettings
from proxy.identity.token import issuers_named
from proxy.model import Principal, Reason, Refused
from tests.fuzz.bounded import FUZZ
from tests.idp import AUDIENCE, Idp, b64, key_for, signed

ISSUER = "https://idp.test/"
WALL = 1_800_000_000.0
IDP = Idp(issuer=ISSUER, wall=lambda: WALL)
GOOD = IDP.token(scope="mcp:call", roles=["viewer"])
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.=+/~ "

Outcome = Principal | Refused | None


class Published:
    """Fulfils `Fetches`."""

    async def fetch(self, url: str) -> tuple[bytes, float | None]:
        return json.dumps({"keys": list(IDP.jwks.values())}).encode(), None


async def _loaded() -> Jwt:
    """An authenticator with keys that has just asked about an unknown kid, and so asks no more."""
    jwt = Jwt(
        JwtSettings(issuer=ISSUER, jwks_url="https://idp.test/jwks", algorithms=("RS256", "ES256", "EdDSA")),
        frozenset({AUDIENCE}),
        Published(),
        now=lambda: 0.0,
        wall=lambda: WALL,
    )
    job = asyncio.ensure_future(jwt.run())
    while not jwt.is_usable:  # noqa: ASYNC110  # turns of the loop, no time passes
        await asyncio.sleep(0)
    unknown = IDP.token(kid="nobody's", key=key_for("k1", "RS256"))
    try:
        await jwt(Credential(header=BEARER, text=unknown, digest=b""))
    except Refused:
        job.cancel()
    return jwt


JWT = asyncio.run(_loaded())


def outcome(text: str) -> Outcome:
    """What becomes of a token; nobody waits, so no loop is needed."""
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    became: Outcome
    try:
        JWT(Credential(header=BEARER, text=text, digest=digest)).send(None)
    except StopIteration as done:
        became = done.value
    except Refused as refused:
        became = refused
    else:
        raise AssertionError("the token was waited for")
    assert became is None or type(became) in (Principal, Refused)
    if isinstance(became, Refused):
        assert became.reason in (Reason.BAD_CREDENTIAL, Reason.SCOPE_MISSING)
    return became


def as_object(members: dict[str, Any]) -> bytes:
    return json.dumps(members).encode()


VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(
        [ISSUER, AUDIENCE, "alice", "*", "k1", "RS256", "none", "JWT", WALL, WALL + 60, WALL - 60]
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
HEADERS = st.dictionaries(
    st.sampled_from(["alg", "kid", "typ", "crit", "b64", "jwk", "jku", "x5c", "cty", "zip"])
    | st.text(max_size=3),
    VALUES,
    max_size=3,
)
CLAIMS = st.dictionaries(
    st.sampled_from(
        ["iss", "aud", "sub", "exp", "nbf", "iat", "tenant", "roles", "scope", "scp", "cnf", "jti"]
    ),
    VALUES,
    max_size=3,
)


@given(
    st.text(max_size=300)
    | st.text(LETTERS, max_size=300)
    | st.binary(max_size=300).map(lambda raw: raw.decode("utf-8", "surrogateescape"))
)
@example("")
@example("." * 16_384)
@example("e30." * 4_000)
@example("\ud800.\udfff.é")
@FUZZ
def test_any_text_names_nobody(text: str) -> None:
    """Corpus AUTH-020: a library once raised something else at bytes that were no ASCII."""
    assert not isinstance(outcome(text), Principal)


@given(st.binary(max_size=100), st.binary(max_size=200), st.binary(max_size=70))
@example(b'{"alg":"RS256"}', b'{"iss":"https://idp.test/"}', b"")
@FUZZ
def test_any_three_parts_name_nobody(header: bytes, claims: bytes, signature: bytes) -> None:
    assert not isinstance(outcome(f"{b64(header)}.{b64(claims)}.{b64(signature)}"), Principal)


@given(HEADERS, CLAIMS)
@example({}, {})
@FUZZ
def test_any_claims_that_are_well_signed_name_one_or_nobody(
    header: dict[str, Any], claims: dict[str, Any]
) -> None:
    """Whoever is named has said everything that is asked for, in the types that are asked for."""
    head = {"alg": "RS256", "kid": "k1", **header}
    said = {**IDP.claims(), **claims}
    token = signed(as_object(head), as_object(said), "RS256", key_for("k1", "RS256"))
    principal = outcome(token)
    if not header and not claims:
        assert isinstance(principal, Principal)
    if not isinstance(principal, Principal):
        return
    assert (head["alg"], head["kid"], said["iss"]) == ("RS256", "k1", ISSUER)
    assert not {"crit", "b64"} & header.keys()
    assert AUDIENCE in (said["aud"] if isinstance(said["aud"], list) else [said["aud"]])
    assert (principal.subject, principal.tenant) == (said["sub"], said["tenant"].strip())
    assert principal.tenant not in ("", "*")
    assert said["exp"] > WALL - 30
    assert all(type(said[name]) in (int, float) for name in ("exp", "nbf", "iat") if name in said)
    assert "cnf" not in said


@given(HEADERS, CLAIMS, st.sampled_from(["RS256", "ES256", "EdDSA", "RS512", "HS256"]))
@FUZZ
def test_nothing_signed_by_somebody_else_names_anybody(
    header: dict[str, Any], claims: dict[str, Any], alg: str
) -> None:
    key = b"AAAA" if alg == "HS256" else key_for("evil", alg)
    head = {"alg": alg, "kid": "k1", **header}
    assert not isinstance(
        outcome(signed(as_object(head), as_object({**IDP.claims(), **claims}), alg, key)), Principal
    )


@given(st.integers(0, len(GOOD)), st.sampled_from(LETTERS), st.sampled_from(["replace", "insert", "remove"]))
@FUZZ
def test_no_changed_character_names_anybody(at: int, letter: str, how: str) -> None:
    """A twin of a good token is refused, and never left to another authenticator either unless it is no JWT."""
    rest = GOOD[at:] if how == "insert" else GOOD[at + 1 :]
    text = GOOD[:at] + ("" if how == "remove" else letter) + rest
    if text == GOOD:
        return
    changed = outcome(text)
    assert not isinstance(changed, Principal)
    if changed is None:
        assert ISSUER not in (issuers_named(text) or ())


def test_every_single_changed_character_is_refused() -> None:
    """All places, one wrong letter each: chance need not find the last one of a part."""
    assert isinstance(outcome(GOOD), Principal)
    for at, letter in enumerate(GOOD):
        for other in ("A", "B", "=", chr(ord(letter) ^ 1)):
            if other != letter:
                assert not isinstance(outcome(GOOD[:at] + other + GOOD[at + 1 :]), Principal)
