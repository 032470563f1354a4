"""What may be kept: one row for each thing that forbids it, and for each that makes it shorter or narrower.

Source: issue 6, items 1, 3 and 4; server/utilities/caching of 2026-07-28; corpus category `cache`.
"""

from __future__ import annotations

import json
from typing import Any, Final

import pytest
from msgspec import structs

from proxy.cache.entry import MARK, Entry, places_in
from proxy.cache.settings import CacheSettings
from proxy.cache.worth import Asked, Overheard, Worth
from proxy.model import Headers, Keep, Kind, Permit, Principal, RequestId, Rule
from proxy.protocol.jsonrpc import META_PREFIX
from proxy.protocol.revisions import BY_NAME, REGISTER
from tests.fakes import make_call, make_headers

LEGACY: Final = BY_NAME["2025-11-25"]
MODERN: Final = BY_NAME["2026-07-28"]
ANN: Final = Principal(issuer="i", subject="ann", tenant="acme", roles=frozenset({"viewer"}))
KEEP: Final = Keep(ttl_s=60)
READS: Final = Rule(id="r-1", tool_class="read", keep=KEEP)
NO_RULE: Final = Rule(id="r-0")
NOON: Final = 1_800_000_000.0
JSON: Final = make_headers(content_type="application/json")
HINTED: Final = [
    *("server/discover", "tools/list", "prompts/list"),
    *("resources/list", "resources/templates/list", "resources/read"),
]
LISTS: Final = ["tools/list", "prompts/list", "resources/list", "resources/templates/list"]


def worth(**settings: Any) -> Worth:
    return Worth(CacheSettings(**settings), upstream="http://127.0.0.1:8000/mcp", generation="g1")


def permit(rule: Rule = READS, who: Principal = ANN, **call: Any) -> Permit:
    settled: dict[str, Any] = {"revision": LEGACY, "target": "read_doc"}
    settled["params"] = {"name": "read_doc", "arguments": {"doc": "x"}}
    return Permit(call=make_call(**(settled | call)), principal=who, rule=rule)


def hinted(method: str = "tools/list", **call: Any) -> Permit:
    settled: dict[str, Any] = {"revision": MODERN, "method": method, "target": None, "params": {}}
    return permit(NO_RULE, **(settled | call))


def asked(what: Permit, **settings: Any) -> Asked | None:
    return worth(**settings).asked(what)


def message(result: str = '{"content":[]}', id: str = "1") -> bytes:
    return f'{{"jsonrpc":"2.0","id":{id},"result":{result}}}'.encode()


def in_other_words(text: bytes) -> list[bytes]:
    """The same message as other SDKs write it."""
    said, id = (
        text[text.index(b'"result":') + 9 : -1],
        text[text.index(b'"id":') + 5 : text.index(b',"result"')],
    )
    return [
        text,
        b'{"result":' + said + b',"jsonrpc":"2.0","id":' + id + b"}",
        b'{"id":' + id + b',"jsonrpc":"2.0","result":' + said + b"}",
        b'{ "jsonrpc": "2.0", "id": ' + id + b', "result": ' + said + b"}\n",
    ]


def failed(code: str = "-32602", **error: object) -> bytes:
    more = "".join(f",{json.dumps(name)}:{json.dumps(value)}" for name, value in error.items())
    return f'{{"jsonrpc":"2.0","id":1,"error":{{"code":{code},"message":"no"{more}}}}}'.encode()


def kept(
    what: Permit,
    text: bytes,
    *,
    status: int = 200,
    headers: Headers = JSON,
    **settings: Any,
) -> Entry | None:
    """What is kept of an answer to a call that may be kept itself, however a whole message is written."""
    if text.startswith(b'{"jsonrpc":"2.0","id":') and b',"result":' in text and text.endswith(b"}"):
        first, *others = [_kept(what, each, status, headers, **settings) for each in in_other_words(text)]
        assert all(other == first for other in others)
        return first
    return _kept(what, text, status, headers, **settings)


