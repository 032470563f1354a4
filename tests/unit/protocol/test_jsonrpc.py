"""Strict JSON and the envelope: what two readers could read differently is not read at all."""

import json
import math
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy.model import Reason, Refused, RequestId
from proxy.protocol.jsonrpc import (
    INVALID_PARAMS,
    INVALID_REQUEST,
    MAX_DEPTH,
    MAX_STRUCTURE,
    PARSE_ERROR,
    Message,
    can_be_named,
    check_tree,
    read_json,
    read_message,
)
from tests.fakes import no
from tests.unit.protocol.patience import peak_bytes, processor_seconds


def read(text: str | bytes) -> Message:
    body = text if isinstance(text, bytes) else text.encode()
    return read_message(read_json(body), body)


def refusal(text: str | bytes) -> Refused:
    return no(lambda: read(text))


def request(**members: object) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": "ping", **members}).encode()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b"{}x",
        b"{} {}",
        b"{}\x00",
        b"\x00{}",
        b"{}\x0b",
        b"\xa0{}",
        b"// words\n{}",
        b"[1,]",
        b"{'a':1}",
        b"{a:1}",
        b"[01]",
        b"[+1]",
        b"[.5]",
        b"[1.]",
        b"[0x1]",
        b"[True]",
        b"[NaN]",
        b"[Infinity]",
        b"[-Infinity]",
        b'["a\nb"]',
        b'["\x00"]',
        b'["\\x41"]',
        b'["\\ud800"]',
        b'["\\udc00\\ud800"]',
        b'["\xed\xa0\x80"]',
        b'["\xc0\xaf"]',
        b'["\xff"]',
        b"\xef\xbb\xbf{}",
        "{}".encode("utf-16"),
        "{}".encode("utf-16-be"),
        "{}".encode("utf-32"),
        b"[" + b"1" * 4_301 + b"]",
    ],
)
def test_what_is_not_json_in_utf_8_is_a_parse_error(body: bytes) -> None:
    """RFC 8259 sections 2 to 8; protocol.md 3.9: 400 and -32700."""
    refused = no(lambda: read_json(body))
    assert (refused.reason, refused.code, refused.id) == (Reason.MALFORMED, PARSE_ERROR, None)


@pytest.mark.parametrize(
    "body",
    [
        b'{"method":1,"method":2}',
        b'{"method":1,"m\\u0065thod":2}',
        b'{"a":{"s3cret":1,"s3cret":1}}',
        b'[[[{"a":1,"b":2,"a":3}]]]',
        b'{"":1,"":2}',
        b'{"a":1,"b":{"c":[{"d":1},{"d":1,"d":2}]}}',
    ],
)
def test_a_key_that_comes_twice_is_refused_at_any_depth(body: bytes) -> None:
    """Every server tried takes the last duplicate (protocol.md 3.7); the key itself is not repeated to anybody."""
    refused = no(lambda: read_json(body))
    assert (refused.reason, refused.code) == (Reason.MALFORMED, PARSE_ERROR)
    assert "twice" in refused.why
    assert "s3cret" not in refused.why


@pytest.mark.parametrize("number", [b"1e400", b"-1e400", b"1e999999999", b"9" * 400 + b".0"])
def test_a_number_that_overflows_is_refused(number: bytes) -> None:
    """1e400 is Infinity by another name, which JSON does not have (RFC 8259 section 6)."""
    assert no(lambda: read_json(b'{"a":[1,{"b":' + number + b"}]}")).reason is Reason.MALFORMED


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("18446744073709551616", 2**64),
        ("-9007199254740993", -(2**53) - 1),
        ("1" * 4_300, int("1" * 4_300)),
        ("1e-400", 0.0),
        ('"\\ud83d\\ude00"', "\U0001f600"),
        ('"\\u0000"', "\0"),
        (' \t\r\n{"a":[]} \n', {"a": []}),
    ],
)
def test_what_is_odd_but_json_is_read_exactly(text: str, value: object) -> None:
    """protocol.md 3.6: big integers are exact, and only what two readers dispute is refused."""
    assert read_json(text.encode()) == value


