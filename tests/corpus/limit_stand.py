"""The sidecars that limit: `LimitStand` by itself, `SharedStand` with a store and other replicas, `ElsewhereStand` at
another time and place.

Callers and their allowances are in allowances.py. The runner's own calls are Carol's, of another tenant, for whom
nothing ends.
"""

import json
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from tests.corpus import elsewhere
from tests.corpus.allowances import LOCAL_SHARE, PER_TENANT, QUOTA, TRIES, client_of, limits
from tests.corpus.cases import Case, CorpusError
from tests.corpus.evidence import PASSED, outcome
from tests.corpus.pressure import crowd_of
from tests.corpus.scripts import Script
from tests.corpus.sidecar import Sidecar
from tests.corpus.stand import Around, Listening, Stand, until
from tests.valkey import Valkey

NEVER_ALONE = {"breaker": {"enabled": False}}
"""A thousand answers that are cut off are no reason here to leave the server alone."""
CUTS = 1_000
ENDLESS = {"n": 100_000}
"""Arguments of a stream that nobody waits for the end of."""
BURST = 120
"""More invalid credentials than one address may present."""
POISON = 9_223_372_036_854_775_807
_FREE_S = 1.0
"""After so long the place of a client that has left is free."""
_PATIENCE_S = 10.0
_BEGUN = r'(notifications/message|"reason": ?"\w+")'
_UP = b'"msg":"limits are shared"'


class LimitStand(Stand):
    """One that counts in its own memory, and writes down every moment what was used of quotas."""

    runners_key = "KEY_CAROL"

    def __init__(self, around: Around, name: str, form: str) -> None:
        self._state = around.folder / f"{name}.limits.json"
        self._turns: Counter[str] = Counter()
        self.client = ""
        """Of the case, as which Alice calls."""
        self._streams: list[Listening] = []
        super().__init__(around, name, form)

    async def begin(self) -> None:
        """No tokens are spent before the cases."""

    def sections(self) -> dict[str, Any]:
        return {
            "limits": limits(),
            "capacity": {"per_tenant": PER_TENANT},
            "resilience": NEVER_ALONE,
            "local_state": {"file": str(self._state), "every_s": 0.1},
        }

    def introduce(self, case: Case) -> None:
        """Alice calls with a client of her own for the case, which has used nothing."""
        self._turns[case.id] += 1
        if self._turns[case.id] > TRIES:
            raise CorpusError(f"{case.id} was tried {TRIES} times, and no bucket is left for it")
        self.client = client_of(case.id, self._turns[case.id])
        for name in ("TOK_ALICE", "TOK_TEN_VARIANT"):
            self.around.mint.give(name, self.token(name))

    async def settle(self, case: Case) -> dict[str, Any]:
        for words in (case.title, *case.setup):
            if words in SETUPS:
                return await SETUPS[words](self)
        return {}

    async def leave(self) -> None:
        await self.end_streams()

    def token(self, name: str = "TOK_ALICE", **claims: Any) -> str:
        """A token by a recipe, for the client of the case."""
        return self.around.mint.token(name, client_id=self.client, **claims)

    def call(self, tool: str, arguments: Mapping[str, Any], token: str | None = None) -> bytes:
        """A call of Alice's, or of whoever has the token."""
        params = {"name": tool, "arguments": arguments}
        document = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        bearer = token or self.around.mint.value("TOK_ALICE")
        return self.request(document, {"Authorization": f"Bearer {bearer}"})

    async def tried(self, requests: Sequence[bytes], **how: Any) -> tuple[str, ...]:
        """What became of requests, on four connections or as `crowd_of` is told."""
        how = {"at_once": min(4, len(requests)), **how}
        return tuple(each.outcome for each in await crowd_of([self.sidecar.data_port], requests, **how))

    async def must_pass_unseen(self, tool: str) -> None:
        """The same for a call that is not counted among what the case caused upstream."""
        marker = f"corpus-unseen-{secrets.token_hex(8)}"
        self.around.upstream.expect_barrier(marker.encode())
        await self.must_pass(self.call(tool, {"marker": marker}))

    async def must_pass(self, request: bytes) -> None:
        """Raises CorpusError where it does not: what is refused later says nothing then."""
        said = outcome(next(iter((await self.say(request)).answers), None))
        if said != PASSED:
            raise CorpusError(f"a call that has enough left was refused: {said}")

    async def open_streams(self, count: int) -> tuple[str, ...]:
        """Streams of Alice's that go on until she leaves; whether each has begun, or why not."""
        found = []
        for _ in range(count):
            stream = await self.hold(self.call("stream", ENDLESS), _BEGUN)
            self._streams.append(stream)
            found.append(PASSED if "reason" not in stream.heard else stream.heard.split('"')[3])
        return tuple(found)

    async def end_streams(self, patience_s: float = _PATIENCE_S) -> None:
        """Reset all, and wait until the sidecar has recorded the end of each call, or until the patience ends."""
        going = sum("reason" not in stream.heard for stream in self._streams)
        mark = self.sidecar.log_size()
        for stream in self._streams:
            await stream.close(reset=True)
        self._streams.clear()
        await until(lambda: self.sidecar.log_since(mark).count(b'"tool":"stream"') >= going, patience_s)

    async def buckets(self, wanted: str) -> frozenset[str]:
        """Names of what was counted, once a name that holds `wanted` is among them."""
        await until(lambda: any(wanted in name for name in self.counted()))
        return self.counted()

    def counted(self) -> frozenset[str]:
        """Names of what is counted, as far as that can be seen from outside."""
        lines = self._state.read_text(encoding="ascii").splitlines()[1:] if self._state.exists() else []
        return frozenset(str(json.loads(line)[0]) for line in lines)