def _kept(what: Permit, text: bytes, status: int, headers: Headers, **settings: Any) -> Entry | None:
    machine = worth(**settings)
    found = machine.asked(what)
    assert found is not None
    keys = machine.keys(what, found)
    assert keys is not None
    made = machine.entry(what, found, keys, status=status, headers=headers, text=text, wall=NOON)
    if made is None:
        return None
    key, entry = made
    assert key in (keys.own, keys.shared)
    assert (key.material, key.tenant) == (entry.material, entry.tenant)
    return entry


def entry(what: Permit, text: bytes, **other: Any) -> Entry:
    found = kept(what, text, **other)
    assert found is not None
    return found


def is_shared(what: Permit, text: bytes, **other: Any) -> bool:
    """Whether the answer, which is kept, is kept for others too."""
    return b'["caller",' not in entry(what, text, **other).material


# Calls


def test_a_tool_is_kept_where_its_rule_says_so() -> None:
    assert asked(permit()) == Asked(by="rule", may_look=True, may_join=True, share="caller", keep=KEEP)


@pytest.mark.parametrize("tool_class", ["write", "dangerous"])
def test_what_does_more_than_read_is_never_kept(tool_class: str) -> None:
    """CACHE-014, also where a rule was made that says otherwise."""
    assert asked(permit(structs.replace(READS, tool_class=tool_class))) is None


def test_a_tool_without_a_word_of_its_rule_is_not_kept() -> None:
    """Whatever the server says of it: its hints reach no rule."""
    assert asked(permit(structs.replace(READS, keep=None))) is None
    assert asked(permit(structs.replace(READS, keep=None), revision=MODERN)) is None


@pytest.mark.parametrize("method", HINTED)
def test_the_hinted_methods_are_kept_by_hints(method: str) -> None:
    assert asked(hinted(method)) == Asked(by="hints", may_look=True, may_join=True, share="all", keep=None)
    assert asked(hinted(method), honour_hints=False) is None
    assert asked(hinted(method, revision=LEGACY)) is None


@pytest.mark.parametrize("method", LISTS)
def test_older_lists_are_kept_where_the_operator_says_so(method: str) -> None:
    what = hinted(method, revision=LEGACY)
    assert asked(what, legacy_lists_ttl_s=5) == Asked(
        by="legacy", may_look=True, may_join=True, share="caller", keep=None
    )
    assert asked(what, legacy_lists_ttl_s=0) is None
    assert asked(hinted(method), legacy_lists_ttl_s=5, honour_hints=False) is None


@pytest.mark.parametrize(
    "method",
    [
        *(
            "initialize",
            "ping",
            "prompts/get",
            "completion/complete",
            "logging/setLevel",
            "subscriptions/listen",
        ),
        *(
            "resources/subscribe",
            "tasks/get",
            "tasks/list",
            "tasks/result",
            "tasks/update",
            "tasks/cancel",
            "",
        ),
    ],
)
@pytest.mark.parametrize("revision", REGISTER, ids=lambda each: each.name)
def test_nothing_else_is_ever_kept(method: str, revision: Any) -> None:
    assert asked(permit(READS, method=method, revision=revision), legacy_lists_ttl_s=5) is None


@pytest.mark.parametrize("method", ["server/discover", "resources/read"])
def test_older_revisions_keep_nothing_but_lists(method: str) -> None:
    assert asked(hinted(method, revision=LEGACY), legacy_lists_ttl_s=5) is None


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.REQUEST])
def test_only_a_single_request_has_an_answer_to_keep(kind: Kind) -> None:
    assert asked(permit(kind=kind)) is None


@pytest.mark.parametrize(
    "revision", [each for each in REGISTER if each.answers_elsewhere], ids=lambda each: each.name
)
def test_answers_on_another_stream_are_not_kept(revision: Any) -> None:
    assert asked(permit(revision=revision)) is None
    assert asked(hinted(revision=revision), legacy_lists_ttl_s=5) is None


