"""Everything an operator can set, joined: one frozen value, or every mistake at once.

The sections live beside their rooms; this file only joins them and checks what spans two of them.
Precedence: file, then environment (`MCP_SIDECAR_<SECTION>__<FIELD>`), then overrides (`--set path=value`).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct, field, inspect, structs

from .cache.settings import Cache, CacheSettings
from .capacity.settings import CapacitySection, CapacitySettings
from .configuration.convert import Converter, Spot
from .configuration.documents import document_of
from .configuration.files import SETTINGS_FILE_BYTES, read_bounded
from .configuration.globs import has_wildcard
from .configuration.mistakes import Mistake, Position, Report, SettingsError, Unfit, did_you_mean, shown
from .configuration.overrides import apply_environment, apply_sets
from .configuration.socket_urls import socket_of
from .configuration.tree import Entry, Node, Scalar, Table, read_tree
from .configuration.values import Address, may_meet, url_host_and_port
from .downstream.settings import ListenSettings
from .identity.keys_file import KeysFile
from .identity.settings import (
    AnonymousSettings,
    ApiKeySettings,
    IdentitySettings,
    IntrospectionSettings,
    JwtSettings,
    MtlsSettings,
)
from .lifecycle.settings import OperationsSettings
from .limits.settings import Limits, LocalStateSettings, SharedState, SharedStateSettings
from .policy.addresses import is_metadata_host
from .policy.packs import located, read_pack
from .policy.settings import EVERYBODY, PolicySettings, roles_named
from .resilience.settings import ResilienceSection, ResilienceSettings
from .telemetry.settings import TelemetrySettings
from .upstream.settings import UpstreamSettings

__all__ = ["Mistake", "Settings", "SettingsError", "load", "schema"]

LONGEST_SHOWN_PATH = 4096


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole configuration of one sidecar."""

    version: Literal[1]
    """The format of this file."""

    refusals: Literal["result", "http"] = "result"
    """How our own no reaches a caller: as a result that agents can read, or as an HTTP status."""

    listen: ListenSettings = field(default_factory=ListenSettings)
    """The data port."""

    operations: OperationsSettings = field(default_factory=OperationsSettings)
    """The port for probes and metrics."""

    upstream: UpstreamSettings
    """The server that is guarded."""

    identity: IdentitySettings = field(default_factory=IdentitySettings)
    """Who may call."""

    policy: PolicySettings | None = None
    """Who may call what. Absent: everybody who may call at all may call everything."""

    limits: Limits = ()
    """How much each tenant, user or tool may have. All that apply to a call decide together."""

    local_state: LocalStateSettings | None = None
    """Where quotas survive a restart of a single process. Absent: they do not."""

    shared_state: SharedState | None = None
    """Where replicas count together. Absent: each process counts by itself."""

    cache: Cache | None = None
    """What the server said is kept, and told again. Absent: nothing."""

    capacity: CapacitySection = field(default_factory=CapacitySettings)
    """How many calls the server gets at once, and who waits."""

    resilience: ResilienceSection = field(default_factory=ResilienceSettings)
    """How long calls may take, which are sent again, and when the server is left alone."""

    telemetry: TelemetrySettings = field(default_factory=TelemetrySettings)
    """What is told of calls, and to whom."""

    memory_limit_bytes: Annotated[int, Meta(ge=33_554_432)] | None = None
    """How much memory this process may have where its control group has no limit, or a higher one. Above 80 % of it
    kept answers go, above 95 % new calls are refused. Absent: the limit of the control group alone."""

    drain_s: Annotated[float, Meta(ge=0, le=3600)] = 25.0
    """How long calls in flight may finish after TERM; less than the pod's grace period (30 s by default)."""


class Loaded(Struct, frozen=True):
    """Settings, and where they came from."""

    settings: Settings
    files: tuple[str, ...]
    """The file itself, the packs, and the files that values refer to: when one changes, the settings may be others."""


def load(file: Path | None, *, overrides: Sequence[str] = (), environ: Mapping[str, str]) -> Settings:
    """Read the settings. Without a file the environment or the overrides must name the upstream.

    Raises SettingsError with every mistake, those in keys files too. IO: reads `file` and the files it names.
    """
    return load_with_files(file, overrides=overrides, environ=environ).settings


