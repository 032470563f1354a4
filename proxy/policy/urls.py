"""Where do the URLs in a text lead, and may they? Text → None, or the words that say what is wrong. Pure.

Read as strictly as the strictest client and as loosely as the loosest: what two of them would take for two hosts is
refused, whatever the hosts. Where a URL is expected, the whole text is one (`UrlRule.of`); elsewhere URLs are looked
for in it (`UrlRule.within`). Names are not resolved: one that leads to a private address passes unless `hosts` says
otherwise, and only an egress policy of the network can help there.
Sources: RFC 3986, WHATWG URL (special schemes, backslashes, what is stripped), RFC 9110 section 4.2.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final, Literal, TypeAlias

from .addresses import Reach, canonical, is_metadata_name, loose_ipv4, reach

Addresses: TypeAlias = Literal["public", "private", "any"]

MAX_MARKS: Final = 4_096
"""Places in one call where a URL may stand; a page full of links has fewer, and each costs microseconds."""
MAX_URL_CHARACTERS: Final = 16_384
"""Twice what servers must take (RFC 9110 section 4.1)."""
_SHOWN: Final = 8

REACHED: Final[Mapping[Addresses, frozenset[Reach]]] = {
    "public": frozenset({Reach.PUBLIC}),
    "private": frozenset({Reach.PRIVATE}),
    "any": frozenset({Reach.PUBLIC, Reach.PRIVATE, Reach.SPECIAL}),
}
_PORTS: Final = {"http": 80, "https": 443, "ws": 80, "wss": 443, "ftp": 21, "sftp": 22, "ssh": 22}

AMBIGUOUS: Final = (
    "must be written so that everybody reads the same URL; write scheme://host/path with a plain host name, no user"
    " name, no backslash or line break, and no encoded line break"
)
UNCLEAR: Final = (
    "holds a URL that can be read in more than one way; write scheme://host/ with a plain host name and a slash behind"
    " it, no user name, no backslash, and no encoded line break"
)
TOO_LONG: Final = f"is longer than {MAX_URL_CHARACTERS} characters; shorten it"
TOO_MANY: Final = f"holds more than {MAX_MARKS} URLs; send fewer at once"

_PLAIN: Final = re.compile(
    r"(https?)://((?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.){0,126}[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?)"
    r"(?::([1-9][0-9]{0,4}))?(?:/[!-$&-\[\]-~]*)?",
    re.ASCII,
)
"""Most URLs: nothing in them that needs a second look but the host itself."""
_URL: Final = re.compile(
    r"(?:([a-z][a-z0-9+.-]*)://)?(\[[^\]]*\]|[^/?#:@\[\]%]*)(?::([1-9][0-9]{0,4}))?([/?#].*)?",
    re.ASCII | re.I,
)
_ENCODED_CONTROL: Final = re.compile(r"%(?:25)*(?:[01][0-9a-f]|7f)", re.ASCII | re.I)
"""`%0d%0a`, also encoded twice: some clients decode the path and write it into the request line."""

# Where a URL may begin in a text. Every branch begins with one of three characters: a fast search.
_MARK: Final = re.compile(
    r":(?:[/\\]{2,}|(?=[/\\\[@%A-Za-z0-9_]|[^\x00-\x7f])(?<=[pPsSeE]:)(?:(?<=[hH][tT][tT][pP]:)"
    r"|(?<=[hH][tT][tT][pP][sS]:)|(?<=[wW][sS]:)|(?<=[wW][sS][sS]:)|(?<=[fF][tT][pP]:)|(?<=[fF][iI][lL][eE]:)))"
    r"|/[/\\]+|\\[/\\]+",
    re.ASCII,
)
_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]*\Z", re.ASCII | re.I)
_SLASHES: Final = re.compile(r"[/\\]*")
_AUTHORITY: Final = re.compile(r"\[[^\]\s]{0,64}\](?::[0-9]{0,5})?|[^\s/\\?#\"'<>`(){}\[\],;!*|^]{0,260}")
_GOES_ON: Final = re.compile(r"[%\\\[]|\.\w")
"""What makes a host of `example.com".evil.com`, for whoever ends it at blanks and slashes only."""
_BLANK: Final = re.compile(r"\s")
_REST: Final = re.compile(r"[^\s/]{0,2048}")
_PATH: Final = re.compile(r"[^\s]{0,8192}")
_BEGINS: Final = re.compile(r"(?:(?:https?|wss?|ftp|file):|[/\\]{2})", re.ASCII | re.I)
_STRANGE: Final = re.compile(
    r"(about|blob|data|dict|expect|feed|file|filesystem|gopher|jar|javascript|ldaps?|netdoc|phar|php|smb|tftp"
    r"|vbscript|view-source|zip):\S",
    re.ASCII | re.I,
)
"""A whole text that begins so is a URL; in the middle of prose it seldom is one."""
_BARE: Final = re.compile(r"(\[[0-9a-f:.%]+\]|[0-9a-z_.-]+)(?::[0-9]*)?(?:[/?#\\]\S*)?", re.ASCII | re.I)
_IPV6: Final = re.compile(r"[0-9a-f:.]*:[0-9a-f:.]*:[0-9a-f:.]*", re.ASCII | re.I)
_INSIDE: Final = (".localhost", ".internal", ".svc", ".cluster.local", ".localdomain")
_PORT: Final = re.compile(r"[1-9][0-9]{0,4}", re.ASCII)
_METADATA_IN_PROSE: Final = (
    "169.254.169.254",
    "100.100.100.200",
    "fd00:ec2::254",
    "metadata.google.internal",
)
_LINE_BREAKS: Final = str.maketrans("", "", "\t\r\n")
_BLANKS: Final = "".join(map(chr, range(33)))
"""What browsers' readers take away at both ends."""


