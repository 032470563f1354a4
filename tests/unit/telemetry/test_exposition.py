"""The page: made off the loop, once for all who ask, and exemplars only where they can be read."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest
from prometheus_client.parser import text_string_to_metric_families

from proxy.telemetry import exposition
from proxy.telemetry.exposition import Exposition, Page, rendered, wants_open_metrics
from proxy.telemetry.metrics import Metrics, Shown
from proxy.telemetry.windows import Windows
from tests.unit.telemetry.metered import Requests, process

PROMETHEUS = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
"""As 2.42 asks."""


def snapshot() -> Sequence[Shown]:
    return Metrics().snapshot([Windows(requests=Requests())], process())


@pytest.mark.parametrize(
    ("accept", "is_open"),
    [
        (PROMETHEUS, True),
        ("application/openmetrics-text", True),
        ("text/plain, Application/OpenMetrics-Text; version=0.0.1", True),
        ("application/openmetrics-text;q=0", False),
        ("application/openmetrics-textual", False),
        ("*/*", False),
        ("", False),
        (";;,,;=", False),
    ],
)
def test_the_format_is_the_one_that_is_asked_for(accept: str, is_open: bool) -> None:
    assert wants_open_metrics(accept) is is_open


def test_both_formats_can_be_read() -> None:
    text, kind = rendered(snapshot(), is_open=False)
    assert kind.startswith("text/plain; version=0.0.4")
    names = {family.name for family in text_string_to_metric_families(text.decode())}
    assert {"tool_calls", "loop_lag_seconds", "process_cpu_seconds"} <= names
    text, kind = rendered(snapshot(), is_open=True)
    assert kind.startswith("application/openmetrics-text; version=")
    assert text.endswith(b"# EOF\n")


class Printer:
    """Makes pages in threads that wait until they may."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.may_go = threading.Event()
        self.threads: list[int] = []
        monkeypatch.setattr(exposition, "rendered", self)

    def __call__(self, shown: Sequence[Shown], *, is_open: bool) -> Page:
        self.threads.append(threading.get_ident())
        assert self.may_go.wait(5)
        return b"page %d" % len(self.threads), "text/plain"


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


async def test_many_scrapers_cost_one_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Own promise: scrapers cannot load the loop. One snapshot, in one thread that is not the loop's."""
    printer, clock = Printer(monkeypatch), Clock()
    snapshots: list[int] = []

    def counted() -> Sequence[Shown]:
        snapshots.append(threading.get_ident())
        return ()

    page = Exposition(counted, now=clock)
    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        asked = [tasks.create_task(page("")) for _ in range(50)]
        while not printer.threads:  # noqa: ASYNC110  a thread tells
            await asyncio.sleep(0)
        clock.now += 10  # also one that takes long is made once
        asked += [tasks.create_task(page("")) for _ in range(50)]
        await asyncio.sleep(0)
        printer.may_go.set()
    assert {each.result() for each in asked} == {(b"page 1", "text/plain")}
    assert snapshots == [threading.get_ident()]
    assert printer.threads != [threading.get_ident()]
    assert page.made == 1


async def test_a_page_is_told_again_for_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    printer, clock = Printer(monkeypatch), Clock()
    printer.may_go.set()
    page = Exposition(tuple, now=clock)
    assert await page("") == await page("")
    clock.now += 0.99
    assert await page("") == (b"page 1", "text/plain")
    clock.now += 0.02
    assert await page("") == (b"page 2", "text/plain")
    assert await page(PROMETHEUS) == (b"page 3", "text/plain")


async def test_a_scraper_that_leaves_takes_nothing_from_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    printer = Printer(monkeypatch)
    page = Exposition(tuple, now=Clock())
    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        first = tasks.create_task(page(""))
        second = tasks.create_task(page(""))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.sleep(0)
        printer.may_go.set()
    assert first.cancelled()
    assert second.result() == (b"page 1", "text/plain")


async def test_a_page_that_failed_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """At once: the next scraper must not be told for a second that there is none."""
    failures = iter([True, False])

    def fails(shown: Sequence[Shown], *, is_open: bool) -> Page:
        if next(failures):
            raise OSError
        return b"page", "text/plain"

    monkeypatch.setattr(exposition, "rendered", fails)
    page = Exposition(tuple, now=Clock())
    with pytest.raises(OSError):  # noqa: PT011  it has no text
        await page("")
    assert await page("") == (b"page", "text/plain")
