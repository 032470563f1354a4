"""Which texts are addresses, names, origins, paths and URLs? Text → value, or Unfit with the reason. Pure.

Sources: RFC 3986 (URL, dot segments), RFC 6454 section 6.1 (origin), RFC 1123 section 2.1 (host names),
WHATWG URL "ends in a number" (`127.1` and `0x7f.1` are addresses to some readers, names to others: refused).
"""

import re
from collections.abc import Callable
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final

from msgspec import Meta

from .mistakes import Unfit

_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_NAME: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?", re.ASCII)
_PORT: Final = re.compile(r"0|[1-9][0-9]{0,4}", re.ASCII)
_NUMBER_LIKE: Final = re.compile(r"[0-9]+|0[xX][0-9a-fA-F]*", re.ASCII)
_SEGMENTS: Final = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@/-]*", re.ASCII)
_URI: Final = re.compile(r"[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]*", re.ASCII)
_URL: Final = re.compile(r"(https?)://([^/?#]*)([^?#]*)(\?[^#]*)?(#.*)?", re.ASCII)
_ORIGIN: Final = re.compile(r"([a-z][a-z0-9+.-]*)://([^/?#]*)([/?#].*)?", re.ASCII)
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


def fit(check: Callable[[str], None], **schema: object) -> Meta:
    """Put a check beside a type: `Annotated[str, fit(check_origin)]`. `schema` goes to editors."""
    return Meta(extra={"fit": check}, extra_json_schema=dict(schema) or None)


class Address:
    """A host and a port to listen on. IPv6 is written in brackets; port 0 lets the system pick."""

    __slots__ = ("host", "port")

    host: str
    port: int

    def __init__(self, host: str, port: int) -> None:
        object.__setattr__(self, "host", host)
        object.__setattr__(self, "port", port)

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Read `HOST:PORT`. Raises Unfit."""
        what, remedy = "is not HOST:PORT", "write for example 127.0.0.1:8080 or [::1]:8080"
        if not text.startswith("[") and text.count(":") > 1:
            raise Unfit(what, "an IPv6 address needs brackets", remedy)
        host, port = split_authority(text, what, remedy)
        if port is None:
            raise Unfit(what, "the port is missing", remedy)
        return cls(host, port)

    @property
    def is_loopback(self) -> bool:
        """Whether only this pod or machine can reach it. Of all names only `localhost` promises that."""
        return is_loopback(self.host)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("an Address never changes")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("an Address never changes")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Address):
            return NotImplemented
        return (self.host, self.port) == (other.host, other.port)

    def __hash__(self) -> int:
        return hash((self.host, self.port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __repr__(self) -> str:
        return f"Address({self.host!r}, {self.port})"

    def __reduce__(self) -> tuple[type["Address"], tuple[str, int]]:
        return Address, (self.host, self.port)


def is_loopback(host: str) -> bool:
    """Whether `host` (no brackets) is a loopback address or the name `localhost`."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        if ":" not in host:
            return IPv4Address(host).is_loopback
        six = IPv6Address(host)
    except AddressValueError:
        return False
    return six.ipv4_mapped.is_loopback if six.ipv4_mapped else six.is_loopback


def may_meet(one: Address, other: Address) -> bool:
    """Whether both name one socket of this machine; port 0 never does."""
    if one.port != other.port or one.port == 0:
        return False
    hosts = {_same_spelling(one.host), _same_spelling(other.host)}
    if len(hosts) == 1:
        return True
    # A wildcard takes every address of its family; [::] takes IPv4 too unless the system says otherwise.
    if not hosts.isdisjoint({"0.0.0.0", "::"}):  # noqa: S104  compared, not bound
        return all(host in ("0.0.0.0", "::") or is_loopback(host) for host in hosts)  # noqa: S104
    return False


def _same_spelling(host: str) -> str:
    if ":" in host:
        return str(IPv6Address(host))
    lower = host.lower().rstrip(".")
    return "127.0.0.1" if lower == "localhost" else lower


