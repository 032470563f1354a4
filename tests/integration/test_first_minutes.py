"""A new user's first two minutes, word for word: the files and commands of README.md in front of a real MCP server.

Source: issue 9, "It is done when": first allowed call, first refused, first limited, first cached, and the metrics.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from proxy.demo.ports import free_ports
from tests.documents.pages import ROOT, Block, blocks, every_block
from tests.system import tools

README = blocks(ROOT / "README.md")
TWO_MINUTES_S = 120
VARIES = re.compile(r'("retryAfterMs":|"age_s":|Call again in )\d+')
"""What depends on when somebody types."""


def only(language: str, word: str) -> Block:
    """The block of the README with this word."""
    (block,) = (each for each in README if each.language == language and word in each.text)
    return block


CONSOLES = [each for each in every_block() if each.language == "console"]


def shown(block: Block) -> list[tuple[str, str]]:
    """Each command of a console and what the page says comes of it."""
    parts = re.split(r"(?m)^\$ (.+)\n", block.text.replace("\\\n", " "))
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


def walked(folder: Path, commands: Sequence[str]) -> list[str]:
    """What each command shows in one shell, after the README's own preparation; the ports alone are others."""
    server, data, operations = free_ports(3)

    def moved(text: str) -> str:
        for documented, free in ((8000, server), (8080, data), (9901, operations)):
            text = re.sub(rf"(?<=[:=]){documented}\b", str(free), text)
        return text

    (folder / "server.py").write_text(moved(only("python", "MCPServer").text), encoding="utf-8")
    (folder / "sidecar.yaml").write_text(moved(only("yaml", "version: 1").text), encoding="utf-8")
    prepare = only("sh", "python server.py").text
    # What runs beside the shell must not write between the answers.
    prepare = re.sub(r"(?m) &( +#.*)?$", " >>beside.log 2>&1 &", prepare)
    prepare = prepare.replace("healthcheck", f"healthcheck --address 127.0.0.1:{operations}")
    said = [f"echo '<{number}>'; {moved(command)}" for number, command in enumerate(commands)]
    script = "\n".join(["set -e", "trap 'kill $(jobs -p) || true; wait || true' EXIT", moved(prepare), *said])
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MCP_")}
    with subprocess.Popen(
        ["bash", "-c", script],
        cwd=folder,
        env={
            **clean,
            "PATH": os.pathsep.join((str(programs(folder)), os.environ["PATH"])),
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
    beside = (folder / "beside.log").read_text(encoding="utf-8")
    assert shell.returncode == 0, out + err + beside
    return re.split(r"<\d+>\n", out)[1:]


@pytest.mark.system("curl")
@pytest.mark.parametrize("block", CONSOLES, ids=str)
def test_what_the_page_says_comes_of_its_commands(block: Block, tmp_path: Path) -> None:
    """The README's calls in the order of the page, and the handshake of docs/install.md."""
    answers = walked(tmp_path, [command for command, _ in shown(block)])
    assert [VARIES.sub(r"\1N", each) for each in answers] == [
        VARIES.sub(r"\1N", each) for _, each in shown(block)
    ]


def test_the_page_shows_one_of_each() -> None:
    """Allowed, refused, limited and cached; else the test above would be about less."""
    text = only("console", "call ").text
    for mark in ("Sunny in Oslo", "not_allowed", "rate_limited", "dev.mcp-sidecar/cache", "tool_calls_total"):
        assert mark in text
    assert tools.needed()["curl"] == "curl"
