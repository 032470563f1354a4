"""What the section `cache` may say, and what cannot be meant. Source: issue 6, items 1, 3 and 7."""

from __future__ import annotations

import pytest
from msgspec import Struct

from proxy.cache.settings import Cache, CacheSettings
from proxy.configuration.documents import document_of
from proxy.configuration.mistakes import SettingsError
from proxy.secret import Secret

LONG = {"S": "0123456789abcdef" * 2}


class House(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file with this section alone."""

    cache: Cache | None = None


def read(text: str) -> CacheSettings | None:
    return document_of(text.encode(), "F", House, LONG).cache


def mistakes(text: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        read(text)
    return [str(each) for each in caught.value.mistakes]


def test_an_absent_section_keeps_nothing() -> None:
    assert read("{}") is None


def test_an_empty_section_is_what_is_usual() -> None:
    assert read("cache: {}") == CacheSettings(
        max_bytes=67_108_864,
        max_entry_bytes=1_048_576,
        per_tenant_share=0.25,
        honour_hints=True,
        max_ttl_s=3_600,
        legacy_lists_ttl_s=0,
        ignore_headers=(),
        compress_above_bytes=0,
        shared=False,
        file=None,
        secret=None,
    )


def test_all_of_it_is_read() -> None:
    text = (
        "cache: {max_bytes: 65536, max_entry_bytes: 1024, per_tenant_share: 1, honour_hints: false, max_ttl_s: 1.5, "
        "legacy_lists_ttl_s: 5, ignore_headers: [X-Mesh-Id], compress_above_bytes: 4096, file: kept.db, "
        "secret: '${S}'}"
    )
    assert read(text) == CacheSettings(
        max_bytes=65_536,
        max_entry_bytes=1_024,
        per_tenant_share=1,
        honour_hints=False,
        max_ttl_s=1.5,
        legacy_lists_ttl_s=5,
        ignore_headers=("X-Mesh-Id",),
        compress_above_bytes=4_096,
        file="kept.db",
        secret=Secret(LONG["S"]),
    )


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("shared: true", "F:1:9: cache.shared", "needs a secret"),
        ("file: kept.db", "F:1:9: cache.file", "needs a secret"),
        ("shared: true, file: a, secret: '${S}'", "F:1:23: cache.file", "stands beside shared: true"),
        ("max_entry_bytes: 16777217", "F:1:8: cache", "has a max_entry_bytes above a tenant's share"),
        ("max_bytes: 1048576", "F:1:8: cache", "has a max_entry_bytes above a tenant's share"),
        ("secret: 0123456789abcdef0123456789abcdef", "F:1:17: cache.secret", "is a secret in clear"),
        ("secret: 'a${S}', ignore_headers: [Cookie]", "F:1:43: cache.ignore_headers[0]", "says who asks"),
        ("ignore_headers: ['a b']", "F:1:26: cache.ignore_headers[0]", "is no header name"),
        ("per_tenant_share: 0", "F:1:27: cache.per_tenant_share", ""),
        ("per_tenant_share: 1.1", "F:1:27: cache.per_tenant_share", ""),
        ("max_ttl_s: 0", "F:1:20: cache.max_ttl_s", ""),
        ("max_ttl_s: 604801", "F:1:20: cache.max_ttl_s", ""),
        ("legacy_lists_ttl_s: -1", "F:1:29: cache.legacy_lists_ttl_s", ""),
        ("max_bytes: 100", "F:1:20: cache.max_bytes", ""),
        ("max_entry_bytes: 100", "F:1:26: cache.max_entry_bytes", ""),
        ("compress_above_bytes: -1", "F:1:31: cache.compress_above_bytes", ""),
        ("file: ''", "F:1:15: cache.file", ""),
        ("ttl_s: 5", "F:1:9: cache.ttl_s", "is not known"),
    ],
)
def test_what_cannot_be_meant_is_found_where_it_stands(text: str, where: str, what: str) -> None:
    (found,) = mistakes(f"cache: {{{text}}}")
    assert found.startswith(f"{where}: {what}")


@pytest.mark.parametrize("secret", ["0123456789abcdef0123456789abcde", " " * 40, "a" + " " * 40])
def test_a_short_secret_is_refused_and_not_shown(secret: str) -> None:
    with pytest.raises(SettingsError) as caught:
        document_of(b"cache: {shared: true, secret: '${S}'}", "F", House, {"S": secret})
    (found,) = caught.value.mistakes
    assert str(found).startswith("F:1:31: cache.secret: is too short")
    assert secret not in str(found)


def test_a_secret_alone_is_no_mistake() -> None:
    """Who switches sharing off for a while need not take the secret out."""
    assert read("cache: {secret: '${S}'}") is not None