def split_authority(text: str, what: str, remedy: str) -> tuple[str, int | None]:
    """Split `HOST[:PORT]` and check both; the host comes without brackets. Raises Unfit(what, …, remedy)."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise Unfit(what, "the brackets of an IPv6 address are not closed", remedy)
        _check_ipv6(host, what, remedy)
        return host, _port(rest[1:], what, remedy) if rest else None
    host, colon, port = text.partition(":")
    _check_host(host, what, remedy)
    return host, _port(port, what, remedy) if colon else None


def _check_ipv6(host: str, what: str, remedy: str) -> None:
    try:
        if "%" in host:
            raise AddressValueError
        IPv6Address(host)
    except AddressValueError:
        raise Unfit(what, "the text in brackets is not an IPv6 address", remedy) from None


def _check_host(host: str, what: str, remedy: str) -> None:
    if not host:
        raise Unfit(what, "the host is missing", remedy)
    if host == "*":
        raise Unfit(what, "* is no host", f"{remedy}, or 0.0.0.0 for every interface")
    if _NUMBER_LIKE.fullmatch(host.rstrip(".").rpartition(".")[2]):
        try:
            IPv4Address(host)
        except AddressValueError:
            raise Unfit(what, "a host that ends in a number must be an IPv4 address", remedy) from None
    if not _NAME.fullmatch(host) or len(host) > 253:
        raise Unfit(what, "the host is neither a name nor an IP address", remedy)


def _port(text: str, what: str, remedy: str) -> int:
    if not _PORT.fullmatch(text) or int(text) > 65535:
        raise Unfit(what, "the port must be a number from 0 to 65535", remedy)
    return int(text)


def check_host_name(text: str) -> None:
    """Raise Unfit unless this is a host as it stands in a Host header, without its port."""
    what, remedy = "is not a host name", "write the name alone, for example tools.example.com"
    if text == "*":
        raise Unfit(what, "* would let every name in, and DNS rebinding with it", remedy)
    if "/" in text:
        raise Unfit(what, "a Host header has neither scheme nor path", remedy)
    bare_ipv6 = text.count(":") > 1 and not text.startswith("[")
    _, port = split_authority(f"[{text}]" if bare_ipv6 else text, what, remedy)
    if port is not None:
        raise Unfit(what, "names are compared without their port", remedy)


def check_origin(text: str) -> None:
    """Raise Unfit unless this is an origin exactly as a browser sends it: scheme://host[:port]."""
    what, remedy = "is not an origin", "write scheme://host or scheme://host:port, as browsers send it"
    if text == "*":
        raise Unfit(what, "* would let every web page in", remedy)
    if text == "null":
        raise Unfit(what, "every sandboxed page sends null", remedy)
    if text != text.lower():
        raise Unfit(what, "browsers send origins in lower case", "write it in lower case")
    match = _ORIGIN.fullmatch(text)
    if match is None:
        raise Unfit(what, "the scheme is missing", remedy)
    scheme, authority, rest = match.groups()
    if rest is not None:
        raise Unfit(what, "an origin ends after the host or port", f"{remedy}: no slash at the end")
    if "@" in authority:
        raise Unfit(what, "an origin holds no user", remedy)
    _, port = split_authority(authority, what, remedy)
    if port is not None and port == _DEFAULT_PORTS.get(scheme):
        raise Unfit(what, f"browsers leave :{port} out for {scheme}", f"remove :{port}")


def check_path(text: str) -> None:
    """Raise Unfit unless this is one exact path with a single spelling: what we compare is what was sent."""
    what, remedy = "is not a path", "write for example /mcp"
    if not text.startswith("/"):
        raise Unfit(what, "it must begin with /", remedy)
    if "?" in text or "#" in text:
        raise Unfit(what, "a query or fragment is no part of it", remedy)
    if "%" in text:
        raise Unfit(what, "percent escapes give one path two spellings", remedy)
    if "//" in text:
        raise Unfit(what, "// is read as / by some servers", remedy)
    if not {".", ".."}.isdisjoint(text.split("/")):
        raise Unfit(what, "dot segments are resolved away by clients", remedy)
    if not _SEGMENTS.fullmatch(text):
        raise Unfit(what, "only the characters of RFC 3986 paths may stand in it", remedy)


def check_http_url(text: str) -> None:
    """Raise Unfit unless this is an absolute http or https URL without credentials and fragment."""
    what, remedy = "is not an absolute URL", "write for example http://127.0.0.1:8000/mcp"
    match = _URL.fullmatch(text)
    if match is None:
        raise Unfit(what, "it must begin with http:// or https://", remedy)
    _, authority, _, _, fragment = match.groups()
    if not _URI.fullmatch(text):
        raise Unfit(what, "only the characters of RFC 3986 may stand in it", remedy)
    if "@" in authority:
        raise Unfit(what, "credentials in a URL end up in logs", "put them into a header with ${file:…}")
    if fragment is not None:
        raise Unfit(what, "a fragment is never sent", "remove # and what follows")
    _, port = split_authority(authority, what, remedy)
    if port == 0:
        raise Unfit(what, "nobody listens on port 0", remedy)


def url_path(url: str) -> str:
    """The path of a checked URL, without query; empty where the URL has none."""
    match = _URL.fullmatch(url)
    return match[3] if match else ""


def url_host_and_port(url: str) -> tuple[str, int]:
    """The host (no brackets) and port of a checked URL; the scheme's port where none is written."""
    match = _URL.fullmatch(url)
    if match is None:
        raise ValueError("not a checked URL")
    host, port = split_authority(match[2], "is not a checked URL", "")
    return host, _DEFAULT_PORTS[match[1]] if port is None else port
