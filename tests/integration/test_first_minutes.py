"""A new user's first two minutes, word for word: the files and commands of README.md in front of a real MCP server.

Source: issue 9, "It is done when": first allowed call, first refused, first limited, first cached, and the metrics.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from proxy.demo.ports import free_ports
from tests.documents.pages import ROOT, Block, blocks
from tests.system import tools

README = blocks(ROOT / "README.md")
TWO_MINUTES_S = 120
VARIES = re.compile(r'("retryAfterMs":|"age_s":|Call again in )\d+')
"""What depends on when somebody types."""


def only(language: str, word: str) -> Block:
    """The block of the README with this word."""
    (block,) = (each for each in README if each.language == language and word in each.text)
    return block


def shown() -> list[tuple[str, str]]:
    """Each command of the console and what the page says comes of it."""
    parts = re.split(r"(?m)^\$ (.+)\n", only("console", "call ").text)
    return list(zip(parts[1::2], parts[2::2], strict=True))


def programs(folder: Path) -> Path:
    """A PATH on which this checkout is installed."""
    here = folder / "bin"
    here.mkdir()
    scripts = {
        "python": f'exec "{sys.executable}" "$@"',
        "mcp-sidecar": f'PYTHONPATH="{ROOT}" exec "{sys.executable}" -m proxy "$@"',
        # tests/release installs the wheel into an empty environment; here it is enough that nothing else is asked for.
        "pip": '[ "$*" = "install ." ]',
    }
    for name, text in scripts.items():
        (here / name).write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
        (here / name).chmod(0o755)
    return here


@pytest.mark.system("curl")
def test_the_first_two_minutes_are_as_the_readme_says(tmp_path: Path) -> None:
    """All commands in one shell, in the order of the page; the ports alone are others."""
    server, data, operations = free_ports(3)

    def moved(text: str) -> str:
        for documented, free in ((8000, server), (8080, data), (9901, operations)):
            text = re.sub(rf"(?<=[:=]){documented}\b", str(free), text)
        return text

    (tmp_path / "server.py").write_text(moved(only("python", "MCPServer").text), encoding="utf-8")
    (tmp_path / "sidecar.yaml").write_text(moved(only("yaml", "version: 1").text), encoding="utf-8")
    prepare = only("sh", "python server.py").text
    # What runs beside the shell must not write between the answers.
    prepare = re.sub(r"(?m) &( +#.*)?$", " >beside.log 2>&1 &", prepare)
    prepare = prepare.replace("healthcheck", f"healthcheck --address 127.0.0.1:{operations}")
    said = [f"echo '<{number}>'; {moved(command)}" for number, (command, _) in enumerate(shown())]
    script = "\n".join(["set -e", "trap 'kill $(jobs -p)' EXIT", moved(prepare), *said])
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MCP_")}
    with subprocess.Popen(
        ["bash", "-c", script],
        cwd=tmp_path,
        env={
            **clean,
            "PATH": os.pathsep.join((str(programs(tmp_path)), os.environ["PATH"])),
            "MCP_SIDECAR_LISTEN__ADDRESS": f"127.0.0.1:{data}",
            "MCP_SIDECAR_OPERATIONS__ADDRESS": f"127.0.0.1:{operations}",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as shell:
        try:
            out, err = shell.communicate(timeout=TWO_MINUTES_S)
        except subprocess.TimeoutExpired:
            os.killpg(shell.pid, signal.SIGKILL)
            raise
    assert shell.returncode == 0, out + err + (tmp_path / "beside.log").read_text(encoding="utf-8")
    answers = re.split(r"<\d+>\n", out)[1:]
    assert [VARIES.sub(r"\1N", each) for each in answers] == [VARIES.sub(r"\1N", each) for _, each in shown()]


def test_the_page_shows_one_of_each() -> None:
    """Allowed, refused, limited and cached; else the test above would be about less."""
    text = only("console", "call ").text
    for mark in ("Sunny in Oslo", "not_allowed", "rate_limited", "dev.mcp-sidecar/cache", "tool_calls_total"):
        assert mark in text
    assert tools.needed()["curl"] == "curl"
