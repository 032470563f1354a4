"""The reference of settings is the one that the types give (issue 9, point 6)."""

import re
from typing import Any

from docs import reference
from proxy.settings import schema
from tests.documents.pages import anchors


def test_the_page_is_what_make_docs_writes() -> None:
    """Whoever changes a setting runs `make docs`."""
    assert reference.PAGE.read_text(encoding="utf-8") == reference.text()


def test_every_setting_is_told_with_a_sentence() -> None:
    """A field without one would be a row that says nothing; `kind` says itself."""
    below = reference.text().partition(reference.MARK)[2]
    rows = re.findall(r"(?m)^\| \**`(\w+)`\** \| .* \| .* \| (.*) \|$", below)
    definitions: Any = schema()["$defs"]
    drawn = [name for part in definitions.values() for name in part.get("properties", ())]
    assert {name for name, _ in rows} == set(drawn)
    assert [name for name, sentence in rows if not sentence and name != "kind"] == []


def test_anchors_are_those_of_the_links_test() -> None:
    """Two functions make them: one for the page, one for whoever checks pages."""
    headings = re.findall(r"(?m)^### (.+)$", reference.text())
    assert {reference.anchor(each) for each in headings} <= anchors(reference.PAGE)
