"""Where are probes and metrics served? The `operations` section."""

from typing import Final

from msgspec import Struct, field

from ..configuration.values import Address

DEFAULT_ADDRESS: Final = Address("127.0.0.1", 9901)


class OperationsSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Probes and metrics: no tenant's data, no secrets, no authentication."""

    address: Address = field(default_factory=lambda: DEFAULT_ADDRESS)
    """HOST:PORT of /healthz, /readyz, /startupz and /metrics. A kubelet needs 0.0.0.0:9901."""
