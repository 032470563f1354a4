"""Servers of three SDKs as most are, each a process that can be restarted. The SDK in, a URL out."""

import sys
from pathlib import Path

from proxy.demo.ports import free_ports
from proxy.demo.processes import Child
from tests.tools.node import node_tools
from tests.tools.python_env import mcp1_python

from .running import READY_S, STOP_S

HERE = Path(__file__).parent


def command_of(sdk: str) -> list[str]:
    if sdk == "ts 1.x":
        tools = node_tools()
        return [str(tools.node), str(HERE / "plain_server.cjs"), str(tools.root)]
    python = mcp1_python() if sdk == "mcp 1.x" else sys.executable
    return [str(python), "-I", str(HERE / "plain_server.py")]


class Server:
    """One that can be restarted on its port."""

    def __init__(self, command: list[str], logs: Path) -> None:
        self.port = free_ports(1)[0]
        self._command = [*command, str(self.port)]
        self._log = logs / f"plain-{self.port}.log"
        self._child: Child | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"

    def start(self) -> None:
        child = self._child = Child("plain", self._command, self._log, stop_s=STOP_S)
        child.wait_until(lambda: "ready" in child.log.read_text(), "ready", timeout_s=READY_S)

    def stop(self) -> None:
        if self._child is not None:
            self._child.stop()
            self._child = None

    def restart(self) -> None:
        """The loop stands still meanwhile, and with it the sidecar."""
        self.stop()
        self.start()