@pytest.mark.parametrize(
    "more",
    [
        {"task": {"ttl": 1}},
        {"task": None},
        {"inputResponses": {}},
        {"requestState": "s"},
    ],
)
def test_a_request_for_more_than_one_answer_is_not_kept(more: dict[str, object]) -> None:
    assert asked(permit(params={"name": "t", "arguments": {}} | more)) is None
    assert asked(hinted("resources/read", params={"uri": "u"} | more)) is None


@pytest.mark.parametrize("meta", [{"progressToken": 0}, {META_PREFIX + "logLevel": "debug"}])
def test_whoever_wants_to_be_told_on_the_way_waits_for_nobody(meta: dict[str, object]) -> None:
    """protocol.md 7.2: kept only where nothing but the answer was seen, and then told again to anybody. Regression:
    fastmcp asks for both with every call, and nothing was ever kept for it."""
    found = asked(permit(params={"name": "t", "arguments": {}, "_meta": meta}))
    assert found is not None
    assert (found.may_look, found.may_join) == (True, False)


def test_arguments_may_be_called_as_they_like() -> None:
    named = {"task": 1, "requestState": 2, "_meta": {"progressToken": 1}}
    assert asked(permit(params={"name": "t", "arguments": named})) is not None


def test_a_resumed_request_is_not_kept() -> None:
    assert asked(permit(last_event_id="7")) is None


@pytest.mark.parametrize(
    ("value", "may_look"),
    [
        ("no-store", None),
        ("No-Store", None),
        ("max-age=5 ,\tno-store", None),
        ('private="no-store"', True),
        ('a="b, no-store, c"', None),
        ("no-cache", False),
        ("no-cache, no-store", None),
        ("max-age=0", False),
        ('max-age = "0"', False),
        ("max-age=60", True),
        ("no-transform", True),
        ("", True),
    ],
)
def test_the_client_says_what_it_wants(value: str, may_look: bool | None) -> None:
    """CACHE-044."""
    found = asked(permit(headers=make_headers(cache_control=value)))
    assert (None if found is None else found.may_look) is may_look


def test_every_line_of_what_the_client_wants_counts() -> None:
    headers = Headers([(b"Cache-Control", b"no-cache"), (b"cache-control", b"no-store")])
    assert asked(permit(headers=headers)) is None


def test_what_may_not_be_looked_up_may_be_kept() -> None:
    assert kept(permit(headers=make_headers(cache_control="no-cache")), message()) is not None


# Answers


def test_an_answer_is_kept_byte_for_byte() -> None:
    result = '{ "content" : [ ],"x":1.0, "u":"\\u00fc\\ud800" }'
    keep = structs.replace(KEEP, stale_while_revalidate_s=5, stale_if_error_s=600)
    found = entry(permit(structs.replace(READS, keep=keep)), message(f" {result} "))
    assert found == Entry(
        material=found.material,
        result=result.encode(),
        stored_s=NOON,
        fresh_s=60,
        swr_s=5,
        sie_s=600,
        tenant="acme",
        method="tools/call",
        target="read_doc",
        generation="g1",
        places=places_in(result.encode()),
    )


@pytest.mark.parametrize("status", [201, 202, 206, 400, 404, 500, 502])
def test_only_success_is_kept(status: int) -> None:
    """CACHE-008."""
    assert kept(permit(), message(), status=status) is None


