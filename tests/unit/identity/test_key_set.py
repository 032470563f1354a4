"""A key set gives only keys that can have signed a token, and never two for one name."""

import base64
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from hypothesis import given, settings
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from proxy.identity.key_set import MAX_KEYS, KeySet, NoKeySet, PublicKey, read_key_set
from tests.idp import b64, jwk_of, key_for, signed

ALL = frozenset(
    ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"),
)
RSA_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")


def jwk(of: str | None = "k1", made_for: str = "RS256", **extra: Any) -> dict[str, Any]:
    named: dict[str, Any] = {} if of is None else {"kid": of}
    return {**jwk_of(key_for(of or "nameless", made_for)), **named, **extra}


def without(key: dict[str, Any], member: str) -> dict[str, Any]:
    return {name: value for name, value in key.items() if name != member}


def document(*keys: Any, **extra: Any) -> bytes:
    return json.dumps({"keys": list(keys), **extra}).encode()


def read(*keys: Any, allowed: frozenset[str] = ALL) -> KeySet:
    return read_key_set(document(*keys), allowed)


def usable(key_set: KeySet, kid: str | None = "k1") -> set[str]:
    """The algorithms a key of this name can be used with."""
    return {alg for alg in ALL | {"none", "HS256", "ES256K", ""} if key_set.find(kid, alg) is not None}


def test_what_a_key_is_good_for_follows_from_its_type() -> None:
    """RFC 8725 3.1: never from the token. One key is used with the algorithms of its type, or of its `alg`."""
    assert usable(read(jwk())) == set(RSA_ALGORITHMS)
    for alg in ("ES256", "ES384", "ES512", "EdDSA"):
        assert usable(read(jwk(made_for=alg))) == {alg}


@pytest.mark.parametrize(
    "extra",
    [
        {"use": "enc"},
        {"use": None},
        {"use": ["sig"]},
        {"use": "SIG"},
        {"key_ops": ["sign"]},
        {"key_ops": []},
        {"key_ops": "verify"},
        {"key_ops": {"verify": 1}},
        {"key_ops": None},
        {"alg": "none"},
        {"alg": "HS256"},
        {"alg": "ES256"},
        {"alg": "RSA-OAEP"},
        {"alg": "rs256"},
        {"alg": None},
        {"alg": ["RS256"]},
        {"alg": ""},
        {"kid": None},
        {"kid": 1},
        {"kid": ["k1"]},
        {"kid": ""},
        {"kid": "k1\n"},
        {"kid": "k" * 257},
        {"kty": "oct", "k": "AAAA"},
        {"kty": "oct"},
        {"kty": "rsa"},
        {"kty": "EC"},
        {"kty": None},
        {"kty": ["RSA"]},
        {"kty": 1},
        {"crv": "P-256"},
        {"crv": ["P-256"]},
        {"d": "AQAB"},
        {"k": "AAAA"},
        {"n": None},
        {"n": 7},
        {"n": ""},
        {"n": ["AQAB"]},
        {"n": "AQAB"},
        {"n": "é" * 342},
        {"n": "A" * 1_401},
        {"n": "_" * 200_000},
        {"e": None},
        {"e": 65537},
        {"e": ""},
        {"e": "AQ"},  # 1
        {"e": "Aw"},  # 3
        {"e": "EQ"},  # 17
        {"e": "AQAA"},  # even
        {"e": "AAABAQAAAAE"},  # beyond 32 bits
        {"e": "_" * 1_400},
    ],
)
def test_keys_that_cannot_be_used_are_left_out(extra: dict[str, Any]) -> None:
    """And only they: the others of the document stay."""
    key_set = read({**jwk("k1"), **extra}, jwk("k2"))
    assert usable(key_set, "k1") == set()
    assert usable(key_set, None) == usable(key_set, "k2") == set(RSA_ALGORITHMS)


@pytest.mark.parametrize("member", ["kty", "n", "e"])
def test_a_key_without_what_makes_it_one_is_left_out(member: str) -> None:
    assert not read(without(jwk(), member))


@pytest.mark.parametrize("key", [None, 1, "k1", [], [jwk()], {}, True])
def test_what_is_no_key_is_left_out(key: Any) -> None:
    assert usable(read(key, jwk("k2")), "k2") == set(RSA_ALGORITHMS)


