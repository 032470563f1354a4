"""What would a builder make of the Dockerfile? Its steps, taken in a folder, because no engine is at hand.

In: the Dockerfile, build arguments, a folder. Out: the root of the last stage, and what the image says of itself. Each
COPY and RUN is done as it is written, with the paths of the container mapped into the folder; `python` and `pip` are
those of a fresh environment of the Python that runs this, in place of the base image. Not shown: that the base
image exists and has `strip`, `ldd`, certificates and time zones; its version of Python; other processors; what an
engine makes of LABEL, EXPOSE and HEALTHCHECK.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import distribution
from pathlib import Path

import msgspec

from tests.tools.wheels import wheels_of

ROOT = Path(__file__).parents[2]
STEP_S = 1_800
"""Compiling takes five minutes of processor time."""
MAPPED = re.compile(r"(?<![\w./])/(?=(?:src|packages|rootfs|tmp)\b)")
"""Absolute paths that a step of ours may write to."""


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine would start."""

    root: Path
    environment: Mapping[str, str]
    entrypoint: tuple[str, ...]
    command: tuple[str, ...]
    healthcheck: tuple[str, ...]
    user: str

    def words(self, *command: str) -> list[str]:
        """The command line that runs it, confined; with nothing named, as the image says."""
        confined = str(Path(__file__).with_name("confined.py"))
        return [sys.executable, confined, str(self.root), *self.entrypoint, *(command or self.command)]


class Step(msgspec.Struct, frozen=True):
    """One instruction."""

    word: str
    rest: str


def steps(text: str) -> list[Step]:
    """The instructions of a Dockerfile, in order, without comments."""
    text = re.sub(r"(?m)^\s*#.*\n", "", text)
    lines = (line for line in text.replace("\\\n", " ").splitlines() if line.strip())
    return [Step(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines)]


def build(folder: Path, arguments: Mapping[str, str], dockerfile: Path = ROOT / "Dockerfile") -> Image:
    """Take every step. Raises AssertionError with what a step said when it failed."""
    stages: dict[str, Path] = {}
    known: dict[str, str] = {}
    environment: dict[str, str] = {}
    said: dict[str, str] = {}
    stage = work = folder
    tools = _tools(folder / "tools")
    for step in steps(dockerfile.read_text(encoding="utf-8")):
        match step.word:
            case "ARG":
                name, _, default = step.rest.partition("=")
                known[name] = arguments.get(name, default)
            case "FROM":
                _, _, name = _filled(step.rest, known).partition(" AS ")
                stage = work = stages[name or "final"] = folder / (name or "final")
                stage.mkdir()
                (stage / "tmp").mkdir()
                environment = {}
            case "ENV":
                environment.update(_pairs(_filled(step.rest, known)))
            case "WORKDIR":
                work = stage / step.rest.lstrip("/")
                work.mkdir(parents=True, exist_ok=True)
            case "COPY":
                _copy(_filled(step.rest, known), stages, work, stage)
            case "RUN":
                # Wheels that were fetched once are taken from here; a builder has none.
                used = {name: value for name, value in environment.items() if name != "PIP_NO_CACHE_DIR"}
                if "requirements/${LOCK}.lock" in step.rest:
                    wheels = wheels_of(ROOT / "requirements" / f"{known['LOCK']}.lock")
                    used |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels)}
                _run(MAPPED.sub(f"{stage}/", step.rest), work, {**used, **known}, tools)
            case word:
                said[word] = step.rest
    return Image(
        root=stage,
        environment=environment,
        entrypoint=tuple(json.loads(said["ENTRYPOINT"])),
        command=tuple(json.loads(said["CMD"])),
        healthcheck=tuple(json.loads(said["HEALTHCHECK"].partition("CMD")[2])),
        user=said["USER"],
    )


def _filled(text: str, known: Mapping[str, str]) -> str:
    return re.sub(r"\$\{(\w+)\}", lambda found: known[found[1]], text)


def _pairs(text: str) -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in text.split())


def _tools(home: Path) -> Path:
    """The folder with `python` and `pip` of a fresh environment."""
    _must([sys.executable, "-I", "-m", "venv", "--without-pip", str(home)], home.parent, dict(os.environ))
    pip = distribution("pip")
    (site,) = home.glob("lib/python*/site-packages")
    for each in {Path(str(file)).parts[0] for file in pip.files or () if ".." not in str(file)}:
        source = Path(str(pip.locate_file(each)))
        shutil.copytree(source, site / each)
    command = home / "bin" / "pip"
    command.write_text(f'#!/bin/sh\nexec {home}/bin/python -m pip "$@"\n', encoding="utf-8")
    command.chmod(0o755)
    return command.parent


def _copy(rest: str, stages: Mapping[str, Path], work: Path, stage: Path) -> None:
    words = rest.split()
    source = ROOT
    if words[0].startswith("--from="):
        source = stages[words.pop(0).removeprefix("--from=")]
    *named, target = words
    place = stage / target.lstrip("/") if target.startswith("/") else work / target
    for each in named:
        origin = source / each.lstrip("/")
        if origin.is_dir():
            ignored = None if words[0].startswith("/") else shutil.ignore_patterns("__pycache__", "*.py[cod]")
            shutil.copytree(origin, place, symlinks=True, dirs_exist_ok=True, ignore=ignored)
        else:
            inside = place / origin.name if target.endswith("/") else place
            inside.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(origin, inside)


def _run(script: str, work: Path, more: Mapping[str, str], tools: Path) -> None:
    """A shell step, without variables of ours but for where packages come from."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MCP_", "PYTHON", "VIRTUAL"))
    }
    environment = {**kept, **more, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}
    _must(["/bin/sh", "-euc", script], work, environment)


def _must(command: list[str], folder: Path, environment: Mapping[str, str]) -> None:
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=STEP_S,
        check=False,
    )
    assert done.returncode == 0, f"{command[-1]}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
