"""Which limits may be written, and what is said of those that may not: each with its place."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType

import pytest
from msgspec import Struct

from proxy.configuration.documents import document_of
from proxy.configuration.mistakes import SettingsError
from proxy.limits.settings import (
    Limits,
    LimitSettings,
    LocalStateSettings,
    Override,
    SharedState,
    SharedStateSettings,
    override_parts,
)
from proxy.limits.valkey_url import Place
from proxy.secret import Secret


class Document(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The sections of this room."""

    limits: Limits = ()
    shared_state: SharedState | None = None
    local_state: LocalStateSettings | None = None


def read(text: str) -> Document:
    return document_of(text.encode(), "c.yaml", Document, {})


def mistakes(text: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        read(text)
    return [str(each) for each in caught.value.mistakes]


def test_the_design_is_read() -> None:
    """Design 3, the example of the contract."""
    found = read(
        """
limits:
  - {name: tenant-rate, key: [tenant], rate_per_s: 10, burst: 20}
  - {name: user-tool, key: [tenant, subject, tool], tools: ["export_*"], rate_per_s: 0.1, burst: 1}
  - {name: daily, key: [tenant], quota: 10000, window: day, overrides: {acme: {quota: 500000}}}
  - {name: last-hour, key: [everyone], methods: ["resources/*"], quota: 5, sliding_s: 3600, report: true}
shared_state: {url: "redis://127.0.0.1:6379/0", on_outage: local, local_share: 0.5, timeout_s: 0.05}
local_state: {file: /var/lib/mcp-sidecar/limits.json, every_s: 5}
"""
    )
    assert found == Document(
        limits=(
            LimitSettings(name="tenant-rate", key=("tenant",), rate_per_s=10.0, burst=20),
            LimitSettings(
                name="user-tool",
                key=("tenant", "subject", "tool"),
                tools=("export_*",),
                rate_per_s=0.1,
                burst=1,
            ),
            LimitSettings(
                name="daily",
                key=("tenant",),
                quota=10_000,
                window="day",
                overrides=MappingProxyType({"acme": Override(quota=500_000)}),
            ),
            LimitSettings(
                name="last-hour",
                key=("everyone",),
                methods=("resources/*",),
                quota=5,
                sliding_s=3600.0,
                report=True,
            ),
        ),
        shared_state=SharedStateSettings(
            url="redis://127.0.0.1:6379/0", on_outage="local", local_share=0.5, timeout_s=0.05
        ),
        local_state=LocalStateSettings(file="/var/lib/mcp-sidecar/limits.json", every_s=5.0),
    )


RATE = "rate_per_s: 1, burst: 1"
DAY = "quota: 5, window: day"


@pytest.mark.parametrize(
    ("limit", "path", "what"),
    [
        ("rate_per_s: 1, burst: 1, quota: 5, window: day", ".quota", "is a rate and a quota"),
        ("report: true", "", "limits nothing"),
        ("burst: 5", "", "limits nothing"),
        ("rate_per_s: 1", "", "has no burst"),
        ("rate_per_s: 1, burst: 0", ".burst", "is out of bounds"),
        ("rate_per_s: -1, burst: 1", ".rate_per_s", "is out of bounds"),
        ("rate_per_s: 0.0000001, burst: 1", ".rate_per_s", "is too slow"),
        (f"{RATE}, window: day", ".window", "does not belong to a rate"),
        (f"{RATE}, timezone: UTC", ".timezone", "does not belong to a rate"),
        (f"{RATE}, sliding_s: 60", ".sliding_s", "does not belong to a rate"),
        (f"{RATE}, continuations: counted", ".continuations", "does not belong to a rate"),
        (f"{DAY}, burst: 5", ".burst", "does not belong to a quota"),
        ("quota: 5", "", "needs one window"),
        ("quota: 5, window: day, sliding_s: 60", "", "needs one window"),
        ("quota: 5, window: week", ".window", "is no value for this"),
        ("quota: 5, sliding_s: 0.5", ".sliding_s", "is out of bounds"),
        ("quota: 5, sliding_s: 60, timezone: UTC", ".timezone", "changes nothing"),
        ("quota: -1, window: day", ".quota", "is out of bounds"),
        ("quota: 1000000000001, window: day", ".quota", "is out of bounds"),
        ("quota: 1.5, window: day", ".quota", "is not a whole number"),
        (f"{DAY}, timezone: Europe/Atlantis", ".timezone", "is no time zone"),
        (f"{DAY}, timezone: Europe", ".timezone", "is no time zone"),
        (f"{DAY}, timezone: ../../etc/passwd", ".timezone", "is no time zone"),
        (f"{DAY}, timezone: /etc/localtime", ".timezone", "is no time zone"),
        (f'{DAY}, timezone: ""', ".timezone", "is no time zone"),
        (f"{RATE}, methods: [ping], tools: [a]", ".methods", "chooses by tools and by methods"),
        (f"{RATE}, methods: [ping], classes: [read]", ".methods", "chooses by tools and by methods"),
        (f'{RATE}, methods: ["tools / call"]', ".methods[0]", "is no method"),
        (f'{RATE}, tools: [""]', ".tools[0]", "matches nothing"),
        (f"{RATE}, classes: [mild]", ".classes[0]", "is no value for this"),
        (f"{RATE}, overrides: {{acme: {{quota: 5}}}}", ".overrides", "has an entry of another kind"),
        (f"{DAY}, overrides: {{acme: {{burst: 5}}}}", ".overrides", "has an entry of another kind"),
        (f"{DAY}, overrides: {{acme/ann: {{quota: 5}}}}", ".overrides", "has an entry with too many parts"),
        (f"{DAY}, overrides: {{acme: {{}}}}", ".overrides.acme", "changes nothing"),
        (
            f"{DAY}, overrides: {{acme: {{quota: 5}}, ACME: {{quota: 6}}}}",
            ".overrides.ACME",
            "names the same",
        ),
        (f'{DAY}, overrides: {{"": {{quota: 5}}}}', '.overrides.""', "has a blank part"),
        (
            f'{DAY}, overrides: {{"%41%": {{quota: 5}}}}',
            '.overrides."%41%"',
            "holds a % that escapes nothing",
        ),
        (f'{DAY}, overrides: {{"%ff": {{quota: 5}}}}', '.overrides."%ff"', "is no text"),
        (f"{RATE}, overrides: {{acme: {{burst: 0}}}}", ".overrides.acme.burst", "is out of bounds"),
        (f"{RATE}, cost: 5", ".cost", "is not known"),
    ],
)
def test_a_limit_that_is_none_is_refused_with_its_place(limit: str, path: str, what: str) -> None:
    """Issue 5, contract: every mistake at load, none at the first call."""
    (mistake,) = mistakes(f"limits:\n  - {{name: one, key: [tenant], {limit}}}\n")
    line, column, where, said = mistake.removeprefix("c.yaml:").split(":", 3)
    assert (int(line), where.strip()) == (2, f"limits[0]{path}")
    assert int(column) >= 5
    assert said.strip().startswith(what)


@pytest.mark.parametrize(
    ("key", "path", "what"),
    [
        ("[]", "", "is an empty list"),
        ("[tenant, tenant]", "[1]", "is there twice"),
        ("[tenant, everyone]", "[1]", "stands beside others"),
        ("[address]", "[0]", "is no value for this"),
        ("tenant", "", "is a"),
    ],
)
def test_a_key_names_whose_bucket_it_is(key: str, path: str, what: str) -> None:
    (mistake,) = mistakes(f"limits:\n  - {{name: one, key: {key}, {RATE}}}\n")
    assert f": limits[0].key{path}: {what}" in mistake


def test_everyone_has_no_overrides() -> None:
    (mistake,) = mistakes(
        f"limits:\n  - {{name: one, key: [everyone], {DAY}, overrides: {{a: {{quota: 1}}}}}}\n"
    )
    assert "limits[0].overrides: names nobody" in mistake


@pytest.mark.parametrize("name", ['""', '"a b"', '"a/b"', '"ä"', '"-a"', '"a\\"b"', f'"{"a" * 65}"'])
def test_names_of_limits_are_plain(name: str) -> None:
    """They stand in header fields, keys of stores and labels of metrics."""
    (mistake,) = mistakes(f"limits:\n  - {{name: {name}, key: [tenant], {RATE}}}\n")
    assert ": limits[0].name: " in mistake


def test_two_limits_of_one_name_are_refused() -> None:
    one = f"  - {{name: one, key: [tenant], {RATE}}}\n"
    (mistake,) = mistakes(f"limits:\n{one}{one}")
    assert mistake.startswith("c.yaml:3:5: limits[1]: has the name of another")


def test_nobody_writes_more_limits_than_a_call_can_ask() -> None:
    limits = "".join(f"  - {{name: n{number}, key: [tenant], {RATE}}}\n" for number in range(101))
    (mistake,) = mistakes(f"limits:\n{limits}")
    assert "limits: are too many" in mistake


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("acme", ("acme",)),
        (" ACME /Ann", ("acme", "ann")),
        ("https:%2F%2Fidp.test%2F/ann%25", ("https://idp.test/", "ann%")),
        ("ＡＣＭＥ", ("acme",)),
        ("%C3%84", ("ä",)),
    ],
)
def test_names_of_overrides_are_values_of_the_key(name: str, parts: tuple[str, ...]) -> None:
    assert override_parts(name) == parts


