"""Entries for tests of stores, and a clock that stands."""

from __future__ import annotations

import hashlib
import json

from proxy.cache.entry import Entry

NOW = 1_800_000_000.5


class Clock:
    """Stands until a test moves it; unix seconds."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def digest_of(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def make_entry(
    *,
    text: str = "hello",
    tenant: str = "a",
    method: str = "tools/call",
    target: str = "search",
    stored_s: float = NOW,
    fresh_s: float = 60,
    swr_s: float = 0,
    sie_s: float = 0,
) -> Entry:
    return Entry(
        material=b"material of " + text[:10].encode("utf-8", "surrogatepass"),
        result=json.dumps({"content": [{"type": "text", "text": text}]}).encode(),
        stored_s=stored_s,
        fresh_s=fresh_s,
        swr_s=swr_s,
        sie_s=sie_s,
        tenant=tenant,
        method=method,
        target=target,
        generation="g1",
    )
