"""What the `telemetry` section takes, and what it refuses with its place. Issue 8, 4; design section 3."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from proxy.secret import Secret
from proxy.telemetry.settings import DebugWindow, TelemetrySettings
from tests.unit.configuration.reading import mistakes, read

UPSTREAM = "version: 1\nupstream: {url: http://127.0.0.1:8000/mcp}\n"


def at(hours: float) -> str:
    return (datetime.now(UTC) + timedelta(hours=hours)).strftime("%Y-%m-%dT%H:%M:%SZ")


def test_everything_that_is_written_is_read(tmp_path: Path) -> None:
    """Each with a value of its own."""
    until = at(23.9)
    text = (
        f"{UPSTREAM}telemetry:\n  log_level: error\n  life: json\n  args_hash: true\n"
        "  args_hash_key: ${KEY}\n  request_id_header: X-Request-Id\n"
        f'  debug: [{{tenant: acme, until: "{until}"}}]\n'
    )
    assert read(tmp_path, text, environ={"KEY": "k" * 16}).telemetry == TelemetrySettings(
        log_level="error",
        life="json",
        args_hash=True,
        args_hash_key=Secret("k" * 16),
        request_id_header="X-Request-Id",
        debug=(DebugWindow(tenant="acme", until=until),),
    )
    assert read(tmp_path, UPSTREAM).telemetry == TelemetrySettings()


def test_a_window_that_is_over_is_no_mistake(tmp_path: Path) -> None:
    """Whoever forgets it in the file can still reload it."""
    assert mistakes(tmp_path, f'{UPSTREAM}telemetry: {{debug: [{{tenant: a, until: "{at(-1)}"}}]}}\n') == []


@pytest.mark.parametrize(
    ("section", "what"),
    [
        ('{debug: [{tenant: a, until: "TOO LATE"}]}', r"debug\[0\]\.until: is too far away"),
        ("{debug: [{tenant: a, until: tomorrow}]}", r"debug\[0\]\.until: is no moment"),
        ('{debug: [{tenant: a, until: "2026-11-21"}]}', r"debug\[0\]\.until: is no moment"),
        ('{debug: [{tenant: a, until: "2026-11-21T15:00:00"}]}', r"debug\[0\]\.until: is no moment"),
        ('{debug: [{tenant: a, until: "2026-02-30T15:00:00Z"}]}', r"debug\[0\]\.until: is no moment"),
        ("{debug: [{tenant: a}]}", r"debug\[0\]\.until: "),
        ("{debug: [{tenant: '', until: 'SOON'}]}", r"debug\[0\]\.tenant: "),
        ("{args_hash_key: short}", r"args_hash_key: "),
        ("{request_id_header: 'X Request'}", r"request_id_header: is no header name"),
        ("{request_id_header: Content-Length}", r"request_id_header: cannot hold an id"),
        ("{request_id_header: Mcp-Session-Id}", r"request_id_header: cannot hold an id"),
        ("{request_id_header: Transfer-Encoding}", r"request_id_header: cannot hold an id"),
        ("{request_id_header: authorization}", r"request_id_header: cannot hold an id"),
        ("{life: loud}", r"life: "),
    ],
)
def test_what_cannot_be_is_refused_with_its_place(tmp_path: Path, section: str, what: str) -> None:
    """Design section 3: file:line:column: path: what, why, remedy."""
    # Not among the cases: their names must be the same in every process.
    section = section.replace("TOO LATE", at(24.1)).replace("SOON", at(1))
    (mistake,) = mistakes(tmp_path, f"{UPSTREAM}telemetry: {section}\n")
    assert re.search(rf":3:\d+: telemetry\.{what}", mistake)


def test_a_header_of_keys_names_no_requests(tmp_path: Path) -> None:
    """Hostile: what stands in that header is logged, passed on and answered, and here it would be a credential."""
    keys = "identity: {authenticators: [{kind: api_key, header: X-My-Key, keys_file: /nowhere/keys.yaml}]}\n"
    for header, is_refused in (("x-my-key", True), ("X-Request-Id", False)):
        found = mistakes(tmp_path, f"{UPSTREAM}{keys}telemetry: {{request_id_header: {header}}}\n")
        assert any("request_id_header: holds the keys" in each for each in found) is is_refused
