"""The last test of a run: no credential was seen where it does not belong, by none of the processes that ran tests.
And tests whose programs are missing are skipped aloud.
"""

from __future__ import annotations

import gc
from typing import Any

import pytest

from proxy import secret
from tests import ledger
from tests.system import tools


def pytest_collection_finish(session: pytest.Session) -> None:
    """Sixteen thousand tests are a heap of their own: the collector of cycles, which many ask, need not walk it."""
    gc.collect()
    gc.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    # Those of other tests, and of their parameters, are no secrets of this one.
    secret._register.living.clear()
    for mark in item.iter_markers("system"):
        if lacking := tools.missing(mark.args):
            pytest.skip(tools.in_words(lacking))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Issue 3: a grep of all logs, errors and upstream traffic of the whole run finds nothing."""
    told: dict[str, object] | None = getattr(session.config, "workeroutput", None)
    if told is not None:
        told["ledger"] = ledger.found
    elif ledger.found:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """One of the processes has ended; pytest-xdist tells before the session does. One that died is an error anyway."""
    ledger.found.extend(getattr(node, "workeroutput", {}).get("ledger", []))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for where in sorted(set(ledger.found)):
        terminalreporter.write_line(
            f"A CREDENTIAL LEFT: {where} ({ledger.found.count(where)} times)", red=True
        )
    if lacking := tools.missing():
        terminalreporter.write_line(f"Tests that start programs are skipped here: {tools.in_words(lacking)}")
