"""The whole settings: what is read, what spans two sections, and every mistake of a file at once."""

import os
import re
import subprocess
import sys
from pathlib import Path
from types import MappingProxyType

import pytest

from proxy.configuration.values import Address
from proxy.downstream.settings import ListenSettings
from proxy.identity.settings import AnonymousSettings, IdentitySettings
from proxy.lifecycle.settings import OperationsSettings
from proxy.secret import Secret
from proxy.settings import Settings, SettingsError, load
from proxy.telemetry.settings import TelemetrySettings
from proxy.upstream.settings import UpstreamSettings
from tests.unit.configuration.reading import mistakes, read, written

UPSTREAM = "version: 1\nupstream: {url: http://127.0.0.1:8000/mcp}\n"

FULL = """\
version: 1
refusals: http
listen: {address: 0.0.0.0:8080, path: /tools, allowed_hosts: [tools.example.com], allowed_origins: ["https://a.example"],
         max_body_bytes: 1000, max_structural_bytes: 300,
         head_timeout_s: 1, body_timeout_s: 2.5, write_idle_timeout_s: 3}
operations: {address: 0.0.0.0:9901}
upstream:
  url: http://127.0.0.1:8000/sse
  connect_timeout_s: 0.5
  headers: {Authorization: "Bearer ${file:SECRET}", X-Team: blue}
  forward_client_authorization: true
  max_answer_bytes: 5
  max_event_bytes: 6
identity:
  authenticators:
    - {kind: anonymous, tenant: acme, subject: robot, roles: [viewer, editor]}
drain_s: ${DRAIN}
memory_limit_bytes: 40000000
"""


def test_everything_that_is_written_is_read(tmp_path: Path) -> None:
    """design section 3: the names of the contract, each with a value of its own."""
    secret = tmp_path / "secret"
    secret.write_text("hunter2\n")
    settings = read(tmp_path, FULL.replace("SECRET", str(secret)), environ={"DRAIN": "7"})
    assert settings == Settings(
        version=1,
        refusals="http",
        listen=ListenSettings(
            address=Address("0.0.0.0", 8080),
            path="/tools",
            allowed_hosts=("tools.example.com",),
            allowed_origins=("https://a.example",),
            max_body_bytes=1000,
            max_structural_bytes=300,
            head_timeout_s=1.0,
            body_timeout_s=2.5,
            write_idle_timeout_s=3.0,
        ),
        operations=OperationsSettings(address=Address("0.0.0.0", 9901)),
        upstream=UpstreamSettings(
            url="http://127.0.0.1:8000/sse",
            transport="auto",
            connect_timeout_s=0.5,
            headers=MappingProxyType({"Authorization": Secret("Bearer hunter2"), "X-Team": Secret("blue")}),
            forward_client_authorization=True,
            max_answer_bytes=5,
            max_event_bytes=6,
        ),
        identity=IdentitySettings(
            authenticators=(AnonymousSettings(tenant="acme", subject="robot", roles=("viewer", "editor")),)
        ),
        drain_s=7.0,
        memory_limit_bytes=40_000_000,
    )
    assert "hunter2" not in repr(settings)


def test_defaults_are_those_of_the_contract(tmp_path: Path) -> None:
    """design section 3, "Defaults"."""
    assert read(tmp_path, UPSTREAM) == Settings(
        version=1,
        refusals="result",
        listen=ListenSettings(
            address=Address("127.0.0.1", 8080),
            path="/mcp",
            allowed_hosts=(),
            allowed_origins=(),
            max_body_bytes=4_194_304,
            max_structural_bytes=65_536,
            head_timeout_s=10.0,
            body_timeout_s=30.0,
            write_idle_timeout_s=30.0,
        ),
        operations=OperationsSettings(address=Address("127.0.0.1", 9901)),
        upstream=UpstreamSettings(
            url="http://127.0.0.1:8000/mcp",
            transport="auto",
            connect_timeout_s=1.0,
            headers=MappingProxyType({}),
            forward_client_authorization=False,
            hide_headers=(),
            max_answer_bytes=67_108_864,
            max_event_bytes=16_777_216,
        ),
        identity=IdentitySettings(authenticators=None),
        drain_s=25.0,
        telemetry=TelemetrySettings(log_level="info"),
        memory_limit_bytes=None,
    )