@pytest.mark.parametrize(
    ("store", "what"),
    [
        ("url: http://127.0.0.1", "url: cannot be used"),
        ("url: redis://", "url: is no URL of a store"),
        ("url: redis://127.0.0.1:0", "url: is no URL of a store"),
        ("url: redis://127.0.0.1:6379/zero", "url: cannot be used"),
        ("url: redis://127.0.0.1:6379/0?protocol=3", "url: cannot be used"),
        ("url: redis://user:hunter2@127.0.0.1", "url: holds a user or a password"),
        ("url: redis://127.0.0.1, username: us", "username: has no password"),
        ("url: redis://127.0.0.1, ca_file: ca.pem", "ca_file: is never read"),
        ("url: redis://127.0.0.1, local_share: 0", "local_share: is out of bounds"),
        ("url: redis://127.0.0.1, local_share: 1.5", "local_share: is out of bounds"),
        ("url: redis://127.0.0.1, timeout_s: 0", "timeout_s: is out of bounds"),
        ("url: redis://127.0.0.1, on_outage: open", "on_outage: is no value for this"),
        ('url: redis://127.0.0.1, namespace: "{a}"', "namespace: is no namespace"),
        ("on_outage: closed", "url: is missing"),
    ],
)
def test_a_store_that_is_none_is_refused(store: str, what: str) -> None:
    (mistake,) = mistakes(f"shared_state: {{{store}}}\n")
    assert f": shared_state.{what}" in mistake
    assert "hunter2" not in mistake


def test_the_password_of_a_store_is_referred_to_and_never_shown(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("hunter2")
    found = read(
        f'shared_state: {{url: "rediss://cache.test", username: us, password: "${{file:{file}}}"}}\n'
    )
    assert found.shared_state is not None
    assert found.shared_state.place == Place(
        host="cache.test", user="us", password=Secret("hunter2"), is_encrypted=True
    )
    assert read('shared_state: {url: "redis://cache.test:1/7"}').shared_state == SharedStateSettings(
        url="redis://cache.test:1/7"
    )
    assert SharedStateSettings(url="redis://cache.test:1/7").place == Place(
        host="cache.test", port=1, database=7
    )
    assert "hunter2" not in repr(found)
    (mistake,) = mistakes('shared_state: {url: "rediss://cache.test", password: hunter2}\n')
    assert "shared_state.password: " in mistake
    assert "hunter2" not in mistake


@pytest.mark.parametrize("state", ['file: ""', "file: /var/lib/", "file: a, every_s: 0", "every_s: 5"])
def test_a_file_that_is_none_is_refused(state: str) -> None:
    (mistake,) = mistakes(f"local_state: {{{state}}}\n")
    assert ": local_state." in mistake
