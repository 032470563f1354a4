"""Where is the store that replicas share, and who are we there? A URL → `Place`, or Unfit.

In: the URL of the settings, a secret: a password may stand in it. Out: its parts, the password still hidden. Keeps
nothing. Light: for the settings. Source: the registered `redis` and `rediss` URI schemes.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote, urlsplit

from msgspec import Struct

from ..configuration.mistakes import Unfit
from ..secret import Secret

DEFAULT_PORT: Final = 6379
MOST_DATABASES: Final = 10_000

_EXAMPLE: Final = "write redis://host:6379/0, or rediss:// for TLS"
_SCHEMES: Final = {"redis": False, "valkey": False, "rediss": True, "valkeys": True}
"""Whether the connection is encrypted."""
_PRINTABLE: Final = re.compile(r"[\x21-\x7e]+")


class Place(Struct, frozen=True, kw_only=True):
    """One server, and what we say to be let in."""

    host: str
    port: int = DEFAULT_PORT
    database: int = 0
    user: str | None = None
    """None: the default user."""
    password: Secret | None = None
    is_encrypted: bool = False

    @property
    def origin(self) -> str:
        """For logs: without user and password."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'rediss' if self.is_encrypted else 'redis'}://{host}:{self.port}/{self.database}"


def read_place(url: Secret) -> Place:
    """The parts of `redis[s]://[user][:password]@host[:port][/database]`. Raises Unfit, which shows none of them."""
    text = url.reveal()
    # urlsplit drops tabs and line ends silently: what was checked would not be what is used.
    if not _PRINTABLE.fullmatch(text):
        raise Unfit("is no URL", "only printable ASCII may stand in it", "percent-encode other characters")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        # Its text quotes the URL.
        raise Unfit("is no URL", "host or port cannot be read", _EXAMPLE) from None
    if parts.scheme not in _SCHEMES:
        raise Unfit("cannot be used", "the scheme is neither redis nor rediss", _EXAMPLE)
    if not host or port == 0:
        raise Unfit("is no URL of a store", "it names no host, or port 0", _EXAMPLE)
    if parts.query or parts.fragment or "?" in text or "#" in text:
        raise Unfit("cannot be used", "it has a query or fragment, which would be ignored", "remove it")
    user, password = parts.username, parts.password
    if user and not password:
        raise Unfit(
            "cannot be used", "it names a user without a password", "write redis://user:password@host"
        )
    return Place(
        host=host,
        port=port or DEFAULT_PORT,
        database=_database(parts.path),
        user=unquote(user) if user else None,
        password=Secret(unquote(password)) if password else None,
        is_encrypted=_SCHEMES[parts.scheme],
    )


def _database(path: str) -> int:
    digits = path.removeprefix("/")
    if not digits:
        return 0
    if not re.fullmatch(r"0|[1-9][0-9]{0,4}", digits) or int(digits) >= MOST_DATABASES:
        raise Unfit("cannot be used", "the path must be the number of a database", _EXAMPLE)
    return int(digits)
