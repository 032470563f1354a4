"""Runs one case after another against real sidecar processes and says how each went. Case → Verdict.

Two sidecars stand in front of one fake upstream: one refuses with HTTP statuses, as the corpus is written,
one in the default form. A case that the first one refused is put to the second as well. A case whose setup
changes the identity provider or the sidecar gets one of its own.
"""

import asyncio
import itertools
import json
import resource
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from tests.corpus import (
    cache_stand,
    checks,
    client,
    expectations,
    limit_stand,
    pressure,
    telemetry_stand,
    trouble_stand,
)
from tests.corpus.allowances import TRIES
from tests.corpus.approved import Approved
from tests.corpus.belongings import Belongings, named_in
from tests.corpus.cases import Case, Corpus, CorpusError
from tests.corpus.checks.reloads import REFUSED_RELOAD
from tests.corpus.client import Exchange, Sending
from tests.corpus.config_bench import ConfigBench
from tests.corpus.deferred import Deferred
from tests.corpus.evidence import Evidence
from tests.corpus.fake_server import WHO
from tests.corpus.fake_upstream import FakeUpstream
from tests.corpus.idp import Idp, setup_of
from tests.corpus.limit_stand import ENDLESS
from tests.corpus.mint import Mint
from tests.corpus.poison_stand import PinStand, WatchStand
from tests.corpus.prober import Prober
from tests.corpus.probes import PROBES, STEPS
from tests.corpus.reload_stand import SCENES, ReloadStand
from tests.corpus.scripts import script_of
from tests.corpus.sidecar import CREDENTIALS, SidecarError, command, limits, metrics_of
from tests.corpus.stand import Around, SseStand, Stand
from tests.corpus.tokens import claims_of

CATEGORIES = frozenset(
    {
        "http-framing",
        "http-path",
        "http-encoding",
        "http-slow",
        "json",
        "json-rpc",
        "header-mismatch",
        "sessions",
        "auth",
        "config",
        "ssrf",
        "tool-poisoning",
        "limits",
        "cache",
        "upstream",
        "telemetry",
    }
)
"""What this runner can run."""

_CLOSES = "proxy keeps the connection open after the error"
_OUTLIVES = "stream lives longer than the policy cap after expiry"
_TWIN = "Bob runs the same with progressToken p1"
_ALONE = frozenset({"bound to the only live session"})
"""Sentences about a sidecar nobody used before."""
_WATCHED = ("event loop blocked", "validation > ")
"""How sentences begin that need the prober."""
_ENDLESS = json.dumps(ENDLESS, separators=(",", ":")).encode()
_GOES_ON = b"notifications/message"
"""Of an endless stream the first event is enough."""
_CASE_S = 60.0
_AHEAD = 2
"""Cases whose own sidecars start while another one runs."""
JUDGES: Mapping[str, checks.Judge] = {
    "status": expectations.status,
    "jsonrpc_error": expectations.jsonrpc_error,
    "upstream_must_not_see": expectations.upstream_must_not_see,
}
"""Judges of the fields that every case has."""


class Verdict(Struct, frozen=True, kw_only=True):
    """How one case went."""

    id: str
    category: str
    state: str
    """"passed", "failed" or "deferred"."""
    problems: tuple[str, ...] = ()
    rooms: tuple[str, ...] = ()
    """The rooms it, or some of its checks, waits for."""


