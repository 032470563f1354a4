"""What does the sidecar do in front of a server somebody else wrote? Options in, a running demo out.

Starts PyPI's mcp-server-time behind PyPI's mcp-proxy (which puts it on HTTP), the sidecar in front of
both, and either waits for Ctrl-C or drives the whole with a real client. Keeps nothing but the cache of
installed packages: whatever ends the demo ends its children.
"""

import json
import os
import shlex
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from .environment import SetUpFailed, cache_directory, python_environment
from .ports import accepts, answers_ok, free_address
from .processes import Child, ChildFailed

REQUIREMENTS = Path(__file__).with_name("requirements.lock")

READY_S = 30.0
"""A start takes a second; a cold disk or a busy machine may need more."""

DRIVE_S = 90.0
"""For the client as a whole: more than its steps may take together."""

INITIALIZE = (
    '{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25",'
    '"capabilities":{},"clientInfo":{"name":"curl","version":"1"}}}'
)

SNIPPET = """\
import asyncio
from mcp import ClientSession
from mcp.client.streamable_http import streamablehttp_client

async def main():
    async with streamablehttp_client("%s") as (read, write, _), ClientSession(read, write) as session:
        await session.initialize()
        print(await session.call_tool("get_current_time", {"timezone": "Europe/Zurich"}))

asyncio.run(main())
"""


class Stopped(BaseException):
    """A signal asked us to end. Not an Exception: nothing on the way up may take it for a failure."""


class Scene(NamedTuple):
    """Everything runs and is ready."""

    url: str
    operations: str
    python: Path
    server: Child
    sidecar: Child


def run(
    *,
    serve: bool,
    listen: str = "127.0.0.1:8080",
    operations: str = "127.0.0.1:9901",
    directory: Path | None = None,
) -> int:
    """Show the sidecar at work and return the exit code: 0, or 1 when anything failed.

    `serve` waits for Ctrl-C, SIGTERM or SIGHUP; otherwise a client makes a few calls and a table says what
    it saw. A port that is taken is replaced by a free one. `directory` holds the installed packages.
    """
    try:
        with _signals_raise(), ExitStack() as stack:
            scene = _build(stack, listen, operations, directory or cache_directory())
            return _serve(scene) if serve else _drive(scene)
    except (SetUpFailed, ChildFailed) as failure:
        print(f"mcp-sidecar: {failure}", file=sys.stderr, flush=True)
        return 1
    except Stopped:
        # Being told to stop is how serving ends; a table that was cut short has not shown what it should.
        return 0 if serve else 1


def third_party(python: Path, address: str) -> list[str]:
    """The command that serves mcp-server-time at `address`: 2025 eras at /mcp, 2024-11-05 at /sse."""
    host, _, port = address.rpartition(":")
    bridge = [str(python), "-I", "-m", "mcp_proxy", "--host", host, "--port", port, "--"]
    return [*bridge, str(python), "-I", "-m", "mcp_server_time", "--local-timezone", "UTC"]


def _build(stack: ExitStack, listen: str, operations: str, directory: Path) -> Scene:
    # Before the packages: a mistake in an address should not take 15 s to be told.
    listen, operations = _free(listen), _free(operations)
    python = python_environment(directory, REQUIREMENTS)
    logs = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mcp-sidecar-demo-")))

    behind = free_address("127.0.0.1:0")
    server = stack.enter_context(Child("mcp-server-time", third_party(python, behind), logs / "server.log"))
    server.wait_until(lambda: accepts(behind), f"listening on {behind}", timeout_s=READY_S)

    command = [sys.executable, "-P", "-m", "proxy", "run"]
    command += ["--upstream", f"http://{behind}/mcp", "--listen", listen]
    # A client that stays connected must not keep whoever pressed Ctrl-C waiting.
    command += ["--set", f"operations.address={operations}", "--set", "drain_s=2"]
    sidecar = stack.enter_context(Child("mcp-sidecar", command, logs / "sidecar.log"))
    ready = f"200 from http://{operations}/readyz"
    sidecar.wait_until(lambda: answers_ok(operations, "/readyz"), ready, timeout_s=READY_S)
    return Scene(f"http://{listen}/mcp", operations, python, server, sidecar)


def _free(wanted: str) -> str:
    try:
        address = free_address(wanted)
    except (OSError, ValueError) as error:
        raise SetUpFailed(f"cannot listen on {wanted}: {error}; name an IPv4 address and a port") from error
    if address != wanted:
        print(f"mcp-sidecar: {wanted} is taken, using {address}", file=sys.stderr, flush=True)
    return address


def _serve(scene: Scene) -> int:
    """Say how to use it and wait until a signal raises, or a child ends that should not."""
    accept = "accept: application/json, text/event-stream"
    curl = ["curl", "-i", scene.url, "-H", "content-type: application/json", "-H", accept, "-d", INITIALIZE]
    print(f"mcp-sidecar in front of mcp-server-time: {scene.url}")
    print(f"health: http://{scene.operations}/readyz")
    print(f"log: {scene.sidecar.log}")
    print(f"\nTry it:\n\n{shlex.join(curl)}")
    print(f"\n{scene.python} - <<'PY'\n{SNIPPET % scene.url}PY\n\nCtrl-C ends it.", flush=True)
    while True:
        for child in (scene.sidecar, scene.server):
            if child.ended(within_s=1.0):
                raise child.failure()


def _drive(scene: Scene) -> int:
    """Run the client and print what it saw. Raises ChildFailed when it did not get to its end."""
    command = [str(scene.python), "-I", str(Path(__file__).with_name("drive.py")), scene.url]
    # A corporate HTTP proxy in the environment does not know the way to our loopback.
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    log = scene.sidecar.log.with_name("client.log")
    with Child("client", command, log, environment=environment) as client:
        if not client.ended(within_s=DRIVE_S):
            raise ChildFailed(f"client: not done within {DRIVE_S:.0f} s{client.last_words()}")
        steps = _steps(log)
        _print_table(scene.url, steps)
        if client.code:
            raise client.failure()
    return 0 if all(step["ok"] for step in steps) else 1


def _steps(log: Path) -> list[dict[str, Any]]:
    """The client's JSON lines; what else is in its output is for a person to read."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return [json.loads(line) for line in lines if line.startswith('{"step"')]


def _print_table(url: str, steps: list[dict[str, Any]]) -> None:
    print(f"client (mcp 1.x) -> mcp-sidecar {url} -> mcp-proxy -> mcp-server-time\n")
    print(f"  {'step':<19}{'ms':>8}  what the client saw")
    for step in steps:
        mark = " " if step["ok"] else "!"
        print(f"{mark} {step['step']:<19}{step['ms']:>8}  {step['saw']}")
    failed = sum(not step["ok"] for step in steps)
    print(f"\n{len(steps)} steps, {failed} failed", flush=True)


@contextmanager
def _signals_raise() -> Iterator[None]:
    """Turn the first signal that asks us to end into Stopped; ignore the ones that come while we do."""

    def stop(number: int, frame: object) -> None:
        for each in before:
            signal.signal(each, signal.SIG_IGN)
        raise Stopped

    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    if before[signal.SIGHUP] is signal.SIG_IGN:  # somebody said nohup
        del before[signal.SIGHUP]
    for each in before:
        signal.signal(each, stop)
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
