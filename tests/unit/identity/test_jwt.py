"""A signed token names one principal, or it is refused; what is not of this issuer is left to others."""

import asyncio
import base64
import hmac
import json
import math
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from proxy.identity.credential import BEARER, of_certificate, of_header
from proxy.identity.jwt import Jwt
from proxy.identity.provider import Unavailable
from proxy.identity.settings import JwtSettings
from proxy.model import Principal, Reason, Refused
from tests.idp import AUDIENCE, Idp, b64, jwk_of, key_for, signed
from tests.integration.waiting import within

ISSUER = "https://idp.test/"
URL = "https://idp.test/jwks"
NOW = 1_000.0
WALL = 1_800_000_000.0


class Stand:
    """An authenticator with its keys loaded, between clocks that stand still and a provider without sockets."""

    def __init__(self, **settings: Any) -> None:
        self.now, self.wall = NOW, WALL
        self.idp = Idp(issuer=ISSUER, wall=lambda: self.wall)
        self.idp.publish("kec", alg="ES256")
        self.idp.publish("kps", alg="PS256")
        self.urls: list[str] = []
        self.is_down = False
        self.jwt = Jwt(
            JwtSettings(issuer=ISSUER, jwks_url=URL, **settings),
            frozenset({AUDIENCE}),
            self,
            now=lambda: self.now,
            wall=lambda: self.wall,
            chance=lambda: 0.0,
        )

    async def fetch(self, url: str) -> tuple[bytes, float | None]:
        self.urls.append(url)
        if self.is_down:
            raise Unavailable("not reached")
        return json.dumps({"keys": list(self.idp.jwks.values())}).encode(), None

    async def loaded(self) -> "Stand":
        job = asyncio.ensure_future(self.jwt.run())
        async with within():
            while not self.urls:  # noqa: ASYNC110  # turns of the loop, no time passes
                await asyncio.sleep(0)
        job.cancel()
        return self

    async def ask(self, token: str) -> Principal | None:
        async with within():
            return await self.jwt(of_header(BEARER, token))

    async def refusal(self, token: str) -> Refused:
        with pytest.raises(Refused) as refusal:
            await self.ask(token)
        assert self.jwt.known(of_header(BEARER, token)) is None
        return refusal.value

    async def why_bad(self, token: str) -> str:
        refused = await self.refusal(token)
        assert (refused.reason, refused.data) == (Reason.BAD_CREDENTIAL, {})
        return refused.why


async def stand(**settings: Any) -> Stand:
    return await Stand(**settings).loaded()


async def test_a_good_token_names_one_principal() -> None:
    here = await stand()
    token = here.idp.token(scope="mcp:call", roles=["editor"], iat=WALL, exp=WALL + 600)
    assert await here.ask(token) == Principal(
        issuer=ISSUER,
        subject="alice",
        tenant="acme",
        roles=frozenset({"editor"}),
        scopes=frozenset({"mcp:call"}),
        fingerprint=of_header(BEARER, token).fingerprint,
        valid_until=NOW + 600,
    )


@pytest.mark.parametrize(
    "alg", ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
)
async def test_every_algorithm_that_can_be_chosen_works(alg: str) -> None:
    here = Stand(algorithms=(alg,))
    here.idp.publish("kx", alg=alg)
    await here.loaded()
    principal = await here.ask(here.idp.token(kid="kx", alg=alg))
    assert principal is not None
    assert principal.subject == "alice"


# Not ours.


async def test_what_is_not_of_this_issuer_is_left_to_others() -> None:
    """An opaque token with two dots, and tokens of other issuers, are for the next authenticator."""
    here = await stand()
    for token in (
        "opaque",
        "a.b.c",
        "v4.public.abc",
        here.idp.token(iss="https://other.test/"),
        here.idp.token(iss="https://idp.test"),
        here.idp.token(iss=None),
    ):
        assert await here.ask(token) is None


