"""Which calls are the same call: one row for each thing that makes two of them.

Source: issue 6, items 2 and 3; corpus category `cache`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Final

import pytest
from msgspec import structs

from proxy.cache.key import (
    LONGEST_CALLER,
    MAX_CHEAP_BYTES,
    MAX_CHEAP_DIGITS,
    MOST_CALLERS,
    Key,
    Keying,
    Keys,
    Share,
)
from proxy.model import Call, Headers, Keep, Permit, Principal, Rule
from proxy.protocol.jsonrpc import read_json
from proxy.protocol.revisions import BY_NAME
from tests.fakes import make_call, make_headers

LEGACY: Final = BY_NAME["2025-11-25"]
MODERN: Final = BY_NAME["2026-07-28"]
KEEP: Final = Keep(ttl_s=60)
ANN: Final = Principal(
    issuer="https://idp.test",
    subject="ann",
    tenant="acme",
    roles=frozenset({"viewer", "staff"}),
    scopes=frozenset({"tools", "mail"}),
)
UPSTREAM: Final = "http://127.0.0.1:8000/mcp"
KEYING: Final = Keying(UPSTREAM, "g1")
IGNORES_N: Final = structs.replace(KEEP, ignore=("n",))
ONLY_Q: Final = structs.replace(KEEP, only=("q",))


def asked(text: str = '{"name":"read_doc","arguments":{"doc":"x"}}', **other: Any) -> Call:
    """A call as the reader reads it."""
    params = read_json(text.encode())
    assert isinstance(params, dict)
    settled: dict[str, Any] = {"revision": LEGACY, "target": params.get("name"), "params": params}
    return make_call(**(settled | other))


def keys(
    call: Call,
    *,
    who: Principal = ANN,
    keying: Keying = KEYING,
    share: Share = "caller",
    keep: Keep | None = KEEP,
    definition: str = "",
    rule: str = "r-1",
) -> Keys:
    permit = Permit(call=call, principal=who, rule=Rule(id=rule, tool_class="read", keep=keep))
    found = keying.keys(permit, share=share, keep=keep, definition=definition)
    assert found is not None
    return found


def own(call: Call, **other: Any) -> Key:
    return keys(call, **other).own


def test_a_key_names_its_material_and_whose_it_is() -> None:
    key = own(asked())
    assert key.digest == sha256(key.material).digest()
    assert key.tenant == "acme"


def test_the_material_is_told_whole() -> None:
    """Another choice of what counts, or another way to write it, is another FORMAT."""
    call = asked('{"name":"read_doc","arguments":{"b":1.0,"a":null},"_meta":{"x":1}}', session="s", query="q")
    text = own(call, definition="v1:0").material.decode()
    assert text == (
        '["mcp-sidecar key 2","http://127.0.0.1:8000/mcp","g1","2025-11-25","tools/call",'
        '{"arguments":{"a":null,"b":1.0},"name":"read_doc"},[],{"x":1},"v1:0","s","q","",["r-1",false,[],null]]'
        '["caller","https://idp.test","ann","acme",["staff","viewer"],["mail","tools"]]'
    )


# What is the same


def spelt(number: str) -> Key:
    """A call with this number, as its client wrote it."""
    params = f'{{"name":"t","arguments":{{"n":{number},"m":[0.5,{number}]}}}}'
    body = f'{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{params}}}'.encode()
    return own(structs.replace(asked(params), body=body))


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("0.1", "0.1000000000000000000000000000000000000001", False),
        ("0.1", "0.1000000000000000055511151231257827", False),
        ("9007199254740993.0", "9007199254740992.0", False),
        ("1.00000000000001", "1.000000000000010000000000000001", False),
        ("1e-320", "1.0001e-320", False),
        ("0.0", "1E-400", False),
        ("0.1", "0.10", True),
        ("0.1", "0.10000000000000000000", True),
        ("0.0", "0E-9", True),
        ("0.1", "1e-1", True),
        ("150.0", "1.5e2", True),
        ("0.0", "0e5", True),
        ("9007199254740993e0", "9007199254740992e0", False),
        ("0.0", "-0.0", False),
        ("-1.5", "1.5", False),
        ("1.0", "1", False),
    ],
)
def test_numbers_are_compared_digit_for_digit(one: str, other: str, is_same: bool) -> None:
    """JSON-026: to a server that reads decimals exactly they are two numbers."""
    assert (spelt(one) == spelt(other)) is is_same


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ('{"name":"t","arguments":{"a":1,"b":2}}', '{ "arguments" : {"b":2, "a":1},\n"name":"t"}'),
        ('{"name":"t","arguments":{"a":"\\u00fc\\/"}}', '{"name":"t","arguments":{"\\u0061":"ü/"}}'),
        ('{"name":"t","arguments":{"a":1.0}}', '{"name":"t","arguments":{"a":1e0}}'),
        ('{"name":"t"}', '{"name":"t","_meta":{}}'),
        ('{"name":"t"}', '{"name":"t","_meta":{"traceparent":"00-1","tracestate":"a","baggage":"b"}}'),
        (
            '{"name":"t","_meta":{"io.modelcontextprotocol/clientInfo":{"name":"a"}}}',
            '{"name":"t","_meta":{"io.modelcontextprotocol/clientInfo":{"name":"b"}}}',
        ),
    ],
)
def test_what_is_only_written_differently_is_the_same(one: str, other: str) -> None:
    assert own(asked(one)) == own(asked(other))


@pytest.mark.parametrize(
    "other",
    [
        {"id": "mine"},
        {"headers": make_headers(host="a", user_agent="b", accept="application/json", mcp_name="t")},
        {
            "headers": make_headers(
                traceparent="00-1", x_request_id="1", x_b3_traceid="2", sec_fetch_mode="cors"
            )
        },
    ],
)
def test_what_does_not_change_an_answer_does_not_count(other: dict[str, Any]) -> None:
    assert own(asked(**other)) == own(asked())


def test_a_renewed_credential_is_the_same_caller() -> None:
    renewed = structs.replace(ANN, fingerprint="other", valid_until=5.0, client="app")
    assert own(asked(), who=renewed) == own(asked())


# What differs


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ('{"n":1}', '{"n":1.0}'),
        ('{"n":1}', '{"n":"1"}'),  # CACHE-023
        ('{"n":1}', '{"n":true}'),
        ('{"n":1.0}', '{"n":true}'),
        ('{"n":0}', '{"n":false}'),
        ('{"n":0.0}', '{"n":-0.0}'),
        ('{"n":100000000000000000000000}', '{"n":1e23}'),
        ('{"n":18446744073709551616}', '{"n":18446744073709551617}'),  # CACHE-020
        ('{"n":9007199254740992}', '{"n":9007199254740993}'),
        (f'{{"n":{"9" * 4_000}}}', f'{{"n":{"9" * 3_999}8}}'),
        ('{"doc":"x"}', '{"doc":"x","opt":null}'),  # CACHE-022
        ("{}", '{"a":{}}'),
        ('{"a":[]}', '{"a":{}}'),
        ('{"a":null}', '{"a":"null"}'),
        ('{"a":[1,[2]]}', '{"a":[[1],2]}'),
        ('{"a":"\u00e9"}', '{"a":"e\u0301"}'),  # no normalisation
        ('{"a":"K"}', '{"a":"\u212a"}'),
        ('{"a":"x"}', '{"A":"x"}'),
        ('{"a":"x"}', '{"a":"x "}'),
        ('{"a":"\\u0000"}', '{"a":""}'),
        ('{"a":"b\\",\\"c\\":\\"d"}', '{"a":"b","c":"d"}'),
    ],
)
def test_other_arguments_are_another_call(one: str, other: str) -> None:
    first, second = (asked(f'{{"name":"t","arguments":{each}}}') for each in (one, other))
    assert own(first).digest != own(second).digest


@pytest.mark.parametrize(
    ("one", "other"),
    [
        # CACHE-025: nothing moves from one part into the next.
        ('{"name":"read_doc","arguments":{"doc":"x"}}', '{"name":"read","arguments":{"doc":"_docx"}}'),
        ('{"name":"t"}', '{"name":"t","arguments":{}}'),
        ('{"name":"t","arguments":null}', '{"name":"t"}'),
        ('{"name":"t"}', '{"name":"t","more":1}'),
        ('{"cursor":"a"}', "{}"),
        (
            '{"name":"t","_meta":{"io.modelcontextprotocol/clientCapabilities":{}}}',
            '{"name":"t","_meta":{"io.modelcontextprotocol/clientCapabilities":{"sampling":{}}}}',
        ),
        # A member that nobody knows may be what the server goes by.
        ('{"name":"t"}', '{"name":"t","_meta":{"com.example/locale":"de"}}'),
    ],
)
def test_other_params_are_another_call(one: str, other: str) -> None:
    assert own(asked(one)).digest != own(asked(other)).digest


@pytest.mark.parametrize(
    "other",
    [
        {"method": "prompts/get"},
        {"revision": MODERN},  # CACHE-029
        {"revision": BY_NAME["2025-06-18"]},
        {"session": "s-1"},
        {"query": "a=1"},
        {"headers": make_headers(accept_language="de")},
        {"headers": make_headers(x_mcp_toolsets="repos")},
        {"headers": make_headers(x_user="alice")},
        {"headers": make_headers(mcp_param_region="eu")},
        {"headers": make_headers(authorization="Bearer a")},
        {"headers": Headers([(b"X-A", b"\xff")])},
    ],
)
def test_whatever_else_the_server_sees_counts(other: dict[str, Any]) -> None:
    assert own(asked(**other)).digest != own(asked()).digest


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([(b"X-A", b"1")], [(b"X-A", b"2")]),
        ([(b"X-A", b"1")], [(b"X-B", b"1")]),
        ([(b"X-A", b"1"), (b"X-A", b"2")], [(b"X-A", b"2"), (b"X-A", b"1")]),
        ([(b"X-A", b"1"), (b"X-A", b"2")], [(b"X-A", b"1,2")]),
        ([(b"X-A", b"1"), (b"X-A", b"2")], [(b"X-A", b"1"), (b"X-A", b"3")]),
        ([(b"X-A", b"1"), (b"X-A", b"2")], [(b"X-A", b"1")]),
        ([(b"X-A", b"\xff")], [(b"X-A", b"\xfe")]),
        ([(b"X-A", b"\xff")], [(b"X-A", b"\\udcff")]),
    ],
)
def test_other_headers_are_another_call(
    one: list[tuple[bytes, bytes]], other: list[tuple[bytes, bytes]]
) -> None:
    assert own(asked(headers=Headers(one))).digest != own(asked(headers=Headers(other))).digest


def test_what_is_noted_of_a_head_is_for_who_noted_it() -> None:
    """Own promise: the same fields count differently under other settings, and again as before."""
    head = make_headers(x_user="ann")
    ignoring = Keying(UPSTREAM, "g1", ignore_headers=["X-User"])
    stopping = Keying(UPSTREAM, "g1", stops=lambda name: name == b"x-user")
    without = own(asked())
    for _ in range(2):
        assert own(asked(headers=head)) != without
        assert own(asked(headers=head)) != own(asked(headers=make_headers(x_user="bob")))
        assert own(asked(headers=head), keying=ignoring) == without
        assert own(asked(headers=head), keying=stopping) == without


def test_what_is_remembered_of_callers_is_bounded_and_theirs() -> None:
    """Style guide 8: issuers choose what is in a token; and nobody is taken for another for having been here."""
    keying = Keying(UPSTREAM, "g1")
    callers = [structs.replace(ANN, subject=f"{number}") for number in range(2 * MOST_CALLERS)]
    callers.append(structs.replace(ANN, scopes=frozenset(map(str, range(10_000)))))
    made = [own(asked(), who=who, keying=keying) for who in callers]
    assert len(set(made)) == len(callers)
    assert [own(asked(), who=who, keying=keying) for who in callers] == made
    assert 0 < len(keying._callers) <= MOST_CALLERS
    assert max(map(len, keying._callers.values())) <= LONGEST_CALLER


def test_the_order_of_different_headers_does_not_count() -> None:
    one, other = [(b"X-A", b"1"), (b"x-b", b"2")], [(b"X-B", b"2"), (b"x-a", b"1")]
    assert own(asked(headers=Headers(one))) == own(asked(headers=Headers(other)))


def test_no_value_of_a_header_stands_in_the_material() -> None:
    """It may be a credential of the server's, and entries lie in files and stores."""
    assert b"hunter2" not in own(asked(headers=make_headers(x_github_token="hunter2"))).material


