"""Every recipe of the corpus is minted as its words say, and what is not understood is refused. Own promise."""

import json
import math
from base64 import urlsafe_b64decode
from collections.abc import Mapping
from typing import Any

import jwt
import pytest
import yaml

from tests.corpus.cases import Corpus, CorpusError, read_corpus
from tests.corpus.mint import Mint
from tests.corpus.run import OWN
from tests.corpus.tokens import claims_of


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return read_corpus(OWN)


@pytest.fixture(scope="module")
def mint(corpus: Corpus) -> Mint:
    made = Mint(corpus.fixture, corpus.tokens)
    made.give("CANARY_PORT", "4711")
    return made


def decoded(segment: str) -> bytes:
    return urlsafe_b64decode(segment + "=" * (-len(segment) % 4))


def head(token: str) -> dict[str, Any]:
    value = json.loads(decoded(token.split(".")[0]))
    assert isinstance(value, dict)
    return value


def verifies(mint: Mint, token: str, key: str, algorithm: str = "RS256") -> bool:
    """Whether a library nobody here wrote takes the signature for one of this key."""
    public: Any = mint.keys.ec(key).public_key() if algorithm == "ES256" else mint.keys.rsa(key).public_key()
    try:
        # The header's alg may lie on purpose: the bytes are what is asked about.
        jwt.PyJWS().decode(relabelled(token, algorithm), public, algorithms=[algorithm])
    except jwt.InvalidSignatureError:
        return False
    return True


def relabelled(token: str, algorithm: str) -> str:
    assert head(token)["alg"] == algorithm, token
    return token


def test_every_recipe_of_the_corpus_is_minted(corpus: Corpus, mint: Mint) -> None:
    """None is left to a later room, and each has a kind of its own."""
    minted = {name: mint.value(name) for name in corpus.tokens}
    assert len(set(minted.values())) == len(minted)
    for name, token in minted.items():
        assert token.count(".") == (4 if name == "TOK_JWE" else 2), name


@pytest.mark.parametrize(
    ("name", "key", "algorithm"),
    [
        ("TOK_ALICE", "k1", "RS256"),
        ("TOK_K2", "k2", "RS256"),
        ("TOK_ATTACKER", "attacker", "RS256"),
        ("TOK_JKU", "attacker", "RS256"),
        ("TOK_ISS_OTHER", "idp2", "RS256"),
        ("TOK_ES_RSA_KID", "attacker EC key", "ES256"),
        ("TOK_PREFIX_TWIN", "attacker", "RS256"),
        ("TOK_DUP_ALG", "k1", "RS256"),
        ("TOK_SUB_SURR", "k1", "RS256"),
    ],
)
def test_a_token_is_signed_with_the_key_its_recipe_names(
    mint: Mint, name: str, key: str, algorithm: str
) -> None:
    assert verifies(mint, mint.value(name), key, algorithm)
    if key != "k1":
        others = "kec" if algorithm == "ES256" else "k1"
        assert not verifies(mint, mint.value(name), others, algorithm)


def test_claims_are_the_recipes_with_times_from_now(corpus: Corpus, mint: Mint) -> None:
    claims = claims_of(mint.value("TOK_ALICE"))
    recipe = corpus.tokens["TOK_ALICE"]["claims"]
    assert {name: claims[name] for name in ("iss", "aud", "sub", "tenant", "scope")} == {
        name: recipe[name] for name in ("iss", "aud", "sub", "tenant", "scope")
    }
    assert claims["exp"] - claims["iat"] == 600
    assert claims_of(mint.value("TOK_EXPIRED"))["exp"] - claims["iat"] in {-61, -60, -59}
    assert "exp" not in claims_of(mint.value("TOK_EXP_NONE"))
    assert claims_of(mint.value("TOK_EXP_STR"))["exp"].isdecimal()
    assert claims_of(mint.value("TOK_AUD_OBJ"))["aud"] == {"https://proxy.test/mcp": 1}


def test_words_for_raw_claims_are_done_to_the_letter(mint: Mint) -> None:
    """Duplicates, NaN, digits, surrogates and depth, each as JSON text that a lenient reader would take."""
    texts = {
        name: decoded(mint.value(name).split(".")[1]).decode()
        for name in ("TOK_DUP_SUB", "TOK_EXP_NAN", "TOK_EXP_DIGITS", "TOK_SUB_SURR", "TOK_DEEP")
    }
    pairs = json.loads(texts["TOK_DUP_SUB"], object_pairs_hook=list)
    assert [value for name, value in pairs if name == "sub"] == ["alice", "root"]
    assert math.isnan(json.loads(texts["TOK_EXP_NAN"])["exp"])
    assert '"exp":' + "1" * 5000 + "," in texts["TOK_EXP_DIGITS"]
    assert json.loads(texts["TOK_SUB_SURR"])["sub"] == "\ud800"
    assert "[" * 5000 + "]" * 5000 in texts["TOK_DEEP"]
    twice = json.loads(decoded(mint.value("TOK_DUP_ALG").split(".")[0]), object_pairs_hook=list)
    assert [value for name, value in twice if name == "alg"] == ["none", "RS256"]


def test_words_for_what_happens_after_signing_are_done(mint: Mint) -> None:
    tampered, padded, dropped = (mint.value(f"TOK_{name}") for name in ("TAMPERED", "PADDED", "SIG_EMPTY"))
    assert claims_of(tampered)["sub"] == "alicd"
    assert not verifies(mint, tampered, "k1")
    assert padded.endswith("==")
    assert dropped.endswith(".")
    assert len(dropped.split(".")[1]) > 100


