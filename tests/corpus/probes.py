"""What must be asked beside a case, so that a sentence can be judged? Sentence → changes to the Evidence.

A probe runs when its sentence is wanted, after the case, and what it causes upstream is not counted as the case's.
Steps (`then`) are part of the case and run before its record is closed.
"""

import asyncio
import re
import secrets
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from tests.corpus import cache_probes, limit_probes, telemetry_probes, trouble_probes
from tests.corpus.belongings import INITIALIZE
from tests.corpus.cache_stand import SAME_KEY
from tests.corpus.cases import CorpusError
from tests.corpus.checks import telemetry
from tests.corpus.evidence import Evidence, Round
from tests.corpus.fake_server import ALICE, BOB
from tests.corpus.poison_stand import PinStand, WatchStand
from tests.corpus.pressure import repeated, timed
from tests.corpus.stand import Stand
from tests.corpus.tokens import claims_of
from tests.corpus.trouble_stand import MEMORY
from tests.corpus.wire import Fields

Probe = Callable[[Stand, Evidence], Awaitable[dict[str, Any]]]
Step = Callable[[Stand, bytes], Awaitable[dict[str, Any]]]

REPEATS = 2_000
"""Of the 10,000 that the corpus asks for: twice what the bucket of RPC-120 holds, and then it is empty or nothing was
counted."""
INITIALIZES = 2_000
"""Of the 10,000 that the corpus asks for: 2,000 are more than one caller may keep, and what each costs shows."""
GUESSES = 5_000
ROUNDS = 200
TRIES = 1_000
"""Of each kind, of the 20,000 that the corpus asks for."""
_FROM_ONE_ADDRESS = 50
"""Invalid credentials that no limit may end."""
_BURST = 120
"""More invalid credentials than one address may present."""
_DENIED, _PERMITTED = b'"danger"', b'"echo"  '
"""Of one length, which the request may have announced."""
_IGNORED = frozenset({b"content-length", b"transfer-encoding", b"mcp-session-id", b"trailer", b"host"})
_OWN = frozenset({b"content-type", b"accept", b"mcp-protocol-version"})


async def same_with_unknown_session(stand: Stand, e: Evidence) -> dict[str, Any]:
    """The same request with an id of the same shape that nobody ever had."""
    session = e.sent_value("mcp-session-id")
    if not session:
        raise CorpusError("the case names no session to compare with")
    unknown = re.sub(rb"\d", b"9", session) if session.startswith(b"corpus-") else str(uuid.uuid4()).encode()
    exchange = await stand.say(e.sent.replace(session, unknown))
    return {"reference": exchange.answers}


async def who_owns(stand: Stand, e: Evidence) -> dict[str, Any]:
    """Open a session with the headers of the case, and see who is known in it."""
    mint = stand.around.mint
    alice, subject = mint.value("TOK_ALICE"), claims_of(_bearer(e) or mint.value("TOK_ALICE"))["sub"]
    people = {
        "caller": _credentials(e),
        "alice": _bearing(alice),
        "bob": _bearing(mint.value("TOK_BOB")),
        "root": _bearing(mint.value("TOK_ADMIN")),
        "nobody": {},
    }
    if ":" in subject:
        # Whoever would be the same if subject and tenant were only joined.
        left, right = subject.split(":", 1)
        people["shifted left"] = _bearing(mint.token("TOK_ALICE", sub=left, tenant=f"{right}:a"))
        people["shifted right"] = _bearing(mint.token("TOK_ALICE", sub=right, tenant=f"a:{left}"))
    opened = await stand.ask(INITIALIZE, _headers(e))
    found = opened.answers[0].values("mcp-session-id") if opened.answers else ()
    if not found:
        return {"owners": frozenset()}
    owners = set()
    for name, fields in people.items():
        answers = (await stand.ask(_PING, {**fields, "Mcp-Session-Id": found[0].decode("latin-1")})).answers
        if answers and answers[0].status == 200:
            owners.add(name)
    return {"owners": frozenset(owners)}


