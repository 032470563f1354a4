"""The only place that builds things. Reads from the outside in: settings, then the server's side, then the rooms
in the order of the way, then the client's side, then the process around them.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import signal
from collections.abc import Callable, Sequence

from aiohttp import web

from .batches import merge, without
from .configuration.values import Address
from .downstream.listener import Endpoint, Listener
from .identity.anonymous import build as build_identity
from .identity.settings import in_words
from .lifecycle.drain import drain
from .lifecycle.probes import Health, operations
from .model import Call, Refused, Reply, Stage
from .pipeline import Pipeline
from .policy.rules import Rules
from .protocol.revisions import TWO_ENDPOINTS
from .refusals import Form, explain, is_at_http
from .settings import Settings
from .telemetry.journey import Journeys, Sink
from .telemetry.logs import Log
from .upstream.forward import Forward
from .upstream.http_sse import TwoEndpoints
from .upstream.probe import Probe
from .upstream.transport import Transport
from .upstream.transport_aiohttp import AiohttpTransport

BACKLOG = 4_096
IDLE_S = 15.0
"""How long the operations port waits for a request, also for the first one."""


class House:
    """A running sidecar."""

    def __init__(self, settings: Settings, log: Log, *, sinks: Sequence[Sink] = ()) -> None:
        self.settings = settings
        self._log = log
        form = settings.refusals

        def report(error: Exception) -> None:
            log.life("failed", "error", error=type(error).__name__)

        # The server's side.
        self._transport: Transport = AiohttpTransport(
            settings.upstream.url, connect_timeout_s=settings.upstream.connect_timeout_s
        )
        forward = Forward(settings.upstream, self._transport, form)
        serve: Stage = forward
        explained: Callable[[Refused, Call], Reply] = functools.partial(explain, form=form)
        endpoints = [
            Endpoint(path=settings.listen.path, methods=frozenset({"POST", "GET", "DELETE", "OPTIONS"}))
        ]
        if settings.upstream.is_http_sse:
            stream_path, messages_path = two_paths(settings.listen.path)
            two = TwoEndpoints(settings.upstream, forward, messages_path, form)
            serve = two
            explained = functools.partial(_explain_elsewhere, two=two, form=form)
            endpoints = [
                Endpoint(path=stream_path, methods=frozenset({"GET", "OPTIONS"}), revision=TWO_ENDPOINTS),
                Endpoint(path=messages_path, methods=frozenset({"POST", "OPTIONS"}), revision=TWO_ENDPOINTS),
            ]
        # The rooms, in the order of the way. What is off is not here.
        journeys = Journeys((*sinks, log.call), failed=report)
        hall = Pipeline(
            identify=build_identity(settings.identity),
            authorise=Rules(),
            limit=None,
            serve=serve,
            explain=explained,
            merge=functools.partial(merge, form=form),
            is_whole=is_at_http,
            without=without,
        )
        # The client's side, and the operator's.
        self.listener = Listener(
            settings.listen,
            endpoints=endpoints,
            hall=hall,
            open_journey=journeys.open,
            explain=lambda refused: explain(refused, None, form),
            report=report,
        )
        self.health = Health(Probe(settings.upstream, self._transport))
        self._data: asyncio.Server | None = None
        self._operations: web.AppRunner | None = None
        self.data_address = settings.listen.address
        self.operations_address = settings.operations.address

    async def open(self) -> None:
        """Listen on both ports. Raises OSError naming the address that cannot be had."""
        loop = asyncio.get_running_loop()
        runner = web.AppRunner(
            operations(self.health), access_log=None, handle_signals=False, keepalive_timeout=IDLE_S
        )
        await runner.setup()
        self._operations = runner
        where = self.settings.operations.address
        site = web.TCPSite(runner, where.host, where.port, backlog=BACKLOG)
        await site.start()
        self.operations_address = _bound(runner.addresses[0][:2])
        where = self.settings.listen.address
        self._data = await loop.create_server(self.listener.server, where.host, where.port, backlog=BACKLOG)
        self.data_address = _bound(self._data.sockets[0].getsockname()[:2])
        self.health.is_listening = True

    async def close(self, *, grace_s: float | None = None) -> int:
        """Drain and come down. Returns how many requests were cut off."""

        async def grace(seconds: float) -> None:
            await asyncio.sleep(seconds if grace_s is None else grace_s)

        cut_off = await drain(
            self.listener,
            self.health,
            drain_s=self.settings.drain_s,
            stop_accepting=self._stop_accepting,
            grace=grace,
        )
        await self.listener.server.shutdown(timeout=0.1)
        await self._transport.close()
        if self._operations is not None:
            await self._operations.cleanup()
        return cut_off

    def _stop_accepting(self) -> None:
        if self._data is not None:
            self._data.close()


def two_paths(path: str) -> tuple[str, str]:
    """Where HTTP+SSE is served beside `listen.path`: `/mcp` gives `/sse` and `/messages`."""
    base, _, last = path.rpartition("/")
    return (path if last == "sse" else f"{base}/sse"), f"{base}/messages"


async def serve(settings: Settings, log: Log) -> int:
    """Run until TERM or INT. Returns the exit code."""
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    patient = True

    def stop(is_patient: bool) -> None:
        nonlocal patient
        patient = is_patient
        stopping.set()

    loop.add_signal_handler(signal.SIGTERM, stop, True)
    loop.add_signal_handler(signal.SIGINT, stop, False)
    house = House(settings, log)
    try:
        await house.open()
    except OSError as error:
        log.life("cannot listen", "error", error=error.strerror or type(error).__name__, why=str(error))
        await house.close(grace_s=0)
        return 1
    # What was built until now stays: the collector need not look at it again.
    gc.collect()
    gc.freeze()
    log.life(
        "started",
        listen=f"http://{house.data_address}{settings.listen.path}",
        operations=f"http://{house.operations_address}",
        upstream=settings.upstream.url,
        identity=[in_words(each) for each in settings.identity.chosen],
        enforces="caps and protocol rules",
    )
    await stopping.wait()
    log.life("draining", drain_s=settings.drain_s, under_way=house.listener.requests_under_way)
    # Whoever presses Ctrl-C has no load balancer that needs to hear of it first.
    cut_off = await house.close(grace_s=None if patient else 0)
    log.life("stopped", cut_off=cut_off)
    return 0


def _explain_elsewhere(refused: Refused, call: Call, *, two: TwoEndpoints, form: Form) -> Reply:
    return two.refuse(refused, call) or explain(refused, call, form)


def _bound(where: Sequence[object]) -> Address:
    host, port = where
    return Address(str(host), int(str(port)))