def load_with_files(
    file: Path | None, *, overrides: Sequence[str] = (), environ: Mapping[str, str]
) -> Loaded:
    """The same, and which files were read for it."""
    read = attempt(file, overrides=overrides, environ=environ)
    if read.mistakes or read.settings is None:
        raise SettingsError(read.mistakes)
    settings, files = read.settings, dict.fromkeys(read.files)
    if settings.policy is not None:
        base = Path() if file is None else file.parent
        settings, packs = _with_packs_located(settings, settings.policy, base)
        files.update(dict.fromkeys(packs))
    return Loaded(settings, tuple(files if file is None else (str(file.absolute()), *files)))


class Attempt(Struct, frozen=True, kw_only=True):
    """What became of reading: for those who go on where others stop."""

    settings: Settings | None
    """None where a value could not be read. Beside mistakes these are not to be put into force."""
    mistakes: tuple[Mistake, ...]
    files: tuple[str, ...]


def attempt(file: Path | None, *, overrides: Sequence[str] = (), environ: Mapping[str, str]) -> Attempt:
    """Read the settings as far as that goes; packs are not located. IO: as `load`."""
    report = Report()
    root = _without_file() if file is None else _read(file, report)
    base = Path() if file is None else file.parent
    kind = inspect.type_info(Settings)
    assert isinstance(kind, inspect.StructType)
    apply_environment(root, kind, environ, report)
    apply_sets(root, kind, overrides, report)
    settings: object = None
    files: dict[str, None] = {}
    elsewhere: tuple[Mistake, ...] = ()
    if root is not None:
        converter = Converter(report, environ, read_bounded)
        settings = converter.read(root, kind, Spot(), root.at)
        files = converter.files
        _check_across(converter.values, report)
        elsewhere = (
            *_check_keys_files(converter.values, environ, report),
            *_check_packs(converter.values, base, environ, report),
        )
    return Attempt(
        settings=settings if isinstance(settings, Settings) else None,
        mistakes=(*report.mistakes, *elsewhere),
        files=tuple(files),
    )


def schema() -> dict[str, object]:
    """The JSON Schema of a settings file, for editors."""
    from .configuration.schema import schema_of  # reads source files; a start must not pay for it

    return schema_of(Settings)


def _without_file() -> Node:
    at = Position("no settings file")
    return Table(at, {"version": Entry(at, Scalar(at, 1))})


def _read(file: Path, report: Report) -> Node | None:
    source = shown(str(file), LONGEST_SHOWN_PATH)
    try:
        return read_tree(read_bounded(file, SETTINGS_FILE_BYTES), source, report)
    except Unfit as unfit:
        report.add_unfit(Position(source, 1, 1), "", unfit)
        return None


def _check_across(values: Mapping[str, object], report: Report) -> None:
    """What no section can see alone. Looks only at values that could be read."""
    listen, operations = values.get("listen.address"), values.get("operations.address")
    if isinstance(listen, Address):
        _check_reach(listen, values, report)
    _check_identity(values, report)
    _check_policy(values, report)
    _check_limits(values, report)
    _check_cache(values, report)
    _check_certificates(values, report)
    _check_request_ids(values, report)
    if isinstance(listen, Address) and isinstance(operations, Address) and may_meet(listen, operations):
        path = "operations.address"
        why = "it is the address of the data port, and probes never share it"
        report.add(report.place_of(path), path, "is taken", why, "choose another port")
    url = values.get("upstream.url")
    if isinstance(url, str) and socket_of(url) is None:
        server = Address(*url_host_and_port(url))
        if is_metadata_host(server.host):
            why = "whoever calls us would read the credentials of the machine"
            path = "upstream.url"
            report.add(
                report.place_of(path), path, "is a cloud's metadata service", why, "name the MCP server"
            )
        if any(isinstance(own, Address) and may_meet(own, server) for own in (listen, operations)):
            why = "calls would go round in a circle"
            path = "upstream.url"
            report.add(report.place_of(path), path, "points at this proxy", why, "name the server's own port")


def _check_reach(listen: Address, values: Mapping[str, object], report: Report) -> None:
    """Everybody who reaches the port is let in where no authenticator is chosen: only on loopback."""
    path = "identity.authenticators"
    if listen.is_loopback or values.get(path, ...) is not None:
        return
    report.add(
        report.place_of("listen.address"),
        "listen.address",
        "can be reached from outside, and no authenticator is listed",
        "everybody would be let in",
        f"list one in {path}, or say so there: [{{kind: anonymous, tenant: local}}]",
    )


