"""One key for all attempts: whose it is, where it stands, and that nothing else of the call changes."""

from __future__ import annotations

import json
from typing import Any, Final

import pytest
from msgspec import structs

from proxy.model import Call, Headers, Kind, Permit, Principal, Reason, Rule
from proxy.protocol.jsonrpc import read_json, read_message
from proxy.resilience.idempotency import ALTERED, META_KEY, keyed
from tests.fakes import FakeJourney, make_call, no

ANN: Final = Principal(issuer="i", subject="ann", tenant="acme")
RULE: Final = Rule(id="r", idempotency_key=True)
HEADER: Final = "idempotency-key"


def permit(
    params: str = '{"name":"pay"}', *keys: str, who: Principal = ANN, rule: Rule = RULE, **call: Any
) -> Permit:
    body = f'{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{params}}}'.encode()
    headers = Headers([(b"X-A", b"1"), *((b"IDEMPOTENCY-key", key.encode()) for key in keys), (b"X-B", b"2")])
    made = make_call(body=body, params=json.loads(params), headers=headers, **call)
    return Permit(call=made, principal=who, rule=rule)


def made() -> str:
    return "made"


def key_of(call: Call) -> str:
    """The key that goes out, which both places must tell."""
    header = call.headers.all(HEADER)
    assert len(header) == 1
    meta = json.loads(call.body)["params"]["_meta"]
    assert header[0] == f'"{meta[META_KEY]}"'
    assert isinstance(meta[META_KEY], str)
    return meta[META_KEY]


def test_the_key_stands_in_the_header_and_in_the_message() -> None:
    """Issue 7, item 2: header and `_meta` where the rule asks."""
    asked = permit()
    call = keyed(asked, made).call
    assert len(key_of(call)) == 64
    assert call.headers.pairs[:2] == ((b"X-A", b"1"), (b"X-B", b"2"))
    assert isinstance(asked.call.journey, FakeJourney)
    assert asked.call.journey.diary == [("j1", "altered", ALTERED), ("j1", "known as", key_of(call))]
    for name in set(asked.call.__struct_fields__) - {"headers", "body"}:
        assert getattr(call, name) is getattr(asked.call, name)


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ('{"name":"pay"}', '{"_meta":{K},"name":"pay"}'),
        ("{}", '{"_meta":{K}}'),
        ("{ \n}", '{"_meta":{K} \n}'),
        (' { "name" : "pay" } ', ' {"_meta":{K}, "name" : "pay" } '),
        ('{"name":"pay","_meta":{}}', '{"name":"pay","_meta":{K}}'),
        ('{"name":"pay","_meta": { } }', '{"name":"pay","_meta": {K } }'),
        ('{"_meta":{"progressToken":1},"name":"pay"}', '{"_meta":{K,"progressToken":1},"name":"pay"}'),
        ('{"\\u005fmeta":{"a":{}},"name":"p"}', '{"\\u005fmeta":{K,"a":{}},"name":"p"}'),
        ('{"arguments":{"_meta":{"x":1}},"n":1}', '{"_meta":{K},"arguments":{"_meta":{"x":1}},"n":1}'),
        (
            '{"_meta":{"a":1, "dev.mcp-sidecar/idempotency-key" : "mine" , "b":2}}',
            '{"_meta":{"a":1, "dev.mcp-sidecar/idempotency-key" : V , "b":2}}',
        ),
    ],
)
def test_every_other_byte_stays(params: str, expected: str) -> None:
    """What was judged is what is forwarded."""
    asked = permit(params)
    call = keyed(asked, made).call
    value = f'"{key_of(call)}"'
    pair = f'"{META_KEY}":{value}'
    assert call.body == asked.call.body.replace(
        params.encode(), expected.replace("K", pair, 1).replace(": V ", f": {value} ").encode()
    )


@pytest.mark.parametrize("params", ['{"name":"pay"}', '{"name":"pay","_meta":{"progressToken":1}}'])
def test_what_goes_out_is_read_like_what_came_in(params: str) -> None:
    """The splice makes no message that our own strict reader would refuse."""
    body = keyed(permit(params), made).call.body
    message = read_message(read_json(body), body)
    assert (message.method, message.target, message.id) == ("tools/call", "pay", 1)
    assert META_KEY in message.meta


