"""Which transport reaches the server is chosen by itself, and said."""

from collections.abc import Sequence

import pytest

from proxy.house import in_force
from tests.integration.conftest import Connect, OpenSidecar
from tests.integration.house import process, run_words
from tests.integration.upstream import Upstream
from tests.integration.wire import post, result, tool_call

WITHOUT_HTTPTOOLS = (
    'import sys; sys.modules["httptools"] = None; from proxy.__main__ import main; sys.exit(main())'
)


@pytest.mark.parametrize(
    ("start", "name"),
    [(("-m", "proxy"), "lean"), (("-c", WITHOUT_HTTPTOOLS), "aiohttp")],
    ids=["with [fast]", "without"],
)
async def test_the_first_line_says_which(
    upstream: Upstream, connect: Connect, start: Sequence[str], name: str
) -> None:
    """issue 10, 2: with the extra [fast] for a plain-HTTP local origin; without it everything works, too."""
    async with process(*run_words(upstream.url), start=start) as running:
        data, _ = await running.listening()
        started = next(line for line in running.lines.life if line["msg"] == "started")
        assert started["transport"] == name
        client = await connect(data)
        client.send(post(tool_call()))
        (await upstream.next()).answer(result())
        assert (await client.answer()).body == result()


async def test_tests_that_ask_for_each_transport_get_it(
    each_transport: str, open_sidecar: OpenSidecar
) -> None:
    """`each_transport` of these tests' conftest."""
    side = await open_sidecar()
    assert in_force(side.house.settings)["transport"] == each_transport
