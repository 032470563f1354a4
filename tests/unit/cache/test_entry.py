"""A kept answer is written down so that nothing else is mistaken for one, and told again as the server said it.

Source: issue 6, items 4 and 7; server/utilities/caching of 2026-07-28 (ttlMs); CACHE-028, CACHE-051.
"""

from __future__ import annotations

import json
import math
import pickle

import msgspec
import pytest
from msgspec import structs

from proxy.cache.entry import (
    FORMAT,
    MARK,
    MAX_AHEAD_S,
    Entry,
    State,
    age,
    decode,
    encode,
    is_fresh,
    is_over,
    lifetime_s,
    may_follow_error,
    may_revalidate,
    places_in,
    served,
)
from proxy.model import RequestId

NOON = 1_800_000_000.0


def kept(result: bytes | str = b'{"content":[]}', *, fresh_s: float = 60, with_places: bool = True) -> Entry:
    text = result if isinstance(result, bytes) else result.encode()
    return Entry(
        material=b'["what was asked"]',
        result=text,
        stored_s=NOON,
        fresh_s=fresh_s,
        tenant="acme",
        method="tools/call",
        target="read_doc",
        generation="g1",
        places=places_in(text) if with_places else None,
    )


def told(entry: Entry, *, id: RequestId = 1, later_s: float = 0, state: State = "fresh") -> bytes:
    return served(entry, id, age(entry, NOON + later_s), state)


# At rest


@pytest.mark.parametrize(
    "entry",
    [
        kept(),
        kept(with_places=False),
        kept('{"ttlMs":1,"_meta":{"a":"\u00fc"}}'),
        structs.replace(kept(), is_error=True, status=404, swr_s=1.5, sie_s=2, tenant="", target="\ud800"),
    ],
)
def test_what_was_written_down_is_read_again(entry: Entry) -> None:
    assert decode(encode(entry)) == entry


def test_a_pickle_is_no_entry() -> None:
    """CACHE-051: nothing is run, whoever can write to the store."""

    class Boom:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return exec, ("raise SystemExit",)

    assert decode(pickle.dumps(Boom())) is None
    assert decode(FORMAT + pickle.dumps(Boom())) is None


def test_every_cut_and_every_byte_too_many_is_noticed() -> None:
    whole = encode(kept())
    assert all(decode(whole[:length]) is None for length in range(len(whole)))
    assert decode(whole + b"\0") is None


def test_no_flipped_bit_makes_it_raise() -> None:
    """What a flipped bit leaves may be an entry: stores that others write to authenticate."""
    whole = encode(kept('{"ttlMs":60000,"_meta":{}}'))
    for at in range(len(whole)):
        for bit in range(8):
            decode(whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :])


def test_another_version_is_not_read() -> None:
    whole = encode(kept())
    assert FORMAT in whole
    assert decode(whole.replace(b"kept 1", b"kept 2")) is None
    assert decode(b"") is None


def _at_rest(**other: object) -> bytes:
    """An entry at rest with other values than anybody would write."""
    names = [
        "material",
        "result",
        "stored_s",
        "fresh_s",
        "swr_s",
        "sie_s",
        "texts",
        "is_error",
        "status",
        "places",
    ]
    values = dict(zip(names, msgspec.msgpack.decode(encode(kept())[len(FORMAT) :]), strict=True))
    return FORMAT + msgspec.msgpack.encode(list((values | other).values()))


@pytest.mark.parametrize(
    "other",
    [
        {"stored_s": math.nan},
        {"fresh_s": math.inf},
        {"swr_s": -1.0},
        {"result": b"[]"},
        {"result": b""},
        {"status": 302},
        {"status": 404},
        {"status": 500, "is_error": True},
        {"texts": [b"acme", b"tools/call", b"\xff", b"g"]},
        {"texts": [b"acme"]},
        {"places": [[0, 99], None, b"", b""]},
        {"places": [[5, 4], None, b"", b""]},
        {"places": [[-3, 4], None, b"", b""]},
        {"places": [[1, 6], [5, 7], b"", b""]},
    ],
)
def test_what_cannot_be_is_not_read(other: dict[str, object]) -> None:
    assert decode(_at_rest()) is not None
    assert decode(_at_rest(**other)) is None