@pytest.mark.parametrize(
    "asked",
    [
        permit(rule=Rule(id="r", idempotent=True)),
        permit(method="tools/list"),
        permit(kind=Kind.NOTIFICATION),
        permit(kind=Kind.BATCH, method=""),
    ],
)
def test_nothing_changes_where_no_rule_asks(asked: Permit) -> None:
    """Transparent: a caller's own header passes as it is."""
    assert keyed(asked, made) is asked


def test_a_new_call_gets_a_new_key() -> None:
    keys = iter(["one", "two"])
    first, second = (key_of(keyed(permit(), lambda: next(keys)).call) for _ in range(2))
    assert first != second


def unheard_of() -> str:
    raise AssertionError("the caller had a key")


IN_META: Final = '{"name":"pay","_meta":{"dev.mcp-sidecar/idempotency-key":"k-1"}}'


@pytest.mark.parametrize(
    "asked",
    [
        permit('{"name":"pay"}', "k-1"),
        permit('{"name":"pay"}', '"k-1"'),
        permit('{"name":"pay"}', ' "k-1"\t'),
        permit('{"name":"other"}', "k-1"),
        permit(IN_META),
        permit(IN_META, '"k-1"'),
        permit('{"name":"pay"}', "k-1", "k-1"),
        permit('{"name":"pay"}', "k-1", who=structs.replace(ANN, fingerprint="renewed", client="other")),
    ],
)
def test_the_same_key_of_the_same_caller_is_the_same_key_again(asked: Permit) -> None:
    """Wherever it stands, in whatever spelling, with a renewed credential, in every replica."""
    expected = key_of(keyed(permit('{"name":"pay"}', "k-1"), unheard_of).call)
    assert key_of(keyed(asked, unheard_of).call) == expected
    assert expected == "b7401c1343f13ec76dd179dfce4924f45e42ebd8135cce2475524ee6e729da72"


def test_escapes_of_a_quoted_key_are_no_part_of_it() -> None:
    quoted = key_of(keyed(permit('{"name":"pay"}', r'"a\\b\"c"'), unheard_of).call)
    assert quoted == key_of(keyed(permit('{"name":"pay"}', r'a\b"c'), unheard_of).call)


@pytest.mark.parametrize(
    "who",
    [
        structs.replace(ANN, tenant="zeta"),
        structs.replace(ANN, subject="bob"),
        structs.replace(ANN, issuer="other"),
        structs.replace(ANN, subject="", tenant="annacme"),
    ],
)
def test_nobody_is_told_what_another_was_answered(who: Principal) -> None:
    """A server answers again by key: whoever learns Ann's gets another one all the same."""
    ann = key_of(keyed(permit('{"name":"pay"}', "k-1"), unheard_of).call)
    stolen = [
        permit('{"name":"pay"}', "k-1", who=who),
        permit('{"name":"pay"}', ann, who=who),
        permit('{"name":"pay"}', ann, who=ANN),
    ]
    assert ann not in [key_of(keyed(each, unheard_of).call) for each in stolen]


@pytest.mark.parametrize(
    ("params", "keys"),
    [
        ('{"name":"pay"}', ["k-1", "k-2"]),
        (IN_META, ["k-2"]),
        ('{"name":"pay"}', [""]),
        ('{"name":"pay"}', ['""']),
        ('{"name":"pay"}', ["x" * 256]),
        ('{"name":"pay"}', ["kéy"]),
        ('{"name":"pay"}', ["a\x7f"]),
        ('{"name":"pay"}', ['"open']),
        ('{"name":"pay"}', ['"a"b"']),
        ('{"name":"pay"}', [r'"a\x"']),
        ('{"name":"pay"}', ['"a";p=1']),
        (IN_META.replace('"k-1"', "1"), []),
        (IN_META.replace('"k-1"', "null"), []),
        (IN_META.replace('"k-1"', '""'), []),
        (IN_META.replace('"k-1"', '"a\\nb"'), []),
    ],
)
def test_what_is_no_key_is_refused(params: str, keys: list[str]) -> None:
    """Silently another one would be a second payment to a caller who repeats with what it believes is its key."""
    refused = no(lambda: keyed(permit(params, *keys), unheard_of))
    assert refused.reason is Reason.MALFORMED


def test_the_longest_key_is_a_key() -> None:
    assert key_of(keyed(permit('{"name":"pay"}', "x" * 255), unheard_of).call)
