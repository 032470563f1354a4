"""What does the cache decide, and at what cost? `python -m tests.bench.cache_cost` prints it: processor time of this
process, nothing else. The stores and the sockets are not in it.

In: nothing. Out: figures, each the median of several rounds. Keeps nothing.
"""

from __future__ import annotations

import json
import sys
from typing import Final

import msgspec
from msgspec import structs

from proxy.cache.entry import Entry, age, decode, encode, is_fresh, places_in, served
from proxy.cache.key import Key, Keys
from proxy.cache.settings import CacheSettings
from proxy.cache.worth import Asked, Overheard, Worth
from proxy.model import Call, Headers, Keep, Kind, Permit, Principal, Rule
from proxy.protocol.revisions import BY_NAME
from proxy.telemetry.journey import Journeys, Observers

from .policy_cost import _us
from .report import Figure, table, this_machine

NOON: Final = 1_800_000_000.0
MODERN: Final = BY_NAME["2026-07-28"]
BUDGET_US: Final = 10
"""For a decision to store or to serve, for 1 KB."""
ANN: Final = Principal(
    issuer="https://idp.test",
    subject="ann",
    tenant="acme",
    roles=frozenset({"editor", "staff"}),
    scopes=frozenset({"tools"}),
)
RULE: Final = Rule(id="search_*", tool_class="read", keep=Keep(ttl_s=60))
DEFINITION: Final = "v1:" + "0" * 64
_STOPPED: Final = frozenset({b"authorization", b"cookie", b"host", b"accept-encoding"})


def main() -> int:
    print(table(this_machine(), figures()))
    return 0


def figures() -> list[Figure]:
    """Every figure of this file. Takes about ten seconds."""
    one = _Case(1_000)
    all_share = structs.replace(RULE, keep=Keep(ttl_s=60, share="all"))
    large, gateway = _Case(250_000), _Case(1_000, more=[(b"X-User", b"ann"), (b"Accept-Language", b"de")])
    shared = _Case(1_000, rule=all_share)
    bounded = _Case(1_000, rule=structs.replace(RULE, keep=Keep(ttl_s=60, ignore=("page",))))
    off = Permit(call=one.call, principal=ANN, rule=structs.replace(RULE, keep=None))
    at_rest = encode(one.entry)
    return [
        _us("a call that nobody keeps", lambda: one.worth.asked(off)),
        _us("serve: may it, its key, its age, the answer; 1 KB", one.serve, at_most=BUDGET_US),
        _us("serve: the same, shared by all: two keys", shared.serve),
        _us("serve: the same, an argument does not count", bounded.serve),
        _us("serve: the same, headers of a gateway count", gateway.serve),
        _us("serve: the key alone", one.key),
        _us("serve: the answer alone", one.answer),
        _us("serve: the answer alone, 250 KB", large.answer),
        _us("store: 1 KB", one.store, at_most=BUDGET_US),
        _us("store: 250 KB", large.store),
        _us("store: overhear 1 KB in an event", one.overhear),
        _us("at rest: write 1 KB", lambda: encode(one.entry)),
        _us("at rest: read 1 KB", lambda: decode(at_rest)),
        _us("where an answer changes, 1 KB", lambda: places_in(one.entry.result)),
    ]


class _Case:
    """A call of about 1 KB and its answer of so many bytes."""

    def __init__(
        self, answer_bytes: int, *, rule: Rule = RULE, more: list[tuple[bytes, bytes]] | None = None
    ) -> None:
        self.worth = Worth(
            CacheSettings(),
            upstream="http://127.0.0.1:8000/mcp",
            generation="g1",
            stops=_STOPPED.__contains__,
        )
        self.call = _call(more or [])
        self.permit = Permit(call=self.call, principal=ANN, rule=rule)
        self.text = _answer(answer_bytes)
        self.event = b"event: message\ndata: " + self.text + b"\n\n"
        self._headers = Headers([(b"Content-Type", b"application/json"), (b"Content-Length", b"1000")])
        self.asked, self.keys = self.key()
        self.entry = self.store()[1]
        assert json.loads(self.serve())["result"]["ttlMs"] == 55_000

    def key(self) -> tuple[Asked, Keys]:
        asked = self.worth.asked(self.permit)
        assert asked is not None
        keys = self.worth.keys(self.permit, asked, DEFINITION)
        assert keys is not None
        return asked, keys

    def serve(self) -> bytes:
        """All that a hit decides."""
        _, keys = self.key()
        assert self.entry.material in (keys.own.material, keys.shared and keys.shared.material)
        assert is_fresh(self.entry, NOON + 5)
        return self.answer()

    def answer(self) -> bytes:
        return served(self.entry, 7, age(self.entry, NOON + 5), "fresh")

    def store(self) -> tuple[Key, Entry]:
        """All that a miss decides when its answer has come; its keys are known."""
        found = self.worth.entry(
            self.permit, self.asked, self.keys, status=200, headers=self._headers, text=self.text, wall=NOON
        )
        assert found is not None
        return found

    def overhear(self) -> bytes:
        overheard = Overheard(1_048_576)
        overheard.feed(self.event)
        found = overheard.ended()
        assert found is not None
        return found


def _call(more: list[tuple[bytes, bytes]]) -> Call:
    arguments = {
        "query": "x" * 300,
        "page": 1,
        "filters": [{"field": f"name{n}", "value": f"some value {n}", "n": n} for n in range(8)],
    }
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "bench", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    params = {"name": "search_mail", "arguments": arguments, "_meta": meta}
    fields = [
        (b"Host", b"127.0.0.1:8080"),
        (b"Accept", b"application/json, text/event-stream"),
        (b"Accept-Encoding", b"gzip, deflate"),
        (b"Authorization", b"Bearer x"),
        (b"Content-Type", b"application/json"),
        (b"Content-Length", b"1000"),
        (b"MCP-Protocol-Version", b"2026-07-28"),
        (b"Mcp-Method", b"tools/call"),
        (b"Mcp-Name", b"search_mail"),
        (b"User-Agent", b"bench"),
        *more,
    ]
    return Call(
        revision=MODERN,
        kind=Kind.REQUEST,
        id=7,
        method="tools/call",
        target="search_mail",
        params=params,
        headers=Headers(fields),
        body=msgspec.json.encode(params),
        received=0.0,
        journey=Journeys(Observers()).open(0.0),
    )


def _answer(size: int) -> bytes:
    """With everything that has to change when it is told again."""
    result = {
        "resultType": "complete",
        "content": [{"type": "text", "text": "x" * (size - 200)}],
        "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "s", "version": "1"}},
        "ttlMs": 60_000,
    }
    return msgspec.json.encode({"jsonrpc": "2.0", "id": 7, "result": result})


if __name__ == "__main__":
    sys.exit(main())