@pytest.mark.parametrize("opening", ["[", '{"a":', '[{"a":'])
@pytest.mark.parametrize("beyond", [1, 135, 136, 137, 60_000])
def test_nesting_stops_at_the_limit_exactly(opening: str, beyond: int) -> None:
    """design section 4: JSON depth 64, the message itself included."""
    closing = opening.replace('"a":', "").translate(str.maketrans("[{", "]}"))[::-1]

    def nested(depth: int) -> bytes:
        times, odd = divmod(depth, len(closing))
        return ("[" * odd + opening * times + "1" + closing * times + "]" * odd).encode()

    read_json(nested(MAX_DEPTH))
    refused = no(lambda: read_json(nested(MAX_DEPTH + beyond), max_structure=10**6))
    assert refused.reason is Reason.MALFORMED
    assert "deep" in refused.why


trees = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(0, 9)
    | st.text(max_size=2)
    | st.sampled_from([0.5, -1e300, math.inf]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=2), inner, max_size=4),
    max_leaves=20,
)


@given(tree=trees, most=st.integers(1, 6))
@example(tree={"a": [[], math.inf]}, most=3)
@example(tree={"a": [[], [], [], math.inf]}, most=3)
@example(tree={"a": [[], [], [], [[]]]}, most=3)
@example(tree={"a": [[], [], [], []]}, most=3)
@example(tree={"a": [{"b": []}]}, most=3)
def test_a_tree_of_any_shape_is_checked_to_its_end(tree: object, most: int) -> None:
    """Issue 10; design section 4, JSON depth. Compared with what depth means."""

    def says(value: object, depth: int) -> set[str]:
        if isinstance(value, float):
            return set() if math.isfinite(value) else {"large"}
        if not isinstance(value, list | dict):
            return set()
        inner = value.values() if isinstance(value, dict) else value
        here = {"deep"} if depth >= most else set[str]()
        return here.union(*(says(each, depth + 1) for each in inner))

    expected = says(tree, 0)
    if not expected:
        check_tree(tree, most)
    else:
        why = no(lambda: check_tree(tree, most)).why
        assert [word for word in expected if word in why], why


@pytest.mark.parametrize(
    "make", [lambda n: b"[" + b"1," * (n - 1) + b"1]", lambda n: b"[" * n, lambda n: b"{" * n]
)
def test_structure_stops_at_the_limit_exactly(make: Callable[[int], bytes]) -> None:
    """design section 8: a cap on structural bytes before parsing, or 4 MiB of `[]` cost 600 ms."""
    told = f"more than {MAX_STRUCTURE} elements"
    assert told in no(lambda: read_json(make(MAX_STRUCTURE + 1))).why
    within = make(MAX_STRUCTURE)
    if within.endswith(b"]"):
        assert read_json(within) == [1] * MAX_STRUCTURE
    else:
        assert told not in no(lambda: read_json(within)).why


structural_text = st.text(alphabet=',[]{}:"\\ a\n\u00e9', max_size=12)


@given(strings=st.lists(structural_text, min_size=1, max_size=12), ascii_only=st.booleans())
@example(strings=["\\", ",,,,,,,,"], ascii_only=True)
@example(strings=['\\",', '"', "[[[[[[[["], ascii_only=True)
@settings(max_examples=150, deadline=None)
def test_what_stands_in_strings_is_no_structure(strings: list[str], ascii_only: bool) -> None:
    """Own promise: code and prose full of commas, brackets and escaped quotes are one value each."""
    body = json.dumps(strings, ensure_ascii=ascii_only, separators=(",", ":")).encode()
    structure = len(strings)  # one bracket, and a comma between each two
    assert read_json(body, max_structure=structure) == strings
    assert no(lambda: read_json(body, max_structure=structure - 1)).reason is Reason.MALFORMED


def test_an_object_below_the_limit_is_read() -> None:
    """Own promise: `max_structure` counts commas and brackets outside strings, and 40,000 are below it."""
    value = {str(n): "a,b" for n in range(40_000)}
    assert read_json(json.dumps(value).encode()) == value


