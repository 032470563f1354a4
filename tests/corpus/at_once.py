"""`python -m proxy`, but that no line of a call waits for others: which lines a case has caused is told by when they
were written. What gathers them has tests of its own (tests/unit/telemetry/test_output.py)."""

import sys

from proxy.__main__ import main
from proxy.telemetry import output

if __name__ == "__main__":
    output.GATHER_BYTES = 0  # type: ignore[misc]
    sys.exit(main())
