"""Settings that change while everything else goes on: what must a reload not touch?

Calls and streams under way, who holds places, whether the server is left alone, and how the process ends. The sidecar
is a process with a settings file; each reading of it has a limit with a name of its own, by which the line that says
what is in force tells them apart.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from .caller import RIGHT, Told, connect
from .catalog import UNKNOWN, UNREACHABLE
from .lab import Lab, Report, failures, finish, until
from .messages import listening
from .observed import endings
from .scene import Scene
from .scripts import Script, expected, holding, served

RELOADS: Final = 100
BROKEN_EVERY: Final = 10
CALLS: Final = 200
STREAMS: Final = 20
KILLS: Final = 20
ENDS: Final = 10
OPEN_S: Final = 8.0
"""How long a server that fails is left alone: longer than a reload takes on a busy machine."""
REFUSED_S: Final = 10.0
RULES: Final = 1_000
"""So that reading takes long enough to be met by a signal."""
REST_S: Final = 1.2
"""After which a reload begins at once: there is one a second at most."""
MOST_GROWTH_BYTES: Final = 12_000_000
"""Of a hundred reloads, beside what the load itself leaves in the allocator."""

Rule = Mapping[str, object]
NEVER_ALLOWED: Final[Rule] = {"match": "no-*", "deny": ["*"]}
TURNS_DENIED: Final[Rule] = {"match": "turn-*", "deny": ["*"]}
EVERYTHING: Final[Rule] = {"match": "*", "allow": ["*"], "class": "write"}
DENIED: Final = "not_allowed"


class File:
    """A settings file that is replaced whole, as whoever is careful does."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "settings.yaml"
        self._next = folder / "settings.yaml.next"

    def says(self, number: int, *rules: Rule) -> None:
        """The reading with this number: these rules, and what none of them denies is allowed."""
        limit = {"name": f"reading-{number}", "key": ["tenant"], "rate_per_s": 100_000, "burst": 100_000}
        policy = {"tools": [NEVER_ALLOWED, *rules, EVERYTHING]}
        self.holds(json.dumps({"version": 1, "limits": [limit], "policy": policy}).encode())

    def holds(self, content: bytes) -> None:
        self._next.write_bytes(content)
        self._next.replace(self.path)

    def is_gone(self) -> None:
        self.path.unlink()


_ALLOWS: Final = b"version: 1\npolicy: {tools: [{match: '*', allow: ['*']}]}\n"
BROKEN: Final[tuple[tuple[str, Callable[[File], None]], ...]] = (
    ("settings.yaml:3:1: limitz", lambda file: file.holds(_ALLOWS + b"limitz: []\n")),
    ("settings.yaml:4", lambda file: file.holds(_ALLOWS + b"listen: {\n")),
    ("settings.yaml", File.is_gone),
    (
        "policy.packs[0]: cannot be read",
        lambda file: file.holds(b"version: 1\npolicy: {packs: [gone.yaml]}\n"),
    ),
    ("settings.yaml:1", lambda file: file.holds(b"")),
    ("settings.yaml", lambda file: file.holds(_ALLOWS + os.urandom(64) + b"\xff\n")),
    ("settings.yaml:3:1: policy", lambda file: file.holds(_ALLOWS + b"policy: {tools: []}\n")),
    ("settings.yaml:1", lambda file: file.holds(b"version: 2\n")),
)
"""What the line must say, and how a file is broken; whoever believes the first half of it allows everything."""


async def reload(scene: Scene, file: File, number: int, *rules: Rule) -> None:
    """Put a reading into force. Raises SceneFailed or TimeoutError where it does not come."""
    file.says(number, *rules)
    scene.sidecar.signal(signal.SIGHUP)
    await scene.sidecar.line(lambda line: is_reading(line, number))


def is_reading(line: Mapping[str, Any], number: int) -> bool:
    return line["msg"] == "settings reloaded" and f"limit reading-{number}" in line["enforces"]


async def refused(scene: Scene, file: File, number: int) -> list[str]:
    """Break the file, and let it be read; what is wrong with what is said of it."""
    wanted, does = BROKEN[number % len(BROKEN)]
    behind = len(scene.sidecar.lines)
    does(file)
    scene.sidecar.signal(signal.SIGHUP)
    try:
        said = await scene.sidecar.line(
            lambda line: line["msg"] == "settings not reloaded", behind=behind, seconds=REFUSED_S
        )
    except TimeoutError:
        return [f"{wanted}: not refused"]
    mistakes = [str(each) for each in said["mistakes"]]
    return [] if any(wanted in each for each in mistakes) else [f"of {wanted} it said {mistakes}"]


@asynccontextmanager
async def beside(*works: Callable[[Callable[[], bool]], Coroutine[Any, Any, object]]) -> AsyncIterator[None]:
    """What goes on meanwhile: each is told how to ask whether it goes on."""
    over = asyncio.Event()
    tasks = [asyncio.ensure_future(work(lambda: not over.is_set())) for work in works]
    try:
        yield
    finally:
        over.set()
        await asyncio.gather(*tasks)


