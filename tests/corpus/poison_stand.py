"""The sidecars that look at what the server says of its tools: `WatchStand` at what is odd, `PinStand` at what changed.

Before each case Alice lists the tools as they are when nothing is wrong, so that nothing is left of the case before.
"""

from collections.abc import Mapping
from typing import Any

from tests.corpus.cases import Case, CorpusError
from tests.corpus.client import Exchange
from tests.corpus.evidence import Attempt, tools_in
from tests.corpus.fake_server import ALICE
from tests.corpus.scripts import Script, Tool
from tests.corpus.sidecar import comparing, watching
from tests.corpus.stand import Stand

CALL = "tools/call"


class WatchStand(Stand):
    """One for all cases whose answers are odd."""

    async def begin(self) -> None:
        """Tools are listed before each case."""

    def policy(self) -> dict[str, Any]:
        return watching(self.around.fixture)

    async def settle(self, case: Case) -> dict[str, Any]:
        self.around.upstream.begin(None, sends_discover=False)
        return {"usual": tuple(str(tool["name"]) for tool in await self.listed(ALICE))}

    async def lead_in(self, case: Case, script: Script | None) -> None:
        """Nobody calls a tool that was not listed: the sidecar has seen what the call is about."""
        if script is not None and script.tools and CALL.encode() in (case.request.content or b""):
            self.around.upstream.begin(script, sends_discover=False)
            await self.listed(ALICE)

    async def listed(self, who: str) -> tuple[Tool, ...]:
        """The tools that somebody is shown. Raises CorpusError where the list does not pass."""
        exchange = await self._asked(who, "tools/list", {})
        tools = tools_in(exchange.answers)
        if tools is None:
            raise CorpusError(f"the sidecar passes no list of tools to {who}")
        return tools

    async def attempt(self, who: str, tool: str) -> Attempt:
        """Somebody lists the tools, and calls one whether it is there or not; upstream plays what it plays."""
        shown = [each["name"] for each in await self.listed(who)]
        return await self.called(who, tool, shown.count(tool))

    async def called(self, who: str, tool: str, listed: int) -> Attempt:
        """Somebody calls a tool that was `listed` so often."""
        before = len(self.around.upstream.take()[0])
        exchange = await self._asked(who, CALL, {"name": tool, "arguments": {"a": "b"}})
        return Attempt(
            who=who,
            tool=tool,
            listed=listed,
            status=exchange.answers[0].status if exchange.answers else None,
            arrived=len(self.around.upstream.take()[0]) - before,
        )

    async def _asked(self, who: str, method: str, params: Mapping[str, Any]) -> Exchange:
        document = {"jsonrpc": "2.0", "id": "corpus-asks", "method": method, "params": params}
        return await self.ask(document, self.as_who(who))


class PinStand(WatchStand):
    """One for a case whose upstream changes what was approved: its setup says how."""

    def policy(self) -> dict[str, Any]:
        return comparing(self.around.fixture, self.around.approved.file)

    async def start(self) -> None:
        await self.around.approved.write()
        await super().start()

    async def settle(self, case: Case) -> dict[str, Any]:
        """What is refused later was allowed before."""
        settled = await super().settle(case)
        attempt = await self.attempt(ALICE, "echo")
        if (attempt.listed, attempt.status, attempt.arrived) != (1, 200, 1):
            raise CorpusError(f"the approved tool is refused: {attempt}")
        return settled
