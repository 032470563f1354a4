"""The last test of a run: no credential was seen where it does not belong."""

from __future__ import annotations

import pytest

from tests import ledger


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Issue 3: a grep of all logs, errors and upstream traffic of the whole run finds nothing."""
    if ledger.found:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for where in sorted(set(ledger.found)):
        terminalreporter.write_line(
            f"A CREDENTIAL LEFT: {where} ({ledger.found.count(where)} times)", red=True
        )
