"""A call that nobody sent, told to its journey: for what measures those who hear of it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final

from proxy.model import Call, Headers, Kind, Peer, Permit, Principal, Rule
from proxy.protocol.revisions import UNNAMED
from proxy.telemetry.building import Telemetry
from proxy.telemetry.journey import Journeys, Record

ANN: Final = Principal(
    issuer="https://login.example.com/",
    subject="ann@example.com",
    tenant="acme",
    client="agent",
    fingerprint="jwt:0123456789abcdef",
)


def identified(
    journeys: Journeys | Telemetry,
    *,
    target: str,
    arguments: Mapping[str, object],
    rule: Rule,
    headers: Headers,
) -> tuple[Record, Permit]:
    """A journey that knows what is asked and by whom, and the permit it hears of next."""
    record = journeys.open(time.monotonic())
    call = Call(
        revision=UNNAMED,
        kind=Kind.REQUEST,
        id=1,
        method="tools/call",
        target=target,
        params={"arguments": arguments},
        headers=headers,
        received=record.received,
        peer=Peer("10.1.2.3"),
        session="0123456789abcdef0123456789abcdef",
        journey=record,
    )
    record.read(call)
    record.identified(ANN)
    return record, Permit(call=call, principal=ANN, rule=rule)