class SharedStand(LimitStand):
    """One that counts in a real store, alone or beside a replica whose clock is half a minute ahead."""

    def __init__(self, around: Around, name: str, form: str) -> None:
        self.store = Valkey()
        self.store.start()
        self._second: Sidecar | None = None
        self._killed_at: list[tuple[Sidecar, int]] = []
        super().__init__(around, name, form)

    def sections(self) -> dict[str, Any]:
        # A busy machine makes no outage: longer than the 50 ms that are usual.
        store = {"url": self.store.url, "on_outage": "local", "local_share": LOCAL_SHARE, "timeout_s": 0.5}
        return {"limits": limits(), "shared_state": store, "resilience": NEVER_ALONE}

    async def stop(self, *, politely: bool = True) -> None:
        await super().stop(politely=politely)
        if self._second is not None:
            self._second.stop(politely=politely)
        self.store.kill()

    async def second(self) -> Sidecar:
        """The other replica."""
        if self._second is None:
            clock = self.around.folder / f"{self.name}.clock"
            clock.write_text("+30", encoding="ascii")
            self._second = Sidecar(
                elsewhere.command(clock), self.around.folder, f"{self.name}-second", self.settings
            )
            await self._second.start()
        return self._second

    async def leave(self) -> None:
        """Where the store was killed it is back afterwards, empty, and everybody uses it."""
        await super().leave()
        if self._killed_at:
            self.store.start()
            for sidecar, mark in self._killed_at:
                await self._is_shared(sidecar, mark)
            self._killed_at.clear()

    def kill_store(self) -> None:
        """From now on it refuses connections."""
        sidecars = [self.sidecar, *([] if self._second is None else [self._second])]
        self._killed_at = [(sidecar, sidecar.log_size()) for sidecar in sidecars]
        self.store.kill()

    def poison(self) -> None:
        """What is kept of the quotas of the case's client becomes a number that nobody wrote."""
        names = [name for name in self.counted() if f":{QUOTA}/" in name and name.endswith(self.client)]
        if not names:
            raise CorpusError("the store has no quota of the case")
        for name in names:
            self.store.client.set(name, POISON)

    def counted(self) -> frozenset[str]:
        names = self.store.say("KEYS", "*")
        assert isinstance(names, list)
        return frozenset(name.decode() for name in names if not name.endswith(b":probe"))

    async def _is_shared(self, sidecar: Sidecar, mark: int) -> None:
        if not await until(lambda: _UP in sidecar.log_since(mark)):
            raise CorpusError("the sidecar does not use the store")