def test_json_is_read_where_yaml_is(tmp_path: Path) -> None:
    """design section 3: JSON is accepted wherever YAML is."""
    text = '{"version":1,"upstream":{"url":"http:\\/\\/127.0.0.1:8000\\/mcp"},\n\t"drain_s":5}'
    assert read(tmp_path, text) == read(tmp_path, UPSTREAM, overrides=["drain_s=5"])


def test_nothing_in_settings_can_be_changed(tmp_path: Path) -> None:
    """A reload swaps one whole value; a shared list would let one house change another."""
    settings = read(tmp_path, UPSTREAM + "listen: {allowed_hosts: [a.example]}\n")
    with pytest.raises(AttributeError):
        settings.drain_s = 1.0  # type: ignore[misc]  # frozen
    for section in (settings, settings.listen, settings.operations, settings.upstream, settings.identity):
        assert section.__struct_config__.frozen
    assert AnonymousSettings.__struct_config__.frozen
    assert isinstance(settings.listen.allowed_hosts, tuple)
    with pytest.raises(TypeError):
        settings.upstream.headers["a"] = Secret("b")  # type: ignore[index]  # a read-only view


@pytest.mark.parametrize(
    ("url", "transport", "is_http_sse"),
    [
        ("http://a/sse", "auto", True),
        ("http://a/x/sse?y", "auto", True),
        ("http://a/mcp", "auto", False),
        ("http://a/sse/mcp", "auto", False),
        ("http://sse", "auto", False),
        ("http://a/?x=/sse", "auto", False),
        ("http://a/sse", "streamable_http", False),
        ("http://a/mcp", "http_sse", True),
    ],
)
def test_the_transport_follows_from_the_path_unless_it_is_named(
    tmp_path: Path, url: str, transport: str, is_http_sse: bool
) -> None:
    """The 2024-11-05 servers' endpoint is called /sse by every SDK."""
    settings = read(tmp_path, f"version: 1\nupstream: {{url: '{url}', transport: {transport}}}\n")
    assert settings.upstream.is_http_sse is is_http_sse


TEN_MISTAKES = """\
version: 2
listen:
  adress: 127.0.0.1:8080
  path: mcp
  allowed_origins: ["https://ok.example", "*"]
  max_body_bytes: 4MiB
  head_timeout_s: 1:30
upstream:
  url: ${UPSTREAM_URL}
  headers: {Authorization: Bearer hunter2}
identity: {authenticators: []}
drain_s: 99999
drain_s: 5
"""

TEN_LINES = [
    "F:1:10: version: is no value for this, it must be 1, write 1, without quotes",
    'F:3:3: listen.adress: is not known, a misspelt key would change nothing, did you mean "address"?',
    "F:4:9: listen.path: is not a path, it must begin with /, write for example /mcp",
    "F:5:43: listen.allowed_origins[1]: is not an origin, * would let every web page in, "
    "write scheme://host or scheme://host:port, as browsers send it",
    "F:6:19: listen.max_body_bytes: is a text, a number is needed, write a number, without quotes",
    "F:7:19: listen.head_timeout_s: can be read two ways, "
    "unquoted it is a number in base 60 to YAML 1.1 readers and text to others, quote it",
    "F:9:8: upstream.url: refers to the variable UPSTREAM_URL, it is not set, "
    "set it, or write ${UPSTREAM_URL:-default}",
    "F:10:28: upstream.headers.Authorization: is a secret in clear, "
    "settings are copied, logged and kept in version control, write ${file:/path} or ${VAR}",
    "F:11:28: identity.authenticators: is an empty list where a choice is needed, nothing is chosen, "
    "list one, or leave the key out for the default",
    "F:12:10: drain_s: is out of bounds, it must be at least 0 and at most 3600 seconds, write less",
    "F:13:1: drain_s: is there twice, the first one is in line 12, keep one",
]


