"""Which entries of a list of tasks may pass? The server behind us cannot tell our callers apart.

In: the bytes of a message, or of an array of them. Out: the same bytes without the entries that are somebody else's;
order, cursor and unknown members stay as they are. Keeps nothing; pure.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Final

from ..model import Call, IdKey, id_key
from ..protocol.answers import Malformed, read_tree
from ..protocol.batch import join_array, split_array
from ..protocol.splice import member

LIST: Final = "tasks/list"

Passes = Callable[[object], bool]
"""Whether an entry may reach the caller."""


def asked_for(call: Call) -> frozenset[IdKey]:
    """The ids under which a call, or its parts, ask for lists of tasks."""
    return frozenset(
        id_key(each.id) for each in call.parts or (call,) if each.method == LIST and each.id is not None
    )


def without_foreign(text: bytes, passes: Passes, ids: Container[IdKey] | None = None) -> bytes:
    """`text` itself where every entry passes. `ids` are those of requests for lists: their results must be such.
    None: whatever looks like a list may be one. Raises Malformed."""
    value = read_tree(text)
    if not isinstance(value, list):
        return _message_without(text, value, passes, ids)
    messages = split_array(text)
    kept = [_message_without(each, one, passes, ids) for each, one in zip(messages, value, strict=True)]
    return text if kept == messages else join_array(kept)


def _message_without(text: bytes, message: object, passes: Passes, ids: Container[IdKey] | None) -> bytes:
    if not isinstance(message, dict) or message.get("result") is None:
        return text
    if ids is not None and not _answers(message.get("id"), ids):
        return text
    result = message["result"]
    tasks = result.get("tasks") if isinstance(result, dict) else None
    if not isinstance(tasks, list):
        if ids is None:
            return text
        raise Malformed
    passing = [passes(entry) for entry in tasks]
    if all(passing):
        return text
    outer = member(text, "result")
    inner = None if outer is None else member(text[outer], "tasks")
    if outer is None or inner is None:
        raise Malformed
    begin, end = outer.start + inner.start, outer.start + inner.stop
    entries = split_array(text[begin:end])
    kept = [entry for entry, may_pass in zip(entries, passing, strict=True) if may_pass]
    return text[:begin] + join_array(kept) + text[end:]


def _answers(id: object, ids: Container[IdKey]) -> bool:
    return isinstance(id, int | str) and id_key(id) in ids