class ElsewhereStand(LimitStand):
    """One whose clock the runner sets, and to which connections seem to come from ::1:0/112."""

    def __init__(self, around: Around, name: str, form: str) -> None:
        self._clock = around.folder / f"{name}.clock"
        self._clock.write_text("+0", encoding="ascii")
        self.has_one_network = False
        """Of IPv6, from which all of a case comes."""
        super().__init__(around, name, form)

    def argv(self) -> Sequence[str]:
        return elsewhere.command(self._clock)

    def address(self) -> str:
        found = super().address()
        return found.replace("127.1.", elsewhere.SAME_NETWORK) if self.has_one_network else found

    async def leave(self) -> None:
        await super().leave()
        self.has_one_network = False

    def set_clock(self, moment: str) -> None:
        """It stands still at a moment of ISO 8601."""
        said = self._clock.with_suffix(".new")
        said.write_text(str(datetime.fromisoformat(moment).timestamp()), encoding="ascii")
        said.replace(self._clock)


Setup = Callable[[Any], Awaitable[dict[str, Any]]]


async def two_replicas(stand: SharedStand) -> dict[str, Any]:
    await stand.second()
    return {}


async def all_but_49(stand: LimitStand) -> dict[str, Any]:
    """One heavy call passes."""
    await stand.must_pass(stand.call("heavy", {}))
    return {}


async def full_of_streams(stand: LimitStand) -> dict[str, Any]:
    begun = await stand.open_streams(PER_TENANT)
    if begun != (PASSED,) * PER_TENANT:
        raise CorpusError(f"the streams did not begin: {begun}")
    return {}


async def left_by_streams(stand: LimitStand) -> dict[str, Any]:
    """There was no place, and then everybody left, a second ago at most."""
    await full_of_streams(stand)
    if (await stand.open_streams(1))[0] == PASSED:
        raise CorpusError("there were more places than there should be")
    await stand.end_streams(_FREE_S)
    return {}


async def cut_off(stand: LimitStand) -> dict[str, Any]:
    """Calls whose answers end at every place an answer can."""
    stand.around.upstream.begin(Script(cuts=True), sends_discover=False)
    cut = await stand.tried([stand.call("echo", {"a": "b"})] * CUTS)
    return {"crowds": {"cut": cut}}


async def from_one_network(stand: ElsewhereStand) -> dict[str, Any]:
    """Wrong keys, each from another address of one network, and then one from the network beside it."""
    stand.has_one_network = True
    request = stand.request({"jsonrpc": "2.0", "id": 1, "method": "ping"}, {"X-API-Key": "corpus-nobody.key"})
    sources = [stand.address() for _ in range(BURST)]
    beside = stand.address().replace(elsewhere.SAME_NETWORK, elsewhere.NEXT_NETWORK)
    rotated = await stand.tried([request] * BURST, at_once=1, sources=sources)
    return {
        "crowds": {
            "one network": rotated,
            "another network": await stand.tried([request], sources=[beside]),
        }
    }


async def emptied(stand: LimitStand) -> dict[str, Any]:
    for _ in range(2):
        await stand.must_pass(stand.call("echo", {"a": "b"}))
    return {}


async def last_second(stand: ElsewhereStand) -> dict[str, Any]:
    stand.set_clock("2026-03-28T23:59:59+00:00")
    return {}


async def poisoned(stand: SharedStand) -> dict[str, Any]:
    """The key was there before, as ours."""
    await stand.must_pass(stand.call("echo", {"a": "b"}))
    stand.poison()
    return {}


async def store_gone(stand: SharedStand) -> dict[str, Any]:
    stand.kill_store()
    return {}


SETUPS: Mapping[str, Setup] = {
    "replica 2 under faketime +30s; script uses Redis TIME": two_replicas,
    "cost weight 50 with 49 left": all_but_49,
    "10 streams open": full_of_streams,
    "10 streams open, then all reset": left_by_streams,
    "1 000 calls cut by upstream reset": cut_off,
    "source ::1:N on lo": from_one_network,
    "bucket empty": emptied,
    "faketime 23:59:59Z": last_second,
    "redis: SET quota key 9223372036854775807": poisoned,
    "fault: redis refuses": store_gone,
}
"""What a `setup`, or a title, says was so before the case."""

_SHARED = frozenset({"LIM-007", "LIM-023", "LIM-026"})
_ELSEWHERE = frozenset({"LIM-016", "LIM-022"})


def stand_of(case: Case) -> type[LimitStand] | None:
    """Which of them a case is put to, None where it is not about limits."""
    if case.id in _SHARED:
        return SharedStand
    if case.id in _ELSEWHERE:
        return ElsewhereStand
    return LimitStand if case.category == "limits" or "ping not counted" in case.texts() else None
