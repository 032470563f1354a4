"""Which host does a text name, and who can reach it? Text → one spelling → `Reach`. Pure: no name is ever resolved.

A public name may still lead to a private address, today or at the next look-up (DNS rebinding): only an egress
policy of the network stops that. What can be told from the text alone is told here, and strictly: what two readers
would take for two hosts is no host.
Sources: IANA special-purpose address registries for IPv4 and IPv6 (RFC 6890), RFC 6761 and RFC 6762 (names), RFC 6052
(NAT64), RFC 3056 (6to4), RFC 4380 (Teredo), RFC 5214 (ISATAP), RFC 5891 (IDNA), WHATWG URL "ends in a number".
"""

from __future__ import annotations

import re
from enum import Enum
from ipaddress import AddressValueError, IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final
from unicodedata import category, normalize

MAX_HOST_CHARACTERS: Final = 253

_LABEL: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII)
_NUMBER_LIKE: Final = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)
_OCTET: Final = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_DOTTED: Final = re.compile(rf"{_OCTET}(?:\.{_OCTET}){{3}}", re.ASCII)


class Reach(Enum):
    """From where a host can be reached, as far as its text tells."""

    PUBLIC = "from the internet"
    PRIVATE = "from this machine, cluster or organisation"
    SPECIAL = (
        "by nobody who means well: link-local, multicast, reserved, translated; names that spell an address"
    )
    METADATA = "from a machine in a cloud, for its credentials"


def canonical(host: str) -> str | None:
    """The one spelling of a host as it stands in a URL: lower case, IDNA as A-labels, no dot at the end, IPv6 without
    its brackets and compressed. None for what readers disagree on, such as 127.1, 0x7f.0.0.1 or full-width digits.
    """
    if host.startswith("["):
        return _ipv6(host[1:-1]) if host.endswith("]") else None
    if not 0 < len(host) <= MAX_HOST_CHARACTERS + 1:
        return None
    name = (host.lower() if host.isascii() else _ascii(host) or "").removesuffix(".")
    labels = name.split(".")
    if _NUMBER_LIKE.fullmatch(labels[-1]):
        # Some resolve `127.0.0.1.`, some do not: as it stands, or not at all.
        return host if _DOTTED.fullmatch(host) else None
    if len(name) > MAX_HOST_CHARACTERS or not all(map(_LABEL.fullmatch, labels)):
        return None
    return name


def reach(host: str) -> Reach:
    """Who can reach a host in its canonical spelling."""
    if ":" in host:
        return _reach_of_ipv6(IPv6Address(host))
    last = host.rpartition(".")[2]
    if last.isdigit():
        return _reach_of_ipv4(int(IPv4Address(host)))
    if host in _METADATA_NAMES:
        return Reach.METADATA
    # A name of one label is looked for in the search domains of the cluster.
    if last == host or last in _PRIVATE_ENDINGS or host in _ARE_LOCAL:
        return Reach.PRIVATE
    return Reach.SPECIAL if host.endswith(_SPELL_ADDRESSES) or last in _NOWHERE else Reach.PUBLIC


def is_metadata_host(host: str) -> bool:
    """Whether this is where a cloud hands out credentials to its machines; `host` with or without brackets."""
    name = canonical(f"[{host}]" if ":" in host and not host.startswith("[") else host)
    if name is not None:
        return reach(name) is Reach.METADATA
    return any(_reach_of_ipv4(each) is Reach.METADATA for each in loose_ipv4(host))


def is_metadata_name(host: str) -> bool:
    """Whether a canonical name, not an address, is that of a metadata service."""
    return host in _METADATA_NAMES


def loose_ipv4(text: str) -> tuple[int, ...]:
    """Every IPv4 address that some reader would see: `127.1`, octal, hexadecimal, one number for all (inet_aton), and
    leading zeros read as decimal. Empty where nobody sees one."""
    parts = text.lower().removesuffix(".").split(".")
    if len(parts) > 4 or len(text) > 64 or not all(map(_NUMBER_LIKE.fullmatch, parts)):
        return ()
    readings = {tuple(_number(each, octal) for each in parts) for octal in (True, False)}
    return tuple(found for each in readings if (found := _joined(each)) is not None)


def _number(text: str, octal: bool) -> int:
    if text.startswith("0x"):
        return int(text[2:] or "0", 16)
    is_octal = octal and text.startswith("0") and not set(text) - set("01234567")
    return int(text, 8 if is_octal else 10)


def _joined(parts: tuple[int, ...]) -> int | None:
    *octets, last = parts
    if any(each > 255 for each in octets) or last >= 256 ** (4 - len(octets)):
        return None
    return sum(each << (24 - 8 * index) for index, each in enumerate(octets)) + last


def _ascii(host: str) -> str | None:
    """A-labels, or None where IDNA 2003, IDNA 2008 and browsers would not all see the same: letters and marks only,
    already folded and composed, so that no reader maps any of them to another (ß, full-width, digits, other dots)."""
    if any(not each.isascii() and each.lower().isascii() for each in host):
        return None  # U+212A: an ASCII letter once it is lowered
    labels: list[str] = []
    for label in host.lower().split("."):
        if label.isascii():
            labels.append(label)
            continue
        if normalize("NFKC", label.casefold()) != label or category(label[0])[0] == "M":
            return None
        if any(category(each)[0] not in "LM" and not (each.isascii() and _is_plain(each)) for each in label):
            return None
        labels.append(f"xn--{label.encode('punycode').decode('ascii')}")
    return ".".join(labels)


def _is_plain(character: str) -> bool:
    return character.isalnum() or character == "-"


