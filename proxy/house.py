"""The process: two ports, signals, and the rooms in force, which other ones replace when the settings change.

In: settings, and how to read them again. Out: an exit code. Keeps what belongs to no reading of the settings: ports,
connections, files that are looked at, and what outlives a reload.

A reload builds all rooms anew and then swaps one reference. Calls that have begun end in the rooms they began in. What
was read is wrong, cannot be built, or could not serve: nothing has changed.
"""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Final

from aiohttp import web

from .assemble import Rooms, told
from .check import overriding
from .configuration.files import read_bounded
from .configuration.mistakes import SettingsError
from .configuration.values import Address
from .downstream.acceptor import BACKLOG, Acceptor, bound
from .downstream.connection import Connection
from .downstream.door import Door
from .downstream.tls import Unusable, files_of
from .identity.settings import in_words
from .lifecycle.background import Background
from .lifecycle.descriptors import raise_limit
from .lifecycle.drain import drain
from .lifecycle.guards import Guards
from .lifecycle.probes import Health, Part, operations
from .lifecycle.reloads import Reloads
from .lifecycle.survivors import Generation, Survivors
from .lifecycle.watch import Seen, Watch, look_at
from .metering import Metering
from .policy.packs import read_packs
from .policy.settings import PackSettings
from .settings import Loaded, Settings
from .telemetry.channels import of_loop
from .telemetry.journey import Sink
from .telemetry.logs import Log
from .upstream.choosing import transport_for

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

MAX_YOUNG_OBJECTS: Final = 10_000
"""Made and not gone, before the collector of cycles looks: calls under way are no garbage, and a few of them are more
than the 700 of Python."""
IDLE_S: Final = 15.0
"""How long the operations port waits for a request, also for the first one."""
SETTLE_S: Final = 0.5
"""Files must hold still so long before they are read: whoever writes a file in pieces may pass through settings that
are whole and allow too much."""
MOST_LOOKS: Final = 20
"""At files that do not hold still; then they are read as they are."""
RELOAD_EVERY_S: Final = 1.0
"""Between the end of one reload and the next."""
RETRY_S: Final = 15.0
"""Until settings that could not be put into force are tried again: what they name may come after them, a mounted secret
for example, or the keys of an issuer. Nobody looks at it meanwhile."""
READY_S: Final = 5.0
"""How long rooms that are to come may take until they can tell who calls."""
READY_LOOK_S: Final = 0.02

Read = Callable[[], Loaded]
"""Reads the settings again. Raises SettingsError. IO: reads files, in a thread."""


