"""Any bytes, variables and overrides become Settings or SettingsError, nothing else, and no value is shown."""

import tempfile
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy.settings import Settings, SettingsError, load
from tests.fuzz.bounded import examples

MARK = "s3cr3t"
NAMES = (
    *(
        "version",
        "refusals",
        "listen",
        "operations",
        "upstream",
        "identity",
        "drain_s",
        "address",
        "path",
        "url",
    ),
    *(
        "headers",
        "authenticators",
        "kind",
        "tenant",
        "roles",
        "allowed_hosts",
        "allowed_origins",
        "max_body_bytes",
    ),
    *("Authorization", "X-Team", "no", "<<", "8080", "a.b", ""),
)
VALUES = (
    *(
        "1",
        "http",
        "anonymous",
        "http://127.0.0.1:8000/mcp",
        "0.0.0.0:8080",
        "127.0.0.1:0",
        "/mcp",
        "true",
        "~",
        "no",
    ),
    *(
        "012",
        "1:30",
        ".nan",
        "1e999",
        "[::1]:1",
        "${V}",
        "${NO}",
        "${NO:-1}",
        "${file:/no}",
        "$${V}",
        "${",
        "*a",
    ),
    *("&a x", "!!str x", "'x", '"\\x00"', "|\n  x", "- x", "https://a.example", "9" * 50, "\ud7ff", "\u2028"),
)

scalars = st.sampled_from(VALUES) | st.text(max_size=8)
flow = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: "[" + ", ".join(items) + "]")
        | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4).map(
            lambda pairs: "{" + ", ".join(f"{key}: {value}" for key, value in pairs.items()) + "}"
        )
    ),
    max_leaves=12,
)
documents = st.lists(st.tuples(st.sampled_from(NAMES), flow), max_size=6).map(
    lambda pairs: "".join(f"{key}: {value}\n" for key, value in pairs).encode()
)
whole = flow.map(lambda text: ("{version: 1, upstream: {url: http://a/}, " + text.removeprefix("{")).encode())
overrides = st.lists(
    st.tuples(st.sampled_from(NAMES), st.sampled_from(NAMES), flow).map(
        lambda one: f"{one[0]}.{one[1]}={one[2]}"
    )
    | st.tuples(st.sampled_from(NAMES), flow).map("=".join)
    | st.text(max_size=20),
    max_size=3,
)
environs = st.dictionaries(
    st.sampled_from(
        ("MCP_SIDECAR_DRAIN_S", "MCP_SIDECAR_LISTEN__PATH", "MCP_SIDECAR_UPSTREAM__URL", "MCP_SIDECAR_", "V")
    ),
    flow | st.just(MARK),
)


@given(
    data=st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode()) | documents | whole,
    overrides=overrides,
    environ=environs,
)
@example(data=b"[" * 5000, overrides=[], environ={})
@example(
    data=b"version: 1\nupstream: {url: '${V}', headers: {Authorization: '${V}\\n'}}",
    overrides=[],
    environ={"V": MARK},
)
@example(
    data=b"",
    overrides=["upstream.headers.=x", "upstream.headers=", "=", "listen.", ".", "identity.authenticators"],
    environ={},
)
@settings(max_examples=examples(400), deadline=None)
def test_any_bytes_become_settings_or_mistakes(
    data: bytes, overrides: list[str], environ: dict[str, str]
) -> None:
    """Own promise; every mistake is one line with a place."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.yaml"
        file.write_bytes(data)
        result: Settings | SettingsError
        try:
            result = load(file, overrides=overrides, environ=environ)
        except SettingsError as error:
            result = error
    if isinstance(result, Settings):
        return
    assert result.mistakes
    for mistake in result.mistakes:
        line = str(mistake)
        assert line.isprintable()
        assert MARK not in line
        assert mistake.line is None or (mistake.line > 0 and mistake.column)
        assert mistake.what
        assert mistake.why
        assert mistake.remedy
