"""How much is kept of what the server said, how long, and where? The `cache` section.

Absent: nothing is kept. Which tools' answers are kept is said by their rules. Light: `check` reads it without a loop.
"""

from __future__ import annotations

from typing import Annotated, Final, TypeAlias

from msgspec import Meta, Struct

from ..configuration.mistakes import Unfit
from ..configuration.values import fit
from ..protocol.headers import TOKEN
from ..secret import Secret

SHORTEST_SECRET: Final = 32
"""Characters. Whoever guesses it writes answers that we believe."""
MAX_HEADERS: Final = 64


def check_secret(secret: Secret) -> None:
    """Raise Unfit where the key of stored answers is too short to keep forgers out."""
    text = secret.reveal()
    if len(text.strip()) < SHORTEST_SECRET:
        why = "whoever guesses it writes answers that callers believe"
        raise Unfit("is too short", why, f"write at least {SHORTEST_SECRET} random characters")


def check_header(name: str) -> None:
    """Raise Unfit unless this names a request header whose value may be overlooked."""
    if not TOKEN.fullmatch(name):
        raise Unfit("is no header name", "RFC 9110 allows letters, digits and !#$%&'*+-.^_`|~", "rename it")
    if name.lower() in ("authorization", "cookie"):
        raise Unfit("says who asks", "one caller would be given the answer of another", "remove it")


Header = Annotated[str, Meta(max_length=256), fit(check_header)]
SecretText = Annotated[Secret, Meta(extra={"fit": check_secret})]


class CacheSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the server said is kept, and told again to whoever asks the same. Rules say of which tools."""

    max_bytes: Annotated[int, Meta(ge=65_536, le=68_719_476_736)] = 67_108_864
    """Of memory, for all answers together; what goes beyond is forgotten."""

    max_entry_bytes: Annotated[int, Meta(ge=1_024, le=67_108_864)] = 1_048_576
    """A longer answer is not kept; what was asked counts too."""

    per_tenant_share: Annotated[float, Meta(gt=0, le=1)] = 0.25
    """Part of max_bytes after which a tenant's new answers push out its own old ones first."""

    honour_hints: bool = True
    """true: lists and resources of 2026-07-28 are kept as long as the server says (ttlMs), for the caller who asked,
    or for all where it says so (cacheScope). false: they are not kept."""

    max_ttl_s: Annotated[float, Meta(gt=0, le=604_800)] = 3_600
    """No answer is as good as new for longer, whatever rules and servers say."""

    legacy_lists_ttl_s: Annotated[float, Meta(ge=0, le=604_800)] = 0
    """How long lists of older revisions are kept, for one session each. 0: they are not kept."""

    ignore_headers: Annotated[tuple[Header, ...], Meta(max_length=MAX_HEADERS)] = ()
    """Request headers that do not change answers, those of a mesh for example. All that reach the server count, but
    for those of HTTP itself and of tracing."""

    compress_above_bytes: Annotated[int, Meta(ge=0, le=67_108_864)] = 0
    """Longer answers are kept compressed: half the memory, and a tenth of a millisecond a time. 0: none."""

    shared: bool = False
    """true: replicas share what they keep, in the store of shared_state. Needs secret."""

    file: Annotated[str, Meta(min_length=1, max_length=4_096)] | None = None
    """A file that keeps answers over a restart, of one process alone. Needs secret."""

    secret: SecretText | None = None
    """Authenticates what lies in the shared store or the file, so that nobody who can write there can invent an
    answer: ${file:/path} or ${VAR}, the same in all replicas."""


def check_cache(cache: CacheSettings) -> None:
    """Raise Unfit where two fields contradict each other."""
    if cache.max_entry_bytes > cache.max_bytes * cache.per_tenant_share:
        what, why = "has a max_entry_bytes above a tenant's share", "such an answer would push out itself"
        raise Unfit(what, why, "write less there, or more for max_bytes")
    if cache.shared and cache.file is not None:
        raise Unfit(
            "stands beside shared: true", "answers lie in one place", "keep one of the two", key="file"
        )
    if cache.secret is None and (cache.shared or cache.file is not None):
        why = "somebody else can write there, and invent answers"
        raise Unfit("needs a secret", why, "write secret beside it", key="shared" if cache.shared else "file")


Cache: TypeAlias = Annotated[CacheSettings, fit(check_cache)]
"""The section as the settings of the house hold it."""
