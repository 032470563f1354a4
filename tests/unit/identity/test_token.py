"""One text, one token: whatever two readers could disagree on is refused."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from proxy.identity.token import MAX_CHARACTERS, Token, issuers_named, read_token
from proxy.model import Reason, Refused

ISSUER = "https://idp.test/"
HEADER = {"alg": "RS256", "kid": "k1", "typ": "at+jwt"}
CLAIMS = {"iss": ISSUER, "sub": "alice"}


def b64(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def part(value: Any) -> str:
    return b64(value if isinstance(value, bytes) else json.dumps(value).encode())


def make(header: Any = HEADER, claims: Any = CLAIMS, signature: bytes = b"signature") -> str:
    return f"{part(header)}.{part(claims)}.{b64(signature)}"


def refuse(text: str) -> str:
    with pytest.raises(Refused) as refusal:
        read_token(text)
    assert (refusal.value.reason, refusal.value.code, refusal.value.status) == (
        Reason.BAD_CREDENTIAL,
        None,
        None,
    )
    return refusal.value.why


GOOD = make()
HEAD, BODY, TAIL = GOOD.split(".")


def test_a_token_is_read_whole() -> None:
    assert read_token(GOOD) == Token(
        alg="RS256",
        kid="k1",
        typ="at+jwt",
        claims=CLAIMS,
        signed=f"{HEAD}.{BODY}".encode(),
        signature=b"signature",
    )


@pytest.mark.parametrize(
    "text",
    [
        *("", ".", "..", "...", "a", "a.b", "a.b.c", "a.b.c.d", "null", "undefined"),
        *(HEAD, f"{HEAD}.{BODY}", f"{GOOD}.", f".{GOOD}", f"{GOOD}.{TAIL}", f"{HEAD}.{BODY}.{TAIL}.x.y"),
        *(f"{HEAD}.{BODY}.", f".{BODY}.{TAIL}", f"{HEAD}..{TAIL}", f"{HEAD}.{TAIL}"),
        *(GOOD[:-5] + "é" + GOOD[-4:], GOOD + "\ud800", "\x00" + GOOD, GOOD.replace(".", "。")),
    ],
)
def test_three_parts_that_are_all_there(text: str) -> None:
    assert refuse(text)


@pytest.mark.parametrize("at", [0, 1, 2])
@pytest.mark.parametrize(
    "twist",
    [
        lambda each: each + "=",
        lambda each: each + "==",
        lambda each: each + " ",
        lambda each: each + "\n",
        lambda each: " " + each,
        lambda each: each[:3] + "~" + each[3:],
        lambda each: each[:3] + "=" + each[3:],
        lambda each: each[:-1] + chr(ord(each[-1]) + 1),
    ],
)
def test_no_part_can_be_written_in_two_ways(at: int, twist: Any) -> None:
    """RFC 7515 section 2: base64url without padding; decoders skip what is foreign and ignore trailing bits."""
    # One byte more than a multiple of three: the last letter has four bits that say nothing.
    parts = [part(b'{"alg":"RS256"}   '[:16]), part(b'{"iss":"abc"}'), b64(b"1234")]
    assert all(len(base64.urlsafe_b64decode(each + "==")) % 3 == 1 for each in parts)
    assert read_token(".".join(parts)).signature == b"1234"
    parts[at] = twist(parts[at])
    assert refuse(".".join(parts)) == "A part of the token is empty, or is not base64url without padding."


def test_the_other_alphabet_is_no_second_spelling() -> None:
    """RFC 4648 section 5: - and _ are the only spelling here, / and + are another alphabet's."""
    text = make(signature=b"\xfb\xff\xbf")
    assert text.endswith("-_-_")
    assert read_token(text).signature == b"\xfb\xff\xbf"
    assert refuse(text.replace("-_-_", "+/+/"))


def test_the_longest_token() -> None:
    # Three bytes more are four letters more; blanks in front of the header make up for the rest.
    starts = [f"{part(b' ' * blanks + json.dumps(HEADER).encode())}.{BODY}." for blanks in range(4)]
    start = next(each for each in starts if (MAX_CHARACTERS - len(each)) % 4 == 0)
    room = (MAX_CHARACTERS - len(start)) // 4 * 3
    longest = start + b64(b"x" * room)
    assert len(longest) == MAX_CHARACTERS
    assert len(read_token(longest).signature) == room
    assert refuse(start + b64(b"x" * (room + 1))) == "A token may have 16384 characters."


@pytest.mark.parametrize(
    "header",
    [
        b'{"alg":"none","kid":"k1","alg":"RS256"}',
        b'{"alg":"RS256","\\u0061lg":"none"}',
        b'{"alg":"RS256","jwk":{"kty":"RSA","kty":"oct"}}',
        b'{"alg":"RS256","x":NaN}',
        b'{"alg":"RS256"} {}',
        b'\xef\xbb\xbf{"alg":"RS256"}',
        b'{"alg":"RS256","kid":"\\ud800"}',
        b'{"alg":"RS256","kid":"\xff"}',
        b'{"alg":"RS256","x":' + b"[" * 17 + b"]" * 17 + b"}",
        b"alg",
        b'"RS256"',
        b"null",
        b"1",
        ["RS256"],
        [HEADER],
    ],
)
def test_a_header_is_one_strict_object(header: Any) -> None:
    """RFC 7515 section 4: member names are unique. Every peer takes another one of two."""
    assert refuse(make(header))


