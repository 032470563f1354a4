"""What is done with a limit beside its case: floods, crowds, and what is left afterwards. Stand → changes to Evidence.

Sentences and steps are looked up in probes.py.
"""

import asyncio
import secrets
import time
from typing import Any

from tests.corpus.allowances import DAYS, PER_TENANT, TENANTS
from tests.corpus.evidence import PASSED, Evidence
from tests.corpus.limit_stand import BURST, ElsewhereStand, LimitStand, SharedStand
from tests.corpus.pressure import crowd_of, repeated
from tests.corpus.stand import Stand

STRANGERS = 480
"""Of the 50,000 that the corpus asks for, to each of two sidecars: a bucket of each would be seen as well."""
FLOOD = 1_000
"""Of the 10,000 that the corpus asks for: twice what the bucket holds, and then it is empty or nothing was counted."""
AT_ONCE = 200
_FROM_ONE_ADDRESS = 48
"""Invalid credentials that no limit of addresses may end."""
_AROUND_S = 0.05
"""Before and after the boundary."""
_TOGETHER = 5
"""Connections of a burst: fewer than there are places for one tenant."""
_REPLICAS_BURST = 60
_POLL_S = 0.02
_LONGEST_S = 5.0


async def strangers(stand: Stand, sent: bytes) -> dict[str, Any]:
    """Ever new keys that nobody has, to a sidecar by itself and to one with a store; then a call of somebody known.

    Of a sidecar by itself only quotas can be seen from outside, of a store also rates.
    """
    assert isinstance(stand, LimitStand)
    shared = await stand.around.stand(SharedStand, stand.form)
    assert isinstance(shared, SharedStand)
    presented = stand.around.mint.value("RANDOM").encode()
    statuses: list[int] = []
    new = {}
    for place, each in (("memory", stand), ("store", shared)):
        before = each.counted()
        for _ in range(STRANGERS // _FROM_ONE_ADDRESS):
            statuses += await repeated(
                each.sidecar.data_port,
                lambda: sent.replace(presented, _stranger()),
                _FROM_ONE_ADDRESS,
                stand.address(),
            )
        await each.must_pass_unseen("echo")
        new[place] = await each.buckets(stand.client) - before
    return {"repeats": tuple(statuses), "asked": len(new) * STRANGERS, "buckets": new}


def _stranger() -> bytes:
    """A key by its form, or not even that."""
    return secrets.choice((f"{secrets.token_hex(8)}.{secrets.token_hex(16)}", secrets.token_hex(16))).encode()


async def at_the_boundary(stand: Stand, sent: bytes) -> dict[str, Any]:
    """More than a burst just before a second of the clock ends, and once more just after."""
    loop = asyncio.get_running_loop()
    # What is waited for is a moment of the clock: there is no event that comes with it.
    boundary = loop.time() + 1 - time.time() % 1
    if boundary - loop.time() < 0.3:
        boundary += 1
    found = []
    for moment in (boundary - _AROUND_S, boundary + _AROUND_S):
        await asyncio.sleep(moment - loop.time())
        found += await crowd_of([stand.sidecar.data_port], [sent] * 30, at_once=_TOGETHER)
    return {
        "granted_s": tuple((each.sent_at, each.answered_at) for each in found if each.outcome == PASSED),
        "crowds": {"bursts": tuple(each.outcome for each in found)},
    }


async def all_at_once(stand: Stand, sent: bytes) -> dict[str, Any]:
    """As many calls as connections: to one sidecar, and to two that share a store."""
    shared = await stand.around.stand(SharedStand, stand.form)
    assert isinstance(shared, SharedStand)
    pair = [shared.sidecar.data_port, (await shared.second()).data_port]
    # The case itself has taken one where it was sent, so that ten are left there.
    await shared.must_pass(sent)
    crowds = {}
    for name, ports in (("one replica", [stand.sidecar.data_port]), ("two replicas", pair)):
        found = await crowd_of(ports, [sent] * AT_ONCE, at_once=AT_ONCE)
        crowds[name] = tuple(each.outcome for each in found)
    return {"crowds": crowds}


async def flood(stand: Stand, sent: bytes) -> dict[str, Any]:
    """The same message again and again."""
    return {"repeats": await repeated(stand.sidecar.data_port, lambda: sent, FLOOD), "asked": FLOOD}


async def by_turns(stand: Stand, e: Evidence) -> dict[str, Any]:
    """A crowd before two replicas, one of which believes that it is later."""
    assert isinstance(stand, SharedStand)
    ports = [stand.sidecar.data_port, (await stand.second()).data_port]
    found = await crowd_of(ports, [e.sent] * _REPLICAS_BURST)
    return {
        "granted_s": tuple((each.sent_at, each.answered_at) for each in found if each.outcome == PASSED),
        "crowds": {**e.crowds, "two clocks": tuple(each.outcome for each in found)},
    }


async def a_call_afterwards(stand: Stand, e: Evidence) -> dict[str, Any]:
    """Of the caller who sent the flood."""
    assert isinstance(stand, LimitStand)
    return {"crowds": {**e.crowds, "afterwards": await stand.tried([stand.call("echo", {})])}}


async def what_is_left(stand: Stand, e: Evidence) -> dict[str, Any]:
    """Cheap calls until there is nothing left, and some more; one after another."""
    assert isinstance(stand, LimitStand)
    left = await stand.tried([stand.call("echo", {})] * 60, at_once=1)
    return {"crowds": {**e.crowds, "left": left}}


async def the_same_again(stand: Stand, e: Evidence) -> dict[str, Any]:
    """The request of the case, more often than anything of what is left allows; one after another."""
    assert isinstance(stand, LimitStand)
    return {"crowds": {**e.crowds, "again": await stand.tried([e.sent] * 15, at_once=1)}}


async def streams_that_fit(stand: Stand, e: Evidence) -> dict[str, Any]:
    """Streams until there is no place, and one more."""
    assert isinstance(stand, LimitStand)
    return {"crowds": {**e.crowds, "streams": await stand.open_streams(PER_TENANT + 1)}}


async def forged_addresses(stand: Stand, e: Evidence) -> dict[str, Any]:
    """Each call, and each invalid credential, with another forged address before it."""
    assert isinstance(stand, LimitStand)
    forged = e.sent_value("x-forwarded-for")
    calls = [e.sent.replace(forged, b"10.0.1.%d" % number) for number in range(40)]
    ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    wrong = [
        stand.request(
            ping,
            {
                "X-API-Key": "corpus-nobody.key",
                "X-Forwarded-For": f"10.0.2.{number}",
                "Forwarded": f"for=10.1.2.{number}",
            },
        )
        for number in range(BURST)
    ]
    source = stand.address()
    crowds = {
        "forged": await stand.tried(calls),
        "wrong keys": await stand.tried(wrong, at_once=1, sources=[source] * BURST),
    }
    return {"crowds": {**e.crowds, **crowds}}


async def variants(stand: Stand, e: Evidence) -> dict[str, Any]:
    """All that is left for the tenant by its own name, and then a call by each other spelling."""
    assert isinstance(stand, LimitStand)
    tokens = [stand.token(tenant=tenant) for tenant in TENANTS]
    own = await stand.tried([stand.call("echo", {})] * 6, at_once=1)
    others = await stand.tried([stand.call("echo", {}, token) for token in tokens], at_once=1)
    return {"crowds": {**e.crowds, "own name": own, "other spellings": others}}


async def when_refilled(stand: Stand, e: Evidence) -> dict[str, Any]:
    """The request of the case, until it passes."""
    assert isinstance(stand, LimitStand)
    ended = time.monotonic() + _LONGEST_S
    while time.monotonic() < ended:
        if await stand.tried([e.sent]) == (PASSED,):
            return {"refilled_at": time.monotonic()}
        await asyncio.sleep(_POLL_S)
    return {}


async def days(stand: Stand, e: Evidence) -> dict[str, Any]:
    """Calls at each of the moments, more than a day has."""
    assert isinstance(stand, ElsewhereStand)
    crowds = {}
    for moment in DAYS:
        stand.set_clock(moment.at)
        crowds[moment.at] = await stand.tried([e.sent] * 8)
    return {"crowds": {**e.crowds, **crowds}}
