"""The environment and `--set`: which names they know, which wins, and what their mistakes say."""

import re
from pathlib import Path

import pytest

from proxy.configuration.values import Address
from proxy.identity.settings import AnonymousSettings
from proxy.secret import Secret
from proxy.settings import load
from tests.unit.configuration.reading import mistakes, read

FILE = """\
version: 1
upstream: {url: http://127.0.0.1:8000/mcp}
drain_s: 1
listen: {path: /file}
"""


def without_list(mistake: str) -> str:
    """A new setting must not change these tests: the list of all names is cut off."""
    return re.sub("known here: .*", "known here", mistake)


def test_the_environment_wins_over_the_file_and_set_over_both(tmp_path: Path) -> None:
    """Own promise: file, then environment, then --set; the last --set wins."""
    environ = {"MCP_SIDECAR_DRAIN_S": "2", "MCP_SIDECAR_LISTEN__PATH": "/environment"}
    assert read(tmp_path, FILE).drain_s == 1.0
    assert read(tmp_path, FILE, environ=environ).drain_s == 2.0
    settings = read(tmp_path, FILE, environ=environ, overrides=["drain_s=3", "drain_s=4"])
    assert (settings.drain_s, settings.listen.path) == (4.0, "/environment")


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("refusals=http", "refusals", "http"),
        ("drain_s=0.5", "drain_s", 0.5),
        ("listen.address=[::1]:0", "listen.address", Address("::1", 0)),
        ("listen.path=/a=b", "listen.path", "/a=b"),
        ("listen.path=${P}", "listen.path", "/p"),
        ("listen.allowed_hosts=[a.example, '::1']", "listen.allowed_hosts", ("a.example", "::1")),
        ('listen.allowed_origins=["https://a.example"]', "listen.allowed_origins", ("https://a.example",)),
        ("listen.allowed_origins=[]", "listen.allowed_origins", ()),
        ("upstream.forward_client_authorization=true", "upstream.forward_client_authorization", True),
        ("upstream.headers={X-Team: blue}", "upstream.headers", {"X-Team": Secret("blue")}),
        ("upstream.headers.X.Y=blue", "upstream.headers", {"X.Y": Secret("blue")}),
        (
            "upstream.headers.Authorization=Bearer ${P}",
            "upstream.headers",
            {"Authorization": Secret("Bearer /p")},
        ),
        (
            "identity.authenticators=[{kind: anonymous, tenant: t}]",
            "identity.authenticators",
            (AnonymousSettings(tenant="t"),),
        ),
        (
            'identity={"authenticators": [{"kind": "anonymous", "tenant": "t"}]}',
            "identity.authenticators.0.tenant",
            "t",
        ),
    ],
)
def test_set_reaches_every_setting(tmp_path: Path, override: str, path: str, value: object) -> None:
    """A single value is taken as it stands, a list or mapping in one line of YAML or JSON."""
    found: object = read(tmp_path, FILE, overrides=[override], environ={"P": "/p"})
    for step in path.split("."):
        found = found[int(step)] if isinstance(found, tuple) else getattr(found, step)
    assert found == value