@pytest.mark.parametrize(
    "claims",
    [
        b'{"iss":"https://idp.test/","sub":"alice","sub":"root"}',
        b'{"iss":"https://evil.test/","iss":"https://idp.test/"}',
        b'{"iss":"https://idp.test/","exp":NaN}',
        b'{"iss":"https://idp.test/","exp":1e999}',
        b'{"iss":"https://idp.test/","exp":-Infinity}',
        b'{"iss":"https://idp.test/","sub":"\\ud800"}',
        b'{"iss":"https://idp.test/","exp":' + b"9" * 5000 + b"}",
        b'{"x":' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"x":[' + b"[]," * 2100 + b"[]]}",
        b"",
        b"{}{}",
        b"[]",
        b'"a.b.c"',
        GOOD.encode(),
    ],
)
def test_claims_are_one_strict_object(claims: bytes) -> None:
    """RFC 7519 section 4: claim names are unique; a token inside a token is not unpacked either."""
    assert refuse(make(claims=claims))


def test_how_deep_and_how_much() -> None:
    """Roles per client are nested 4 deep; nobody needs thousands of members in a token of 16 KiB."""

    def nested(deep: int) -> bytes:
        return b'{"x":' + b"[" * (deep - 1) + b"]" * (deep - 1) + b"}"

    def many(elements: int) -> bytes:
        # Two brackets, and a comma between each two.
        return b'{"x":[' + b",".join([b"1"] * (elements - 1)) + b"]}"

    for good, bad in ((nested(16), nested(17)), (many(4096), many(4097))):
        assert read_token(make(claims=good)).claims == json.loads(good)
        assert refuse(make(claims=bad)) == "Header or claims of the token are not acceptable JSON."


@pytest.mark.parametrize("alg", [None, 1, ["RS256"], {}, True])
def test_alg_is_a_string(alg: object) -> None:
    assert refuse(make({**HEADER, "alg": alg})) == "The token's header names no algorithm."
    assert refuse(make({"kid": "k1"})) == "The token's header names no algorithm."


@pytest.mark.parametrize(
    "kid", [None, 1, True, [], {}, "", "k1\n\x1b[31mFAKE", "k\x00", "k\u202e", "k" * 257]
)
def test_a_kid_is_a_printable_name(kid: object) -> None:
    assert refuse(make({**HEADER, "kid": kid})).startswith("The token's kid is not")


@pytest.mark.parametrize("kid", ["../../../../dev/null", "' UNION SELECT 'x", "1", "k" * 256, "schlüssel 1"])
def test_a_kid_is_only_ever_compared(kid: str) -> None:
    assert read_token(make({**HEADER, "kid": kid})).kid == kid


def test_kid_and_typ_may_be_absent() -> None:
    token = read_token(make({"alg": "RS256"}))
    assert (token.kid, token.typ) == (None, None)


@pytest.mark.parametrize("typ", [None, 1, True, ["JWT"], {}])
def test_typ_is_a_string(typ: object) -> None:
    assert refuse(make({**HEADER, "typ": typ})) == "The token's typ is not a string."


@pytest.mark.parametrize(
    "extra", [{"crit": ["exp"]}, {"crit": []}, {"crit": None}, {"b64": False}, {"b64": True}, {"b64": None}]
)
def test_extensions_are_refused(extra: dict[str, object]) -> None:
    """RFC 7515 4.1.11: what is critical and not understood makes the token invalid. RFC 7797: `b64`."""
    assert "extension" in refuse(make({**HEADER, **extra}))


def test_keys_in_the_header_are_not_even_read() -> None:
    """RFC 8725 3.10: nothing in a token says which key it is checked with, but its kid."""
    urls = {"jku": "http://evil.test/jwks", "x5u": "http://169.254.169.254/"}
    token = read_token(make({**HEADER, **urls, "jwk": {"kty": "oct", "k": "AAAA"}, "x5c": ["MIIB"]}))
    assert structs.replace(token, signed=b"") == structs.replace(read_token(GOOD), signed=b"")


# Whose token does it claim to be?


@pytest.mark.parametrize(
    "text",
    [
        *("", ".", "..", "opaque", "a.b.c", "v4.public.abc", "mF_9.B5f-4.1JqM", "1.2.3", "ya29.a0Af.H6SM-_B"),
        # A header that is no object, or says nothing.
        f"{part([1])}.{BODY}.{TAIL}",
        f"{part('x')}.{BODY}.{TAIL}",
        f"{part({})}.{BODY}.{TAIL}",
        f"{HEAD}",
        # Encrypted: five parts, and only the first can be read.
        f"{part({'alg': 'RSA-OAEP', 'enc': 'A256GCM'})}.{b64(b'key')}.{b64(b'iv')}.{b64(b'text')}.{b64(b'tag')}",
    ],
)
def test_opaque_tokens_are_no_jwt(text: str) -> None:
    """An opaque token may hold dots; it is the introspection endpoint's."""
    assert issuers_named(text) is None


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        f"{HEAD}.{BODY}.",
        f"{HEAD}.{BODY}",
        f"{GOOD}.x",
        f"{GOOD}.x.y",
        f"{HEAD}=.{BODY}==.{TAIL}",
        f" {HEAD}.{BODY}.{TAIL}",
        f"{HEAD[:4]}~{HEAD[4:]}.{BODY[:5]}={BODY[5:]}.{TAIL}",
        *(f"{HEAD}{more}.{BODY}{more}.{TAIL}" for more in ("A", "AA", "AAA", "AAAA", "AAAAA")),
        make({"alg": "none"}, signature=b""),
        make(b'{"alg":"none","alg":"RS256"}'),
        make(b'{"alg":"\xff\xfe","x":1}'),
        make(b'\xef\xbb\xbf {"alg":"none"} and more'),
        make(json.dumps(HEADER).encode("utf-16")),
        make(claims=json.dumps(CLAIMS).encode("utf-16-le")),
        make(claims=b'\n\t {"iss":"https://idp.test/"} {'),
        make(claims=b'{"sub":"\xff","iss":"https://idp.test/"}'),
        make(claims=b'{"sub":"a\nb","iss":"https://idp.test/"}'),
        make(claims=b'{"iss":"https:\\/\\/idp.test\\u002f"}'),
        make(claims=b'{"exp":NaN,"nbf":' + b"9" * 5000 + b',"iss":"https://idp.test/"}'),
        make(claims=b'{"iss":"https://evil.test/","iss":"https://idp.test/"}'),
        make(claims=b'{"iss":"https://idp.test/","iss":"https://evil.test/"}'),
        make(claims=b'{"iss":"https://idp.test/","iss":null}'),
        make(claims={"iss": ["https://evil.test/", ISSUER]}),
        make(claims={"Iss": ISSUER}),
        make(claims={" iss ": ISSUER}),
        make(claims={"i\u017fs": ISSUER}),
    ],
)
def test_a_twisted_token_is_still_its_issuers(text: str) -> None:
    """A forged or malformed JWT of a known issuer never reaches the introspection endpoint."""
    named = issuers_named(text)
    assert named is not None
    assert ISSUER in named