def test_a_member_more_is_of_another_version() -> None:
    values = msgspec.msgpack.decode(encode(kept())[len(FORMAT) :])
    assert decode(FORMAT + msgspec.msgpack.encode([*values, 0])) is None


# Age


def test_it_is_fresh_until_its_time_is_over() -> None:
    """Fresh while now < received + ttl; each allowance counts from there."""
    entry = structs.replace(kept(), fresh_s=10, swr_s=5, sie_s=20)
    at = [NOON, NOON + 9.999, NOON + 10, NOON + 15, NOON + 30]
    assert [is_fresh(entry, wall) for wall in at] == [True, True, False, False, False]
    assert [may_revalidate(entry, wall) for wall in at] == [True, True, True, False, False]
    assert [may_follow_error(entry, wall) for wall in at] == [True, True, True, True, False]
    assert [is_over(entry, wall) for wall in at] == [False, False, False, False, True]
    assert lifetime_s(entry) == 30


def test_the_clock_of_another_replica_may_be_a_little_ahead() -> None:
    assert age(kept(), NOON - MAX_AHEAD_S) == 0
    assert is_fresh(kept(), NOON - MAX_AHEAD_S)


def test_what_comes_from_the_future_is_over() -> None:
    """A clock was put back: else an answer would be fresh for a year."""
    assert age(kept(), NOON - MAX_AHEAD_S - 0.001) == math.inf
    assert is_over(kept(), NOON - 3_600)


# Told again


@pytest.mark.parametrize("id", [1, 0, -1, 2**200, "1", "", "mine", 'a"b\\', "\u2028\U0001f600", "\ud800"])
def test_it_carries_the_id_of_who_asks(id: RequestId) -> None:
    """CACHE-028: with its type; no text of an id leaves its quotes."""
    message = json.loads(told(kept(), id=id))
    assert (message["jsonrpc"], message["id"], type(message["id"])) == ("2.0", id, type(id))
    assert message.keys() == {"jsonrpc", "id", "result"}


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        ("{}", '{"_meta":{MARK}}'),
        ("{ }", '{"_meta":{MARK} }'),
        ('{"a":1.0, "b" : "\\u00fc"}', '{"_meta":{MARK},"a":1.0, "b" : "\\u00fc"}'),
        ('{"_meta":{ \n}}', '{"_meta":{MARK \n}}'),
        ('{"_meta":{}}', '{"_meta":{MARK}}'),
        ('{"a":1,"_meta":{"b":2},"c":3}', '{"a":1,"_meta":{MARK,"b":2},"c":3}'),
        ('{"\\u005fmeta": {"b":2}}', '{"\\u005fmeta": {MARK,"b":2}}'),
        ('{"a":{"_meta":{}}}', '{"_meta":{MARK},"a":{"_meta":{}}}'),
        ('{"_meta":null}', '{"_meta":null}'),
        ('{"_meta":"{"}', '{"_meta":"{"}'),
    ],
)
def test_all_bytes_stay_but_for_our_mark(result: str, expected: str) -> None:
    mark = f'"{MARK}":{{"age_s":12,"state":"fresh"}}'
    wanted = '{"jsonrpc":"2.0","id":1,"result":' + expected.replace("MARK", mark) + "}"
    assert told(kept(result), later_s=12.9).decode() == wanted
    assert told(kept(result, with_places=False), later_s=12.9).decode() == wanted


def test_the_mark_of_a_sidecar_behind_us_is_replaced() -> None:
    """Two members of one name would be two answers, and its age is not ours."""
    answer = told(kept(f'{{"_meta":{{"{MARK}":{{"age_s":5}},"b":2}},"c":[]}}'), later_s=3, state="stale")
    assert answer.count(MARK.encode()) == 1
    assert json.loads(answer)["result"] == {"_meta": {MARK: {"age_s": 3, "state": "stale"}, "b": 2}, "c": []}


