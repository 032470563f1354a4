"""Where do we listen, and how much do we take? The `listen` section: address, names, caps and timeouts."""

from typing import Annotated, Final

from msgspec import Meta, Struct, field

from ..configuration.values import Address, check_host_name, check_origin, check_path, fit

DEFAULT_ADDRESS: Final = Address("127.0.0.1", 8080)

HostName = Annotated[str, fit(check_host_name)]
Origin = Annotated[str, fit(check_origin)]
ExactPath = Annotated[str, fit(check_path, pattern="^/")]
BodyBytes = Annotated[int, Meta(ge=1, le=1_073_741_824)]
Timeout = Annotated[float, Meta(gt=0, le=3600)]


class ListenSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The side that faces the client."""

    address: Address = field(default_factory=lambda: DEFAULT_ADDRESS)
    """HOST:PORT of the data port. Beyond loopback an authenticator must be listed."""

    path: ExactPath = "/mcp"
    """The one path that speaks MCP, compared exactly."""

    allowed_hosts: tuple[HostName, ...] = ()
    """Names a Host header may hold, without port. Empty: loopback names and the listening address."""

    allowed_origins: tuple[Origin, ...] = ()
    """Origins of web pages that may call, as browsers send them. Empty: none."""

    max_body_bytes: BodyBytes = 4_194_304
    """Longest request body."""

    head_timeout_s: Timeout = 10.0
    """How long a request's head may take to arrive."""

    body_timeout_s: Timeout = 30.0
    """How long a request's body may take to arrive."""

    write_idle_timeout_s: Timeout = 30.0
    """How long a client may take nothing of an answer that waits for it."""