class House:
    """A running sidecar."""

    def __init__(
        self,
        settings: Settings,
        log: Log,
        *,
        files: tuple[str, ...] = (),
        seen: Seen | None = None,
        read: Read | None = None,
        guards: Guards | None = None,
        sinks: Sequence[Sink] = (),
        exporter: SpanExporter | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        """`files` are those that `read` reads; None: the settings never change. `seen` is how they were when they were
        read. Raises SettingsError."""
        self._log = log
        self._read = read
        self._sleep = sleep
        self.watch = Watch(report=lambda error: log.life("not reloaded", "error", why=str(error)))
        self._survivors = Survivors(self.watch, self._report)
        self._sinks = sinks
        self._exporter = exporter
        self.guards = guards or Guards(log.life, memory_limit_bytes=settings.memory_limit_bytes)
        self.guards.frees(self._shrink)
        self.rooms = self._built(settings, read_packs(settings.policy))
        self._door = Door(settings.listen, self.rooms.listener)
        self._acceptor = Acceptor(
            settings.listen, self._door.server, read_bounded, self.guards.descriptors.may_accept
        )
        self.guards.resumes(self._acceptor.resume)
        self.reloads = Reloads()
        self.health = Health(self.rooms.probe, *self._parts(self.rooms))
        self._operations: web.AppRunner | None = None
        self.operations_address = settings.operations.address
        self._background = Background(self._report)
        self._reloading = asyncio.Lock()
        self._wished = asyncio.Event()
        self._is_retry = False
        """Nobody has wished for it, but that it failed the last time."""
        self._failed = asyncio.Event()
        self._mistakes: list[str] = []
        """What people were told last."""
        self._retiring: dict[asyncio.Task[None], Rooms] = {}
        self.metering = Metering(
            self._all_rooms,
            reloads=self.reloads,
            guards=self.guards,
            lines=log,
            connections=lambda: len(self.connections),
        )
        self._look_at_certificates(self.rooms)
        self._files: tuple[str, ...] = ()
        self._look_at_settings(files, seen)

    @property
    def settings(self) -> Settings:
        """What is in force."""
        return self.rooms.settings

    @property
    def data_address(self) -> Address:
        """Where the data port is; once open, with the port that the system picked."""
        return self._acceptor.address

    @property
    def connections(self) -> Sequence[Connection]:
        """Of clients, on the data port."""
        return self._door.connections

    @property
    def retiring(self) -> int:
        """Readings of the settings in which calls are still under way, beside the one in force."""
        return len(self._retiring)

    async def open(self) -> None:
        """Listen on both ports. Raises OSError naming the address that cannot be had, or `Unusable`."""
        runner = web.AppRunner(
            operations(self.health, self.metering.page),
            access_log=None,
            handle_signals=False,
            keepalive_timeout=IDLE_S,
        )
        await runner.setup()
        self._operations = runner
        where = self.settings.operations.address
        reuse_port = self.settings.listen.reuse_port or None
        there = bound(where, reuse_port=self.settings.listen.reuse_port)
        site = (
            web.TCPSite(runner, where.host, where.port, backlog=BACKLOG, reuse_port=reuse_port)
            if there is None
            else web.SockSite(runner, there, backlog=BACKLOG)
        )
        try:
            await site.start()
        except BaseException:
            if there is not None:
                there.close()
            raise
        self.operations_address = _bound(runner.addresses[0][:2])
        await self._acceptor.open()
        self.rooms.start()
        self.rooms.enter()
        own = self.watch.run, self._reload_as_wished, self._try_again, self._tell_health
        for job in (*self.guards.jobs, *own):
            self._background.start(job)
        self.health.is_listening = True

    def reload_soon(self) -> None:
        """`reload`, beside everything else, and at most once in `RELOAD_EVERY_S` however often it is wished."""
        self._is_retry = False
        self._wished.set()

    async def _reload_as_wished(self) -> None:
        while True:
            await self._wished.wait()
            self._wished.clear()
            is_retry, self._is_retry = self._is_retry, False
            await self.reload(is_retry=is_retry)
            await self._sleep(RELOAD_EVERY_S)

    async def _try_again(self) -> None:
        while True:
            await self._failed.wait()
            await asyncio.sleep(RETRY_S)
            if self._failed.is_set():
                await self._hold_still()
                self._is_retry = self._is_retry or not self._wished.is_set()
                self._wished.set()

    async def reload(self, *, is_retry: bool = False) -> bool:
        """Read the settings again and let calls pass by them from now on. False: nothing has changed, and people were
        told why; a retry that fails for the same reason is no news."""
        if self._read is None:
            return False
        async with self._reloading:
            try:
                await self._reloaded(self._read)
            except Exception as error:
                self._failed.set()
                mistakes = _in_words(error)
                if not is_retry:
                    self.reloads.ended(well=False)
                    self.metering.reloaded()
                    self.rooms.telemetry.event("settings not reloaded", mistakes=len(mistakes))
                if not is_retry or mistakes != self._mistakes:
                    self._log.life("settings not reloaded", "error", mistakes=mistakes)
                self._mistakes = mistakes
                return False
            self._failed.clear()
            self.reloads.ended(well=True)
            self.metering.reloaded()
            self._log.life("settings reloaded", "info", **in_force(self.settings))
            self.rooms.telemetry.event("settings reloaded", **in_force(self.settings))
            _warn(self.settings, self._log)
            return True

    async def close(self, *, grace_s: float | None = None, hurry: asyncio.Event | None = None) -> int:
        """Drain and come down; at once when `hurry` is set. Returns how many requests were cut off."""

        async def grace(seconds: float) -> None:
            await asyncio.sleep(seconds if grace_s is None else grace_s)

        self.health.is_draining = True  # at once, whatever comes next
        await self._background.close()  # nothing is reloaded any more
        cut_off = await drain(
            self,
            self.health,
            drain_s=self.settings.drain_s,
            stop_accepting=self._acceptor.stop_accepting,
            grace=grace,
            hurry=hurry,
        )
        await self._door.server.shutdown(timeout=0.1)
        for task, rooms in list(self._retiring.items()):
            task.cancel()  # its last calls are cut off
            await asyncio.gather(task, return_exceptions=True)
            await rooms.close()
        await self.rooms.close()
        if self._operations is not None:
            await self._operations.cleanup()
        return cut_off

    def _built(
        self, settings: Settings, packs: Sequence[PackSettings], generation: Generation | None = None
    ) -> Rooms:
        """Raises SettingsError."""
        generation = generation or self._survivors.generation()
        return Rooms(
            settings,
            packs,
            self._log,
            generation,
            self.guards,
            self._report,
            self._sinks,
            self._exporter,
        )

    def _parts(self, rooms: Rooms) -> tuple[Part, ...]:
        """What probes ask beside the server."""
        return (*rooms.parts, self.guards, self.reloads)

    async def _shrink(self, share: float) -> None:
        """Memory runs out: keep so large a share of the answers that are kept."""
        await self.rooms.caching.shrink(share)

    async def _reloaded(self, read: Read) -> None:
        """Raises whatever is wrong with what was read, before anything has changed."""
        loaded, seen = await asyncio.to_thread(_read_and_seen, read, self._files)
        settings, before = loaded.settings, self.rooms
        _check_change(before.settings, settings)
        packs = await asyncio.to_thread(read_packs, settings.policy)
        generation = self._survivors.generation()
        try:
            rooms = self._built(settings, packs, generation)
            rooms.start()
            await self._can_serve(rooms, before)
            self._look_at_certificates(rooms)
            if settings.listen != before.settings.listen:
                await self._acceptor.change(settings.listen)
        except BaseException:
            await generation.release()
            raise
        rooms.enter()
        self.guards.bound_memory(settings.memory_limit_bytes)
        self.rooms = rooms
        self._door.let_in(settings.listen, rooms.listener)
        self.health.ask_others(rooms.probe, *self._parts(rooms))
        before.generation.look_away()
        retiring = asyncio.get_running_loop().create_task(before.retire())
        self._retiring[retiring] = before
        retiring.add_done_callback(self._retired)
        self._look_at_settings(loaded.files, seen)

    def _retired(self, task: asyncio.Task[None]) -> None:
        self.metering.look()
        del self._retiring[task]
        if not task.cancelled() and isinstance(error := task.exception(), Exception):
            self._report(error)

    async def _can_serve(self, rooms: Rooms, before: Rooms) -> None:
        """Wait until new rooms can tell who calls, where the ones before can. Raises NotInForce."""
        try:
            async with asyncio.timeout(READY_S):
                while (why := rooms.identity.why_unready()) and not before.identity.why_unready():  # noqa: ASYNC110  keys come from several places, once in a long while
                    await asyncio.sleep(READY_LOOK_S)
        except TimeoutError:
            raise NotInForce(
                f"identity: {why}: nobody could be let in; the settings of before stay"
            ) from None

    def _look_at_certificates(self, rooms: Rooms) -> None:
        tls = rooms.settings.listen.tls
        told(self._log, rooms.generation.watch, () if tls is None else files_of(tls), self._acceptor.renew)

    def _look_at_settings(self, files: tuple[str, ...], seen: Seen | None) -> None:
        """Read them again when one of these changes from what was `seen`. Those that a room looks at itself are its own
        affair."""
        if self._read is None:
            return
        self.watch.remove(self._files_changed)
        own = self.watch.paths
        self._files = tuple(file for file in files if file not in own)
        self.watch.add(self._files, self._files_changed, seen)

    async def _files_changed(self) -> None:
        await self._hold_still()
        self.reload_soon()

    async def _hold_still(self) -> None:
        """Wait until nobody writes the settings."""
        seen = await asyncio.to_thread(look_at, self._files)
        for _ in range(MOST_LOOKS):
            await self._sleep(SETTLE_S)
            again = await asyncio.to_thread(look_at, self._files)
            if again == seen:
                break
            seen = again

    async def _tell_health(self) -> None:
        def tell(reasons: Sequence[str]) -> None:
            if reasons:
                self._log.life("degraded", "warning", reasons=list(reasons))
            else:
                self._log.life("recovered")

        await self.health.tell_changes(tell)

    def _report(self, error: Exception) -> None:
        self._log.life("failed", "error", error=type(error).__name__)

    # What a drain waits for.

    @property
    def requests_under_way(self) -> int:
        return sum(each.listener.requests_under_way for each in self._all_rooms())

    def refuse_new(self) -> None:
        """From now on requests are refused, and idle connections closed."""
        for each in self._all_rooms():
            each.listener.refuse_new()
        self._door.close_idle()

    def end_listening(self) -> None:
        """End the streams that would never end by themselves."""
        for each in self._all_rooms():
            each.listener.end_listening()

    async def finished(self) -> None:
        """Wait until nothing is under way."""
        for each in self._all_rooms():
            await each.listener.finished()

    def _all_rooms(self) -> list[Rooms]:
        return [*self._retiring.values(), self.rooms]


def _read_and_seen(read: Read, files: tuple[str, ...]) -> tuple[Loaded, Seen]:
    """What is read, and how its files were before, so that who writes them meanwhile is not missed. Those that are
    named for the first time are looked at right afterwards. Raises SettingsError. IO: reads files."""
    before = look_at(files)
    loaded = read()
    return loaded, {**look_at(loaded.files), **before}


class NotInForce(Exception):
    """Settings that are right in themselves, and cannot be put into force now. Says why."""


def _check_change(before: Settings, after: Settings) -> None:
    """Raises NotInForce for what a running process cannot change."""
    changed = []
    if before.listen.address != after.listen.address:
        changed.append("listen.address")
    if before.listen.reuse_port != after.listen.reuse_port:
        changed.append("listen.reuse_port")
    if before.operations.address != after.operations.address:
        changed.append("operations.address")
    was, wished = before.cache, after.cache
    is_one_file = was is not None and wished is not None and was.file is not None and was.file == wished.file
    if is_one_file and was != wished:
        changed.append("cache, because two would write one file")
    if changed:
        raise NotInForce(f"{'; '.join(changed)}: cannot change while it runs, start it anew")


def _in_words(error: Exception) -> list[str]:
    """For an operator; of what nobody expected only its kind, because its text may hold anything."""
    if isinstance(error, SettingsError):
        return [str(mistake) for mistake in error.mistakes]
    return [str(error) if isinstance(error, NotInForce | Unusable | OSError) else type(error).__name__]


async def serve(loaded: Loaded, seen: Seen, log: Log, read: Read) -> int:
    """Run until TERM or INT; a second one does not wait for calls. HUP reads the settings again. Returns the exit
    code."""
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(of_loop(log.life))
    stopping, hurry = asyncio.Event(), asyncio.Event()
    patient = True

    def stop(is_patient: bool) -> None:
        nonlocal patient
        if stopping.is_set():
            hurry.set()
        patient = patient and is_patient
        stopping.set()

    loop.add_signal_handler(signal.SIGTERM, stop, True)
    loop.add_signal_handler(signal.SIGINT, stop, False)
    settings = loaded.settings
    raise_limit()
    house = House(settings, log, files=loaded.files, seen=seen, read=read)
    loop.add_signal_handler(signal.SIGHUP, house.reload_soon)
    try:
        await house.open()
    except (OSError, Unusable) as error:
        what = error.strerror if isinstance(error, OSError) else None
        log.life("cannot listen", "error", error=what or type(error).__name__, why=str(error))
        await house.close(grace_s=0)
        return 2 if isinstance(error, Unusable) else 1
    # What was built until now stays: the collector need not look at it again. It has not looked at it yet either, and
    # the 3,000 objects it would find of 54,000 are not worth the 30 ms in which nobody is answered.
    gc.freeze()
    gc.set_threshold(MAX_YOUNG_OBJECTS)
    gc.enable()
    log.life(
        "started",
        "info",
        listen=f"{'http' if settings.listen.tls is None else 'https'}://{house.data_address}{settings.listen.path}",
        operations=f"http://{house.operations_address}",
        **in_force(settings),
    )
    _warn(settings, log)
    await stopping.wait()
    log.life("draining", drain_s=house.settings.drain_s, under_way=house.requests_under_way)
    # Whoever presses Ctrl-C has no load balancer that needs to hear of it first.
    cut_off = await house.close(grace_s=None if patient else 0, hurry=hurry)
    lag = house.guards.lag
    log.life(
        "stopped",
        cut_off=cut_off,
        loop_lag_max_s=round(lag.max_s, 3),
        loop_lag_max_cpu_s=round(lag.max_cpu_s, 3),
    )
    return 0


def in_force(settings: Settings) -> dict[str, object]:
    """What a line of the log tells of settings."""
    return {
        "upstream": settings.upstream.url.partition("?")[0],  # what stands behind may be a key
        "transport": transport_for(settings.upstream.url).name,
        "identity": [in_words(each) for each in settings.identity.chosen],
        "enforces": _enforced(settings),
    }


def _enforced(settings: Settings) -> list[str]:
    """What is in force, in words for the first line of the log."""
    policy = settings.policy
    rules = [] if policy is None else ["policy" if policy.mode == "enforce" else "policy, reported only"]
    limits = [f"limit {each.name}{', reported only' if each.report else ''}" for each in settings.limits]
    cache = [] if settings.cache is None else ["cache"]
    return ["caps", "protocol rules", *rules, *limits, *cache, *_audited(settings)]


def _audited(settings: Settings) -> list[str]:
    """How sure records are, in words: whoever relies on them should know."""
    audit = settings.telemetry.audit
    if audit is None:
        return []
    words = [f"audit {audit.mode}"]
    if audit.mode == "batch":
        words.append("a crash may lose its last second")
    if audit.signing_key_file is None:
        words.append("its checkpoints are not signed")
    return [", ".join(words)]


def _warn(settings: Settings, log: Log) -> None:
    """What is allowed, and should be seen."""
    if tools := overriding(settings):
        why = "a rule of the settings lifts what packs deny, for each of these"
        log.life("packs are overridden", "warning", tools=tools, why=why)
    if settings.upstream.forward_client_authorization:
        why = "a token that reaches the server can be used by it elsewhere; every call that carries one is marked"
        log.life("client authorization is forwarded", "warning", why=why)


def _bound(where: Sequence[object]) -> Address:
    host, port = where
    return Address(str(host), int(str(port)))