async def who_is_counted(stand: Stand, e: Evidence) -> dict[str, Any]:
    """Invalid credentials with ever new values of the headers the case adds: one address presents them all."""
    owned = await who_owns(stand, e)
    spoofed = {
        name.decode(): value.decode()
        for name, value in e.sent_fields
        if name.lower() not in _IGNORED | _OWN | {b"authorization", b"x-api-key"}
    }
    requests = []
    for number in range(_BURST):
        fields = {name: f"{value}{number}" for name, value in spoofed.items()}
        fields["X-API-Key"] = f"corpus-nobody.{secrets.token_hex(8)}"
        requests.append(stand.request(INITIALIZE, fields))
    answered = await timed(stand.sidecar.data_port, requests, stand.address())
    return {**owned, "burst": tuple(status for status, _ in answered)}


async def same_with_permitted_tool(stand: Stand, e: Evidence) -> dict[str, Any]:
    """The same request for `echo`, to the byte: what goes with a call is seen only where one may pass."""
    if _DENIED not in e.sent:
        raise CorpusError("the case calls no tool that is denied")
    stand.around.upstream.begin(None, sends_discover=False)
    await stand.say(e.sent.replace(_DENIED, _PERMITTED))
    return {"permitted": stand.around.upstream.take()[0]}


async def good_calls(stand: Stand, e: Evidence) -> dict[str, Any]:
    """Calls that present a token, a key and a cookie, each in its own way, and what upstream gets of them."""
    mint, upstream = stand.around.mint, stand.around.upstream
    cookie = f"session={secrets.token_hex(16)}"
    token, key = mint.value("TOK_ALICE"), mint.value("KEY_ALICE")
    upstream.begin(None, sends_discover=False)
    for fields in (
        {"Authorization": f"bearer  {token}"},
        {"X-API-Key": key},
        {**_bearing(token), "Cookie": cookie},
        {"X-API-Key": key, "Cookie": cookie},
    ):
        await stand.ask(_ECHO, fields)
    received, received_bytes = upstream.take()
    return {
        "presented": (token.encode(), key.encode(), cookie.partition("=")[2].encode()),
        "presented_upstream": received_bytes,
        "presented_calls": len(received),
    }


