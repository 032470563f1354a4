"""Which file does a URL of a server on a unix socket name? `http+unix://%2Frun%2Fmcp.sock/mcp` → its parts. Pure.

The path of the file stands where the host of others stands, percent-encoded, so that a path at the server can follow:
the form of requests-unixsocket, aiodocker and swift's AsyncHTTPClient. No standard has one (whatwg/url issue 577);
nginx writes `http://unix:/run/mcp.sock:/mcp`, curl and httpx have an option beside the URL.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote, unquote

from .mistakes import Unfit
from .values import check_http_url

SCHEME: Final = "http+unix"
HOST: Final = "localhost"
AUTHORITY: Final = f"{HOST}:80"
"""What such a server is told as Host. The file's name is none (RFC 9110 section 7.2); nginx says `localhost`. With a
port, because the list of hosts that the Python SDK has by itself (`localhost:*`) takes no name without one."""
LONGEST: Final = 107
"""Bytes of a path: `sun_path` of unix(7) is 108, with a zero at its end."""

_URL: Final = re.compile(r"http\+unix://([^/?#]+)(.*)", re.ASCII | re.DOTALL)
_LIKE_ONE: Final = re.compile(r"(?:https?\+unix|unix):|https?://unix:", re.IGNORECASE)
_WRITTEN: Final = re.compile(r"(?:[A-Za-z0-9._~-]|%[0-9A-Fa-f]{2})+", re.ASCII)
_FILE: Final = re.compile(r"[\x20-\x7e]+", re.ASCII)


def check_server_url(text: str) -> None:
    """Raise Unfit unless this is an absolute http or https URL, or names a socket file, without credentials."""
    if not _LIKE_ONE.match(text):
        check_http_url(text)
        return
    what, remedy = "is not the URL of a socket file", "write for example http+unix://%2Frun%2Fmcp.sock/mcp"
    if text.lower().startswith("https"):
        raise Unfit(what, "what is said over a file needs no TLS", remedy)
    match = _URL.fullmatch(text)
    if match is None:
        raise Unfit(what, "the file stands where a host would, and its slashes are %2F", remedy)
    written, rest = match.groups()
    if not _WRITTEN.fullmatch(written):
        raise Unfit(what, "the file's name is percent-encoded, but for letters, digits and ._~-", remedy)
    file = unquote(written, errors="replace")
    check_socket_file(file)
    if re.sub("%..", lambda it: it[0].upper(), written) != quote(file, safe=""):
        raise Unfit(what, "letters, digits and ._~- are not percent-encoded", remedy)
    check_http_url(f"http://{AUTHORITY}{rest}")


def check_socket_file(file: str) -> None:
    """Raise Unfit unless this is the one spelling of an absolute path that a socket can have."""
    what, remedy = "is not the path of a socket file", "write for example /run/mcp/server.sock"
    if file.startswith(("\0", "@")):
        why = "an abstract socket has no permissions, and is open to all containers of a pod"
        raise Unfit(what, why, "let the server listen on a file")
    if not file.startswith("/"):
        raise Unfit(what, "it must begin with /", remedy)
    if not _FILE.fullmatch(file):
        raise Unfit(what, "only printable ASCII may stand in it", remedy)
    if len(file) > LONGEST:
        raise Unfit(what, f"the system takes at most {LONGEST} bytes", "choose a shorter one")
    if "//" in file or file.endswith("/") or not {".", ".."}.isdisjoint(file.split("/")):
        raise Unfit(what, "//, a slash at the end, . and .. give one file several spellings", remedy)


def socket_of(url: str) -> str | None:
    """The socket file of a checked URL; None where it names a host."""
    match = _URL.fullmatch(url)
    return unquote(match[1]) if match else None


def as_http(url: str) -> str:
    """A checked URL as the server would write it, who knows of no socket."""
    match = _URL.fullmatch(url)
    return f"http://{AUTHORITY}{match[2]}" if match else url


def url_of_socket(file: str, path: str) -> str:
    """The URL of `path` at the server behind a checked file."""
    return f"{SCHEME}://{quote(file, safe='')}{path}"
