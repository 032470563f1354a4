"""A real Prometheus is asked all that the dashboard asks, over an hour of a made-up world: no panel stays empty."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from deploy.monitoring import dashboard
from tests.system import tools
from tests.unit.monitoring.names import ALL
from tests.unit.monitoring.world import series

pytestmark = pytest.mark.system("prometheus", "promtool")

SHOWN: dict[str, Any] = json.loads(dashboard.FILE.read_text(encoding="utf-8"))
TARGETS = [
    (panel["title"], index, target)
    for panel in SHOWN["panels"]
    for index, target in enumerate(panel.get("targets", ()))
]
EVERY_S, SAMPLES = 30, 120
END_S = int(time.time()) // EVERY_S * EVERY_S - 3_600
"""Samples lie before now: a Prometheus does not look into its future."""


def world() -> str:
    """An hour of everything, in the text format that promtool reads."""
    lines = []
    for name, metric in ALL.items():
        if name == "ALERTS":
            continue  # Prometheus makes them
        for each, grows in series(name, metric):
            for sample in range(SAMPLES):
                lines.append(f"{each} {1 + sample * grows} {END_S - (SAMPLES - 1 - sample) * EVERY_S}")
    return "\n".join([*lines, "# EOF", ""])


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of one that knows the made-up world."""
    folder = tmp_path_factory.mktemp("prometheus")
    (folder / "world").write_text(world(), encoding="utf-8")
    made = subprocess.run(
        [
            tools.path("promtool"),
            "tsdb",
            "create-blocks-from",
            "openmetrics",
            folder / "world",
            folder / "data",
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert made.returncode == 0, made.stderr
    (folder / "prometheus.yml").write_text("{}", encoding="utf-8")
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    words = [
        tools.path("prometheus"),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
    ]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        late = threading.Timer(30, process.kill)  # whoever waits for a line then reads the end of it
        late.start()
        said: list[str] = []
        for line in process.stderr:
            said.append(line)
            if "Server is ready to receive web requests" in line:
                break
        else:
            pytest.fail("".join(said))
        late.cancel()
        rest = threading.Thread(target=process.stderr.read)  # it would stop at a full pipe
        rest.start()
        yield f"http://{address}"
        process.terminate()
        rest.join(timeout=10)


def ask(prometheus: str, expression: str) -> list[dict[str, Any]]:
    """What Prometheus answers at the end of the hour."""
    for name, value in {
        "__rate_interval": "5m",
        **{each["name"]: each.get("allValue", "") for each in SHOWN["templating"]["list"]},
    }.items():
        expression = re.sub(rf"\${name}\b", value, expression)
    words = urllib.parse.urlencode({"query": expression, "time": END_S})
    with urllib.request.urlopen(f"{prometheus}/api/v1/query?{words}", timeout=10) as answer:
        told = json.load(answer)
    assert told["status"] == "success"
    result = told["data"]["result"]
    assert isinstance(result, list)
    return result


@pytest.mark.parametrize(("panel", "index", "target"), TARGETS)
def test_a_panel_draws_lines_that_its_legend_can_tell_apart(
    prometheus: str, panel: str, index: int, target: dict[str, Any]
) -> None:
    """Issue 8, point 6: what is asked is there, matches on both sides of a division, and is a number."""
    lines = ask(prometheus, target["expr"])
    assert lines
    assert all(re.fullmatch(r"-?[\d.e+-]+", line["value"][1]) for line in lines)
    named = re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])
    legends = [tuple(line["metric"][label] for label in named) for line in lines]
    assert len(set(legends)) == len(legends)


def test_shares_are_shares(prometheus: str) -> None:
    """In a world where each outcome is as frequent as any other: 5 of 8 calls that were let through have failed."""
    by_title = {(panel, index): target["expr"] for panel, index, target in TARGETS}
    (failing,) = ask(prometheus, by_title["Failing", 0])
    (refused,) = ask(prometheus, by_title["Refused by rules", 0])
    (kept,) = ask(prometheus, by_title["Answered without the server", 0])
    assert [float(each["value"][1]) for each in (failing, refused, kept)] == pytest.approx(
        [5 / 8, 4 / 13, 3 / 4]
    )


@pytest.mark.parametrize("variable", SHOWN["templating"]["list"][1:], ids=lambda each: str(each["name"]))
def test_a_variable_has_values_to_choose_from(prometheus: str, variable: dict[str, Any]) -> None:
    expression, label = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"]).groups()  # type: ignore[union-attr]
    assert {line["metric"][label] for line in ask(prometheus, f"group by ({label}) ({expression})")}
