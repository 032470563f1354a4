"""What waits for a later room is listed, exists, and only ever gets less. Own promise of the runner."""

from collections import Counter
from pathlib import Path

import pytest
from msgspec.structs import replace

from tests.corpus.arena import CATEGORIES, JUDGES
from tests.corpus.cases import Corpus, CorpusError, read_corpus
from tests.corpus.deferred import PATH, Deferred, read_deferred
from tests.corpus.run import OWN

CEILING = {"assertions": 54, "whole cases": 21, "categories": 2, "texts": 0}
"""How much may wait, however it is named. Lower it with the change that takes something out; never raise it."""
AT_START = PATH.with_name("deferred_at_start.txt")
"""The list as it began, one entry a line; never edited. What left the list cannot come back in another's place."""
NAMED_LATER = PATH.with_name("deferred_named_later.txt")
"""What a category of that list left behind when it began to run, one entry a line, added once and never edited."""


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return read_corpus(OWN)


@pytest.fixture(scope="module")
def deferred() -> Deferred:
    return read_deferred()


def sizes(corpus: Corpus, deferred: Deferred) -> dict[str, int]:
    return {
        "assertions": deferred.waiting(corpus.cases),
        "whole cases": sum(deferred.room(case) is not None for case in corpus.cases),
        "categories": len(deferred.categories),
        "texts": len(deferred.texts),
    }


def lines(path: Path) -> set[str]:
    return set(path.read_text(encoding="utf-8").splitlines())


def test_the_list_only_shrinks(corpus: Corpus, deferred: Deferred) -> None:
    """No entry that was neither there at the start nor named later, and exactly as much as the ceiling says."""
    assert deferred.entries() <= lines(AT_START) | lines(NAMED_LATER)
    assert sizes(corpus, deferred) == CEILING


def test_what_is_named_later_waited_from_the_start(corpus: Corpus, deferred: Deferred) -> None:
    """A case or a check of a category that waited as a whole, and does not any more."""
    by_id = {case.id: case for case in corpus.cases}
    for entry in lines(NAMED_LATER):
        kind, _, name = entry.partition(" ")
        category = by_id[name.partition(":")[0]].category
        assert kind in {"case", "check"}
        assert f"category {category}" in lines(AT_START), entry
        assert category not in deferred.categories, entry


def test_taking_a_category_apart_does_not_lower_the_count(corpus: Corpus, deferred: Deferred) -> None:
    """Naming every case of a category waits for as much as naming the category."""
    name, room = next(iter(deferred.categories.items()))
    apart = replace(
        deferred,
        categories={each: where for each, where in deferred.categories.items() if each != name},
        cases={**deferred.cases, **{case.id: room for case in corpus.cases if case.category == name}},
    )
    assert apart.waiting(corpus.cases) == deferred.waiting(corpus.cases)


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
    """The categories are not emptied: what waits of them is the smaller part, in each of them."""
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
