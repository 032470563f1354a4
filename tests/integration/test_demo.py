"""`mcp-sidecar demo` as a person meets it: what it prints, whether that works when pasted, what it leaves."""

import asyncio
import contextlib
import os
import re
import shlex
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from proxy.demo.environment import python_environment
from proxy.demo.processes import Child, ChildFailed
from proxy.demo.start import REQUIREMENTS
from tests.tools.python_env import TOOLS

START_S = 30
"""For the demo to be up: three Pythons start one after the other, beside other tests on two cores."""

PROC = Path("/proc/self/stat")
needs_proc = pytest.mark.skipif(not PROC.exists(), reason="looks for left-over processes in /proc")


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Where the demo keeps things, as variables: a cache in which its packages are installed already (that
    alone may take a minute), and logs, which it cannot remove when it is killed."""
    python_environment(TOOLS / "mcp-sidecar", REQUIREMENTS)
    return {"XDG_CACHE_HOME": str(TOOLS), "TMPDIR": str(tmp_path_factory.mktemp("demo"))}


@asynccontextmanager
async def demo(places: dict[str, str], *options: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """The command, running in a process group of its own, as a terminal starts it."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "proxy", "demo", *options),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=os.environ | places,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
            async with asyncio.timeout(START_S):
                await process.communicate()


async def output_until(process: asyncio.subprocess.Process, last: str) -> str:
    """What the demo printed up to the line that contains `last`."""
    assert process.stdout is not None
    text = ""
    async with asyncio.timeout(START_S):
        while last not in text:
            line = (await process.stdout.readline()).decode()
            assert line, f"the demo ended before it said {last!r}:\n{text}"
            text += line
    return text


