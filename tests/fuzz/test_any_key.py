"""Two calls have one key if, and only if, they are the same by everything that counts, however they are written; and
what is told again is what was said, but for `ttlMs` and our mark."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from typing import Any, Final

from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec import Struct, structs

from proxy.cache.entry import MARK, Entry, State, age, decode, encode, places_in, served
from proxy.cache.key import META_NOT_COUNTED, Keying, Keys, Share
from proxy.cache.settings import CacheSettings
from proxy.cache.worth import Overheard, Worth
from proxy.model import Headers, Keep, Permit, Principal, RequestId, Revision, Rule
from proxy.protocol.answers import Malformed, read_answers, read_tree
from proxy.protocol.jsonrpc import read_json
from proxy.protocol.revisions import BY_NAME
from tests.fakes import make_call, make_headers
from tests.fuzz import hostile
from tests.fuzz.bounded import FUZZ, examples

NOON: Final = 1_800_000_000.0

# Values that resemble each other
NAMES: Final = ["a", "b", "A", "q", "n", "\u00e9", "e\u0301", "", "_meta", "arguments", "a\\", '"', "\u2028"]
NUMBERS: Final = [0, 0.0, -0.0, 1, 1.0, -1, 2**64, 2**64 + 1, 2.0**64, 10**23, 1e23, 0.1, 1e-7, 9 * 10**300]
SCALARS: Final = [
    *NUMBERS,
    True,
    False,
    None,
    "0",
    "1",
    "1.0",
    "true",
    "null",
    "[]",
    *NAMES,
    "\U0001f600",
    "\0",
]

scalars = (
    st.sampled_from(SCALARS)
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=4)
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=3),
    max_leaves=6,
)
objects = st.dictionaries(st.sampled_from(NAMES), values, max_size=4)


class Case(Struct, frozen=True, kw_only=True):
    """All that a key is made of, apart from how it is written."""

    upstream: str = "u"
    generation: str = "g"
    revision: str = "2026-07-28"
    method: str = "tools/call"
    params: Mapping[str, Any] = {}
    session: str | None = None
    query: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    definition: str = ""
    rule: str = "r"
    ignore: tuple[str, ...] = ()
    only: tuple[str, ...] | None = None
    any_session: bool = False
    share: Share = "caller"
    issuer: str = "i"
    subject: str = "s"
    tenant: str = "t"
    roles: frozenset[str] = frozenset()
    scopes: frozenset[str] = frozenset()


words = st.sampled_from(["", "a", "b", "ab", '"', ",", '","', "\u00e9"])
params = st.builds(
    lambda more, arguments, meta: {**more, **arguments, **meta},
    st.dictionaries(st.sampled_from(["name", "uri", "cursor", "x"]), values, max_size=2),
    st.just({})
    | objects.map(lambda each: {"arguments": each})
    | values.map(lambda each: {"arguments": each}),
    st.just({})
    | st.dictionaries(
        st.sampled_from(["x", "progressToken", *sorted(META_NOT_COUNTED)]), values, max_size=2
    ).map(lambda each: {"_meta": each}),
)
FIELDS: Final[Mapping[str, st.SearchStrategy[Any]]] = {
    "upstream": words,
    "generation": words,
    "revision": st.sampled_from(["2025-11-25", "2026-07-28"]),
    "method": st.sampled_from(["tools/call", "tools/list"]),
    "params": params,
    "session": st.none() | words,
    "query": words,
    "headers": st.lists(
        st.tuples(
            st.sampled_from(["x-a", "x-b", "accept-language", "user-agent", "authorization", "x-b3-a"]), words
        ),
        max_size=3,
    ).map(tuple),
    "definition": words,
    "rule": words,
    "ignore": st.sets(st.sampled_from(["a", "b"])).map(lambda each: tuple(sorted(each))),
    "only": st.none() | st.sets(st.sampled_from(["a", "q"])).map(lambda each: tuple(sorted(each))),
    "any_session": st.booleans(),
    "share": st.sampled_from(["caller", "tenant", "all"]),
    "issuer": words,
    "subject": words,
    "tenant": words,
    "roles": st.frozensets(words, max_size=3),
    "scopes": st.frozensets(words, max_size=3),
}
cases = st.builds(Case, **FIELDS)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Case, Case]:
    """A call and another that differs from it in little or nothing."""
    one = draw(cases)
    others = {name: draw(FIELDS[name]) for name in draw(st.sets(st.sampled_from(sorted(FIELDS)), max_size=2))}
    other = structs.replace(one, **others)
    if draw(st.booleans()):
        other = structs.replace(other, params=nearly(draw(st.randoms(use_true_random=False)), other.params))
    return one, other


def nearly(chance: random.Random, value: Any) -> Any:
    """The value, with perhaps one scalar replaced by one that resembles it."""
    if isinstance(value, dict) and value:
        name = chance.choice(sorted(value))
        return {**value, name: nearly(chance, value[name])}
    if isinstance(value, list) and value:
        at = chance.randrange(len(value))
        return [*value[:at], nearly(chance, value[at]), *value[at + 1 :]]
    alike = [each for each in SCALARS if each == value or str(each) == str(value)]
    return chance.choice([*alike, value])


# The reference: what is the same?


def same(one: object, other: object) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return repr(one) == repr(other) if isinstance(one, float) else one == other


def counted(case: Case) -> list[object]:
    """What of a call counts for whoever it is for."""
    params = {name: value for name, value in case.params.items() if name != "_meta"}
    if isinstance(params.get("arguments"), dict):
        params["arguments"] = {
            name: value
            for name, value in params["arguments"].items()
            if name not in case.ignore and (case.only is None or name in case.only)
        }
    meta = case.params.get("_meta", {})
    headers: dict[str, list[str]] = {}
    for name, value in case.headers:
        if name in ("x-a", "x-b", "accept-language"):
            headers.setdefault(name, []).append(value)
    return [
        *(case.upstream, case.generation, case.revision, case.method, case.query, case.definition, case.rule),
        None if case.any_session else case.session,
        *(case.any_session, list(case.ignore), None if case.only is None else list(case.only)),
        *(params, headers),
        {name: meta[name] for name in meta if name not in META_NOT_COUNTED} if isinstance(meta, dict) else {},
    ]


def whose(case: Case) -> list[object]:
    return [case.issuer, case.subject, case.tenant, sorted(case.roles), sorted(case.scopes)]


def audience(case: Case) -> list[object]:
    return [case.share, case.tenant if case.share == "tenant" else ""]


# The same in the machine


def spelt(chance: random.Random, value: object) -> str:
    """JSON of a value: any order of keys, any blanks, any escapes."""
    blank = chance.choice(["", "", " ", "\n\t "])
    if isinstance(value, dict):
        members = [
            f"{spelt(chance, name)}{blank}:{blank}{spelt(chance, each)}" for name, each in value.items()
        ]
        chance.shuffle(members)
        return "{" + blank + f"{blank},".join(members) + blank + "}"
    if isinstance(value, list):
        return "[" + f",{blank}".join(spelt(chance, each) for each in value) + blank + "]"
    if isinstance(value, str) and chance.random() < 0.3:
        return '"' + "".join(f"\\u{unit:04x}" for unit in _units(value)) + '"'
    return json.dumps(value, ensure_ascii=chance.random() < 0.5)


def _units(text: str) -> list[int]:
    data = text.encode("utf-16-be", "surrogatepass")
    return [int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2)]


def keys_of(case: Case, chance: random.Random) -> Keys:
    read = read_json(spelt(chance, case.params).encode())
    assert isinstance(read, dict)
    fields = sorted(case.headers, key=lambda pair: pair[0]) if chance.random() < 0.5 else case.headers
    call = make_call(
        id="mine" if chance.random() < 0.5 else 1,
        revision=BY_NAME[case.revision],
        method=case.method,
        params=read,
        session=case.session,
        query=case.query,
        headers=Headers(
            (chance.choice([name, name.upper()]).encode(), value.encode()) for name, value in fields
        ),
    )
    who = Principal(
        issuer=case.issuer, subject=case.subject, tenant=case.tenant, roles=case.roles, scopes=case.scopes
    )
    keep = Keep(ttl_s=1, ignore=case.ignore, only=case.only, any_session=case.any_session, share=case.share)
    keying = Keying(case.upstream, case.generation, stops=lambda name: name == b"authorization")
    rule = Rule(id=case.rule, tool_class="read", keep=keep)
    found = keying.keys(
        Permit(call=call, principal=who, rule=rule), share=case.share, keep=keep, definition=case.definition
    )
    assert found is not None
    return found


@settings(FUZZ, max_examples=examples(1_000))
@given(pairs(), st.randoms(use_true_random=False))
def test_two_calls_have_one_key_if_and_only_if_they_are_the_same(
    both: tuple[Case, Case], chance: random.Random
) -> None:
    one, other = both
    first, second = keys_of(one, chance), keys_of(other, chance)
    is_same = same(counted(one), counted(other))
    assert (first.own.digest == second.own.digest) == (is_same and same(whose(one), whose(other)))
    assert (first.own.material == second.own.material) == (first.own.digest == second.own.digest)
    for case, keys in ((one, first), (other, second)):
        assert (keys.shared is None) == (case.share == "caller")
        left_out = counted(case)[-3]
        arguments = case.params.get("arguments")
        assert isinstance(left_out, dict)
        assert keys.is_counted == (not isinstance(arguments, dict) or same(left_out["arguments"], arguments))
    if first.shared is not None and second.shared is not None:
        assert (first.shared.digest == second.shared.digest) == (is_same and audience(one) == audience(other))
        assert first.shared.tenant == (one.tenant if one.share == "tenant" else "")
    digests = {first.own.digest, second.own.digest}
    assert all(each.shared is None or each.shared.digest not in digests for each in (first, second))


@settings(FUZZ)
@given(st.lists(st.text(st.characters(), max_size=3), min_size=2, max_size=2))
@example(["\ud83d\ude00", "\U0001f600"])
@example(["\ud800", "\\ud800"])
def test_any_two_texts_are_the_same_code_point_by_code_point(texts: list[str]) -> None:
    """Also those with lone surrogates, which readers refuse."""
    keying = Keying("u", "g")
    digests = set()
    for text in texts:
        call = make_call(params={"name": "t", "arguments": {text: text}})
        who = Principal(issuer=text, subject="", tenant="")
        keys = keying.keys(Permit(call=call, principal=who, rule=Rule(id=text)), share="caller")
        assert keys is not None
        digests.add(keys.own.digest)
    assert len(digests) == len(set(texts))


# Told again

members = st.sampled_from(
    ["content", "ttlMs", "_meta", "cacheScope", MARK, "isError", "resultType", "\u00fc", ""]
)
times = st.sampled_from([0, 1, 5_000, 60_000, -1, 0.5, 1e3, None, True, "5000", 10**15, 10**400])
notes = st.dictionaries(
    st.sampled_from([MARK, "a", "dev.mcp-sidecar", "io.modelcontextprotocol/x"]), values, max_size=3
)
results = st.dictionaries(members, values, max_size=4).flatmap(
    lambda result: st.fixed_dictionaries({}, optional={"ttlMs": times, "_meta": notes | values}).map(
        lambda more: {**result, **more}
    )
)
ids: st.SearchStrategy[RequestId] = (
    st.integers(-(2**255), 2**255) | st.text(max_size=6) | st.sampled_from(['"', "\\"])
)


@settings(FUZZ, max_examples=examples(1_000))
@given(
    results,
    ids,
    st.floats(0, 100_000),
    st.sampled_from(["fresh", "stale"]),
    st.randoms(use_true_random=False),
)
def test_what_is_told_again_is_what_was_said(
    result: dict[str, Any], id: RequestId, later_s: float, state: State, chance: random.Random
) -> None:
    text = spelt(chance, result).encode()
    entry = Entry(
        material=b"m",
        result=text,
        stored_s=NOON,
        fresh_s=1e6,
        tenant="t",
        method="tools/list",
        target="",
        generation="g",
        places=chance.choice([None, places_in(text)]),
    )
    answer = served(entry, id, age(entry, NOON + later_s), state)
    again = decode(encode(entry))
    assert again == entry
    (said,) = read_answers(answer)  # strict: no member twice
    assert said.is_answer
    assert (type(said.id), said.id) == (type(id), id)
    told = said.result
    assert isinstance(told, dict)
    # Our mark, and nothing of an older one.
    meta = result.get("_meta", {})
    if isinstance(meta, dict):
        age_s = int(NOON + later_s - NOON)
        assert told["_meta"].pop(MARK) == {"age_s": age_s, "state": state}
        meta = {name: value for name, value in meta.items() if name != MARK}
        if "_meta" not in result:
            assert told.pop("_meta") == {}
        else:
            assert same(told.pop("_meta"), meta)
    else:
        assert same(told.pop("_meta"), meta)
    # Never longer than it was, never negative, never anything but a number.
    if "ttlMs" in result:
        left, before = told.pop("ttlMs"), result["ttlMs"]
        assert type(left) is int
        is_plain = type(before) is int and 0 <= before < 10**15
        is_fresh = is_plain and state == "fresh"
        assert 0 <= left <= (max(0, before - int((NOON + later_s - NOON) * 1_000)) if is_fresh else 0)
        if is_fresh:
            assert left >= before - (NOON + later_s - NOON) * 1_000 - 1
    assert same(told, {name: value for name, value in result.items() if name not in ("_meta", "ttlMs")})


# Whatever the server says

WORTH: Final = Worth(CacheSettings(), upstream="u", generation="g")
MODERN: Final[Revision] = BY_NAME["2026-07-28"]
RULE: Final = Rule(id="r", tool_class="read", keep=Keep(ttl_s=60, negative_ttl_s=1))
SOMEBODY: Final = Principal(issuer="i", subject="s", tenant="t")
spelt_objects = st.builds(spelt, st.randoms(use_true_random=False), objects | results)
nearly_answers = st.builds(
    '{{{}"jsonrpc":"2.0","id":{},"{}":{}{}}}'.format,
    st.sampled_from([""] * 8 + ['"error":null,', '"x":1,', '"id":1,']),
    st.sampled_from(["1"] * 8 + ['"1"', "1.0", " 1 "]),
    st.sampled_from(["result"] * 4 + ["error", "method"]),
    spelt_objects
    | spelt_objects
    | hostile.values
    | st.sampled_from(['{"code":-32602}', '{"isError":true}', '{"resultType":"input_required"}', "{}"]),
    st.sampled_from([""] * 8 + [',"result":{}', "}", " "]),
).map(lambda text: text.encode("utf-8", "surrogatepass"))


@settings(FUZZ)
@given(nearly_answers | nearly_answers | hostile.damaged(nearly_answers) | st.binary(max_size=40))
def test_of_whatever_the_server_says_only_an_answer_is_kept(text: bytes) -> None:
    permit = Permit(call=make_call(revision=MODERN, params={"name": "t"}), principal=SOMEBODY, rule=RULE)
    asked = WORTH.asked(permit)
    assert asked is not None
    keys = WORTH.keys(permit, asked)
    assert keys is not None
    made = WORTH.entry(
        permit,
        asked,
        keys,
        status=200,
        headers=make_headers(content_type="application/json"),
        text=text,
        wall=NOON,
    )
    try:
        message = read_tree(text)
    except Malformed:
        return  # judged before it comes to us, and refused
    if made is None:
        return
    _, entry = made
    assert isinstance(message, dict)
    name = "error" if entry.is_error else "result"
    assert message.keys() == {"jsonrpc", "id", name}
    assert (type(message["id"]), message["id"]) == (int, 1)
    assert same(read_tree(entry.result), message[name])
    assert message[name].get("isError", False) is False
    assert message[name].get("resultType", "complete") == "complete"


@settings(FUZZ)
@given(
    st.binary(max_size=60)
    | hostile.damaged(
        st.just(
            encode(
                Entry(
                    material=b"m",
                    result=b'{"a":1}',
                    stored_s=NOON,
                    fresh_s=1,
                    tenant="t",
                    method="m",
                    target="x",
                    generation="g",
                    places=places_in(b'{"a":1}'),
                )
            )
        )
    )
)
def test_any_bytes_at_rest_are_an_entry_that_can_be_told_or_none(data: bytes) -> None:
    entry = decode(data)
    if entry is not None:
        assert decode(encode(entry)) == entry


@settings(FUZZ)
@given(
    st.lists(
        st.sampled_from(
            [
                *(
                    b": ping\n\n",
                    b"id: 1\ndata: \n\n",
                    b"retry: 5\n\n",
                    b"data: {}\n\n",
                    b"data: [1]\n\n",
                    b"data: x\n\n",
                ),
                *(b"event: message\n", b"event: x\n", b"data: {\n", b"\r\n\r\n", b"\n", b"dat"),
            ]
        ),
        max_size=5,
    )
)
def test_a_stream_says_the_same_however_it_is_cut(pieces: list[bytes]) -> None:
    stream = b"".join(pieces)
    whole, cut = Overheard(40), Overheard(40)
    whole.feed(stream)
    for at in range(len(stream)):
        cut.feed(stream[at : at + 1])
    assert whole.ended() == cut.ended()
