"""What the `shared_state` section says is what is built, and files that change are read again."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from proxy.configuration.mistakes import SettingsError
from proxy.limits.demand import Demand, Quota, Rate, Window
from proxy.limits.local import Local
from proxy.limits.settings import SharedStateSettings
from proxy.limits.shared import Shared
from proxy.limits.shared_building import link, share, trusting
from proxy.limits.valkey_link import Ask, Link
from proxy.limits.valkey_url import Place
from proxy.model import Refused
from proxy.secret import Secret
from tests.certificates import Authority

Changed = Callable[[], Awaitable[None] | None]


class Files:
    """What is looked at, and what then happens."""

    def __init__(self) -> None:
        self.watched: dict[tuple[str, ...], Changed] = {}

    def watch(self, paths: tuple[str, ...], changed: Changed) -> None:
        self.watched[paths] = changed


class PasswordFile:
    """Fulfils `secret.Source`."""

    def __init__(self, path: Path) -> None:
        self.files = (str(path),)
        self._path = path

    def read(self) -> str:
        return self._path.read_text(encoding="utf-8")


@pytest.fixture
def files() -> Files:
    return Files()


def built(settings: SharedStateSettings, files: Files) -> Shared:
    return share(
        settings,
        Local(),
        watch=files.watch,
        told=lambda why: None,
        wall=lambda: 0.0,
        chance=lambda: 1.0,
        now=lambda: 0.0,
    )


def test_a_password_that_changes_is_used_for_the_next_connection(tmp_path: Path, files: Files) -> None:
    file = tmp_path / "password"
    file.write_text("old", encoding="utf-8")
    password = Secret("old", PasswordFile(file))
    shared = built(SharedStateSettings(url="redis://s:1/2", username="me", password=password), files)
    assert shared.place == Place(host="s", port=1, database=2, user="me", password=Secret("old"))
    file.write_text("new", encoding="utf-8")
    files.watched.pop((str(file),))()
    assert shared.place == Place(host="s", port=1, database=2, user="me", password=Secret("new"))
    assert files.watched == {}


def test_authorities_that_change_are_trusted_for_the_next_connection(tmp_path: Path, files: Files) -> None:
    file = tmp_path / "ca.pem"
    file.write_bytes(Authority("old").pem)
    shared = built(SharedStateSettings(url="rediss://s", ca_file=str(file)), files)
    file.write_bytes(Authority("new").pem)
    files.watched.pop((str(file),))()
    assert shared.trusted is not None
    names = [each["subject"] for each in shared.trusted.get_ca_certs()]
    assert names == [((("commonName", "new"),),)]


def test_nobody_is_asked_for_a_certificate_without_tls(files: Files) -> None:
    assert built(SharedStateSettings(url="redis://s"), files).trusted is None
    assert files.watched == {}


def test_names_of_certificates_are_checked() -> None:
    context = trusting(None)
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)


async def greet(ask: Ask) -> None:
    pytest.fail("nobody connects")


def linked(settings: SharedStateSettings, files: Files) -> Link:
    return link(
        settings,
        greet,
        watch=files.watch,
        told=lambda why: None,
        chance=lambda: 1.0,
        max_reply_bytes=1_000,
    )


def test_whoever_else_uses_the_store_hears_of_a_new_password(tmp_path: Path, files: Files) -> None:
    """Regression: kept answers stayed with the password of the start."""
    file = tmp_path / "password"
    file.write_text("old", encoding="utf-8")
    settings = SharedStateSettings(url="redis://s:1/2", password=Secret("old", PasswordFile(file)))
    own = linked(settings, files)
    file.write_text("new", encoding="utf-8")
    files.watched.pop((str(file),))()
    assert (own.place, own.tls) == (Place(host="s", port=1, database=2, password=Secret("new")), None)


def test_whoever_else_uses_the_store_hears_of_new_authorities(tmp_path: Path, files: Files) -> None:
    """Regression: as above."""
    file = tmp_path / "ca.pem"
    file.write_bytes(Authority("old").pem)
    own = linked(SharedStateSettings(url="rediss://s", ca_file=str(file)), files)
    file.write_bytes(Authority("new").pem)
    files.watched.pop((str(file),))()
    assert own.tls is not None
    assert [each["subject"] for each in own.tls.get_ca_certs()] == [((("commonName", "new"),),)]


@pytest.mark.parametrize("content", [None, b"", b"no certificate", b"\xff\xfe"])
def test_a_file_without_authorities_is_a_mistake(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        trusting(str(file))
    (mistake,) = caught.value.mistakes
    assert (mistake.file, mistake.path) == (str(file), "shared_state.ca_file")


async def test_what_outages_mean_is_as_the_section_says(files: Files) -> None:
    """Nothing runs: the store is not there."""
    quota, rate = Quota(10, Window("day")), Rate(10.0, 8)
    demands = Demand("a", "a", quota, 1), Demand("b", "b", rate, 1)
    settings = SharedStateSettings(url="redis://s", local_share=0.25, timeout_s=0.001)
    taken = await built(settings, files).take(demands)
    assert getattr(taken, "remaining", None) == (1, 1)
    with pytest.raises(Refused):
        await built(SharedStateSettings(url="redis://s", on_outage="closed", timeout_s=0.001), files).take(
            demands
        )
