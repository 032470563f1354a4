"""What a peer must do before it counts: pass on what is allowed, refuse what is not. Who does less is faster.

In: a peer and a call. Out: nothing. Raises ProcessFailed.
"""

from __future__ import annotations

from typing import Final

import aiohttp
import msgspec

from tests.conformance.processes import ProcessFailed

from .calls import ANSWERED, FORBIDDEN, Asked

ANSWER_TIMEOUT_S: Final = 30.0
_SHOWN: Final = 120
"""Characters of an answer that an error quotes."""
_SAID_BY_THE_SERVER: Final = b"x" * 64
"""Of the text in its answer."""


async def ask(port: int, asked: Asked) -> tuple[int, bytes]:
    """One call: status and body of what came. Raises ProcessFailed."""
    timeout = aiohttp.ClientTimeout(total=ANSWER_TIMEOUT_S)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.post(
                f"http://127.0.0.1:{port}/mcp", data=asked.one.encode(), headers=asked.fields
            ) as answer,
        ):
            return answer.status, await answer.read()
    except (TimeoutError, aiohttp.ClientError) as error:
        raise ProcessFailed(f"a call was not answered: {error!r}") from None


async def must_forward(port: int, asked: Asked, events: int = 0) -> None:
    """An allowed call comes back with what the server behind said to it, in so many events."""
    status, body = await ask(port, asked)
    came = (status, ANSWERED.encode() in body, _SAID_BY_THE_SERVER in body, body.count(b"\ndata: "))
    if came != (200, True, True, events):
        raise ProcessFailed(f"a call was not answered by the server: {status} {_beginning(body)}")


async def must_refuse(port: int, asked: Asked) -> None:
    """A forbidden tool is refused to a caller who is known."""
    status, body = await ask(port, msgspec.structs.replace(asked, tool=FORBIDDEN))
    if not (status == 403 or (status == 200 and b'"isError":true' in body)):
        raise ProcessFailed(f"a forbidden tool was not refused as such: {status} {_beginning(body)}")


async def must_ask_who(port: int, asked: Asked) -> None:
    """A caller without a token is turned away."""
    status, body = await ask(port, msgspec.structs.replace(asked, token=""))
    if status != 401:
        raise ProcessFailed(f"a caller without a token was let in: {status} {_beginning(body)}")


def _beginning(body: bytes) -> str:
    return repr(body[:_SHOWN])