@pytest.mark.parametrize(
    ("content_type", "is_kept"),
    [
        ("application/json", True),
        ("Application/JSON; charset=UTF-8", True),
        ("text/event-stream", True),
        ("application/json; charset=utf-16", False),
        ("application/json; charset=utf-8; charset=latin-1", False),
        ("text/plain", False),
        ("application/json-seq", False),
        ("", False),
    ],
)
def test_only_json_is_kept(content_type: str, is_kept: bool) -> None:
    headers = make_headers(content_type=content_type)
    assert (kept(permit(), message(), headers=headers) is not None) is is_kept
    assert kept(permit(), message(), headers=Headers()) is None


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"not found",
        b"[]",
        b"[" + message() + b"]",
        message()[:-1],  # CACHE-009
        message()[:-3] + b"}",
        message() + b"{}",
        message()[:-1] + b"]",
        message()[:-1] + b"x",
        message("[]"),
        message("null"),
        message('"complete"'),
        b'event: message\ndata: {"jsonrpc":"2.0","id":1,"result":{}}\n\n',
        b'{"jsonrpc":"2.0","id":1}',
        b'{"id":1,"result":{}}',
        b'{"jsonrpc":"1.0","id":1,"result":{}}',
        b'{"jsonrpc":2.0,"id":1,"result":{}}',
        b'{"jsonrpc":"2.0","result":{}}',
        b'{"jsonrpc":"2.0","id":1,"result":{},"error":null}',
        b'{"jsonrpc":"2.0","id":1,"result":{},"x":1}',
        b'{"jsonrpc":"2.0","id":1,"result":{"a":1},"result":{}}',
        b'{"jsonrpc":"2.0","id":1,"result":{"isError":false,"isError":true}}',
        b'{"jsonrpc":"2.0","id":1,"method":"ping"}',
        b'{"jsonrpc":"2.0","id":1,"method":"ping","result":{}}',
        message("[" * 100_000 + "]" * 100_000),
        message('{"a":' * 100_000 + "1" + "}" * 100_000),
    ],
)
def test_what_is_not_one_whole_answer_is_not_kept(text: bytes) -> None:
    assert kept(permit(), text) is None


@pytest.mark.parametrize(
    ("id", "said", "is_ours"),
    [
        (1, "1", True),
        (1, " 1 ", True),
        (1, '"1"', False),
        (1, "1.0", False),
        (1, "01", False),
        (1, "true", False),
        (1, "null", False),
        (1, "2", False),
        ("1", '"1"', True),
        ("1", "1", False),
        ("\u00fc", '"\\u00FC"', True),
        ("\u00fc", '"u\u0308"', False),
        (2**200, str(2**200), True),
        (2**200, str(2**200 + 1), False),
    ],
)
def test_only_the_answer_to_this_request_is_kept(id: RequestId, said: str, is_ours: bool) -> None:
    assert (kept(permit(id=id), message(id=said)) is not None) is is_ours


@pytest.mark.parametrize(
    "member",
    [
        '"isError":true',  # CACHE-007
        '"isError":null',
        '"isError":"false"',
        '"isError":0',
        '"is\\u0045rror":true',
        '"resultType":"input_required"',  # CACHE-012
        '"resultType":"task"',
        '"resultType":null',
        '"resultType":"Complete"',
        '"resultType":["complete"]',
        '"inputRequests":{}',
        '"requestState":"s"',
        '"requestState":null',
        '"task":{"taskId":"t"}',
        '"taskId":"t"',
        '"_meta":{"io.modelcontextprotocol/subscriptionId":1}',
        '"_meta":{"io.modelcontextprotocol/related-task":{}}',
        '"ttlMs":0',
        '"ttlMs":-1',
        '"cacheScope":"private","ttlMs":null',
        '"a":1,"a":1',
        f'"_meta":{{"{MARK}":1,"{MARK}":1}}',
        '"_meta":{"io.modelcontextprotocol\\/related\\u002dtask":1}',
    ],
)
def test_a_result_that_is_for_once_is_not_kept(member: str) -> None:
    assert kept(permit(), message(f'{{"content":[],{member}}}')) is None
    assert kept(hinted(), message(f'{{"tools":[],"ttlMs":5000,{member}}}')) is None


@pytest.mark.parametrize(
    "member",
    [
        '"isError":false',
        '"resultType":"complete"',
        '"_meta":{"a":1}',
        '"_meta":null',
        '"content":[{"isError":true,"task":1,"requestState":"s"}]',
        '"structuredContent":{"ttlMs":0,"cacheScope":"private","resultType":"task"}',
    ],
)
def test_other_members_do_not_matter(member: str) -> None:
    assert kept(permit(), message(f"{{{member}}}")) is not None