async def test_only_bearer_tokens_are_read() -> None:
    here = await stand()
    assert await here.jwt(of_header("x-api-key", here.idp.token())) is None
    assert await here.jwt(of_certificate(b"der")) is None


@pytest.mark.parametrize("iss", [[ISSUER], [ISSUER, "https://other.test/"], ["x", ISSUER]])
async def test_a_token_that_names_us_in_its_own_way_is_refused(iss: object) -> None:
    """And so never reaches an introspection endpoint that may read it otherwise."""
    here = await stand()
    assert await here.why_bad(here.idp.token(iss=iss)) == "The token was issued by somebody else."


async def test_a_malformed_token_of_ours_never_falls_through() -> None:
    here = await stand()
    good = here.idp.token()
    head, body, tail = good.split(".")
    for twisted in (
        f"{good}=",
        f"{good}==",
        f"{head}=.{body}.{tail}",
        f"{head}.{body}",
        f"{good}.",
        f"{good}.x",
    ):
        assert await here.why_bad(twisted)
    for payload in (b"{", b"[]", b"\xff", b'{"iss":'):
        assert await here.why_bad(f"{head}.{b64(payload)}.{tail}")


# The signature.


def public_pem() -> bytes:
    return key_for("k1", "RS256").public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


async def test_algorithms_that_are_not_allowed() -> None:
    """CVE-2015-9235 and its kin: the token does not choose how it is checked."""
    here = await stand()
    modulus = base64.urlsafe_b64decode(jwk_of(key_for("k1", "RS256"))["n"] + "==")
    good = here.idp.token()
    tail = good.split(".")[2]
    none = here.idp.token(alg="none").rpartition(".")[0]
    tokens = [
        f"{none}.{tail}",
        f"{here.idp.token(alg='none', header={'alg': 'nOnE'}).rpartition('.')[0]}.{tail}",
        here.idp.token(kid="kps", alg="PS256"),
        here.idp.token(alg="RS512"),
        here.idp.token(header={"alg": "rs256"}),
        here.idp.token(header={"alg": ""}),
        here.idp.token(header={"alg": "ES256K"}),
    ]
    hs256 = b64(b'{"alg":"HS256","typ":"JWT","kid":"k1"}')
    for secret in (modulus, b"\x00\x00\x00", public_pem()):
        text = f"{hs256}.{good.split('.')[1]}"
        tokens.append(f"{text}.{b64(hmac.digest(secret, text.encode(), 'sha256'))}")
    for token in tokens:
        assert await here.why_bad(token) == "The token is signed with an algorithm that is not allowed here."
    assert (
        await here.why_bad(f"{none}.") == "A part of the token is empty, or is not base64url without padding."
    )


async def test_signatures_of_somebody_else() -> None:
    here = await stand()
    good = here.idp.token()
    head, body, tail = good.split(".")
    evil = key_for("evil", "RS256")
    claims = json.dumps(here.idp.claims(sub="root")).encode()
    signature = "The signature of the token is not valid."
    for token in (
        here.idp.token(key=evil),
        f"{head}.{b64(claims)}.{tail}",
        f"{head}.{body}.{here.idp.token(sub='bob').split('.')[2]}",
        f"{head}.{body}.{b64(b'x')}",
        f"{head}.{body}.{b64(bytes(256))}",
        # Keys and where to find them, in the token itself (RFC 8725 3.10).
        here.idp.token(key=evil, header={"jwk": jwk_of(evil)}),
        here.idp.token(key=evil, header={"jku": "http://169.254.169.254/jwks"}),
        here.idp.token(key=evil, header={"x5u": "http://169.254.169.254/", "x5c": ["MIIB"], "x5t": "x"}),
        # Psychic signatures (CVE-2022-21449).
        here.idp.token(kid="kec", alg="ES256").rpartition(".")[0] + "." + b64(bytes(64)),
        # Said to be RS256, but made as PS256 with the key of that name.
        signed(b'{"alg":"RS256","kid":"k1"}', claims, "PS256", key_for("k1", "RS256")),
    ):
        assert await here.why_bad(token) == signature
    assert here.urls == [URL]