def _check_keys_files(
    values: Mapping[str, object], environ: Mapping[str, str], report: Report
) -> tuple[Mistake, ...]:
    """Files of API keys as they are now. Returns the mistakes in them; one that cannot be read goes to `report`."""
    mistakes: dict[Mistake, None] = {}
    for path, each in values.items():
        if not isinstance(each, ApiKeySettings):
            continue
        try:
            content = read_bounded(each.keys_file, SETTINGS_FILE_BYTES)
            document_of(content, each.keys_file, KeysFile, environ)
        except Unfit as unfit:
            here, what = f"{path}.keys_file", f"names a file that {unfit.what}"
            report.add(report.place_of(here), here, what, unfit.why, unfit.remedy)
        except SettingsError as error:
            mistakes.update(dict.fromkeys(error.mistakes))
    return tuple(mistakes)


def _check_packs(
    values: Mapping[str, object], base: Path, environ: Mapping[str, str], report: Report
) -> tuple[Mistake, ...]:
    """Packs as they are now. Returns the mistakes in them; one that cannot be read goes to `report`."""
    mistakes: dict[Mistake, None] = {}
    packs, roles = values.get("policy.packs"), values.get("policy.roles")
    for index, name in enumerate(packs if isinstance(packs, tuple) else ()):
        try:
            read_pack(located(name, base), roles if isinstance(roles, Mapping) else (), environ)
        except Unfit as unfit:
            here = f"policy.packs[{index}]"
            report.add(report.place_of(here), here, unfit.what, unfit.why, unfit.remedy)
        except SettingsError as error:
            mistakes.update(dict.fromkeys(error.mistakes))
    return tuple(mistakes)


def _with_packs_located(
    settings: Settings, policy: PolicySettings, base: Path
) -> tuple[Settings, tuple[str, ...]]:
    """Whoever reads the packs later need not know where the settings came from. And where the packs are."""
    packs = tuple(located(name, base) for name in policy.packs)
    return structs.replace(settings, policy=structs.replace(policy, packs=packs)), packs


def _check_identity(values: Mapping[str, object], report: Report) -> None:
    """Authenticators that could not be told apart, never have their turn, or take anybody's tokens."""
    path = "identity.authenticators"
    listed = values.get(path)
    taken: set[tuple[str, str]] = set()
    is_last_for_tokens = False
    for index, each in enumerate(listed if isinstance(listed, tuple) else ()):
        here = f"{path}[{index}]"
        if isinstance(each, JwtSettings | IntrospectionSettings) and not values.get("identity.resource"):
            what, why = "has no resource to issue tokens for", "clients and tokens name it, and we compare"
            report.add(report.place_of(here), here, what, why, "set identity.resource to the URL clients use")
        takes = _taken_by(each)
        if takes in taken:
            field, what, why, remedy = _TWICE[takes[0]]
            where = f"{here}.{field}" if field else here
            report.add(report.place_of(where), where, what, why, remedy)
        if is_last_for_tokens and (
            isinstance(each, IntrospectionSettings) or takes == ("key", "authorization")
        ):
            why = "the introspection before it refuses every token it does not know"
            report.add(report.place_of(here), here, "never has its turn", why, "list it before that one")
        is_last_for_tokens = is_last_for_tokens or isinstance(each, IntrospectionSettings)
        if takes is not None:
            taken.add(takes)


_TWICE: Final = {
    "anonymous": ("", "is anonymous twice", "whoever presents nothing is one principal", "keep one"),
    "issuer": ("", "names an issuer twice", "the first that knows a token's issuer decides", "keep one"),
    "key": (
        "header",
        "is taken by another authenticator",
        "nobody could tell whose keys stand in it",
        "name another, or put all keys into one file",
    ),
}


def _taken_by(each: object) -> tuple[str, str] | None:
    """What only one authenticator can have."""
    if isinstance(each, AnonymousSettings):
        return "anonymous", ""
    if isinstance(each, JwtSettings):
        return "issuer", each.issuer
    return ("key", each.header.lower()) if isinstance(each, ApiKeySettings) else None


