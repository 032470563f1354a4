"""PyPI mcp 1.x, the client that forgives least: over streamable HTTP and over HTTP+SSE, on both routes.

It cannot be installed beside mcp 2.x, so a script drives it with an interpreter of its own (mcp1_driver.py)
and the tests here judge what it saw.
"""

import json
import os
import subprocess
from functools import cache
from pathlib import Path

import pytest

from tests.tools.python_env import mcp1_python

DRIVER = Path(__file__).with_name("mcp1_driver.py")

DRIVE_S = 60
"""For all behaviours together: 5 s on an idle machine, and each is bounded in the script."""

EXPECTED: dict[str, object] = {
    "connects": "everything-fixture",
    "lists_tools": ["test_sampling", "test_simple_text", "test_wait"],
    "calls_a_tool": "This is a simple text response for testing.",
    "reads_a_failure": "isError: This tool intentionally returns an error for testing",
    "is_told_of_an_unknown_tool": [-32602, "Unknown tool: no_such_tool"],
    "follows_progress": [[0, 100], [50, 100], [100, 100]],
    "reads_the_log": ["Tool execution started", "Tool processing data", "Tool execution completed"],
    "sets_the_log_level": [],
    "answers_as_the_model": "LLM response: you asked: why?",
    "answers_as_the_user": "User response: action=accept, content={'username': 'username', 'email': 'email'}",
    "reads_resources": ["test://template/{id}/data", "This is the content of the static text resource."],
    "gets_a_prompt": "Prompt with arguments: arg1='a', arg2='ü'",
    "completes_an_argument": ["paris", "park", "party"],
    "hears_of_a_changed_resource": "notifications/resources/updated",
    "hears_of_changed_tools": "notifications/tools/list_changed",
    "cancels_a_call": "cancelled",
    "resumes_a_cut_stream": "This answer may arrive on another stream than the call",
    "pings": {},
}
"""What each behaviour of the script must see, whatever the transport and the route."""


@cache
def drive(url: str) -> dict[str, object]:
    """Run the script once for a URL; return what each behaviour saw, or the words of its error."""
    # A corporate HTTP proxy in the environment does not know the way to our loopback.
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    done = subprocess.run(
        [mcp1_python(), "-I", DRIVER, url],
        check=False,
        capture_output=True,
        text=True,
        timeout=DRIVE_S,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return {line["behaviour"]: line.get("saw", line.get("error")) for line in lines}


@pytest.fixture(scope="session", autouse=True)
def installed() -> None:
    """Installing takes longer than any behaviour may."""
    mcp1_python()


@pytest.mark.parametrize("behaviour", EXPECTED)
def test_over_streamable_http(url: str, behaviour: str) -> None:
    """Own promise: the client sees the same with and without us, in 2025-11-25."""
    assert drive(url)[behaviour] == EXPECTED[behaviour]


@pytest.mark.parametrize("behaviour", EXPECTED)
def test_over_http_and_sse(sse_url: str, behaviour: str) -> None:
    """Own promise: the client sees the same with and without us, in 2024-11-05 (two endpoints)."""
    assert drive(sse_url)[behaviour] == EXPECTED[behaviour]


def test_nothing_the_script_does_goes_unjudged(url: str) -> None:
    """A behaviour that is added to the script must be expected here too."""
    assert drive(url).keys() == EXPECTED.keys()
