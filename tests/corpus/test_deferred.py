"""What waits for a later room is listed, exists, and only ever gets less. Own promise of the runner."""

from collections import Counter
from pathlib import Path

import pytest

from tests.corpus.arena import CATEGORIES, JUDGES
from tests.corpus.cases import Corpus, CorpusError, read_corpus
from tests.corpus.deferred import PATH, Deferred, read_deferred
from tests.corpus.run import OWN

CEILING = {"categories": 10, "cases": 39, "checks": 4, "texts": 9}
"""How many entries each section may have. Lower it with the change that takes one out; never raise it."""
AT_START = PATH.with_name("deferred_at_start.txt")
"""The list as it began, one entry a line; never edited. What left the list cannot come back in another's place."""


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return read_corpus(OWN)


@pytest.fixture(scope="module")
def deferred() -> Deferred:
    return read_deferred()


def sizes(deferred: Deferred) -> dict[str, int]:
    return {
        "categories": len(deferred.categories),
        "cases": len(deferred.cases),
        "checks": sum(len(checks) for checks in deferred.checks.values()),
        "texts": len(deferred.texts),
    }


def test_the_list_only_shrinks(deferred: Deferred) -> None:
    """No entry that was not there at the start, and exactly as many as the ceiling says."""
    assert deferred.entries() <= set(AT_START.read_text(encoding="utf-8").splitlines())
    assert sizes(deferred) == CEILING


def test_every_entry_names_something_of_the_corpus(corpus: Corpus, deferred: Deferred) -> None:
    """A stale entry would hide nothing today and the wrong thing tomorrow."""
    by_id = {case.id: case for case in corpus.cases}
    assert set(deferred.categories) <= {case.category for case in corpus.cases}
    assert set(deferred.cases) <= set(by_id)
    assert set(deferred.texts) <= {text for case in corpus.cases for text in case.texts()}
    for name, checks in deferred.checks.items():
        assert set(checks) <= {*by_id[name].texts(), *JUDGES}


def test_nothing_is_deferred_twice(corpus: Corpus, deferred: Deferred) -> None:
    """A case that waits as a whole has no checks that wait beside it, and its category does not wait too."""
    by_id = {case.id: case for case in corpus.cases}
    assert not set(deferred.cases) & set(deferred.checks)
    assert not {by_id[name].category for name in deferred.cases} & set(deferred.categories)


def test_every_category_is_run_or_waits(corpus: Corpus, deferred: Deferred) -> None:
    """No category is silently left out."""
    assert {case.category for case in corpus.cases} == CATEGORIES | set(deferred.categories)
    assert not CATEGORIES & set(deferred.categories)


def test_most_of_what_runs_is_run_whole(corpus: Corpus, deferred: Deferred) -> None:
    """The eight categories are not emptied: what waits of them is the smaller part, in each of them."""
    waiting = Counter(case.category for case in corpus.cases if case.id in deferred.cases)
    for category in CATEGORIES:
        assert waiting[category] <= sum(case.category == category for case in corpus.cases) / 2, category


@pytest.mark.parametrize(
    "text",
    [
        "cases: {attic: [HTTP-005]}",
        "cases: {policy: [HTTP-005], identity: [HTTP-005]}",
        "checks: {HTTP-005: {status: attic}}",
        "cupboard: {policy: [HTTP-005]}",
    ],
)
def test_a_list_that_says_nothing_certain_is_refused(tmp_path: Path, text: str) -> None:
    """An unknown room, an unknown section or an entry given twice."""
    path = tmp_path / "deferred.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(CorpusError):
        read_deferred(path)