def _check_limits(values: Mapping[str, object], report: Report) -> None:
    """State that nobody counts, or that is counted elsewhere."""
    found = {
        path: each
        for path in ("local_state", "shared_state")
        if isinstance(each := values.get(path), LocalStateSettings | SharedStateSettings)
    }
    if len(found) == 2:
        path, why = "local_state", "what replicas share survives in their store"
        report.add(report.place_of(path), path, "stands beside shared_state", why, "keep one of the two")
    cache = values.get("cache", ...)
    is_for_cache = cache is ... or (isinstance(cache, CacheSettings) and cache.shared)
    for path in () if values.get("limits", ...) else found:
        if not (path == "shared_state" and is_for_cache):
            why = "nothing is counted without limits"
            report.add(report.place_of(path), path, "has nothing to keep", why, "write limits, or remove it")
    if is_for_cache and cache is not ... and values.get("shared_state", ...) is None:
        path, why = "cache.shared", "that is where replicas share"
        report.add(report.place_of(path), path, "needs shared_state", why, "write it, or keep answers here")


def _check_cache(values: Mapping[str, object], report: Report) -> None:
    """Rules that keep answers nowhere."""
    policy = values.get("policy")
    if not isinstance(policy, PolicySettings) or values.get("cache", ...) is not None:
        return
    for index, rule in enumerate(policy.tools):
        if rule.cache is not None:
            path = f"policy.tools[{index}].cache"
            why, remedy = "without the cache section there is nowhere to keep it", "write cache: {}"
            report.add(report.place_of(path), path, "keeps nothing", why, remedy)


def _check_request_ids(values: Mapping[str, object], report: Report) -> None:
    """A header that holds credentials would be logged, passed on and answered."""
    path = "telemetry.request_id_header"
    name = values.get(path)
    listed = values.get("identity.authenticators")
    authenticators = listed if isinstance(listed, tuple) else ()
    keys = {each.header.lower() for each in authenticators if isinstance(each, ApiKeySettings)}
    if isinstance(name, str) and name.lower() in keys:
        why, remedy = "what stands in it is logged and answered", "choose X-Request-Id"
        report.add(report.place_of(path), path, "holds the keys of an authenticator", why, remedy)


def _check_certificates(values: Mapping[str, object], report: Report) -> None:
    """Certificates prove something only where TLS verifies them against somebody."""
    authorities = "listen.tls.client_ca_file"
    if None not in (values.get("listen.tls", ...), values.get(authorities, ...)):
        return
    path = "listen.tls.client_certificate"
    if values.get(path) is not None:
        why, remedy = "without authorities no certificate is asked for", f"set {authorities} beside it"
        report.add(report.place_of(path), path, "needs client_ca_file", why, remedy)
    path = "identity.authenticators"
    listed = values.get(path)
    for index, each in enumerate(listed if isinstance(listed, tuple) else ()):
        if isinstance(each, MtlsSettings):
            here, why = f"{path}[{index}]", "TLS verifies client certificates against these authorities"
            report.add(report.place_of(here), here, f"needs {authorities}", why, "set it")


def _check_policy(values: Mapping[str, object], report: Report) -> None:
    """Roles that nobody can have, and rules that lift what they should not."""
    policy = values.get("policy")
    if not isinstance(policy, PolicySettings):
        return
    for path, named in roles_named(policy):
        if policy.roles and named != EVERYBODY and named not in policy.roles:
            why, remedy = "it is none of policy.roles", did_you_mean(named, policy.roles)
            report.add(report.place_of(path), path, "names no role", why, remedy)
    forwards = values.get("upstream.forward_client_authorization") is True
    for index, rule in enumerate(policy.tools):
        if rule.reinitialise and forwards:
            # Whoever knows a session could take it over: a server that is told who calls answers 404 for foreign ones.
            path = f"policy.tools[{index}].reinitialise"
            what, why = (
                "begins sessions whose owner only the server knows",
                "client credentials are forwarded to it",
            )
            remedy = "remove it, or upstream.forward_client_authorization"
            report.add(report.place_of(path), path, what, why, remedy)
        if rule.overrides_packs and has_wildcard(rule.match):
            path = f"policy.tools[{index}].overrides_packs"
            why = "packs are lifted for one tool at a time, by its exact name"
            report.add(
                report.place_of(path), path, "stands at a pattern", why, "write the name without * and ?"
            )
