"""What is remembered of the head of an answer says nothing of the next answer's length. proxy/README.md, "A head that
comes again is known"."""

import pytest

from tests.integration.client import Client
from tests.integration.house import Sidecar
from tests.integration.upstream import Upstream
from tests.integration.wire import post, result, tool_call

FIELDS = {
    "all pass": [],
    "fields of the connection": ["Connection: keep-alive", "Keep-Alive: timeout=5"],
    "a date": ["Date: Sun, 22 Nov 2026 00:00:00 GMT", "X-A: b"],
}


@pytest.mark.parametrize("fields", FIELDS.values(), ids=FIELDS.keys())
async def test_answers_of_other_lengths_keep_their_own(
    side: Sidecar, client: Client, upstream: Upstream, fields: list[str]
) -> None:
    """Own promise: each body has its own length in its head, whatever came before with the same fields."""
    seen = []
    for words in ("one", "one", "two, and more", "x" * 3_000, "y", "one"):
        body = result(text=words)
        client.send(post(tool_call()))
        (await upstream.next()).answer(body, *fields)
        answer = await client.answer()
        assert (answer.status, answer.body) == (200, body)
        assert [value for name, value in answer.fields if name.lower() == "content-length"] == [
            str(len(body))
        ]
        seen.append([name for name, _ in answer.fields])
    assert seen == seen[:1] * len(seen)
    assert not {"keep-alive", "connection"} & {name.lower() for name in seen[0]}
