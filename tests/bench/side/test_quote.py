"""Pages say what the last kept results say."""

from __future__ import annotations

import pytest

from tests.bench.side.quote import BEGIN, END, latest, pages, quoting, summary

PAGE = f"before\n{BEGIN}old\n{END}after\n"


def test_pages_quote_the_results_that_are_kept() -> None:
    """Issue "As fast as the best": a table that the README quotes. Remedy: python -m tests.bench.side.quote."""
    for page, text in pages(latest()).items():
        assert page.read_text(encoding="utf-8") == text, page


def test_only_what_stands_between_the_marks_is_replaced() -> None:
    once = quoting(PAGE, "| new |\n")
    assert once == f"before\n{BEGIN}\n| new |\n\n{END}after\n"
    assert quoting(once, "| new |\n") == once


@pytest.mark.parametrize("page", ["", "before\n", f"{BEGIN}no end\n", f"{END}{BEGIN}"])
def test_a_page_without_marks_is_not_written(page: str) -> None:
    with pytest.raises(ValueError, match="needs the lines"):
        quoting(page, "x")


def test_the_summary_ends_before_the_first_peer() -> None:
    assert summary("machine\n\n| ratio |\n\n**here**\n\n| peer |\n") == "machine\n\n| ratio |\n"


def test_without_results_pages_say_so() -> None:
    assert all("No results are kept yet." in text for text in pages(None).values())
