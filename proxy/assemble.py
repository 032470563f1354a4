"""The only place that builds rooms. One reading of the settings → all that calls pass through, from the outside in:
settings, then the server's side, then the rooms in the order of the way, then the client's side.
"""

from __future__ import annotations

import functools
import random  # noqa: TID251  here chance enters
import secrets
import socket
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

from .batches import merge, without
from .cache.building import Caching, store_of
from .capacity.building import Room
from .configuration.globs import has_wildcard
from .configuration.socket_urls import as_http, socket_of
from .configuration.values import url_host_and_port
from .downstream.listener import Endpoint, Listener, no_pages
from .downstream.metadata import Metadata
from .identity.building import Identification
from .identity.challenges import Challenges
from .identity.settings import IntrospectionSettings, JwtSettings
from .lifecycle.guards import Guards
from .lifecycle.probes import Part
from .lifecycle.survivors import Generation
from .limits.building import Limiting
from .limits.local import Local
from .model import Call, Changed, FindPage, Refused, Reply, Stage, Thing, Took, Watches
from .pipeline import Pipeline
from .policy.building import Policy
from .policy.disguise import Disguise
from .policy.settings import PackSettings
from .protocol.revisions import TWO_ENDPOINTS
from .refusals import Form, explain, is_at_http
from .resilience.building import Resilience
from .resilience.deadlines import Cancel, Overdue
from .resilience.handshakes import Handshakes
from .settings import Settings
from .telemetry.args_hash import ArgsHash
from .telemetry.building import Telemetry
from .telemetry.debugging import Debugging
from .telemetry.journey import Sink
from .telemetry.logs import Log
from .telemetry.metrics import Metrics
from .telemetry.traces_building import Tracing
from .upstream.catalog import Catalog
from .upstream.choosing import transport_for
from .upstream.credentials import Stops
from .upstream.ears import listening
from .upstream.forward import Forward
from .upstream.http_sse import Session, TwoEndpoints
from .upstream.oauth import Challenged, ServersOAuth
from .upstream.origin import Origin
from .upstream.own_credential import OwnCredential
from .upstream.probe import Probe
from .upstream.public_view import PublicView
from .upstream.transport import Transport

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

    from .cache.forgetting import Definitions
    from .cache.layered import Second
    from .cache.store import Store
    from .identity.ownership import Ownership
    from .limits.shared import Shared
    from .policy.pins import Drift
    from .telemetry.audit import Audit

LONGEST_NAME = 128
"""Of a tool, in a line: servers choose names."""
LONGEST_WORDS_BYTES = 1_048_576
"""Of a reply of the shared store, beside the answer in it."""


