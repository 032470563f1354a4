"""Did the sidecar change an answer of the suite? Two output folders in, the differences out.

The suite writes one folder per scenario, ``<scenario>-<time>/checks.json``: a list of checks, each with an
``id`` and a ``status``. Per scenario the two runs must hold the same checks with the same statuses, equally
often; order, times and details may differ, and INFO entries are remarks, not results.

    python -m tests.conformance.compare DIRECT PROXIED      # exit 1 where they differ
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

Checks = Counter[tuple[str, str]]
"""How often a (check id, status) occurred in one scenario."""

Outcome = Mapping[str, Checks]
"""The checks of each scenario of one run."""

_TIME = re.compile(r"-\d{4}-\d{2}-\d{2}T\d{2}-\d{2}-\d{2}-\d+Z$")


@dataclass(frozen=True, order=True)
class Difference:
    """A check that came out otherwise, or more or less often, through the sidecar."""

    scenario: str
    check: str
    status: str
    direct: int
    proxied: int

    def __str__(self) -> str:
        return f"{self.scenario}: {self.check} {self.status}: {self.direct}x direct, {self.proxied}x proxied"


@dataclass(frozen=True)
class Totals:
    """What a run amounts to: ``failed`` counts what makes the suite itself exit 1."""

    scenarios: int
    passed: int
    failed: int


def read(folder: Path) -> dict[str, Checks]:
    """Read the output folder of one run.

    Raises:
        ValueError: one scenario is there twice, so the folder holds more than one run.
    """
    outcome: dict[str, Checks] = {}
    for file in sorted(folder.rglob("checks.json")):
        scenario = _TIME.sub("", file.parent.relative_to(folder).as_posix())
        if scenario in outcome:
            raise ValueError(f"{folder}: {scenario} was run twice; give every run a folder of its own")
        checks = json.loads(file.read_text(encoding="utf-8"))
        outcome[scenario] = Counter((c["id"], c["status"]) for c in checks if c["status"] != "INFO")
    return outcome


def differences(direct: Outcome, proxied: Outcome) -> list[Difference]:
    """List what differs, sorted; empty means the sidecar was transparent.

    A scenario that only one run holds differs in all its checks; where it has none, in its presence.
    """
    found = []
    for scenario in direct.keys() | proxied.keys():
        ours, theirs = direct.get(scenario, Counter()), proxied.get(scenario, Counter())
        found += [
            Difference(scenario, check, status, ours[check, status], theirs[check, status])
            for check, status in ours.keys() | theirs.keys()
            if ours[check, status] != theirs[check, status]
        ]
        if not ours and not theirs and (scenario in direct) != (scenario in proxied):
            found.append(
                Difference(
                    scenario, "(the scenario)", "RUN", int(scenario in direct), int(scenario in proxied)
                )
            )
    return sorted(found)


def totals(outcome: Outcome) -> Totals:
    statuses: Counter[str] = Counter()
    for checks in outcome.values():
        for (_, status), times in checks.items():
            statuses[status] += times
    return Totals(len(outcome), statuses["SUCCESS"], statuses["FAILURE"] + statuses["WARNING"])


def main(arguments: list[str]) -> int:
    if len(arguments) != 2:
        print(f"usage: python -m {__spec__.name} DIRECT PROXIED", file=sys.stderr)
        return 2
    direct, proxied = (read(Path(folder)) for folder in arguments)
    found = differences(direct, proxied)
    print(*found, f"direct   {totals(direct)}", f"proxied  {totals(proxied)}", sep="\n")
    return 1 if found or not direct else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
