"""The sidecars that tell all they can of calls: `TelemetryStand`, and `StrangerStand`, whose store does not know it,
`ShareStand`, which records a share of traces, and `ClockStand`, whose clock the runner sets.

What they tell, and to whom, is `sinks`: whoever adds a sink to the product adds a line there, and every sentence of the
category is asked of it.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests import ledger
from tests.corpus import elsewhere
from tests.corpus.allowances import limits
from tests.corpus.cases import Case, CorpusError
from tests.corpus.sidecar import CREDENTIALS, fetch
from tests.corpus.stand import Around, Stand, until
from tests.corpus.wire import Message
from tests.valkey import Valkey

TENANT = "a"
"""Alice's, whose calls are told in detail."""
PASSWORD = "corpus:p@ss/w0rd-of-the-store"
"""One that looks otherwise in a URL."""
SHARE = 0.2
"""Of traces, which `ShareStand` records: the id of the case is in it."""
CLAIMS_PER_S = 30
"""How many of those that callers began it records: more than the share of a hundred."""
SPANS, AUDIT = "spans", "audit file"
"""Sinks of which more is asked."""
_SAMPLED = 1
_CONTEXT = re.compile(rb"00-([0-9a-f]{32})-[0-9a-f]{16}-([0-9a-f]{2})")
_TURNS = 200
"""Calls one of which is in the share, but for once in 10^19 times."""
_ECHO = {
    "jsonrpc": "2.0",
    "id": "corpus-last-word",
    "method": "tools/call",
    "params": {"name": "echo", "arguments": {}},
}
_NOT_SHARED = b'"msg":"limits are not shared"'
_PAGES = ("/metrics", "/healthz", "/readyz", "/startupz", "/debug", "/debug/pprof")


class TelemetryStand(Stand):
    """One with every sink there is. Spans are its standard output, which is not its log here."""

    def __init__(self, around: Around, name: str, form: str) -> None:
        self.spans_file = around.folder / f"{name}.spans"
        self.audit_file = around.folder / f"{name}.audit"
        super().__init__(around, name, form)

    def output(self) -> Path:
        return self.spans_file

    def sections(self) -> dict[str, Any]:
        end = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
        return {
            "telemetry": {
                "log_level": "debug",
                "args_hash": True,
                "request_id_header": "X-Request-Id",
                "debug": [{"tenant": TENANT, "until": end}],
                "traces": self.traces(),
                "audit": {"file": str(self.audit_file), "classes": ["read", "write", "dangerous"]},
            }
        }

    def traces(self) -> dict[str, Any]:
        """The section of its settings."""
        return {"exporter": "console", "sample": 1}

    async def sinks(self) -> dict[str, bytes]:
        """All that was told, beside the log of the case, by where it was told. Raises CorpusError where the last call
        is missing somewhere."""
        await self.last_word()
        pages = [await fetch(self.sidecar.operations_port, path) for path in _PAGES]
        found = {
            "log": self.sidecar.log_since(0),
            "operations port": b"\n".join(page.raw for page in pages if page is not None),
            SPANS: self.spans_file.read_bytes(),
            AUDIT: self.audit_file.read_bytes(),
        }
        for name in (SPANS, AUDIT):
            ledger.look(f"corpus {name}", found[name])
        return found

    async def last_word(self) -> None:
        """A call that is recorded has reached every sink that is written later, and so has what was told before it.
        Raises CorpusError."""
        upstream, key = self.around.upstream, self.around.mint.value(self.runners_key)
        for _ in range(_TURNS):
            upstream.begin(None, sends_discover=False)
            await self.ask(_ECHO, {"X-API-Key": key})
            traces = traces_of(upstream.take()[0])
            if not traces:
                raise CorpusError("a call after the case says nothing of its trace to the server")
            ((trace_id, is_sampled),) = traces.items()
            if is_sampled:
                break
        else:
            raise CorpusError(f"none of {_TURNS} calls is recorded")
        word = trace_id.encode()
        for file in (self.spans_file, self.audit_file):
            if not await until(lambda: word in file.read_bytes()):  # noqa: B023  # asked in this turn
                raise CorpusError(f"a call after the case is not told to {file.suffix}")

    def secrets(self) -> tuple[bytes, ...]:
        """What the stand, or its callers, present, and nobody else may see."""
        mint = self.around.mint
        return (
            *(mint.value(name).rpartition(".")[2].encode() for name in self.around.fixture["api_keys"]),
            *(part.encode() for part in mint.value("TOK_ALICE").split(".")[1:]),
            CREDENTIALS[0][1].removeprefix("Bearer ").encode(),
        )