def test_headers_that_do_not_reach_the_server_do_not_count() -> None:
    keying = Keying("u", "g", stops=lambda name: name == b"authorization", ignore_headers=["X-Mesh"])
    headers = make_headers(authorization="Bearer a", x_mesh="1")
    assert own(asked(headers=headers), keying=keying) == own(asked(), keying=keying)
    counted = make_headers(x_other="1")
    assert own(asked(headers=counted), keying=keying) != own(asked(), keying=keying)


@pytest.mark.parametrize(
    "keying", [Keying("http://127.0.0.1:8001/mcp", "g1"), Keying("http://127.0.0.1:8000/mcp", "g2")]
)
def test_another_server_or_policy_is_another_key(keying: Keying) -> None:
    assert own(asked(), keying=keying).digest != own(asked()).digest


def test_another_definition_is_another_key() -> None:
    assert own(asked(), definition="v1:1").digest != own(asked(), definition="v1:2").digest


@pytest.mark.parametrize(
    "other",
    [
        {"issuer": "https://other.test"},
        {"subject": "bob"},  # CACHE-001
        {"tenant": "umbrella"},  # CACHE-002
        {"roles": frozenset({"viewer"})},  # CACHE-033
        {"roles": frozenset({"viewer,staff"})},
        {"scopes": frozenset({"tools"})},
        {"scopes": ANN.scopes | {"viewer"}},
        {"roles": ANN.scopes, "scopes": ANN.roles},
        {"issuer": "https://idp.testann", "subject": ""},
    ],
)
def test_another_caller_has_another_key(other: Mapping[str, Any]) -> None:
    assert own(asked(), who=structs.replace(ANN, **other)).digest != own(asked()).digest


