"""`check` and `schema` as functions: exit codes and lines."""

import io
import json
from pathlib import Path

from proxy.check import check, print_schema
from tests.unit.configuration.reading import written
from tests.unit.test_settings import TEN_LINES, TEN_MISTAKES, UPSTREAM


def test_every_mistake_is_printed_and_the_code_is_2(tmp_path: Path) -> None:
    """design section 2: 2 is a bad configuration."""
    out = io.StringIO()
    file = written(tmp_path, TEN_MISTAKES)
    assert check(file, [], {}, out) == 2
    assert out.getvalue().replace(str(file), "F").splitlines() == TEN_LINES


def test_a_good_file_is_ok_and_says_who_is_let_in(tmp_path: Path) -> None:
    """An operator learns what the defaults mean."""
    out = io.StringIO()
    file = written(tmp_path, UPSTREAM)
    assert check(file, [], {}, out) == 0
    assert out.getvalue().splitlines() == [
        f"{file}: ok",
        "  data port 127.0.0.1:8080/mcp: loopback only",
        "  identity: everybody is anonymous in tenant local",
        "  operations port 127.0.0.1:9901: loopback only",
    ]


def test_what_can_be_reached_from_outside_is_said() -> None:
    """Without a file, with overrides alone."""
    out = io.StringIO()
    overrides = [
        "upstream.url=http://127.0.0.1:8000/mcp",
        "listen.address=0.0.0.0:8080",
        "identity.authenticators=[{kind: anonymous, tenant: acme}]",
        "upstream.forward_client_authorization=true",
    ]
    assert check(None, overrides, {"MCP_SIDECAR_OPERATIONS__ADDRESS": "0.0.0.0:9901"}, out) == 0
    assert out.getvalue().splitlines() == [
        "no settings file: ok",
        "  data port 0.0.0.0:8080/mcp: reachable from outside",
        "  identity: everybody is anonymous in tenant acme",
        "  operations port 0.0.0.0:9901: reachable from outside",
        "  upstream: the clients' Authorization header is forwarded",
        "  upstream: without identity.resource the server's own OAuth names an address clients may not reach",
    ]


def test_a_terminal_without_the_letters_still_shows_the_mistake(tmp_path: Path) -> None:
    """A mistake in a key `ключ` must not end in a UnicodeEncodeError."""
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="ascii")
    assert check(written(tmp_path, UPSTREAM + "ключ: 1\n"), [], {}, out) == 2
    out.flush()
    assert b":3:1: \\u043a\\u043b\\u044e\\u0447: is not known" in raw.getvalue()


def test_the_schema_is_printed_as_json() -> None:
    """For an editor's settings file."""
    out = io.StringIO()
    assert print_schema(out) == 0
    assert json.loads(out.getvalue())["title"] == "mcp-sidecar settings"
    assert out.getvalue().endswith("}\n")


def test_the_files_of_tls_are_looked_at(tmp_path: Path) -> None:
    """What a start would fail with, `check` says before it."""
    out = io.StringIO()
    tls = f"{{certificate_file: {tmp_path}/none.crt, key_file: {tmp_path}/none.key}}"
    file = written(tmp_path, f"{UPSTREAM}listen: {{tls: {tls}}}\n")
    assert check(file, [], {}, out) == 2
    [line] = out.getvalue().splitlines()
    assert line.startswith(f"{file}: listen.tls.certificate_file: ")
    assert "cannot be read" in line
