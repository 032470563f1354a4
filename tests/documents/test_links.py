"""Links of the documents lead to files and headings that there are (issue 9, point 6)."""

from pathlib import Path

import pytest

from tests.documents.pages import PAGES, ROOT, anchors, links

LINKED = [(page, link) for page in PAGES for link in links(page)]


@pytest.mark.parametrize(
    ("page", "link"), LINKED, ids=[f"{page.relative_to(ROOT)} {link}" for page, link in LINKED]
)
def test_a_link_leads_to_something(page: Path, link: str) -> None:
    path, _, anchor = link.partition("#")
    target = (page.parent / path).resolve() if path else page
    assert target.is_relative_to(ROOT), "a link must not lead out of the repository"
    assert target.exists()
    if anchor:
        assert anchor in anchors(target)


def test_every_page_is_reached_from_the_readme() -> None:
    """A page that nobody finds is not written."""
    seen, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in seen or page.suffix != ".md" or not page.is_file():
            continue
        seen.add(page)
        waiting += [(page.parent / link.partition("#")[0]).resolve() for link in links(page)]
    assert [page.name for page in PAGES if page not in seen] == []


def test_the_readme_stays_short() -> None:
    """Issue 9, point 6: who comes for the first time reads it whole; everything longer is a page."""
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 200


def test_the_pages_are_found() -> None:
    """Else the tests here would be about nothing."""
    assert {"README.md", "CONTRIBUTING.md", "SECURITY.md"} <= {page.name for page in PAGES}
    assert len(LINKED) > 50
