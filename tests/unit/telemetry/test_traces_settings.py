"""The `telemetry.traces` section: defaults, and every mistake with a remedy."""

import importlib.util
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from proxy.settings import SettingsError, load
from proxy.telemetry.traces_settings import TracesSettings


def traces(*overrides: str) -> TracesSettings | None:
    words = [f"telemetry.traces.{each}" for each in overrides]
    return load(None, overrides=["upstream.url=http://127.0.0.1:9/mcp", *words], environ={}).telemetry.traces


def mistake(*overrides: str) -> str:
    with pytest.raises(SettingsError) as caught:
        traces(*overrides)
    (only,) = caught.value.mistakes
    return str(only)


def test_traces_are_off_unless_asked_for() -> None:
    """Issue 8: absent means off; a section is on, with a share of 5 %."""
    assert traces() is None
    on = traces("exporter=none")
    assert on is not None
    assert (on.sample, on.inject_meta, on.trust_parent, on.service_name) == (
        0.05,
        False,
        False,
        "mcp-sidecar",
    )


@pytest.mark.parametrize(
    ("overrides", "where", "what"),
    [
        (("sample=1.5",), "sample", ""),
        (("sample=-0.1",), "sample", ""),
        (("exporter=jaeger",), "exporter", ""),
        (("endpoint=collector:4318",), "endpoint", ""),
        (("endpoint=http://user:pw@collector:4318",), "endpoint", ""),
        (("headers.Host=x",), "headers", "frames the message"),
        (("headers.x y=x",), "headers", "is no header name"),
        (("exporter=none", "endpoint=http://c:4318"), "endpoint", "is never used"),
        (("exporter=console", "headers.x-scope=a"), "headers", "is never used"),
        (("ca_file=/ca.pem",), "ca_file", "is never read"),
        (("service_name=",), "service_name", "is no name"),
        (("inject_metas=true",), "inject_metas", ""),
    ],
)
def test_mistakes_are_told(overrides: tuple[str, ...], where: str, what: str) -> None:
    """Design section 3: unknown keys, impossible values, and what would have no effect."""
    text = mistake(*overrides)
    assert f"telemetry.traces.{where}" in text
    assert what in text


def test_a_value_of_a_header_is_never_shown(tmp_path: Path) -> None:
    """Design section 4: keys are secrets, also where they are mistakes."""
    file = tmp_path / "key"
    file.write_text("hush\x01hush")
    text = mistake(f"headers.x-key=${{file:{file}}}")
    assert "is no header value" in text
    assert "hush" not in text


def test_a_missing_extra_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Issue 8: OTLP is an extra; without it this is a mistake of the settings and not a failure later."""
    there = importlib.util.find_spec

    def find_spec(name: str, package: str | None = None) -> ModuleSpec | None:
        if name.startswith("opentelemetry.exporter"):
            raise ModuleNotFoundError(name)
        return there(name, package)

    monkeypatch.setattr("proxy.telemetry.traces_settings.find_spec", find_spec)
    assert "mcp-sidecar[otlp]" in mistake("exporter=otlp")
    assert traces("exporter=none") is not None
