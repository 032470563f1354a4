"""What is asked beside a case whose server is in trouble: what became of others, and of what was opened.

Sentences and steps are looked up in probes.py.
"""

import asyncio
import re
from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from tests.corpus.cases import CorpusError
from tests.corpus.evidence import PASSED, Evidence, Outage, entries_in, outcome
from tests.corpus.poison_stand import WatchStand
from tests.corpus.scripts import Script, script_of
from tests.corpus.stand import Stand, until
from tests.corpus.trouble_stand import COMMAND, PLACES, OutageStand, TroubleStand

ROUNDS, EACH = 15, 10
"""A tenth of a second each: 1.5 s of the 30 s that the corpus asks for, with a tenth of what a server is usually left
alone for."""
_ROUND_S = 0.1
_BEFORE = 2
"""Further ones, in which the server is found to fail."""
_UNTIL_BOB_S = 0.25
"""After the answer that nobody asked for, which comes 150 ms after the one that somebody did."""
_LONGEST_S = 5.0
_LENGTH = re.compile(rb"(?i)(\r\ncontent-length: *)(\d+)")


async def with_a_command(stand: Stand, e: Evidence) -> dict[str, Any]:
    """The same request to a sidecar that masks commands, while the server says one in the form of the case."""
    other = await stand.around.stand(WatchStand, stand.form)
    # Its tools are checked against what it has seen listed.
    await other.settle(e.case)
    script = script_of(e.case, "")
    assert script is not None
    assert isinstance(script.send, bytes)
    text = b'"content":[{"type":"text","text":"%b"}]' % COMMAND
    assert script.send.count(b'"content":[]') == 1
    said = script.send.replace(b'"content":[]', text)
    more = len(said) - len(script.send)
    said = _LENGTH.sub(lambda match: match[1] + b"%d" % (int(match[2]) + more), said, count=1)
    other.around.upstream.begin(replace(script, send=said), sends_discover=False)
    answers = (await other.say(e.sent)).answers
    if not other.around.upstream.take()[0]:
        raise CorpusError("the server was not asked, and said nothing that must not pass")
    return {"filtered": answers}


async def peak(stand: Stand, e: Evidence) -> dict[str, Any]:
    """The most memory that it took since the case began."""
    return {"rss_growth_bytes": (e.rss_growth_bytes or 0) + stand.sidecar.peak_rss_bytes()}


async def others_call(stand: Stand, e: Evidence) -> dict[str, Any]:
    """Bob's next call, and then Alice's: what arrives of them."""
    assert isinstance(stand, TroubleStand)
    stand.around.upstream.begin(None, sends_discover=False)
    for who in ("TOK_BOB", "TOK_ALICE"):
        await stand.say(stand.call({}, who))
    return {"later": stand.around.upstream.take()[0]}


async def all_places(stand: Stand, e: Evidence) -> dict[str, Any]:
    """As many of the same as there are places, all at once; and then as many that are answered."""
    assert isinstance(stand, TroubleStand)
    upstream, sidecar = stand.around.upstream, stand.sidecar
    fds = sidecar.open_fds()
    upstream.begin(script_of(e.case, ""), sends_discover=False)
    same = await stand.at_once([e.sent] * PLACES)
    await until(lambda: not upstream.hanging)
    hanging = upstream.hanging
    upstream.begin(None, sends_discover=False)
    after = await stand.at_once([stand.call({})] * PLACES)
    await until(lambda: sidecar.open_fds() <= fds + PLACES, 2.0)
    crowds = {
        "same": tuple(each.outcome for each in same),
        "afterwards": tuple(each.outcome for each in after),
    }
    return {"crowds": crowds, "hanging": hanging, "fds_growth": sidecar.open_fds() - fds}


async def goes_on(stand: Stand, e: Evidence) -> dict[str, Any]:
    """Alice and Bob are each told something under the same event id, and go on behind it."""
    assert isinstance(stand, TroubleStand)
    upstream, mint = stand.around.upstream, stand.around.mint
    script = script_of(e.case, "")
    assert script is not None
    assert isinstance(script.send, bytes)
    names = {"alice": "TOK_ALICE", "bob": "TOK_BOB"}
    for who, token in names.items():
        own = script.send.replace(b'"content":[]', b'"content":["for %b"]' % who.encode())
        upstream.begin(Script(send=own, then=script.then), sends_discover=False)
        await stand.say(stand.call({}, token))
    upstream.begin(None, sends_discover=False)
    replayed = {}
    for who, token in names.items():
        lines = [
            "GET /mcp HTTP/1.1",
            f"Host: {stand.around.host}",
            "Accept: text/event-stream",
            "MCP-Protocol-Version: 2025-11-25",
            f"Authorization: Bearer {mint.value(token)}",
            "Last-Event-ID: 1",
        ]
        replayed[who] = (await stand.say("\r\n".join(lines).encode() + b"\r\n\r\n")).received
    return {"replayed": replayed}


async def bob_asks(stand: Stand, sent: bytes) -> dict[str, Any]:
    """On the connection on which an answer came that nobody had asked for."""
    assert isinstance(stand, TroubleStand)
    upstream = stand.around.upstream
    if not await until(lambda: upstream.has_pushed):
        return {}
    # It has been written, and the sidecar has had as long to read it as the corpus says.
    await asyncio.sleep(_UNTIL_BOB_S)
    return {"twin_received": (await stand.say(stand.call({}, "TOK_BOB"))).received}


async def outage(stand: Stand, sent: bytes) -> dict[str, Any]:
    """A hundred calls a second while nobody listens, and then until one passes."""
    assert isinstance(stand, OutageStand)
    loop, sidecar = asyncio.get_running_loop(), stand.sidecar
    outcomes: list[str] = []

    async def some(rounds: int) -> None:
        began = loop.time()
        for number in range(1, rounds + 1):
            outcomes.extend(each.outcome for each in await stand.at_once([sent] * EACH))
            # A rate is what is asked for: there is no event that comes with it.
            await asyncio.sleep(began + number * _ROUND_S - loop.time())

    mark = sidecar.log_size()
    await some(_BEFORE)
    # What was under way when the server was left alone is no probe.
    await until(lambda: len(_calls(sidecar.log_since(mark))) >= len(outcomes))
    mark, began, before = sidecar.log_size(), loop.time(), len(outcomes)
    await some(ROUNDS)
    length_s = loop.time() - began
    await until(lambda: len(_calls(sidecar.log_since(mark))) >= len(outcomes) - before)
    probes = sum(int(line["attempts"]) for line in _calls(sidecar.log_since(mark)))
    await stand.server.start()
    back = loop.time()
    while not (is_back := await _passes(stand, sent)) and loop.time() < back + _LONGEST_S:
        pass
    return {
        "outage": Outage(
            length_s=length_s,
            outcomes=tuple(outcomes),
            probes=probes,
            back_s=loop.time() - back if is_back else None,
        )
    }


async def _passes(stand: Stand, sent: bytes) -> bool:
    answer = next(iter((await stand.say(sent)).answers), None)
    return outcome(answer) == PASSED


def _calls(log: bytes) -> list[Mapping[str, Any]]:
    return [line for line in entries_in(log) if line.get("tool") == "echo"]