class Rooms:
    """What calls pass through, by one reading of the settings."""

    def __init__(
        self,
        settings: Settings,
        packs: Sequence[PackSettings],
        log: Log,
        generation: Generation,
        guards: Guards,
        report: Callable[[Exception], None],
        sinks: Sequence[Sink] = (),
        exporter: SpanExporter | None = None,
    ) -> None:
        """`generation` gives what was there before and is to go on. Until `enter`, calls pass through others. `guards`
        say what there is of memory and descriptors, `report` hears of what fails beside the calls, `sinks` hear of each
        call, `exporter` takes spans instead of the one that is set. Raises SettingsError for files that cannot be
        read."""
        self.settings = settings
        self.generation = generation
        form = settings.refusals

        def found(pattern: str, action: str, count: int) -> None:
            log.life("found in what the server says", "warning", pattern=pattern, action=action, count=count)

        def drifted(drift: Drift) -> None:
            from .policy.pins import State  # whoever tells of a drift has it

            _, principal, tenant = drift.identity
            seen = drift.sight
            differs = seen.state not in (State.SAME, State.UNWATCHED)
            if differs:
                metrics.drifted(seen.name)
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

        def of_server(name: str, made_of: object, make: Callable[[], Thing]) -> Thing:
            """What is known of one server says nothing of another."""
            return generation(name, (settings.upstream.url, made_of), make)

        watch = functools.partial(told, log, generation.watch)
        # Who hears what happens.
        wall = time.time  # noqa: TID251  here time enters
        metrics = generation("metrics", None, Metrics)
        if settings.policy is not None:
            metrics.listed(rule.match for rule in settings.policy.tools if not has_wildcard(rule.match))
        tracing = self.tracing = _tracing(settings, log, generation, exporter)
        audit = self.audit = _audit(settings, log, generation, wall)
        self.telemetry = Telemetry(
            settings.telemetry,
            log,
            report=report,
            debugging=generation.running("debug windows", None, lambda _: Debugging(log, wall)),
            traces=None if tracing is None else tracing.traces,
            metrics=metrics,
            sinks=sinks,
            audit=audit,
            hash_args=_hash_args(settings, generation),
        )
        # Who calls: their headers end here, and what the server hands out to them stays theirs.
        identity = self.identity = _identification(settings, log, generation, wall, tracing, metrics.asked)
        # What callers may do, and so what lists show them.
        policy = self.policy = Policy(
            settings.policy,
            packs,
            form=form,
            found=found,
            drifted=drifted,
            token=_unguessable,
            shelve=of_server,
        )
        watch(policy.pin_files, policy.renew_pins)
        # How much they may have, here or with other replicas.
        limiting, shared = self.limiting, self.shared = _limits(
            settings, log, generation, wall, metrics.asked
        )
        # The server's side.
        transport = _transport(settings, generation, guards.descriptors.may_connect)
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
            store=_store(settings, log, generation, wall),
            definitions=None if settings.cache is None else of_server("tool definitions", None, _definitions),
        )
        # Where the server knows its callers, only it knows whose a session is.
        is_ours = not settings.upstream.forward_client_authorization
        handshakes = (
            of_server("handshakes", None, Handshakes) if policy.rules.reinitialises_any and is_ours else None
        )
        renewed = None if handshakes is None else handshakes.listen
        listen = listening(identity.listen, *policy.listens, limiting.listen, caching.listen, renewed)
        forward = Forward(
            settings.upstream,
            transport,
            form,
            origin=origin,
            stops=stops,
            listen=listen,
            catalog=of_server("catalog", None, lambda: Catalog(metrics.listed)),
            injects_meta=tracing is not None and tracing.injects_meta,
        )
        serve: Stage = forward
        cancel: Cancel = forward.cancel
        overdue: Overdue | None = None
        explained: Callable[[Refused, Call], Reply] = functools.partial(explain, form=form)
        endpoints = [
            Endpoint(path=settings.listen.path, methods=frozenset({"POST", "GET", "DELETE", "OPTIONS"}))
        ]
        if settings.upstream.is_http_sse:
            stream_path, messages_path = two_paths(settings.listen.path)
            sessions: dict[str, Session] = of_server("sessions of two endpoints", messages_path, dict)
            two = TwoEndpoints(
                settings.upstream,
                forward,
                messages_path,
                form,
                listen=listen,
                sessions=sessions,
                recorded=audit.recorded if audit is not None and audit.is_sync else None,
            )
            serve, cancel, overdue = two, two.cancel, two.overdue
            explained = functools.partial(_explain_elsewhere, two=two, form=form)
            endpoints = [
                Endpoint(path=stream_path, methods=frozenset({"GET", "OPTIONS"}), revision=TWO_ENDPOINTS),
                Endpoint(path=messages_path, methods=frozenset({"POST", "OPTIONS"}), revision=TWO_ENDPOINTS),
            ]
        pages = _our_pages(settings)
        if _servers_own_oauth(settings):
            oauth = ServersOAuth(
                PublicView(as_http(settings.upstream.url), settings.identity.resource or ""),
                transport,
                origin=origin,
                stops=stops,
                passing=forward.passing,
            )
            serve, pages = Challenged(serve, oauth), oauth.page
        self.probe = Probe(settings.upstream, transport, origin)
        # How long it may take, what is sent again, and when the server is left alone.
        self.resilience = Resilience(
            settings.resilience,
            form=form,
            cancel=cancel,
            overdue=overdue,
            handshakes=handshakes,
            connects=self.probe.connects,
            token=lambda: secrets.token_hex(16),
            chance=random.random,
            wall=wall,
            shelve=of_server,
        )
        self.capacity = Room(
            settings.capacity,
            deadline=self.resilience.deadline,
            is_short=guards.memory.is_short,
            shelve=of_server,
        )
        serve = self.resilience.guarded(self.capacity.paced(serve), self.capacity.spare)
        if audit is not None:
            serve = audit.guarded(serve, self.resilience.deadline, form)
        serve = self.capacity.guarded(serve)
        serve = self.resilience.worded(serve)
        own = _own_credential(settings, serve, log)
        serve = own or serve
        serve = caching.guarded(serve, forward.retell, self.resilience.deadline)
        serve = policy.guarded(identity.guarded(policy.shown(serve)))
        # The rooms, in the order of the way. What is off is not here.
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
        # The client's side.
        self.listener = Listener(
            settings.listen,
            endpoints=endpoints,
            hall=hall,
            open_journey=self.telemetry.open,
            explain=lambda refused: explain(challenges(refused), None, form),
            report=report,
            pages=pages,
            keys=identity.headers,
            who=identity.who,
            name_request=self.telemetry.name_request,
        )
        parts = (identity, self.resilience, *(each for each in (own, shared, audit) if each is not None))
        self.parts: tuple[Part, ...] = parts
        """What calls depend on beside the server."""

    def start(self) -> None:
        """What runs beside the calls runs from now on."""
        self.generation.start(*self.resilience.jobs)

    def enter(self) -> None:
        """Calls pass through here from now on. Raises nothing: whoever reloads has no way back."""
        self.policy.enter()
        self.telemetry.enter()
        self.policy.approvals.lever = self.policy.modes.lever = self.telemetry.event

    async def retire(self) -> None:
        """Others have entered: finish the calls that have begun, and close what nobody else needs."""
        await self.generation.retire()
        await self.listener.finished()
        await self.close()

    async def close(self) -> None:
        """The calls have ended, or are cut off."""
        await self.generation.retire()
        await self.resilience.close()
        await self.caching.close()
        self.telemetry.settle()
        await self.generation.release()


