"""Whom a verified client certificate names: SPIFFE IDs, subjects, and what names nobody."""

from __future__ import annotations

import datetime

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID, ObjectIdentifier
from hypothesis import given
from hypothesis import strategies as st

from proxy.identity.credential import Credential, of_certificate, of_header
from proxy.identity.mtls import MAX_KNOWN, Mtls
from proxy.identity.settings import MtlsSettings
from proxy.model import Principal, Reason, Refused
from tests.certificates import Authority, Issued, a_name

AUTHORITY = Authority()
ID = "spiffe://example.org/ns/team/sa/billing"
NOW = 50.0
"""Seconds, monotonic."""


class Wall:
    """A clock that is set."""

    def __init__(self, at: float) -> None:
        self.at = at

    def __call__(self) -> float:
        return self.at


def mtls(
    wall: Wall, *, spiffe: str | None = None, subject: str | None = None, roles: tuple[str, ...] = ()
) -> Mtls:
    settings = MtlsSettings(tenant="acme", spiffe=spiffe, subject=subject, roles=roles)
    return Mtls(settings, now=lambda: NOW, wall=wall)


async def told(
    issued: Issued, *, spiffe: str | None = None, subject: str | None = None
) -> tuple[str, str] | None:
    """Issuer and subject of whom the certificate names, ten seconds before it ends."""
    authenticate = mtls(Wall(issued.ends - 10), spiffe=spiffe, subject=subject)
    principal = await authenticate(of_certificate(issued.der))
    return None if principal is None else (principal.issuer, principal.subject)


async def refused(issued: Issued, *, spiffe: str | None = None, subject: str | None = None) -> Refused:
    with pytest.raises(Refused) as caught:
        await told(issued, spiffe=spiffe, subject=subject)
    assert caught.value.reason is Reason.BAD_CREDENTIAL
    return caught.value


async def test_a_certificate_becomes_a_principal() -> None:
    """Every part, from where it comes; the proof ends with the certificate."""
    issued = AUTHORITY.issue(uris=[ID])
    credential = of_certificate(issued.der)
    authenticate = mtls(Wall(issued.ends - 10), spiffe=ID, roles=("viewer", "editor"))
    expected = Principal(
        issuer="spiffe://example.org",
        subject=ID,
        tenant="acme",
        roles=frozenset({"viewer", "editor"}),
        fingerprint=credential.fingerprint,
        valid_until=NOW + 10,
    )
    assert authenticate.known(credential) is None
    assert await authenticate(credential) == expected
    assert authenticate.known(credential) == expected


async def test_what_is_no_certificate_is_somebody_elses_business() -> None:
    """A token in a header may be known to another authenticator."""
    assert await mtls(Wall(0))(of_header("authorization", "abc")) is None


@pytest.mark.parametrize(
    ("pattern", "id", "fits"),
    [
        ("spiffe://example.org/ns/team", "spiffe://example.org/ns/team", True),
        ("spiffe://example.org/ns/team", "spiffe://example.org/ns/team/a", False),
        ("spiffe://example.org/ns/team", "spiffe://example.org/ns/teams", False),
        ("spiffe://example.org/ns/team", "spiffe://example.org/NS/team", False),
        ("spiffe://example.org/ns/team/*", "spiffe://example.org/ns/team/a", True),
        ("spiffe://example.org/ns/team/*", "spiffe://example.org/ns/team/a/b", True),
        ("spiffe://example.org/ns/team/*", "spiffe://example.org/ns/team", False),
        ("spiffe://example.org/ns/team/*", "spiffe://example.org/ns/team-b/a", False),
        ("spiffe://example.org/ns/team/*", "spiffe://example.org/ns", False),
        ("spiffe://example.org/*", "spiffe://example.org/a", True),
        ("spiffe://example.org/*", "spiffe://example.org", False),
        ("spiffe://example.org/*", "spiffe://example.org.evil.example/a", False),
        ("spiffe://example.org/*", "spiffe://sub.example.org/a", False),
        ("spiffe://example.org", "spiffe://example.org", True),
    ],
)
async def test_a_pattern_is_compared_by_whole_segments(pattern: str, id: str, fits: bool) -> None:
    """Only a last * stands for something: one segment or more."""
    domain = id.removeprefix("spiffe://").partition("/")[0]
    expected = (f"spiffe://{domain}", id) if fits else None
    assert await told(AUTHORITY.issue(uris=[id]), spiffe=pattern) == expected


