"""Where do answers lie? What every store promises, and the words of its questions. Pure.

In: a digest and an `Entry`. Out: the entry, or None: whatever is wrong with a store is a miss, never an exception. A
store bounds what it holds, and counts what happened to it (`counts`).

Forgetting must not lose a race. A call that reads may ask the server before a write and be answered after it: what it
brings is old before it is stored. So whoever asks takes a `Mark` first and hands it in with the answer; what was
forgotten in between covers the answer, too.
"""

from __future__ import annotations

import hmac
import zlib
from collections.abc import Awaitable, Mapping
from typing import Final, Literal, Protocol, TypeAlias

import msgspec
from msgspec import Struct

from ..model import Job
from ..secret import Secret
from .entry import Entry, decode, encode

Event: TypeAlias = Literal[
    "stored",
    "too_large",
    "evicted",
    "expired",
    "forgotten",
    "late",
    "forged",
    "foreign",
    "outage",
    "unwritten",
]
"""What happened to an entry: `late` was forgotten before it could be stored; `forged` is not signed by us for this
key; `foreign` is signed by us and of another version; `outage`: a store could not be asked; `unwritten`: it would not
take it."""

Counts: TypeAlias = Mapping[str, int]
"""Events since the start; what never happened is not there."""


class Forget(Struct, frozen=True):
    """What must not be told any more: of one tenant, and what is shared by all."""

    tenant: str | None
    """None: of every tenant. "": only what is shared by all."""
    methods: tuple[str, ...] = ()
    """None named: all."""
    targets: tuple[str, ...] = ()
    """Globs. None named: all."""


class Mark(Struct, frozen=True):
    """What had been forgotten when somebody asked the server."""

    own: int = 0
    """The number of the last thing this process forgot."""
    shared: int = 0
    """That of the store which replicas share."""
    era: str = ""
    """The life of that store: an empty one begins to count anew."""


class Store(Protocol):
    """Keeps entries by their digest. Nothing here raises, but for the cancellation of its caller."""

    @property
    def counts(self) -> Counts: ...

    @property
    def jobs(self) -> tuple[Job, ...]:
        """What has to run beside the calls."""
        ...

    def mark(self) -> Mark:
        """To be taken before the server is asked."""
        ...

    def look(self, digest: bytes) -> Entry | Awaitable[Entry | None] | None:
        """What `get` gives: at once where nobody has to wait for it."""
        ...

    async def get(self, digest: bytes) -> Entry | None:
        """The entry, not over and not forgotten. Whether it is fresh is its reader's question, and so is whether its
        material is that of the call."""
        ...

    async def put(self, digest: bytes, entry: Entry, asked: Mark) -> None:
        """Store it, unless something that covers it was forgotten since `asked`, or it is beyond the bounds."""
        ...

    async def forget(self, what: Forget) -> None:
        """Never tell it again. When this returns, no `get` of this process gives it; other replicas follow within the
        bound of their store."""
        ...

    async def flush(self) -> None:
        """Forget everything, and give its memory back."""
        ...

    async def close(self) -> None:
        """Write what is to be written. The jobs have ended."""
        ...


# At rest, where others may write

_FORGET: Final = msgspec.json.Decoder(Forget)
_ALL: Final = Forget(None)


def written(what: Forget) -> bytes:
    """The words, to be kept. What cannot be written (a lone surrogate has no UTF-8) becomes more, never less."""
    try:
        return msgspec.json.encode(what)
    except UnicodeEncodeError:
        return msgspec.json.encode(_ALL)


def read_forget(text: bytes) -> Forget:
    """What was written. Words that nobody knows mean everything."""
    try:
        return _FORGET.decode(text)
    except msgspec.DecodeError:
        return _ALL


_MAC_BYTES: Final = 32
_PLAIN: Final = b"="
_DEFLATED: Final = b"z"
_MOST_INFLATED_BYTES: Final = 256 * 1024 * 1024
"""It is our own text, signed; a bound all the same."""


class Seal:
    """Signs entries for one kind of place, so that whoever can write there cannot make an answer.

    The signature covers the digest and every byte, so an entry is nothing under another digest; its key is derived
    from the secret and the name of the place, so it is nothing in another place. HMAC-SHA-256, RFC 2104.
    """

    def __init__(self, secret: Secret, place: str, compress_above_bytes: int = 0) -> None:
        """`compress_above_bytes` 0: never. Compressing 1 MiB takes about 10 ms."""
        key = secret.reveal().encode("utf-8", "surrogatepass")
        self._key = hmac.digest(key, f"mcp-sidecar cache 1 {place}".encode(), "sha256")
        self._compress_above_bytes = compress_above_bytes

    def closed(self, digest: bytes, entry: Entry) -> bytes:
        """The bytes to be kept under this digest."""
        return self.signed(digest, self.packed(entry))

    def opened(self, digest: bytes, data: object) -> Entry | Literal["forged", "foreign"]:
        """The entry that was kept under this digest. Nothing of what we did not sign is looked at."""
        text = self.verified(digest, data)
        return "forged" if text is None else unpacked(text) or "foreign"

    def packed(self, entry: Entry) -> bytes:
        """The entry as it is signed."""
        text = encode(entry)
        if 0 < self._compress_above_bytes < len(text):
            return _DEFLATED + zlib.compress(text, 1)
        return _PLAIN + text

    def signed(self, context: bytes, text: bytes) -> bytes:
        """A text that is ours, for this context only."""
        return self._mac(context, text) + text

    def verified(self, context: bytes, data: object) -> bytes | None:
        """The text that was signed for this context, or None for anything else."""
        if not isinstance(data, bytes) or len(data) <= _MAC_BYTES:
            return None
        mac, text = data[:_MAC_BYTES], data[_MAC_BYTES:]
        return text if hmac.compare_digest(mac, self._mac(context, text)) else None

    def _mac(self, context: bytes, text: bytes) -> bytes:
        # The length first: no context and text are another context and text written together. In two pieces: the text
        # is not copied, and a long one is signed without holding up other threads.
        mac = hmac.new(self._key, b"%d:%b" % (len(context), context), "sha256")
        mac.update(text)
        return mac.digest()


def unpacked(text: bytes) -> Entry | None:
    """What was packed; None where it is of another version."""
    flag, rest = text[:1], text[1:]
    if flag == _DEFLATED:
        try:
            rest = zlib.decompressobj().decompress(rest, _MOST_INFLATED_BYTES)
        except zlib.error:
            return None
    return decode(rest) if flag in (_PLAIN, _DEFLATED) else None