def test_all_mistakes_of_a_file_are_told_at_once(tmp_path: Path) -> None:
    """design section 3: file:line:column: path: what, why, remedy; all at once, in file order."""
    assert mistakes(tmp_path, TEN_MISTAKES) == TEN_LINES


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("", "F:1:1: has no value, null says nothing, begin with version: 1"),
        ("# only this\n", "F:1:1: has no value, null says nothing, begin with version: 1"),
        ("[]", "F:1:1: is a list, a section is needed, write key: value pairs"),
        ("upstream: {url: http://a/}\n", "F:1:1: version: is missing, it has no default, write version: 1"),
        ("version: 1\n", "F:1:1: upstream.url: is missing, it has no default, write url: …"),
        (
            "\n# why\nversion: 1\nupstream: {}\n",
            "F:4:1: upstream.url: is missing, it has no default, write url: …",
        ),
        (
            "version: '1'\nupstream: {url: http://a/}",
            "F:1:10: version: is no value for this, it must be 1, write 1, without quotes",
        ),
        (
            "version: 1.0\nupstream: {url: http://a/}",
            "F:1:10: version: is no value for this, it must be 1, write 1, without quotes",
        ),
        (
            "version: true\nupstream: {url: http://a/}",
            "F:1:10: version: is no value for this, it must be 1, write 1, without quotes",
        ),
        (
            UPSTREAM + "local_state: {file: /tmp/limits.json}\n",
            "F:3:14: local_state: has nothing to keep, nothing is counted without limits, write limits, or remove it",
        ),
        (
            UPSTREAM + "shared_state: {url: 'redis://127.0.0.1/0'}\nlocal_state: {file: /tmp/limits.json}\n"
            "limits: [{name: a, key: [tenant], quota: 1, window: day}]\n",
            "F:4:14: local_state: stands beside shared_state, what replicas share survives in their store, "
            "keep one of the two",
        ),
        # CFG-005: a typing error must not mean the default.
        (
            UPSTREAM + "limit: []\n",
            'F:3:1: limit: is not known, a misspelt key would change nothing, did you mean "limits"?',
        ),
        (
            UPSTREAM + "listen.address: x\n",
            'F:3:1: "listen.address": is not known, a misspelt key would change nothing, did you mean "listen"?',
        ),
        (
            UPSTREAM + "Listen: {}\n",
            'F:3:1: Listen: is not known, a misspelt key would change nothing, did you mean "listen"?',
        ),
        (
            UPSTREAM + "drain_s: -1\n",
            "F:3:10: drain_s: is out of bounds, it must be at least 0 and at most 3600 seconds, write more",
        ),
        (
            UPSTREAM + "listen: {head_timeout_s: 0}\n",
            "F:3:26: listen.head_timeout_s: is out of bounds, "
            "it must be more than 0 and at most 3600 seconds, write more",
        ),
        (
            UPSTREAM + "listen: {max_body_bytes: 1073741825}\n",
            "F:3:26: listen.max_body_bytes: is out of bounds, "
            "it must be at least 1 and at most 1073741824 bytes, write less",
        ),
        (
            UPSTREAM + "identity: {authenticators: ~}\n",
            "F:3:28: identity.authenticators: has no value, null says nothing, write one, or leave the key out",
        ),
        (
            UPSTREAM + "identity: {authenticators: [{kind: anonymous}]}\n",
            "F:3:29: identity.authenticators[0].tenant: is missing, it has no default, write tenant: …",
        ),
        (
            UPSTREAM + "identity: {authenticators: [{kind: anonymous, tenant: ' '}]}\n",
            "F:3:55: identity.authenticators[0].tenant: is blank, limits and records are kept by this name, "
            "give it a name",
        ),
        (
            UPSTREAM + 'identity: {authenticators: [{kind: anonymous, tenant: "a\\u202e"}]}\n',
            "F:3:55: identity.authenticators[0].tenant: is no name, "
            "spaces at its ends and control characters make look-alikes, remove them",
        ),
        (
            UPSTREAM + "identity: {authenticators: [{kind: anonymous, tenant: no}]}\n",
            "F:3:55: identity.authenticators[0].tenant: can be read two ways, "
            "unquoted it is a boolean to YAML 1.1 readers and text to others, quote it, or write true or false",
        ),
        (
            "version: 1\nupstream: {url: 'http://user:hunter2@a/'}\n",
            "F:2:17: upstream.url: is not an absolute URL, credentials in a URL end up in logs, "
            "put them into a header with ${file:…}",
        ),
    ],
)
def test_a_mistake_has_its_line_and_its_remedy(tmp_path: Path, text: str, mistake: str) -> None:
    """Own promise: nothing is refused without a place to look and a thing to do."""
    found = mistakes(tmp_path, text)
    assert [one.partition(": version, ")[0] for one in found] == [mistake]