def test_one_long_text_is_counted_without_memory_of_its_own() -> None:
    """design section 8: a sidecar of 64 MB; one call of 1 MiB of prose must not take 120."""
    body = b'["' + b"," * (MAX_STRUCTURE + 1) + b"x" * 500_000 + b'"]'
    assert peak_bytes(lambda: read_json(body)) < 8 * len(body)


@pytest.mark.parametrize("end", [b"", b"\\"])
def test_an_unclosed_string_is_refused_in_linear_time(end: bytes) -> None:
    """design section 8: no body blocks the loop for longer than 100 ms."""
    body = b'"' + b"," * (MAX_STRUCTURE + 1) + b'\\"' * 500_000 + end
    with processor_seconds(1):
        assert no(lambda: read_json(body)).reason is Reason.MALFORMED


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("[]", INVALID_REQUEST),
        ("null", INVALID_REQUEST),
        ('"x"', INVALID_REQUEST),
        ("{}", INVALID_REQUEST),
        ('{"jsonrpc":"2.0"}', INVALID_REQUEST),
        ('{"jsonrpc":"2.0","id":1}', INVALID_REQUEST),
        ('{"id":1,"method":"ping"}', INVALID_REQUEST),
        ('{"jsonrpc":"1.0","id":1,"method":"ping"}', INVALID_REQUEST),
        ('{"jsonrpc":"2.0 ","id":1,"method":"ping"}', INVALID_REQUEST),
        ('{"jsonrpc":2.0,"id":1,"method":"ping"}', INVALID_REQUEST),
        ('{"jsonrpc":2,"id":1,"method":"ping"}', INVALID_REQUEST),
        ('{"jsonrpc":"2.0","id":1,"method":""}', INVALID_REQUEST),
        ('{"jsonrpc":"2.0","id":1,"method":null}', INVALID_REQUEST),
        ('{"jsonrpc":"2.0","id":1,"method":["ping"]}', INVALID_REQUEST),
        ('{"jsonrpc":"2.0","id":1,"method":"pi\\u0000ng"}', INVALID_REQUEST),
        ('{"jsonrpc":"2.0","id":1,"method":"pi\\nng"}', INVALID_REQUEST),
        ('{"jsonrpc":"2.0","id":1,"method":"pi\\u0085ng"}', INVALID_REQUEST),
        ('{"jsonrpc":"2.0","id":1,"method":"' + "m" * 257 + '"}', INVALID_REQUEST),
        ('{"jsonrpc":"2.0","id":1,"method":"ping","result":{}}', INVALID_REQUEST),
        ('{"jsonrpc":"2.0","id":1,"method":"ping","error":null}', INVALID_REQUEST),
        ('{"jsonrpc":"2.0","id":1,"method":"ping","params":null}', INVALID_PARAMS),
        ('{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}', INVALID_PARAMS),
        ('{"jsonrpc":"2.0","id":1,"method":"ping","params":{"_meta":null}}', INVALID_PARAMS),
        ('{"jsonrpc":"2.0","id":1,"method":"ping","params":{"_meta":[]}}', INVALID_PARAMS),
        ('{"jsonrpc":"2.0","id":1,"result":{},"error":{}}', INVALID_REQUEST),
        ('{"jsonrpc":"2.0","id":1,"error":"no"}', INVALID_REQUEST),
        ('{"jsonrpc":"2.0","result":{}}', INVALID_REQUEST),
    ],
)
def test_what_is_no_message_is_refused(text: str, code: int) -> None:
    """JSON-RPC 2.0 sections 4 and 5; the refusal carries the id where one was read (protocol.md 3.3)."""
    refused = refusal(text)
    assert (refused.reason, refused.code) == (Reason.MALFORMED, code)
    assert refused.id == (1 if '"id":1' in text else None)


FOLDINGS = [
    str.upper,
    str.capitalize,
    lambda key: key.replace("s", "\u017f").replace("k", "\u212a"),
    lambda key: key + "\0",
    lambda key: "\0" + key,
    lambda key: key[0] + "\0" + key[1:],
    lambda key: key + " ",
    lambda key: "\t" + key,
    lambda key: key + "\u00a0",
    lambda key: "\u2028" + key,
    lambda key: key + "\x7f",
    lambda key: key[:-1] + "\u0085" + key[-1],
]


