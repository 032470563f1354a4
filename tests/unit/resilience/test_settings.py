"""What the section may say, and what it means where it says nothing."""

import pytest
from msgspec import Struct, field

from proxy.configuration.documents import document_of
from proxy.configuration.mistakes import SettingsError
from proxy.resilience.settings import (
    BreakerSettings,
    QuarantineSettings,
    ResilienceSection,
    ResilienceSettings,
    RetryBudgetSettings,
)


class Document(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    resilience: ResilienceSection = field(default_factory=ResilienceSettings)


def read(text: str) -> ResilienceSettings:
    return document_of(f"resilience: {{{text}}}".encode(), "F", Document, {}).resilience


def mistakes(text: str) -> list[str]:
    try:
        read(text)
    except SettingsError as error:
        return [str(each) for each in error.mistakes]
    return []


USUAL = ResilienceSettings(
    timeout_s=60,
    client_may_shorten=True,
    stream_idle_timeout_s=300,
    stream_max_s=None,
    attempts=3,
    backoff_s=0.1,
    backoff_cap_s=5,
    retry_budget=RetryBudgetSettings(ratio=0.2, min_per_s=10),
    breaker=BreakerSettings(
        enabled=True,
        failures=5,
        failure_ratio=0.5,
        min_calls=20,
        window_s=10,
        open_s=5,
        max_open_s=60,
        counts_internal_errors=True,
    ),
    quarantine=None,
)


def test_without_a_section_calls_are_guarded() -> None:
    """Design 3 and issue 7: 60 s, three attempts, 20 % and 10/s, five failures, no quarantine."""
    assert ResilienceSettings() == USUAL
    assert read("") == USUAL


def test_the_example_of_the_contract_is_read() -> None:
    """Design 3."""
    settings = read(
        "timeout_s: 60, stream_idle_timeout_s: 300, attempts: 3, backoff_s: 0.1, backoff_cap_s: 5, "
        "retry_budget: {ratio: 0.2, min_per_s: 10}, breaker: {failures: 5, open_s: 5, max_open_s: 60}"
    )
    assert settings == USUAL


def test_a_breaker_can_be_switched_off() -> None:
    """By a word: in this file null says nothing."""
    assert not read("breaker: {enabled: false}").breaker.enabled
    assert "resilience.breaker: has no value" in mistakes("breaker: null")[0]


def test_a_quarantine_is_what_is_usual_when_it_is_switched_on() -> None:
    assert read("quarantine: {}").quarantine == QuarantineSettings(
        failure_ratio=0.5, min_calls=20, window_s=60, for_s=60
    )


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("timeout_s: 0", "resilience.timeout_s: is out of bounds"),
        ("timeout_s: 86401", "resilience.timeout_s: is out of bounds"),
        ("stream_idle_timeout_s: 0", "resilience.stream_idle_timeout_s: is out of bounds"),
        ("stream_max_s: 0", "resilience.stream_max_s: is out of bounds"),
        ("attempts: 0", "resilience.attempts: is out of bounds"),
        ("attempts: 11", "resilience.attempts: is out of bounds"),
        ("backoff_s: 0", "resilience.backoff_s: is out of bounds"),
        ("backoff_s: 2, backoff_cap_s: 1", "resilience.backoff_cap_s: lies below backoff_s"),
        ("retry_budget: {ratio: 1.5}", "resilience.retry_budget.ratio: is out of bounds"),
        ("retry_budget: {min_per_s: 0}", "resilience.retry_budget.min_per_s: is out of bounds"),
        ("breaker: {failures: 0}", "resilience.breaker.failures: is out of bounds"),
        ("breaker: {failure_ratio: 0}", "resilience.breaker.failure_ratio: is out of bounds"),
        ("breaker: {open_s: 5, max_open_s: 4}", "resilience.breaker.max_open_s: lies below open_s"),
        ("quarantine: {min_calls: 0}", "resilience.quarantine.min_calls: is out of bounds"),
        ("retries: 3", "resilience.retries: is not known"),
    ],
)
def test_what_contradicts_itself_is_a_mistake(text: str, mistake: str) -> None:
    assert len(mistakes(text)) == 1
    assert mistake in mistakes(text)[0]


@pytest.mark.parametrize("text", ["backoff_s: 1, backoff_cap_s: 1", "breaker: {open_s: 5, max_open_s: 5}"])
def test_bounds_may_be_equal(text: str) -> None:
    assert mistakes(text) == []
