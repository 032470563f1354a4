"""Memory runs out, the loop is blocked: the sidecar says so, refuses what it must, and comes back.

Source: issue 7, point 7.
"""

from __future__ import annotations

import functools
import json
import signal
import threading
from collections.abc import Callable
from pathlib import Path

from proxy.cache.store import Store
from proxy.lifecycle.guards import Guards
from tests.integration.conftest import Connect, OpenSidecar
from tests.integration.house import Line, Lines, Sidecar, process, run_words
from tests.integration.upstream import Exchange, Upstream
from tests.integration.waiting import until
from tests.integration.wire import LEGACY, message, post, result, tool_call

REFUSAL = "dev.mcp-sidecar/refusal"
ABOVE_80 = ["memory is above 80% of its limit"]
ABOVE_95 = ["memory is above 95% of its limit, and new calls are refused"]


async def serve(exchange: Exchange) -> None:
    exchange.answer(result(json.loads(exchange.request.body or b"{}").get("id")))


def says(msg: str, **fields: object) -> Callable[[Lines], bool]:
    def said(line: Line) -> bool:
        return line["msg"] == msg and all(line.get(name) == value for name, value in fields.items())

    return lambda lines: any(map(said, lines.life))


class Group:
    """A folder that looks like /sys/fs/cgroup."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "own").write_text("0::/\n")
        (folder / "memory.max").write_text("1000000\n")
        (folder / "memory.stat").write_text("anon 1\ninactive_file 1000\n")
        self.use(100_000)

    def use(self, used: int) -> None:
        (self.folder / "memory.current").write_text(f"{used + 1000}\n")

    @property
    def guards(self) -> Callable[..., Guards]:
        return functools.partial(Guards, mounted=self.folder, own=self.folder / "own")


async def ready(side: Sidecar) -> tuple[int, dict[str, object]]:
    answer = await side.probe("/readyz")
    said = json.loads(answer.body)
    assert isinstance(said, dict)
    return answer.status, said


async def test_memory_runs_out_and_comes_back(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream, tmp_path: Path
) -> None:
    """Degraded above 0.80, calls refused above 0.95, until it is well below again."""
    group = Group(tmp_path)
    upstream.follow(serve)
    side = await open_sidecar(guards=group.guards)
    client = await connect(side.port)
    assert await ready(side) == (200, {"status": "ok"})
    assert (await client.asked(post(tool_call()))).body == result()

    group.use(810_000)
    told = functools.partial(says, "memory", limit_bytes=1_000_000)
    await side.lines.when(told(state="degraded", used_bytes=810_000, level="warning"))
    assert await ready(side) == (200, {"status": "degraded", "reasons": ABOVE_80})
    assert (await client.asked(post(tool_call()))).body == result()

    group.use(960_000)
    await side.lines.when(told(state="short", used_bytes=960_000, level="warning"))
    assert await ready(side) == (200, {"status": "degraded", "reasons": ABOVE_95})
    refused = json.loads((await client.asked(post(tool_call()))).body)
    assert refused["result"]["isError"] is True
    facts = refused["result"]["_meta"][REFUSAL]
    assert facts == {"reason": "overloaded", "limit": "capacity.memory", "retryAfterMs": 1000}
    listed = json.loads((await client.asked(post(message("tools/list", LEGACY)))).body)
    assert (listed["error"]["code"], listed["error"]["data"]["retryAfterMs"]) == (503, 1000)
    # What is no work, or ends some, passes.
    for body in (
        message("ping", LEGACY),
        message("initialize", LEGACY, protocolVersion=LEGACY, capabilities={}),
    ):
        assert (await client.asked(post(body))).body == result()
    assert (await side.probe("/healthz")).status == 200

    group.use(910_000)  # below where it began, and not well below
    assert json.loads((await client.asked(post(tool_call()))).body)["result"]["isError"] is True
    group.use(700_000)
    await side.lines.when(told(state="well", level="info"))
    assert (await client.asked(post(tool_call()))).body == result()
    assert await ready(side) == (200, {"status": "ok"})


def has_evicted(store: Store, count: int) -> bool:
    return store.counts.get("evicted", 0) == count


async def test_kept_answers_go_before_anybody_is_refused(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream, tmp_path: Path
) -> None:
    """Above 0.80 half of them go, above 0.95 all of those in memory."""
    group = Group(tmp_path)
    upstream.follow(serve)
    rule = '{match: "*", class: read, allow: ["*"], cache: {ttl_s: 600}}'
    side = await open_sidecar("cache={}", f"policy.tools=[{rule}]", guards=group.guards)
    client = await connect(side.port)
    for number in range(8):
        await client.asked(post(tool_call(id=number, tool=f"tool{number}")))
    store = side.house.rooms.caching.store
    assert store is not None
    for used, state, gone in ((810_000, "degraded", 4), (960_000, "short", 8)):
        group.use(used)
        await side.lines.when(says("memory", state=state))
        await until(functools.partial(has_evicted, store, gone))


async def test_a_limit_of_our_own(open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream) -> None:
    """memory_limit_bytes: resident memory counts where no control group has a limit. This process has more."""
    side = await open_sidecar("memory_limit_bytes=33554432")
    await side.lines.when(says("memory", state="short", limit_bytes=33_554_432))
    said = json.loads((await (await connect(side.port)).asked(post(tool_call()))).body)
    assert said["result"]["_meta"][REFUSAL]["limit"] == "capacity.memory"


async def test_a_blocked_loop_is_told(side: Sidecar) -> None:
    """loop_lag_seconds has it, and a line says so."""
    await side.probe("/healthz")
    before = side.house.guards.lag.max_s
    threading.Event().wait(0.4)
    await side.lines.when(says("loop was blocked"))
    assert side.house.guards.lag.max_s >= max(before, 0.3)
    line = next(line for line in side.lines.life if line["msg"] == "loop was blocked")
    assert line["level"] == "warning"
    assert line["lag_s"] > 0.1
    assert line["cpu_s"] < 0.1  # it stood still, and did not compute


async def test_where_the_loop_is_blocked_is_told_meanwhile(side: Sidecar) -> None:
    """By a thread: here the loop stands until that has spoken."""
    await side.probe("/healthz")  # what is begun with the house has begun
    is_told = says("loop is blocked")
    pause = threading.Event()
    for _ in range(500):
        if is_told(side.lines):
            break
        pause.wait(0.01)
    line = next(line for line in side.lines.life if line["msg"] == "loop is blocked")
    assert (line["level"], line["for_s"] >= 1.0) == ("error", True)
    assert any("test_guards.py" in place for place in line["where"])


async def test_the_last_line_says_how_late_the_loop_was(upstream: Upstream) -> None:
    """For whoever ran something against it: the corpus, a benchmark."""
    async with process(*run_words(upstream.url)) as running:
        await running.listening()
        running.signal(signal.SIGINT)
        assert await running.exit_code() == 0
    last = running.lines.life[-1]
    assert last["msg"] == "stopped"
    assert 0 <= last["loop_lag_max_cpu_s"] <= last["loop_lag_max_s"] < 5
