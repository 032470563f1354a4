"""How is an API key made? What it stands for → an entry for the keys file on `out`, the key itself on `err`.

So `mcp-sidecar hash-key … >> keys.yaml` stores what may be stored and shows what may not. Scripts find the key in the
only line of `err` that begins with `key: `. Keeps nothing: the key is shown this once.
"""

import os
import re
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator, Mapping, Set
from datetime import UTC, datetime
from typing import Final, TextIO

from msgspec import Struct

from ..configuration.documents import document_of, read_document
from ..configuration.mistakes import SettingsError, shown
from ..configuration.moments import day_or_moment_of
from .api_key import hash_of
from .keys_file import HASH_PREFIX, LONGEST_ID, KeysFile, bytes_of

MADE: Final = 0
BAD_WISH: Final = 2
RANDOM_BYTES: Final = 32
"""Of a secret and of a pepper: 256 bits, as many as the hash has."""

_NOT_IN_ID: Final = re.compile(r"[^A-Za-z0-9_-]+", re.ASCII)
_HEAD: Final = """\
# API keys of mcp-sidecar. No key stands here, only its hash; still nobody else need read this file.
version: 1
pepper: {pepper}
keys:
"""


class Wish(Struct, frozen=True, kw_only=True):
    """What the new key is to stand for. None: not said."""

    tenant: str
    subject: str
    roles: tuple[str, ...] = ()
    id: str | None = None
    expires: str | None = None
    keys_file: str | None = None
    """The file that the entry is made for: its pepper is used, and its ids are taken."""


def hash_key(
    wish: Wish,
    environ: Mapping[str, str],
    out: TextIO,
    err: TextIO,
    *,
    wall: Callable[[], float],
    chance: Callable[[int], bytes] = os.urandom,
) -> int:
    """Make a key and return 0, or tell every mistake and return 2.

    For a keys file that is there, `out` gets one more entry; else a whole new file. IO: reads the keys file.
    """
    try:
        file = None
        if wish.keys_file is not None:
            file = read_document(wish.keys_file, KeysFile, environ=environ)
    except SettingsError as error:
        err.write(f"{error}\n")
        return BAD_WISH
    taken = {entry.id for entry in file.keys} if file else frozenset[str]()
    id = _free_id(wish.subject, taken, chance) if wish.id is None else wish.id
    pepper = bytes_of(file.pepper) if file else chance(RANDOM_BYTES)
    secret = _base64url(chance(RANDOM_BYTES))
    head = _HEAD.format(pepper=_quoted(_base64url(pepper)))
    entry = _entry(wish, id, hash_of(pepper, secret))
    mistakes = list(_mistakes(wish, id, taken, head + entry, wall()))
    if mistakes:
        err.writelines(f"{line}\n" for line in mistakes)
        return BAD_WISH
    # What is stored comes first: a key that was shown but not stored would be taken for a good one.
    out.write(entry if file else head + entry)
    out.flush()
    err.write(f"key: {id}.{secret}\n")
    err.writelines(f"{line}\n" for line in _advice(wish))
    return MADE


def _free_id(subject: str, taken: Set[str], chance: Callable[[int], bytes]) -> str:
    """An id that tells people whose key it is: a spelling of the subject and a few random digits."""
    name = _NOT_IN_ID.sub("-", subject)[: LONGEST_ID - 9].strip("-") or "key"
    while (id := f"{name}-{chance(4).hex()}") in taken:
        pass
    return id


def _entry(wish: Wish, id: str, hashed: bytes) -> str:
    lines = [
        f"  - id: {_quoted(id)}",
        f"    hash: {_quoted(HASH_PREFIX + hashed.hex())}",
        f"    tenant: {_quoted(wish.tenant)}",
        f"    subject: {_quoted(wish.subject)}",
    ]
    if wish.roles:
        lines.append(f"    roles: [{', '.join(_quoted(role) for role in wish.roles)}]")
    if wish.expires is not None:
        lines.append(f"    expires: {_quoted(wish.expires)}")
    return "\n".join(lines) + "\n"


def _mistakes(wish: Wish, id: str, taken: Set[str], text: str, wall_s: float) -> Iterator[str]:
    """What is wrong with the wish, by option: the entry is read as the sidecar will read it."""
    try:
        document_of(text.encode(), "", KeysFile, {})
    except SettingsError as error:
        for mistake in error.mistakes:
            name = mistake.path.removeprefix("keys[0].").partition("[")[0]
            option = "--role" if name == "roles" else f"--{name}"
            yield f"{option}: {mistake.what}, {mistake.why}, {mistake.remedy}"
        return
    if id in taken:
        yield "--id: is there already, a key is found by its id, choose another"
    if wish.expires is not None and day_or_moment_of(wish.expires) <= wall_s:
        yield "--expires: has passed, the key would never count, choose a later day"


def _advice(wish: Wish) -> Iterator[str]:
    yield "  It is shown this once. Clients send it as X-API-Key, or in the header the authenticator names"
    yield "  (as `Authorization: Bearer` where that is Authorization)."
    if wish.keys_file is None:
        yield "  Save the lines on standard output where only the sidecar reads them, and name that file in"
        yield "  identity.authenticators: [{kind: api_key, keys_file: FILE}]"
    else:
        yield "  It counts as soon as the lines on standard output stand below `keys:` in"
        yield f"  {shown(wish.keys_file, 4096)}; a running sidecar reads a changed file within seconds."
    if wish.expires is not None:
        ends = datetime.fromtimestamp(day_or_moment_of(wish.expires), UTC)
        yield f"  It ends at {ends:%Y-%m-%dT%H:%M:%SZ}."


def _base64url(data: bytes) -> str:
    return urlsafe_b64encode(data).decode("ascii").rstrip("=")


def _quoted(text: str) -> str:
    """The text as YAML reads it back: ASCII in double quotes, and never a reference."""
    return f'"{"".join(map(_escaped, text))}"'.replace("${", "$${")


def _escaped(character: str) -> str:
    if " " <= character <= "~" and character not in '"\\':
        return character
    # No text holds a surrogate; NUL is as unprintable and will be refused with its place.
    is_surrogate = "\ud800" <= character <= "\udfff"
    return f"\\U{0 if is_surrogate else ord(character):08x}"
