"""What a kubelet does to the containers of a pod that is deleted, with processes instead of containers.

Sources: kubernetes.io "Pod Lifecycle: Termination of Pods" (each container's preStop, then TERM, KILL when the grace
period is over, all containers at once) and KEP-753 (native sidecars get their TERM when every other container has
ended).

Time is the manifest's own and does not pass: what happens at which of its seconds decides the order in which things are
done here, each to its end before the next.
"""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable, Mapping
from heapq import heappop, heappush
from itertools import count
from typing import Any, Protocol

Doing = Callable[[], Awaitable[None]]


class Container(Protocol):
    """A process that can be told, and waited for."""

    def signal(self, number: int) -> None: ...
    async def exit_code(self) -> int: ...


class Kubelet:
    """Ends one pod. `happen` adds what else is going on meanwhile, by the second after the deletion."""

    def __init__(self, pod: Mapping[str, Any], processes: Mapping[str, Container]) -> None:
        """`pod`: its spec, whose containers are named as `processes`."""
        self._pod = pod
        self._processes = processes
        self._events: list[tuple[float, int, Doing]] = []
        self._order = count()
        self.ended: dict[str, int] = {}
        """Exit code of each container that has ended; in this order."""

    def happen(self, at_s: float, do: Doing) -> None:
        """Also while it ends; what is over already happens next."""
        heappush(self._events, (at_s, next(self._order), do))

    async def end(self) -> None:
        """Delete the pod, and wait until all of it has ended."""
        grace_s = self._pod["terminationGracePeriodSeconds"]
        for container in self._pod["containers"]:
            asleep = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
            assert asleep < grace_s, "the kubelet would kill it in its sleep"
            self.happen(asleep, self._terminating(container["name"]))
        while self._events:
            at_s, _, do = heappop(self._events)
            assert at_s < grace_s, "the kubelet would have killed everything before"
            await do()
        for container in self._pod.get("initContainers", ()):
            assert container["restartPolicy"] == "Always"
            await self._terminating(container["name"])()

    def _terminating(self, name: str) -> Doing:
        async def terminate() -> None:
            self._processes[name].signal(signal.SIGTERM)
            # Where calls are under way it ends when they have: others happen before. A native sidecar waits for this.
            if name == "server":
                await self.wait_for(name)

        return terminate

    async def wait_for(self, name: str) -> None:
        if name not in self.ended:
            self.ended[name] = await self._processes[name].exit_code()