async def test_every_changed_bit_of_a_signature_matters() -> None:
    here = await stand()
    text, _, tail = here.idp.token().rpartition(".")
    signature = bytearray(base64.urlsafe_b64decode(tail + "=="))
    for at in range(0, len(signature), 31):
        signature[at] ^= 1
        assert (
            await here.why_bad(f"{text}.{b64(bytes(signature))}")
            == "The signature of the token is not valid."
        )
        signature[at] ^= 1
    assert await here.ask(f"{text}.{b64(bytes(signature))}") is not None


async def test_a_key_of_another_name_or_kind() -> None:
    """kid, alg and key type belong together: k1 is RSA, kps is for PS256 only, kx is nobody's."""
    here = await stand(algorithms=("RS256", "ES256", "PS256"))
    here.idp.withdraw("kec")
    for token in (
        here.idp.token(kid="kx", key=key_for("k1", "RS256")),
        here.idp.token(kid="K1", key=key_for("k1", "RS256")),
        here.idp.token(kid="../../../../dev/null", key=key_for("k1", "RS256")),
        here.idp.token(kid="k1", alg="ES256", key=key_for("kec", "ES256")),
        here.idp.token(kid="kps", alg="RS256", key=key_for("kps", "RS256")),
    ):
        job = asyncio.ensure_future(here.jwt.run())
        assert await here.why_bad(token) == "The token is signed with a key that its issuer does not publish."
        job.cancel()


async def test_without_a_kid_the_key_must_be_the_only_one() -> None:
    here = await stand()
    for alg, kid in (("RS256", "k1"), ("ES256", "kec")):
        token = here.idp.token(alg=alg, key=key_for(kid, alg), header={"kid": None})
        assert await here.ask(token) is not None
    here = Stand()
    here.idp.publish("k2")
    await here.loaded()
    job = asyncio.ensure_future(here.jwt.run())
    token = here.idp.token(key=key_for("k1", "RS256"), header={"kid": None})
    assert await here.why_bad(token) == "The token is signed with a key that its issuer does not publish."
    job.cancel()


# The header.


@pytest.mark.parametrize(
    "typ", ["at+jwt", "AT+JWT", "application/at+jwt", "Application/AT+jwt", "JWT", "jwt", None]
)
async def test_types_that_are_accepted(typ: str | None) -> None:
    """RFC 9068 2.1, RFC 7515 4.1.9; issuers older than that say JWT, or nothing."""
    here = await stand()
    assert await here.ask(here.idp.token(header={"typ": typ})) is not None


@pytest.mark.parametrize(
    "typ",
    ["", "id+jwt", "logout+jwt", "JWS", "at+jwt ", "application/", "application/application/jwt", "text/jwt"],
)
async def test_types_that_are_not(typ: str) -> None:
    """RFC 8725 3.11: other JWTs of the same issuer must not pass for access tokens."""
    here = await stand()
    assert "typ" in await here.why_bad(here.idp.token(header={"typ": typ}))


async def test_the_operator_chooses_the_types() -> None:
    here = await stand(types=("application/at+JWT",))
    assert await here.ask(here.idp.token(header={"typ": "at+jwt"})) is not None
    assert "typ" in await here.why_bad(here.idp.token(header={"typ": "JWT"}))


@pytest.mark.parametrize("header", [{"crit": ["exp"]}, {"crit": ["b64"], "b64": False}])
async def test_extensions_are_refused_though_the_signature_is_good(header: dict[str, Any]) -> None:
    here = await stand()
    assert "crit" in await here.why_bad(here.idp.token(header=header))


