"""How long the fuzz tests run: a fixed number of examples, the same ones every time in CI; elsewhere a third of them,
others every time."""

import os
from typing import Final

from hypothesis import HealthCheck, settings

IN_CI: Final = "CI" in os.environ


def examples(in_ci: int) -> int:
    """How many to draw here, of so many in CI. Somebody waits for these, and soon draws as many again."""
    return in_ci if IN_CI else in_ci // 3


FUZZ: Final = settings(
    max_examples=examples(500),
    deadline=None,
    derandomize=IN_CI,
    suppress_health_check=[HealthCheck.too_slow],
)
