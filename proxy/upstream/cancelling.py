"""How is the server told that nobody waits for a call any more? A call in, the notification about it out. Pure.

Source: basic/utilities/cancellation of 2024-11-05 to 2025-11-25; in 2026-07-28 whoever leaves has cancelled.
"""

from __future__ import annotations

import json
from typing import Final

from msgspec import structs

from ..model import Call, Kind

CANCELLED: Final = "notifications/cancelled"
_REASON: Final = "It took too long."


def cancellation(call: Call) -> Call:
    """`notifications/cancelled` for a request, in its session, with a journey that nobody hears of."""
    params = {"requestId": call.id, "reason": _REASON}
    told = {"jsonrpc": "2.0", "method": CANCELLED, "params": params}
    return structs.replace(
        call,
        kind=Kind.NOTIFICATION,
        id=None,
        method=CANCELLED,
        target=None,
        params=params,
        body=json.dumps(told).encode("ascii"),
        parts=(),
        last_event_id=None,
        journey=call.journey.sibling(),
    )
