"""However a list is written and sent: what stays of it stays byte for byte, in order, with cursors, hints and members
that nobody knows; what goes leaves nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Final

import pytest
from hypothesis import given, note

from proxy.model import Principal
from tests.fuzz.bounded import FUZZ
from tests.fuzz.dice import Dice, dice
from tests.integration.wire import MODERN, REVISIONS, events
from tests.unit.policy.hall import (
    ENTRIES,
    EVENTS,
    JSON,
    MORE_THAN_HELD,
    Hall,
    Said,
    Server,
)

NAMED: Final = {
    "tools/list": "name",
    "prompts/list": "name",
    "resources/list": "uri",
    "resources/templates/list": "uriTemplate",
}
NAMES: Final = ["ok1", "ok\u00e9", "no1", "ok2", "no\u00e9", "ok{x}", "no{x}", "ok\U0001f600", "OK1", "ok"]
BLANKS: Final = ["", "", " ", "\n", "\n  ", "\t\r\n"]
ANN: Final = Principal(issuer="i", subject="ann", tenant="t", roles=frozenset({"viewer"}))
REST: Final = [
    ('"description"', '"],}\\"{[ \\\\"'),
    ('"inputSchema"', '{"properties":{"name":{"type":"string"},"tools":{}},"required":["name"]}'),
    ('"x"', "[1.0e1,-0,[[]],{}]"),
    ('"_meta"', '{"name":"no1","uri":"no1","nested":{"tools":[{"name":"no1"}]}}'),
    ('"\u00fc"', "null"),
    ('"annotations"', '{ "readOnlyHint" : true }'),
    ('"d"', '"\\ud83d"'),
    ('"n"', "123456789012345678901234567890"),
]


def spelt(dice: Dice, said: str) -> str:
    """A JSON string, escaped a little, a lot or not at all."""
    plain = json.dumps(said, ensure_ascii=False)
    first = f'"\\u{ord(said[0]):04x}{json.dumps(said[1:], ensure_ascii=False)[1:]}'
    return dice.one([plain, plain, json.dumps(said), first if ord(said[0]) < 0x80 else plain])


def an_object(dice: Dice, members: Sequence[tuple[str, str]]) -> str:
    before, behind = dice.one(BLANKS), dice.one(BLANKS)
    said = [f"{before}{key}{behind}:{before}{value}{behind}" for key, value in dice.shuffled(members)]
    return "{" + ",".join(said) + "}"


class AList:
    """An answer as a server might write it, and what is left of it for somebody who may see what begins with ok."""

    def __init__(self, dice: Dice, method: str, *, is_modern: bool, differs: bool) -> None:
        self._dice = dice
        names = dice.some(NAMES, 6)
        entries = [self._entry(name, NAMED[method]) for name in names]
        shown = [name.startswith("ok") and name not in names[:at] for at, name in enumerate(names)]
        gaps = [dice.one(BLANKS) + ("," if at else "") + dice.one(BLANKS) for at in range(len(names))]
        end = dice.one(BLANKS)
        self.is_cut = not all(shown)
        array = f"[{''.join(gap + entry for gap, entry in zip(gaps, entries, strict=True))}{end}]"
        left = array
        if self.is_cut:
            kept = [(gap, entry) for gap, entry, stays in zip(gaps, entries, shown, strict=True) if stays]
            kept = [(gaps[0] if not at else gap, entry) for at, (gap, entry) in enumerate(kept)]
            left = f"[{''.join(gap + entry for gap, entry in kept)}{end}]" if kept else "[]"
        scope = dice.one(['"public"', '"private"', '"p\\u0072ivate"', '"pub\\u006cic"', None])
        is_private = is_modern and (self.is_cut or differs)
        becomes = '"private"' if scope is not None and is_private and "ic" in scope else scope
        rest = [
            (spelt(dice, ENTRIES[method]), array),
            *dice.some([('"_meta"', '{"tools":[{"name":"no1"}]}'), ('"x"', '"\\"tools\\":["')], 1),
            *dice.some([('"nextCursor"', '"c\\u0000=]"'), ('"nextCursor"', '""')], 1),
            *dice.some([('"ttlMs"', "5.0e3")], 1),
            *([] if scope is None else [('"cacheScope"', scope)]),
        ]
        result = an_object(dice, rest)
        message = an_object(
            dice,
            [(spelt(dice, "result"), result), ('"id"', "1"), ('"jsonrpc"', '"2.0"'), ('"tools"', "[{}]")],
        )
        self.text = (dice.one(BLANKS) + message + dice.one(BLANKS)).encode("utf-8")
        changed = result.replace(array, left)
        if scope is not None:
            changed = re.sub(
                rf'("cacheScope"\s*:\s*){re.escape(scope)}', lambda found: f"{found[1]}{becomes}", changed
            )
        self.left = self.text.replace(result.encode(), changed.encode())

    def _entry(self, name: str, named_by: str) -> str:
        dice = self._dice
        rest = {key: (key, value) for key, value in dice.some(REST, 3)}
        return an_object(dice, [(spelt(dice, named_by), spelt(dice, name)), *rest.values()])


def in_pieces(dice: Dice, body: bytes) -> list[bytes]:
    """The body in chunks of any size; so many at the most."""
    pieces: list[bytes] = []
    at = 0
    for size in dice.some([1, 2, 3, 7, 20, 100, 300], 12):
        pieces.append(body[at : at + size])
        at += size
    return [*pieces, body[at:]]


def a_hall(answer: Said, *, differs: bool) -> Hall:
    who = ["viewer"] if differs else ["*"]
    policy = {
        "tools": [{"match": "ok*", "allow": who}],
        "methods": {
            "prompts/get": {"allow": who, "match": ["ok*"]},
            "resources/read": {"allow": who, "match": ["ok*"]},
        },
    }
    return Hall(policy, Server(lambda _: answer), ANN)


@given(dice=dice)
@FUZZ
def test_what_stays_of_a_list_stays_as_it_was_written(dice: Dice) -> None:
    """Issue 4, 3: order, cursors, hints, unknown members and spelling, however the answer was cut into pieces."""
    method, revision, differs = dice.one([*NAMED]), dice.one(REVISIONS), dice.one([False, True])
    answer = AList(dice, method, is_modern=revision == MODERN, differs=differs)
    note(answer.text.decode())
    hall = a_hall((JSON, in_pieces(dice, answer.text)), differs=differs)
    assert hall.request(method, revision) == (200, answer.left)


@given(dice=dice)
@FUZZ
def test_a_list_in_an_event_follows_too_and_what_stands_around_it_stays(dice: Dice) -> None:
    """Each line of the event but its data, the events before it and behind it, whatever ends their lines."""
    method, revision, differs = dice.one([*NAMED]), dice.one(REVISIONS), dice.one([False, True])
    answer = AList(dice, method, is_modern=revision == MODERN, differs=differs)
    end = dice.one(["\n", "\r\n", "\r"])
    if end == "\r" or dice.one([True, False]):
        # Line breaks between the tokens of a text are lines of data of their own, and come back as LF.
        said, left = (" ".join(each.decode().splitlines()) for each in (answer.text, answer.left))
    else:
        said, left = (each.decode().replace("\r\n", "\n") for each in (answer.text, answer.left))
    # One blank behind the colon is the event's own.
    data = [
        f"data:{'' if line[:1] != ' ' and dice.one([False, True]) else ' '}{line}"
        for line in said.split("\n")
    ]
    other = dice.some(["event: message", "id: 7", "retry: 5", "unknown"], 2)
    at = dice.one(range(len(other) + 1))
    lines = [*other[:at], *data, *other[at:]]
    progress = '{"jsonrpc":"2.0","method":"notifications/message","params":{"tools":[{"name":"no1"}]}}'
    before = dice.one(["", f": ping{end}{end}", f"id: 1{end}data:{end}{end}", f"data: {progress}{end}{end}"])
    behind = dice.one(["", f": bye{end}{end}"])
    event = end.join(lines) + end + end
    note(before + event + behind)
    body = (before + event + behind).encode()
    hall = a_hall((EVENTS, in_pieces(dice, body)), differs=differs)
    status, got = hall.request(method, revision)
    assert status == 200
    if left == said:
        assert got == body
        return
    assert got.startswith(before.encode())
    assert got.endswith(behind.encode())
    assert left.encode() in events(got)
    assert all(f"{line}{end}".encode() in got for line in other)


@pytest.mark.parametrize("method", [*NAMED])
@pytest.mark.parametrize("size", [700, 65_536, 1_000_000])
@pytest.mark.parametrize("kind", [JSON, EVENTS])
def test_a_list_too_large_to_be_read_while_it_comes(method: str, size: int, kind: bytes) -> None:
    """Beyond 256 KiB nothing is read whole before the list is looked at; the same stays. An entry on whose name two
    readers could differ goes: in smaller answers it is refused with all the rest."""
    key = json.dumps(NAMED[method])

    def entry(number: int) -> str:
        rest = json.dumps({"description": "Caf\u00e9 " * 100, "x": [number]}, ensure_ascii=number % 20 == 0)[
            1:
        ]
        name = f'{key}: "{"ok" if number % 3 else "no"}{number}"'
        if number % 10 == 0:
            other = key if number % 20 else key.replace("a", "\\u0061").replace("i", "\\u0069")
            name = f'{name}, {other}: "ok-{number}"' if number % 4 else f'{other}: "ok-{number}", {name}'
        return f"{{{name}, {rest}"

    def answer(numbers: Sequence[int], scope: str) -> bytes:
        entries = ", ".join(map(entry, numbers))
        result = f'{{"{ENTRIES[method]}": [{entries}], "nextCursor": "c", "cacheScope": "{scope}"}}'
        return f'{{"jsonrpc": "2.0", "id": 1, "result": {result}}}'.encode()

    text = answer(range(400), "public")
    left = answer([number for number in range(400) if number % 3 and number % 10], "private")
    assert len(text) > MORE_THAN_HELD
    around = (b"data: ", b"\n\n") if kind == EVENTS else (b"", b"")
    body = around[0] + text + around[1]
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    hall = a_hall((kind, pieces), differs=False)
    is_left = hall.request(method, MODERN) == (200, around[0] + left + around[1])
    assert is_left  # nobody wants to see the difference of two such texts