# Shared


BOB: Final = Principal(issuer="https://idp.test", subject="bob", tenant="acme")
CAROL: Final = Principal(issuer="https://idp.test", subject="carol", tenant="umbrella")


def test_nobody_shares_what_nobody_said() -> None:
    assert keys(asked(), share="caller").shared is None


def test_a_tenant_shares_within_itself() -> None:
    ann, bob, carol = (keys(asked(), who=who, share="tenant").shared for who in (ANN, BOB, CAROL))
    assert ann is not None
    assert carol is not None
    assert ann == bob
    assert ann.digest != carol.digest
    assert (ann.tenant, carol.tenant) == ("acme", "umbrella")


def test_all_share_what_is_for_all() -> None:
    """CACHE-003."""
    ann, carol = (keys(asked(), who=who, share="all").shared for who in (ANN, CAROL))
    assert ann is not None
    assert ann == carol
    assert ann.tenant == ""


def test_what_is_shared_is_never_what_is_ones_own() -> None:
    """Nor are a tenant's things those of all, whatever a tenant is called."""
    nobody = Principal(issuer="", subject="", tenant="")
    found = [keys(asked(), who=nobody, share=share) for share in ("caller", "tenant", "all")]
    digests = {key.digest for each in found for key in (each.own, each.shared) if key is not None}
    assert len(digests) == 3
    assert len({each.own for each in found}) == 1