def _unguessable() -> str:
    """128 random bits, as a name: nobody can have given it to a tool, or guess it."""
    return f"x{secrets.token_hex(16)}"


_Wall: TypeAlias = Callable[[], float]


def _tracing(
    settings: Settings, log: Log, generation: Generation, exporter: SpanExporter | None
) -> Tracing | None:
    """Spans go on their way across reloads that say nothing else of them."""
    traces, url = settings.telemetry.traces, settings.upstream.url
    file = socket_of(url)
    if traces is None:
        return None

    def tell(why: str | None, lost: int) -> None:
        if why is None:
            log.life("traces are exported again", lost_spans=lost)
        else:
            log.life("traces are not exported", "warning", why=why, lost_spans=lost)

    return generation.running(
        "traces",
        (traces, url),
        lambda watch: Tracing(
            traces,
            server=url_host_and_port(url) if file is None else (file, None),
            bits=random.getrandbits,
            wall=time.time,  # noqa: TID251  here time enters
            tell=tell,
            watch=functools.partial(told, log, watch),
            redact=log.redactor.text,
            exporter=exporter,
        ),
    )


def _identification(
    settings: Settings,
    log: Log,
    generation: Generation,
    wall: _Wall,
    tracing: Tracing | None,
    took: Took,
) -> Identification:
    """The room goes on as it is while its section does: its keys were fetched, and are good."""
    ownership: Ownership | None = None
    if not settings.identity.is_anonymous:
        from .identity.ownership import (
            Ownership as Owned,  # where nobody proves anything, nobody owns anything
        )

        ownership = generation("ownership", settings.upstream.url, Owned)

    def make(watch: Watches) -> Identification:
        return Identification(
            settings.identity,
            watch=functools.partial(told, log, watch),
            wall=wall,
            ownership=ownership,
            took=took,
            traced=None if tracing is None else tracing.of_control_calls,
        )

    made_of = settings.identity, settings.upstream.url, settings.telemetry.traces
    return generation.running("identity", made_of, make)


def _hash_args(settings: Settings, generation: Generation) -> ArgsHash | None:
    """Arguments are known again as long as the process lives, or the key does."""
    if not settings.telemetry.args_hash:
        return None
    key = settings.telemetry.args_hash_key
    return generation(
        "hash of arguments", key, lambda: ArgsHash(None if key is None else key.reveal().encode())
    )