@pytest.mark.parametrize("fold", FOLDINGS)
@pytest.mark.parametrize(
    ("where", "keys"),
    [
        ("envelope", ("jsonrpc", "id", "method", "params", "result", "error")),
        (
            "params",
            ("name", "arguments", "uri", "_meta", "task", "taskId", "protocolVersion", "requestState"),
        ),
        ("_meta", ("progressToken", "io.modelcontextprotocol/protocolVersion", "baggage")),
    ],
)
def test_a_key_that_resembles_a_known_one_is_refused(
    where: str, keys: tuple[str, ...], fold: Callable[[str], str]
) -> None:
    """CVE-2026-27896 and its kin (protocol.md 3.7): lenient readers take these for what they resemble."""
    for key in keys:
        twin = fold(key)
        if twin == key:
            continue
        inner = {"_meta": {twin: 1}} if where == "_meta" else {twin: 1}
        body = request(**({twin: 1} if where == "envelope" else {"params": inner}))
        refused = refusal(body)
        assert (refused.reason, refused.code, refused.id) == (Reason.MALFORMED, INVALID_REQUEST, 1)
        assert "resembles" in refused.why
        assert twin not in refused.why


@pytest.mark.parametrize(
    "params",
    [
        {"names": 1, "nam": 2, "x-name": 3},
        {"arguments": {"NAME": 1, "name": 2, "Method": 3}, "name": "n"},
        {"_meta": {"com.example/ProgressToken": 1, "": 2}},
    ],
)
def test_other_keys_pass_whatever_they_are(params: dict[str, object]) -> None:
    """protocol.md 3.5: unknown fields survive; inside `arguments` every spelling is the tool's business."""
    assert read(request(params=params)).params == params


@pytest.mark.parametrize(
    ("text", "id"),
    [
        ("0", 0),
        ("-0", 0),
        ('""', ""),
        ('"0"', "0"),
        ("-1", -1),
        (str(2**64), 2**64),
        (str(2**256 - 1), 2**256 - 1),
        ('"' + "i" * 1_024 + '"', "i" * 1_024),
        ('"\\u0000\\n"', "\0\n"),
    ],
)
def test_an_id_keeps_its_type_and_value(text: str, id: RequestId) -> None:
    """protocol.md 3.1: 0 is common, and 1 is not "1"."""
    message = read('{"jsonrpc":"2.0","method":"ping","id":' + text + "}")
    assert (message.shape, type(message.id), message.id) == ("request", type(id), id)


