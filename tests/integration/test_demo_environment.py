"""An environment for other people's packages: made once, never half, and only from what the lock names.

The packages are wheels written here, so no index is asked.
"""

import asyncio
import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from proxy.demo.environment import SetUpFailed, cache_directory, python_environment

MAKE_S = 60
"""Two virtual environments are made inside one of these waits at most; each takes 4 s on an idle machine."""

ASK = """
import sys
from pathlib import Path
from proxy.demo.environment import python_environment
print(python_environment(Path(sys.argv[1]), Path(sys.argv[2])))
"""


def write_wheel(folder: Path, *, says: str = "fire") -> str:
    """Put `dragon` 1.0, a package of one module, into `folder`; return the SHA-256 a lock would name."""
    folder.mkdir(exist_ok=True)
    path = folder / "dragon-1.0-py3-none-any.whl"
    about = "dragon-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        # A date of its own: the same bytes, and so the same hash, whenever it is written.
        for name, text in {
            "dragon.py": f"SAYS = {says!r}\n",
            f"{about}/METADATA": "Metadata-Version: 2.1\nName: dragon\nVersion: 1.0\n",
            f"{about}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            f"{about}/RECORD": "",
        }.items():
            wheel.writestr(zipfile.ZipInfo(name), text)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_lock(path: Path, wheels: Path, sha256: str) -> Path:
    path.write_text(
        f"--no-index\n--find-links {wheels}\ndragon==1.0 --hash=sha256:{sha256}\n", encoding="utf-8"
    )
    return path


async def ask(directory: Path, lock: Path) -> tuple[str, str]:
    """Ask for the environment from another process; return what it printed and what it said on stderr."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", ASK, str(directory), str(lock)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(MAKE_S):
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode().strip(), err.decode()


def says(python: str | Path) -> str:
    """What the installed package says when that interpreter imports it."""
    command = [python, "-I", "-c", "import dragon; print(dragon.SAYS)"]
    return subprocess.check_output(command, text=True, timeout=MAKE_S).strip()


async def test_two_processes_at_once_install_once(tmp_path: Path) -> None:
    """Own promise: whoever comes second waits for the first and gets the same interpreter."""
    wheels = tmp_path / "wheels"
    lock = write_lock(tmp_path / "some.lock", wheels, write_wheel(wheels))
    home = tmp_path / "home"

    (one, said_one), (two, said_two) = await asyncio.gather(ask(home, lock), ask(home, lock))
    three, said_three = await ask(home, lock)

    assert one == two == three
    assert (said_one + said_two).count("installing some.lock") == 1
    assert said_three == ""
    assert says(one) == "fire"


def test_a_package_that_is_not_the_locked_one_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    """Own promise: an environment is whole or it is not there, and the next one to ask starts afresh."""
    wheels = tmp_path / "wheels"
    lock = write_lock(tmp_path / "some.lock", wheels, write_wheel(wheels))
    home = tmp_path / "home"

    write_wheel(wheels, says="malice")
    with pytest.raises(SetUpFailed) as failed:
        python_environment(home, lock)
    (packages,) = home.glob("python-*/lib/python*/site-packages")
    (packages / "stray.py").touch()
    write_wheel(wheels)
    python = python_environment(home, lock)

    assert str(failed.value).startswith(f"could not install {lock} (exit code 1)")
    assert "THESE PACKAGES DO NOT MATCH THE HASHES" in str(failed.value)
    assert not (packages / "stray.py").exists()
    assert says(python) == "fire"


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """Own promise: no traceback for a file where the cache directory should be."""
    (tmp_path / "home").write_text("in the way", encoding="utf-8")
    lock = tmp_path / "some.lock"
    lock.write_text("", encoding="utf-8")

    with pytest.raises(SetUpFailed, match=f"could not make {tmp_path}/home/python-"):
        python_environment(tmp_path / "home", lock)


@pytest.mark.parametrize(
    ("variable", "place"),
    [
        pytest.param("/some/cache", Path("/some/cache/mcp-sidecar"), id="set"),
        pytest.param("", Path.home() / ".cache/mcp-sidecar", id="empty"),
        pytest.param("some/cache", Path.home() / ".cache/mcp-sidecar", id="relative"),
    ],
)
def test_the_cache_is_where_the_user_keeps_caches(
    monkeypatch: pytest.MonkeyPatch, variable: str, place: Path
) -> None:
    """XDG Base Directory Specification: an unset, empty or relative XDG_CACHE_HOME means ~/.cache."""
    monkeypatch.setitem(os.environ, "XDG_CACHE_HOME", variable)

    assert cache_directory() == place
