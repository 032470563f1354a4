"""The sidecars that tell all they can of calls: `TelemetryStand`, and `StrangerStand`, whose store does not know it.

What they tell, and to whom, is `sinks`: whoever adds a sink to the product adds a line there, and every sentence of the
category is asked of it.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

from tests.corpus.allowances import limits
from tests.corpus.cases import Case, CorpusError
from tests.corpus.evidence import Evidence
from tests.corpus.sidecar import CREDENTIALS, fetch
from tests.corpus.stand import Around, Stand, until
from tests.valkey import Valkey

TENANT = "a"
"""Alice's, whose calls are told in detail."""
PASSWORD = "corpus:p@ss/w0rd-of-the-store"
"""One that looks otherwise in a URL."""
REFUSED = "fault: redis auth error"
_NOT_SHARED = b'"msg":"limits are not shared"'
_PAGES = ("/metrics", "/healthz", "/readyz", "/startupz", "/debug", "/debug/pprof")


class TelemetryStand(Stand):
    """One with every sink there is."""

    def sections(self) -> dict[str, Any]:
        end = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
        return {
            "telemetry": {
                "log_level": "debug",
                "args_hash": True,
                "request_id_header": "X-Request-Id",
                "debug": [{"tenant": TENANT, "until": end}],
            }
        }

    async def sinks(self) -> dict[str, bytes]:
        """All that was told, beside the log of the case, by where it was told."""
        pages = [await fetch(self.sidecar.operations_port, path) for path in _PAGES]
        return {
            "log": self.sidecar.log_since(0),
            "operations port": b"\n".join(page.raw for page in pages if page is not None),
        }

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


async def told(stand: Stand, _: Evidence) -> dict[str, Any]:
    """A probe: what every sink holds after the case."""
    assert isinstance(stand, TelemetryStand)
    return {"sinks": await stand.sinks(), "secrets": stand.secrets()}


def stand_of(case: Case) -> type[TelemetryStand] | None:
    """Which of them a case is put to, None where it is not about what is told."""
    if case.category != "telemetry":
        return None
    return StrangerStand if REFUSED in case.setup else TelemetryStand
