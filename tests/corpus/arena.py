"""Runs one case after another against real sidecar processes and says how each went. Case → Verdict.

Two sidecars stand in front of one fake upstream: one refuses with HTTP statuses, as the corpus is written,
one in the default form. A case that the first one refused is put to the second as well.
"""

import asyncio
import json
import resource
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from tests.corpus import checks, client, expectations
from tests.corpus.cases import Case, Corpus, CorpusError
from tests.corpus.client import Connection, Exchange, Sending
from tests.corpus.config_bench import ConfigBench
from tests.corpus.deferred import Deferred
from tests.corpus.evidence import Evidence
from tests.corpus.fake_upstream import WHO, FakeUpstream
from tests.corpus.mint import Mint
from tests.corpus.prober import Prober
from tests.corpus.sidecar import BARRIER_TOOL, CREDENTIALS, Sidecar, command, fetch, limits, unread_bytes
from tests.corpus.wire import read_answers

CATEGORIES = frozenset(
    {
        "http-framing",
        "http-path",
        "http-encoding",
        "http-slow",
        "json",
        "json-rpc",
        "header-mismatch",
        "config",
    }
)
"""What this runner can run."""

_TRIES = 3
_CLOSES = "proxy keeps the connection open after the error"
_CASE_S = 60.0
_BARRIER_S = 5.0
_SETTLE_S = 3.0
JUDGES: Mapping[str, Callable[[Evidence], str | None]] = {
    "status": expectations.status,
    "jsonrpc_error": expectations.jsonrpc_error,
    "upstream_must_not_see": expectations.upstream_must_not_see,
}
"""Judges of the fields that every case has."""
_REPEATS = 10_000
_THENS = frozenset({"Bob runs the same with progressToken p1", "10 000 times"})


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
    """Two sidecars, a fake upstream, a prober. Open it, run cases one by one, close it."""

    def __init__(self, corpus: Corpus, deferred: Deferred, *, sidecar: str | None = None) -> None:
        self._corpus = corpus
        self._deferred = deferred
        self._argv = command(sidecar)
        self._mint = Mint(corpus.tokens, corpus.fixture["api_keys"])
        self._limits = limits(corpus.fixture)
        self._host = str(corpus.fixture["proxy"]["host"])
        self._folder = tempfile.TemporaryDirectory(prefix="corpus-")
        self._upstream = FakeUpstream()
        self._sidecars: dict[str, Sidecar] = {}
        self._prober: Prober | None = None
        self._bench: ConfigBench | None = None
        self._barriers = 0

    async def open(self) -> None:
        """Start the fake upstream; sidecars start with the first case that needs them."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft < hard:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        await self._upstream.start()

    async def close(self) -> None:
        """End everything this arena started."""
        for sidecar in self._sidecars.values():
            sidecar.stop()
        if self._prober is not None:
            self._prober.close()
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
                async with asyncio.timeout(_CASE_S * _TRIES):
                    problems = await self._judged(case, wanted)
            except CorpusError as error:
                problems = (f"runner: {error}",)
            except TimeoutError:
                problems = (f"runner: not done after {_CASE_S * _TRIES:.0f} s",)
        state = "failed" if problems else "passed"
        return Verdict(id=case.id, category=case.category, state=state, problems=problems, rooms=rooms)

    def _wanted(self, case: Case) -> tuple[dict[str, checks.Check], tuple[str, ...], tuple[str, ...]]:
        wanted: dict[str, checks.Check] = {}
        problems: list[str] = []
        rooms: list[str] = []
        if case.category not in CATEGORIES:
            problems.append(f"runner: no category {case.category}, and it is not deferred")
        problems += [f"runner: no step {text!r}" for text in (*case.setup, *case.then) if text not in _THENS]
        for name in (*JUDGES, *case.texts()):
            if (room := self._deferred.check_room(case, name)) is not None:
                rooms.append(room)
            elif name in JUDGES:
                if _asserts(case, name):
                    wanted[name] = checks.Check(JUDGES[name])
            elif (check := checks.find(name)) is None:
                problems.append(f"runner: no checker for {name!r}")
            else:
                wanted[name] = check
        return wanted, tuple(dict.fromkeys(rooms)), tuple(problems)

    async def _judged(self, case: Case, wanted: dict[str, checks.Check]) -> tuple[str, ...]:
        found: dict[str, str] = {}
        for _ in range(_TRIES):
            found = await self._both_forms(case, wanted)
            if not all(name in wanted and wanted[name].measured for name in found):
                break
            if not found:
                break
        return tuple(found.values())

    async def _both_forms(self, case: Case, wanted: dict[str, checks.Check]) -> dict[str, str]:
        """What was wrong, by check: in the form `http`; if that was a right refusal, in the default form."""
        if case.category == "config":
            return _judge(await self._config(case), wanted)
        asked = await self._evidence(case, "http", wanted)
        found = _judge(asked, wanted)
        if found or not expectations.was_refused(asked):
            return found
        others = {name: check for name, check in wanted.items() if name not in {"status", "jsonrpc_error"}}
        again = await self._evidence(case, "result", others)
        found = {name: f"as result: {said}" for name, said in _judge(again, others).items()}
        if said := expectations.same_refusal(asked, again):
            found["shape"] = f"as result: {said}"
        return found

    async def _config(self, case: Case) -> Evidence:
        if self._bench is None:
            self._bench = ConfigBench(self._argv, Path(self._folder.name))
        runs, text = await self._bench.run(case)
        nothing = Exchange(received=b"", answers=(), interim=(), closed=True, held_s=0.0, first_answer_s=None)
        return replace(self._plain(case, "http", text, nothing), runs=runs)

    async def _sidecar(self, form: str) -> Sidecar:
        sidecar = self._sidecars.get(form)
        if sidecar is None or not sidecar.alive:
            if sidecar is not None:
                sidecar.stop()
            sidecar = Sidecar(
                self._argv,
                Path(self._folder.name),
                self._corpus.fixture,
                form=form,
                upstream_port=self._upstream.port,
            )
            await sidecar.start()
            await self._list_tools(sidecar)
            self._sidecars[form] = sidecar
        return sidecar

    async def _evidence(self, case: Case, form: str, wanted: dict[str, checks.Check]) -> Evidence:
        if case.request.port != "data":
            raise CorpusError(f"no port {case.request.port}")
        sidecar = await self._sidecar(form)
        sent = self._mint.fill(client.request_bytes(case.request, self._host))
        sending = client.read_sending(case.request.send)
        mark = sidecar.log_size()
        self._upstream.begin(case.upstream, sends_discover=b"server/discover" in sent)
        evidence = await self._sent(case, form, wanted, sidecar, sent, sending)
        serves = await self._barrier(sidecar)
        upstream, upstream_bytes = self._upstream.take()
        metrics = (
            await fetch(sidecar.operations_port, "/metrics")
            if any("metric" in name for name in wanted)
            else None
        )
        return replace(
            evidence,
            upstream=upstream,
            upstream_bytes=upstream_bytes,
            log=sidecar.log_since(mark),
            metrics=metrics.body if metrics is not None and metrics.status == 200 else None,
            alive=sidecar.alive,
            serves_after=serves,
        )

    async def _sent(
        self,
        case: Case,
        form: str,
        wanted: dict[str, checks.Check],
        sidecar: Sidecar,
        sent: bytes,
        sending: Sending,
    ) -> Evidence:
        match sending.kind:
            case "connections":
                return await self._crowd(case, form, sidecar, sent, sending.amount)
            case "resets":
                return await self._storm(case, form, sidecar, sent, sending.amount)
            case "no_read":
                return await self._unread(case, form, sidecar, sent)
        watched = any(name.startswith("event loop blocked") for name in wanted)
        if watched:
            self._prober = self._prober or Prober()
            self._prober.start(sidecar.operations_port)
        wants_close = _CLOSES in wanted
        twin = "Bob runs the same with progressToken p1" in case.then

        async def one(data: bytes) -> Exchange:
            return await client.converse(
                data,
                sidecar.data_port,
                sending=sending,
                limits=self._limits,
                raw=case.request.raw is not None,
                wants_close=wants_close,
            )

        if twin:
            mine, theirs = await asyncio.gather(one(_signed(sent, "alice")), one(_signed(sent, "bob")))
            return replace(self._plain(case, form, sent, mine), twin_received=theirs.received)
        exchange = await one(sent)
        evidence = self._plain(case, form, sent, exchange)
        if "10 000 times" in case.then:
            evidence = replace(
                evidence, repeats=await _repeated(sidecar.data_port, sent, _REPEATS), asked=_REPEATS
            )
        if watched and self._prober is not None:
            evidence = replace(evidence, loop_gap_s=await self._prober.stop())
        return evidence

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
            upstream=(),
            upstream_bytes=b"",
            credentials=CREDENTIALS,
        )

    async def _crowd(self, case: Case, form: str, sidecar: Sidecar, sent: bytes, count: int) -> Evidence:
        began = time.monotonic()
        connections = await client.occupy(sidecar.data_port, count, sent)
        try:
            asked = time.monotonic()
            answered = await self._barrier(sidecar)
            waited_s = time.monotonic() - asked
        finally:
            for connection in connections:
                connection.close(reset=True)
        evidence = self._plain(case, form, sent, _unanswered(time.monotonic() - began))
        return replace(evidence, valid_client_s=waited_s if answered else None)

    async def _storm(self, case: Case, form: str, sidecar: Sidecar, sent: bytes, per_second: int) -> Evidence:
        mark = sidecar.log_size()
        fds = await _settled(sidecar.open_fds)
        took_s = await client.reset_storm(sidecar.data_port, per_second, sent)
        await self._barrier(sidecar)
        fds_after = await _settled(sidecar.open_fds)
        lines = sidecar.log_since(mark).count(b"\n")
        evidence = self._plain(case, form, sent, _unanswered(took_s))
        return replace(evidence, fds_growth=fds_after - fds, log_lines=lines, storm_s=took_s)

    async def _unread(self, case: Case, form: str, sidecar: Sidecar, sent: bytes) -> Evidence:
        await self._barrier(sidecar)
        rss = sidecar.rss_bytes()
        connection = await client.ask_and_never_read(sidecar.data_port, sent)
        peak, quiet_since, last = rss, time.monotonic(), -1
        ended = time.monotonic() + _SETTLE_S
        # Until upstream's answer has stood still for half a second, or three have passed.
        while time.monotonic() < ended and (last <= 0 or time.monotonic() - quiet_since < 0.5):
            peak = max(peak, sidecar.rss_bytes())
            if self._upstream.sent_bytes != last:
                last, quiet_since = self._upstream.sent_bytes, time.monotonic()
            await asyncio.sleep(0.02)
        read_bytes = self._upstream.sent_bytes - unread_bytes(self._upstream.port)
        connection.close(reset=True)
        evidence = self._plain(case, form, sent, _unanswered(_SETTLE_S))
        return replace(evidence, rss_growth_bytes=peak - rss, upstream_read_bytes=read_bytes)

    async def _barrier(self, sidecar: Sidecar) -> bool:
        """An ordinary call goes all the way: what the case caused has arrived, and the sidecar serves."""
        self._barriers += 1
        marker = f"corpus-barrier-{self._mint.nonce}-{self._barriers}"
        document = {
            "jsonrpc": "2.0",
            "id": marker,
            "method": "tools/call",
            "params": {"name": BARRIER_TOOL, "arguments": {}},
        }
        arrived = self._upstream.expect_barrier(marker.encode())
        try:
            async with asyncio.timeout(_BARRIER_S):
                exchange = await self._ask(sidecar, document, "2025-11-25")
        except (TimeoutError, OSError):
            return False
        return arrived.is_set() and bool(exchange.answers) and exchange.answers[0].status == 200

    async def _list_tools(self, sidecar: Sidecar) -> None:
        """What every modern client did before it could mirror an argument: the list names the headers."""
        document = {
            "jsonrpc": "2.0",
            "id": "corpus-list",
            "method": "tools/list",
            "params": {
                "_meta": {
                    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                    "io.modelcontextprotocol/clientCapabilities": {},
                }
            },
        }
        self._upstream.begin(None, sends_discover=False)
        exchange = await self._ask(sidecar, document, "2026-07-28", "Mcp-Method: tools/list\r\n")
        if not exchange.answers or exchange.answers[0].status != 200:
            raise CorpusError("the sidecar passes no list of tools")

    async def _ask(
        self, sidecar: Sidecar, document: Mapping[str, object], version: str, fields: str = ""
    ) -> Exchange:
        """One ordinary request of Alice's."""
        body = json.dumps(document).encode()
        head = (
            f"POST /mcp HTTP/1.1\r\nHost: {self._host}\r\nContent-Type: application/json\r\n"
            f"Accept: application/json, text/event-stream\r\nMCP-Protocol-Version: {version}\r\n{fields}"
            f"Authorization: Bearer {self._mint.value('TOK_ALICE')}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return await client.converse(
            head.encode() + body,
            sidecar.data_port,
            sending=Sending(kind="whole"),
            limits=self._limits,
            raw=False,
            wants_close=False,
        )


