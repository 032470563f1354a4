"""To whom are traces told, how many, and whom do we believe? The `telemetry.traces` section.

Light: whoever checks settings must not pay for OpenTelemetry.
"""

import re
from collections.abc import Mapping
from importlib.util import find_spec
from types import MappingProxyType
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct, field

from ..configuration.mistakes import Unfit
from ..configuration.values import check_http_url, fit
from ..protocol.headers import HOP_BY_HOP, TOKEN
from ..secret import Secret

INSTALL: Final = "install it with pip install 'mcp-sidecar[otlp]'"
ENDPOINT: Final = "http://127.0.0.1:4318"
SERVICE: Final = "mcp-sidecar"

_PRINTABLE: Final = re.compile(r"[!-~](?:[ -~]*[!-~])?", re.ASCII)
_OURS: Final = frozenset((b"content-encoding", b"content-length", b"content-type", b"expect", b"host"))
_PACKAGES: Final = ("opentelemetry.exporter.otlp.proto.http", "requests")


def check_header_name(name: str) -> None:
    """Raise Unfit unless a header of this name may be sent to a collector."""
    if not TOKEN.fullmatch(name):
        raise Unfit("is no header name", "RFC 9110 allows letters, digits and !#$%&'*+-.^_`|~", "rename it")
    if name.lower().encode() in HOP_BY_HOP | _OURS:
        raise Unfit("cannot be set", "this header frames the message", "remove it")


def check_header_value(value: Secret) -> None:
    """Raise Unfit where a value would end its line early, or be sent changed."""
    if not _PRINTABLE.fullmatch(value.reveal()):
        why = "only printable ASCII may stand in it, without spaces at its ends"
        raise Unfit("is no header value", why, "remove line breaks and the like")


def check_word(text: str) -> None:
    """Raise Unfit unless this can name a service or describe one."""
    if not text.strip() or not text.isprintable():
        raise Unfit("is no name", "it is empty, or has control characters", "write printable text")


Word = Annotated[str, Meta(max_length=256), fit(check_word)]
HeaderName = Annotated[str, fit(check_header_name)]
HeaderValue = Annotated[Secret, Meta(extra={"fit": check_header_value})]


class TracesSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Traces in the words of OpenTelemetry. Present, if only as {}: calls belong to traces, and the server is told."""

    exporter: Literal["otlp", "console", "none"] = "otlp"
    """otlp: a collector, by OTLP over HTTP (protobuf); needs the extra [otlp]. console: one JSON line a span on
    standard output. none: contexts are passed on, and nothing is recorded here."""

    endpoint: Annotated[str, Meta(max_length=1_024), fit(check_http_url, pattern="^https?://")] | None = None
    """Where the collector is; without a path /v1/traces is added. Absent: http://127.0.0.1:4318."""

    headers: Mapping[HeaderName, HeaderValue] = field(default_factory=lambda: MappingProxyType({}))
    """Sent to the collector, a key for example. Never shown; read again when their files change."""

    ca_file: Annotated[str, Meta(max_length=4_096)] | None = None
    """Certificates of the authorities that vouch for the collector; absent: those that come with the extra."""

    timeout_s: Annotated[float, Meta(ge=0.1, le=60)] = 5.0
    """How long one export may take. No call ever waits for one."""

    sample: Annotated[float, Meta(ge=0, le=1)] = 0.05
    """The share of traces that is recorded. Decided from the trace's id, so that all who keep the same share keep the
    same traces."""

    trust_parent: bool = False
    """true: a caller who says that its trace is recorded is believed. false: it is recorded where its id is in our
    share, and at most so often as `max_claimed_per_s` says. A caller who says that it is not is always believed."""

    max_claimed_per_s: Annotated[int, Meta(ge=0, le=1_000_000)] = 100
    """Calls a second that are recorded in traces that callers began: ids can be chosen to be in our share. Has no
    effect with `trust_parent`."""

    inject_meta: bool = False
    """true: the context is written into `params._meta` of each message, beside the HTTP headers. Every other byte stays
    as it was."""

    service_name: Word = SERVICE
    """What this sidecar is called in traces: resource attribute `service.name`."""

    resource: Mapping[Word, Word] = field(default_factory=lambda: MappingProxyType({}))
    """More resource attributes: {deployment.environment.name: production}."""


def check_traces(settings: TracesSettings) -> None:
    """Raise Unfit where spans could not be sent, or something is never used."""
    if settings.exporter == "otlp":
        if not all(map(_is_installed, _PACKAGES)):
            raise Unfit(
                "needs the package opentelemetry-exporter-otlp-proto-http", "it speaks to collectors", INSTALL
            )
        if settings.ca_file is not None and not (settings.endpoint or ENDPOINT).startswith("https:"):
            why, remedy = "nobody is asked for a certificate without TLS", "write https:// in endpoint"
            raise Unfit("is never read", why, remedy, key="ca_file")
        return
    for name in ("endpoint", "headers", "ca_file"):
        if getattr(settings, name):
            why = f"nothing is sent anywhere by the exporter {settings.exporter}"
            raise Unfit("is never used", why, "remove it, or write exporter: otlp", key=name)


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # of a package above it
        return False


Traces = Annotated[TracesSettings, Meta(extra={"fit": check_traces})]
"""The `traces` section."""
