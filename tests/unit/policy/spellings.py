"""The many ways to write an address, as attackers do and as some client reads them."""

from ipaddress import IPv4Address, IPv6Address

from hypothesis import strategies as st

DIGITS = {digit: chr(0xFF10 + int(digit)) for digit in "0123456789"}
DOTS = (".", "\u3002", "\uff0e", "\uff61")

NON_PUBLIC = [
    *("0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.8.9.1"),
    *("169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.192", "192.0.2.7", "192.168.1.1"),
    *("192.88.99.1", "198.18.0.1", "198.51.100.1", "203.0.113.9", "224.0.0.1", "239.255.255.250"),
    *("240.0.0.1", "255.255.255.255", "168.63.129.16"),
]
addresses = st.sampled_from([int(IPv4Address(each)) for each in NON_PUBLIC]) | st.sampled_from(
    [0x0A000000, 0x7F000000, 0xA9FE0000, 0xC0A80000, 0xE0000000]
).flatmap(lambda base: st.integers(base, base + 0xFFFF))


def _number(value: int, way: str, zeros: int) -> str:
    if way == "hex":
        return f"0x{'0' * zeros}{value:x}"
    if way == "HEX":
        return f"0X{'0' * zeros}{value:X}"
    if way == "octal":
        return f"0{'0' * zeros}{value:o}"
    return str(value)


@st.composite
def ipv4(draw: st.DrawFn) -> str:
    """One to four numbers, each in its own base."""
    address = draw(addresses)
    count = draw(st.integers(1, 4))
    parts = [(address >> (24 - 8 * index)) & 0xFF for index in range(count - 1)]
    parts.append(address & ((1 << (40 - 8 * count)) - 1))
    ways = st.sampled_from(["decimal", "decimal", "hex", "HEX", "octal"])
    return ".".join(_number(part, draw(ways), draw(st.integers(0, 3))) for part in parts)


@st.composite
def disguised(draw: st.DrawFn) -> str:
    """An IPv4 spelling in characters that some reader maps or decodes."""
    text = draw(ipv4())
    way = draw(st.sampled_from(["wide", "dots", "percent", "dot", "break", "none"]))
    if way == "wide":
        return "".join(DIGITS.get(each, each) for each in text)
    if way == "dots":
        return text.replace(".", draw(st.sampled_from(DOTS)))
    if way == "percent":
        index = draw(st.integers(0, len(text) - 1))
        return f"{text[:index]}%{ord(text[index]):02x}{text[index + 1 :]}"
    if way == "break":
        index = draw(st.integers(0, len(text)))
        return text[:index] + draw(st.sampled_from(["\t", "\n", "\r", "\r\n"])) + text[index:]
    return text + ("." if way == "dot" else "")


@st.composite
def ipv6(draw: st.DrawFn) -> str:
    """An IPv6 address that is not public, or carries an IPv4 address that is not, in brackets."""
    four = draw(addresses)
    carrying = [
        0xFFFF << 32 | four,
        four or 0x7F000001,
        0x2002 << 112 | four << 80,
        0x64FF9B << 96 | four,
        0x64FF9B0001 << 80 | four,
        0x2001 << 112 | (four ^ 0xFFFFFFFF),
        0x2001 << 112 | four << 64,
        0x2A000001 << 96 | 0x5EFE << 32 | four,
        0x2A000001 << 96 | 0x02005EFE << 32 | four,
    ]
    own = [
        "::1",
        "::",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fec0::1",
        "ff02::1",
        "2001:db8::1",
        "100::1",
        "5f00::1",
    ]
    address = IPv6Address(draw(st.sampled_from([*carrying, *(int(IPv6Address(each)) for each in own)])))
    text = draw(st.sampled_from([address.compressed, address.exploded, address.compressed.upper()]))
    return f"[{text}{draw(st.sampled_from(['', '', '%25eth0', '%1']))}]"


names = st.sampled_from(
    [
        *("localhost", "LOCALHOST", "localhost.", "a.localhost", "x.internal", "metadata.google.internal"),
        *("metadata.google.internal.", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"),
        *(
            "printer.local",
            "kubernetes.default",
            "127.0.0.1.nip.io",
            "10-0-0-1.sslip.io",
            "lvh.me",
            "rebind.test",
        ),
    ]
)
hosts = disguised() | ipv6() | names
"""A host that no public URL has."""

before = st.sampled_from(
    ["http://", "https://", "HTTP://", "http:", "http:/", "http:///", "http:\\\\", "https:/\\"]
)
users = st.sampled_from(["", "", "", "user@", "user:secret@", "example.com@", "example.com:80@", "@", "a@b@"])
behind = st.sampled_from(
    ["", "/", ":80", ":80/", "/x?y=z", "?q", "#f", "/@example.com", "#@example.com", "\\@example.com"]
)


@st.composite
def urls(draw: st.DrawFn) -> str:
    """A URL that leads some reader to a host that is not public."""
    return draw(before) + draw(users) + draw(hosts) + draw(behind)
