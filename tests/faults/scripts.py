"""Faults that need more than a wire: signals, slow and vanishing clients, crowds, stores and identity providers."""

from __future__ import annotations

import asyncio
import functools
import itertools
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import Final, TypeAlias

from msgspec import Struct

from tests.idp import AUDIENCE, Idp, Scripted, key_for
from tests.valkey import Valkey

from . import inside
from .caller import GONE, LEFT, RIGHT, Connection, Crowd, connect
from .catalog import UNKNOWN, UNREACHABLE
from .lab import Lab, Report, finish, until
from .messages import LEGACY, MODERN, call, listening
from .observed import Expected, endings
from .scene import Scene

KILLS: Final = 20
DRAINS: Final = 20
IDLE: Final = 10_000
"""Each needs a descriptor of ours, and one of the sidecar's."""
STREAMS: Final = 1_000


class Script(Struct, frozen=True, kw_only=True):
    """One fault and how it is made."""

    name: str
    run: Callable[[Lab], Awaitable[Report]]
    needs: frozenset[str] = frozenset()
    until: frozenset[str] = frozenset()


def expected(*may: str) -> Expected:
    return Expected(may=frozenset(may))


Is: TypeAlias = Callable[[], Awaitable[bool]]


def has_called(crowd: Crowd, count: int) -> Is:
    async def look() -> bool:
        return len(crowd.told) >= count

    return look


def holding(scene: Scene, places: int) -> Is:
    async def look() -> bool:
        return (await scene.sidecar.gauges()).places >= places

    return look


def free(scene: Scene) -> Is:
    async def look() -> bool:
        return not (await scene.sidecar.gauges()).places

    return look


def ready(scene: Scene) -> Is:
    async def look() -> bool:
        return await scene.sidecar.probe() == 200

    return look


def unready(scene: Scene) -> Is:
    async def look() -> bool:
        try:
            return await scene.sidecar.probe() != 200
        except (OSError, IndexError):
            return True

    return look


def served(scene: Scene) -> Is:
    async def look() -> bool:
        return (await scene.crowd.call("do")).how == RIGHT

    return look


async def killed(lab: Lab) -> Report:
    """SIGKILL of the server again and again, under load, without a faulter that would open its door for it."""
    report = Report(fault="the server is killed")
    async with lab.scene(is_direct=True) as scene:
        await scene.warm_up()
        over = asyncio.Event()
        crowd = asyncio.ensure_future(
            scene.crowd.calls("do", count=10**9, at_once=16, goes_on=lambda: not over.is_set())
        )
        for _ in range(lab.many(KILLS, 3)):
            await until(has_called(scene.crowd, len(scene.crowd.told) + 300))
            await scene.server.restart()
            report.injected += 1
        over.set()
        await crowd
        return await finish(scene, report, expected(UNKNOWN, UNREACHABLE))


async def stopped(lab: Lab) -> Report:
    """SIGSTOP of the server for a second, again and again: everybody waits, nobody is told anything wrong."""
    report = Report(fault="the server is stopped for a second")
    async with lab.scene(is_direct=True) as scene:
        await scene.warm_up()
        over = asyncio.Event()
        crowd = asyncio.ensure_future(
            scene.crowd.calls("do", count=10**9, at_once=32, goes_on=lambda: not over.is_set())
        )
        for _ in range(lab.many(5, 2)):
            await asyncio.sleep(0.3)
            scene.server.signal(signal.SIGSTOP)
            report.injected += 1
            await asyncio.sleep(1)
            scene.server.signal(signal.SIGCONT)
        over.set()
        told = await crowd
        figures = {"longest": f"{max(each.took_s for each in told):.2f} s"}
        return await finish(scene, report, expected(), figures)


async def silent(lab: Lab) -> Report:
    """A server that takes calls and never answers: callers leave, and their places are free."""
    report = Report(fault="the server never answers")
    async with lab.scene() as scene:
        await scene.warm_up()
        told = await scene.crowd.calls("never", count=lab.many(160, 32), at_once=16, patience_s=0.4)
        report.injected = sum(each.how == LEFT for each in told)
        return await finish(scene, report, expected(LEFT))


