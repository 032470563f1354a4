"""The image: every step of the Dockerfile is taken in a folder, and what comes out is started as a container would be.

Without the extras, and nothing compiled, which is a tenth of the time; `python -m tests.release` does the same with all
of it. What this cannot
show is in tests/release/image.py.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy import __version__
from proxy.demo.ports import answers_ok, free_ports
from proxy.demo.processes import Child
from tests.release.image import ROOT, Image, build
from tests.release.installed import READY_S, answering, bytes_below

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="the image is for Linux"),
]


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    # Not below pytest's own folder: that is closed to user 65532.
    with tempfile.TemporaryDirectory(prefix="mcp-sidecar-image-") as folder:
        os.chmod(folder, 0o755)
        yield build(Path(folder), {"LOCK": "run", "COMPILED": "0", "VERSION": __version__})


def confined(image: Image, *command: str) -> subprocess.CompletedProcess[str]:
    """A command of the image, to its end, with the image's variables and no others."""
    return subprocess.run(
        image.words(*command),
        env=dict(image.environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def python_in(image: Image) -> str:
    """Its interpreter, as the launcher names it."""
    first = (image.root / "usr/local/bin/mcp-sidecar").read_text(encoding="ascii").splitlines()[0]
    return first.removeprefix("#!").split()[0]


def states(root: Path) -> str:
    """A digest of names, modes and contents: whatever is written, removed or changed gives another one."""
    digest = hashlib.sha256()
    for each in sorted(root.rglob("*")):
        at = each.lstat()
        digest.update(f"{each.relative_to(root)} {at.st_mode} {at.st_size} {at.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def test_it_serves_read_only_without_rights_or_a_shell(image: Image, tmp_path: Path) -> None:
    """Issue 9, 1: --read-only, --cap-drop ALL, a user that is a number; TERM reaches the sidecar itself."""
    before = states(image.root)
    listen, operations = (f"127.0.0.1:{port}" for port in free_ports(2))
    with answering() as url:
        options = ["--upstream", url, "--listen", listen, "--set", f"operations.address={operations}"]
        words = image.words(*image.command, *options, "--set", "drain_s=1")
        with Child("image", words, tmp_path / "log", environment=image.environment) as child:
            child.wait_until(lambda: answers_ok(operations, "/readyz"), "ready", timeout_s=READY_S)
            status = Path(f"/proc/{child.pid}/status").read_text(encoding="ascii")
            asked = confined(image, *image.healthcheck[1:], "--address", operations)
            unready = confined(image, *image.healthcheck[1:], "--address", operations, "--path", "/nothing")
            os.kill(child.pid, signal.SIGTERM)
            assert child.ended(within_s=READY_S)
            assert child.code == 0
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert {fields[name].split()[1] for name in ("Uid", "Gid")} <= {
        image.user.split(":")[0],
        str(os.geteuid()),
    }
    assert {int(fields[name], 16) for name in ("CapPrm", "CapEff", "CapInh", "CapAmb", "CapBnd")} == {0}
    assert fields["NoNewPrivs"] == "1"
    assert image.healthcheck[:1] == image.entrypoint
    assert (asked.returncode, asked.stderr) == (0, "")
    assert unready.returncode == 1
    assert states(image.root) == before


def test_nobody_can_write_there(image: Image) -> None:
    """The test above must be able to fail: the same confinement refuses to write."""
    script = "import os; print(os.getuid(), os.access('/', os.W_OK)); open('/tmp/x', 'w')"
    words = image.words()
    words[words.index(image.entrypoint[0]) :] = [python_in(image), "-c", script]
    done = subprocess.run(words, env={}, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.split() == [image.user.split(":")[0], "False"]
    assert "Read-only file system" in done.stderr


def test_it_holds_the_sidecar_and_nothing_else(image: Image) -> None:
    """Issue 9, 1: no shell, no installer, no tests, each module compiled once, licences and the bill kept."""
    names = {str(each.relative_to(image.root)) for each in image.root.rglob("*")}
    programs = {
        name for name in names if name.endswith(("bin/sh", "bin/bash", "/pip", "/setuptools", "/ensurepip"))
    }
    assert programs == set()
    executables = [
        each
        for each in image.root.rglob("*")
        if each.is_file() and each.stat().st_mode & 0o111 and ".so" not in each.name
    ]
    assert {each.name for each in executables if "bin" in each.parts} == {
        "mcp-sidecar",
        Path(python_in(image)).name,
    }
    (site,) = image.root.rglob("site-packages")
    assert (site / f"mcp_sidecar-{__version__}.dist-info/sboms/mcp-sidecar.cdx.json").is_file()
    assert (site / "proxy/policies/packs/strict.yaml").is_file()
    modules = (site / "proxy").rglob("*.py")
    compiled = {each.name.split(".")[0] for each in (site / "proxy").rglob("*.pyc")}
    assert {each.stem for each in modules} == compiled
    assert [each for each in image.root.rglob("*") if each.is_file() and each.stat().st_mode & 0o6002] == []


def test_it_is_the_product(image: Image) -> None:
    """Version, settings, packs by name, time zones and certificates work in it."""
    assert confined(image, "--version").stdout == f"mcp-sidecar {__version__}\n"
    limit = '[{"name":"d","key":["tenant"],"quota":1,"window":"day","timezone":"Europe/Zurich"}]'
    done = confined(
        image,
        *("check", "--set", "upstream.url=http://127.0.0.1:1/mcp", "--set", "policy.packs=[strict]"),
        *("--set", f"limits={limit}"),
    )
    assert (done.returncode, done.stdout.splitlines()[0], done.stderr) == (0, "no settings file: ok", "")
    script = "import ssl; print(len(ssl.create_default_context().get_ca_certs()) > 50)"
    words = image.words()
    words[words.index(image.entrypoint[0]) :] = [python_in(image), "-c", script]
    told = subprocess.run(
        words, env=dict(image.environment), capture_output=True, text=True, timeout=60, check=False
    )
    assert told.stdout == "True\n", told.stderr


def test_its_size_is_printed(image: Image, capsys: pytest.CaptureFixture[str]) -> None:
    """Issue 9, 1; a number is printed and never judged."""
    with capsys.disabled():
        print(f"\nimage without extras, before compression: {bytes_below(image.root) / 1e6:.0f} MB")
    assert bytes_below(image.root) > 0


def test_hadolint_finds_nothing() -> None:
    """Issue 9, 1: linted by hadolint, without exceptions."""
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run(
        [hadolint, "--no-color", ROOT / "Dockerfile"], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")
