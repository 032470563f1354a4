"""Third-party servers, keys, and sidecars with a policy, as processes of their own.

In: what somebody would write into their settings. Out: URLs, and keys by the name of whoever has them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from proxy.demo.environment import python_environment
from proxy.demo.ports import accepts, answers_ok, free_address, free_ports
from proxy.demo.processes import Child
from proxy.demo.start import REQUIREMENTS
from tests import ledger
from tests.tools.node import node_tools
from tests.tools.python_env import TOOLS

from . import running

ROOT = Path(__file__).parents[2]
COMMAND_S = 30
"""For one command of ours: half a second on an idle machine."""


class Person(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody with a key."""

    name: str
    tenant: str = "acme"
    roles: tuple[str, ...] = ()


class Keys(msgspec.Struct, frozen=True, kw_only=True):
    """A file of API keys, and what was handed out."""

    file: Path
    of: Mapping[str, str]
    """By name."""

    def __repr__(self) -> str:
        return f"Keys({sorted(self.of)})"  # a failing test prints what it was given

    @property
    def authenticators(self) -> list[dict[str, str]]:
        return [{"kind": "api_key", "keys_file": str(self.file)}]


class Guarded(msgspec.Struct, frozen=True, kw_only=True):
    """A sidecar at work."""

    url: str
    child: Child

    def lines(self, message: str) -> list[dict[str, Any]]:
        """What it logged so far under this message."""
        lines = self.child.log.read_text("utf-8").splitlines()
        told = [json.loads(line) for line in lines if line.endswith("}")]
        return [line for line in told if line["msg"] == message]

    def wait_for(self, message: str, count: int = 1) -> None:
        """Return once it has logged so many of these."""
        self.child.wait_until(lambda: len(self.lines(message)) >= count, message, timeout_s=running.READY_S)


def command(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run `mcp-sidecar` to its end, without settings from our own environment."""
    return subprocess.run(
        [sys.executable, "-m", "proxy", *words],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith("MCP_")},
        capture_output=True,
        text=True,
        timeout=COMMAND_S,
    )


def keys_for(folder: Path, *people: Person) -> Keys:
    """Make keys as an operator does."""
    file, of = folder / "keys.yaml", dict[str, str]()
    for person in people:
        words = ["--tenant", person.tenant, "--subject", person.name]
        words += [word for role in person.roles for word in ("--role", role)]
        words += ["--keys-file", str(file)] if of else []
        done = command("hash-key", *words)
        assert done.returncode == 0, done.stderr
        with file.open("a", encoding="utf-8") as out:
            out.write(done.stdout)
        (key,) = [line[5:] for line in done.stderr.splitlines() if line.startswith("key: ")]
        of[person.name] = ledger.secret(key, "API key")
    return Keys(file=file, of=of)


@contextmanager
def sidecar(upstream: str, folder: Path, name: str, **settings: object) -> Iterator[Guarded]:
    """Start a sidecar with these sections beside those it needs to stand there."""
    listen, operations = (f"127.0.0.1:{port}" for port in free_ports(2))
    file = folder / f"{name}.json"
    needed = {
        "version": 1,
        "listen": {"address": listen},
        "operations": {"address": operations},
        "upstream": {"url": upstream},
        "drain_s": 1,
    }
    file.write_text(json.dumps({**needed, **settings}), encoding="utf-8")
    words = [sys.executable, "-m", "proxy", "run", "--config", str(file)]
    with Child(name, words, folder / f"{name}.log", stop_s=running.STOP_S) as child:
        child.wait_until(lambda: answers_ok(operations, "/readyz"), "ready", timeout_s=running.READY_S)
        yield Guarded(url=f"http://{listen}{urlsplit(upstream).path}", child=child)
        ledger.look("log of a process", child.log.read_bytes())


@contextmanager
def notes_server(logs: Path, into: str = "approved", address: str | None = None) -> Iterator[str]:
    """Our own notes on PyPI's fastmcp; yields the URL. `into` is what read_note has turned into since it was approved
    (policy_server.py), `address` where it served before."""
    address = address or free_address("127.0.0.1:0")
    script = Path(__file__).with_name("policy_server.py")
    words = [sys.executable, "-I", str(script), address.rpartition(":")[2], into]
    with _listening("notes", words, address, logs):
        yield f"http://{address}/mcp"


def asked(notes: str, path: str) -> list[str]:
    """Ask the notes server itself, past everybody: /heard for the tools that were called since it was asked last,
    /turn/TURN to turn."""
    connection = HTTPConnection(urlsplit(notes).netloc, timeout=5)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        assert answer.status == 200
        return answer.read().decode().split()
    finally:
        connection.close()


@contextmanager
def files_server(logs: Path, allowed: Path) -> Iterator[str]:
    """npm's server-filesystem behind PyPI's mcp-proxy; yields its origin, with /mcp and /sse."""
    address = free_address("127.0.0.1:0")
    host, _, port = address.rpartition(":")
    tools = node_tools()
    bridge = [str(_demo_python()), "-I", "-m", "mcp_proxy", "--host", host, "--port", port, "--"]
    words = [*bridge, str(tools.node), str(tools.bin / "mcp-server-filesystem"), str(allowed)]
    with _listening("files", words, address, logs):
        yield f"http://{address}"


@contextmanager
def _listening(name: str, words: Sequence[str], address: str, logs: Path) -> Iterator[Child]:
    with Child(name, words, logs / f"{name}.log", stop_s=2) as child:
        child.wait_until(lambda: accepts(address), "listening", timeout_s=running.READY_S)
        yield child


def _demo_python() -> Path:
    """The demo's own environment, in the place where its own tests keep it."""
    return python_environment(TOOLS / "mcp-sidecar", REQUIREMENTS)
