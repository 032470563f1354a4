"""The sidecar with a mistake in it: `python -m tests.faults.planted MISTAKE run --set …`.

A laboratory that never found anything has proven nothing. Only this process has the mistake.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Sequence

from msgspec.structs import replace

from proxy.__main__ import main
from proxy.capacity.building import Room
from proxy.capacity.slots import Place
from proxy.capacity.stage import Roomy
from proxy.configuration.mistakes import SettingsError
from proxy.downstream.door import Door
from proxy.downstream.listener import Listener
from proxy.downstream.settings import ListenSettings
from proxy.house import House, Read
from proxy.model import Ending, Headers, Permit, Reason, Refused, Reply, Stage, shelve_nothing
from proxy.settings import Loaded
from proxy.telemetry.journey import Record
from proxy.upstream.forward import Forward
from proxy.upstream.transport import Answer, Lost
from proxy.upstream.transport_lean import LeanTransport

from .watched import watch

_send = LeanTransport.send
_forward = Forward.__call__
_ended = Roomy._ended
_refused = Record.refused
_guarded = Room.guarded
_let_in = Door.let_in
_reloaded = House._reloaded
_lost: set[asyncio.Task[None]] = set()


def double_send() -> None:
    """Whatever is lost is sent again, may it have happened or not."""

    async def send(
        self: LeanTransport,
        method: str,
        target: str,
        headers: Sequence[tuple[bytes, bytes]],
        body: bytes | None,
    ) -> Answer:
        try:
            return await _send(self, method, target, headers, body)
        except Lost:
            return await _send(self, method, target, headers, body)

    LeanTransport.send = send  # type: ignore[method-assign]  # the mistake


def leaked_slot() -> None:
    """The place of a call that fails is not given back."""

    def ended(self: Roomy, place: Place, what: str, began: float | None, ending: Ending) -> None:
        if ending is Ending.COMPLETE:
            _ended(self, place, what, began, ending)

    Roomy._ended = ended  # type: ignore[method-assign]  # the mistake


def unknown_as_success() -> None:
    """Nobody knows what became of a call, and its caller is told that it went well."""

    async def forward(self: Forward, permit: Permit) -> Reply:
        try:
            return await _forward(self, permit)
        except Refused as refused:
            if refused.reason is not Reason.OUTCOME_UNKNOWN:
                raise
            result = {"content": [{"type": "text", "text": "done"}]}
            body = json.dumps({"jsonrpc": "2.0", "id": permit.call.id, "result": result}).encode()
            return Reply(200, Headers([(b"Content-Type", b"application/json")]), body)

    Forward.__call__ = forward  # type: ignore[method-assign]  # the mistake


def unknown_written_as_success() -> None:
    """The caller is told the truth, the log is not."""

    def refused(self: Record, refused: Refused) -> None:
        if refused.reason is not Reason.OUTCOME_UNKNOWN:
            _refused(self, refused)

    Record.refused = refused  # type: ignore[method-assign]  # the mistake


def leaked_task() -> None:
    """Something waits for ever behind each call that was lost."""

    async def wait() -> None:
        await asyncio.Event().wait()

    async def send(
        self: LeanTransport,
        method: str,
        target: str,
        headers: Sequence[tuple[bytes, bytes]],
        body: bytes | None,
    ) -> Answer:
        try:
            return await _send(self, method, target, headers, body)
        except Lost:
            _lost.add(asyncio.get_running_loop().create_task(wait()))
            raise

    LeanTransport.send = send  # type: ignore[method-assign]  # the mistake


def forgotten_places() -> None:
    """A reload forgets who holds places."""

    def guarded(self: Room, serve: Stage) -> Stage:
        self._shelve = shelve_nothing
        return _guarded(self, serve)

    Room.guarded = guarded  # type: ignore[method-assign]  # the mistake


def impatient_reload() -> None:
    """A reload ends what is under way."""

    def let_in(self: Door, settings: ListenSettings, listener: Listener) -> None:
        for each in self.connections:
            if not each.is_idle:
                each.force_close()
        _let_in(self, settings, listener)

    Door.let_in = let_in  # type: ignore[method-assign]  # the mistake


def forgiving_reload() -> None:
    """What cannot be read is left out, and the rest put into force."""

    async def reloaded(self: House, read: Read) -> None:
        def lenient() -> Loaded:
            try:
                return read()
            except SettingsError:
                return Loaded(replace(self.settings, policy=None), ())

        await _reloaded(self, lenient)

    House._reloaded = reloaded  # type: ignore[method-assign]  # the mistake


def told_credential() -> None:
    """Whoever forwards a call says with what."""

    async def forward(self: Forward, permit: Permit) -> Reply:
        print(f"sent with {self._origin.own.fields.pairs}", file=sys.stderr, flush=True)
        return await _forward(self, permit)

    Forward.__call__ = forward  # type: ignore[method-assign]  # the mistake


MISTAKES: dict[str, Callable[[], None]] = {
    each.__name__: each
    for each in (
        told_credential,
        double_send,
        leaked_slot,
        unknown_as_success,
        unknown_written_as_success,
        leaked_task,
        forgotten_places,
        impatient_reload,
        forgiving_reload,
    )
}

if __name__ == "__main__":
    watch()
    MISTAKES[sys.argv[1]]()
    sys.exit(main(sys.argv[2:]))