def descendants(root: int) -> set[int]:
    """Every process below `root`, whatever group or session it is in."""
    children: dict[int, set[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # ended while we looked
            # The name in the second field may hold anything, its closing bracket is the last one.
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, set()).add(int(stat.parent.name))
    found: set[int] = set()
    rest = [root]
    while rest:
        below = children.get(rest.pop(), set())
        found |= below
        rest.extend(below)
    return found


def still_running(pids: set[int]) -> set[int]:
    """Those of `pids` that have not ended; one that only waits for its parent to look has."""
    running = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
                running.add(pid)
    return running


async def test_the_demo_shows_what_a_real_client_sees(places: dict[str, str]) -> None:
    """Own promise: five steps against a third-party server, a table, exit code 0."""
    async with demo(places) as process, asyncio.timeout(START_S):
        printed = (await process.communicate())[0].decode()

    assert process.returncode == 0, printed
    steps = re.findall(r"^  ([a-z ]+?) +[0-9.]+  (.+)$", printed, flags=re.MULTILINE)
    assert [name for name, _ in steps] == [
        "initialize",
        "list tools",
        "call a tool",
        "a call that fails",
        "ping",
    ]
    saw = dict(steps)
    assert saw["list tools"] == "get_current_time, convert_time"
    assert re.match(r"20\d\d-\d\d-\d\dT", saw["call a tool"])
    assert saw["a call that fails"].startswith("isError: ")
    assert "5 steps, 0 failed" in printed


@needs_proc
async def test_the_printed_curl_line_works_and_ctrl_c_leaves_nothing(places: dict[str, str]) -> None:
    """Own promise: what is printed can be pasted; Ctrl-C, which reaches the whole group, ends everything."""
    async with demo(places, "--serve") as process:
        printed = await output_until(process, "Ctrl-C ends it.")
        pasted = shlex.split(next(line for line in printed.splitlines() if line.startswith("curl ")))
        curl = await asyncio.create_subprocess_exec(
            *pasted, "--silent", "--max-time", "10", stdout=asyncio.subprocess.PIPE
        )
        answer = (await curl.communicate())[0].decode()
        below = descendants(process.pid)
        os.killpg(process.pid, signal.SIGINT)
        async with asyncio.timeout(START_S):
            await process.communicate()

    assert answer.startswith("HTTP/1.1 200 OK")
    assert '"serverInfo":{"name":"mcp-time"' in answer
    assert process.returncode == 0
    # The sidecar, mcp-proxy, and mcp-server-time below it.
    assert len(below) >= 3
    assert still_running(below) == set()


@needs_proc
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent died")
async def test_killing_the_demo_leaves_no_process(places: dict[str, str]) -> None:
    """Own promise: whatever ends the demo ends its children, also a kill that nobody can catch."""
    async with demo(places, "--serve") as process:
        await output_until(process, "Ctrl-C ends it.")
        below = descendants(process.pid)
        process.kill()
        async with asyncio.timeout(START_S):
            await process.communicate()
        left = below
        async with asyncio.timeout(5):
            while left:
                await asyncio.sleep(0.02)
                left = still_running(below)

    assert len(below) >= 3


@needs_proc
async def test_a_sidecar_that_dies_ends_the_demo_with_its_last_words(places: dict[str, str]) -> None:
    """Own promise: every failure says what failed; a server without its sidecar is not left running."""
    async with demo(places, "--serve") as process:
        await output_until(process, "Ctrl-C ends it.")
        below = descendants(process.pid)
        commands = {pid: Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0") for pid in below}
        (sidecar,) = [pid for pid, words in commands.items() if b"proxy" in words and b"run" in words]
        os.kill(sidecar, signal.SIGKILL)
        async with asyncio.timeout(START_S):
            said = (await process.communicate())[0].decode()

    assert process.returncode == 1
    assert "mcp-sidecar: ended with code -9" in said
    assert still_running(below) == set()


async def test_a_port_that_is_taken_is_replaced_and_said(places: dict[str, str]) -> None:
    """Own promise: somebody else's server on 8080 is neither disturbed nor in the way."""
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):  # then it is taken by somebody else, which serves as well
            taken.bind(("127.0.0.1", 8080))
            taken.listen()
        async with demo(places, "--serve") as process:
            printed = await output_until(process, "Ctrl-C ends it.")

    said = re.search(r"127\.0\.0\.1:8080 is taken, using (127\.0\.0\.1:\d+)", printed)
    assert said is not None, printed
    assert f"mcp-sidecar in front of mcp-server-time: http://{said[1]}/mcp" in printed
    assert process.returncode == 0, "SIGTERM is a clean end too"


@pytest.mark.parametrize("address", ["8080", "127.0.0.1:http", "[::1]:8080", "192.0.2.1:8080"])
async def test_an_address_that_cannot_be_had_is_named(places: dict[str, str], address: str) -> None:
    """Own promise: every failure says what failed; 192.0.2.0/24 is nobody's (RFC 5737)."""
    async with demo(places, "--listen", address) as process, asyncio.timeout(START_S):
        said = (await process.communicate())[0].decode()

    assert process.returncode == 1
    assert said.startswith(f"mcp-sidecar: cannot listen on {address}: ")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "child.log"


def test_a_child_that_ends_early_is_quoted(log: Path) -> None:
    """Own promise: the reason a child gave is in the error, not in a file nobody looks at."""
    command = [sys.executable, "-c", "print('no such dragon'); raise SystemExit(3)"]

    with Child("server", command, log) as child, pytest.raises(ChildFailed) as failed:
        child.wait_until(lambda: False, "listening", timeout_s=10)

    assert str(failed.value) == "server: ended with code 3:\n  no such dragon"


def test_a_child_that_is_never_ready_is_stopped(log: Path) -> None:
    """Own promise: every wait is bounded, and leaving the block ends the child."""
    mute = [sys.executable, "-c", "import time; time.sleep(60)"]
    never = pytest.raises(ChildFailed, match=r"^server: listening not within 0 s and said nothing$")

    with Child("server", mute, log) as child, never:
        child.wait_until(lambda: False, "listening", timeout_s=0.2)

    assert child.code == -signal.SIGTERM


DEAF = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
below = os.fork()
if below:
    print(below, flush=True)
time.sleep(60)
"""


@needs_proc
def test_a_child_that_ignores_sigterm_is_killed_with_its_group(log: Path) -> None:
    """Own promise: nothing outlives the demo."""
    with Child("server", [sys.executable, "-c", DEAF], log, stop_s=0.2) as child:
        child.wait_until(lambda: log.read_text().endswith("\n"), "deaf", timeout_s=10)
        below = int(log.read_text())
        assert still_running({below}) == {below}

    assert child.code == -signal.SIGKILL
    assert still_running({below}) == set()


def test_a_log_is_not_shared(log: Path) -> None:
    """Regression: the second child waited for the first one's end, and a whole test run with it."""
    talk = "import time; print('mine', flush=True); time.sleep(60)"

    with Child("one", [sys.executable, "-c", talk], log) as one:
        one.wait_until(lambda: log.read_text() == "mine\n", "heard", timeout_s=10)
        with pytest.raises(BlockingIOError):
            Child("two", [sys.executable, "-c", ""], log)

    assert log.read_text() == "mine\n"