@pytest.mark.parametrize(
    "key",
    [
        jwk(made_for="ES256", crv="P-384"),
        jwk(made_for="ES256", crv="secp256k1"),
        jwk(made_for="ES256", crv="P-256K"),
        jwk(made_for="ES256", crv=None),
        without(jwk(made_for="ES256"), "crv"),
        without(jwk(made_for="ES256"), "y"),
        jwk(made_for="ES256", y=jwk(made_for="ES256")["x"]),  # not on the curve
        jwk(made_for="ES256", x="AA", y="AA"),
        jwk(made_for="ES256", x=b64(bytes(32)), y=b64(bytes(32))),  # the point at infinity
        jwk(made_for="ES256", x=1),
        jwk(made_for="EdDSA", crv="Ed448"),
        jwk(made_for="EdDSA", crv="X25519"),
        jwk(made_for="EdDSA", x="AAAA"),
        jwk(made_for="EdDSA", x=None),
        without(jwk(made_for="EdDSA"), "x"),
        {"kid": "k1", **OKPAlgorithm.to_jwk(ed448.Ed448PrivateKey.generate().public_key(), as_dict=True)},
        {
            "kid": "k1",
            **ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP256K1()).public_key(), as_dict=True),
        },
        {"kid": "k1", **ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP256R1()), as_dict=True)},
        {"kid": "k1", **OKPAlgorithm.to_jwk(ed25519.Ed25519PrivateKey.generate(), as_dict=True)},
        {"kid": "k1", **RSAAlgorithm.to_jwk(rsa.generate_private_key(65537, 2048), as_dict=True)},
    ],
)
def test_curves_we_do_not_name_and_private_keys_are_left_out(key: dict[str, Any]) -> None:
    assert not read(key)


