"""Which revisions of MCP do we read? One module each; this is the ordered register.

A sixth revision is one module here and one line in `REGISTER`; what it can do is said in capabilities.
"""

from typing import Final

from ...model import Revision
from .r2024_11_05 import R2024_11_05
from .r2025_03_26 import R2025_03_26
from .r2025_06_18 import R2025_06_18
from .r2025_11_25 import R2025_11_25
from .r2026_07_28 import R2026_07_28

REGISTER: Final[tuple[Revision, ...]] = (R2024_11_05, R2025_03_26, R2025_06_18, R2025_11_25, R2026_07_28)
"""Oldest first."""

BY_NAME: Final = {revision.name: revision for revision in REGISTER}

UNNAMED: Final = R2025_03_26
"""A request without a version header: "the server SHOULD assume 2025-03-26" (2025-06-18, basic/transports)."""

TWO_ENDPOINTS: Final = R2024_11_05
"""What HTTP+SSE speaks; its wire never names a version."""

NEWEST: Final = REGISTER[-1]


def supported(*, modern: bool | None = None) -> list[str]:
    """Version names, oldest first; of one era, or of both."""
    return [each.name for each in REGISTER if modern is None or each.is_modern == modern]
