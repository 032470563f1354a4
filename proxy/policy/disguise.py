"""How does this server answer a call to a tool that it does not have? Only it can say, so it is asked.

In: a call to a hidden tool. Out: a permit for the same call with a name that no tool has, and how to put the real name
back into the answer. Keeps nothing. Python servers answer unknown tools with a result, TypeScript ones with an error,
each in words of its own: an answer of ours would tell that there is something to hide.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Final

from msgspec import Struct, structs

from ..model import Call, Headers, Kind, Permit, Principal, Reason, Refused, Reply, Rule, Stream
from ..protocol.splice import member

HIDDEN: Final = Rule(id="hidden", tool_class="dangerous")
MAX_ANSWER_BYTES: Final = 65_536
"""Of a stream that says that a tool does not exist."""


class Disguised(Struct, frozen=True):
    """A permit to ask about nothing, and the way back."""

    permit: Permit
    decoy: bytes
    name: bytes

    async def undo(self, reply: Reply) -> Reply:
        """The answer with the name that was asked for. Raises Refused."""
        body = reply.body
        if isinstance(body, Stream):
            body = await _whole(body)
        reply.body = body.replace(self.decoy, self.name)
        reply.headers = Headers(pair for pair in reply.headers.pairs if pair[0].lower() != b"content-length")
        return reply


class Disguise:
    """Makes calls that name nothing."""

    def __init__(self, chance: Callable[[], str]) -> None:
        """`chance` gives names that nobody can have given to a tool."""
        self._chance = chance

    def __call__(self, call: Call, principal: Principal) -> Disguised | None:
        """None where an answer cannot be told from others: it comes elsewhere, or nobody waits for one."""
        if call.kind is not Kind.REQUEST or call.target is None or call.revision.answers_elsewhere:
            return None
        params = member(call.body, "params")
        within = None if params is None else member(call.body[params], "name")
        if params is None or within is None:
            return None
        decoy = self._chance().encode("ascii")
        begin, end = params.start + within.start, params.start + within.stop
        body = call.body[:begin] + b'"' + decoy + b'"' + call.body[end:]
        headers = Headers(
            (name, decoy if name.lower() == b"mcp-name" else value) for name, value in call.headers.pairs
        )
        asked = structs.replace(call, target=decoy.decode(), body=body, headers=headers)
        name = json.dumps(call.target, ensure_ascii=False)[1:-1].encode("utf-8", "surrogatepass")
        return Disguised(Permit(call=asked, principal=principal, rule=HIDDEN), decoy, name)


async def _whole(stream: Stream) -> bytes:
    """Raises Refused for one that does not end."""
    held = bytearray()
    async for chunk in stream:
        held += chunk
        if len(held) > MAX_ANSWER_BYTES:
            raise Refused(Reason.NOT_VISIBLE)
    stream.close()
    return bytes(held)