class StrangerStand(TelemetryStand):
    """One with a wrong password for the store that limits are shared in: each counts for itself."""

    def __init__(self, around: Around, name: str, form: str) -> None:
        self._store = Valkey("--requirepass", "another-password")
        self._store.start()
        self._password = around.folder / f"{name}.password"
        self._password.write_text(PASSWORD, encoding="ascii")
        super().__init__(around, name, form)

    def sections(self) -> dict[str, Any]:
        secret = {"password": f"${{file:{self._password}}}"}
        store = {"url": self._store.url, **secret, "on_outage": "local", "timeout_s": 0.5}
        return {**super().sections(), "limits": limits(), "shared_state": store}

    def secrets(self) -> tuple[bytes, ...]:
        return (*super().secrets(), PASSWORD.encode())

    async def settle(self, case: Case) -> dict[str, Any]:
        """The store has said no."""
        if not await until(lambda: _NOT_SHARED in self.sidecar.log_since(0)):
            raise CorpusError("the store let the sidecar in")
        return {}

    async def stop(self, *, politely: bool = True) -> None:
        await super().stop(politely=politely)
        self._store.kill()


class ShareStand(TelemetryStand):
    """One that records some traces, and believes nobody who says that a trace is recorded."""

    def traces(self) -> dict[str, Any]:
        return {**super().traces(), "sample": SHARE, "max_claimed_per_s": CLAIMS_PER_S}


class ClockStand(TelemetryStand):
    """One whose clock goes back before the case."""

    def __init__(self, around: Around, name: str, form: str) -> None:
        self._clock = around.folder / f"{name}.clock"
        self._clock.write_text("+0", encoding="ascii")
        super().__init__(around, name, form)

    def argv(self) -> Sequence[str]:
        return elsewhere.command(self._clock)

    async def settle(self, case: Case) -> dict[str, Any]:
        """There are records of the time before."""
        await self.last_word()
        self._set("-10")
        return {}

    async def leave(self) -> None:
        self._set("+0")

    def _set(self, said: str) -> None:
        new = self._clock.with_suffix(".new")
        new.write_text(said, encoding="ascii")
        new.replace(self._clock)


def traces_of(requests: Sequence[Message]) -> dict[str, bool]:
    """The traces that upstream was told requests belong to, and whether it was told that they are recorded."""
    values = [value for request in requests for value in request.values("traceparent")]
    matches = [match for value in values if (match := _CONTEXT.fullmatch(value)) is not None]
    return {match[1].decode(): bool(int(match[2], 16) & _SAMPLED) for match in matches}


SETUPS: Mapping[str, type[TelemetryStand]] = {
    "fault: redis auth error": StrangerStand,
    "fault: clock -10 s": ClockStand,
}
"""What a `setup` says was so before the case."""
_SHARED = frozenset({"TEL-014"})


def stand_of(case: Case) -> type[TelemetryStand] | None:
    """Which of them a case is put to, None where it is not about what is told."""
    if case.category != "telemetry":
        return None
    if case.id in _SHARED:
        return ShareStand
    return next((SETUPS[words] for words in case.setup if words in SETUPS), TelemetryStand)
