"""How much may whom call? The `limits` section, with `shared_state` and `local_state`.

Light: whoever checks settings must not pay for a loop.
"""

import re
from collections.abc import Mapping
from importlib.util import find_spec
from types import MappingProxyType
from typing import Annotated, Final, Literal, TypeAlias
from zoneinfo import ZoneInfo

from msgspec import Meta, Struct, field, structs

from ..configuration.folding import fold
from ..configuration.globs import Glob, check_glob
from ..configuration.mistakes import Unfit
from ..configuration.values import fit
from ..secret import Secret
from .valkey_url import Place, read_place

KeyWord: TypeAlias = Literal["tenant", "subject", "issuer", "client", "tool", "class", "everyone"]
Calendar: TypeAlias = Literal["minute", "hour", "day", "month"]
MOST_UNITS: Final = 1_000_000_000_000
"""Of a quota: stores and clients count so far exactly."""
MOST_LIMITS: Final = 100
INSTALL: Final = "install it with pip install 'mcp-sidecar[redis]'"
SLOWEST_PER_S: Final = 1e-6

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*", re.ASCII)
_ESCAPE: Final = re.compile(r"%([0-9A-Fa-f]{2})?", re.ASCII)


def check_limit_name(text: str) -> None:
    """Raise Unfit unless this can name a limit: it stands in header fields, keys of stores and labels."""
    if not _NAME.fullmatch(text):
        raise Unfit(
            "is no name of a limit", "it is told to callers and stores", "write letters, digits, . _ and -"
        )


def check_timezone(text: str) -> None:
    """Raise Unfit unless the zone is known here."""
    if text == "UTC":
        return
    try:
        ZoneInfo(text)
    except (KeyError, OSError, ValueError):
        why = "the time zones of this system do not have it"
        raise Unfit(
            "is no time zone", why, "write an IANA name such as Europe/Berlin, or install tzdata"
        ) from None


def check_key(words: tuple[KeyWord, ...]) -> None:
    """Raise Unfit unless these words name one bucket a holder."""
    for index, word in enumerate(words):
        if word in words[:index]:
            raise Unfit("is there twice", "it says nothing new", "keep one", key=index)
        if word == "everyone" and len(words) > 1:
            raise Unfit(
                "stands beside others", "everyone is one bucket for all", "let it stand alone", key=index
            )


def check_method_glob(text: str) -> None:
    """Raise Unfit unless this is the name of a method, or a pattern for some."""
    check_glob(text)
    if " " in text:
        raise Unfit("is no method", "no method has spaces in its name", "remove them")


def check_rate(per_s: float) -> None:
    """Raise Unfit where a rate is so slow that a quota is meant."""
    if 0 < per_s < SLOWEST_PER_S:
        why = f"it is less than {SLOWEST_PER_S:f} a second, one in eleven days"
        raise Unfit("is too slow", why, "write 0 for never, or a quota for a month")


Name = Annotated[str, Meta(max_length=64), fit(check_limit_name)]
Timezone = Annotated[str, Meta(max_length=128), fit(check_timezone)]
Method = Annotated[str, Meta(max_length=256), fit(check_method_glob)]
Key = Annotated[tuple[KeyWord, ...], Meta(min_length=1, extra={"fit": check_key})]
PerSecond = Annotated[float, Meta(ge=0, le=1_000_000, extra={"fit": check_rate})]
Burst = Annotated[int, Meta(ge=1, le=1_000_000_000)]
Units = Annotated[int, Meta(ge=0, le=MOST_UNITS)]