@pytest.mark.parametrize("share", ["caller", "tenant", "all"])
def test_another_rule_shares_nothing(share: Share) -> None:
    """Two rules may allow different callers, and count different arguments."""
    one, other = (keys(asked(), share=share, rule=rule) for rule in ("r-1", "r-2"))
    assert one.own.digest != other.own.digest
    assert one.shared is None or one.shared != other.shared


# What a rule says of arguments and sessions


@pytest.mark.parametrize(
    "keep", [structs.replace(KEEP, ignore=("m", "n")), ONLY_Q, structs.replace(KEEP, only=("q", "z"))]
)
def test_what_a_rule_does_not_count_changes_no_key(keep: Keep) -> None:
    bare, more, other = (
        keys(asked(f'{{"name":"t","arguments":{each}}}'), keep=keep, share="all")
        for each in ('{"q":1}', '{"q":1,"n":{"deep":[1]}}', '{"q":2}')
    )
    assert (bare.own, bare.shared) == (more.own, more.shared)
    assert bare.own.digest != other.own.digest


def test_an_answer_to_what_is_not_counted_is_not_for_others() -> None:
    """CACHE-050: it may be anything the caller likes."""
    for keep in (structs.replace(KEEP, ignore=("inject",)), structs.replace(KEEP, only=("q",))):
        bare = keys(asked('{"name":"t","arguments":{"q":"x"}}'), keep=keep, share="all")
        more = keys(asked('{"name":"t","arguments":{"q":"x","inject":"<b>"}}'), keep=keep, share="all")
        assert (bare.is_counted, more.is_counted) == (True, False)