async def test_duplicate_members_are_refused_though_the_signature_is_good() -> None:
    here = await stand()
    claims = json.dumps(here.idp.claims()).encode()
    key = key_for("k1", "RS256")
    header = b'{"alg":"RS256","kid":"k1"}'
    assert await here.ask(signed(header, claims, "RS256", key)) is not None
    for twice in (
        signed(b'{"alg":"none","kid":"k1","alg":"RS256"}', claims, "RS256", key),
        signed(header, claims[:-1] + b',"sub":"root"}', "RS256", key),
        signed(header, claims[:-1] + b',"iss":"https://other.test/"}', "RS256", key),
        signed(header, claims[:-1] + b',"exp":9999999999}', "RS256", key),
        signed(header, claims[:-1] + b',"x":NaN}', "RS256", key),
    ):
        assert await here.why_bad(twice)


# The claims.


@pytest.mark.parametrize(
    ("claims", "why"),
    [
        ({"exp": None}, "The token never expires (exp is missing)."),
        ({"exp": str(WALL + 600)}, "The claim exp is not a point in time."),
        ({"exp": True}, "The claim exp is not a point in time."),
        ({"exp": (WALL + 600) * 1000}, "The claim exp is not a point in time."),
        ({"exp": 1e308}, "The claim exp is not a point in time."),
        ({"exp": [WALL + 600]}, "The claim exp is not a point in time."),
        ({"nbf": "0"}, "The claim nbf is not a point in time."),
        ({"iat": False}, "The claim iat is not a point in time."),
        ({"nbf": WALL + 31}, "The token is not valid yet (nbf, iat)."),
        ({"iat": WALL + 31}, "The token is not valid yet (nbf, iat)."),
        ({"exp": WALL + 86_401, "iat": WALL}, "The token is valid for longer than is accepted here."),
        ({"exp": WALL + 86_401, "iat": None}, "The token is valid for longer than is accepted here."),
        ({"exp": WALL + 315_360_000}, "The token is valid for longer than is accepted here."),
        ({"exp": WALL + 600, "iat": WALL - 86_000}, "The token is valid for longer than is accepted here."),
        ({"exp": WALL + 600, "iat": 0}, "The token is valid for longer than is accepted here."),
        ({"aud": "https://other.test"}, "The token was issued for another audience."),
        ({"aud": "client-id", "nonce": "n"}, "The token was issued for another audience."),
        ({"aud": None}, "The token names no audience (aud)."),
    ],
)
async def test_claims_that_prove_nothing(claims: dict[str, Any], why: str) -> None:
    """Well signed, and refused all the same."""
    here = await stand()
    assert await here.why_bad(here.idp.token(**claims)) == why


@pytest.mark.parametrize("claims", [{"sub": None}, {"tenant": None}, {"tenant": "*"}, {"cnf": {"jkt": "x"}}])
async def test_claims_that_name_nobody(claims: dict[str, Any]) -> None:
    """The rules are those of `claims.py`."""
    here = await stand()
    assert await here.why_bad(here.idp.token(**claims))


@pytest.mark.parametrize(
    "claims",
    [
        {"nbf": WALL + 30},
        {"iat": WALL + 30},
        {"exp": WALL + 86_400, "iat": WALL},
        {"exp": WALL + 86_400, "iat": None},
        {"exp": WALL - 29.9, "iat": WALL - 629},
        {"exp": WALL + 0.5},
        {"nbf": None},
    ],
)
async def test_clocks_may_be_off_within_the_leeway(claims: dict[str, Any]) -> None:
    here = await stand()
    assert await here.ask(here.idp.token(**claims)) is not None


