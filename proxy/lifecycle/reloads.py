"""Is what the settings say in force? Counts reloads, for operators.

In: how each reload ended. Out: whether the last one went well. Keeps how many there were.
"""

from __future__ import annotations

from collections.abc import Sequence

FAILED = "the settings as they are now cannot be put into force; those of before are"


class Reloads:
    """Fulfils `probes.Part`."""

    def __init__(self) -> None:
        self.succeeded = 0
        self.failed = 0
        self.is_current = True
        """The last one went well, or there was none: `config_last_reload_successful`."""

    def ended(self, *, well: bool) -> None:
        self.is_current = well
        if well:
            self.succeeded += 1
        else:
            self.failed += 1

    def why_unready(self) -> str | None:
        """Never: calls are served as before."""
        return None

    def why_degraded(self) -> Sequence[str]:
        return () if self.is_current else (FAILED,)