class Arena:
    """Sidecars, a fake upstream, an identity provider, a prober. Open it, run cases one by one, close it."""

    def __init__(self, corpus: Corpus, deferred: Deferred, *, sidecar: str | None = None) -> None:
        self._corpus = corpus
        self._deferred = deferred
        self._argv = command(sidecar)
        self._mint = Mint(corpus.fixture, corpus.tokens)
        self._limits = limits(corpus.fixture)
        self._host = str(corpus.fixture["proxy"]["host"])
        self._folder = tempfile.TemporaryDirectory(prefix="corpus-")
        self._upstream = FakeUpstream()
        self._idp = Idp(self._mint.keys)
        self._around: Around | None = None
        self._stands: dict[str, Stand] = {}
        self._names = itertools.count(1)
        self._coming: tuple[Case, ...] = ()
        self._starting: dict[str, asyncio.Task[dict[str, Stand]]] = {}
        self._prober: Prober | None = None
        self._bench = ConfigBench(self._argv, Path(self._folder.name))
        self._reload_turn = asyncio.Lock()
        self._quiet = asyncio.Lock()
        """Held by the one reload whose turn it is, and by a case whose sidecar is watched: it is next, not last."""
        self._reloading: dict[str, asyncio.Task[dict[str, Any]]] = {}
        """Reloads take a second each: what they show is gathered while other cases run."""

    async def open(self) -> None:
        """Start the fake upstream and the identity provider; sidecars start with the first case that needs them."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft < hard:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        await self._upstream.start()
        await self._idp.start()
        folder = Path(self._folder.name)
        keys_file = folder / "keys.yaml"
        keys_file.write_text(self._mint.keys_file(), encoding="utf-8")
        self._around = Around(
            argv=self._argv,
            broken_argv=[sys.executable, "-m", "tests.corpus.failing_check"],
            folder=folder,
            fixture=self._corpus.fixture,
            host=self._host,
            limits=self._limits,
            mint=self._mint,
            upstream=self._upstream,
            idp=self._idp,
            second=self._idp.key_set(self._idp.second()),
            keys_file=keys_file,
            addresses=_addresses(),
            approved=Approved(self._argv, folder),
            stand=self._shared,
        )
        for case in self._coming:
            if case.request.method == "FILE" and self._deferred.room(case) is None:
                self._reloading[case.id] = asyncio.get_running_loop().create_task(self._reloaded(case))

    def expect(self, cases: Sequence[Case]) -> None:
        """These will be run, in this order: sidecars that only one of them needs can start ahead."""
        self._coming = tuple(cases)

    async def close(self) -> None:
        """End everything this arena started."""
        for task in (*self._reloading.values(), *self._starting.values()):
            task.cancel()
        await asyncio.gather(*self._reloading.values(), return_exceptions=True)
        for made in await asyncio.gather(*self._starting.values(), return_exceptions=True):
            for stand in made.values() if isinstance(made, dict) else ():
                await stand.stop(politely=False)
        for stand in self._stands.values():
            stand.sidecar.terminate()  # so that they end at the same time
        for stand in self._stands.values():
            await stand.stop()
        if self._prober is not None:
            self._prober.close()
        await self._idp.stop()
        await self._upstream.stop()
        self._folder.cleanup()

    async def run(self, case: Case) -> Verdict:
        """The verdict on one case. What the runner lacks is a failure whose problem starts with "runner:"."""
        room = self._deferred.room(case)
        if room is not None:
            return Verdict(id=case.id, category=case.category, state="deferred", rooms=(room,))
        wanted, rooms, problems = self._wanted(case)
        if not problems and not wanted:
            return Verdict(id=case.id, category=case.category, state="deferred", rooms=rooms)
        if not problems:
            try:
                async with asyncio.timeout(_CASE_S * TRIES):
                    problems = await self._judged(case, wanted)
            except CorpusError as error:
                problems = (f"runner: {error}",)
            except TimeoutError:
                problems = (f"runner: not done after {_CASE_S * TRIES:.0f} s",)
        state = "failed" if problems else "passed"
        return Verdict(id=case.id, category=case.category, state=state, problems=problems, rooms=rooms)

    def _wanted(self, case: Case) -> tuple[dict[str, checks.Check], tuple[str, ...], tuple[str, ...]]:
        wanted: dict[str, checks.Check] = {}
        problems: list[str] = []
        rooms: list[str] = []
        if case.category not in CATEGORIES:
            problems.append(f"runner: no category {case.category}, and it is not deferred")
        unknown = [text for text in case.then if text not in STEPS and text != _TWIN]
        unknown += [text for text in case.setup if not self._knows(text)]
        problems += [f"runner: no step {text!r}" for text in unknown]
        if len(case.setup) > 1:
            problems.append("runner: more than one setup")
        for name in case.asserted():
            if (room := self._deferred.check_room(case, name)) is not None:
                rooms.append(room)
            elif name in JUDGES:
                wanted[name] = checks.Check(JUDGES[name])
            elif (check := checks.find(name)) is None:
                problems.append(f"runner: no checker for {name!r}")
            else:
                wanted[name] = check
        return wanted, tuple(dict.fromkeys(rooms)), tuple(problems)

    def _knows(self, setup: str) -> bool:
        is_ours = setup in (*limit_stand.SETUPS, *telemetry_stand.SETUPS) or cache_stand.knows(setup)
        return is_ours or setup_of(setup, self._idp) is not None

    async def _judged(self, case: Case, wanted: dict[str, checks.Check]) -> tuple[str, ...]:
        found: dict[str, str] = {}
        for _ in range(TRIES):
            found = await self._both_forms(case, wanted)
            if not all(name in wanted and wanted[name].measured for name in found):
                break
            if not found:
                break
        return tuple(found.values())

    async def _both_forms(self, case: Case, wanted: dict[str, checks.Check]) -> dict[str, str]:
        """What was wrong, by check: in the form `http`; if that was a right refusal, in the default form."""
        if case.request.method == "FILE":
            return _judge(await self._config(case), wanted)
        if not _is_alone(case):
            return await self._with(case, wanted, {})
        own = await self._own(case)
        try:
            await asyncio.gather(*(stand.begin() for stand in own.values()))
            return await self._with(case, wanted, own)
        finally:
            for stand in own.values():
                await stand.stop(politely=False)

    async def _with(
        self, case: Case, wanted: dict[str, checks.Check], own: dict[str, Stand]
    ) -> dict[str, str]:
        asked = await self._evidence(case, "http", wanted, own.get("http"))
        found = _judge(asked, wanted)
        if found or not expectations.was_refused(asked):
            return found
        others = {name: check for name, check in wanted.items() if name not in {"status", "jsonrpc_error"}}
        if own and "result" not in own:
            own |= await self._running(case, ("result",))
            await own["result"].begin()
        again = await self._evidence(case, "result", others, own.get("result"))
        found = {name: f"as result: {said}" for name, said in _judge(again, others).items()}
        if said := expectations.same_refusal(asked, again):
            found["shape"] = f"as result: {said}"
        return found

    async def _config(self, case: Case) -> Evidence:
        text = case.request.body or b""
        reloaded = await (self._reloading.pop(case.id, None) or self._reloaded(case))
        runs = () if text.decode("utf-8") in SCENES else await self._bench.run(self._bench.files(case))
        return replace(self._plain(case, "http", text, _unanswered(0.0)), runs=runs, **reloaded)

    async def _reloaded(self, case: Case) -> dict[str, Any]:
        """What a process does that is told to read the file; changes to its Evidence. One case at a time."""
        scene = SCENES.get((case.request.body or b"").decode("utf-8"))
        files = () if scene is not None else self._bench.files(case)
        async with self._reload_turn, self._quiet:
            if (
                scene is None
                and REFUSED_RELOAD not in case.texts()
                and not any(file.secret for file in files)
            ):
                return {}
            stand = await self._shared(ReloadStand, "http")
            assert isinstance(stand, ReloadStand)
            found = await stand.refuse(files) if scene is None else await scene(stand)
            return {**found, "alive": stand.sidecar.alive, "serves_after": await stand.barrier()}

    async def _evidence(
        self, case: Case, form: str, wanted: dict[str, checks.Check], own: Stand | None
    ) -> Evidence:
        if case.request.port != "data":
            raise CorpusError(f"no port {case.request.port}")
        self._mint.renew()
        self._mint.give("CANARY_PORT", str(self._idp.trap_port))
        names = named_in(client.request_bytes(case.request, self._host))
        stand = own or await self._shared(_kind(case, names), form)
        belongings = Belongings(stand)
        try:
            stand.introduce(case)
            await belongings.obtain(names)
            if not _ALONE.isdisjoint(case.texts()):
                await belongings.session("alice")
            sent = stand.dressed(client.request_bytes(case.request, self._host, self._mint.fill))
            # A setup may have led into the trap already.
            trapped = own.trapped if own is not None else len(self._idp.trapped)
            evidence = await self._asked(case, stand, sent, wanted)
            evidence = replace(evidence, trapped=tuple(self._idp.trapped[trapped:]))
            evidence = replace(evidence, overheard=belongings.overheard)
            for name, probe in PROBES.items():
                if name in wanted:
                    evidence = replace(evidence, **await probe(stand, evidence))
            return evidence
        finally:
            await belongings.close()
            await stand.leave()

    async def _own(self, case: Case) -> dict[str, Stand]:
        """Running sidecars for this case alone, by form; those of the cases that come next start meanwhile."""
        alone = [each for each in self._coming if _is_alone(each) and self._deferred.room(each) is None]
        ahead = alone[alone.index(case) + 1 :][:_AHEAD] if case in alone else []
        for each in (case, *ahead):
            if each.id not in self._starting:
                # Where nothing but a refusal is allowed, the default form will be asked too.
                refuses = bool(each.setup) and min(each.expect.status, default=0) >= 400
                starting = self._running(each, ("http", "result") if refuses else ("http",))
                self._starting[each.id] = asyncio.get_running_loop().create_task(starting)
        return await self._starting.pop(case.id)

    async def _running(self, case: Case, forms: Sequence[str]) -> dict[str, Stand]:
        assert self._around is not None
        setup = setup_of(case.setup[0], self._idp) if case.setup else None
        kind = Stand if setup is None or setup.rug_pull is None else PinStand
        stands = {form: kind(self._around, f"own-{next(self._names)}", form, setup) for form in forms}
        try:
            await asyncio.gather(*(stand.start() for stand in stands.values()))
        except BaseException as error:
            for stand in stands.values():
                await stand.stop(politely=False)
            if isinstance(error, SidecarError):
                # Its setup kept it from starting: that is the case's failure, not the run's.
                raise CorpusError(str(error)) from error
            raise
        return stands

    async def _shared(self, kind: type[Stand], form: str) -> Stand:
        assert self._around is not None
        name = f"{kind.__name__}-{form}"
        found = self._stands.get(name)
        if found is None or not found.sidecar.alive:
            if found is not None:
                await found.stop()
            found = kind(self._around, name, form)
            try:
                await found.start()
                await found.begin()
            except BaseException:
                await found.stop(politely=False)
                raise
            self._stands[name] = found
        return found

    async def _asked(
        self, case: Case, stand: Stand, sent: bytes, wanted: dict[str, checks.Check]
    ) -> Evidence:
        sidecar = stand.sidecar
        script = stand.setup.rug_pull or script_of(case, f"http://127.0.0.1:{self._idp.trap_port}")
        settled = await stand.settle(case)
        mark = sidecar.log_size()
        is_watched = any(name.startswith(_WATCHED) for name in wanted)
        upstream_of_it = stand.around.upstream
        async with AsyncExitStack() as watch:
            if is_watched:
                # A reload of another sidecar would take the processor from the one that is watched.
                await watch.enter_async_context(self._quiet)
                self._prober = self._prober or Prober()
                await self._prober.start(sidecar.operations_port)
            await stand.lead_in(case, script)
            upstream_of_it.begin(script, sends_discover=b"server/discover" in sent)
            evidence = await self._sent(case, stand, sent, wanted)
            if is_watched and self._prober is not None:
                evidence = replace(evidence, loop_gap_s=await self._prober.stop())
        serves = await stand.barrier()
        upstream, upstream_bytes = upstream_of_it.take()
        is_counted = any("metric" in name for name in wanted)
        return replace(
            evidence,
            upstream=upstream,
            upstream_bytes=upstream_bytes,
            log=sidecar.log_since(mark),
            metrics=await metrics_of(sidecar.operations_port) if is_counted else None,
            alive=sidecar.alive,
            serves_after=serves,
            offered=() if script is None else script.tools,
            **settled,
        )

    async def _sent(self, case: Case, stand: Stand, sent: bytes, wanted: dict[str, checks.Check]) -> Evidence:
        sending = client.read_sending(case.request.send)
        measured: dict[str, Any] | None = None
        match sending.kind:
            case "connections":
                measured = await pressure.crowd(stand, sent, sending.amount)
            case "resets":
                measured = await pressure.storm(stand, sent, sending.amount)
            case "no_read":
                measured = await pressure.unread(stand, sent)
        if measured is not None:
            return replace(self._plain(case, stand.form, sent, _unanswered(0.0)), **measured)
        evidence = await self._conversed(case, stand, sent, sending, wants_close=_CLOSES in wanted)
        if _OUTLIVES in wanted:
            expiry = claims_of(self._mint.value("TOK_SHORT"))["exp"]
            evidence = replace(evidence, outlived_s=time.time() - expiry)
        for name, step in STEPS.items():
            if name in case.then:
                evidence = replace(evidence, **await step(stand, sent))
        return evidence

    async def _conversed(
        self, case: Case, stand: Stand, sent: bytes, sending: Sending, *, wants_close: bool
    ) -> Evidence:
        async def one(data: bytes) -> Exchange:
            return await client.converse(
                data,
                stand.sidecar.data_port,
                sending=sending,
                limits=self._limits,
                raw=case.request.raw is not None,
                wants_close=wants_close,
                source=stand.address(),
                enough=_GOES_ON if _ENDLESS in data else None,
            )

        if _TWIN not in case.then:
            return self._plain(case, stand.form, sent, await one(sent))
        bobs = sent.replace(self._mint.value("TOK_ALICE").encode(), self._mint.value("TOK_BOB").encode())
        mine, theirs = await asyncio.gather(one(_signed(sent, "alice")), one(_signed(bobs, "bob")))
        return replace(self._plain(case, stand.form, sent, mine), twin_received=theirs.received)

    def _plain(self, case: Case, form: str, sent: bytes, exchange: Exchange) -> Evidence:
        return Evidence(
            case=case,
            form=form,
            limits=self._limits,
            sent=sent,
            received=exchange.received,
            answers=exchange.answers,
            interim=exchange.interim,
            closed=exchange.closed,
            held_s=exchange.held_s,
            first_answer_s=exchange.first_answer_s,
            answered_at=exchange.answered_at,
            upstream=(),
            upstream_bytes=b"",
            credentials=CREDENTIALS,
            resource_metadata=self._metadata_url(),
        )

    def _metadata_url(self) -> str:
        """Where RFC 9728 section 3.1 puts the document about the fixture's audience."""
        scheme, _, rest = str(self._corpus.fixture["audience"]).partition("://")
        host, _, path = rest.partition("/")
        return f"{scheme}://{host}/.well-known/oauth-protected-resource/{path}"