@pytest.mark.parametrize(
    "method",
    [
        "tools/call ",
        " tools/call",
        "Tools/Call",
        "TOOLS/CALL",
        "tools /call",
        "tools/call/",
        "ｔools/call",
        "tools\u00a0/call",
        "resources/Read",
        "Ping",
        "INITIALIZE",
        "tasks/Cancel",
    ],
)
def test_a_method_of_the_protocol_is_written_in_one_way(method: str) -> None:
    """Regression: rules for `*` let `tools/call ` pass as a method nobody knows, to servers that may trim it."""
    refused = refusal(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": {"name": "t"}}))
    assert (refused.reason, refused.code) == (Reason.MALFORMED, INVALID_REQUEST)


@pytest.mark.parametrize(
    "method", ["tools/caller", "x/tools/call", "Custom/Thing", "tools.call", "toolscall", "pings"]
)
def test_methods_of_extensions_keep_their_names(method: str) -> None:
    assert read(json.dumps({"jsonrpc": "2.0", "id": 1, "method": method})).method == method


@pytest.mark.parametrize(
    "text",
    [
        "null",
        "true",
        "false",
        "1.5",
        "1.0",
        "1e2",
        "-0.0",
        "[]",
        "[1]",
        "{}",
        str(2**256),
        '"' + "i" * 1_025 + '"',
    ],
)
def test_what_is_no_id_is_refused_and_not_taken_for_a_notification(text: str) -> None:
    """protocol.md 3.2: Python servers take a null or fractional id for a notification, TypeScript refuses it."""
    refused = refusal('{"jsonrpc":"2.0","method":"ping","id":' + text + "}")
    assert (refused.reason, refused.code, refused.id) == (Reason.MALFORMED, INVALID_REQUEST, None)


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("tools/call", {}),
        ("tools/call", {"name": None}),
        ("tools/call", {"name": ""}),
        ("tools/call", {"name": ["echo"]}),
        ("tools/call", {"name": 1}),
        ("tools/call", {"name": "a\0b"}),
        ("tools/call", {"name": "a\nb"}),
        ("tools/call", {"name": "a\x9fb"}),
        ("tools/call", {"name": "n" * 1_025}),
        ("tools/call", {"name": "n", "arguments": []}),
        ("tools/call", {"name": "n", "arguments": "{}"}),
        ("tools/call", {"uri": "n"}),
        ("prompts/get", {"uri": "n"}),
        ("resources/read", {"name": "n"}),
        ("resources/read", {"uri": "u" * 8_193}),
    ],
)
def test_a_method_that_names_something_names_it_well(method: str, params: dict[str, object]) -> None:
    """protocol.md 2.2: what policy decides on; -32602 is what both SDKs say."""
    refused = refusal(request(method=method, params=params))
    assert (refused.reason, refused.code, refused.id) == (Reason.MALFORMED, INVALID_PARAMS, 1)


@pytest.mark.parametrize(
    ("method", "params", "target"),
    [
        ("tools/call", {"name": "n" * 1_024, "arguments": None}, "n" * 1_024),
        ("tools/call", {"name": "Caf\u00e9 \u2028/../", "uri": "x"}, "Caf\u00e9 \u2028/../"),
        ("prompts/get", {"name": "p", "arguments": {"a": "b"}}, "p"),
        ("resources/read", {"uri": "file:///a%00b", "name": "x"}, "file:///a%00b"),
        ("tools/list", {"name": "n"}, None),
    ],
)
def test_a_target_is_the_exact_text(method: str, params: dict[str, object], target: str | None) -> None:
    """protocol.md section 5: exact code points, never normalised or case-folded."""
    assert read(request(method=method, params=params)).target == target


@pytest.mark.parametrize(("method", "member"), [("tools/call", "name"), ("resources/read", "uri")])
@pytest.mark.parametrize(
    "target",
    [
        "",
        "n",
        "n" * 1_024,
        "n" * 1_025,
        "n" * 8_193,
        "é\u2028",
        "a\nb",
        "\x7f",
        "\x9f",
        "\ud800",
        None,
        1,
        ["n"],
        {},
    ],
)
def test_what_can_be_named_is_what_a_call_may_name(method: str, member: str, target: object) -> None:
    """Own promise: a list shows exactly what a call allows."""
    text = request(method=method, params={member: target})
    try:
        was_named = read(text).target == target
    except Refused:
        was_named = False
    assert can_be_named(target, member) == was_named


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            '{"method":"notifications/cancelled","jsonrpc":"2.0","params":{"requestId":1},"trace":true}',
            {"shape": "notification", "method": "notifications/cancelled", "params": {"requestId": 1}},
        ),
        (
            '{"jsonrpc":"2.0","id":"a","method":"ping","params":{"_meta":{"progressToken":0}}}',
            {
                "shape": "request",
                "id": "a",
                "method": "ping",
                "params": {"_meta": {"progressToken": 0}},
                "meta": {"progressToken": 0},
            },
        ),
        ('{"jsonrpc":"2.0","id":0,"result":null}', {"shape": "answer", "id": 0}),
        ('{"jsonrpc":"2.0","id":"","error":{"code":1}}', {"shape": "answer", "id": ""}),
    ],
)
def test_a_message_is_what_it_says(text: str, expected: dict[str, object]) -> None:
    """JSON-RPC 2.0: a notification has no id; an answer has one, and a result or an error."""
    assert read(text) == Message(body=text.encode(), **expected)  # type: ignore[arg-type]  # one table, many types