@pytest.mark.parametrize(
    ("ttl", "later_s", "left"),
    [
        ("60000", 0, 60_000),
        ("60000", 12.3, 47_700),
        ("60000", 0.0001, 59_999),
        ("60000", 60, 0),
        ("60000", 61, 0),
        ("0", 0, 0),
        ("-1", 0, 0),
        ("0.5", 0, 0),
        ("1e3", 0, 0),
        ("null", 0, 0),
        ('"60000"', 0, 0),
        ("true", 0, 0),
        ("[1]", 0, 0),
        ("9" * 400, 0, 0),
        ("1" + "0" * 15, 0, 0),
    ],
)
def test_its_time_to_live_is_what_is_left_of_it(ttl: str, later_s: float, left: int) -> None:
    """Clients begin to count when they receive it; what is odd is 0 (CACHE-038, CACHE-041, CACHE-042)."""
    result = f'{{"tools":[],"ttlMs": {ttl} ,"cacheScope":"public"}}'
    for with_places in (True, False):
        entry = kept(result, fresh_s=1e9, with_places=with_places)
        message = json.loads(told(entry, later_s=later_s))
        del message["result"]["_meta"]
        assert message["result"] == {"tools": [], "ttlMs": left, "cacheScope": "public"}
        assert type(message["result"]["ttlMs"]) is int


def test_a_stale_answer_has_no_time_to_live() -> None:
    message = json.loads(told(kept('{"ttlMs":60000}'), later_s=1, state="stale"))
    assert message["result"] == {"ttlMs": 0, "_meta": {MARK: {"age_s": 1, "state": "stale"}}}


@pytest.mark.parametrize(
    "result",
    ['{"ttlMs":5000,"_meta":{"a":1},"x":"%s"}', '{"x":"%s","_meta":{"a":1},"ttlMs":5000}', '{"x":"%s"}'],
)
def test_a_large_answer_is_told_like_a_small_one(result: str) -> None:
    """Issue 10: above 8 KiB its pieces are not copied."""
    small, large = (told(kept(result % ("y" * size)), later_s=1) for size in (1, 100_000))
    assert large == small.replace(b'"y"', b'"%b"' % (b"y" * 100_000))


@pytest.mark.parametrize("result", ['{"ttlMs":5000,"_meta":{"a":1}}', '{"_meta":{"a":1},"ttlMs":5000}'])
def test_mark_and_time_to_live_change_in_any_order(result: str) -> None:
    message = json.loads(told(kept(result), later_s=1))
    assert message["result"] == {"ttlMs": 4_000, "_meta": {MARK: {"age_s": 1, "state": "fresh"}, "a": 1}}


def test_an_inner_time_to_live_is_the_servers() -> None:
    assert json.loads(told(kept('{"content":{"ttlMs":5}}'), later_s=3))["result"]["content"] == {"ttlMs": 5}


def test_an_age_is_always_a_number() -> None:
    message = json.loads(told(kept(), later_s=-1e6))
    assert message["result"]["_meta"][MARK]["age_s"] == 1_000_000_000


def test_an_error_is_told_as_it_is() -> None:
    error = '{"code":-32602,"message":"Unknown tool", "data":{"ttlMs":1}}'
    entry = structs.replace(kept(error, with_places=False), is_error=True)
    assert told(entry, id="x", later_s=5).decode() == f'{{"jsonrpc":"2.0","id":"x","error":{error}}}'


@pytest.mark.parametrize(
    "result", ["[]", "1", "", ' {"a":1}', '{"a":1,"a":2}', '{"a":', f'{{"_meta":{{"{MARK}":1,"{MARK}":1}}}}']
)
def test_what_is_no_strict_object_has_no_places(result: str) -> None:
    with pytest.raises(ValueError, match=r"this is no"):
        places_in(result.encode())