def _kind(case: Case, names: frozenset[str]) -> type[Stand]:
    """Which sidecar a case is put to."""
    if case.category == "tool-poisoning":
        return WatchStand
    if (special := _special(case)) is not None:
        return special
    return SseStand if "SSE_SID_BOB" in names else Stand


def _special(case: Case) -> type[Stand] | None:
    """One that is set up for cases like this."""
    rooms = (limit_stand, cache_stand, trouble_stand, telemetry_stand)
    return next((kind for room in rooms if (kind := room.stand_of(case)) is not None), None)


def _is_alone(case: Case) -> bool:
    """The case needs a sidecar that nobody else uses."""
    return (bool(case.setup) and _special(case) is None) or not _ALONE.isdisjoint(case.texts())


def _judge(evidence: Evidence, wanted: dict[str, checks.Check]) -> dict[str, str]:
    found = {name: f"{name}: {said}" for name, check in wanted.items() if (said := check.judge(evidence))}
    if said := expectations.still_serves(evidence):
        found["serves"] = said
    if said := expectations.no_false_alarm(evidence):
        found["alarm"] = said
    if said := expectations.counts_networks(evidence):
        found["networks"] = said
    if said := expectations.tells_no_wreck(evidence):
        found["wreck"] = said
    if said := expectations.keeps_its_settings(evidence):
        found["settings"] = said
    return found


def _signed(sent: bytes, who: str) -> bytes:
    return sent.replace(b"\r\n", f"\r\n{WHO}: {who}\r\n".encode(), 1)


def _unanswered(held_s: float) -> Exchange:
    return Exchange(received=b"", answers=(), interim=(), closed=False, held_s=held_s, first_answer_s=None)


def _addresses() -> Iterator[str]:
    for number in itertools.count(1):
        yield f"127.1.{number >> 8 & 255}.{number & 255}"