class Override(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What holds for some instead. What is absent is as the limit says."""

    rate_per_s: PerSecond | None = None
    """Calls a second; 0: blocked."""

    burst: Burst | None = None
    """Calls at once after a rest."""

    quota: Units | None = None
    """Units in a window; 0: blocked."""


def check_overrides(overrides: Mapping[str, Override]) -> None:
    """Raise Unfit unless each says something, of somebody else."""
    seen: set[tuple[str, ...]] = set()
    for name, override in overrides.items():
        try:
            parts = override_parts(name)
        except Unfit as unfit:
            raise Unfit(unfit.what, unfit.why, unfit.remedy, key=name) from None
        if not all(parts):
            raise Unfit(
                "has a blank part", "no name is blank", "write each part, or end it earlier", key=name
            )
        if parts in seen:
            why = "names are compared without case, spaces around and forms of width"
            raise Unfit("names the same as another", why, "keep one", key=name)
        if override == Override():
            raise Unfit("changes nothing", "no number is given", "write one, or remove it", key=name)
        seen.add(parts)


Overrides = Annotated[
    Mapping[Annotated[str, Meta(max_length=1_024)], Override], Meta(extra={"fit": check_overrides})
]


class LimitSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One limit: a rate with its burst, or a quota with its window."""

    name: Name
    """How callers, records and stores call it."""

    key: Key
    """What has a bucket of its own: each tenant, each tool of each subject of a tenant, … everyone: one for all."""

    tools: tuple[Glob, ...] = ()
    """Which tools count; empty: all. Where it or `classes` is set, only calls of tools count."""

    classes: tuple[Literal["read", "write", "dangerous"], ...] = ()
    """Which classes of tools count; empty: all."""

    methods: tuple[Method, ...] = ()
    """Which methods count. Absent: all messages count for a rate, calls of tools for a quota."""

    rate_per_s: PerSecond | None = None
    """Calls a second; 0: blocked."""

    burst: Burst | None = None
    """Calls at once after a rest."""

    quota: Units | None = None
    """Units in a window; a call takes what the `cost` of its rule says. 0: blocked."""

    window: Calendar | None = None
    """minute, hour, day or month of the calendar there."""

    timezone: Timezone | None = None
    """Where: an IANA name. Absent: UTC."""

    sliding_s: Annotated[float, Meta(ge=1, le=31_622_400)] | None = None
    """Instead of `window`: the last so many seconds at any moment."""

    overrides: Overrides = field(default_factory=lambda: MappingProxyType({}))
    """What holds for some: by the values of `key` in its order, joined by /, each with %2F for / and %25 for %. Fewer
    than the key has fit all that begin so; the longest that fits holds."""

    continuations: Literal["free", "counted"] | None = None
    """Whether the answer to an input_required of a call counts for a quota as another call. Absent: free."""

    report: bool = False
    """true: what it would refuse is recorded and passes."""

    @property
    def is_rate(self) -> bool:
        return self.rate_per_s is not None


def check_limit(limit: LimitSettings) -> None:
    """Raise Unfit unless this is exactly one limit, with all that belongs to it."""
    if limit.is_rate and limit.quota is not None:
        raise Unfit("is a rate and a quota", "each has a bucket of its own", "write two limits", key="quota")
    if not limit.is_rate and limit.quota is None:
        raise Unfit("limits nothing", "no number is given", "write rate_per_s and burst, or quota and window")
    foreign = ("quota", "window", "timezone", "sliding_s", "continuations") if limit.is_rate else ("burst",)
    for name in foreign:
        if getattr(limit, name) is not None:
            what, other = ("rate", "quotas") if limit.is_rate else ("quota", "rates")
            raise Unfit(f"does not belong to a {what}", f"only {other} have one", "remove it", key=name)
    if limit.is_rate:
        if limit.burst is None:
            raise Unfit(
                "has no burst", "how much passes at once is no default's business", "write burst: 1 or more"
            )
    elif (limit.window is None) == (limit.sliding_s is None):
        raise Unfit("needs one window", "a quota counts within something", "write window or sliding_s")
    elif limit.timezone is not None and limit.window is None:
        raise Unfit("changes nothing", "a sliding window has no calendar", "remove it", key="timezone")
    if limit.methods and (limit.tools or limit.classes):
        why = "tools and classes choose calls of tools, methods other messages"
        raise Unfit("chooses by tools and by methods", why, "write two limits", key="methods")
    _check_overrides(limit)


def _check_overrides(limit: LimitSettings) -> None:
    if limit.overrides and limit.key == ("everyone",):
        raise Unfit("names nobody", "everyone is one bucket for all", "remove it", key="overrides")
    for name, override in limit.overrides.items():
        if len(override_parts(name)) > len(limit.key):
            why, remedy = f"the key has {len(limit.key)}", "write %2F for / within a name"
            raise Unfit("has an entry with too many parts", why, remedy, key="overrides")
        foreign = (override.quota,) if limit.is_rate else (override.rate_per_s, override.burst)
        if any(each is not None for each in foreign):
            why, remedy = "a rate stays a rate and a quota a quota", "write the limit's own fields"
            raise Unfit("has an entry of another kind", why, remedy, key="overrides")


def override_parts(name: str) -> tuple[str, ...]:
    """The folded values that a name of `overrides` stands for. Raises Unfit."""
    return tuple(fold(_unescaped(part)) for part in name.split("/"))


def _unescaped(text: str) -> str:
    encoded = bytearray()
    at = 0
    for match in _ESCAPE.finditer(text):
        if match[1] is None:
            raise Unfit("holds a % that escapes nothing", "two hex digits must follow", "write %25 for %")
        encoded += text[at : match.start()].encode("utf-8", "surrogatepass") + bytes.fromhex(match[1])
        at = match.end()
    encoded += text[at:].encode("utf-8", "surrogatepass")
    try:
        return encoded.decode("utf-8")
    except UnicodeDecodeError:
        raise Unfit("is no text", "its escapes are not UTF-8", "escape / and % only") from None


def check_limits(limits: tuple[LimitSettings, ...]) -> None:
    """Raise Unfit where two have one name, or where there are too many."""
    if len(limits) > MOST_LIMITS:
        raise Unfit("are too many", f"every call asks each of them, at most {MOST_LIMITS}", "join some")
    seen: set[str] = set()
    for index, limit in enumerate(limits):
        if limit.name in seen:
            raise Unfit(
                "has the name of another",
                "callers and records could not tell them apart",
                "rename it",
                key=index,
            )
        seen.add(limit.name)


Limit = Annotated[LimitSettings, Meta(extra={"fit": check_limit})]
Limits = Annotated[tuple[Limit, ...], Meta(extra={"fit": check_limits})]
"""The `limits` section."""


def check_path(text: str) -> None:
    """Raise Unfit unless this can be a file."""
    if not text.strip() or "\x00" in text or text.endswith("/"):
        raise Unfit("names no file", "quotas are written there", "write the path of a file")


class LocalStateSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file in which quotas survive a restart of this process. It is replaced as a whole, so its folder is ours to
    write."""

    file: Annotated[str, Meta(max_length=4_096), fit(check_path)]
    """Its path."""

    every_s: Annotated[float, Meta(ge=0.1, le=3_600)] = 5.0
    """How often it is written; what was used since is forgotten when the process dies."""


def check_store_url(text: str) -> None:
    """Raise Unfit unless this names a store, and nothing that must not be seen."""
    if "@" in text:
        raise Unfit(
            "holds a user or a password",
            "credentials in a URL end up in logs",
            "write shared_state.username and password",
        )
    read_place(Secret(text))


def check_namespace(text: str) -> None:
    """Raise Unfit unless this can stand in the names of keys."""
    if not _NAME.fullmatch(text):
        raise Unfit(
            "is no namespace", "it stands in the name of every key", "write letters, digits, . _ and -"
        )


class SharedStateSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The store (Valkey or Redis) in which replicas count together. Needs the extra [redis]."""

    url: Annotated[str, Meta(max_length=1_024), fit(check_store_url)]
    """redis://host:port/database, or rediss:// for TLS; without credentials."""

    username: Annotated[str, Meta(max_length=256)] = ""
    """The ACL user, where the store has one for us."""

    password: Secret | None = None
    """Of that user, or of the store."""

    ca_file: Annotated[str, Meta(max_length=4_096)] | None = None
    """Certificates of the authorities that vouch for the store; absent: those of the system."""

    namespace: Annotated[str, Meta(max_length=64), fit(check_namespace)] = "default"
    """Replicas of one deployment share it; another deployment on the same store has another."""

    on_outage: Literal["local", "closed"] = "local"
    """local: each replica decides alone, with its share of each limit. closed: what is limited is refused."""

    local_share: Annotated[float, Meta(gt=0, le=1)] = 0.5
    """Of each limit, for each replica during an outage: 0.5 for two replicas."""

    timeout_s: Annotated[float, Meta(ge=0.001, le=5)] = 0.04
    """How long a call waits for the store: less than the 50 ms that an outage may add, for a loop that is late."""

    @property
    def place(self) -> Place:
        """Where it is, and who we are there."""
        bare = read_place(Secret(self.url))
        return structs.replace(bare, user=self.username or None, password=self.password)


def check_shared_state(settings: SharedStateSettings) -> None:
    """Raise Unfit where we could not say who we are, whom we trust, or anything at all."""
    if find_spec("hiredis") is None:
        raise Unfit("needs the package hiredis", "it reads what stores say", INSTALL)
    if settings.username and settings.password is None:
        raise Unfit("has no password", "stores let nobody in by a name alone", "write one", key="username")
    if settings.ca_file is not None and not settings.place.is_encrypted:
        why, remedy = "nobody is asked for a certificate without TLS", "write rediss:// in url"
        raise Unfit("is never read", why, remedy, key="ca_file")


SharedState = Annotated[SharedStateSettings, Meta(extra={"fit": check_shared_state})]
"""The `shared_state` section."""