def test_only_the_top_level_is_not_counted() -> None:
    one, other = (asked(f'{{"name":"t","arguments":{{"a":{{"n":{n}}}}},"n":{n}}}') for n in (1, 2))
    assert own(one, keep=IGNORES_N).digest != own(other, keep=IGNORES_N).digest


def test_two_ways_to_count_have_no_key_in_common() -> None:
    """An argument that one rule leaves out is absent, and absent arguments count for another."""
    call = asked('{"name":"t","arguments":{"q":1}}')
    keeps = [KEEP, IGNORES_N, ONLY_Q, structs.replace(KEEP, only=())]
    assert len({own(call, keep=keep).digest for keep in keeps}) == len(keeps)


def test_a_session_counts_unless_the_rule_says_not() -> None:
    one, other, none = asked(session="s-1"), asked(session="s-2"), asked()
    assert len({own(call).digest for call in (one, other, none)}) == 3
    waived = structs.replace(KEEP, any_session=True)
    assert len({own(call, keep=waived).digest for call in (one, other, none)}) == 1
    assert own(none, keep=waived).digest != own(none).digest


# Hostile


def test_a_lone_surrogate_is_a_text_like_others() -> None:
    """Readers refuse them; whoever makes a call otherwise must not stop us."""
    calls = [
        make_call(params={"name": "t", "arguments": {"a": text}})
        for text in ("\ud800", "\ud801", "\\ud800", "?", "\ufffd", "\ud83d\ude00", "\U0001f600")
    ]
    assert len({own(call).digest for call in calls}) == len(calls)
    one, other = ({"a": "\ud800", "b": 1}, {"b": 1, "a": "\ud800"})
    assert own(make_call(params={"arguments": one})) == own(make_call(params={"arguments": other}))


def test_what_cannot_be_written_down_is_not_kept() -> None:
    deep: object = []
    for _ in range(100_000):
        deep = [deep]
    for value in (deep, 10**5_000, [10**5_000, "\ud800"], [deep, "\ud800"]):
        permit = Permit(
            call=make_call(params={"name": "t", "arguments": {"a": value}}),
            principal=ANN,
            rule=Rule(id="r", keep=KEEP),
        )
        assert KEYING.keys(permit, share="all", keep=KEEP) is None


def test_the_material_is_json() -> None:
    """Two texts, one behind the other: nothing of one can be taken for the other."""
    decoder = json.JSONDecoder()
    text = own(asked('{"name":"t","arguments":{"a":"]["}}')).material.decode()
    common, end = decoder.raw_decode(text)
    scope, whole = decoder.raw_decode(text, end)
    assert (len(common), len(scope), whole) == (13, 6, len(text))


@pytest.mark.parametrize(
    ("digits", "others", "is_kept"),
    [
        (MAX_CHEAP_DIGITS - 1, MAX_CHEAP_BYTES, True),
        (MAX_CHEAP_DIGITS, MAX_CHEAP_BYTES, False),
        (MAX_CHEAP_DIGITS, 0, True),
    ],
)
def test_what_takes_long_to_write_down_is_not_kept(digits: int, others: int, is_kept: bool) -> None:
    """Hostile: 980 integers of 4,200 digits held the loop for 0.25 s, each time the call came."""
    text = json.dumps({"name": "t", "arguments": {"n": int("9" * digits), "text": "x" * others}})
    permit = Permit(call=asked(text, body=text.encode()), principal=ANN, rule=Rule(id="r", keep=KEEP))
    assert (KEYING.keys(permit, share="caller", keep=KEEP) is not None) is is_kept
