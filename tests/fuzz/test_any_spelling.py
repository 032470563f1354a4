"""However a call is written: what is denied never reaches the server, by any reading of the bytes that do; and what is
permitted passes in every valid spelling, byte for byte."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeVar

from hypothesis import given, note
from hypothesis import strategies as st

from proxy.model import Principal
from proxy.protocol.revisions import TWO_ENDPOINTS
from tests.fuzz.bounded import FUZZ
from tests.fuzz.dice import RARELY, Dice, dice
from tests.integration.wire import MODERN, REVISIONS
from tests.unit.policy.hall import READERS, Hall, Pairs, Reader, Server, answering, coded

T = TypeVar("T")
PERMITTED: Final = ["echo", "\u00e9cho", "\U0001f600", "a/b"]
DENIED: Final = ["danger", "ghost", "d\u00e9ny", "\U0001f4a3", "rm/all"]
RULES: Final = [
    {"match": "ghost", "hidden": True},
    *({"match": name, "allow": []} for name in DENIED),
]
ANN: Final = Principal(issuer="i", subject="ann", tenant="t")
OLD_BATCHES: Final = "2025-03-26"
_META: Final = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientCapabilities": {},
}


def a_hall(dice: Dice) -> Hall:
    """All but a few names is allowed: whatever is read otherwise than it is judged comes through. Or only a few are,
    and nothing else."""
    closed = {"tools": [*RULES, *({"match": name, "allow": ["*"]} for name in PERMITTED)]}
    open_ = {"tools": [*RULES, {"match": "*", "allow": ["*"]}], "methods": {"*": {"allow": ["*"]}}}
    return Hall(dice.one([open_, open_, closed]), Server(answering({})), ANN)


# Readers behind us, from strict to careless.


def texts(body: bytes) -> Iterator[str]:
    """A body as somebody could decode it."""
    yield body.decode("utf-8", "replace")
    yield body.decode("utf-8-sig", "ignore")
    yield body.replace(b"\0", b"").decode("utf-8", "ignore")
    yield body.partition(b"\0")[0].decode("utf-8", "ignore")
    yield body.decode("latin-1")
    yield body.decode(json.detect_encoding(body), "replace")


def values(text: str, hook: Reader) -> Iterator[object]:
    """Every value in a text, also one that stands behind another or in the middle of rubbish."""
    decoder = json.JSONDecoder(object_pairs_hook=hook, strict=False)
    at = 0
    while (
        at := min((each for each in (text.find("{", at), text.find("[", at)) if each >= 0), default=-1)
    ) >= 0:
        try:
            value, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            at += 1
        else:
            yield value


def called(body: bytes) -> set[str]:
    """The tools that some reader would run."""
    found = set[str]()
    for text in set(texts(body)):
        for hook in READERS:
            waiting = list(values(text, hook))
            while waiting:
                one = waiting.pop()
                if isinstance(one, list):
                    waiting.extend(one)
                elif isinstance(one, dict) and one.get("method") == "tools/call":
                    found.update(_names(one.get("params")))
    return found


def _names(params: object) -> Iterator[str]:
    if isinstance(params, list):
        yield from (each for each in params if isinstance(each, str))
    name = params.get("name") if isinstance(params, dict) else None
    for each in name if isinstance(name, list) else [name]:
        if isinstance(each, str):
            yield each


def mirrored(head: Pairs) -> set[str]:
    """The names in Mcp-Name, as somebody could decode them."""
    found = set[str]()
    for key, value in head:
        text = value.decode("latin-1").strip()
        if key.lower() == b"mcp-name":
            found.add(value.decode("utf-8", "ignore").strip())
        if key.lower() == b"mcp-name" and text.lower().startswith("=?base64?"):
            try:
                found.add(base64.b64decode(text[9:].rstrip("?=") + "==").decode("utf-8", "ignore"))
            except binascii.Error:
                continue
    return found


# Spellings.


def text(dice: Dice, said: str) -> str:
    """A JSON string, any character of which may be escaped in any way."""
    return '"' + "".join(_character(dice, each) for each in said) + '"'


def _character(dice: Dice, each: str) -> str:
    units = each.encode("utf-16-be")
    escapes = [f"\\u{int.from_bytes(units[at : at + 2], 'big'):04x}" for at in range(0, len(units), 2)]
    escaped = "".join(escapes)
    return dice.one(
        [
            json.dumps(each, ensure_ascii=False)[1:-1],
            escaped,
            escaped.upper().replace("\\U", "\\u"),
            "\\/" if each == "/" else escaped,
        ]
    )


BLANKS: Final = ["", "", " ", "\n", "\t \r\n"]


def an_object(dice: Dice, members: Sequence[tuple[str, str]]) -> str:
    """A JSON object out of keys and values as they are spelt."""
    blank = dice.one(BLANKS)
    return "{" + ",".join(f"{blank}{key}{blank}:{value}{blank}" for key, value in members) + "}"


def a_value(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def inside(name: str) -> object:
    """A call that is only talked about."""
    return {"jsonrpc": "2.0", "id": 9, "method": "tools/call", "params": {"name": name}}


def a_call(dice: Dice, name: str, revision: str, id: int = 1) -> str:
    """One valid call: order, blanks, escapes and members of no consequence are chance."""
    params = [("name", text(dice, name)), ("arguments", a_value({"name": "danger", "x": [inside("danger")]}))]
    if revision == MODERN:
        params.append(("_meta", a_value(_META)))
    params += dice.some([("task", '{"ttl":60000}'), ("x", a_value({"name": "danger"}))], 1)
    message = [
        ("jsonrpc", text(dice, "2.0")),
        ("id", str(id)),
        ("method", text(dice, "tools/call")),
        ("params", _spelt(dice, params)),
    ]
    message += dice.some([("x-more", a_value([inside("danger")]))], 1)
    return dice.one(BLANKS) + _spelt(dice, message) + dice.one(BLANKS)


def _spelt(dice: Dice, members: Sequence[tuple[str, str]]) -> str:
    return an_object(dice, [(text(dice, key), value) for key, value in dice.shuffled(members)])


def fields(dice: Dice, name: str, revision: str) -> Pairs:
    """The header fields of a valid call."""
    pairs = [("content-type", "application/json")]
    if revision != OLD_BATCHES:
        pairs.append(("MCP-Protocol-Version", revision))
    if revision == MODERN or dice.one(RARELY):
        pairs += [("Mcp-Method", "tools/call"), ("Mcp-Name", name)]
    packed = f"=?base64?{base64.b64encode(name.encode()).decode()}?="
    coded_ = [
        (key, packed if key == "Mcp-Name" and dice.one(RARELY) else value) for key, value in coded(pairs)
    ]
    return [(key.encode(), value.encode()) for key, value in coded_]


# What attackers do to a call.

OTHER_NAMES: Final[list[Callable[[str], str]]] = [
    str,
    str.upper,
    str.title,
    lambda name: name.replace("a", "\u0430").replace("e", "\u0435"),
    lambda name: "".join(chr(ord(each) + 0xFEE0) if "!" <= each <= "~" else each for each in name),
    lambda name: name[:1] + "\u200b" + name[1:],
    lambda name: f"{name} ",
    lambda name: f"{name}\0",
    lambda name: f"\ufeff{name}",
    lambda name: "".join(f"%{byte:02x}" for byte in name.encode()),
    lambda name: f"../{name}",
    lambda name: name.replace("\u00e9", "e\u0301"),
]
KEYS: Final = [
    '"name"',
    '"n\\u0061me"',
    '"Name"',
    '"NAME"',
    '"name\\u0000"',
    '" name"',
    '"na\\u200bme"',
    '"uri"',
]
METHODS: Final = [
    *("tools/call", "Tools/Call", "tools/call ", "tools/call\0", "tools//call", "tools/list", "prompts/get"),
    *("completion/complete", "tasks/result", "notifications/tools/call", "tools/\u0441all", "initialize"),
]
IDS: Final = ["1", '"1"', None, "null", "1.5", "true", "[]", "-0", "1e0", "9" * 100]


TRICKS: Final = [
    *(
        "name",
        "type",
        "key",
        "twice",
        "twice above",
        "shape",
        "method",
        "id",
        "wrap",
        "wrap",
        "code",
        "fields",
    ),
    *("header", "header"),
]


class Attack:
    """A call of a denied tool, or what some reader takes for one: sound but for one trick, or two."""

    def __init__(self, dice: Dice, revision: str) -> None:
        first = dice.one(TRICKS)
        self.tricks = {first, dice.one([first, first, *TRICKS])}
        self.denied = dice.one(DENIED)
        self._dice = dice
        self._revision = revision
        bad, good = self._message(), a_call(dice, dice.one(PERMITTED), revision, id=7)
        self.body = self._one(CODINGS, "code")(self._one(WRAPPERS, "wrap")(bad, good))
        self.fields = self._fields()

    def _one(self, choices: Sequence[T], trick: str) -> T:
        """The first choice is the sound one."""
        return self._dice.one(choices[1:]) if trick in self.tricks else choices[0]

    def _message(self) -> str:
        dice = self._dice
        name, good = text(dice, self._one(OTHER_NAMES, "name")(self.denied)), text(dice, dice.one(PERMITTED))
        value = self._one([name, f"[{name}]", f'{{"name":{name}}}', f"[{good},{name}]"], "type")
        if "header" in self.tricks:
            value = text(dice, "echo")
        params = [(self._one(KEYS, "key"), value), ('"arguments"', "{}")]
        if self._revision == MODERN:
            params.append(('"_meta"', a_value(_META)))
        if "twice" in self.tricks:
            keys = dice.shuffled(['"name"', dice.one(KEYS)])
            params[0] = (keys[0], value)
            params.insert(dice.one([0, 1, 2]), (keys[1], good))
        params += dice.some([('"task"', '{"ttl":1}'), ('"taskId"', name), ('"requestState"', name)], 1)
        said = an_object(dice, params)
        spelt = self._one([said, f"[{name},{{}}]", text(dice, said), f"[{said}]", "null", name], "shape")
        message = [('"method"', text(dice, self._one(METHODS, "method"))), ('"params"', spelt)]
        id = self._one(IDS, "id")
        message += [('"jsonrpc"', '"2.0"'), *([] if id is None else [('"id"', id)])]
        message = dice.shuffled(message)
        if "twice above" in self.tricks:
            said_so, other = dice.one(_twice(spelt, good))
            message = [pair for pair in message if pair[0] != said_so[0]]
            message = dice.shuffled([*message, said_so, other])
        return an_object(dice, message)

    def _fields(self) -> Pairs:
        """Header fields that fit, or nearly."""
        dice = self._dice
        names = [
            "echo" if "header" in self.tricks else self.denied,
            *PERMITTED,
            self.denied,
            f"{self.denied} ",
        ]
        name = self._one(names, "fields")
        pairs = fields(dice, name, self._one([self._revision, *REVISIONS], "fields"))
        packed = base64.b64encode(self.denied.encode())
        ours = [
            *((b"Mcp-Name", b"=?base64?%s?=" % packed), (b"mcp-name", b"=?BASE64?%s?=" % packed)),
            (b"Mcp-Name", self.denied.encode()),
        ]
        more = [
            *((b"Mcp-Method", b"tools/list"), (b"mcp-method", b"tools/call"), (b"mcp-name", b"echo"), *ours),
            *((b"MCP-Protocol-Version", MODERN.encode()), (b"Connection", b"mcp-name")),
        ]
        if not {"fields", "header"} & self.tricks:
            return pairs
        return dice.shuffled([*pairs, dice.one(ours if "header" in self.tricks else more)])


def _twice(params: str, good: str) -> list[tuple[tuple[str, str], tuple[str, str]]]:
    """What a message says, and the same said otherwise: either may be what is read."""
    other = f'{{"name":{good}}}'
    pairs = [
        *((key, '"tools/call"', '"tools/list"') for key in ('"method"', '"Method"', '"m\\u0065thod"')),
        *((key, params, other) for key in ('"params"', '"param\\u017f"', '"PARAMS"', '"params\\u0000"')),
        *((key, '"2.0"', '"1.0"') for key in ('"jsonrpc"', '"JSONRPC"')),
    ]
    found = [(('"result"', "{}"), ('"error"', "{}"))]
    for key, one, two in pairs:
        plain = f'"{json.loads(key).strip(chr(0)).casefold()}"'
        found += [((plain, one), (key, two)), ((plain, two), (key, one))]
    return found


WRAPPERS: Final[list[Callable[[str, str], str]]] = [
    lambda bad, good: bad,
    lambda bad, good: f"[{bad}]",
    lambda bad, good: f"[{good},{bad}]",
    lambda bad, good: f"[{bad},{good}]",
    lambda bad, good: f"[[{bad}],{good}]",
    lambda bad, good: f"{good}{bad}",
    lambda bad, good: f"{good}\n{bad}",
    lambda bad, good: f"{bad}\0",
    lambda bad, good: f"{good}\0{bad}",
    lambda bad, good: f"\ufeff{bad}",
    lambda bad, good: f")]}}',\n{bad}",
    lambda bad, good: f"/*{good}*/{bad}",
    lambda bad, good: f"{bad[:-1]},}}",
    lambda bad, good: f'{{"batch":[{bad}]}}',
    lambda bad, good: f"{good[:-1]},{bad[1:]}",
    lambda bad, good: f"\x1e{bad}\n",
    lambda bad, good: f"data: {bad}\n\n",
]
CODINGS: Final[list[Callable[[str], bytes]]] = [
    lambda text: text.encode("utf-8", "surrogatepass"),
    lambda text: text.encode("utf-16", "surrogatepass"),
    lambda text: text.encode("utf-16-le", "surrogatepass"),
    lambda text: text.encode("utf-32-be", "surrogatepass"),
    lambda text: text.encode("utf-7", "ignore"),
    lambda text: text.encode("utf-8-sig", "ignore"),
    lambda text: text.encode("utf-8", "ignore").replace(b"a", b"\xc1\xa1"),
    lambda text: text.encode("utf-8", "ignore").replace(b"ger", b"g\xffer"),
    lambda text: text.encode("utf-8", "ignore").replace(b'"', b"'"),
]


@given(dice=dice, revision=st.sampled_from(REVISIONS))
@FUZZ
def test_no_spelling_of_a_denied_call_reaches_the_server(dice: Dice, revision: str) -> None:
    """Design promise 2, issue 4: escapes, duplicates, case, batch, mirror headers, notifications, tasks. Whatever comes
    through names what was decided on, for every reader behind us."""
    hall = a_hall(dice)
    attack = Attack(dice, revision)
    note(f"{attack.tricks} {attack.fields} {attack.body!r}")
    hall.ask(attack.body, attack.fields, spoken=dice.one([None, None, None, TWO_ENDPOINTS]))
    for reached, with_head in zip(hall.server.bodies, hall.server.heads, strict=True):
        runs = called(reached)
        assert not runs & set(DENIED), reached
        assert not runs or not mirrored(with_head) & set(DENIED), with_head


@given(dice=dice, revision=st.sampled_from(REVISIONS))
@FUZZ
def test_every_valid_spelling_of_a_permitted_call_passes(dice: Dice, revision: str) -> None:
    """The counter-proof: the same escapes, blanks, orders and wrapped names, and calls of denied tools that are only
    talked about. What was inspected is what is forwarded, byte for byte."""
    hall = a_hall(dice)
    name = dice.one(PERMITTED)
    body = a_call(dice, name, revision).encode()
    head = fields(dice, name, revision)
    note(f"{head} {body!r}")
    status, answer = hall.ask(body, head)
    assert (status, hall.server.bodies) == (200, [body])
    assert json.loads(answer)["id"] == 1
    sent = [pair for pair in head if pair[0].lower().startswith(b"mcp-")]
    assert [pair for pair in hall.server.heads[0] if pair[0].lower().startswith(b"mcp-")] == sent


@given(dice=dice)
@FUZZ
def test_a_denied_call_is_refused_in_the_same_valid_spellings(dice: Dice) -> None:
    """And only for its name: nothing else tells it from one that passes."""
    revision = dice.one(REVISIONS)
    hall = a_hall(dice)
    name = dice.one([each for each in DENIED if each != "ghost"])
    status, answer = hall.ask(a_call(dice, name, revision).encode(), fields(dice, name, revision))
    assert (status, hall.server.bodies) == (200, [])
    said: Any = json.loads(answer)
    assert said["result"]["isError"] is True
    assert said["result"]["_meta"]["dev.mcp-sidecar/refusal"]["reason"] == "not_allowed"


@given(dice=dice)
@FUZZ
def test_what_is_left_of_a_batch_is_what_may_pass(dice: Dice) -> None:
    """Design section 4: each message judged by itself; the server gets the bytes of the permitted ones, in order, and
    everybody who asked is answered."""
    hall = a_hall(dice)
    names = [dice.one([*PERMITTED, *DENIED]), *dice.some([*PERMITTED, *DENIED], 4)]
    calls = [a_call(dice, name, OLD_BATCHES, id=at).strip() for at, name in enumerate(names)]
    blank = dice.one(BLANKS)
    body = f"{blank}[{blank}{f'{blank},{blank}'.join(calls)}{blank}]".encode()
    note(repr(body))
    status, answer = hall.ask(body, [(b"content-type", b"application/json")])
    passing = [call for name, call in zip(names, calls, strict=True) if name in PERMITTED]
    if len(passing) == len(calls):
        assert hall.server.bodies == [body]
    else:
        assert hall.server.bodies == ([f"[{','.join(passing)}]".encode()] if passing else [])
    assert status == 200
    said = {each["id"]: "isError" in each["result"] for each in json.loads(answer)}
    assert said == {at: name in DENIED for at, name in enumerate(names)}