async def stormy(lab: Lab) -> Report:
    """503 to everybody: passed on as it is, and nobody is asked twice."""
    report = Report(fault="503 storm")
    async with lab.scene() as scene:
        await scene.warm_up()
        for fields in ("Retry-After: 1\r\n", "Retry-After: 999999999\r\n", ""):
            await scene.server.order({"storm": {"status": 503, "fields": fields, "body": "later"}})
            await scene.crowd.calls("do", count=lab.many(1_000, 50), at_once=32)
        await scene.server.order({"storm": None})
        stormed = [each.nonce for each in scene.server.ran() if each.what == "stormed"]
        report.injected = len(stormed)
        if len(stormed) != len(set(stormed)):
            report.broken.append(f"{len(stormed) - len(set(stormed))} calls were sent again into the storm")
        return await finish(scene, report, expected("http 503"))


async def sidecar_stopped(lab: Lab) -> Report:
    """SIGSTOP of the sidecar itself, under load of quick and slow calls."""
    report = Report(fault="the sidecar is stopped for a second")
    async with lab.scene() as scene:
        await scene.warm_up()
        over = asyncio.Event()
        crowds = [
            asyncio.ensure_future(
                scene.crowd.calls(
                    tool, count=10**9, at_once=16, arguments={"s": 0.2}, goes_on=lambda: not over.is_set()
                )
            )
            for tool in ("do", "slow")
        ]
        for _ in range(lab.many(5, 2)):
            await asyncio.sleep(0.3)
            scene.sidecar.signal(signal.SIGSTOP)
            report.injected += 1
            await asyncio.sleep(1)
            scene.sidecar.signal(signal.SIGCONT)
        over.set()
        await asyncio.gather(*crowds)
        return await finish(scene, report, expected())


async def drained(lab: Lab) -> Report:
    """SIGTERM under 200 calls and 100 streams: unready within a second, exit code 0, and every call is answered."""
    report = Report(fault="SIGTERM under 200 calls and 100 streams")
    unready_s: list[float] = []
    took_s: list[float] = []
    for _ in range(lab.many(DRAINS, 1)):
        async with lab.scene("drain_s=10", "capacity.max_in_flight=400") as scene:
            streams = [await connect(scene.sidecar.port) for _ in range(100)]
            for each in streams:
                each.write(listening())
            for each in streams:
                await each.begun()
            calls = [
                asyncio.ensure_future(scene.crowd.call("slow", {"s": 2 + number % 10 / 10}, patience_s=15))
                for number in range(200)
            ]
            await until(holding(scene, 200))
            began = time.monotonic()
            scene.sidecar.signal(signal.SIGTERM)
            report.injected += 1
            await until(unready(scene))
            unready_s.append(time.monotonic() - began)
            code = await scene.sidecar.exit_code(15)
            took_s.append(time.monotonic() - began)
            told = await asyncio.gather(*calls)
            report.calls += len(told)
            report.broken += [f"exit code {code}"] if code else []
            lost = [each for each in told if each.how != RIGHT]
            report.broken += [f"{len(lost)} of 200 accepted calls were lost: {endings(lost)}"] if lost else []
            open_ = sum(not each.is_over for each in streams)
            report.broken += [f"{open_} streams are still open"] if open_ else []
            impolite = sum(not each.got.endswith(b"0\r\n\r\n") for each in streams)
            report.broken += [f"{impolite} streams were cut off"] if impolite else []
            cut_off = (await scene.sidecar.life("stopped"))["cut_off"]
            report.broken += [f"it says that it cut off {cut_off}"] if cut_off else []
            for each in streams:
                each.close()
    if max(unready_s) > 1:
        report.broken.append(f"unready after {max(unready_s):.2f} s only")
    report.figures = f"unready after {max(unready_s):.2f} s, gone after {max(took_s):.1f} s at the latest"
    return report