@pytest.mark.parametrize(
    "uri",
    [
        "spiffe://",
        "spiffe:///a",
        "spiffe://example.org/",
        "spiffe://example.org//a",
        "spiffe://example.org/a/",
        "spiffe://example.org/.",
        "spiffe://example.org/a/./b",
        "spiffe://example.org/a/../b",
        "spiffe://example.org/a/..",
        "spiffe://example.org/a?b",
        "spiffe://example.org/a#b",
        "spiffe://example.org/a%41",
        "spiffe://example.org/a b",
        "spiffe://example.org/a*",
        "spiffe://example.org/a\n",
        "spiffe://Example.org/a",
        "SPIFFE://example.org/a",
        "spiffe:example.org/a",
        "spiffe://example.org:8443/a",
        "spiffe://user@example.org/a",
        "spiffe://[::1]/a",
        "spiffe://" + "a" * 256 + "/a",
        "spiffe://example.org/" + "a" * 2028,
    ],
)
async def test_an_id_with_a_second_spelling_is_refused(uri: str) -> None:
    """SPIFFE ID specification section 2: whoever compares two spellings lets one of them in."""
    issued = AUTHORITY.issue(uris=[uri])
    assert "spelled" in (await refused(issued)).why
    assert "spelled" in (await refused(issued, subject="CN=client")).why


@pytest.mark.parametrize(
    "uri",
    [
        "spiffe://" + "a" * 255 + "/a",
        "spiffe://example.org/" + "a" * 2027,
        "spiffe://example.org/...",
        "spiffe://example.org/.a/..b",
        "spiffe://ex_am-ple.org/A-Z_0.9",
    ],
)
async def test_an_odd_id_by_the_book_is_one(uri: str) -> None:
    """Section 2 allows these."""
    assert (await told(AUTHORITY.issue(uris=[uri])) or ("", ""))[1] == uri


@pytest.mark.parametrize(
    "uris",
    [
        [ID, "spiffe://example.org/other"],
        [ID, ID],
        [ID, "https://example.org/"],
        ["https://example.org/", ID],
    ],
)
async def test_an_id_beside_another_uri_names_nobody(uris: list[str]) -> None:
    """X.509-SVID section 2: exactly one URI, or it must be refused."""
    assert "beside" in (await refused(AUTHORITY.issue(uris=uris), spiffe=ID)).why


async def test_other_names_beside_an_id_do_not_matter() -> None:
    """X.509-SVID section 2 allows SANs of other kinds."""
    issued = AUTHORITY.issue(uris=[ID], names=[x509.DNSName("billing.example.org")])
    assert await told(issued, spiffe=ID) == ("spiffe://example.org", ID)


async def test_a_certificate_without_an_id_may_be_known_to_another_authenticator() -> None:
    """URIs that are no SPIFFE IDs are none of its business."""
    issued = AUTHORITY.issue(uris=["https://a.example/", "https://b.example/"])
    assert await told(issued, spiffe="spiffe://example.org/*") is None
    assert await told(issued, subject="CN=client") == ("mtls", "CN=client")


