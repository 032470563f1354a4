"""The identity provider of the tests does what its page says; else their greens would mean nothing."""

import asyncio
import json

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from proxy.identity.provider import Provider, Unavailable
from proxy.secret import Secret
from tests.idp import Idp, Scripted, key_for, signed
from tests.integration.waiting import within


async def test_its_tokens_verify_with_the_keys_it_publishes() -> None:
    """Checked by PyJWT's own reader, for every kind of key."""
    provider = Provider()
    async with Idp() as idp, within():
        for kid, alg in (("k1", "RS256"), ("e1", "ES256"), ("e3", "ES384"), ("o1", "EdDSA"), ("p1", "PS512")):
            idp.publish(kid, alg=alg)
            document, max_age_s = await provider.fetch(idp.jwks_url)
            assert max_age_s is None
            key = jwt.PyJWKSet.from_dict(json.loads(document))[kid]
            token = idp.token(kid=kid, alg=alg, sub="bob", tenant=None, scope="read")
            assert jwt.get_unverified_header(token) == {"typ": "at+jwt", "alg": alg, "kid": kid}
            read = jwt.decode(token, key, algorithms=[alg], audience=idp.audience, issuer=idp.issuer)
            assert read == {
                "iss": idp.issuer,
                "aud": idp.audience,
                "sub": "bob",
                "iat": read["iat"],
                "exp": read["iat"] + 600,
                "scope": "read",
            }
        await provider.close()


async def test_keys_come_and_go() -> None:
    provider = Provider()
    async with Idp() as idp, within():
        idp.publish("k2", key_for("another", "RS256"), use=None, key_ops=["verify"])
        idp.withdraw("k1")
        [key] = json.loads((await provider.fetch(idp.jwks_url))[0])["keys"]
        assert key.keys() == {"kty", "n", "e", "kid", "key_ops"}
        assert (key["kid"], idp.fetches) == ("k2", 1)
        # Unknown to everybody, but well-formed: what a forger sends.
        assert jwt.get_unverified_header(idp.token(kid="k9", header={"typ": None})) == {
            "alg": "RS256",
            "kid": "k9",
        }
        await provider.close()


async def test_a_token_may_lie_about_its_key() -> None:
    """Signed by another kind of key than the one published under its kid, by none, or with a shared secret."""
    idp = Idp(issuer="https://login.example.com/")
    for alg, length in (("ES256", 86), ("EdDSA", 86), ("RS256", 342), ("none", 0)):
        token = idp.token(alg=alg, claims={"a": 1}, b=2)
        assert jwt.get_unverified_header(token)["kid"] == "k1"
        assert len(token.split(".")[2]) == length
        assert jwt.decode(token, options={"verify_signature": False}) == {"a": 1, "b": 2}
    public = key_for("k1", "RS256").public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert len(idp.token(alg="HS256", key=public).split(".")[2]) == 43
    assert idp.claims()["iss"] == "https://login.example.com/"


def test_any_bytes_become_a_token() -> None:
    assert signed(b"{}", b"[]", "none", b"") == "e30.W10."
    header, payload, signature = signed(b"{}", b'{"a":1,"a":2}', "HS256", b"x" * 32).split(".")
    assert (header, payload, len(signature)) == ("e30", "eyJhIjoxLCJhIjoyfQ", 43)


async def test_it_answers_as_scripted() -> None:
    provider = Provider()
    async with Idp() as idp, within():
        idp.jwks_answer = Scripted(status=503, body=b"down")
        with pytest.raises(Unavailable, match="status 503"):
            await provider.fetch(idp.jwks_url)
        idp.jwks_answer = Scripted(headers={"Cache-Control": "max-age=9"}, body=b"nonsense")
        assert await provider.fetch(idp.jwks_url) == (b"nonsense", 9.0)

        hold = asyncio.Event()
        idp.jwks_answer = Scripted(hold=hold)
        fetching = asyncio.ensure_future(provider.fetch(idp.jwks_url))
        await idp.fetched(3)
        assert not fetching.done()
        hold.set()
        assert b'"kid": "k1"' in (await fetching)[0]
        await provider.close()


async def test_it_goes_down_and_comes_back_on_its_port() -> None:
    """Also while somebody waits for an answer."""
    provider = Provider()
    async with Idp() as idp, within():
        idp.jwks_answer = Scripted(hold=asyncio.Event())
        fetching = asyncio.ensure_future(provider.fetch(idp.jwks_url))
        await idp.fetched(1)
        url = idp.url
        await idp.stop()
        with pytest.raises(Unavailable, match="connection broke"):
            await fetching
        with pytest.raises(Unavailable, match="not reached"):
            await provider.fetch(idp.jwks_url)
        idp.jwks_answer = None
        await idp.start()
        assert idp.url == url
        assert (await provider.fetch(idp.jwks_url))[0].startswith(b'{"keys"')
        await provider.close()


async def ask(provider: Provider, idp: Idp, token: str, secret: str) -> object:
    answer = await provider.ask(
        idp.introspection_url,
        {"token": token},
        user=idp.client_id,
        secret=Secret(secret),
        timeout_s=4.0,
    )
    return json.loads(answer)


async def test_it_tells_its_client_about_opaque_tokens() -> None:
    """RFC 7662: who asks needs a credential; an unknown token is not active, and nothing else is said."""
    provider = Provider()
    async with Idp() as idp, within():
        members = idp.grant("opaque+1", scope="read", iat=None)
        assert members.keys() == {"iss", "aud", "sub", "tenant", "exp", "scope"}
        assert await ask(provider, idp, "opaque+1", idp.client_secret) == {"active": True, **members}
        assert await ask(provider, idp, "unknown", idp.client_secret) == {"active": False}
        idp.revoke("opaque+1")
        assert await ask(provider, idp, "opaque+1", idp.client_secret) == {"active": False}
        with pytest.raises(Unavailable, match="status 401"):
            await ask(provider, idp, "opaque+1", "guessed")
        await idp.introspected(4)
        assert idp.introspections == ["opaque+1", "unknown", "opaque+1", "opaque+1"]
        idp.introspection_answer = Scripted(body=b"[]")
        assert await ask(provider, idp, "unknown", idp.client_secret) == []
        await provider.close()