@pytest.mark.parametrize(("bits", "is_used"), [(1024, False), (2047, False), (2048, True), (8192, True)])
def test_rsa_keys_have_a_sane_size(bits: int, is_used: bool) -> None:
    """RFC 7518 3.3. No key is made for the large ones: any odd number of that length will do to be counted."""
    n = (1 << (bits - 1)) + 1
    key = jwk(n=b64(n.to_bytes((bits + 7) // 8, "big")))
    assert bool(read(key)) is is_used


@pytest.mark.parametrize(("zeros", "is_used"), [(0, True), (794, True), (795, False)])
def test_numbers_are_not_even_made_of_long_texts(zeros: int, is_used: bool) -> None:
    """Zeros in front change no number; they are counted before there is one."""
    n = decoded(jwk()["n"])
    assert len(n) == 256
    assert bool(read(jwk(n=b64(bytes(zeros) + n)))) is is_used


def test_how_deep_and_how_much() -> None:
    """Certificates and extensions may stand in a key set, no trees."""

    def nested(deep: int) -> bytes:
        return b'{"keys":[],"x":' + b"[" * (deep - 1) + b"]" * (deep - 1) + b"}"

    def many(elements: int) -> bytes:
        return (
            b'{"keys":[' + b",".join([b"1"] * 90) + b'],"x":[' + b",".join([b"1"] * (elements - 92)) + b"]}"
        )

    for good, bad in ((nested(16), nested(17)), (many(8192), many(8193))):
        read_key_set(good, ALL)
        with pytest.raises(NoKeySet, match=r"^not acceptable JSON$"):
            read_key_set(bad, ALL)


@pytest.mark.parametrize("bits", [8193, 8400])
def test_rsa_keys_that_cost_too_much_are_left_out(bits: int) -> None:
    n = (1 << (bits - 1)) + 1
    assert len(b64(n.to_bytes((bits + 7) // 8, "big"))) <= 1_401
    assert not read(jwk(n=b64(n.to_bytes((bits + 7) // 8, "big"))))


@pytest.mark.parametrize(
    ("exponent", "is_used"), [(65_535, False), (65_537, True), (2**32 - 1, True), (2**32 + 1, False)]
)
def test_rsa_exponents(exponent: int, is_used: bool) -> None:
    """FIPS 186-5 5.1: more than 2**16."""
    assert bool(read(jwk(e=b64(exponent.to_bytes(8, "big"))))) is is_used


@pytest.mark.parametrize("alg", sorted(ALL))
def test_a_key_verifies_what_it_signed(alg: str) -> None:
    key = read(jwk(made_for=alg)).find("k1", alg)
    assert key is not None
    head, body, signature = signed(b"{}", b"{}", alg, key_for("k1", alg)).split(".")
    raw = decoded(signature)
    over = f"{head}.{body}".encode()
    assert key.verifies(alg, over, raw)
    # The same signature over something else, of somebody else, changed, or under another name.
    assert not key.verifies(alg, over + b"x", raw)
    assert not key.verifies(alg, over, decoded(signed(b"{}", b"{}", alg, key_for("evil", alg)).split(".")[2]))
    assert not key.verifies(alg, over, raw[:-1] + bytes([raw[-1] ^ 1]))
    assert not any(key.verifies(other, over, raw) for other in {*ALL, "none", "HS256", "es256"} - {alg})


@pytest.mark.parametrize("alg", ["RS256", "PS256", "ES256", "ES512", "EdDSA"])
@pytest.mark.parametrize(
    "signature", [b"", b"\x00", b"\x00" * 64, b"\x00" * 256, b"\xff" * 64, b"\xff" * 256, b"x" * 10_000]
)
def test_signatures_made_of_nothing(alg: str, signature: bytes) -> None:
    """CVE-2022-21449: r = s = 0 once verified anything (psychic signatures)."""
    key = read(jwk(made_for=alg)).find("k1", alg)
    assert key is not None
    assert key.verifies(alg, b"a.b", signature) is False


def test_an_exception_never_means_yes() -> None:
    """What the library below cannot even take apart proves nothing."""
    broken = PublicKey(kid="k1", algorithms=frozenset({"RS256", "HS256"}), material=b"", key=object())
    assert broken.verifies("RS256", b"a.b", b"signature") is False
    assert broken.verifies("HS256", b"a.b", b"signature") is False


def test_only_what_the_operator_allows_is_read() -> None:
    key_set = read(jwk("k1"), jwk("kec", "ES256"), allowed=frozenset({"RS256"}))
    assert usable(key_set, "k1") == {"RS256"}
    assert usable(key_set, "kec") == set()
    assert not read(jwk(), allowed=frozenset())


def test_an_alg_narrows_the_key() -> None:
    """RFC 7517 4.4. A key for PS256 verifies no RS256, though its owner could make one."""
    key_set = read(jwk(alg="PS256"))
    assert usable(key_set) == {"PS256"}
    key = key_set.find("k1", "PS256")
    assert key is not None
    for alg, is_verified in (("RS256", False), ("PS256", True)):
        signature = decoded(signed(b"{}", b"{}", alg, key_for("k1", alg)).split(".")[2])
        assert key.verifies(alg, b"e30.e30", signature) is is_verified


@pytest.mark.parametrize(
    "extra", [{"use": "sig"}, {"key_ops": ["verify"]}, {"key_ops": ["verify", "sign"], "use": "sig"}]
)
def test_a_signing_key_may_say_so(extra: dict[str, Any]) -> None:
    assert usable(read(jwk(**extra))) == set(RSA_ALGORITHMS)


def test_certificates_are_not_looked_at() -> None:
    """RFC 7517 4.6 to 4.9: neither believed nor fetched, and no reason to leave the key out."""
    extra: dict[str, Any] = {
        "x5u": "http://169.254.169.254/",
        "x5c": ["not a certificate", 1],
        "x5t": 7,
        "x5t#S256": None,
    }
    assert usable(read(jwk(**extra))) == set(RSA_ALGORITHMS)


# Which key does a token mean?


def test_a_kid_is_compared_exactly() -> None:
    key_set = read(jwk("k1"), jwk("K1"), jwk("k"))
    for kid in ("k1", "K1", "k"):
        found = key_set.find(kid, "RS256")
        assert found is not None
        assert found.kid == kid
    for kid in ("k1 ", " k1", "k11", "", "ｋ1"):
        assert key_set.find(kid, "RS256") is None


def test_without_a_kid_only_one_key_may_fit() -> None:
    """A guess would try keys until one fits; two that fit are no answer."""
    assert usable(read(jwk("k1"), jwk("kec", "ES256")), None) == {*RSA_ALGORITHMS, "ES256"}
    assert usable(read(jwk("k1"), jwk("k2")), None) == set()
    assert usable(read(jwk("k1"), jwk("k2", use="enc")), None) == set(RSA_ALGORITHMS)
    assert usable(read(jwk(None)), None) == set(RSA_ALGORITHMS)
    assert usable(read(jwk(None), jwk("k1")), None) == set()


def test_a_key_without_kid_answers_to_no_kid() -> None:
    assert usable(read(jwk(None)), "k1") == set()


@pytest.mark.parametrize("turned", [False, True])
def test_a_kid_that_names_two_keys_refuses_the_document(turned: bool) -> None:
    """Else the order would decide, and whoever can add a key could take over a name."""
    pair = [jwk("k1"), {**jwk("k2"), "kid": "k1"}]
    with pytest.raises(NoKeySet, match=r"^one kid names two keys$"):
        read(*(reversed(pair) if turned else pair))


def test_keys_of_one_kid_for_different_things_are_no_riddle() -> None:
    """Only those conflict that could both have signed one token."""
    same_key = read(jwk("k1"), jwk("k1", use="sig"))
    assert usable(same_key) == usable(same_key, None) == set(RSA_ALGORITHMS)
    assert usable(read(jwk("k1"), jwk("k1", "ES256"))) == {*RSA_ALGORITHMS, "ES256"}
    assert usable(read(jwk("k1"), {**jwk("k2"), "kid": "k1", "use": "enc"})) == set(RSA_ALGORITHMS)
    by_alg = read(jwk("k1", alg="RS256"), {**jwk("k2"), "kid": "k1", "alg": "PS256"})
    assert usable(by_alg) == {"RS256", "PS256"}
    # Two without a name are two keys, not one name.
    assert usable(read(jwk(None), without(jwk("k2"), "kid")), None) == set()


@pytest.mark.parametrize(
    "text",
    [
        *(
            b"",
            b"null",
            b"[]",
            b'"keys"',
            b"{}",
            b'{"Keys":[]}',
            b'{"keys":null}',
            b'{"keys":{}}',
            b'{"keys":"k"}',
        ),
        *(b"<html><body>Sign in</body></html>", b'{"keys":[]', b'{"keys":[]} {}', b'{"keys":[],"keys":[]}'),
        *(
            b'{"keys":[{"kid":"k1","kid":"k2"}]}',
            b'{"keys":[NaN]}',
            b'\xef\xbb\xbf{"keys":[]}',
            b'{"keys":["\xff"]}',
        ),
        *(
            b'{"keys":["\\ud800"]}',
            b'{"keys":' + b"[" * 17 + b"]" * 17 + b"}",
            b'{"keys":[' + b"[]," * 5000 + b"1]}",
        ),
        document(jwk())[:-1],
        document(jwk()).decode().encode("utf-16"),
    ],
)
def test_what_is_no_key_set_is_refused_whole(text: bytes) -> None:
    """The set we have stays: a sign-in page or half a document withdraws no key."""
    with pytest.raises(NoKeySet):
        read_key_set(text, ALL)


def test_a_hundred_keys_are_enough() -> None:
    many = [jwk("k1", kid=f"k{at}") for at in range(MAX_KEYS)]
    assert usable(read(*many), "k99") == set(RSA_ALGORITHMS)
    with pytest.raises(NoKeySet, match=r"^more than 100 keys$"):
        read(*many, jwk("k100"))


def test_an_empty_set_withdraws_everything() -> None:
    """It is a key set all the same."""
    assert not read()
    assert read(jwk())
    assert usable(read(), None) == set()


@pytest.mark.parametrize(
    ("older", "newer", "kept"),
    [
        ((), (), True),
        ((), ("k1",), True),
        (("k1",), ("k1",), True),
        (("k1",), ("k1", "k2"), True),
        (("k1", "k2"), ("k2", "k1"), True),
        (("k1",), ("k2",), False),
        (("k1", "k2"), ("k2",), False),
        (("k1",), (), False),
    ],
)
def test_whether_all_keys_are_still_there(older: tuple[str, ...], newer: tuple[str, ...], kept: bool) -> None:
    """A key that is withdrawn takes what it has verified with it."""
    assert read(*map(jwk, newer)).keeps(read(*map(jwk, older))) is kept


def test_a_key_that_changed_is_not_kept() -> None:
    assert not read({**jwk("k2"), "kid": "k1"}).keeps(read(jwk("k1")))
    assert not read(jwk("k1", alg="RS256")).keeps(read(jwk("k1")))
    assert read(jwk("k1", use="sig", x5t="x")).keeps(read(jwk("k1")))


ODD = (
    st.sampled_from([None, 1, "", "RSA", "EC", "OKP", "P-256", "Ed25519", "AQAB", "sig", "verify", "RS256"])
    | st.text(max_size=10)
    | st.lists(st.text(max_size=3), max_size=2)
)
LIKE_A_KEY = st.dictionaries(
    st.sampled_from(["kty", "kid", "use", "alg", "crv", "n", "e", "x", "y", "key_ops"]), ODD
)


@settings(deadline=None)
@given(LIKE_A_KEY.map(lambda odd: {**jwk(), **odd}) | LIKE_A_KEY | st.integers() | st.text())
def test_no_odd_key_takes_a_good_one_down(odd: Any) -> None:
    """Whatever the libraries make of it."""
    assert usable(read(odd, jwk("a longer name")), "a longer name") == set(RSA_ALGORITHMS)


def decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "==")
