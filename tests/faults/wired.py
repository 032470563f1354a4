"""What the sidecar can do, and what is known to be wrong with it: both decide what the laboratory asks for.

Faults that need something begin to run when it is there, and those that only show what is missing without it stop.
"""

from __future__ import annotations

from typing import Final

from proxy.settings import Settings

WIRED: Final[frozenset[str]] = (
    frozenset({"retries", "deadlines", "breaker"})
    if "resilience" in Settings.__struct_fields__
    else frozenset()
)

UNSAID_CLOSE: Final = False
"""A stream that ends with the sidecar's own last word is followed by the end of its connection, which no head has
announced: whoever calls again on it at once is cut, although nothing of the call was read."""
ERROR_STATUS_IS_OK: Final = False
"""A call that the server answers with an HTTP error and no JSON-RPC is written down as "ok"."""
DOUBTED_ANSWER: Final = False
"""A stream that breaks behind the whole answer: the caller has it, and "outcome_unknown" is written down."""
UNENDED_ANSWER: Final = True
"""An answer without its blank line at the proper end of a stream: clients drop it and are told nothing, and "ok" is
written down."""
# Each of these is allowed for while it is True: whoever mends one makes it False, and sees that it holds.
