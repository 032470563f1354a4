"""One spelling per host, and from where it can be reached, as far as its text tells."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.policy.addresses import Reach, canonical, is_metadata_host, loose_ipv4, reach
from tests.fuzz.bounded import FUZZ
from tests.unit.policy import spellings


@pytest.mark.parametrize(
    ("written", "spelling"),
    [
        ("example.com", "example.com"),
        ("EXAMPLE.Com.", "example.com"),
        ("b\u00fccher.example.com", "xn--bcher-kva.example.com"),
        ("B\u00dcCHER.example.com", "xn--bcher-kva.example.com"),
        ("xn--bcher-kva.example.com", "xn--bcher-kva.example.com"),
        ("\u4f8b\u3048.jp", "xn--r8jz45g.jp"),
        ("my_service", "my_service"),
        ("8.8.8.8", "8.8.8.8"),
        ("[::1]", "::1"),
        ("[0:0:0:0:0:0:0:1]", "::1"),
        ("[FD00:EC2::254]", "fd00:ec2::254"),
        ("a" * 63 + ".com", "a" * 63 + ".com"),
        ("1e100.net", "1e100.net"),
    ],
)
def test_a_host_has_one_spelling(written: str, spelling: str) -> None:
    """RFC 4343 (case), RFC 5891 (A-labels), RFC 5952 (IPv6)."""
    assert canonical(written) == spelling


@pytest.mark.parametrize(
    "written",
    [
        *(
            "",
            ".",
            "..",
            "a..b",
            ".a",
            "a..",
            "-a.com",
            "a-.com",
            "a b",
            "a%62",
            "a/b",
            "a@b",
            "a\\b",
            "a\0b",
            "a*b",
        ),
        *("127.1", "127.0.1", "0x7f.1", "0x7f000001", "017700000001", "2130706433", "0", "0x", "1.2.3.4.5"),
        *("127.0.0.1.", "127.0.0.01", "256.1.1.1", "1.2.3.0x4", "example.0x7f", "example.1"),
        *(
            "[::1",
            "::1]",
            "::1",
            "[]",
            "[::1%25eth0]",
            "[fe80::1%1]",
            "[::1]]",
            "[1.2.3.4]",
            "[v1.a]",
            "[::01.2.3.4]",
        ),
        *(
            "\uff11\uff12\uff17.0.0.1",
            "127\u30020\u30020\u30021",
            "\u2460.com",
            "\u0661.com",
            "stra\u00dfe.de",
        ),
        *(
            "\u03c2.gr",
            "a\u200db.com",
            "a\u00adb.com",
            "\u212aelvin.com",
            "\uff21.com",
            "\u0301a.com",
            "\u2024.com",
        ),
        *("a" * 64 + ".com", "a." * 127 + "com", "\ud800.com"),
    ],
)
def test_what_two_readers_see_differently_is_no_host(written: str) -> None:
    """Own promise. WHATWG maps, inet_aton adds up, RFC 3986 refuses: a check must not pick one of them."""
    assert canonical(written) is None


PUBLIC = [
    *(
        "example.com",
        "a.b.example.co.uk",
        "8.8.8.8",
        "1.1.1.1",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
    ),
    *("100.128.0.0", "126.255.255.255", "128.0.0.0", "169.253.255.255", "172.15.255.255", "172.32.0.0"),
    *("192.167.255.255", "192.169.0.0", "223.255.255.255", "[2606:4700:4700::1111]", "[2a00:1450::1]"),
    *("xn--bcher-kva.example.com", "localhost.example.com", "internal.com", "mylocalhost.com", "nip.io.com"),
]


@pytest.mark.parametrize("host", PUBLIC)
def test_hosts_of_the_internet_are_public(host: str) -> None:
    """The neighbours of every private block are somebody's."""
    name = canonical(host)
    assert name is not None
    assert reach(name) is Reach.PUBLIC


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        *(
            (each, Reach.PRIVATE)
            for each in ("127.0.0.1", "10.255.255.255", "172.16.0.0", "192.168.0.1", "100.64.0.0")
        ),
        *(
            (each, Reach.PRIVATE)
            for each in ("[::1]", "[fc00::]", "[fdff::1]", "localhost", "x.localhost", "api")
        ),
        *(
            (each, Reach.PRIVATE)
            for each in ("kubernetes.default.svc", "kubernetes.default", "x.cluster.local")
        ),
        *(
            (each, Reach.PRIVATE)
            for each in ("host.docker.internal", "rebind.test", "1.0.0.127.in-addr.arpa", "lvh.me")
        ),
        *(
            (each, Reach.SPECIAL)
            for each in ("0.0.0.0", "169.254.1.1", "192.0.2.1", "198.18.0.1", "203.0.113.1")
        ),
        *(
            (each, Reach.SPECIAL)
            for each in ("192.88.99.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "198.51.100.1")
        ),
        *(
            (each, Reach.SPECIAL)
            for each in ("[::]", "[::ffff:8.8.8.8]", "[::8.8.8.8]", "[2002:808:808::]", "[ff02::1]")
        ),
        *(
            (each, Reach.SPECIAL)
            for each in ("[fe80::1]", "[fec0::1]", "[2001:db8::1]", "[3fff::1]", "[100::1]")
        ),
        *(
            (each, Reach.SPECIAL)
            for each in ("[64:ff9b::808:808]", "[64:ff9b:1::1]", "[2001::1]", "[5f00::1]")
        ),
        *(
            (each, Reach.SPECIAL)
            for each in ("[2a00::5efe:808:808]", "[2a00::200:5efe:8.8.8.8]", "[4000::1]")
        ),
        *(
            (each, Reach.SPECIAL)
            for each in ("a.nip.io", "127-0-0-1.sslip.io", "x.lvh.me", "a.invalid", "a.onion")
        ),
        *(
            (each, Reach.METADATA)
            for each in ("169.254.169.254", "169.254.170.2", "100.100.100.200", "168.63.129.16")
        ),
        *(
            (each, Reach.METADATA)
            for each in ("[fd00:ec2::254]", "[fd20:ce::254]", "metadata.google.internal")
        ),
        *(
            (each, Reach.METADATA)
            for each in ("[::ffff:a9fe:a9fe]", "[64:ff9b::a9fe:a9fe]", "[2002:a9fe:a9fe::]")
        ),
        *(
            (each, Reach.METADATA)
            for each in (
                "[2001:0:a9fe:a9fe::]",
                "[2001::5601:5601]",
                "[::ffff:0:a9fe:a9fe]",
                "[::169.254.169.254]",
                "Metadata.Google.Internal.",
            )
        ),
    ],
)
def test_every_other_host_is_known_by_its_block_or_name(host: str, expected: Reach) -> None:
    """IANA special-purpose registries (RFC 6890), RFC 6761, and the addresses that translators would make."""
    name = canonical(host)
    assert name is not None
    assert reach(name) is expected


