"""What a scraper reads of a sidecar's operations port, by prometheus-client's own parser."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from prometheus_client.parser import text_string_to_metric_families

from tests.integration.house import probe
from tests.integration.waiting import within

Labels = frozenset[tuple[str, str]]


class Page:
    """The text format, parsed."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.names: set[str] = set()
        """Of metrics that have a series."""
        self._values: dict[tuple[str, Labels], float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                self._values[sample.name, frozenset(sample.labels.items())] = sample.value
                self.names.add(sample.name)

    def __call__(self, name: str, **labels: str) -> float | None:
        """The value of one series."""
        return self._values.get((name, frozenset(labels.items())))

    def counters(self) -> Mapping[tuple[str, Labels], float]:
        """What must never fall."""
        endings = ("_total", "_count", "_bucket")
        return {key: value for key, value in self._values.items() if key[0].endswith(endings)}


async def scrape(port: int) -> Page:
    """The page as it was a second ago at most."""
    answer = await probe(port, "/metrics")
    assert answer.status == HTTPStatus.OK
    return Page(answer.body.decode())


async def scraped(port: int, name: str, value: float, **labels: str) -> Page:
    """The page, once one series has this value."""
    async with within(10):
        while True:
            page = await scrape(port)
            if page(name, **labels) == value:
                return page
