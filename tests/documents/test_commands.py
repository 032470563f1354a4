"""Every command in the documents is one (issue 9, point 6): ours run where that harms nobody, or are parsed; what
else is typed is on a list of what is not run, with the reason.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import io
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest

from proxy.__main__ import main
from proxy.commands import _parser
from tests.documents.pages import ROOT, Command, every_command
from tests.documents.place import Place
from tests.unit.telemetry.audit_scene import audit

COMMANDS = list(dict.fromkeys(every_command()))
NOT_RUN: Mapping[str, str] = {
    "kubectl": "wants a cluster; tests/system builds the kustomizations and makes the secrets without one",
    "helm": "wants a chart of yours; tests/manifests has what one prints",
    "docker": "there is no engine in tests; tests/release takes every step of the Dockerfile in a folder",
    "kill": "needs a process; tests/integration/test_reload.py and test_drain.py send the signals",
    "alias": "for the runbook; tests/system/test_runbook_commands.py puts a log in its place",
    "sidecar-log": "as above",
    "head": "makes a password",
    "base64": "as above",
    "tr": "as above",
    "grep": "looks at what the command before it said; tests/integration/test_first_minutes.py runs the README's",
    "sort": "as above",
    "jq": "as above; tests/system/test_runbook_commands.py runs the runbook's",
    "tail": "as above",
    "curl": "tests/integration/test_first_minutes.py runs those to a sidecar, tests/system those of the runbook",
    "call": "a function of the README; tests/integration/test_first_minutes.py calls it",
    "done": "of the README's first minutes, which are run",
    "sleep": "as above",
    "call()": "as above",
    "}": "as above",
    "echo": "as above",
    "uniq": "counts lines; tests/system/test_runbook_commands.py runs the runbook's",
    "pip": "wants the registries; tests/release installs the wheel into an empty environment",
}
"""What somebody types that no test here runs, and why, or who runs it instead."""
PARSED: Mapping[str, str] = {
    "run": "serves until it is told to stop; the README's is run",
    "demo": "sets up an environment; tests/integration/test_demo.py runs it",
    "pin": "asks a server; tests/integration/test_pin.py runs it",
    "healthcheck": "asks a sidecar; the README's is run",
    "doctor": "asks what is on this machine's ports; tests/integration/test_doctor.py runs it",
}
"""Those of ours that do not end by themselves, or need somebody to ask."""
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def of(program: str) -> list[Command]:
    return [each for each in COMMANDS if program_of(each) == program]


def program_of(command: Command) -> str:
    """What is started: behind `VAR=…`, `do`, `until` and `kubectl exec … --` stands the command that counts."""
    words = behind(command)
    return Path(words[0]).name if words else ""


def behind(command: Command) -> list[str]:
    words = command.words
    while words and (words[0] in ("until", "do", "exec") or re.match(r"\w+=\S*$", words[0])):
        words = words[1:]
    if words[:1] == ["kubectl"] and "mcp-sidecar" in words and "--" in words:
        words = words[words.index("--") + 1 :]
    return [each for each in words if each != "&"]


def without_file(words: list[str]) -> list[str]:
    """The words of a command, without the file its output goes to."""
    return words[: words.index(">")] if ">" in words else words


OURS = [each for each in of("mcp-sidecar") if each.is_typed]
RUN = [each for each in OURS if behind(each)[1] not in PARSED]


@pytest.mark.parametrize("command", RUN, ids=str)
def test_a_command_runs(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder with what it names. Exit code 1 is an answer (`explain` of a call that is refused)."""
    place = Place(tmp_path)
    monkeypatch.chdir(tmp_path)
    words = without_file(behind(command)[1:])
    words = [place.moved(each) for each in words]
    if words[:2] == ["audit", "verify"]:
        asyncio.run(begun_and_ended(tmp_path / "audit.jsonl"))
        words = [*words[:2], str(tmp_path / "audit.jsonl")]
    if words[:1] == ["inject"] and "--port" not in words:
        words += ["--port", "8000"]  # the example's server names none, as it should
    out, err = io.TextIOWrapper(io.BytesIO()), io.TextIOWrapper(io.BytesIO())
    manifests = io.TextIOWrapper(io.BytesIO((ROOT / "deploy/example/server.yaml").read_bytes()))
    monkeypatch.setattr(sys, "stdin", manifests)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(words)
        except SystemExit as left:
            code = int(left.code or 0)
    out.seek(0)
    err.seek(0)
    said = out.read() + err.read()
    assert code in ((0, 1) if words[0] == "explain" else (0,)), said
    assert said