def test_signatures_that_are_none_are_what_their_recipes_say(mint: Mint) -> None:
    assert mint.value("TOK_ALG_NONE").endswith(".")
    assert decoded(mint.value("TOK_PSYCHIC").split(".")[2]) == bytes(64)
    kept = mint.value("TOK_ALG_NONE_SIG").split(".")
    original = ".".join([mint.value("TOK_ALICE").split(".")[0], kept[1], kept[2]])
    assert head(".".join(kept))["alg"] == "none"
    assert verifies(mint, original, "k1")


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("TOK_HS_PUBPEM", lambda mint: mint.keys.public_pem("k1")),
        ("TOK_HS_MODULUS", lambda mint: mint.keys.modulus("k1")),
        ("TOK_HS_EMPTY", lambda mint: b""),
        ("TOK_HS_OCT", lambda mint: bytes(3)),
    ],
)
def test_shared_secrets_are_the_public_values_a_confused_reader_would_take(
    mint: Mint, name: str, secret: Any
) -> None:
    import hashlib
    import hmac

    signed, _, signature = mint.value(name).rpartition(".")
    assert decoded(signature) == hmac.digest(secret(mint), signed.encode(), hashlib.sha256)


def test_keys_inside_a_token_are_the_attackers(mint: Mint) -> None:
    published = mint.keys.rsa_jwk("attacker", kid="k1")
    assert head(mint.value("TOK_JWK"))["jwk"] == published
    assert len(head(mint.value("TOK_X5C"))["x5c"][0]) > 500
    assert head(mint.value("TOK_JKU"))["jku"] == "http://127.0.0.1:4711/jwks"


def test_a_twin_begins_as_alices_token_does_for_200_characters(mint: Mint) -> None:
    """A cache that keeps the beginning of a token would take one for the other."""
    alice, twin = mint.value("TOK_ALICE"), mint.value("TOK_PREFIX_TWIN")
    assert alice[:200] == twin[:200]
    assert claims_of(alice) != claims_of(twin)


def test_a_token_is_the_same_until_the_next_case_and_keys_for_the_whole_run(corpus: Corpus) -> None:
    """No constant of the file opens anything, and nothing a case was given is left for the next."""
    one, two = (Mint(corpus.fixture, corpus.tokens) for _ in range(2))
    constant = corpus.fixture["api_keys"]["KEY_ALICE"].encode()
    for text in (b"{{TOK_ALICE}}", b"{{KEY_ALICE}}", b"{{RANDOM}}", constant):
        assert one.fill(text) == one.fill(text)
        assert one.fill(text) != two.fill(text) != text
    assert one.fill(constant) == one.fill(b"{{KEY_ALICE}}")
    assert len(one.fill(constant)) == len(constant)
    assert one.fill(b"{{KEY_ALICE|upper}}") == one.fill(b"{{KEY_ALICE}}").upper()
    token, key, random = (one.value(name) for name in ("TOK_ALICE", "KEY_ALICE", "RANDOM"))
    one.give("SID_ALICE", "corpus-1000009")
    assert one.fill(b"{{SID_ALICE+1}}") == b"corpus-1000010"
    one.renew()
    assert one.value("TOK_ALICE") != token
    assert one.value("RANDOM") != random
    assert one.value("KEY_ALICE") == key
    with pytest.raises(CorpusError):
        one.value("SID_ALICE")


def test_ids_are_never_made_up(corpus: Corpus) -> None:
    """What the server must hand out, or what nobody knows, is refused: the braces as they are would test nothing."""
    made = Mint(corpus.fixture, corpus.tokens)
    for name in (b"{{SID_MALLORY}}", b"{{SID_BOB}}", b"{{TASK_BOB}}", b"{{TOK_ALICE|reversed}}"):
        with pytest.raises(CorpusError):
            made.fill(name)


@pytest.mark.parametrize(
    "changes",
    [
        {"sign": "RS512"},
        {"key": "some other key"},
        {"post": "reverse it"},
        {"note": "signed twice"},
        {"raw_claims": "base claims, but nicer"},
        {"colour": "green"},
    ],
)
def test_a_recipe_with_unknown_words_is_refused(corpus: Corpus, changes: Mapping[str, Any]) -> None:
    """Leaving a word out would mint another token than the case is about."""
    recipes = {**corpus.tokens, "TOK_ODD": {**corpus.tokens["TOK_ALICE"], **changes}}
    with pytest.raises(CorpusError):
        Mint(corpus.fixture, recipes).value("TOK_ODD")


def test_the_keys_file_holds_no_key(corpus: Corpus) -> None:
    """Hashes only; the revoked key has expired, the admin port's is not in it."""
    made = Mint(corpus.fixture, corpus.tokens)
    text = made.keys_file()
    entries = {entry["id"]: entry for entry in yaml.safe_load(text)["keys"]}
    assert entries["corpus-key-alice"]["tenant"] == "a"
    assert entries["corpus-key-carol"]["tenant"] == "b"
    assert entries["corpus-key-gone"]["expires"]
    assert "corpus-key-admin" not in entries
    for name in corpus.fixture["api_keys"]:
        assert made.value(name).partition(".")[2] not in text
