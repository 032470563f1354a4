"""How long the fuzz tests run: a fixed number of examples, the same ones every time in CI."""

import os
from typing import Final

from hypothesis import HealthCheck, settings

FUZZ: Final = settings(
    max_examples=500,
    deadline=None,
    derandomize="CI" in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
)
