"""What ends, who may write it, and whose clock is wrong: files and moments in, findings out."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from proxy.doctor.asking import Clocks
from proxy.doctor.trust import SOON_S, certificates, clock, keys
from proxy.identity.settings import ApiKeySettings
from proxy.settings import Settings, load
from tests.integration.tls import Pki

DAY_S = 86_400.0
KEY = '  - {{id: {name}, hash: "hmac-sha256:{hash}", tenant: acme, subject: bot{rest}}}\n'


def keys_file(folder: Path, **expires: str | None) -> Path:
    """A file with these keys; a date, or None for one that never ends."""
    file = folder / "keys.yaml"
    entries = [
        KEY.format(name=name, hash="0" * 64, rest="" if end is None else f', expires: "{end}"')
        for name, end in expires.items()
    ]
    text = f"version: 1\npepper: {'A' * 43}\nkeys:{' []' if not entries else ''}\n{''.join(entries)}"
    file.write_text(text, encoding="utf-8")
    file.chmod(0o600)
    return file


NOW = datetime.datetime(2027, 6, 30, tzinfo=datetime.UTC).timestamp()


def found(file: Path) -> list[tuple[str, str]]:
    said = keys(ApiKeySettings(keys_file=str(file)), NOW)
    return [(each.level, each.says.removeprefix(str(file)).strip(" :")) for each in said]


def test_keys_that_end_are_told_by_their_ids(tmp_path: Path) -> None:
    """Issue 9, 3. At the very moment a key has ended."""
    file = keys_file(tmp_path, old="2027-06-30", soon="2027-07-14", late="2027-07-15", ever=None)
    assert found(file) == [
        ("warn", "ended: old"),
        ("warn", "end within two weeks: soon"),
        ("ok", "3 keys"),
    ]


def test_a_file_without_a_key_that_counts_lets_nobody_in(tmp_path: Path) -> None:
    assert found(keys_file(tmp_path)) == [("fail", "holds no key that counts")]
    assert found(keys_file(tmp_path, old="2020-01-01"))[-1] == ("fail", "holds no key that counts")


def test_a_file_that_everybody_writes_lets_everybody_in(tmp_path: Path) -> None:
    file = keys_file(tmp_path, ever=None)
    file.chmod(0o666)
    assert found(file)[0] == ("fail", "can be written by everybody, who can let themselves in")


@pytest.mark.parametrize(
    "content", ["", "version: 1\n", "\x00", "version: 1\npepper: secretsecret\nkeys: 7\n"]
)
def test_a_file_that_is_no_keys_file_is_a_failure(tmp_path: Path, content: str) -> None:
    """And nothing of what stands in it is told."""
    file = tmp_path / "keys.yaml"
    file.write_text(content, encoding="utf-8")
    (one,) = keys(ApiKeySettings(keys_file=str(file)), NOW)
    assert one.level == "fail"
    assert "secretsecret" not in one.says + one.remedy


def settings(*overrides: str) -> Settings:
    return load(None, overrides=["upstream.url=http://127.0.0.1:1/mcp", *overrides], environ={})


def tls(folder: Path) -> tuple[Pki, Settings]:
    pki = Pki(folder)
    pki.key.chmod(0o600)
    return pki, settings(*pki.overrides(mutual=True))


def test_certificates_are_judged_by_the_day(tmp_path: Path) -> None:
    """Before it begins, while it holds, two weeks before it ends, and from the moment it ends."""
    pki, with_tls = tls(tmp_path)
    own = pki.servers.issue(lasts=datetime.timedelta(days=30))
    pki.certificate.write_bytes(own.pem)
    pki.key.write_bytes(own.key_pem)
    begin = own.certificate.not_valid_before_utc.timestamp()
    moments = {
        begin - 1: "fail",
        begin: "ok",
        own.ends - SOON_S - 1: "ok",
        own.ends - SOON_S: "warn",
        own.ends - 1: "warn",
        own.ends: "fail",
    }
    said = {
        moment: [each.level for each in certificates(with_tls, moment) if str(pki.certificate) in each.says]
        for moment in moments
    }
    assert said == {moment: [level] for moment, level in moments.items()}
    assert {each.says.split()[0] for each in certificates(with_tls, begin)} == {
        str(pki.certificate),
        str(pki.client_ca),
    }


def test_a_key_that_everybody_reads_is_told(tmp_path: Path) -> None:
    pki, with_tls = tls(tmp_path)
    pki.key.chmod(0o644)
    said = [each for each in certificates(with_tls, pki.own.ends - 1) if str(pki.key) in each.says]
    assert [each.level for each in said] == ["warn"]


@pytest.mark.parametrize("name", ["own.pem", "own.key", "clients.pem"])
@pytest.mark.parametrize("content", [None, b"", b"-----BEGIN PRIVATE KEY-----\nhunter2"])
def test_files_that_tls_cannot_be_spoken_with_are_named(
    tmp_path: Path, name: str, content: bytes | None
) -> None:
    _, with_tls = tls(tmp_path)
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    (one,) = certificates(with_tls, NOW)
    assert one.level == "fail"
    assert str(tmp_path / name) in one.says
    assert "hunter2" not in one.says


def test_credentials_in_the_clear_are_told() -> None:
    """Beyond loopback, where callers prove themselves, without TLS of our own."""
    jwt = '[{"kind": "jwt", "issuer": "https://i.example", "jwks_url": "https://i.example/jwks"}]'
    proving = (f"identity.authenticators={jwt}", "identity.resource=https://t.example/mcp")
    assert [each.level for each in certificates(settings(), NOW)] == ["ok"]
    assert [each.level for each in certificates(settings(*proving), NOW)] == ["ok"]
    outside = settings(*proving, "listen.address=0.0.0.0:8080")
    assert [each.level for each in certificates(outside, NOW)] == ["warn"]


@pytest.mark.parametrize(
    ("ahead_s", "level"), [(0, "ok"), (4, "ok"), (-20, "warn"), (20, "warn"), (31, "fail"), (-3_600, "fail")]
)
def test_clocks_are_compared_with_the_leeway(ahead_s: float, level: str) -> None:
    """JWTs are judged with 30 s of leeway; the one that is farthest off is told."""
    clocks = Clocks(lambda: NOW)
    clocks.told("a", NOW)
    clocks.told("b", NOW + ahead_s)
    jwt = '[{"kind": "jwt", "issuer": "https://i.example", "jwks_url": "https://i.example/jwks"}]'
    with_jwt = settings(f"identity.authenticators={jwt}", "identity.resource=https://t.example/mcp")
    (one,) = clock(with_jwt, clocks)
    assert one.level == level
    assert level == "ok" or one.says.startswith("b is ")
    (without,) = clock(None, clocks)
    assert without.level == ("ok" if level == "ok" else "warn")


@pytest.mark.parametrize(
    "date",
    [None, "", "soon", "Wed, 30 Jun 2027", "Wed, 99 Jun 2027 00:00:00 GMT", "9" * 60, "x" * 10_000, "\ud800"],
)
def test_a_date_may_hold_anything(date: str | None) -> None:
    """RFC 9110 section 6.6.1: what is no date tells no time."""
    clocks = Clocks(lambda: NOW)
    clocks.heard("a", date)
    assert clock(None, clocks)[0].level == "ok"


def test_a_date_is_read() -> None:
    clocks = Clocks(lambda: NOW)
    clocks.heard("a", "Wed, 30 Jun 2027 00:01:00 GMT")
    assert clocks.ahead_s == {"a": 60.5}
