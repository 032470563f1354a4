"""What would a call look like on the wire? Words in; the `Call` that the reader makes of them. Pure.

For `explain` and `policy test`: what they ask about has passed the same reader as what clients send.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Final

from ..configuration.mistakes import Unfit
from ..model import Call, Headers, Journey, Principal, Refused
from ..protocol.jsonrpc import NAMED_BY, read_json
from ..protocol.reading import read_post

TOOL_CALL: Final = "tools/call"
_HEADERS: Final = Headers(((b"content-type", b"application/json"),))


def asked(
    method: str, target: str | None, journey: Journey, params: Mapping[str, object] | None = None
) -> Call:
    """The call of a method with its target and what else its params hold.

    Raises Unfit where the method names no target, or has none; Refused where no caller gets past the reader.
    """
    member = NAMED_BY.get(method)
    if target is not None and member is None:
        raise Unfit(
            "has no target", "this method names nothing", "leave the target out, or put it into params"
        )
    if target is None and member is not None and member not in (params or {}):
        raise Unfit("has no target", "this method names one", f"give its {member}")
    named = {} if target is None or member is None else {member: target}
    message: dict[str, object] = {"jsonrpc": "2.0", "method": method, "params": {**(params or {}), **named}}
    if not method.startswith("notifications/"):
        message["id"] = 1
    return read_post(_HEADERS, json.dumps(message).encode(), received=0.0, journey=journey)


def caller_of(text: str, scopes: Sequence[str] = ()) -> Principal:
    """Who `TENANT:SUBJECT[:ROLE,…]` is. What stands behind the last colon are roles, if there is more than one colon:
    a subject may hold colons. Raises Unfit."""
    tenant, _, rest = text.partition(":")
    subject, colon, roles = rest.rpartition(":")
    if not colon:
        subject, roles = roles, ""
    if not tenant or not subject:
        raise Unfit("--as names nobody", "a tenant and a subject are needed", "write acme:ann:viewer,editor")
    named = frozenset(each for each in roles.split(",") if each)
    return Principal(issuer="explain", subject=subject, tenant=tenant, roles=named, scopes=frozenset(scopes))


def object_of(text: str) -> dict[str, object]:
    """The JSON object that somebody wrote. Raises Unfit; never shows it."""
    try:
        value = read_json(text.encode())
    except (Refused, UnicodeEncodeError):
        value = None
    if not isinstance(value, dict):
        raise Unfit(
            "the JSON is no object", "arguments and params are one", "write for example '{\"limit\": 5}'"
        )
    return value
