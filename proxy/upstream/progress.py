"""Whose progress is it? What the server tells on the stream of one request, by the token that request sent. Pure.

In: a call, later a message of the server. Out: the tokens whose progress may pass, None where any may; whether a
message tells of another's. Keeps nothing. Source: basic/utilities/progress of every revision: a notification carries
the token of the request it is about, and is sent where that request is answered.
"""

from __future__ import annotations

from typing import Final, TypeAlias

from ..model import Call
from ..protocol.answers import Said

PROGRESS: Final = "notifications/progress"
DROPPED: Final = "progress of another request"
"""What a journey is told, once however often."""

Token: TypeAlias = tuple[type, int | float | str]


def tokens_of(call: Call) -> frozenset[Token] | None:
    """The tokens of the messages a POST carries. None where those of others are in their place: on streams of server
    messages and on resumed ones, which are both a GET, in `subscriptions/listen`, and in what is asked about a task,
    which goes on with the token of the request that began it."""
    calls = call.parts or (call,)
    if any(each.is_open_ended or _is_about_task(each) for each in calls):
        return None
    return frozenset(token for each in calls if (token := _sent(each)) is not None)


def is_foreign(said: Said, tokens: frozenset[Token]) -> bool:
    """Whether a message tells of the progress of another request. One without a token, or too large for its token to be
    seen, is nobody's. With an id it is no notification, and clients may read one all the same."""
    if said.method != PROGRESS:
        return False
    token = _token(said.params.get("progressToken")) if isinstance(said.params, dict) else None
    return token is None or token not in tokens


def _sent(call: Call) -> Token | None:
    meta = call.params.get("_meta")
    return _token(meta.get("progressToken")) if isinstance(meta, dict) else None


def _token(value: object) -> Token | None:
    """With its type: 1 and "1" are two tokens, True is none. 1.0 is 1, as JavaScript writes it back."""
    if isinstance(value, str):
        return str, value
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return type(value), value


def _is_about_task(call: Call) -> bool:
    return call.method.startswith("tasks/")