@pytest.mark.parametrize(
    ("path", "outside", "inside"),
    [
        ("listen.max_body_bytes", ("0", "1073741825"), ("1", "1073741824")),
        ("listen.head_timeout_s", ("0", "3600.1"), ("0.001", "3600")),
        ("listen.body_timeout_s", ("0", "3600.1"), ("0.001", "3600")),
        ("listen.write_idle_timeout_s", ("0", "3600.1"), ("0.001", "3600")),
        ("upstream.connect_timeout_s", ("0", "300.1"), ("0.001", "300")),
        ("upstream.max_answer_bytes", ("0", "4294967297"), ("1", "4294967296")),
        ("upstream.max_event_bytes", ("0", "1073741825"), ("1", "1073741824")),
        ("drain_s", ("-0.001", "3600.1"), ("0", "3600")),
    ],
)
def test_every_number_has_bounds(
    tmp_path: Path, path: str, outside: tuple[str, str], inside: tuple[str, str]
) -> None:
    """Both ends of each are exact; nothing waits for ever or holds a gigabyte by a slip of the finger."""
    for number in outside:
        found = mistakes(tmp_path, UPSTREAM, overrides=[f"{path}={number}"])
        assert [one.partition(", ")[0] for one in found] == [f"--set {path}: {path}: is out of bounds"]
    for number in inside:
        assert mistakes(tmp_path, UPSTREAM, overrides=[f"{path}={number}"]) == []


@pytest.mark.parametrize(
    ("headers", "mistake"),
    [
        ("X Y: z", '3:13: upstream.headers."X Y": is no header name'),
        ("'': z", '3:13: upstream.headers."": is no header name'),
        ('"X\\r\\nY": z', '3:13: upstream.headers."X\\r\\nY": is no header name'),
        ("Höst: z", "3:13: upstream.headers.Höst: is no header name"),
        ("Host: z", "3:13: upstream.headers.Host: cannot be set"),
        ("content-LENGTH: '1'", "3:13: upstream.headers.content-LENGTH: cannot be set"),
        ("Transfer-Encoding: chunked", "3:13: upstream.headers.Transfer-Encoding: cannot be set"),
        ("Connection: close", "3:13: upstream.headers.Connection: cannot be set"),
        ("Keep-Alive: x", "3:13: upstream.headers.Keep-Alive: cannot be set"),
        ("TE: trailers", "3:13: upstream.headers.TE: cannot be set"),
        ("Proxy-Authorization: '${V}'", "3:13: upstream.headers.Proxy-Authorization: cannot be set"),
        ("Expect: 100-continue", "3:13: upstream.headers.Expect: cannot be set"),
        ("Mcp-Session-Id: x", "3:13: upstream.headers.Mcp-Session-Id: cannot be set"),
        ("MCP-Protocol-Version: x", "3:13: upstream.headers.MCP-Protocol-Version: cannot be set"),
        ('X-A: "a\\r\\nX-B: hunter2"', "3:18: upstream.headers.X-A: is no header value"),
        ('X-A: "a\\nb"', "3:18: upstream.headers.X-A: is no header value"),
        ('X-A: "a\\0b"', "3:18: upstream.headers.X-A: is no header value"),
        ("X-A: é", "3:18: upstream.headers.X-A: is no header value"),
        ("X-A: ' a'", "3:18: upstream.headers.X-A: is no header value"),
        ("X-A: '${LINES}'", "3:18: upstream.headers.X-A: is no header value"),
        ("X-A: a, x-a: b", "3:21: upstream.headers.x-a: is there twice"),
        ("X-A: 5", "3:18: upstream.headers.X-A: is no text"),
        ("X-A: [a]", "3:18: upstream.headers.X-A: is a list"),
        ("Authorization: Bearer hunter2", "3:28: upstream.headers.Authorization: is a secret in clear"),
        ("cookie: hunter2", "3:21: upstream.headers.cookie: is a secret in clear"),
        ("X-Api-Key: hunter2", "3:24: upstream.headers.X-Api-Key: is a secret in clear"),
        ("X-Api-Key: '${NO:-hunter2}'", "3:24: upstream.headers.X-Api-Key: is a secret in clear"),
        ("X-Api-Key: '$${NO}'", "3:24: upstream.headers.X-Api-Key: is a secret in clear"),
    ],
)
def test_a_header_cannot_break_a_message_or_show_a_secret(tmp_path: Path, headers: str, mistake: str) -> None:
    """RFC 9110 sections 5.1, 5.5 and 7.6.1; CFG-014: a secret in clear is refused and never printed."""
    text = f"version: 1\nupstream: {{url: http://a/,\n  headers: {{{headers}}}}}\n"
    found = mistakes(tmp_path, text, environ={"V": "hunter2", "LINES": "a\nhunter2"})
    assert [one.removeprefix("F:").partition(", ")[0] for one in found] == [mistake]
    assert "hunter2" not in found[0]