def _judge(evidence: Evidence, wanted: dict[str, checks.Check]) -> dict[str, str]:
    found = {name: f"{name}: {said}" for name, check in wanted.items() if (said := check.judge(evidence))}
    if said := expectations.still_serves(evidence):
        found["serves"] = said
    return found


def _asserts(case: Case, name: str) -> bool:
    expect = case.expect
    match name:
        case "status":
            return bool(expect.status)
        case "jsonrpc_error":
            return expect.jsonrpc_error is not None
        case _:
            return expect.upstream_must_not_see and case.category != "config"


def _signed(sent: bytes, who: str) -> bytes:
    return sent.replace(b"\r\n", f"\r\n{WHO}: {who}\r\n".encode(), 1)


def _unanswered(held_s: float) -> Exchange:
    return Exchange(received=b"", answers=(), interim=(), closed=False, held_s=held_s, first_answer_s=None)


async def _settled(count: Callable[[], int]) -> int:
    """A count once it has stopped falling, for three seconds at most."""
    least, since = count(), time.monotonic()
    ended = since + _SETTLE_S
    while time.monotonic() < min(ended, since + 0.3):
        if (now := count()) < least:
            least, since = now, time.monotonic()
        await asyncio.sleep(0.02)
    return least


async def _repeated(port: int, sent: bytes, times: int) -> tuple[int, ...]:
    """Statuses of the same request sent `times` times on four kept connections."""

    async def some(count: int) -> list[int]:
        connection = Connection()
        await connection.open(port)
        loop = asyncio.get_running_loop()
        codes: list[int] = []
        data = b""
        for _ in range(count):
            await loop.sock_sendall(connection.socket, sent)
            while not (found := read_answers(data, closed=False)[0]):
                chunk = await loop.sock_recv(connection.socket, 65536)
                if not chunk:
                    connection.close()
                    return codes
                data += chunk
            data = data[len(found[0].raw) :]
            codes.append(found[0].status)
        connection.close()
        return codes

    lists = await asyncio.gather(*(some(times // 4) for _ in range(4)))
    return tuple(code for codes in lists for code in codes)
