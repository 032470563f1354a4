"""The ledger finds what it is told to look for, and the run fails then."""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import cast

import pytest

from tests import ledger
from tests.conftest import pytest_sessionfinish, pytest_testnodedown

SECRET = "c2VjcmV0LXdvcmQtb2YtYS10ZXN0"


@pytest.fixture
def kept() -> Iterator[None]:
    """Whatever a test finds here is its own business."""
    before = list(ledger.found)
    yield
    ledger.found[:] = before
    ledger.forget(SECRET)


@pytest.mark.parametrize(
    ("issued", "seen", "is_found"),
    [
        (SECRET, f'{{"why":"{SECRET}"}}', True),
        (SECRET, f"Bearer {SECRET}", True),
        (f"id.{SECRET}", f"X-API-Key: id.{SECRET}", True),
        (f"eyJhbGciOiJSUzI1NiJ9.{SECRET}.c2ln", f"?t={SECRET}", True),
        (SECRET, "c2VjcmV0LXdvcmQtb2YtYS10ZXN", False),
        (f"eyJhbGciOiJSUzI1NiJ9.{SECRET}.c2ln", "eyJhbGciOiJSUzI1NiJ9", False),
    ],
)
def test_what_was_issued_is_found_wherever_it_stands(
    kept: None, issued: str, seen: str, is_found: bool
) -> None:
    """Issue 3: the grep must be able to fail."""
    ledger.secret(issued, "token")
    before = len(ledger.found)
    ledger.look("log", seen.encode())
    assert (len(ledger.found) > before) is is_found


def ended(**config: object) -> types.SimpleNamespace:
    """A run, or a process of one, that has just ended."""
    session = types.SimpleNamespace(exitstatus=pytest.ExitCode.OK, config=types.SimpleNamespace(**config))
    pytest_sessionfinish(cast(pytest.Session, session))
    return session


def test_a_run_that_found_something_has_failed(kept: None) -> None:
    """Whatever its tests say."""
    ledger.secret(SECRET, "token")
    ledger.look("log", SECRET.encode())
    assert ended().exitstatus is pytest.ExitCode.TESTS_FAILED


def test_what_another_process_of_the_run_found_counts(kept: None) -> None:
    """make test has two."""
    ledger.found[:] = ["token in log"]
    output: dict[str, list[str]] = {}
    ended(workeroutput=output)
    told = {"ledger": list(output["ledger"])}
    ledger.found[:] = []
    assert ended().exitstatus is pytest.ExitCode.OK
    pytest_testnodedown(types.SimpleNamespace(workeroutput=told), None)
    assert ledger.found == ["token in log"]
    assert ended().exitstatus is pytest.ExitCode.TESTS_FAILED