@pytest.mark.parametrize(
    ("hidden", "what"),
    [
        *((f"'{each}'", "is no header name") for each in ("", "X Y", "X-Ä", "X:", "?\u00a0")),
        *(
            (f"'{each}'", "cannot be hidden")
            for each in ("*", "Mcp-Session-Id", "mcp-session-id", "M*", "mcp-x")
        ),
        *(
            (f"'{each}'", "cannot be hidden")
            for each in ("Content-Type", "content-*", "*-type", "CONTENT-LENGTH")
        ),
        *(
            (f"'{each}'", "cannot be hidden")
            for each in ("WWW-Authenticate", "Retry-?fter", "*r*y-A*", "Allow")
        ),
        *((f"'{each}'", "cannot be hidden") for each in ("Mcp-Param-*", "Cache-Control", "Location", "*c*")),
        (f"'{'x' * 257}'", "is too long"),
        ("5", "is a number"),
    ],
)
def test_no_setting_hides_what_clients_need(tmp_path: Path, hidden: str, what: str) -> None:
    """UP-062: a pattern that fits too much is a mistake now, not a session that nobody can go on with."""
    text = f"version: 1\nupstream:\n  url: http://127.0.0.1:8000/mcp\n  hide_headers: [Server, {hidden}]\n"
    (mistake,) = mistakes(tmp_path, text)
    assert mistake.startswith(f"F:4:26: upstream.hide_headers[1]: {what}")


def test_what_a_hidden_header_would_take_away_is_said(tmp_path: Path) -> None:
    """A mistake names the thing, why, and the remedy."""
    text = UPSTREAM.replace("}", ", hide_headers: ['X-*', '*-Id']}")
    assert mistakes(tmp_path, text) == [
        "F:2:66: upstream.hide_headers[1]: cannot be hidden, clients need Mcp-Session-Id, which it fits, name less"
    ]
    fine = UPSTREAM.replace("}", ", hide_headers: [Server, 'X-*', 'x-?-b', Via, '*-pod']}")
    assert read(tmp_path, fine).upstream.hide_headers == ("Server", "X-*", "x-?-b", "Via", "*-pod")


def test_every_wrong_header_is_told(tmp_path: Path) -> None:
    """One bad name does not hide the next header's mistake."""
    found = mistakes(tmp_path, UPSTREAM.replace("}", ", headers: {Host: a, X-A: ' b', TE: c}}"))
    assert [one.partition(": is ")[0].partition(": cannot ")[0].partition(" ")[2] for one in found] == [
        "upstream.headers.Host",
        "upstream.headers.X-A",
        "upstream.headers.TE",
    ]