def _limits(
    settings: Settings, log: Log, generation: Generation, wall: _Wall, took: Took
) -> tuple[Limiting, Shared | None]:
    """The room, and the store behind it where replicas share one."""
    limits, state, place = settings.limits, settings.local_state, settings.shared_state
    local = generation("buckets", None, Local)
    shared: Shared | None = None

    def warn(why: str) -> None:
        log.life("quotas are not as they were", "warning", why=why)

    if place is not None and limits:
        from .limits.shared_building import share  # its library is an extra

        shared = generation.running(
            "shared limits",
            place,
            lambda watch: share(
                place,
                local,
                watch=functools.partial(told, log, watch),
                told=functools.partial(_tell_shared, log, "limits"),
                wall=wall,
                chance=random.random,
                took=took,
            ),
        )
    return generation.running(
        "limits",
        (limits, state, place),
        lambda _: Limiting(limits, local_state=state, shared=shared, local=local, wall=wall, warn=warn),
    ), shared


def _audit(settings: Settings, log: Log, generation: Generation, wall: _Wall) -> Audit | None:
    """By these settings, with the file that goes on as long as it is the same."""
    chosen = settings.telemetry.audit
    if chosen is None:
        return None
    from .telemetry.audit import Audit
    from .telemetry.audit_building import signer_of  # its library takes its time
    from .telemetry.audit_log import AuditLog

    sign = signer_of(chosen)
    kept = generation.running(
        "audit",
        chosen.file,
        lambda _: AuditLog(
            chosen,
            sign=sign,
            life=log.life,
            host=socket.gethostname(),
            wall=wall,
            redactor=log.redactor,
        ),
    )
    return Audit(chosen, kept, sign)


def _transport(settings: Settings, generation: Generation, may_connect: Callable[[], bool]) -> Transport:
    url, timeout_s = settings.upstream.url, settings.upstream.connect_timeout_s
    return generation.running(
        "transport",
        (url, timeout_s),
        lambda _: transport_for(url).make(url, connect_timeout_s=timeout_s, may_connect=may_connect),
    )


def _definitions() -> Definitions:
    from .cache.forgetting import Definitions

    return Definitions()


def _store(settings: Settings, log: Log, generation: Generation, wall: _Wall) -> Store | None:
    """Where answers are kept."""
    cache = settings.cache
    if cache is None:
        return None
    place = settings.shared_state if cache.shared else None

    def make(watch: Watches) -> Store:
        return store_of(
            cache, wall=wall, second=_second(settings, log, functools.partial(told, log, watch), wall)
        )

    return generation.running("kept answers", (cache, place), make)


def _second(settings: Settings, log: Log, watch: Watches, wall: _Wall) -> Second | None:
    """Where replicas share what they keep: on a connection of its own, or long answers would hold up limits."""
    shared, cache = settings.shared_state, settings.cache
    if shared is None or cache is None or not cache.shared or cache.secret is None:
        return None
    from .cache.store import Seal
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


def _own_credential(settings: Settings, serve: Stage, log: Log) -> OwnCredential | None:
    """What the server says of credentials is about ours, where callers prove themselves to us and not to it."""
    if settings.identity.is_anonymous or settings.upstream.forward_client_authorization:
        return None

    def refused(calls: int) -> None:
        why = (
            "the server, or a proxy before it, answers 401 or 407: upstream.headers must hold what it accepts"
        )
        log.life("own credential is refused", "warning", why=why, calls=calls)

    return OwnCredential(serve, refused=refused)


def told(log: Log, watch: Watches, paths: tuple[str, ...], changed: Changed) -> None:
    """Tell `changed` when one of the files changes, and people when it has worked."""

    async def reload() -> None:
        reaction = changed()
        if reaction is not None:
            await reaction
        log.life("reloaded", files=list(paths))

    if paths:
        watch(paths, reload)


def two_paths(path: str) -> tuple[str, str]:
    """Where HTTP+SSE is served beside `listen.path`: `/mcp` gives `/sse` and `/messages`."""
    base, _, last = path.rpartition("/")
    return (path if last == "sse" else f"{base}/sse"), f"{base}/messages"


def _explain_elsewhere(refused: Refused, call: Call, *, two: TwoEndpoints, form: Form) -> Reply:
    return two.refuse(refused, call) or explain(refused, call, form)