@pytest.mark.parametrize(
    ("subject", "named"),
    [
        ("CN=billing,O=Example\\, Inc.,C=DE", True),
        ("cn=billing,O=Example\\, Inc.,C=DE", False),
        ("CN=Billing,O=Example\\, Inc.,C=DE", False),
        ("C=DE,O=Example\\, Inc.,CN=billing", False),
        ("CN=billing", False),
        ("CN=billing,O=Example\\, Inc.,C=DE,DC=x", False),
    ],
)
async def test_a_subject_is_compared_whole(subject: str, named: bool) -> None:
    """RFC 4514, from the most specific part to the least."""
    issued = AUTHORITY.issue(a_name(C="DE", O="Example, Inc.", CN="billing"))
    assert await told(issued, subject=subject) == (("mtls", subject) if named else None)


async def test_a_comma_in_a_name_is_no_second_part() -> None:
    """Whoever may choose a common name must not become another organisation."""
    forged = AUTHORITY.issue(a_name(CN="billing,O=Example"))
    assert await told(forged, subject="CN=billing,O=Example") is None
    assert await told(forged) == ("mtls", "CN=billing\\,O=Example")


async def test_where_both_are_set_both_must_fit() -> None:
    """The SPIFFE ID is who it is, the subject one more condition."""
    issued = AUTHORITY.issue(a_name(CN="a"), uris=[ID])
    assert await told(issued, spiffe=ID, subject="CN=a") == ("spiffe://example.org", ID)
    assert await told(issued, spiffe=ID, subject="CN=b") is None
    assert await told(issued, spiffe="spiffe://example.org/x", subject="CN=a") is None


async def test_a_subject_that_was_asked_for_is_who_it_is() -> None:
    """MtlsSettings.subject: also where the certificate has a SPIFFE ID as well."""
    issued = AUTHORITY.issue(a_name(CN="a"), uris=[ID])
    assert await told(issued, subject="CN=a") == ("mtls", "CN=a")


async def test_with_nothing_set_every_certificate_names_its_owner() -> None:
    """By its SPIFFE ID, or else by its subject."""
    assert await told(AUTHORITY.issue(a_name(CN="a"), uris=[ID])) == ("spiffe://example.org", ID)
    assert await told(AUTHORITY.issue(a_name(CN="a"))) == ("mtls", "CN=a")
    assert await told(AUTHORITY.issue(x509.Name([]), uris=[ID])) == ("spiffe://example.org", ID)


@pytest.mark.parametrize(
    "subject",
    [
        pytest.param(x509.Name([]), id="no subject"),
        pytest.param(a_name(CN=" "), id="a blank"),
        pytest.param(a_name(O=" ", CN="\u2003"), id="blanks"),
        pytest.param(a_name(CN="bill\u200bing"), id="a character without width"),
        pytest.param(a_name(CN="bill\ning"), id="a line break"),
        pytest.param(a_name(CN="\u202egnillib"), id="a turn of direction"),
    ],
)
async def test_a_certificate_that_names_nobody_is_refused(subject: x509.Name) -> None:
    """Subjects become keys of tables and words of log lines: blank and look-alike ones are no names."""
    await refused(AUTHORITY.issue(subject))


async def test_a_subject_has_an_end() -> None:
    """2,048 characters."""
    parts = [x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "a" * 60) for _ in range(33)]
    longest = "OU=" + ",OU=".join(["a" * 60] * 32)
    assert len(longest) == 2047
    assert await told(AUTHORITY.issue(x509.Name(parts[:32]))) == ("mtls", longest)
    await refused(AUTHORITY.issue(x509.Name(parts)))


async def test_authorities_are_no_callers() -> None:
    """X.509-SVID sections 4.1, 4.3 and 5.2: what signs others does not call."""
    for issued in (AUTHORITY, AUTHORITY.issue(is_ca=True), AUTHORITY.issue(may_sign=True)):
        assert "authority" in (await refused(issued)).why


async def test_what_cannot_be_read_is_refused() -> None:
    """TLS libraries are more patient than readers of certificates."""
    der = AUTHORITY.issue(uris=[ID]).der
    for broken in (der[:-1], der[1:], b"\x30\x00", der + b"\x00"):
        with pytest.raises(Refused) as caught:
            await mtls(Wall(0))(of_certificate(broken))
        assert caught.value.reason is Reason.BAD_CREDENTIAL