@pytest.mark.parametrize(
    ("value", "is_kept"),
    [("no-store", False), ("private, no-store", False), ("no-cache, no-transform", True), ("private", True)],
)
def test_the_server_can_say_that_nothing_is_kept(value: str, is_kept: bool) -> None:
    """SDK servers say no-cache of every event stream, and mean buffers."""
    headers = make_headers(content_type="application/json", cache_control=value)
    assert (kept(permit(), message(), headers=headers) is not None) is is_kept


def test_what_is_too_large_is_not_kept() -> None:
    """CACHE-045; what was asked is kept too, and counts."""
    small, large = message('{"a":"%s"}' % ("x" * 700)), message('{"a":"%s"}' % ("x" * 900))
    assert kept(permit(), small, max_entry_bytes=1_024) is not None
    assert kept(permit(), large, max_entry_bytes=1_024) is None
    long = permit(params={"name": "t", "arguments": {"a": "x" * 700}})
    assert kept(long, small, max_entry_bytes=1_024) is None


def test_what_is_too_large_is_not_even_read() -> None:
    assert kept(permit(), b"[" * 2_000_000) is None


# How long


@pytest.mark.parametrize(
    ("ttl_s", "ttl_ms", "max_ttl_s", "fresh_s"),
    [
        (60, None, 3_600, 60),
        (60, None, 10, 10),
        (60, "5000", 3_600, 5),
        (60, "90000", 3_600, 60),
        (60, "1", 3_600, 0.001),
        (0.5, None, 3_600, 0.5),
    ],
)
def test_a_rule_says_how_long_and_the_server_can_shorten(
    ttl_s: float, ttl_ms: str | None, max_ttl_s: float, fresh_s: float
) -> None:
    what = permit(structs.replace(READS, keep=structs.replace(KEEP, ttl_s=ttl_s)))
    result = "{}" if ttl_ms is None else f'{{"ttlMs":{ttl_ms}}}'
    assert entry(what, message(result), max_ttl_s=max_ttl_s).fresh_s == fresh_s


@pytest.mark.parametrize("method", HINTED)
def test_hints_say_how_long(method: str) -> None:
    what = hinted(method)
    found = entry(what, message('{"ttlMs":5000,"cacheScope":"private"}'))
    assert (found.fresh_s, found.swr_s, found.sie_s, found.target) == (5, 0, 0, "")
    assert entry(what, message('{"ttlMs":5000}'), max_ttl_s=2).fresh_s == 2


@pytest.mark.parametrize(
    "ttl",
    [
        *("0", "-1", "0.5", "1000.0", "1e3", "null", '"1000"', "true", "[1000]", "{}"),
        *("-0", "1" + "0" * 15, "9" * 400, '""'),
    ],
)
def test_an_odd_time_to_live_is_none(ttl: str) -> None:
    """CACHE-038, CACHE-041, CACHE-042."""
    for what in (hinted(), hinted(revision=LEGACY), permit()):
        assert kept(what, message(f'{{"tools":[],"ttlMs":{ttl}}}'), legacy_lists_ttl_s=5) is None


def test_without_a_hint_a_hinted_method_is_not_kept() -> None:
    assert kept(hinted(), message('{"tools":[],"cacheScope":"public"}')) is None


def test_older_lists_are_kept_as_long_as_the_operator_says() -> None:
    what = hinted(revision=LEGACY, session="s-1")
    assert entry(what, message('{"tools":[]}'), legacy_lists_ttl_s=5).fresh_s == 5
    assert entry(what, message('{"tools":[]}'), legacy_lists_ttl_s=5, max_ttl_s=2).fresh_s == 2
    assert entry(what, message('{"tools":[],"ttlMs":1000}'), legacy_lists_ttl_s=5).fresh_s == 1


def test_older_lists_of_two_sessions_are_two() -> None:
    one, other = (
        entry(hinted(revision=LEGACY, session=session), message('{"tools":[]}'), legacy_lists_ttl_s=5)
        for session in ("s-1", "s-2")
    )
    assert one.material != other.material


