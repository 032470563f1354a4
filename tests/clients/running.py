"""A server, and a sidecar in front of one, as processes of their own. Commands in, URLs out."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from proxy.demo.ports import answers_ok, free_ports
from proxy.demo.processes import Child
from tests import ledger

READY_S = 20.0
"""Both start within a second on an idle machine; several do at once on two cores."""

STOP_S = 3.0


@contextmanager
def server(logs: Path, *options: str) -> Iterator[str]:
    """Start the fixture server; yield its MCP URL."""
    command = [sys.executable, "-m", "tests.clients.server", "--port", "0", *options]
    with Child("server", command, logs / f"server{''.join(options)}.log", stop_s=STOP_S) as child:
        child.wait_until(lambda: "ready http" in child.log.read_text(), "ready", timeout_s=READY_S)
        yield child.log.read_text().split("ready ")[1].split()[0]


@contextmanager
def sidecar(upstream: str, logs: Path) -> Iterator[str]:
    """Start a sidecar with nothing but an upstream; yield the URL that stands for `upstream`."""
    listen, operations = (f"127.0.0.1:{port}" for port in free_ports(2))
    command = [sys.executable, "-m", "proxy", "run", "--upstream", upstream, "--listen", listen]
    command += ["--set", f"operations.address={operations}", "--set", "drain_s=1"]
    with Child("sidecar", command, logs / f"sidecar-{listen}.log", stop_s=STOP_S) as child:
        child.wait_until(lambda: answers_ok(operations, "/readyz"), "ready", timeout_s=READY_S)
        yield f"http://{listen}{urlsplit(upstream).path}"
        ledger.look("log of a process", child.log.read_bytes())