async def under_load(lab: Lab) -> Report:
    """Every tenth file is broken: those of before go on. No call fails, and none that was denied passes."""
    report = Report(fault=f"{RELOADS} reloads under load")
    file = File(lab.folder)
    file.says(0)
    denied: list[Told] = []
    async with lab.scene(config=file.path) as scene:
        await scene.warm_up()

        async def others(goes_on: Callable[[], bool]) -> None:
            async with asyncio.TaskGroup() as crowds:
                for tool, at_once in (("do", 8), ("sse", 4)):
                    work = scene.crowd.calls(
                        tool, count=10**9, at_once=at_once, pause_s=0.01, goes_on=goes_on
                    )
                    crowds.create_task(work)

        async def never_allowed(goes_on: Callable[[], bool]) -> None:
            connection = await connect(scene.sidecar.port)
            while goes_on():
                denied.append(await scene.crowd.call("no", connection=connection))
                await asyncio.sleep(0.005)
            connection.close()

        resting = 0
        is_denied = False
        async with beside(others, never_allowed):
            for number in range(1, lab.many(RELOADS, BROKEN_EVERY) + 1):
                if number % BROKEN_EVERY:
                    is_denied = number % 2 == 0
                    await reload(scene, file, number, *([TURNS_DENIED] if is_denied else []))
                else:
                    report.broken += await refused(scene, file, number // BROKEN_EVERY - 1)
                report.injected += 1
                turned = await scene.crowd.call("turn")
                denied += [turned] if is_denied else []
                resting = resting or scene.sidecar.memory_bytes()
        grown = scene.sidecar.memory_bytes() - resting
        report.broken += [f"memory grew by {grown / 1e6:.0f} MB"] if grown > MOST_GROWTH_BYTES else []
        whose = {told.nonce for told in denied}
        passed = [told for told in denied if told.how != DENIED]
        failed = [told for told in scene.crowd.told if told.nonce not in whose and told.how != RIGHT]
        report.broken += [f"{len(passed)} denied calls: {endings(passed)}"] if passed else []
        report.broken += [f"{len(failed)} failed calls: {endings(failed)}"] if failed else []
        longest = max(told.took_s for told in scene.crowd.told)
        figures = {"longest": f"{longest:.2f} s", "memory": f"{grown / 1e6:+.1f} MB"}
        return await finish(scene, report, expected(DENIED), figures)


async def under_way(lab: Lab) -> Report:
    """Calls and streams end by the rules they began under, and hold their places until then."""
    report = Report(fault=f"reloads under {CALLS} calls and {STREAMS} streams")
    file = File(lab.folder)
    file.says(0)
    places = CALLS + STREAMS
    settings = (
        f"capacity.max_in_flight={places}",
        "capacity.max_wait_s=0.2",
        "upstream.connect_timeout_s=10",  # all of them connect at once, on a machine that may be busy
    )
    async with lab.scene(*settings, is_direct=True, config=file.path) as scene:
        await scene.warm_up()
        listeners = [await connect(scene.sidecar.port) for _ in range(STREAMS)]
        for each in listeners:
            each.write(listening())
            await each.begun()
        calls = [asyncio.ensure_future(scene.crowd.call("hold", patience_s=60)) for _ in range(CALLS)]
        calls += [asyncio.ensure_future(scene.crowd.call("open", patience_s=60)) for _ in range(STREAMS)]
        await scene.server.order({"holding": places, "within_s": 10})
        denies: tuple[Rule, ...] = (
            {"match": "hold-*", "deny": ["*"]},
            {"match": "open-*", "deny": ["*"]},
            TURNS_DENIED,
        )
        for number in range(1, lab.many(5, 2) + 1):
            await reload(scene, file, number, *denies)
            report.injected += 1
            held = (await scene.sidecar.gauges()).places
            report.broken += [f"{held} of {places} places are held"] if held != places else []
            if not await until(lambda: _one_retires(scene)):
                report.broken.append(
                    f"{(await scene.sidecar.gauges()).retiring} readings retire, one has calls"
                )
        turned = await scene.crowd.call("turn")
        report.broken += [f"the new rules: {turned.how}"] if turned.how != DENIED else []
        behind = await asyncio.gather(*(scene.crowd.call("do") for _ in range(8)))
        found = [each for each in behind if each.how != "overloaded"]
        report.broken += [f"{len(found)} calls found a place where all are held"] if found else []
        await reload(scene, file, number + 1)
        await scene.server.order({"release": True})
        told = await asyncio.gather(*calls)
        lost = [each for each in told if each.how != RIGHT]
        report.broken += [f"{len(lost)} of {places} calls were lost: {endings(lost)}"] if lost else []
        over = sum(each.is_over for each in listeners)
        report.broken += [f"{over} of {STREAMS} streams were lost"] if over else []
        for each in listeners:
            each.close()
        return await finish(scene, report, expected(DENIED, "overloaded"))


async def _one_retires(scene: Scene) -> bool:
    return (await scene.sidecar.gauges()).retiring == 1


async def left_alone(lab: Lab) -> Report:
    """A reload amid a storm of 503: what was learned of the server is not forgotten."""
    report = Report(fault="reloads while the server is left alone")
    file = File(lab.folder)
    file.says(0)
    settings = (
        f"resilience.breaker.open_s={OPEN_S}",
        f"resilience.breaker.max_open_s={OPEN_S}",
        "resilience.attempts=1",
    )
    async with lab.scene(*settings, config=file.path, has_breaker=True) as scene:
        await scene.warm_up()
        for number in range(1, lab.many(5, 1) + 1):
            await scene.server.order({"storm": {"status": 503}})
            asked_ns = 0
            while (told := await scene.crowd.call("do")).how == "upstream_broke":
                asked_ns = told.sent_ns
            await reload(scene, file, number, *([TURNS_DENIED] if number % 2 else []))
            after = [await scene.crowd.call("do") for _ in range(20)]
            # The server was found to fail after this call was sent, and is left alone from then on.
            until_ns = asked_ns + OPEN_S * 1e9
            sure = [each for each in after if each.sent_ns + each.took_s * 1e9 < until_ns]
            report.injected += bool(sure)
            asked = [each for each in sure if each.how != "breaker_open"]
            report.broken += [f"forgotten: {endings(asked)}"] if asked else []
            await scene.server.order({"storm": None})
            if not await until(served(scene), 3 * OPEN_S):
                report.broken.append("the server is not asked again")
        return await finish(scene, report, expected("upstream_broke", "breaker_open"))


async def while_killed(lab: Lab) -> Report:
    """SIGKILL of the server in the middle of each reload."""
    report = Report(fault="reloads while the server is killed")
    file = File(lab.folder)
    file.says(0)
    async with lab.scene(is_direct=True, config=file.path) as scene:
        await scene.warm_up()

        async def others(goes_on: Callable[[], bool]) -> None:
            await scene.crowd.calls("do", count=10**9, at_once=16, pause_s=0.005, goes_on=goes_on)

        async with beside(others):
            for number in range(1, lab.many(KILLS, 3) + 1):
                await asyncio.gather(
                    reload(scene, file, number, *([TURNS_DENIED] if number % 2 else [])),
                    scene.server.restart(),
                )
                report.injected += 1
        return await finish(scene, report, expected(UNKNOWN, UNREACHABLE))


async def ended(lab: Lab) -> Report:
    """TERM while a reload reads: what is under way in both readings is answered, and nothing new is put into force."""
    report = Report(fault="SIGTERM amid a reload")
    took_s: list[float] = []
    rounds = lab.many(ENDS, 2)
    for round in range(rounds):
        file = File(lab.folder)
        file.says(0)
        async with lab.scene("drain_s=10", config=file.path) as scene:
            calls = [_slow(scene, 4.0) for _ in range(20)]
            await until(holding(scene, 20))
            await reload(scene, file, 1, TURNS_DENIED)
            calls += [_slow(scene, 2.5) for _ in range(20)]
            await until(holding(scene, 40))
            await asyncio.sleep(REST_S)
            file.says(2, *({"match": f"other-{n}-*", "deny": ["*"]} for n in range(RULES)))
            began = time.monotonic()
            scene.sidecar.signal(signal.SIGHUP)
            await asyncio.sleep(0.1 * round / rounds)
            scene.sidecar.signal(signal.SIGTERM)
            code = await scene.sidecar.exit_code(20)
            took_s.append(time.monotonic() - began)
            told = await asyncio.gather(*calls)
            lines = scene.sidecar.lines
            report.injected += not any(is_reading(line, 2) for line in lines)
            report.calls += len(told)
            report.broken += [f"exit code {code}"] if code else []
            lost = [each for each in told if each.how != RIGHT]
            report.broken += [f"{len(lost)} of 40 calls were lost: {endings(lost)}"] if lost else []
            cut_off = [line["cut_off"] for line in lines if line["msg"] == "stopped"]
            report.broken += [] if cut_off == [0] else [f"it says that it cut off {cut_off}"]
            report.broken += [f"it said {''.join(scene.sidecar.other)[-300:]}"] if scene.sidecar.other else []
            report.broken += failures(lines)
            refused = [line for line in lines if line["msg"] == "settings not reloaded"]
            report.broken += [f"not reloaded: {refused[0]}"] if refused else []
    report.figures = f"gone after {max(took_s):.1f} s at the latest"
    return report


def _slow(scene: Scene, seconds: float) -> asyncio.Future[Told]:
    return asyncio.ensure_future(scene.crowd.call("slow", {"s": seconds}, patience_s=20))


SCRIPTS: Final[tuple[Script, ...]] = (
    Script(name=f"{RELOADS} reloads under load", run=under_load),
    Script(name=f"reloads under {CALLS} calls and {STREAMS} streams", run=under_way),
    Script(name="reloads while the server is left alone", run=left_alone, needs=frozenset({"breaker"})),
    Script(name="reloads while the server is killed", run=while_killed),
    Script(name="SIGTERM amid a reload", run=ended),
)