class Hunt:
    """How many more places of one call are looked at."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = MAX_MARKS


class UrlRule:
    """Where URLs may lead, compiled."""

    __slots__ = (
        *("_exact", "_host_words", "_is_listed", "_port_words", "_ports", "_reach_words", "_reached"),
        *("_scheme_words", "_schemes", "_suffixes", "_takes_bare"),
    )

    def __init__(
        self,
        *,
        hosts: Iterable[str] | None = None,
        schemes: Iterable[str] = ("https", "http"),
        addresses: Addresses = "public",
        ports: Iterable[int] | None = None,
    ) -> None:
        """`hosts` as `check_host_glob` takes them: these alone pass then, whatever their addresses."""
        listed = tuple(hosts or ())
        self._is_listed = hosts is not None
        self._suffixes = tuple(host_of_glob(each[1:]) for each in listed if each.startswith("*"))
        self._exact = frozenset(host_of_glob(each) for each in listed if not each.startswith("*"))
        ordered = tuple(each.lower() for each in schemes)
        self._schemes = frozenset(ordered)
        self._takes_bare = self._schemes >= {"http", "https"}
        self._reached = REACHED[addresses]
        self._ports = None if ports is None else frozenset(ports)
        self._host_words = f"may lead to these hosts only: {_shown(listed)}; name one of them"
        self._reach_words = _REACH_WORDS[addresses]
        self._scheme_words = (
            f"may use these URL schemes only: {_shown(ordered)}; write the URL with one of them"
        )
        self._port_words = (
            f"may lead to these ports only: {_shown(map(str, sorted(self._ports or ())))}; use one of them"
        )

    def of(self, text: str) -> str | None:
        """What is wrong with a text that is to be one URL, or a bare host."""
        plain = _PLAIN.fullmatch(text, 0, MAX_URL_CHARACTERS)
        if plain is not None and plain.end() == len(text):
            scheme, host, port = plain.groups()
            if port is None and self._ports is None and scheme in self._schemes:
                return self._verdict_of_host(host)
            return self._verdict(scheme, host, port)
        if len(text) > MAX_URL_CHARACTERS:
            return TOO_LONG
        if not text.isprintable() or " " in text or "\\" in text:
            return AMBIGUOUS
        match = _URL.fullmatch(text)
        if match is None:
            return AMBIGUOUS
        scheme, written, port, rest = match.groups()
        if rest and (_ENCODED_CONTROL.search(rest) or (rest[0] != "/" and "@" in rest.partition("/")[0])):
            return AMBIGUOUS  # `http://a?@b/`: the host is b to readers who end it at the first slash
        if scheme is not None and scheme.lower() not in self._schemes:
            return self._scheme_words
        if scheme is None and not self._takes_bare:
            return self._scheme_words
        host = canonical(written)
        return AMBIGUOUS if host is None else self._verdict(scheme, host, port)

    def within(self, text: str, hunt: Hunt) -> str | None:
        """What is wrong with a URL that stands somewhere in the text, or with a whole text that is an address."""
        if text.isidentifier() and len(text) != len("localhost"):
            return None  # a word, as most keys and many values are
        plain = _PLAIN.fullmatch(text)
        if plain is not None and text.count(":") == 1 and text.count("//") == 1:
            return self._verdict(*plain.groups())
        words = self._marked(text, hunt) or self._bare(text)
        if words is None and ("\n" in text or "\t" in text or "\r" in text):
            # Browsers' readers take line breaks and tabs out, wherever they stand, if the whole text is a URL.
            if _BEGINS.match(text[:512].translate(_LINE_BREAKS).lstrip(_BLANKS)):
                return self._marked(text.translate(_LINE_BREAKS), hunt)
            return self._bare(text.translate(_LINE_BREAKS)) if len(text) < 512 else None
        return words

    def _verdict(self, scheme: str | None, host: str, port: str | None) -> str | None:
        if scheme is not None and scheme.lower() not in self._schemes:
            return self._scheme_words
        words = self._verdict_of_host(host)
        if words is not None:
            return words
        if port is not None and int(port) > 65_535:
            return AMBIGUOUS
        return None if self._ports is None else self._verdict_of_port(scheme, port, self._ports)

    def _verdict_of_host(self, host: str) -> str | None:
        if not self._is_listed:
            return None if reach(host) in self._reached else self._reach_words
        # A pattern never stands for a metadata service: only its own name does.
        if host in self._exact or (host.endswith(self._suffixes) and not is_metadata_name(host)):
            return None
        return self._host_words

    def _verdict_of_port(self, scheme: str | None, port: str | None, ports: frozenset[int]) -> str | None:
        if port is not None:
            fits = int(port) in ports
        elif scheme is None:
            fits = ports >= {80, 443}  # a client picks one of them
        else:
            fits = _PORTS.get(scheme.lower()) in ports
        return None if fits else self._port_words

    def _marked(self, text: str, hunt: Hunt) -> str | None:
        """URLs with a scheme, or with two slashes before the host."""
        if ":" not in text and "//" not in text and "\\" not in text:
            return None
        strange = _STRANGE.match(text[:80].lstrip(_BLANKS))
        if strange is not None and strange[1].lower() not in self._schemes:
            return self._scheme_words
        has_controls = "%" in text and _ENCODED_CONTROL.search(text) is not None
        for mark in _MARK.finditer(text):
            start = mark.start()
            hunt.left -= 1
            if hunt.left < 0:
                return TOO_MANY
            has_colon = text[start] == ":"
            slashes = _SLASHES.match(text, start + has_colon)
            assert slashes is not None
            judge = self._with_scheme if has_colon else self._without_scheme
            words = judge(text, start, slashes[0], _Piece(text, slashes.end(), has_controls=has_controls))
            if words is not None:
                return words
        return None

    def _with_scheme(self, text: str, start: int, slashes: str, piece: _Piece) -> str | None:
        if not piece.text:
            return UNCLEAR if piece.is_odd else None
        found = _SCHEME.search(text[max(0, start - 32) : start])
        if found is None:
            # A scheme in letters of another width, say: some readers map them.
            return self._probably(piece)
        if len(found[0]) == 1 and "\\" in slashes:
            return None  # a path of Windows
        if found[0].lower() not in self._schemes:
            return self._scheme_words
        if piece.is_odd or slashes != "//" or piece.host is None:
            return UNCLEAR
        return self._verdict(found[0], piece.host, piece.port)

    def _without_scheme(self, text: str, start: int, slashes: str, piece: _Piece) -> str | None:
        """`//host` as in HTML; comments, empty path segments and patterns are no hosts."""
        if not piece.text:
            return None
        if start < 64 and not text[:start].strip(_BLANKS) and not _BLANK.search(text.strip(_BLANKS)):
            # Nothing else is in the text.
            if piece.is_odd or slashes != "//" or piece.host is None:
                return UNCLEAR
            return self._verdict(None, piece.host, piece.port)
        if "/" not in slashes:
            return None
        is_inside_path = start > 0 and (text[start - 1].isalnum() or text[start - 1] in "._~%-:")
        return self._hardly(piece) if is_inside_path else self._probably(piece)

    def _probably(self, piece: _Piece) -> str | None:
        """The verdict on what is a host if it looks like one."""
        if piece.host is None:
            is_odd = "@" in piece.text or bool(piece.numbers) or not piece.text.isascii()
            return UNCLEAR if is_odd else None
        if "." not in piece.host and ":" not in piece.host:
            return self._hardly(piece)
        return UNCLEAR if piece.is_odd else self._verdict(None, piece.host, piece.port)

    def _hardly(self, piece: _Piece) -> str | None:
        """The verdict on what is no host, unless only clients would write it."""
        if piece.host is None:
            return UNCLEAR if any(map(self._is_out_of_reach, piece.numbers)) else None
        return self._verdict(None, piece.host, piece.port) if _leads_inside(piece.host) else None

    def _bare(self, text: str) -> str | None:
        """A whole text that is an address or a name that leads inside; and metadata services in any prose."""
        text = text.strip(_BLANKS)
        if "." not in text and ":" not in text and text[:9].lower() != "localhost":
            return None
        if any(each in text and each not in self._exact for each in _METADATA_IN_PROSE):
            return self._host_words if self._is_listed else self._reach_words
        if len(text) > 512:
            return None
        match = _BARE.fullmatch(text)
        if match is None:
            six = canonical(f"[{text}]") if _IPV6.fullmatch(text) else None
            # Others, such as `a::b`, are names in C++.
            is_likely = six is not None and (reach(six) is not Reach.SPECIAL or six.startswith("::ffff:"))
            return (
                self._verdict_of_host(six) if six is not None and is_likely and _leads_inside(six) else None
            )
        host = canonical(match[1])
        if host is not None:
            return self._verdict_of_host(host) if _leads_inside(host) else None
        is_whole = match[1].strip(".").count(".") == 3
        return UNCLEAR if is_whole and any(map(self._is_out_of_reach, loose_ipv4(match[1]))) else None

    def _is_out_of_reach(self, address: int) -> bool:
        octets = (str(address >> shift & 255) for shift in (24, 16, 8, 0))
        return reach(".".join(octets)) not in self._reached


class _Piece:
    """What follows the slashes: a host and a port as some reader would see them."""

    __slots__ = ("host", "is_odd", "port", "text")

    def __init__(self, text: str, start: int, *, has_controls: bool) -> None:
        match = _AUTHORITY.match(text, start)
        assert match is not None
        rest = _REST.match(text, match.end())
        assert rest is not None
        self.text = match[0]
        following = text[match.end() : match.end() + 1]
        if following not in ("/", "?", "#", "\\"):
            # The full stop or colon of a sentence.
            self.text = self.text.rstrip(".:")
        self.is_odd = "@" in self.text or "%" in self.text or _goes_on(rest[0])
        if has_controls:
            path = _PATH.match(text, match.end())
            self.is_odd = self.is_odd or (path is not None and _ENCODED_CONTROL.search(path[0]) is not None)
        name, colon, port = self.text.rpartition(":")
        if not colon or self.text.endswith("]"):
            name, port = self.text, ""
        elif not _is_port(port):
            self.is_odd = True
            port = ""
        self.host = canonical(name)
        self.port = port or None

    @property
    def numbers(self) -> tuple[int, ...]:
        """The IPv4 addresses it may be read as; a short number is none."""
        name = self.text.partition(":")[0]
        return loose_ipv4(name) if "." in name or len(name) >= 8 else ()


def _goes_on(rest: str) -> bool:
    """Whether readers who do not end the host here, but at the next slash, would see another one."""
    if rest[:1] in ("?", "#"):
        return "@" in rest
    return rest[:1] == "\\" or "@" in rest or _GOES_ON.search(rest[:253]) is not None


def _is_port(text: str) -> bool:
    return _PORT.fullmatch(text) is not None and int(text) <= 65_535


def _leads_inside(host: str) -> bool:
    """An address, or a name that nobody but a client would write: `notes.local` is a file as often as a host."""
    where = reach(host)
    if where is Reach.PUBLIC:
        return False
    if ":" in host or host.rpartition(".")[2].isdigit() or host == "localhost":
        return True
    return host.endswith(_INSIDE) or (where is Reach.METADATA and "." in host)


def host_of_glob(host: str) -> str:
    """The canonical spelling of a listed host, or of what follows the star, with its dot. Raises ValueError."""
    dot, name = (".", host[1:]) if host.startswith(".") else ("", host)
    found = canonical(f"[{name}]" if ":" in name and not name.startswith("[") else name)
    if found is None:
        raise ValueError("not a host")
    return dot + found


def _shown(words: Iterable[str]) -> str:
    listed = list(words)
    return ", ".join(listed[:_SHOWN]) + (" …" if len(listed) > _SHOWN else "")


_REACH_WORDS: Final[Mapping[Addresses, str]] = {
    "public": "must not lead to a private, local or special address, or to a name without a public domain;"
    " name a public host by its full name",
    "private": "may lead to private addresses only; name a host of the private network",
    "any": "must not lead to a metadata service of a cloud; name another host",
}