@given(spellings.hosts)
@FUZZ
def test_no_spelling_of_a_non_public_address_is_public(host: str) -> None:
    """Own promise: a spelling is not public, or nobody's."""
    name = canonical(host)
    assert name is None or reach(name) is not Reach.PUBLIC


@given(spellings.ipv4())
@FUZZ
def test_what_inet_aton_reads_is_seen(host: str) -> None:
    """The generator writes only what `inet_aton` of the C library takes."""
    from socket import inet_aton

    assert int.from_bytes(inet_aton(host)) in loose_ipv4(host)


@pytest.mark.parametrize(
    "text", ["", "a", "1.2.3.4.5", "256.1.1.1", "1.2.3.256", "4294967296", "1.2.65536", "0x1g"]
)
def test_what_nobody_reads_as_an_address_is_none(text: str) -> None:
    assert loose_ipv4(text) == ()


def test_leading_zeros_are_read_both_ways() -> None:
    """Octal to inet_aton, decimal to others: 8.0.0.1 and 10.0.0.1."""
    assert set(loose_ipv4("010.0.0.1")) == {0x08000001, 0x0A000001}


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        *(
            (each, True)
            for each in ("169.254.169.254", "fd00:ec2::254", "[fd00:ec2::254]", "FD00:EC2:0:0::254")
        ),
        *(
            (each, True)
            for each in ("metadata.google.internal", "METADATA.google.internal.", "metadata", "168.63.129.16")
        ),
        *((each, True) for each in ("2852039166", "0xa9fea9fe", "169.254.43518", "::ffff:169.254.169.254")),
        *(
            (each, False)
            for each in ("127.0.0.1", "::1", "localhost", "169.254.20.10", "tools.example.com", "", "[")
        ),
    ],
)
def test_metadata_services_are_known_in_every_spelling(host: str, expected: bool) -> None:
    """Corpus SSRF-040: an upstream that is one is refused at the start."""
    assert is_metadata_host(host) is expected


@given(st.text(max_size=40) | st.text("0123456789abcdefx.:%[]-\u3002\uff11", max_size=40))
@FUZZ
def test_any_text_is_a_host_or_none(text: str) -> None:
    name = canonical(text)
    assert isinstance(is_metadata_host(text), bool)
    if name is not None:
        again = canonical(f"[{name}]" if ":" in name else name)
        assert again == name
        assert name.isascii()
        assert isinstance(reach(name), Reach)
