"""The only place that builds things. Reads from the outside in: settings, then the server's side, then the rooms
in the order of the way, then the client's side, then the process around them.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import random  # noqa: TID251  here chance enters
import secrets
import signal
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

from aiohttp import web

from .batches import merge, without
from .cache.building import Caching
from .cache.layered import Second
from .cache.store import Seal
from .capacity.building import Room
from .check import overriding
from .configuration.files import read_bounded
from .configuration.values import Address
from .downstream.acceptor import BACKLOG, Acceptor
from .downstream.listener import Endpoint, Listener, no_pages
from .downstream.metadata import Metadata
from .downstream.tls import Unusable
from .identity.building import Identification
from .identity.challenges import Challenges
from .identity.settings import IntrospectionSettings, JwtSettings, in_words
from .lifecycle.background import Background
from .lifecycle.drain import drain
from .lifecycle.probes import Health, operations
from .lifecycle.watch import Changed, Watch
from .limits.building import Limiting
from .limits.local import Local
from .model import Call, FindPage, Refused, Reply, Stage
from .pipeline import Pipeline
from .policy.building import Policy
from .policy.disguise import Disguise
from .policy.packs import read_packs
from .policy.pins import Drift, State
from .protocol.revisions import TWO_ENDPOINTS
from .refusals import Form, explain, is_at_http
from .resilience.building import Resilience
from .resilience.deadlines import Cancel, Overdue
from .settings import Settings
from .telemetry.journey import Journeys, Sink
from .telemetry.logs import Log
from .upstream.credentials import Stops
from .upstream.ears import listening
from .upstream.forward import Forward
from .upstream.http_sse import TwoEndpoints
from .upstream.oauth import Challenged, ServersOAuth
from .upstream.origin import Origin
from .upstream.probe import Probe
from .upstream.public_view import PublicView
from .upstream.transport import Transport
from .upstream.transport_aiohttp import AiohttpTransport

if TYPE_CHECKING:
    from .limits.shared import Shared

LONGEST_NAME = 128
"""Of a tool, in a line: servers choose names."""
LONGEST_WORDS_BYTES = 1_048_576
"""Of a reply of the shared store, beside the answer in it."""
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

        def found(pattern: str, action: str, count: int) -> None:
            log.life("found in what the server says", "warning", pattern=pattern, action=action, count=count)

        def drifted(drift: Drift) -> None:
            _, principal, tenant = drift.identity
            seen = drift.sight
            differs = seen.state not in (State.SAME, State.UNWATCHED)
            log.life(
                "tool is not as it was approved" if differs else "definition looks odd",
                "warning",
                tool=seen.name[:LONGEST_NAME],
                state=seen.state.value,
                changes=list(seen.changes),
                flags=list(seen.flags),
                action=seen.action,
                tenant=tenant,
                principal=principal,
            )

        self.watch = Watch(report=lambda error: log.life("not reloaded", "error", why=str(error)))
        watch = functools.partial(_watch, self.watch, log)
        # Who calls: their headers end here, and what the server hands out to them stays theirs.
        wall = time.time  # noqa: TID251  here time enters
        identity = Identification(settings.identity, watch=watch, wall=wall)
        # What callers may do, and so what lists show them.
        policy = self.policy = Policy(
            settings.policy,
            read_packs(settings.policy),
            form=form,
            found=found,
            drifted=drifted,
            token=_unguessable,
        )
        watch(policy.pin_files, policy.renew_pins)
        # How much they may have, here or with other replicas.
        limiting, shared = _limits(settings, log, watch, wall)
        # The server's side.
        self._transport: Transport = AiohttpTransport(
            settings.upstream.url, connect_timeout_s=settings.upstream.connect_timeout_s
        )
        origin = Origin(settings.upstream)
        watch(tuple(origin.own.files), origin.own.renew)
        stops = Stops(
            replaced=(name for name, _ in origin.own.fields),
            keys=identity.key_headers,
            forward_authorization=settings.upstream.forward_client_authorization,
            is_authenticated=not settings.identity.is_anonymous,
        )
        # What it said before.
        caching = self.caching = Caching(
            settings.cache,
            upstream=settings.upstream.url,
            generation=policy.generation,
            rule_of=policy.rule_of,
            stops=stops,
            failed=report,
            wall=wall,
            second=_second(settings, log, watch, wall),
        )
        listen = listening(identity.listen, *policy.listens, limiting.listen, caching.listen)
        forward = Forward(settings.upstream, self._transport, form, origin=origin, stops=stops, listen=listen)
        serve: Stage = forward
        cancel: Cancel = forward.cancel
        overdue: Overdue | None = None
        explained: Callable[[Refused, Call], Reply] = functools.partial(explain, form=form)
        endpoints = [
            Endpoint(path=settings.listen.path, methods=frozenset({"POST", "GET", "DELETE", "OPTIONS"}))
        ]
        if settings.upstream.is_http_sse:
            stream_path, messages_path = two_paths(settings.listen.path)
            two = TwoEndpoints(settings.upstream, forward, messages_path, form, listen=listen)
            serve, cancel, overdue = two, two.cancel, two.overdue
            explained = functools.partial(_explain_elsewhere, two=two, form=form)
            endpoints = [
                Endpoint(path=stream_path, methods=frozenset({"GET", "OPTIONS"}), revision=TWO_ENDPOINTS),
                Endpoint(path=messages_path, methods=frozenset({"POST", "OPTIONS"}), revision=TWO_ENDPOINTS),
            ]
        pages = _our_pages(settings)
        if _servers_own_oauth(settings):
            oauth = ServersOAuth(
                PublicView(settings.upstream.url, settings.identity.resource or ""),
                self._transport,
                origin=origin,
                stops=stops,
            )
            serve, pages = Challenged(serve, oauth), oauth.page
        probe = Probe(settings.upstream, self._transport, origin)
        # How long it may take, what is sent again, and when the server is left alone.
        self.resilience = Resilience(
            settings.resilience,
            form=form,
            cancel=cancel,
            overdue=overdue,
            connects=probe.connects,
            token=lambda: secrets.token_hex(16),
            chance=random.random,
            wall=wall,
        )
        self.capacity = Room(settings.capacity, deadline=self.resilience.deadline)
        serve = self.capacity.guarded(self.resilience.guarded(self.capacity.paced(serve)))
        serve = caching.guarded(serve, forward.retell, self.resilience.deadline)
        serve = policy.guarded(identity.guarded(policy.shown(serve)))
        # The rooms, in the order of the way. What is off is not here.
        journeys = Journeys((*sinks, log.call), failed=report)
        challenges = Challenges(settings.identity)
        hall = Pipeline(
            identify=identity.identify,
            authorise=policy.rules,
            limit=limiting.limit,
            serve=serve,
            explain=lambda refused, call: explained(challenges(refused), call),
            merge=functools.partial(merge, form=form),
            is_whole=is_at_http,
            without=without,
            disguise=Disguise(_unguessable),
        )
        # The client's side, and the operator's.
        self.listener = Listener(
            settings.listen,
            endpoints=endpoints,
            hall=hall,
            open_journey=journeys.open,
            explain=lambda refused: explain(challenges(refused), None, form),
            report=report,
            pages=pages,
            keys=identity.headers,
            who=identity.who,
        )
        parts = (identity, self.resilience, *(() if shared is None else (shared,)))
        self.health = Health(probe, *parts)
        self._acceptor = Acceptor(settings.listen, self.listener.server, read_bounded)
        self._operations: web.AppRunner | None = None
        self.operations_address = settings.operations.address
        # What runs meanwhile.
        self._identity = identity
        self._limiting = limiting
        self._shared = shared
        self._background = Background(report)
        watch(self._acceptor.files, self._acceptor.renew)

    @property
    def data_address(self) -> Address:
        """Where the data port is; once open, with the port that the system picked."""
        return self._acceptor.address

    async def open(self) -> None:
        """Listen on both ports. Raises OSError naming the address that cannot be had, or `Unusable`."""
        runner = web.AppRunner(
            operations(self.health), access_log=None, handle_signals=False, keepalive_timeout=IDLE_S
        )
        await runner.setup()
        self._operations = runner
        where = self.settings.operations.address
        site = web.TCPSite(runner, where.host, where.port, backlog=BACKLOG)
        await site.start()
        self.operations_address = _bound(runner.addresses[0][:2])
        await self._acceptor.open()
        shared = () if self._shared is None else self._shared.jobs
        rooms = (
            *self._identity.jobs,
            *self._limiting.jobs,
            *shared,
            *self.caching.jobs,
            *self.resilience.jobs,
        )
        for job in (*rooms, self.watch.run, self._tell_health):
            self._background.start(job)
        self.health.is_listening = True

    async def _tell_health(self) -> None:
        def tell(reasons: Sequence[str]) -> None:
            if reasons:
                self._log.life("degraded", "warning", reasons=list(reasons))
            else:
                self._log.life("recovered")

        await self.health.tell_changes(tell)

    async def close(self, *, grace_s: float | None = None) -> int:
        """Drain and come down. Returns how many requests were cut off."""

        async def grace(seconds: float) -> None:
            await asyncio.sleep(seconds if grace_s is None else grace_s)

        cut_off = await drain(
            self.listener,
            self.health,
            drain_s=self.settings.drain_s,
            stop_accepting=self._acceptor.stop_accepting,
            grace=grace,
        )
        await self._background.close()
        await self.listener.server.shutdown(timeout=0.1)
        await self._identity.close()
        await self.resilience.close()
        await self.caching.close()
        await self._limiting.close()
        if self._shared is not None:
            await self._shared.close()
        await self._transport.close()
        if self._operations is not None:
            await self._operations.cleanup()
        return cut_off


def _unguessable() -> str:
    """128 random bits, as a name: nobody can have given it to a tool, or guess it."""
    return f"x{secrets.token_hex(16)}"


_Watches: TypeAlias = Callable[[tuple[str, ...], Changed], None]


def _limits(
    settings: Settings, log: Log, watch: _Watches, wall: Callable[[], float]
) -> tuple[Limiting, Shared | None]:
    """The room, and the store behind it where replicas share one."""

    def warn(why: str) -> None:
        log.life("quotas are not as they were", "warning", why=why)

    if settings.shared_state is None or not settings.limits:
        return Limiting(settings.limits, local_state=settings.local_state, wall=wall, warn=warn), None
    from .limits.shared_building import share  # its library is an extra

    local = Local()
    told = functools.partial(_tell_shared, log, "limits")
    shared = share(settings.shared_state, local, watch=watch, told=told, wall=wall, chance=random.random)
    return Limiting(settings.limits, shared=shared, local=local, wall=wall, warn=warn), shared


def _second(settings: Settings, log: Log, watch: _Watches, wall: Callable[[], float]) -> Second | None:
    """Where replicas share what they keep: on a connection of its own, or long answers would hold up limits."""
    shared, cache = settings.shared_state, settings.cache
    if shared is None or cache is None or not cache.shared or cache.secret is None:
        return None
    from .cache.valkey_store import ValkeyStore  # its library is an extra
    from .limits.shared_building import link

    longest = cache.max_entry_bytes + LONGEST_WORDS_BYTES
    return ValkeyStore(
        functools.partial(
            link,
            shared,
            watch=watch,
            told=functools.partial(_tell_shared, log, "kept answers"),
            chance=random.random,
            max_reply_bytes=longest,
        ),
        Seal(cache.secret, f"valkey {shared.namespace}", cache.compress_above_bytes),
        namespace=shared.namespace,
        max_entry_bytes=cache.max_entry_bytes,
        max_reply_bytes=longest,
        wall=wall,
        now=time.monotonic,
        token=lambda: secrets.token_hex(16),
        timeout_s=shared.timeout_s,
    )


def _tell_shared(log: Log, what: str, why: str | None) -> None:
    """People hear when the store is not used, and when it is again."""
    if why is None:
        log.life(f"{what} are shared")
    else:
        log.life(f"{what} are not shared", "warning", why=why)


def _enforced(settings: Settings) -> list[str]:
    """What is in force, in words for the first line of the log."""
    policy = settings.policy
    rules = [] if policy is None else ["policy" if policy.mode == "enforce" else "policy, reported only"]
    limits = [f"limit {each.name}{', reported only' if each.report else ''}" for each in settings.limits]
    cache = [] if settings.cache is None else ["cache"]
    return ["caps", "protocol rules", *rules, *limits, *cache]


def _our_pages(settings: Settings) -> FindPage:
    """The document about us where callers get tokens for us; nothing at its paths otherwise."""
    identity = settings.identity
    if identity.resource is None or not identity.uses_oauth:
        return no_pages
    issuers = [
        each.issuer
        for each in identity.chosen
        if isinstance(each, JwtSettings | IntrospectionSettings) and each.issuer is not None
    ]
    return Metadata(
        identity.resource, issuers=issuers, scopes=identity.scopes_supported, path=settings.listen.path
    )


def _servers_own_oauth(settings: Settings) -> bool:
    """Whether tokens are for the server: we pass them on and ask for none ourselves."""
    identity = settings.identity
    forwards = settings.upstream.forward_client_authorization
    return forwards and not identity.uses_oauth and identity.resource is not None


def _watch(watch: Watch, log: Log, paths: tuple[str, ...], changed: Changed) -> None:
    """Tell `changed` when one of the files changes, and people when it has worked."""

    async def reload() -> None:
        reaction = changed()
        if reaction is not None:
            await reaction
        log.life("reloaded", files=list(paths))

    if paths:
        watch.add(paths, reload)


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
    except (OSError, Unusable) as error:
        what = error.strerror if isinstance(error, OSError) else None
        log.life("cannot listen", "error", error=what or type(error).__name__, why=str(error))
        await house.close(grace_s=0)
        return 2 if isinstance(error, Unusable) else 1
    # What was built until now stays: the collector need not look at it again.
    gc.collect()
    gc.freeze()
    log.life(
        "started",
        listen=f"{'http' if settings.listen.tls is None else 'https'}://{house.data_address}{settings.listen.path}",
        operations=f"http://{house.operations_address}",
        upstream=settings.upstream.url.partition("?")[0],  # what stands behind may be a key
        identity=[in_words(each) for each in settings.identity.chosen],
        enforces=_enforced(settings),
    )
    if tools := overriding(settings):
        why = "a rule of the settings lifts what packs deny, for each of these"
        log.life("packs are overridden", "warning", tools=tools, why=why)
    if settings.upstream.forward_client_authorization:
        why = "a token that reaches the server can be used by it elsewhere; every call that carries one is marked"
        log.life("client authorization is forwarded", "warning", why=why)
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