async def test_a_certificate_that_names_itself_twice_is_refused() -> None:
    """RFC 5280 section 4.2: no extension twice; two readers would take two names."""
    other = x509.SubjectAlternativeName([x509.UniformResourceIdentifier("spiffe://example.org/other")])
    unknown = x509.UnrecognizedExtension(ObjectIdentifier("2.5.29.99"), other.public_bytes())
    issued = AUTHORITY.issue(uris=[ID], extra=[(unknown, False)])
    assert await told(issued) == ("spiffe://example.org", ID)
    twice = issued.der.replace(b"\x55\x1d\x63", b"\x55\x1d\x11")  # 2.5.29.17 is subjectAltName
    with pytest.raises(Refused) as caught:
        await mtls(Wall(0))(of_certificate(twice))
    assert caught.value.reason is Reason.BAD_CREDENTIAL


async def test_a_certificate_ends_while_its_connection_lasts() -> None:
    """A handshake checks the time once; streams and kept connections last for hours. No failed attempt: no guess."""
    issued = AUTHORITY.issue(uris=[ID])
    wall = Wall(issued.ends - 0.001)
    authenticate = mtls(wall, spiffe=ID)
    credential = of_certificate(issued.der)
    assert await authenticate(credential) is not None
    wall.at = issued.ends
    assert authenticate.known(credential) is None
    with pytest.raises(Refused) as caught:
        await authenticate(credential)
    assert (caught.value.reason, caught.value.data) == (Reason.BAD_CREDENTIAL, {"expired": True})


async def test_an_expired_certificate_of_somebody_else_is_somebody_elses_business() -> None:
    """Only whom the settings mean can be told that the time is over."""
    issued = AUTHORITY.issue(uris=[ID], lasts=datetime.timedelta(minutes=-1))
    wall = Wall(issued.ends + 60)
    assert await mtls(wall, spiffe="spiffe://example.org/x")(of_certificate(issued.der)) is None


async def test_what_certificates_say_is_kept_within_bounds() -> None:
    """A caller with an authority of its own must not fill the memory; whoever comes again is read again."""
    issued = AUTHORITY.issue(uris=[ID])
    authenticate = mtls(Wall(issued.ends - 1), spiffe=ID)
    first = of_certificate(issued.der)
    await authenticate(first)
    assert authenticate.known(of_certificate(issued.der)) is not None
    for number in range(MAX_KNOWN):
        # Certificates by the thousand take seconds to make; only their digests matter here.
        assert await authenticate(Credential(certificate=issued.der, digest=str(number).encode())) is not None
    assert authenticate.known(first) is None
    assert await authenticate(first) is not None


async def test_refusals_hold_nothing_of_the_certificate() -> None:
    """Their words reach the caller, and logs."""
    issued = AUTHORITY.issue(a_name(CN="sesame\n"), uris=["spiffe://sesame/../a"])
    assert "sesame" not in str(await refused(issued))
    assert "sesame" not in str(await refused(AUTHORITY.issue(a_name(CN="sesame\n"))))


ONE = AUTHORITY.issue(a_name(C="DE", O="Example", CN="billing"), uris=[ID], names=[x509.DNSName("a.example")])


@given(st.lists(st.tuples(st.integers(0, len(ONE.der) - 1), st.integers(0, 255)), max_size=4))
async def test_any_certificate_is_somebody_or_refused(flips: list[tuple[int, int]]) -> None:
    """Nothing that passes TLS may surprise: the room takes surprises for an outage."""
    der = bytearray(ONE.der)
    for at, value in flips:
        der[at] = value
    outcome: object
    try:
        outcome = await mtls(Wall(0))(of_certificate(bytes(der)))
    except Refused as no:
        outcome = no.reason
    assert outcome is Reason.BAD_CREDENTIAL or (isinstance(outcome, Principal) and outcome.subject)
