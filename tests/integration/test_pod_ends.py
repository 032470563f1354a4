"""A pod with the numbers of our manifests ends under load: no call in flight is lost. Without its preStop one is."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import yaml

from proxy.inject.injecting import injected
from proxy.inject.wishes import Wish
from tests.integration.client import Client, connected
from tests.integration.house import ROOT, Process, process, run_words
from tests.integration.kubelet import Kubelet
from tests.integration.waiting import within
from tests.integration.wire import post, result, tool_call

MANIFEST = """
apiVersion: v1
kind: Pod
metadata: {name: any}
spec:
  containers:
  - {name: server, image: server, ports: [{containerPort: 8000}]}
"""


def by_inject(**wish: Any) -> dict[str, Any]:
    """The pod that `mcp-sidecar inject` makes."""
    return dict(yaml.safe_load(injected(MANIFEST, "", Wish(**wish)).text)["spec"])


def by_hand() -> dict[str, Any]:
    """deploy/pod.yaml."""
    text = (ROOT / "deploy" / "pod.yaml").read_text(encoding="utf-8")
    return dict(next(each["spec"] for each in yaml.safe_load_all(text) if each["kind"] == "Pod"))


class Server:
    """tests/integration/ending_server.py, as a container."""

    def __init__(self, child: asyncio.subprocess.Process) -> None:
        self._child = child

    async def line(self) -> str:
        assert self._child.stdout is not None
        async with within(10):
            return (await self._child.stdout.readline()).decode().strip()

    def answer(self, id: int) -> None:
        assert self._child.stdin is not None
        self._child.stdin.write(f"{id}\n".encode())

    def signal(self, number: int) -> None:
        self._child.send_signal(number)

    async def exit_code(self) -> int:
        async with within(10):
            return await self._child.wait()


@asynccontextmanager
async def server() -> AsyncIterator[Server]:
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.integration.ending_server"),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield Server(child)
    finally:
        if child.returncode is None:
            child.kill()
        await child.wait()


class Scene:
    """A pod with calls in flight, and the moment it is deleted."""

    def __init__(
        self, server: Server, sidecar: Process, port: int, kubelet: Kubelet, stack: AsyncExitStack
    ) -> None:
        self.server = server
        self.sidecar = sidecar
        self.kubelet = kubelet
        self._port = port
        self._stack = stack
        self._calls: dict[int, Client] = {}
        self.answers: dict[int, bool] = {}
        """Of each call: whether its client got what the server said."""

    async def call(self, id: int) -> None:
        """A call that has reached the server."""
        client = await self._stack.enter_async_context(connected(self._port))
        client.send(post(tool_call(id=id)))
        self._calls[id] = client
        assert await self.server.line() == str(id)

    def ends(self, id: int, at_s: float) -> None:
        """The server has its answer at this second, if it lives."""

        async def answer() -> None:
            if "server" not in self.kubelet.ended:
                self.server.answer(id)
            said = await self._calls[id].answer()
            self.answers[id] = said.body == result(id)

        self.kubelet.happen(at_s, answer)


@asynccontextmanager
async def scene(pod: dict[str, Any], drain_s: int = 25) -> AsyncIterator[Scene]:
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(server())
        url = f"http://127.0.0.1:{await upstream.line()}/mcp"
        side = await stack.enter_async_context(process(*run_words(url, f"drain_s={drain_s}")))
        port, _ = await side.listening()
        kubelet = Kubelet(pod, {"server": upstream, "mcp-sidecar": side})
        yield Scene(upstream, side, port, kubelet, stack)


def without_sleep(pod: dict[str, Any]) -> dict[str, Any]:
    """The same pod, had nobody thought of the order in which Kubernetes ends it."""
    for each in pod["containers"]:
        if each["name"] == "server":
            del each["lifecycle"]
    return pod


PODS: dict[str, Callable[[], dict[str, Any]]] = {
    "inject": by_inject,
    "inject --classic": lambda: by_inject(is_classic=True),
    "inject --drain-s 3": lambda: by_inject(drain_s=3),
    "deploy/pod.yaml": by_hand,
}
"""The overlays have the numbers of inject: tests/system/test_kustomize.py."""


async def play(pod: dict[str, Any], longest_s: float) -> Scene:
    """Three calls are under way when the pod is deleted; one comes after it from somebody who has not heard."""
    async with scene(pod) as it:
        for id, ends_s in ((1, 0.5), (2, longest_s / 2), (3, longest_s)):
            await it.call(id)
            it.ends(id, ends_s)

        async def late() -> None:
            await it.call(4)
            it.ends(4, 4.8)

        it.kubelet.happen(2, late)
        await it.kubelet.end()
        await it.kubelet.wait_for("mcp-sidecar")
        return it


@pytest.mark.parametrize("name", PODS)
async def test_no_call_in_flight_is_lost(name: str) -> None:
    """Issue 9, point 2: the server dies of TERM at once, and a call takes all the time that drain_s promises it."""
    it = await play(PODS[name](), longest_s=2.9 if "3" in name else 24.9)
    assert it.answers == {1: True, 2: True, 3: True, 4: True}
    assert it.kubelet.ended["mcp-sidecar"] == 0
    assert next(line for line in it.sidecar.lines.life if line["msg"] == "stopped")["cut_off"] == 0


@pytest.mark.parametrize("name", ["inject", "inject --classic", "deploy/pod.yaml"])
async def test_without_the_sleep_a_call_is_lost(name: str) -> None:
    """Kubernetes ends a native sidecar after the server, and a classic one at the same time: red without preStop."""
    async with scene(without_sleep(PODS[name]())) as it:
        await it.call(1)
        it.ends(1, 0.5)
        await it.kubelet.end()
        await it.kubelet.wait_for("mcp-sidecar")
    assert it.answers == {1: False}
    assert [line["outcome"] for line in it.sidecar.lines.calls] != ["ok"]


async def test_a_sleep_shorter_than_drain_s_loses_what_takes_longer() -> None:
    """Why the server sleeps as long as drain_s: with the 10 s that deploy/pod.yaml had, a call of 12 s was lost."""
    pod = by_inject()
    pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"] = 10
    async with scene(pod) as it:
        for id, ends_s in ((1, 9.0), (2, 12.0)):
            await it.call(id)
            it.ends(id, ends_s)
        await it.kubelet.end()
        await it.kubelet.wait_for("mcp-sidecar")
    assert it.answers == {1: True, 2: False}


async def test_a_native_sidecar_hears_of_it_when_the_server_has_ended() -> None:
    """KEP-753; the kubelet here is held to the order that it plays."""
    async with scene(by_inject()) as it:
        signals: list[tuple[str, int]] = []
        for name, each in (("server", it.server), ("mcp-sidecar", it.sidecar)):
            tell: Callable[[int], None] = each.signal

            def heard(number: int, name: str = name, tell: Callable[[int], None] = tell) -> None:
                signals.append((name, number))
                tell(number)

            each.signal = heard  # type: ignore[method-assign]
        await it.kubelet.end()
        assert list(it.kubelet.ended) == ["server"]
        await it.kubelet.wait_for("mcp-sidecar")
    assert signals == [("server", signal.SIGTERM), ("mcp-sidecar", signal.SIGTERM)]
