"""What the sidecar can do that faults wait for: "retries", "deadlines", "breaker".

Whoever wires one of them into the product adds its word here. Faults that need it begin to run then, and those that
only show what is missing without it stop.
"""

from __future__ import annotations

from typing import Final

WIRED: Final[frozenset[str]] = frozenset()
