"""Hostile input, case by case, against the sidecar as a process. The sentences are in attack-corpus.yaml.

Two processes, one per form of refusing, serve nearly all cases of this module; one whose setup changes the
identity provider has its own. Cases run one after another, so that what arrives upstream belongs to the case that runs.
"""

import asyncio
from collections.abc import Iterator

import pytest
from msgspec import Struct

from tests.corpus.arena import Arena
from tests.corpus.cases import Case, read_corpus
from tests.corpus.deferred import read_deferred
from tests.corpus.run import OWN

CORPUS = read_corpus(OWN)
DEFERRED = read_deferred()
CASES = [case for case in CORPUS.cases if DEFERRED.room(case) is None]


class Running(Struct, frozen=True):
    """An open arena and the loop it lives on."""

    arena: Arena
    loop: asyncio.Runner


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    with asyncio.Runner() as loop:
        arena = Arena(CORPUS, DEFERRED)
        arena.expect(CASES)
        loop.run(arena.open())
        try:
            yield Running(arena, loop)
        finally:
            loop.run(arena.close())


@pytest.mark.parametrize("case", CASES, ids=[f"{case.id} {case.title}" for case in CASES])
def test_hostile_input_does_no_harm(running: Running, case: Case) -> None:
    """Every expectation, every must-not and every positive check of the case holds, in both forms of refusing."""
    verdict = running.loop.run(running.arena.run(case))
    assert verdict.problems == ()
    assert verdict.state == "passed"