async def test_the_settings_decide_on_leeway_lifetime_tenant_roles_and_scopes() -> None:
    here = await stand(
        leeway_s=0.0,
        max_token_lifetime_s=60.0,
        tenant_claim="/org/id",
        roles_claim="groups",
        required_scopes=("mcp:call",),
    )
    good: dict[str, Any] = {
        "exp": WALL + 60,
        "org": {"id": "umbrella"},
        "groups": "admin",
        "scope": "mcp:call",
    }
    principal = await here.ask(here.idp.token(**good))
    assert principal is not None
    assert (principal.tenant, principal.roles) == ("umbrella", frozenset({"admin"}))
    assert await here.why_bad(here.idp.token(**{**good, "exp": WALL + 61}))
    assert await here.why_bad(here.idp.token(**{**good, "iat": WALL + 1}))
    assert (await here.refusal(here.idp.token(**{**good, "exp": WALL, "iat": WALL - 9}))).data == {
        "expired": True
    }
    refused = await here.refusal(here.idp.token(**{**good, "scope": "other"}))
    assert (refused.reason, refused.scopes) == (Reason.SCOPE_MISSING, ("mcp:call",))
    fixed = await stand(tenant="hooli")
    principal = await fixed.ask(fixed.idp.token())
    assert principal is not None
    assert principal.tenant == "hooli"


async def test_an_expired_token_is_no_guess() -> None:
    """It does not count as a failed attempt; one that is forged as well does."""
    here = await stand()
    claims: dict[str, Any] = {"exp": WALL - 30, "iat": WALL - 630}
    refused = await here.refusal(here.idp.token(**claims))
    assert (refused.reason, refused.data, refused.why) == (
        Reason.BAD_CREDENTIAL,
        {"expired": True},
        "The token has expired.",
    )
    forged = here.idp.token(**claims, key=key_for("evil", "RS256"))
    assert await here.why_bad(forged) == "The signature of the token is not valid."


async def test_claims_are_judged_after_the_signature() -> None:
    """Whoever cannot sign learns nothing of what would be accepted."""
    here = await stand(required_scopes=("mcp:call",))
    evil = key_for("evil", "RS256")
    twists: list[dict[str, Any]] = [{"aud": "x"}, {"tenant": None}, {"exp": WALL - 999}, {"exp": "x"}, {}]
    for claims in twists:
        assert (
            await here.why_bad(here.idp.token(**claims, key=evil))
            == "The signature of the token is not valid."
        )


async def test_no_refusal_repeats_the_token() -> None:
    here = await stand()
    for token in (
        here.idp.token(sub="MARKER\n", header={"kid": "MARKER"}),
        here.idp.token(aud="MARKER"),
        here.idp.token(header={"typ": "MARKER"}),
        here.idp.token(header={"alg": "MARKER"}),
        here.idp.token(tenant=["MARKER"]),
    ):
        refused = await here.refusal(token)
        assert "MARKER" not in f"{refused.args} {refused.data} {refused.headers} {refused.scopes}"


# Tokens that were verified a moment ago.


async def test_a_token_is_verified_once_a_minute() -> None:
    here = await stand()
    token = here.idp.token()
    credential = of_header(BEARER, token)
    assert here.jwt.known(credential) is None
    principal = await here.ask(token)
    assert here.jwt.known(credential) is principal
    assert await here.ask(token) is principal
    here.now += 59.9
    assert here.jwt.known(credential) is principal
    here.now += 0.1
    here.wall += 60
    assert here.jwt.known(credential) is None
    again = await here.ask(token)
    assert again == principal
    assert again is not principal


async def test_no_other_token_is_known_with_it() -> None:
    """Same header, same first 200 characters, same but for padding: other tokens."""
    here = await stand()
    good = here.idp.token(pad="x" * 300)
    assert await here.ask(good) is not None
    twin = here.idp.token(pad="x" * 300, jti="y", key=key_for("evil", "RS256"))
    assert good[:200] == twin[:200]
    for other in (twin, good + "=", good[:-1], good + "A", good.upper()):
        assert here.jwt.known(of_header(BEARER, other)) is None
    assert await here.why_bad(twin)


