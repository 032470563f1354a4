"""The JSON Schema for editors agrees with the reader, and describes what it allows."""

from collections.abc import Mapping
from pathlib import Path

import jsonschema
import pytest
import yaml
from msgspec import Struct, field

from proxy.configuration.schema import DIALECT, schema_of
from proxy.settings import schema
from tests.unit.configuration.reading import mistakes

EXAMPLE = Path(__file__).parents[3] / "policies" / "observe.yaml"
UPSTREAM: dict[str, object] = {"url": "http://a/mcp"}


def complaints(document: object) -> list[str]:
    validator = jsonschema.Draft202012Validator(schema())
    return sorted(error.json_path for error in validator.iter_errors(document))


def test_it_is_a_schema() -> None:
    """Editors refuse to use a broken one silently."""
    jsonschema.Draft202012Validator.check_schema(schema())
    assert schema()["$schema"] == DIALECT


def test_the_shipped_example_fits() -> None:
    """The same file is read by the reader in another test."""
    assert complaints(yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "document",
    [
        {"version": 1, "upstream": UPSTREAM},
        {"version": 1, "upstream": UPSTREAM, "drain_s": "${DRAIN:-3}", "refusals": "${R:-http}"},
        {"version": 1, "upstream": {"url": "${U:-http://a/}", "headers": {"X-A": "b"}}},
        {"version": 1, "upstream": UPSTREAM, "listen": {"allowed_hosts": ["${H:-a.example}", "b.example"]}},
        {
            "version": 1,
            "upstream": UPSTREAM,
            "identity": {"authenticators": [{"kind": "anonymous", "tenant": "t", "roles": ["a"]}]},
        },
    ],
)
def test_what_the_reader_takes_fits(tmp_path: Path, document: object) -> None:
    """References may stand wherever a single value does."""
    assert complaints(document) == []
    assert mistakes(tmp_path, yaml.safe_dump(document)) == []


@pytest.mark.parametrize(
    ("document", "paths"),
    [
        ({}, ["$", "$"]),
        ({"version": 2, "upstream": UPSTREAM}, ["$.version"]),
        ({"version": 1, "upstream": UPSTREAM, "limit": []}, ["$"]),
        ({"version": 1, "upstream": UPSTREAM, "drain_s": -1}, ["$.drain_s"]),
        ({"version": 1, "upstream": UPSTREAM, "drain_s": "25"}, ["$.drain_s"]),
        ({"version": 1, "upstream": UPSTREAM, "listen": {"max_body_bytes": 0}}, ["$.listen.max_body_bytes"]),
        ({"version": 1, "upstream": UPSTREAM, "listen": {"path": "mcp"}}, ["$.listen.path"]),
        (
            {"version": 1, "upstream": UPSTREAM, "identity": {"authenticators": []}},
            ["$.identity.authenticators"],
        ),
        (
            {"version": 1, "upstream": UPSTREAM, "identity": {"authenticators": None}},
            ["$.identity.authenticators"],
        ),
        (
            {
                "version": 1,
                "upstream": UPSTREAM,
                "identity": {"authenticators": [{"kind": "x", "tenant": "t"}]},
            },
            ["$.identity.authenticators[0]"],
        ),
        ({"version": 1, "upstream": {"url": "ftp://a/"}}, ["$.upstream.url"]),
    ],
)
def test_what_the_reader_refuses_does_not_fit(tmp_path: Path, document: object, paths: list[str]) -> None:
    """An editor underlines what `check` would refuse."""
    assert complaints(document) == paths
    assert mistakes(tmp_path, yaml.safe_dump(document)) != []


def test_references_may_stand_in_lists_and_mappings_of_numbers() -> None:
    """A field that a room may bring: single values inside are still single values."""

    class Room(Struct):
        ports: tuple[int, ...] = ()
        weights: Mapping[str, int] = field(default_factory=dict)

    validator = jsonschema.Draft202012Validator(schema_of(Room))
    assert list(validator.iter_errors({"ports": [1, "${P}"], "weights": {"a": 1, "b": "${W}"}})) == []
    paths = sorted(
        error.json_path for error in validator.iter_errors({"ports": ["1"], "weights": {"a": "1"}})
    )
    assert paths == ["$.ports[0]", "$.weights.a"]


def test_every_setting_is_described_and_shows_its_default() -> None:
    """The sentence below a field is what an editor shows; a default is written as in a file."""
    definitions = schema()["$defs"]
    assert isinstance(definitions, dict)
    undescribed = [
        f"{section}.{name}"
        for section, definition in definitions.items()
        for name, drawn in definition.get("properties", {}).items()
        if "description" not in drawn and name != "kind"
    ]
    assert undescribed == []
    listen = definitions["ListenSettings"]["properties"]
    assert listen["address"]["default"] == "127.0.0.1:8080"
    assert listen["allowed_hosts"]["default"] == ()
    assert listen["max_body_bytes"]["default"] == 4_194_304
    assert listen["path"]["description"] == "The one path that speaks MCP, compared exactly."
    assert definitions["UpstreamSettings"]["properties"]["headers"]["default"] == {}
    assert "default" not in definitions["UpstreamSettings"]["properties"]["url"]
    assert "default" not in definitions["Settings"]["properties"]["listen"]