def test_the_standard_alphabet_is_read_too() -> None:
    claims = {"iss": ISSUER, "x": "???>>>~~~"}
    text = make(claims=claims)
    twin = f"{HEAD}.{base64.b64encode(json.dumps(claims).encode()).decode()}.{TAIL}"
    assert twin.count("/") + twin.count("+") > 0
    assert issuers_named(text) == issuers_named(twin) == frozenset({ISSUER})


@pytest.mark.parametrize(
    ("claims", "named"),
    [
        ({}, set()),
        ({"sub": "alice"}, set()),
        ({"iss": 1}, {"1"}),
        ({"iss": None}, set()),
        ({"iss": True}, set()),
        ({"iss": {"iss": ISSUER}}, set()),
        ({"x": {"iss": ISSUER}}, set()),
        ({"iss": "https://idp.test"}, {"https://idp.test"}),
        ({"iss": ["a", ["c"], None, "b"]}, {"a", "b"}),
        (b'{"iss":"a","iss":"b","ISS":"c"}', {"a", "b", "c"}),
    ],
)
def test_who_is_named(claims: Any, named: set[str]) -> None:
    """A token of somebody else, or of nobody, is not ours to judge."""
    assert issuers_named(make(claims=claims)) == frozenset(named)


@pytest.mark.parametrize(
    "payload", [b"not json", b"[]", b"1", b"{", b'{"iss":', b'{"x":' + b"[" * 9000, b"\xff", b""]
)
def test_a_jwt_without_readable_claims_is_refused(payload: bytes) -> None:
    """Nobody can tell whose it is, and an authorization server might read it in its own way."""
    with pytest.raises(Refused) as refusal:
        issuers_named(f"{HEAD}.{b64(payload)}.{TAIL}")
    assert refusal.value.reason is Reason.BAD_CREDENTIAL


@settings(deadline=None)
@given(st.dictionaries(st.text(max_size=5), st.text(max_size=5)), st.text(min_size=1, max_size=30))
def test_what_is_read_strictly_is_seen_leniently(others: dict[str, str], issuer: str) -> None:
    """No token passes the strict reader with an issuer the lenient one did not see."""
    text = make(claims={**others, "iss": issuer})
    token = read_token(text)
    named = issuers_named(text)
    assert named is not None
    assert token.claims["iss"] in named
