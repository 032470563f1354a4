"""A list of tasks loses what is somebody else's, and no other byte."""

import json

import pytest

from proxy.identity.listed_tasks import asked_for, without_foreign
from proxy.model import Kind, id_key
from proxy.protocol.answers import Malformed
from tests.fakes import make_batch, make_call

IDS = frozenset({id_key(1)})


def mine(entry: object) -> bool:
    return isinstance(entry, dict) and str(entry.get("taskId")).startswith("mine")


def listed(*ids: str) -> bytes:
    return json.dumps({"id": 1, "result": {"tasks": [{"taskId": id} for id in ids]}}).encode()


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (
            b'{ "jsonrpc":"2.0", "id" : 1,\t"result" : {"x":[1 , 2], "tasks" : [ {"taskId":"theirs"} , '
            b'{"taskId":"mine-1", "n":1.0e1} ,{"taskId":"theirs","s":"],}"}, {"taskId":"mine-2"} ] ,'
            b'"nextCursor" : "c"} , "y":null }',
            b'{ "jsonrpc":"2.0", "id" : 1,\t"result" : {"x":[1 , 2], "tasks" :[{"taskId":"mine-1", "n":1.0e1},'
            b'{"taskId":"mine-2"}],"nextCursor" : "c"} , "y":null }',
        ),
        (
            b'{"id":1,"result":{"tasks":[{"taskId":"theirs"}],"nextCursor":""}}',
            b'{"id":1,"result":{"tasks":[],"nextCursor":""}}',
        ),
        (
            b'{"\\u0069d":1,"\\u0072esult":{"task\\u0073":[{"\\u0074askId":"theirs"}]}}',
            b'{"\\u0069d":1,"\\u0072esult":{"task\\u0073":[]}}',
        ),
        (
            b'{"tasks":[0],"id":1,"result":{"_meta":{"tasks":[0]},"tasks":["theirs",{},{"taskId":7}]}}',
            b'{"tasks":[0],"id":1,"result":{"_meta":{"tasks":[0]},"tasks":[]}}',
        ),
        (
            b'[{"id":2,"result":{"tasks":[0]}}, {"id":1,"result":{"tasks":[0]}}]',
            b'[{"id":2,"result":{"tasks":[0]}},{"id":1,"result":{"tasks":[]}}]',
        ),
    ],
)
def test_foreign_tasks_are_cut_out(text: bytes, left: bytes) -> None:
    """Promise 1: order, cursor, unknown members and the spelling of numbers stay."""
    assert without_foreign(text, mine, IDS) == left


@pytest.mark.parametrize(
    "text",
    [
        listed(),
        listed("mine-1", "mine-2"),
        b'{"id":1,"error":{"code":-32601,"message":"tasks"}}',
        b'{"id":2,"result":{"tasks":[{"taskId":"theirs"}]}}',
        b'{"id":"1","result":{"tasks":[{"taskId":"theirs"}]}}',
        b'{"id":1.0,"result":{"tasks":[{"taskId":"theirs"}]}}',
        b'{"method":"notifications/progress","params":{}}',
        b'[ {"id":1,"result":{"tasks":[]}} ]',
    ],
)
def test_nothing_else_is_touched(text: bytes) -> None:
    """Promise 1: the very same bytes, an array with its blanks included."""
    assert without_foreign(text, mine, IDS) is text


@pytest.mark.parametrize("result", [b"{}", b'{"tasks":null}', b'{"tasks":{"a":1}}', b"[]", b'"x"', b"0"])
def test_a_list_that_is_none_is_not_understood(result: bytes) -> None:
    """Own promise: what may hold somebody else's tasks goes nowhere. Where nobody asked for one, it is none."""
    text = b'{"id":1,"result":' + result + b"}"
    with pytest.raises(Malformed):
        without_foreign(text, mine, IDS)
    assert without_foreign(text, mine) is text


def test_whatever_looks_like_a_list_may_be_one() -> None:
    """A resumed stream answers requests nobody here knows."""
    assert json.loads(without_foreign(listed("mine-1", "theirs"), mine)) == json.loads(listed("mine-1"))


@pytest.mark.parametrize("text", [b"", b"Accepted", b'{"id":1,"id":1}', b"[", b"\xff"])
def test_what_is_no_json_is_not_understood(text: bytes) -> None:
    with pytest.raises(Malformed):
        without_foreign(text, mine, IDS)


def test_who_asks_for_a_list() -> None:
    """Batches too: 2025-03-26 has no tasks, and its servers are not asked whether they know."""
    ask = make_call(method="tasks/list", id="a")
    other = make_call(method="tools/call", id=2)
    note = make_call(method="tasks/list", id=None, kind=Kind.NOTIFICATION)
    assert asked_for(ask) == {id_key("a")}
    assert asked_for(other) == asked_for(note) == frozenset()
    assert asked_for(make_batch(other, ask, note)) == {id_key("a")}
