"""What the section may say, and what it means where it says nothing."""

import pytest
from msgspec import Struct, field

from proxy.capacity.settings import CapacitySection, CapacitySettings, Overload
from proxy.configuration.documents import document_of
from proxy.configuration.mistakes import SettingsError


class Document(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    capacity: CapacitySection = field(default_factory=CapacitySettings)


def read(text: str) -> CapacitySettings:
    return document_of(f"capacity: {{{text}}}".encode(), "F", Document, {}).capacity


def mistakes(text: str) -> list[str]:
    try:
        read(text)
    except SettingsError as error:
        return [str(each) for each in error.mistakes]
    return []


def test_the_example_of_the_contract_is_read() -> None:
    """Design 3, with all of issue 5's words."""
    settings = read(
        'max_in_flight: 64, per_tenant: 16, per_tool: {"export_*": 2}, overload: shed, queue_depth: 128, '
        "max_wait_s: 2, weights: {acme: 4}, pace: {rate_per_s: 50, burst: 20}, adaptive: {}"
    )
    assert (settings.max_in_flight, settings.per_tenant, dict(settings.per_tool)) == (64, 16, {"export_*": 2})
    assert (settings.policy, settings.depth, settings.max_wait_s) == ("shed", 128, 2)
    assert dict(settings.weights) == {"acme": 4}
    assert settings.pace is not None
    assert (settings.pace.rate_per_s, settings.pace.burst) == (50, 20)
    assert settings.adaptive is not None


def test_without_a_section_nothing_waits() -> None:
    """Design 3: max_in_flight 1024 without a queue."""
    settings = CapacitySettings()
    assert (settings.max_in_flight, settings.policy, settings.depth) == (1_024, "fail", 0)
    assert (settings.pace, settings.adaptive) == (None, None)


@pytest.mark.parametrize(
    ("text", "policy", "depth"),
    [
        ("max_in_flight: 8", "fail", 0),
        ("queue_depth: 5", "queue", 5),
        ("queue_depth: 0", "fail", 0),
        ("overload: queue", "queue", 128),
        ("overload: shed", "shed", 128),
        ("overload: shed, queue_depth: 7", "shed", 7),
        ("overload: fail, queue_depth: 0", "fail", 0),
    ],
)
def test_a_depth_means_a_queue(text: str, policy: Overload, depth: int) -> None:
    settings = read(text)
    assert (settings.policy, settings.depth) == (policy, depth)


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("max_in_flight: 0", "capacity.max_in_flight: is out of bounds"),
        ("per_tenant: 0", "capacity.per_tenant: is out of bounds"),
        ('per_tool: {"": 1}', "matches nothing"),
        ("per_tool: {a: 0}", "capacity.per_tool.a: is out of bounds"),
        ("overload: drop", "capacity.overload: is no value for this"),
        ("overload: fail, queue_depth: 3", "capacity.queue_depth: has nobody to hold"),
        ("overload: queue, queue_depth: 0", "capacity.queue_depth: has no room"),
        ("max_wait_s: 0", "capacity.max_wait_s: is out of bounds"),
        ("max_wait_s: 61", "capacity.max_wait_s: is out of bounds"),
        ("weights: {acme: 0}", "capacity.weights.acme: is out of bounds"),
        ("weights: {acme: 1, ACME: 2}", "capacity.weights.ACME: names a tenant again"),
        ('weights: {" ": 1}', "is no tenant"),
        ("pace: {burst: 2}", "capacity.pace.rate_per_s: is missing"),
        ("pace: {rate_per_s: 0}", "capacity.pace.rate_per_s: is out of bounds"),
        ("adaptive: {floor: 8, ceiling: 4}", "capacity.adaptive.ceiling: lies below floor"),
        ("max_in_flight: 8, adaptive: {ceiling: 9}", "capacity.adaptive: reaches above max_in_flight"),
        ("max_in_flight: 8, adaptive: {floor: 9}", "capacity.adaptive: reaches above max_in_flight"),
        ("adaptive: {tolerance: 1}", "capacity.adaptive.tolerance: is out of bounds"),
        ("per_tool: {" + ", ".join(f"t{each}: 1" for each in range(65)) + "}", "has too many patterns"),
    ],
)
def test_what_contradicts_itself_is_a_mistake(text: str, mistake: str) -> None:
    assert len(mistakes(text)) == 1
    assert mistake in mistakes(text)[0]


def test_a_thousand_weights_are_read() -> None:
    assert len(read("weights: {" + ", ".join(f"t{each}: 2" for each in range(1_000)) + "}").weights) == 1_000