# For whom


@pytest.mark.parametrize(
    ("share", "scope", "shared"),
    [
        ("caller", "", False),
        ("caller", '"public"', False),
        ("tenant", "", True),
        ("tenant", '"public"', True),
        ("tenant", '"private"', False),
        ("all", "", True),
        ("all", '"public"', True),
        ("all", '"private"', False),  # CACHE-005
        ("all", '"Public"', False),
        ("all", "null", False),
        ("all", '["public"]', False),
        ("all", '"shared"', False),
    ],
)
def test_the_narrower_of_rule_and_server_says_for_whom(share: Any, scope: str, shared: bool) -> None:
    what = permit(structs.replace(READS, keep=structs.replace(KEEP, share=share)))
    assert is_shared(what, message(f'{{"cacheScope":{scope}}}' if scope else "{}")) is shared


def test_a_private_answer_by_its_http_header_is_private() -> None:
    what = permit(structs.replace(READS, keep=structs.replace(KEEP, share="all")))
    headers = make_headers(content_type="application/json", cache_control="private")
    assert not is_shared(what, message(), headers=headers)


@pytest.mark.parametrize(
    ("scope", "shared"),
    [('"public"', True), ('"private"', False), ("", False), ("null", False), ('"p\\u0075blic"', False)],
)
def test_hints_are_private_unless_they_say_public(scope: str, shared: bool) -> None:
    """An absent scope is private: the final specification demands one, and SDKs assume so."""
    more = f',"cacheScope":{scope}' if scope else ""
    found = entry(hinted(), message(f'{{"tools":[],"ttlMs":5000{more}}}'))
    assert (found.tenant == "") is shared
    assert is_shared(hinted(), message(f'{{"tools":[],"ttlMs":5000{more}}}')) is shared


def test_a_list_in_events_is_for_its_caller_alone() -> None:
    """Events are cut to what their caller may see before they come to the cache; whole answers are cut behind it."""
    text, events = (
        message('{"tools":[],"ttlMs":5000,"cacheScope":"public"}'),
        make_headers(content_type="text/event-stream"),
    )
    assert is_shared(hinted(), text)
    assert not is_shared(hinted(), text, headers=events)
    assert is_shared(
        permit(structs.replace(READS, keep=structs.replace(KEEP, share="all"))), text, headers=events
    )


def test_nothing_is_kept_of_what_nobody_asked() -> None:
    assert kept(permit(id=None), message(id="null")) is None


def test_older_lists_are_never_for_others() -> None:
    text = message('{"tools":[],"ttlMs":5000,"cacheScope":"public"}')
    assert not is_shared(hinted(revision=LEGACY), text, legacy_lists_ttl_s=5)


def test_what_somebody_wrote_into_an_argument_that_does_not_count_is_not_for_others() -> None:
    """CACHE-050."""
    keep = structs.replace(KEEP, share="all", ignore=("inject",))
    rule = structs.replace(READS, keep=keep)
    bare = permit(rule, params={"name": "pub_echo", "arguments": {"q": "x"}})
    more = permit(rule, params={"name": "pub_echo", "arguments": {"q": "x", "inject": "<b>"}})
    assert is_shared(bare, message())
    assert not is_shared(more, message())


# What is not there


NEGATIVE: Final = structs.replace(
    READS, keep=structs.replace(KEEP, negative_ttl_s=2, share="all", stale_if_error_s=9)
)


@pytest.mark.parametrize("code", ["-32601", "-32602"])
@pytest.mark.parametrize("status", [200, 400, 404])
def test_not_found_is_kept_for_its_caller_where_a_rule_says_so(code: str, status: int) -> None:
    found = entry(permit(NEGATIVE), failed(code, data={"a": 1}), status=status)
    assert (found.is_error, found.status, found.fresh_s, found.swr_s, found.sie_s) == (True, status, 2, 0, 0)
    assert found.result == b'{"code":' + code.encode() + b',"message":"no","data":{"a": 1}}'
    assert b'["caller",' in found.material
    assert entry(permit(NEGATIVE), failed(code), max_ttl_s=1).fresh_s == 1