async def begun_and_ended(file: Path) -> None:
    """An audit file of a process that did nothing else."""
    async with audit(file):
        pass


@pytest.mark.parametrize("command", [each for each in OURS if each not in RUN], ids=str)
def test_a_command_that_is_not_run_is_parsed(command: Command) -> None:
    words = without_file(behind(command)[1:])
    if words[0] != "healthcheck":  # has no parser of argparse: the next test looks for its options
        assert _parser().parse_args(words).command == words[0]


@pytest.mark.parametrize("command", of("mcp-sidecar"), ids=str)
def test_a_command_that_is_mentioned_exists_with_its_options(command: Command) -> None:
    words = behind(command)[1:]
    if words == ["--version"]:
        return
    name = words[:2] if words[0] in ("policy", "audit") else words[:1]
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        try:
            code = main([*name, "--help"])
        except SystemExit as left:
            code = int(left.code or 0)
    assert code == 0
    for option in re.findall(r"(?<![\w-])--[a-z-]+", " ".join(words)):
        assert re.search(rf"(?<![\w-]){option}\b", said.getvalue()), option


@pytest.mark.parametrize("command", of("make"), ids=str)
def test_a_target_of_make_exists(command: Command) -> None:
    """With the variables that it reads."""
    for word in command.words[1:]:
        name, is_variable, _ = word.partition("=")
        shape = rf"\$\(.*\b{name}\b" if is_variable else rf"(?m)^{name}:"
        assert re.search(shape, MAKEFILE), word


@pytest.mark.parametrize("command", of("python"), ids=str)
def test_a_program_of_python_exists(command: Command) -> None:
    """Modules and files; with options, those of its help."""
    words = command.words[1:]
    if words[0] == "-m":
        assert importlib.util.find_spec(words[1]) is not None
        assert (
            importlib.util.find_spec(f"{words[1]}.__main__" if is_package(words[1]) else words[1]) is not None
        )
    elif words[0] != "server.py":  # the README's own, which tests/integration/test_first_minutes.py starts
        assert (ROOT / words[0]).is_file()
    options = re.findall(r"(?<![\w-])--[a-z-]+", command.text)
    if options:
        done = subprocess.run(
            [sys.executable, *words[:2], "--help"], cwd=ROOT, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        assert [each for each in options if each not in done.stdout] == []


def is_package(module: str) -> bool:
    found = importlib.util.find_spec(module)
    return found is not None and found.submodule_search_locations is not None


def test_extras_that_are_installed_are_extras() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = {extra for each in of("pip") for extra in re.findall(r"\[(\w+)\]", each.text)}
    assert named
    assert named <= set(project["optional-dependencies"])


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_whatever_is_typed_is_run_or_on_the_list(command: Command) -> None:
    """Nothing slips through because nobody thought of it."""
    assert program_of(command) in ("", "mcp-sidecar", "make", "python", *NOT_RUN)


def test_every_curl_is_run_by_somebody() -> None:
    """In a console against a sidecar, or in the runbook, on the page of all metrics."""
    pages = {each.where.partition(":")[0] for each in of("curl")}
    assert pages == {"README.md", "docs/install.md", "deploy/OPERATIONS.md"}


def test_the_list_names_what_is_typed() -> None:
    """An entry that nobody needs any more would let something slip through later."""
    assert set(NOT_RUN) <= {program_of(each) for each in COMMANDS}
    assert len(OURS) > 25
