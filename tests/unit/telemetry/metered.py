"""Metrics as tests read them: journeys in, the page of a scraper out. The page is the real one, and is parsed by
prometheus-client."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum

from msgspec import Struct
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.samples import Exemplar

from proxy.lifecycle.descriptors import Descriptors
from proxy.lifecycle.loop_lag import LoopLag
from proxy.lifecycle.memory import Memory
from proxy.lifecycle.reloads import Reloads
from proxy.telemetry.exposition import rendered
from proxy.telemetry.journey import Journeys, Observers
from proxy.telemetry.metrics import Metrics
from proxy.telemetry.windows import Labels, ProcessWindows, Windows


class Requests(Struct):
    """Of a listener with nothing to do."""

    requests_under_way: int = 0
    streams_open: int = 0


class State(Enum):
    """Of a breaker."""

    OPEN = "open"


class Breaker(Struct):
    opened: int = 0
    state: State = State.OPEN


class Lines(Struct):
    dropped: int = 0


def process(reloads: Reloads | None = None, lag: LoopLag | None = None, dropped: int = 0) -> ProcessWindows:
    return ProcessWindows(
        reloads=reloads or Reloads(),
        lag=lag or LoopLag(),
        memory=Memory(lambda: None),
        descriptors=Descriptors(lambda: 0, lambda: 1_024),
        lines=Lines(dropped),
        connections=lambda: 0,
    )


def journeys(metrics: Metrics, now: float = 12.5) -> Journeys:
    """Whose journeys `metrics` hears."""
    observers = Observers(
        permitted=[metrics.permitted], attempt_ended=[metrics.attempt_ended], ended=[metrics.ended]
    )

    def failed(error: Exception) -> None:
        raise error

    return Journeys(observers, lambda: now, failed)


Key = tuple[str, frozenset[tuple[str, str]]]


class Page:
    """What a scraper reads."""

    def __init__(self, metrics: Metrics, *readings: Windows, windows: ProcessWindows | None = None) -> None:
        shown = metrics.snapshot(readings or [Windows(requests=Requests())], windows or process())
        body, self.kind = rendered(shown, is_open=True)
        self.text = body.decode()
        self.series: dict[str, int] = {}
        """How many, by the name of the metric."""
        self._values: dict[Key, float] = {}
        self.exemplars: list[Exemplar] = []
        for family in text_string_to_metric_families(self.text):  # type: ignore[no-untyped-call]
            self.series[family.name] = len(family.samples)
            for sample in family.samples:
                key = sample.name, frozenset(sample.labels.items())
                assert key not in self._values, "a series twice"
                self._values[key] = sample.value
                if sample.exemplar is not None:
                    self.exemplars.append(sample.exemplar)

    def __call__(self, name: str, **labels: str) -> float | None:
        """The value of one series."""
        return self._values.get((name, frozenset(labels.items())))

    def all(self, name: str) -> Mapping[frozenset[tuple[str, str]], float]:
        """Every series of this name, but those that are 0."""
        return {labels: value for (each, labels), value in self._values.items() if each == name and value}

    def labels(self, name: str, label: str) -> Sequence[str]:
        return sorted({dict(labels)[label] for labels in self.all(name)})


def counts(metrics: Metrics) -> dict[tuple[str, Labels], float]:
    """Every counter, without the page: (name, labels) → value."""
    shown = metrics.snapshot([Windows(requests=Requests())], process())
    return {
        (each.family.name, labels): value
        for each in shown
        for labels, value in each.values
        if each.family.kind == "counter"
    }