async def test_nobody_is_known_beyond_the_end_of_the_token() -> None:
    here = await stand()
    token = here.idp.token(exp=WALL + 10)
    principal = await here.ask(token)
    assert principal is not None
    assert principal.valid_until == NOW + 10
    here.now, here.wall = NOW + 9.9, WALL + 9.9
    assert here.jwt.known(of_header(BEARER, token)) is principal
    here.now, here.wall = NOW + 10, WALL + 10
    assert here.jwt.known(of_header(BEARER, token)) is None
    # Within the leeway it is let in, each time anew.
    assert await here.ask(token) is not None
    assert here.jwt.known(of_header(BEARER, token)) is None
    here.now, here.wall = NOW + 40, WALL + 40
    assert (await here.refusal(token)).data == {"expired": True}


async def test_nobody_is_known_beyond_the_end_of_the_keys() -> None:
    here = await stand(jwks_max_stale_s=20.0)
    token = here.idp.token()
    assert await here.ask(token) is not None
    here.now += 19.9
    assert here.jwt.known(of_header(BEARER, token)) is not None
    here.now += 0.2
    assert here.jwt.known(of_header(BEARER, token)) is None
    assert (await here.refusal(token)).reason is Reason.IDP_UNAVAILABLE


async def test_a_key_that_is_withdrawn_takes_its_tokens_with_it() -> None:
    """Also those that were verified a second ago."""
    here = await stand()
    old = here.idp.token()
    assert await here.ask(old) is not None
    here.idp.withdraw("k1")
    here.idp.publish("k2")
    job = asyncio.ensure_future(here.jwt.run())
    assert await here.ask(here.idp.token(kid="k2")) is not None
    assert here.jwt.known(of_header(BEARER, old)) is None
    assert await here.why_bad(old) == "The token is signed with a key that its issuer does not publish."
    job.cancel()


async def test_a_key_that_is_added_takes_nobody_away() -> None:
    here = await stand()
    old = here.idp.token()
    principal = await here.ask(old)
    here.idp.publish("k2")
    job = asyncio.ensure_future(here.jwt.run())
    assert await here.ask(here.idp.token(kid="k2")) is not None
    assert here.jwt.known(of_header(BEARER, old)) is principal
    job.cancel()


# Nobody can tell.


async def test_without_keys_it_is_our_trouble() -> None:
    """design section 4: the identity provider's failure is 503, never 401, never a yes."""
    here = Stand()
    here.is_down = True
    assert (here.jwt.was_loaded, here.jwt.is_usable, here.jwt.why_degraded()) == (
        False,
        False,
        "no keys: not fetched yet",
    )
    await here.loaded()
    for token in (here.idp.token(), here.idp.token(key=key_for("evil", "RS256")), here.idp.token(kid="kx")):
        refused = await here.refusal(token)
        assert (refused.reason, refused.retry_after_s) == (Reason.IDP_UNAVAILABLE, 1)
    assert here.jwt.why_degraded() == "no keys: not reached"
    # What no key could make good is refused all the same.
    assert await here.why_bad(here.idp.token(header={"alg": "none"}))
    assert await here.why_bad(here.idp.token() + "=")


async def test_an_unknown_kid_while_the_issuer_is_down_is_nobodys_fault() -> None:
    here = await stand()
    here.is_down = True
    job = asyncio.ensure_future(here.jwt.run())
    assert (await here.refusal(here.idp.token(kid="k2"))).reason is Reason.IDP_UNAVAILABLE
    assert await here.ask(here.idp.token()) is not None
    assert here.jwt.why_degraded() == "keys not renewed: not reached"
    assert here.jwt.is_usable
    job.cancel()


async def test_loaded_keys_are_fresh() -> None:
    here = await stand()
    assert (here.jwt.was_loaded, here.jwt.is_usable, here.jwt.why_degraded()) == (True, True, None)
    here.now = math.nextafter(NOW + 86_400, math.inf)
    assert (here.jwt.was_loaded, here.jwt.is_usable) == (True, False)