@pytest.mark.parametrize(
    ("override", "mistake"),
    [
        ("drain_s", "--set drain_s: has no value, an override is path=value, write for example drain_s=10"),
        ("", "--set : has no value, an override is path=value, write for example drain_s=10"),
        # Where = was forgotten, what follows may be a value: it is not shown.
        (
            "upstream.headers.Authorization:hunter2",
            "--set upstream.headers.Authorization: has no value, an override is path=value, "
            "write for example drain_s=10",
        ),
        (
            "=hunter2",
            '--set : "": is not known, a misspelt key would change nothing, known here',
        ),
        (
            "drains=hunter2",
            '--set drains: drains: is not known, a misspelt key would change nothing, did you mean "drain_s"?',
        ),
        (
            "listen.adress=hunter2",
            "--set listen.adress: listen.adress: is not known, a misspelt key would change nothing, "
            'did you mean "address"?',
        ),
        (
            "drain_s.x=hunter2",
            "--set drain_s.x: drain_s: has no parts with names, the path goes on, set it as a whole",
        ),
        (
            "identity.authenticators.0.tenant=hunter2",
            "--set identity.authenticators.0.tenant: identity.authenticators: has no parts with names, "
            "the path goes on, set it as a whole",
        ),
        (
            "drain_s=hunter2",
            "--set drain_s: drain_s: is a text, a number is needed, write a number, without quotes",
        ),
        (
            "drain_s=012",
            "--set drain_s: drain_s: can be read two ways, it is octal to YAML 1.1 readers and decimal to others, "
            "write true, false or a decimal number",
        ),
        (
            "drain_s=",
            "--set drain_s: drain_s: is empty, a value is needed, write true, false or a decimal number",
        ),
        (
            "listen.allowed_hosts=hunter2",
            "--set listen.allowed_hosts: listen.allowed_hosts: is a single value, a list is needed, "
            "write [one, two]",
        ),
        (
            "listen.allowed_hosts=[hunter2",
            "--set listen.allowed_hosts: listen.allowed_hosts[1]: is broken YAML "
            "(did not find expected ',' or ']'), while parsing a flow sequence that begins in line 1, "
            "close, indent or quote it",
        ),
        (
            "listen.allowed_hosts=[no]",
            "--set listen.allowed_hosts: listen.allowed_hosts[0]: can be read two ways, "
            "unquoted it is a boolean to YAML 1.1 readers and text to others, quote it, or write true or false",
        ),
        (
            "upstream.headers.Authorization=hunter2",
            "--set upstream.headers.Authorization: upstream.headers.Authorization: is a secret in clear, "
            "settings are copied, logged and kept in version control, write ${file:/path} or ${VAR}",
        ),
        (
            "upstream={}",
            "--set upstream: upstream.url: is missing, it has no default, give it with --set upstream.url=…",
        ),
    ],
)
def test_a_wrong_set_is_one_mistake_that_names_the_path_only(
    tmp_path: Path, override: str, mistake: str
) -> None:
    """Own promise: positions print as `--set path`; the value of an override is never shown."""
    assert [without_list(one) for one in mistakes(tmp_path, FILE, overrides=[override])] == [mistake]


@pytest.mark.parametrize(
    ("name", "value", "mistake"),
    [
        (
            "MCP_SIDECAR_LISTEN__ADRESS",
            "hunter2",
            "environment MCP_SIDECAR_LISTEN__ADRESS: is no setting, a misspelt name would change nothing, "
            'did you mean "MCP_SIDECAR_LISTEN__ADDRESS"?',
        ),
        (
            "MCP_SIDECAR_LISTEN_ADDRESS",
            "hunter2",
            "environment MCP_SIDECAR_LISTEN_ADDRESS: is no setting, a misspelt name would change nothing, "
            'did you mean "MCP_SIDECAR_LISTEN__ADDRESS"?',
        ),
        (
            "MCP_SIDECAR_LISTEN__ADDRESS",
            "hunter2",
            "environment MCP_SIDECAR_LISTEN__ADDRESS: listen.address: is not HOST:PORT, the port is missing, "
            "write for example 127.0.0.1:8080 or [::1]:8080",
        ),
        (
            "MCP_SIDECAR_LISTEN__ALLOWED_HOSTS",
            "hunter2",
            "environment MCP_SIDECAR_LISTEN__ALLOWED_HOSTS: listen.allowed_hosts: is not a single value, "
            "a variable holds one text, set it in the file, or with --set",
        ),
        (
            "MCP_SIDECAR_UPSTREAM__HEADERS",
            "hunter2",
            "environment MCP_SIDECAR_UPSTREAM__HEADERS: upstream.headers: is not a single value, "
            "a variable holds one text, set it in the file, or with --set",
        ),
        (
            "MCP_SIDECAR_DRAIN_S",
            "no",
            "environment MCP_SIDECAR_DRAIN_S: drain_s: can be read two ways, it is a boolean to YAML 1.1 readers "
            "and text to others, write true, false or a decimal number",
        ),
        (
            "MCP_SIDECAR_PORT",
            "8080",
            "environment MCP_SIDECAR_PORT: is no setting, a misspelt name would change nothing, known here",
        ),
        (
            "MCP_SIDECAR_LISTEN__PATH",
            "/caf\udce9",
            "environment MCP_SIDECAR_LISTEN__PATH: listen.path: is not UTF-8, "
            "a variable or an argument holds other bytes, set it to text",
        ),
    ],
)
def test_a_wrong_variable_is_one_mistake_that_names_it(
    tmp_path: Path, name: str, value: str, mistake: str
) -> None:
    """Own promise: an unknown MCP_SIDECAR_… name is a mistake; what a variable holds is never shown."""
    assert [without_list(one) for one in mistakes(tmp_path, FILE, environ={name: value})] == [mistake]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MCP_SIDECAR_SERVICE_HOST", "10.0.0.1"),
        ("MCP_SIDECAR_SERVICE_PORT", "8080"),
        ("MCP_SIDECAR_SERVICE_PORT_HTTP", "8080"),
        ("MCP_SIDECAR_PORT", "tcp://10.0.0.1:8080"),
        ("MCP_SIDECAR_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
        ("MCP_SIDECAR_PORT_8080_TCP_PROTO", "tcp"),
        ("MCP_SIDECAR_PORT_8080_TCP_PORT", "8080"),
        ("MCP_SIDECAR_PORT_8080_TCP_ADDR", "10.0.0.1"),
        ("MCP_SIDECAR_ADMIN_SERVICE_HOST", "10.0.0.1"),
        ("MCP_SIDECAR_ADMIN_PORT", "tcp://10.0.0.1:9902"),
        ("MCP_SIDECAR_ADMIN_PORT_9902_TCP_ADDR", "10.0.0.1"),
        ("MCP_SIDECARS", "x"),
        ("mcp_sidecar_drain_s", "x"),
        ("PATH", "/bin"),
    ],
)
def test_what_kubernetes_writes_for_a_service_of_our_name_is_no_mistake(
    tmp_path: Path, name: str, value: str
) -> None:
    """A Service called mcp-sidecar would otherwise keep every sidecar of its namespace from starting."""
    assert mistakes(tmp_path, FILE, environ={name: value}) == []