async def time_of_keys(stand: Stand, e: Evidence) -> dict[str, Any]:
    """A nearly right and a wholly wrong key by turns, fifty from each address so that no limit speaks."""
    near = e.sent_value("x-api-key").decode()
    far = f"{secrets.token_hex(8)}.{secrets.token_hex(len(near))}"[: len(near)]
    pair = [stand.request(_ECHO, {"X-API-Key": key}) for key in (near, far)]
    found: list[tuple[int, float]] = []
    for _ in range(2 * TRIES // _FROM_ONE_ADDRESS):
        found += await timed(stand.sidecar.data_port, pair * (_FROM_ONE_ADDRESS // 2), stand.address())
    if any(status != 401 for status, _ in found):
        raise CorpusError(f"keys were answered with {sorted({status for status, _ in found})}")
    return {
        "near_s": tuple(took_s for _, took_s in found[::2]),
        "far_s": tuple(took_s for _, took_s in found[1::2]),
    }


async def waits(stand: Stand, e: Evidence) -> dict[str, Any]:
    """How long another caller waits while the provider does not answer."""
    loop = asyncio.get_running_loop()
    asked = loop.time()
    answered = await stand.barrier()
    return {"valid_client_s": loop.time() - asked if answered else None}


async def call_what_was_offered(stand: Stand, e: Evidence) -> dict[str, Any]:
    """Call each tool of the odd list by its name, shown or not, and see whom that leads into the trap."""
    assert isinstance(stand, WatchStand)
    idp, upstream = stand.around.idp, stand.around.upstream
    shown = [tool["name"] for tool in e.tools_shown or ()]
    fallen = len(idp.trapped)
    upstream.begin(None, sends_discover=False)
    names = dict.fromkeys(str(tool["name"]) for tool in e.offered)
    row = tuple([await stand.called(ALICE, name, shown.count(name)) for name in names])
    return {"attempts": (row,), "trapped": (*e.trapped, *idp.trapped[fallen:])}


async def each_in_turn(stand: Stand, e: Evidence) -> dict[str, Any]:
    """Alice and Bob list and call by turns: where she was the first, and where he is."""
    assert isinstance(stand, PinStand)
    script = stand.setup.rug_pull
    fresh = PinStand(stand.around, "own-turned", stand.form, stand.setup)
    try:
        await fresh.start()
        stand.around.upstream.begin(script, sends_discover=False)
        rows = [
            tuple([await one.attempt(who, "echo") for who in order])
            for one, order in ((stand, (ALICE, BOB, ALICE, BOB)), (fresh, (BOB, ALICE, BOB, ALICE)))
        ]
    finally:
        await fresh.stop(politely=False)
    return {"attempts": tuple(rows)}


PROBES: Mapping[str, Probe] = {
    "listed": call_what_was_offered,
    "two look-alike tools listed": call_what_was_offered,
    "second definition wins silently": call_what_was_offered,
    "description above the cap (fixture 8 kB) passed on": call_what_was_offered,
    "tool kept; header name used": call_what_was_offered,
    "$ref fetched": call_what_was_offered,
    "hash compared only for the first caller": each_in_turn,
    "session existence revealed by a different answer": same_with_unknown_session,
    "header forwarded upstream": same_with_permitted_tool,
    "bound to the only live session": same_with_permitted_tool,
    "used for identity, limit key or IP rule": who_is_counted,
    "call treated as anonymous": who_owns,
    'key "a:b"+"c" equals "a"+"b:c"': who_owns,
    "Authorization of the client seen upstream": good_calls,
    "median differs from a fully wrong key by > 3 sigma over 20 000 tries": time_of_keys,
    "other requests wait": waits,
    "sum over replicas above limit": limit_probes.by_turns,
    "partial charge kept": limit_probes.what_is_left,
    "quota grows": limit_probes.the_same_again,
    "slot leak": limit_probes.streams_that_fit,
    "limit per forged address": limit_probes.forged_addresses,
    "fresh quota for a variant of the same tenant": limit_probes.variants,
    "Retry-After within 1 s of the true refill": limit_probes.when_refilled,
    "not counted": limit_probes.a_call_afterwards,
    "ping not counted": limit_probes.a_call_afterwards,
    # "reset in local time with DST" is seen by it too.
    "double quota in the overlap": limit_probes.days,
    "int wrap or parse error allows": limit_probes.the_same_again,
    "no local fallback limit": limit_probes.the_same_again,
    "stored": cache_probes.without_wish,
    "stored; RSS +64 MB": cache_probes.huge_again,
    "value stored under a key that lacks inject": cache_probes.without_inject,
    "object unpickled": cache_probes.looks,
    SAME_KEY: cache_probes.almost_the_same,
    MEMORY: trouble_probes.peak,
    "slot, task or connection leak": trouble_probes.all_places,
    "filters skipped because the type is unknown": trouble_probes.with_a_command,
    "filter skipped": trouble_probes.with_a_command,
    "event not seen by the filter but seen by the client": trouble_probes.with_a_command,
    "filter and client disagree": trouble_probes.with_a_command,
    "first event skips the filter": trouble_probes.with_a_command,
    "cookie sent with the next request of Bob": trouble_probes.others_call,
    "replay mixes streams": trouble_probes.goes_on,
    **dict.fromkeys(telemetry.TABLE, telemetry_probes.told),
    telemetry.FORCED: telemetry_probes.claims,
    telemetry.DISORDERED: telemetry_probes.verified,
}


async def many_times(stand: Stand, sent: bytes) -> dict[str, Any]:
    """The same request again and again; in the second form, whose refusals only look otherwise, a tenth as often."""
    times = REPEATS if stand.form == "http" else REPEATS // 10
    codes = await repeated(stand.sidecar.data_port, lambda: sent, times)
    return {"repeats": codes, "asked": times}


async def many_sessions(stand: Stand, sent: bytes) -> dict[str, Any]:
    """As many sessions of one principal, and what they cost."""
    token = {"Authorization": f"Bearer {stand.around.mint.value('TOK_ALICE')}"}
    opened = (await stand.ask(INITIALIZE, token)).answers
    first = opened[0].values("mcp-session-id")[0].decode("latin-1") if opened else ""
    await repeated(stand.sidecar.data_port, lambda: sent, INITIALIZES // 10)
    rss = stand.sidecar.rss_bytes()
    codes = await repeated(stand.sidecar.data_port, lambda: sent, INITIALIZES)
    growth = stand.sidecar.rss_bytes() - rss
    used = (await stand.ask(_PING, {**token, "Mcp-Session-Id": first})).answers
    return {
        "repeats": codes,
        "asked": INITIALIZES,
        "rss_growth_bytes": growth,
        "is_first_forgotten": bool(used) and used[0].status == 404,
    }


async def guesses(stand: Stand, sent: bytes) -> dict[str, Any]:
    """Ever new random tokens, and how many lines they leave."""
    guessed = stand.around.mint.value("RANDOM").encode()
    mark = stand.sidecar.log_size()
    codes = await repeated(
        stand.sidecar.data_port,
        lambda: sent.replace(guessed, secrets.token_hex(16).encode()),
        GUESSES,
        stand.address(),
    )
    return {"repeats": codes, "asked": GUESSES, "log_lines": stand.sidecar.log_since(mark).count(b"\n")}


async def race(stand: Stand, sent: bytes) -> dict[str, Any]:
    """DELETE and the call at the same moment, each time in a session of its own."""
    around = stand.around
    token = {"Authorization": f"Bearer {around.mint.value('TOK_ALICE')}"}
    sid = around.mint.value("SID_ALICE").encode()
    rounds = []
    for _ in range(ROUNDS):
        opened = (await stand.ask(INITIALIZE, token)).answers
        session = opened[0].values("mcp-session-id")[0] if opened else b""
        end = f"DELETE /mcp HTTP/1.1\r\nHost: {around.host}\r\nMCP-Protocol-Version: 2025-11-25\r\n"
        end += f"Authorization: {token['Authorization']}\r\nMcp-Session-Id: {session.decode()}\r\n\r\n"
        around.upstream.begin(None, sends_discover=False)
        called, _ = await asyncio.gather(stand.say(sent.replace(sid, session)), stand.say(end.encode()))
        calls = [one for one in around.upstream.take()[0] if one.method == "POST"]
        status = called.answers[0].status if called.answers else None
        rounds.append(Round(status=status, executed=len(calls)))
    return {
        "rounds": tuple(rounds),
        "asked": ROUNDS,
        "repeats": tuple(each.status for each in rounds if each.status is not None),
    }


STEPS: Mapping[str, Step] = {
    "10 000 times": many_times,
    "repeat 10 000": many_sessions,
    "5 000 tries": guesses,
    "DELETE of the same session at the same time, 200 rounds": race,
    "50 000": limit_probes.strangers,
    "10 000": limit_probes.flood,
    "100 000; cap 32 MiB": cache_probes.many_keys,
    "Bob asks 400 ms later on the same pool": trouble_probes.bob_asks,
    "100 rps meanwhile; then 200 within 2 s of recovery": trouble_probes.outage,
    "200 in parallel, one replica; again with two replicas and Redis": limit_probes.all_at_once,
    "send full burst 50 ms before and 50 ms after the boundary; count in sliding windows": (
        limit_probes.at_the_boundary
    ),
}

_PING = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
_ECHO = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "tools/call",
    "params": {"name": "echo", "arguments": {"a": "b"}},
}


def _bearing(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def _bearer(e: Evidence) -> str | None:
    found = _credentials(e).get("Authorization", "")
    return found.removeprefix("Bearer ") or None


def _credentials(e: Evidence) -> dict[str, str]:
    return {
        name.decode(): value.decode("latin-1")
        for name, value in e.sent_fields
        if name.lower() in {b"authorization", b"x-api-key"}
    }


def _headers(e: Evidence) -> dict[str, str]:
    """The headers of the case, without what frames its body or names a session."""
    fields: Fields = e.sent_fields
    return {
        name.decode("latin-1"): value.decode("latin-1")
        for name, value in fields
        if name.lower() not in _IGNORED | _OWN
    }
