"""An installation as a user has it: a wheel of this checkout in an environment that nobody else uses.

In: a folder. Out: the command, and figures of it. Keeps nothing beside the folder.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec
from hatchling.builders.wheel import WheelBuilder

from proxy.demo.ports import answers_ok, free_ports
from proxy.demo.processes import Child
from tests.tools.wheels import wheels_of

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "requirements" / "run.lock"
INSTALL_S = 300
"""For 30 packages, whose wheels lie here; 4 s."""
COMMAND_S = 60
READY_S = 30.0


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator asks before anything else."""

    installed_bytes: int
    start_s: float
    """From the start of the process until /readyz says yes, where the server is there already."""
    rss_bytes: int
    """Once it is ready, without calls."""

    def __str__(self) -> str:
        return (
            f"installed {self.installed_bytes / 1e6:.0f} MB, ready after {self.start_s:.2f} s, "
            f"idle memory {self.rss_bytes / 1e6:.0f} MB"
        )


def wheel_of(checkout: Path, folder: Path) -> Path:
    """Build a wheel of a checkout into a folder."""
    (wheel,) = WheelBuilder(str(checkout)).build(directory=str(folder), versions=["standard"])
    return Path(wheel)


def installed(folder: Path, lock: Path = LOCK) -> Path:
    """Install a wheel of this checkout, with what a lock names and nothing else; returns the command."""
    wheel = wheel_of(ROOT, folder / "dist")
    home = folder / "env"
    _run([sys.executable, "-I", "-m", "venv", "--without-pip", str(home)])
    pip = [sys.executable, "-I", "-m", "pip", "--python", str(home / "bin" / "python"), "install", "--quiet"]
    pip += ["--no-input", "--disable-pip-version-check", "--no-index", "--find-links", str(wheels_of(lock))]
    _run([*pip, "--only-binary", ":all:", "--require-hashes", "--requirement", str(lock)])
    _run([*pip, "--no-deps", str(wheel)])
    return home / "bin" / "mcp-sidecar"


def clean_environment(**more: str) -> dict[str, str]:
    """Variables of ours without those that Python or the sidecar would listen to."""
    kept = {name: each for name, each in os.environ.items() if not name.startswith(("MCP_", "PYTHON"))}
    return {**kept, **more}


def run(
    command: Sequence[str | Path], folder: Path, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """A command in a folder, to its end."""
    return subprocess.run(
        command,
        cwd=folder,
        env=environment or clean_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=COMMAND_S,
        check=False,
    )


class _Says400(BaseHTTPRequestHandler):
    """As a server of an older revision does to whoever probes it; any answer counts."""

    def do_POST(self) -> None:
        self.send_response(400)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@contextmanager
def answering() -> Iterator[str]:
    """A server that is there; yields its URL."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Says400) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/mcp"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def serving(command: Sequence[str], upstream: str, log: Path) -> Iterator[tuple[Child, str, str]]:
    """`run` before a server, once it is ready: the process, and its data and operations addresses."""
    listen, operations = (f"127.0.0.1:{port}" for port in free_ports(2))
    words = [*command, "run", "--upstream", upstream, "--listen", listen]
    words += ["--set", f"operations.address={operations}", "--set", "drain_s=1"]
    with Child("sidecar", words, log, environment=clean_environment()) as child:
        child.wait_until(lambda: answers_ok(operations, "/readyz"), "ready", timeout_s=READY_S)
        yield child, listen, operations


def figures(command: Sequence[str], upstream: str, home: Path, log: Path) -> Figures:
    """Start it once more than it is looked at: the first start reads files that nobody has read yet."""
    with serving(command, upstream, log):
        pass
    began = time.monotonic()
    with serving(command, upstream, log) as (child, _, _):
        start_s = time.monotonic() - began
        return Figures(installed_bytes=bytes_below(home), start_s=start_s, rss_bytes=rss_bytes(child.pid))


def rss_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


def bytes_below(folder: Path) -> int:
    """Of the files themselves, links not followed."""
    return sum(each.lstat().st_size for each in folder.rglob("*") if each.is_file() and not each.is_symlink())


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=INSTALL_S, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