async def slow_readers(lab: Lab) -> Report:
    """Clients that ask for much and take nothing are dropped in time; others are served meanwhile."""
    report = Report(fault="readers that take nothing")
    async with lab.scene("listen.write_idle_timeout_s=1") as scene:
        await scene.warm_up()
        resting = scene.sidecar.memory_bytes()
        slow = [await connect(scene.sidecar.port, receive_bytes=4_096) for _ in range(lab.many(40, 10))]
        for number, each in enumerate(slow):
            each.pause()
            each.write(call("big", number, {"bytes": 4_000_000}))
        others = await scene.crowd.calls("do", count=lab.many(1_000, 200), at_once=8)
        most = scene.sidecar.memory_bytes()
        await until(free(scene), 8)
        report.injected = len(slow)
        for each in slow:
            each.reset()
        figures = {
            "memory": f"+{(most - resting) / 1e6:.0f} MB for {len(slow)} of them",
            "others at most": f"{max(each.took_s for each in others):.2f} s",
        }
        return await finish(scene, report, Expected(may=frozenset()), figures)


async def trickling(lab: Lab) -> Report:
    """Clients that take a large answer a little at a time get all of it."""
    report = Report(fault="readers that take a little at a time")
    async with lab.scene("listen.write_idle_timeout_s=1") as scene:
        await scene.warm_up()

        async def read() -> None:
            connection = await connect(scene.sidecar.port, receive_bytes=65_536)
            asked = asyncio.ensure_future(
                scene.crowd.call("big", {"bytes": 1_000_000}, connection=connection, patience_s=30)
            )
            while not asked.done():
                connection.pause()
                await asyncio.sleep(0.05)
                connection.resume()
                await asyncio.sleep(0.005)
            await asked
            report.injected += 1
            connection.close()

        await asyncio.gather(*(read() for _ in range(lab.many(20, 5))))
        return await finish(scene, report, expected())


async def idle(lab: Lab) -> Report:
    """Thousands of connections that made one call and say nothing more."""
    report = Report(fault=f"{IDLE:,} idle connections")
    async with lab.scene() as scene:
        await scene.warm_up()
        resting = scene.sidecar.memory_bytes()
        held: list[Connection] = []
        count = lab.many(IDLE, 200)
        gate = asyncio.Semaphore(64)

        async def one() -> None:
            async with gate:
                connection = await connect(scene.sidecar.port)
                held.append(connection)
                await scene.crowd.call("do", connection=connection)

        await asyncio.gather(*(one() for _ in range(count)))
        report.injected = (await scene.sidecar.gauges()).connections
        report.broken += [f"{count - report.injected} were lost"] if report.injected < count else []
        each_kb = (scene.sidecar.memory_bytes() - resting) / count / 1_000
        others = await scene.crowd.calls("do", count=500, at_once=8)
        for connection in held:
            connection.close()
        figures = {
            "memory": f"{each_kb:.1f} kB each",
            "others at most": f"{max(told.took_s for told in others):.2f} s",
        }
        return await finish(scene, report, expected(), figures)


async def streams(lab: Lab) -> Report:
    """A thousand open streams, half of which end by RST."""
    report = Report(fault=f"{STREAMS:,} streams")
    async with lab.scene() as scene:
        await scene.warm_up()
        resting = scene.sidecar.memory_bytes()
        count = lab.many(STREAMS, 100)
        held = []
        for _ in range(count):
            connection = await connect(scene.sidecar.port)
            connection.write(listening())
            held.append(connection)
        for connection in held:
            if not await connection.begun():
                report.broken.append("a stream was not opened")
        report.injected = (await scene.sidecar.gauges()).requests
        each_kb = (scene.sidecar.memory_bytes() - resting) / count / 1_000
        others = await scene.crowd.calls("do", count=500, at_once=8)
        lost = sum(connection.is_over for connection in held)
        report.broken += [f"{lost} streams were lost"] if lost else []
        for number, connection in enumerate(held):
            connection.reset() if number % 2 else connection.close()
        figures = {
            "memory": f"{each_kb:.1f} kB each",
            "others at most": f"{max(told.took_s for told in others):.2f} s",
        }
        return await finish(scene, report, expected(), figures)