def test_headers_that_are_no_credentials_may_be_written(tmp_path: Path) -> None:
    """An ordinary header needs no file."""
    text = UPSTREAM.replace(
        "}", ", headers: {X-Team: blue, Accept-Language: 'en\\tde', Authorization: 'Bearer ${V}'}}"
    )
    headers = read(tmp_path, text, environ={"V": "hunter2"}).upstream.headers
    assert {name: value.reveal() for name, value in headers.items()} == {
        "X-Team": "blue",
        "Accept-Language": "en\\tde",
        "Authorization": "Bearer hunter2",
    }


@pytest.mark.parametrize(
    ("address", "identity", "is_refused"),
    [
        ("127.0.0.1:8080", "", False),
        ("localhost:8080", "", False),
        ("'[::1]:8080'", "", False),
        ("0.0.0.0:8080", "", True),
        ("'[::]:8080'", "", True),
        ("10.0.0.1:8080", "", True),
        ("tools.example.com:8080", "", True),
        ("0.0.0.0:8080", "identity: {}\n", True),
        ("0.0.0.0:8080", "identity: {authenticators: [{kind: anonymous, tenant: local}]}\n", False),
    ],
)
def test_nobody_is_let_in_from_outside_by_default(
    tmp_path: Path, address: str, identity: str, is_refused: bool
) -> None:
    """design section 2: a non-loopback data address without an authenticator is an error."""
    found = mistakes(tmp_path, f"{UPSTREAM}{identity}listen:\n  address: {address}\n")
    line = 4 + bool(identity)
    refused = (
        f"F:{line}:12: listen.address: can be reached from outside, and no authenticator is listed, "
        "everybody would be let in, list one in identity.authenticators, "
        "or say so there: [{kind: anonymous, tenant: local}]"
    )
    assert found == ([refused] if is_refused else [])


def test_who_is_let_in_is_checked_although_other_things_are_wrong(tmp_path: Path) -> None:
    """All at once: the sections around are broken, the two values that matter can be read."""
    found = mistakes(tmp_path, "version: 1\nlisten: {address: 0.0.0.0:1, path: x}\nidentity: {x: 1}\n")
    assert [one.partition(", ")[0] for one in found] == [
        "F:1:1: upstream.url: is missing",
        "F:2:19: listen.address: can be reached from outside",
        "F:2:36: listen.path: is not a path",
        "F:3:12: identity.x: is not known",
    ]


def test_the_refusal_of_an_override_names_the_override(tmp_path: Path) -> None:
    """`run --listen 0.0.0.0:8080`: the mistake is on the command line, not in the file."""
    found = mistakes(tmp_path, UPSTREAM, overrides=["listen.address=0.0.0.0:8080"])
    assert [one.partition(", ")[0] for one in found] == [
        "--set listen.address: listen.address: can be reached from outside"
    ]


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("listen: {address: 127.0.0.1:9901}\n", ["F:1:1: operations.address: is taken"]),
        ("operations: {address: localhost:8080}\n", ["F:3:23: operations.address: is taken"]),
        ("listen: {address: 127.0.0.1:8000}\n", ["F:2:17: upstream.url: points at this proxy"]),
        ("operations: {address: 0.0.0.0:8000}\n", ["F:2:17: upstream.url: points at this proxy"]),
        ("listen: {address: 127.0.0.1:0}\noperations: {address: 127.0.0.1:0}\n", []),
        ("listen: {address: 127.0.0.2:8000}\n", []),
    ],
)
def test_addresses_that_contradict_each_other_are_found(tmp_path: Path, text: str, places: list[str]) -> None:
    """Two listeners on one port cannot start; a proxy of itself would never end."""
    assert [one.partition(", ")[0] for one in mistakes(tmp_path, UPSTREAM + text)] == places


