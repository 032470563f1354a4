"""What an expression asks for, as far as names go: a small reader of PromQL. Its grammar is promtool's affair."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from tests.unit.monitoring.names import SCRAPED, find

WORDS = frozenset({"and", "or", "unless", "by", "without", "on", "ignoring", "offset", "bool", "inf", "nan"})
SELECTOR = re.compile(
    r"(?:(?P<function>\w+)\(\s*)?(?P<name>[A-Za-z_:][\w:]*)\s*(?P<matchers>\{[^{}]*\})?\s*(?P<range>\[[^\]]+\])?"
)
MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
GROUPED = re.compile(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)")


class Selector(NamedTuple):
    name: str
    matchers: dict[str, str]
    function: str | None
    """What is called with its range, where it has one."""


def groups(expression: str) -> Iterator[str]:
    """Labels by which an expression groups."""
    for group in GROUPED.findall(expression):
        yield from (label.strip() for label in group.split(","))


def selectors(expression: str) -> Iterator[Selector]:
    """What an expression selects."""
    plain = GROUPED.sub(" ", expression)
    strings = re.sub(r'"[^"]*"', lambda found: '"' + " " * (len(found[0]) - 2) + '"', plain)
    strings = re.sub(r"\b\d+(?:\.\d+)?(?:ms|[smhdwy])?\b|\$\w+", lambda found: " " * len(found[0]), strings)
    for found in re.finditer(r"[A-Za-z_:][\w:]*", strings):
        name, rest = found[0], strings[found.end() :].lstrip()
        if name in WORDS or rest.startswith("(") or re.match(r"=~|!~|!=|=[^=]", rest):
            continue  # a word, a function, a label
        text = SELECTOR.match(plain, found.start())
        assert text is not None
        before = re.search(r"(\w+)\(\s*$", plain[: found.start()])
        yield Selector(
            name,
            {label: value for label, _, value in MATCHER.findall(text["matchers"] or "")},
            before[1] if before is not None and text["range"] is not None else None,
        )


def mistakes(expression: str) -> Iterator[str]:
    """What is wrong with the names of an expression; nothing where all is well."""
    known = set(SCRAPED)
    for selector in selectors(expression):
        metric = find(selector.name)
        if metric is None:
            yield f"no metric is called {selector.name}"
            continue
        known |= metric.labels
        for label in selector.matchers.keys() - metric.labels - SCRAPED:
            yield f"{selector.name} has no label {label}"
        for label, words in metric.words.items():
            for word in selector.matchers.get(label, "").split("|"):
                if word not in words and word and not word.startswith("$"):
                    yield f"{selector.name} has no {label} {word}"
        if selector.function in ("rate", "increase", "irate") and metric.kind != "counter":
            yield f"{selector.name} is no counter: {selector.function}() of it means nothing"
        if (
            selector.function is not None
            and selector.function.endswith("_over_time")
            and metric.kind != "gauge"
        ):
            yield f"{selector.name} is no gauge: {selector.function}() of it means nothing"
    for label in groups(expression):
        if label not in known:
            yield f"nothing here has the label {label}"
    if "histogram_quantile" in expression and "le" not in set(groups(expression)):
        yield "a quantile needs le"