def _ipv6(text: str) -> str | None:
    if "%" in text:  # a zone names an interface of whoever reads it
        return None
    try:
        return IPv6Address(text).compressed
    except AddressValueError:
        return None


def _ranges4(*networks: str) -> tuple[tuple[int, int], ...]:
    known = [IPv4Network(each) for each in networks]
    return tuple((int(each.network_address), int(each.broadcast_address)) for each in known)


def _ranges6(*networks: str) -> tuple[tuple[int, int], ...]:
    known = [IPv6Network(each) for each in networks]
    return tuple((int(each.network_address), int(each.broadcast_address)) for each in known)


_PRIVATE4: Final = _ranges4("10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")
_SPECIAL4: Final = _ranges4(
    *("0.0.0.0/8", "169.254.0.0/16", "192.0.0.0/24", "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24"),
    *("192.88.99.0/24", "192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24"),
    *("224.0.0.0/4", "240.0.0.0/4"),
)
_PRIVATE6: Final = _ranges6("::1/128", "fc00::/7")
_GLOBAL6: Final = _ranges6("2000::/3")
_SPECIAL6: Final = _ranges6(
    "2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3ffe::/16", "3fff::/20"
)
"""Inside 2000::/3; outside of it nothing is public. Teredo stands in the first."""
_METADATA4: Final = frozenset(
    int(IPv4Address(each))
    for each in (
        "169.254.169.254",  # most clouds
        "169.254.170.2",  # AWS, credentials of ECS tasks
        "169.254.170.23",  # AWS, credentials of EKS pods
        "169.254.0.23",  # Tencent
        "169.254.42.42",  # Scaleway
        "100.100.100.200",  # Alibaba
        "192.0.0.192",  # Oracle
        "168.63.129.16",  # Azure: a public address that only virtual machines reach
    )
)
_METADATA6: Final = frozenset(
    int(IPv6Address(each))
    for each in (
        "fd00:ec2::254",  # AWS
        "fd00:ec2::23",  # AWS, credentials of EKS pods
        "fd20:ce::254",  # Google
        "fd00:42::42",  # Scaleway
        "fd00:c1::a9fe:a9fe",  # Oracle
        "fe80::a9fe:a9fe",  # OpenStack
    )
)
_METADATA_NAMES: Final = frozenset(
    {
        *("metadata", "metadata.goog", "metadata.google.internal", "metadata.internal"),
        *("instance-data", "instance-data.ec2.internal", "metadata.azure.internal"),
        *("metadata.tencentyun.com", "api.metadata.cloud.ibm.com", "rancher-metadata"),
        *("metadata.packet.net", "metadata.platformequinix.com"),
    }
)
_PRIVATE_ENDINGS: Final = frozenset(
    {
        *(
            "localhost",
            "localdomain",
            "local",
            "internal",
            "intranet",
            "private",
            "corp",
            "home",
            "lan",
            "arpa",
        ),
        *("svc", "default", "kube-system", "cluster", "consul", "test"),
    }
)
"""Never delegated in the public DNS, or reserved for home (home.arpa); a service of a cluster is name.namespace[.svc].
Other namespaces cannot be told from public names: `hosts` can."""
_NOWHERE: Final = frozenset({"invalid", "example", "onion", "alt"})
_ARE_LOCAL: Final = frozenset({"localtest.me", "lvh.me", "vcap.me", "lacolhost.com"})
_SPELL_ADDRESSES: Final = (
    *(".nip.io", ".sslip.io", ".xip.io", ".nip.direct", ".traefik.me", ".backname.io"),
    *(f".{each}" for each in sorted(_ARE_LOCAL)),
)
"""Public names that resolve to whatever address is written in them, or to this machine. The known ones only."""


def _is_in(address: int, ranges: tuple[tuple[int, int], ...]) -> bool:
    return any(first <= address <= last for first, last in ranges)


def _reach_of_ipv4(address: int) -> Reach:
    if address in _METADATA4:
        return Reach.METADATA
    if _is_in(address, _PRIVATE4):
        return Reach.PRIVATE
    return Reach.SPECIAL if _is_in(address, _SPECIAL4) else Reach.PUBLIC


def _reach_of_ipv6(six: IPv6Address) -> Reach:
    address = int(six)
    if address in _METADATA6:
        return Reach.METADATA
    carried = _carried(address)
    if carried:
        is_metadata = any(_reach_of_ipv4(each) is Reach.METADATA for each in carried)
        return Reach.METADATA if is_metadata else Reach.SPECIAL
    if _is_in(address, _PRIVATE6):
        return Reach.PRIVATE
    return Reach.PUBLIC if _is_in(address, _GLOBAL6) and not _is_in(address, _SPECIAL6) else Reach.SPECIAL


def _carried(address: int) -> tuple[int, ...]:
    """The IPv4 addresses that some translator would make of an IPv6 address. A NAT64 prefix of one's own network
    (RFC 6052 section 2.2) looks like any public address and is not seen."""
    low = address & 0xFFFFFFFF
    if address > 1 and (address >> 32 == 0 or address >> 32 in (0xFFFF, 0xFFFF0000)):
        return (low,)  # compatible, mapped, translated (RFC 2765)
    if address >> 32 == 0x64FF9B << 64 or address >> 80 == 0x64FF9B0001:
        return (low,)  # NAT64
    if address >> 112 == 0x2002:
        return ((address >> 80) & 0xFFFFFFFF,)  # 6to4
    if address >> 96 == 0x20010000:
        return (low ^ 0xFFFFFFFF, (address >> 64) & 0xFFFFFFFF)  # Teredo: client and server
    if (address >> 32) & 0xFCFFFFFF == 0x00005EFE:
        return (low,)  # ISATAP, in any prefix
    return ()