@pytest.mark.parametrize("kind", ["missing", "directory", "loop", "big", "fifo"])
def test_a_file_that_is_none_is_one_mistake(tmp_path: Path, kind: str) -> None:
    """CFG-017: clear, at once, and never read into memory."""
    file = tmp_path / "config.yaml"
    if kind == "directory":
        file.mkdir()
    elif kind == "loop":
        file.symlink_to(file)
    elif kind == "big":
        with file.open("wb") as sparse:
            sparse.truncate(1 << 30)
    elif kind == "fifo":
        os.mkfifo(file)
    with pytest.raises(SettingsError) as caught:
        load(file, environ={})
    reason = {
        "missing": "cannot be read, No such file or directory, check the path and its permissions",
        "directory": "is a directory, a file is needed, name the file in it",
        "loop": "cannot be read, Too many levels of symbolic links, check the path and its permissions",
        "big": "is too big, at most 1048576 bytes are read, is it the right file?",
        "fifo": "is no regular file, a device, FIFO or socket may never end, name a regular file",
    }
    assert str(caught.value) == f"{file}:1:1: {reason[kind]}"


KEYS = f"version: 1\npepper: {'A' * 22}\nkeys:\n- {{id: a, hash: 'hmac-sha256:{'0' * 64}', tenant: t, subject: s}}\n"


def api_keys(*fields: str) -> str:
    """Settings with an api_key authenticator for each."""
    listed = "".join(f"  - {{kind: api_key, {each}}}\n" for each in fields)
    return f"{UPSTREAM}identity:\n  authenticators:\n{listed}"


def test_a_keys_file_is_checked_with_the_settings(tmp_path: Path) -> None:
    """design section 3: every mistake at once, in the settings and in the files they name, each with its place."""
    good, bad, missing = (tmp_path / name for name in ("good", "bad", "missing"))
    good.write_text(KEYS, encoding="utf-8")
    bad.write_text(
        KEYS.replace("tenant: t", "tenant: '*'").replace("id: a", "id: hunter.2"), encoding="utf-8"
    )
    assert mistakes(tmp_path, api_keys(f"keys_file: {good}")) == []
    text = api_keys(
        f"keys_file: {missing}", f"header: X-B, keys_file: {bad}", f"header: X-C, keys_file: {bad}"
    )
    found = mistakes(tmp_path, "drain_s: -1\n" + text)
    assert [one.replace(str(tmp_path), "D") for one in found] == [
        "F:1:10: drain_s: is out of bounds, it must be at least 0 and at most 3600 seconds, write more",
        "F:6:32: identity.authenticators[0].keys_file: names a file that cannot be read, "
        "No such file or directory, check the path and its permissions",
        "D/bad:4:8: keys[0].id: is no id of a key, it may hold letters, digits, _ and - only, rename it",
        "D/bad:4:112: keys[0].tenant: is no tenant, * stands for everybody in rules and limits, give it a name",
    ]


def test_a_pepper_is_referred_to_as_in_the_settings(tmp_path: Path) -> None:
    """The environment that is given counts, not that of the process."""
    file = tmp_path / "keys"
    file.write_text(KEYS.replace("A" * 22, "${PEPPER}"), encoding="utf-8")
    text = api_keys(f"keys_file: {file}")
    assert mistakes(tmp_path, text, environ={"PEPPER": "A" * 22}) == []
    (found,) = mistakes(tmp_path, text)
    assert found.startswith(f"{file}:2:9: pepper: refers to the variable PEPPER, it is not set")


@pytest.mark.parametrize(
    ("second", "place"),
    [("header: x-api-KEY, ", "6:29"), ("", "6:5")],
)
def test_a_header_holds_the_keys_of_one_authenticator(tmp_path: Path, second: str, place: str) -> None:
    """Header names ignore case; the first of two would refuse every key of the second."""
    file = tmp_path / "keys"
    file.write_text(KEYS, encoding="utf-8")
    found = mistakes(tmp_path, api_keys(f"keys_file: {file}", f"{second}keys_file: {file}"))
    assert found == [
        f"F:{place}: identity.authenticators[1].header: is taken by another authenticator, "
        "nobody could tell whose keys stand in it, name another, or put all keys into one file"
    ]
    assert mistakes(tmp_path, api_keys(f"keys_file: {file}", f"header: X-B, keys_file: {file}")) == []


