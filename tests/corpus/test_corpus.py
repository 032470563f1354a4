"""Hostile input, case by case, against the sidecar as a process. The sentences are in attack-corpus.yaml.

Two processes, one per form of refusing, serve nearly all cases of an arena; one whose setup changes the identity
provider has its own. Cases of an arena run one after another, so that what arrives upstream belongs to the case that
runs. Those that mostly wait have an arena beside that of the others, and are asked for last.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeAlias

import pytest

from tests.corpus.arena import Arena, Verdict
from tests.corpus.cases import Case, read_corpus
from tests.corpus.deferred import read_deferred
from tests.corpus.run import OWN, run

CORPUS = read_corpus(OWN)
DEFERRED = read_deferred()
WAITING = frozenset(
    {
        # Until the sidecar no longer reads what a refused client may still send.
        *(f"HTTP-{number}" for number in ("020", "021", "027")),
        # Until a timeout of the sidecar, or a token, has run out.
        *(f"SLOW-{number}" for number in ("001", "002", "003", "004")),
        *("UP-001", "UP-002", "SES-021"),
        # Until keys are fetched again.
        *(f"AUTH-{number}" for number in ("094", "098", "102", "103")),
        # Until spans are exported.
        *(each.id for each in CORPUS.cases if each.category == "telemetry"),
    }
)
"""Cases that take a second or more, in which there is little to compute."""
CASES = sorted(
    (case for case in CORPUS.cases if DEFERRED.room(case) is None), key=lambda case: case.id in WAITING
)
Run: TypeAlias = Callable[[Case], Verdict]


@pytest.fixture(scope="module")
def verdict_of(request: pytest.FixtureRequest) -> Iterator[Run]:
    """Runs a case, or waits for the verdict where it runs beside the others."""
    chosen = {
        str(item.callspec.id).split()[0]
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.path == request.path
    }
    waiting = tuple(case for case in CASES if case.id in WAITING & chosen)
    with ThreadPoolExecutor(1) as aside, asyncio.Runner() as loop:
        beside = aside.submit(_beside, waiting)
        arena = Arena(CORPUS, DEFERRED)
        arena.expect([case for case in CASES if case.id not in WAITING])
        loop.run(arena.open())
        try:
            yield lambda case: beside.result()[case.id] if case.id in WAITING else loop.run(arena.run(case))
        finally:
            loop.run(arena.close())


def _beside(cases: tuple[Case, ...]) -> Mapping[str, Verdict]:
    """The verdicts of an arena of its own."""
    return (
        {verdict.id: verdict for verdict in asyncio.run(run(Arena(CORPUS, DEFERRED), cases))} if cases else {}
    )


@pytest.mark.parametrize("case", CASES, ids=[f"{case.id} {case.title}" for case in CASES])
def test_hostile_input_does_no_harm(verdict_of: Run, case: Case) -> None:
    """Every expectation, every must-not and every positive check of the case holds, in both forms of refusing."""
    verdict = verdict_of(case)
    assert verdict.problems == ()
    assert verdict.state == "passed"