def test_errors_are_not_kept() -> None:
    """CACHE-006."""
    assert kept(permit(), failed()) is None
    assert kept(hinted(), failed()) is None
    assert kept(hinted(revision=LEGACY), failed(), legacy_lists_ttl_s=5) is None


@pytest.mark.parametrize("code", ["-32603", "-32600", "-32020", "-32602.0", '"-32602"', "null", "403"])
def test_other_errors_are_never_kept(code: str) -> None:
    assert kept(permit(NEGATIVE), failed(code)) is None


@pytest.mark.parametrize("status", [201, 401, 403, 429, 500, 503])
def test_errors_with_another_status_are_never_kept(status: int) -> None:
    assert kept(permit(NEGATIVE), failed(), status=status) is None


@pytest.mark.parametrize(
    "error", ["null", "[]", '"no"', '{"message":"no"}', '{"code":-32602,"code":-32602}', '{"code":[-32602]}']
)
def test_an_odd_error_is_not_kept(error: str) -> None:
    assert kept(permit(NEGATIVE), f'{{"jsonrpc":"2.0","id":1,"error":{error}}}'.encode()) is None


# Event streams


def heard(*chunks: bytes, max_bytes: int = 1_000) -> bytes | None:
    overheard = Overheard(max_bytes)
    for chunk in chunks:
        overheard.feed(chunk)
    return overheard.ended()


ANSWER: Final = message()
EVENT: Final = b"event: message\ndata: " + ANSWER + b"\n\n"
NOTE: Final = b'data: {"jsonrpc":"2.0","method":"notifications/message"}\n\n'


@pytest.mark.parametrize(
    "stream",
    [
        EVENT,
        b": ping\n\n" + EVENT + b": ping\n\n",
        b"id: 1\nretry: 500\ndata: \n\n" + EVENT,
        b"id: 1\ndata:\n\nid: 2\n" + EVENT,
        b"retry: 500\n\n" + EVENT,
        b"data: " + ANSWER + b"\r\n\r\n",
        b"\xef\xbb\xbf" + EVENT,
    ],
)
def test_a_stream_with_one_answer_is_that_answer(stream: bytes) -> None:
    assert heard(stream) == ANSWER
    assert heard(*(stream[at : at + 1] for at in range(len(stream)))) == ANSWER


@pytest.mark.parametrize(
    "stream",
    [
        b"",
        b": ping\n\n",
        b"id: 1\ndata: \n\n",
        EVENT[:-1],  # CACHE-010: without the blank line it was cut off
        EVENT[:-10],
        EVENT + b"data: {",
        NOTE + EVENT,
        EVENT + NOTE,
        EVENT + EVENT,
        b"data: hello\n\n" + EVENT,
        b"event: endpoint\n" + EVENT.removeprefix(b"event: message\n"),
    ],
)
def test_a_stream_with_anything_else_is_not_kept(stream: bytes) -> None:
    """Another caller would miss what came beside the answer."""
    assert heard(stream) is None


def test_a_lone_notification_is_no_answer() -> None:
    found = heard(NOTE)
    assert found is not None
    assert kept(permit(), found, headers=make_headers(content_type="text/event-stream")) is None


def test_an_answer_on_several_lines_is_one() -> None:
    assert (
        heard(b'data: {"jsonrpc":"2.0",\ndata: "id":1,"result":{}}\n\n')
        == b'{"jsonrpc":"2.0",\n"id":1,"result":{}}'
    )


def test_an_event_that_is_too_long_ends_the_listening() -> None:
    assert heard(b"data: " + b"x" * 2_000) is None
    assert heard(b"data: " + b"x" * 2_000, b"\n\n", EVENT) is None
    assert heard(b"data: " + b"x" * 2_000 + b"\n\n" + EVENT) is None
    assert heard(EVENT + b"data: " + b"x" * 2_000) is None