def test_a_variable_of_somebody_else_does_not_hide_ours(tmp_path: Path) -> None:
    """In whichever order their names sort."""
    environ = {"A": "x", "MCP_SIDECAR_ADMIN_SERVICE_HOST": "10.0.0.1", "MCP_SIDECAR_DRAIN_S": "7", "Z": "x"}
    assert read(tmp_path, FILE, environ=environ).drain_s == 7.0


def test_all_wrong_overrides_are_told(tmp_path: Path) -> None:
    """One that cannot be read does not hide the next."""
    found = mistakes(tmp_path, FILE, overrides=["drain_s", "drains=1", "listen.path=x"])
    assert [one.partition(": ")[0] for one in found] == ["--set drain_s", "--set drains", "--set listen.path"]


def test_an_override_takes_the_place_of_a_value_that_cannot_be_read(tmp_path: Path) -> None:
    """`run --upstream URL` works with a file whose url refers to a variable that is not set."""
    file = FILE.replace("http://127.0.0.1:8000/mcp", '"${UPSTREAM}"')
    assert len(mistakes(tmp_path, file)) == 1
    assert read(tmp_path, file, overrides=["upstream.url=http://a/mcp"]).upstream.url == "http://a/mcp"


def test_an_override_does_not_hide_what_is_wrong_around_it(tmp_path: Path) -> None:
    """A list where a section is needed stays a mistake, although one field of the section is set."""
    assert mistakes(tmp_path, "version: 1\nupstream: [x]\n", overrides=["upstream.url=http://a/"]) == [
        "F:2:11: upstream: is a list, a section is needed, write key: value pairs"
    ]


def test_overrides_of_a_file_that_cannot_be_read_are_checked_too(tmp_path: Path) -> None:
    """All mistakes at once, also when the first one ends the reading of the file."""
    found = mistakes(tmp_path, "a: [", overrides=["drains=1"], environ={"MCP_SIDECAR_X": "1"})
    assert [one.partition(": ")[0] for one in found] == ["F:2:1", "environment MCP_SIDECAR_X", "--set drains"]


def test_overrides_alone_are_enough() -> None:
    """design section 2: `run --upstream URL` with nothing else works."""
    settings = load(None, overrides=["upstream.url=http://127.0.0.1:8000/mcp"], environ={})
    assert (settings.version, settings.listen.address, settings.identity.authenticators) == (
        1,
        Address("127.0.0.1", 8080),
        None,
    )
    assert load(None, environ={"MCP_SIDECAR_UPSTREAM__URL": "http://a/"}).upstream.url == "http://a/"
