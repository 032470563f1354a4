"""Where do we listen, and how much do we take? The `listen` section: address, TLS, names, caps and timeouts."""

from typing import Annotated, Final, Literal

from msgspec import Meta, Struct, field

from ..configuration.mistakes import Unfit
from ..configuration.values import Address, check_host_name, check_origin, check_path, fit

DEFAULT_ADDRESS: Final = Address("127.0.0.1", 8080)


def check_file(path: str) -> None:
    """Raise Unfit unless this can be the path of a file."""
    if not path.strip() or not path.isprintable():
        # A path is shown in messages; the content of a key file must not get there.
        raise Unfit("is no path", "the file is read by its name", "write the path itself, without ${file:…}")


HostName = Annotated[str, fit(check_host_name)]
Origin = Annotated[str, fit(check_origin)]
ExactPath = Annotated[str, fit(check_path, pattern="^/")]
StructuralBytes = Annotated[int, Meta(ge=256, le=1_048_576)]
BodyBytes = Annotated[int, Meta(ge=1, le=1_073_741_824)]
Timeout = Annotated[float, Meta(gt=0, le=3600)]
File = Annotated[str, Meta(max_length=4096), fit(check_file)]


class TlsSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Certificates of the data port. All files are PEM, and are read again when one of them changes."""

    certificate_file: File
    """Our certificate, followed by those between it and its root."""

    key_file: File
    """The private key of the certificate, not encrypted."""

    client_ca_file: File | None = None
    """Certificate authorities of clients, and no others are believed. Each of them may name any client.
    Absent: no certificate is asked for."""

    client_certificate: Literal["required", "optional"] | None = None
    """Whether clients without a certificate are let in, to prove who they are by other means. Needs
    client_ca_file; absent: required."""

    minimum_version: Literal["1.2", "1.3"] = "1.2"
    """The oldest version of TLS that is spoken."""


class ListenSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The side that faces the client."""

    address: Address = field(default_factory=lambda: DEFAULT_ADDRESS)
    """HOST:PORT of the data port. Beyond loopback an authenticator must be listed."""

    reuse_port: bool = False
    """Whether another process of the same user may listen at the same addresses, of this port and of probes: one that
    takes over. Linux shares connections among them while both listen."""

    tls: TlsSettings | None = None
    """Absent: plain HTTP, for loopback and for a mesh that brings its own TLS."""

    path: ExactPath = "/mcp"
    """The one path that speaks MCP, compared exactly."""

    allowed_hosts: tuple[HostName, ...] = ()
    """Names a Host header may hold, without port. Empty: loopback names and the listening address."""

    allowed_origins: tuple[Origin, ...] = ()
    """Origins of web pages that may call, as browsers send them. Empty: none."""

    max_body_bytes: BodyBytes = 4_194_304
    """Longest request body."""

    max_structural_bytes: StructuralBytes = 65_536
    """Most brackets and commas (`{`, `[` and `,` outside strings) of a request body. Parsing holds up every other
    call by structure, not by size: up to 0.8 ms for a thousand of them."""

    head_timeout_s: Timeout = 10.0
    """How long a request's head may take to arrive."""

    body_timeout_s: Timeout = 30.0
    """How long a request's body may take to arrive."""

    write_idle_timeout_s: Timeout = 30.0
    """How long a client may take nothing of an answer that waits for it."""