def test_a_start_imports_nothing_heavy() -> None:
    """Start-up time is a budget (design section 8): neither aiohttp nor asyncio nor YAML is loaded to say no."""
    program = (
        "import sys, proxy.settings as s\n"
        "s.load(None, overrides=['upstream.url=http://a/'], environ={})\n"
        "print(sorted({'aiohttp', 'asyncio', 'ssl', 'yaml', 'difflib'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout == "[]\n"


def test_the_shipped_example_is_valid() -> None:
    """policies/observe.yaml is what people copy first."""
    settings = load(Path(__file__).parents[2] / "policies" / "observe.yaml", environ={})
    assert settings.upstream.url == "http://127.0.0.1:8000/mcp"
    assert settings.identity == IdentitySettings(authenticators=(AnonymousSettings(tenant="local"),))


def test_the_comments_of_the_shipped_example_are_the_defaults(tmp_path: Path) -> None:
    """Whoever reads the example learns the defaults: uncommenting every one of them changes nothing."""
    text = (Path(__file__).parents[2] / "policies" / "observe.yaml").read_text(encoding="utf-8")
    plain = load(written(tmp_path, text), environ={})
    uncommented, settings = re.subn(r"^( *)#(?=[a-z])", r"\1", text, flags=re.MULTILINE)
    assert settings == 15
    assert read(tmp_path, uncommented) == plain


JWT = "{kind: jwt, issuer: https://a.example/, jwks_url: https://a.example/jwks}"


@pytest.mark.parametrize(
    ("identity", "expected"),
    [
        (f"{{authenticators: [{JWT}]}}", "authenticators[0]: has no resource to issue tokens for"),
        (
            f"{{resource: https://h/mcp, authenticators: [{JWT}, {JWT}]}}",
            "authenticators[1]: names an issuer twice",
        ),
        (
            "{authenticators: [{kind: anonymous, tenant: a}, {kind: anonymous, tenant: b}]}",
            "authenticators[1]: is anonymous twice",
        ),
        (
            "{resource: https://h/mcp, authenticators: [{kind: jwt, issuer: i, jwks_url: http://a.example/jwks}]}",
            "authenticators[0].jwks_url: is not https",
        ),
        (
            "{resource: https://h/mcp, authenticators: [{kind: jwt, issuer: i, jwks_url: http://127.0.0.1:1/j, "
            "algorithms: [HS256]}]}",
            "authenticators[0].algorithms[0]: is no value for this",
        ),
        (
            "{resource: https://h/mcp, authenticators: [{kind: introspection, url: https://a.example/i, "
            "client_id: c, client_secret: hunter2}]}",
            "authenticators[0].client_secret: is a secret in clear",
        ),
        (
            "{resource: https://h/mcp, authenticators: [{kind: introspection, url: https://a.example/i, client_id: c, "
            "client_secret: '${S}'}, {kind: introspection, url: https://b.example/i, client_id: c, "
            "client_secret: '${S}'}]}",
            "authenticators[1]: never has its turn",
        ),
        ("{authenticators: [{kind: anonymous, tenant: '*'}]}", "authenticators[0].tenant: is no tenant"),
        ("{authenticators: [{kind: api_key, keys_file: k, header: Cookie}]}", "header: cannot hold a key"),
        ("{authenticators: [{kind: api_key, keys_file: k, header: X_Key}]}", "header: has an underscore"),
        ("{authenticators: [{kind: mtls, tenant: t, spiffe: 'spiffe://*/a'}]}", "spiffe: is no SPIFFE ID"),
        ("{resource: 'https://h/mcp?a=b'}", "identity.resource: has a query"),
    ],
)
def test_whoever_cannot_be_told_apart_is_not_let_in(tmp_path: Path, identity: str, expected: str) -> None:
    """Issue 3: no shared secrets as signatures, no keys over plain http, one authenticator for each credential."""
    told = mistakes(tmp_path, f"{UPSTREAM}identity: {identity}\n", environ={"S": "s"})
    assert len(told) == 1
    assert expected in told[0]
    assert "hunter2" not in told[0]