async def vanished(lab: Lab) -> Report:
    """Clients that are gone without FIN, as far as the sidecar can know: amid a head, amid a body, amid a long answer,
    and before the answer to a call."""
    report = Report(fault="clients vanish without FIN")
    settings = (
        "listen.head_timeout_s=1",
        "listen.body_timeout_s=1",
        "listen.write_idle_timeout_s=1",
    )
    async with lab.scene(*settings) as scene:
        await scene.warm_up()
        each_kind = lab.many(50, 10)
        ghosts: list[Connection] = []
        whole = call("do-head", 1)
        half = whole.index(b"\r\n\r\n")
        for said in (whole[: half // 2], whole[: half + 20], call("big-long", 2, {"bytes": 4_000_000})):
            for _ in range(each_kind):
                ghost = await connect(scene.sidecar.port, receive_bytes=4_096)
                ghost.pause()
                ghost.write(said)
                ghosts.append(ghost)
        await scene.crowd.calls("do", count=200, at_once=8)
        report.injected = len(ghosts)
        not_settled, took_s = await scene.settled(8)
        report.broken += [f"ghosts are kept: {each}" for each in not_settled]
        for ghost in ghosts:
            ghost.reset()
        return await finish(scene, report, expected(), {"ghosts gone after": f"{took_s:.1f} s"})


def cancel_storm(revision: str) -> Callable[[Lab], Awaitable[Report]]:
    """Callers that leave at any moment, half of them by RST."""

    async def run(lab: Lab) -> Report:
        report = Report(fault=f"cancel storm, {revision}")
        async with lab.scene("capacity.max_in_flight=400") as scene:
            await scene.warm_up()
            for tool, arguments in (("slow", {"s": 0.03}), ("sse", {}), ("drip", {"s": 0.01, "notes": 5})):
                await scene.crowd.calls(
                    tool,
                    arguments=dict(arguments),
                    count=lab.many(1_500, 100),
                    at_once=48,
                    revision=revision,
                    leaves=lambda: scene.crowd.random.uniform(0, 0.06),
                )
            report.injected = sum(each.how == GONE for each in scene.crowd.told)
            not_settled, took_s = await scene.settled(10)
            report.broken += not_settled
            return await finish(scene, report, expected(GONE), {"free after": f"{took_s:.1f} s"})

    return run


# Identity providers.


@asynccontextmanager
async def with_provider(lab: Lab) -> AsyncIterator[tuple[Scene, Idp]]:
    """A sidecar that asks for tokens of a provider in this process."""
    async with Idp() as idp:
        authenticators = (
            f'[{{"kind":"jwt","issuer":"{idp.issuer}","audience":"{AUDIENCE}",'
            f'"jwks_url":"{idp.jwks_url}","algorithms":["RS256"],"tenant_claim":"tenant"}}]'
        )
        async with lab.scene(
            f"identity.resource={AUDIENCE}",
            f"identity.authenticators={authenticators}",
            "identity.failed_attempts.most=1000000",  # else the address of all of them is not listened to
        ) as scene:
            await until(ready(scene))
            yield scene, idp


PROVIDER_FAULTS: Final = {
    "answers 500": Scripted(status=500),
    "answers garbage": Scripted(body=b"\x00<html>{"),
    "answers nothing": Scripted(body=b""),
    "publishes no key": Scripted(body=b'{"keys":[]}'),
    "redirects": Scripted(status=302, headers={"Location": "http://127.0.0.1:9/jwks"}),
    "hangs": Scripted(hold=asyncio.Event()),
}


async def provider(lab: Lab) -> Report:
    """The provider fails in every way: known keys go on, nobody else gets in."""
    report = Report(fault="the identity provider fails")
    async with with_provider(lab) as (scene, idp):
        good = idp.token()
        await scene.warm_up(good)
        stranger = idp.token(key=key_for("a stranger's", "RS256"), kid="k1")
        for number, how in enumerate([*PROVIDER_FAULTS, "is down"]):
            if how == "is down":
                await idp.stop()
            else:
                idp.jwks_answer = PROVIDER_FAULTS[how]
            new = idp.token(kid=f"new{number}", alg="RS256")
            before = len(scene.crowd.told)
            for _ in range(lab.many(20, 2)):
                for token in (good, new, stranger):
                    await scene.crowd.calls("do", count=4, at_once=4, token=token)
            ends = [each.how for each in scene.crowd.told[before:]]
            report.injected += 1
            wanted = {RIGHT, "bad_credential", "idp_unavailable"}
            if set(ends) - wanted:
                report.broken.append(f"{how}: {sorted(set(ends) - wanted)}")
            rights = sum(each == RIGHT for each in ends)
            if rights * 3 != len(ends):
                report.broken.append(f"{how}: {rights} of {len(ends)} got in, a third must")
        idp.jwks_answer = None
        await idp.start()
        may = expected("bad_credential", "idp_unavailable")
        return await finish(scene, report, may, token=good)


# Stores.


async def store(lab: Lab) -> Report:
    """Valkey is hung, killed and started again: calls go on by local limits, and none waits for the store."""
    report = Report(fault="the store hangs, dies and comes back")
    valkey = Valkey()
    await asyncio.to_thread(valkey.start)
    try:
        async with lab.scene(
            f"shared_state.url={valkey.url}",
            'limits=[{"name":"rate","key":["tenant"],"rate_per_s":100000,"burst":100000}]',
        ) as scene:
            await scene.warm_up()
            for _ in range(lab.many(3, 1)):
                for begin, end in ((valkey.hang, valkey.go_on), (valkey.kill, valkey.start)):
                    await asyncio.to_thread(begin)
                    report.injected += 1
                    await scene.crowd.calls("do", count=lab.many(1_000, 100), at_once=16)
                    await asyncio.to_thread(end)
                    await scene.crowd.calls("do", count=lab.many(300, 50), at_once=16)
            longest = max(each.took_s for each in scene.crowd.told)
            if longest > 1:
                report.broken.append(f"a call waited {longest:.2f} s for the store")
            return await finish(scene, report, expected(), {"longest": f"{longest:.2f} s"})
    finally:
        await asyncio.to_thread(valkey.kill)


async def closed_store(lab: Lab) -> Report:
    """The same where limits are to be closed without their store: refused, and nothing is sent."""
    report = Report(fault="the store is gone, and limits are closed")
    valkey = Valkey()
    await asyncio.to_thread(valkey.start)
    try:
        async with lab.scene(
            f"shared_state.url={valkey.url}",
            "shared_state.on_outage=closed",
            'limits=[{"name":"rate","key":["tenant"],"rate_per_s":100000,"burst":100000}]',
        ) as scene:
            await scene.warm_up()
            await asyncio.to_thread(valkey.kill)
            told = await scene.crowd.calls("do", count=lab.many(1_000, 100), at_once=16)
            report.injected = sum(each.how != RIGHT for each in told)
            report.broken += ["calls went through without the store"] if report.injected < len(told) else []
            await asyncio.to_thread(valkey.start)
            if not await until(served(scene), 10):
                report.broken.append(f"10 s after the store came back: {scene.crowd.told[-1].how}")
            return await finish(scene, report, expected("rate_limited", "overloaded"))
    finally:
        await asyncio.to_thread(valkey.kill)


# The breaker: waits until it is wired.

BREAKER: Final = (
    "resilience.breaker.open_s=1",
    "resilience.breaker.max_open_s=1",
    "resilience.attempts=1",
)


async def breaker(lab: Lab) -> Report:
    """Open at most a second after the fifth failure, one probe at a time, closed at most two after recovery."""
    report = Report(fault="the breaker opens and closes")
    opened_s: list[float] = []
    closed_s: list[float] = []
    async with lab.scene(*BREAKER, has_breaker=True) as scene:
        await scene.warm_up()
        for _ in range(lab.many(10, 2)):
            await scene.server.order({"storm": {"status": 503}})
            over = asyncio.Event()
            before = len(scene.crowd.told)
            goes_on = functools.partial(_not, over.is_set)
            crowd = asyncio.ensure_future(
                scene.crowd.calls("do", count=10**9, at_once=8, pause_s=0.01, goes_on=goes_on)
            )
            await asyncio.sleep(2.5)
            await scene.server.order({"storm": None})
            recovered = time.monotonic_ns()
            await asyncio.sleep(2.5)
            over.set()
            await crowd
            report.injected += 1
            told = scene.crowd.told[before:]
            stormed = sorted(each.at_ns for each in scene.server.ran() if each.what == "stormed")
            mine = [at for at in stormed if at >= min(each.sent_ns for each in told)]
            refused = [each.sent_ns for each in told if each.how == "breaker_open"]
            right = [each.sent_ns for each in told if each.how == RIGHT and each.sent_ns > recovered]
            if len(mine) < 5 or not refused or not right:
                report.broken.append(
                    f"{len(mine)} failures, {len(refused)} refused, {len(right)} right afterwards"
                )
                continue
            opened_s.append((min(refused) - mine[4]) / 1e9)
            closed_s.append((min(right) - recovered) / 1e9)
            report.broken += _probes([at for at in mine if at > min(refused)])
    if opened_s and max(opened_s) > 1:
        report.broken.append(f"open {max(opened_s):.2f} s after the fifth failure")
    if closed_s and max(closed_s) > 2:
        report.broken.append(f"closed {max(closed_s):.2f} s after recovery")
    report.figures = (
        f"open after {max(opened_s, default=0):.3f} s, closed after {max(closed_s, default=0):.3f} s"
    )
    return report


def _not(is_so: Callable[[], bool]) -> bool:
    return not is_so()


def _probes(at_ns: list[int]) -> list[str]:
    """Calls that came through while it was open: one a second, and those that were under way when it opened."""
    late = [at for at in at_ns if at > at_ns[0] + 100_000_000] if at_ns else []
    close = [b - a for a, b in itertools.pairwise(late) if b - a < 900_000_000]
    return [f"{len(close)} probes less than 0.9 s after another"] if close else []


async def stages(lab: Lab) -> Report:
    """An exception that nobody expects in each stage, in this process."""
    return await inside.raised(lab.folder, Random(lab.seed))


def at_each_await(way: inside.Way) -> Callable[[Lab], Awaitable[Report]]:
    async def run(lab: Lab) -> Report:
        return await inside.cancelled(way, lab.folder, Random(lab.seed))

    return run


SCRIPTS: Final[tuple[Script, ...]] = (
    Script(name="the server is killed", run=killed),
    Script(name="the server is stopped for a second", run=stopped),
    Script(name="the server never answers", run=silent, until=frozenset({"deadlines"})),
    Script(name="503 storm", run=stormy),
    Script(name="the identity provider fails", run=provider),
    Script(name="the store hangs, dies and comes back", run=store),
    Script(name="the store is gone, and limits are closed", run=closed_store),
    Script(name="SIGTERM under 200 calls and 100 streams", run=drained),
    Script(name="the sidecar is stopped for a second", run=sidecar_stopped),
    Script(name="readers that take nothing", run=slow_readers),
    Script(name="readers that take a little at a time", run=trickling),
    Script(name=f"{IDLE:,} idle connections", run=idle),
    Script(name=f"{STREAMS:,} streams", run=streams),
    Script(name="clients vanish without FIN", run=vanished),
    Script(name=f"cancel storm, {LEGACY}", run=cancel_storm(LEGACY)),
    Script(name=f"cancel storm, {MODERN}", run=cancel_storm(MODERN)),
    Script(name="an exception in each stage", run=stages),
    *(Script(name=f"cancelled at each await: {way.name}", run=at_each_await(way)) for way in inside.WAYS),
    Script(name="the breaker opens and closes", run=breaker, needs=frozenset({"breaker"})),
)
