"""What does a sidecar do whose settings file changes while it runs? `ReloadStand`, one for all cases that are files.

Its file is a link, and what it says is changed by leading it elsewhere, as a mounted ConfigMap is. A reading is told
from another by a limit that has its name: the line about it lists what is in force.
"""

import asyncio
import json
import re
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from tests.corpus.cases import CorpusError
from tests.corpus.client import Connection
from tests.corpus.config_bench import File
from tests.corpus.evidence import (
    PASSED,
    ConfigReload,
    ReloadStorm,
    ReloadUnderWay,
    entries_in,
    outcome,
)
from tests.corpus.fake_upstream import FakeUpstream
from tests.corpus.pressure import answer_on
from tests.corpus.scripts import Script, as_head
from tests.corpus.sidecar import fetch, redacting
from tests.corpus.stand import Around, Stand, until
from tests.corpus.trouble_stand import COMMAND, MASKED
from tests.corpus.wire import Message

RELOADED, NOT_RELOADED = "settings reloaded", "settings not reloaded"
OTHER = "corpus-other"
"""A limit by which a reading is known."""
STORM_S, EVERY_S = 6.0, 0.01
UNDER_WAY = 20
_PATIENCE_S = 15.0
_AT_ONCE = 4
_GAUGE = re.compile(rb"(?m)^\w*config_last_reload_successful(?:\{[^}]*\})? (\S+)$")

Line = Mapping[str, Any]


class ReloadStand(Stand):
    """One whose settings are read again on HUP, before a server of its own: it is asked beside other cases."""

    def __init__(self, around: Around, name: str, form: str) -> None:
        self.server = FakeUpstream()
        self.server.bind()
        super().__init__(replace(around, upstream=self.server), name, form)

    async def start(self) -> None:
        await self.server.start()
        await super().start()

    async def stop(self, *, politely: bool = True) -> None:
        await super().stop(politely=politely)
        await self.server.stop()

    async def begin(self) -> None:
        await super().begin()
        folder = self.sidecar.config.parent
        self._good = folder / f"{self.name}.good.yaml"
        self._other = folder / f"{self.name}.other.yaml"
        self._next = folder / f"{self.name}.next"
        self._good.write_text(json.dumps(self.settings), encoding="utf-8")
        self._lead_to(self._good)

    def policy(self) -> dict[str, Any]:
        """What `echo` says is looked at: who is answered by the rules of before is answered masked."""
        return redacting(super().policy())

    async def refuse(self, files: Sequence[File]) -> dict[str, Any]:
        """Let files that must not be accepted be read, and each time the good one again."""
        return {"reloads": tuple([await self.refuses(file) for file in files])}

    async def refuses(self, file: File) -> ConfigReload:
        """Let a file that must not be accepted be read, and the good one again. Raises CorpusError where that is not
        accepted."""
        sidecar = self.sidecar
        sidecar.forget_peak()
        mark, rss = sidecar.log_size(), sidecar.rss_bytes()
        before = await self._gauge()
        self._lead_to(file.path)
        sidecar.hang_up()
        line = await self._said(mark, lambda line: line["msg"] == NOT_RELOADED)
        denied, permitted = await self._outcome("danger"), await self._outcome("echo")
        readiness, gauge = await self._readiness(), await self._gauge()
        peak = sidecar.peak_rss_bytes()
        await self.goes_back()
        return ConfigReload(
            file=sidecar.config.name,
            keys=file.keys,
            has_lines=file.has_lines,
            secret=file.secret,
            mistakes=None if line is None else tuple(map(str, line["mistakes"])),
            printed=sidecar.log_since(mark).decode("utf-8", "replace"),
            denied=denied,
            permitted=permitted,
            readiness=readiness,
            recovered=await self._readiness(),
            gauge=(before, gauge),
            growth_bytes=peak - rss,
        )

    async def goes_back(self) -> None:
        """The good file is in force. Raises CorpusError where it is not accepted."""
        mark = self.sidecar.log_size()
        self._lead_to(self._good)
        self.sidecar.hang_up()
        if await self._said(mark, lambda line: line["msg"] == RELOADED and not _is_other(line)) is None:
            raise CorpusError("the good settings are not put into force")

    async def changes(self, **sections: Any) -> None:
        """The good file with other sections is in force. Raises CorpusError where it is not accepted."""
        mark = self.sidecar.log_size()
        self._writes_other(**sections)
        self._lead_to(self._other)
        self.sidecar.hang_up()
        if await self._said(mark, lambda line: line["msg"] == RELOADED and _is_other(line)) is None:
            raise CorpusError("the other settings are not put into force")

    async def storm(self) -> dict[str, Any]:
        """Another file and a HUP, a hundred times a second, under calls."""
        sidecar, upstream = self.sidecar, self.around.upstream
        upstream.begin(None, sends_discover=False)
        self._writes_other()
        await self.goes_back()  # what the first reload needs is there
        mark, rss = sidecar.log_size(), sidecar.rss_bytes()
        meanwhile: list[str] = []
        asked, began = 0, time.monotonic()

        async def calls(goes_on: Callable[[], bool]) -> None:
            meanwhile.extend(outcome(answer) for answer in await self._echoes(goes_on))

        async def wishes() -> None:
            nonlocal asked
            while (late_s := time.monotonic() - began) < STORM_S:
                self._lead_to(self._other if asked % 2 else self._good)
                sidecar.hang_up()
                asked += 1
                # A rate is what is asked for: there is no event that comes with it.
                await asyncio.sleep(asked * EVERY_S - late_s)

        await _beside(wishes(), *[calls] * _AT_ONCE)
        length_s = time.monotonic() - began
        ended = [line for line in entries_in(sidecar.log_since(mark)) if _is_reload(line)]
        await self.goes_back()
        return {
            "reload_storm": ReloadStorm(
                asked=asked,
                length_s=length_s,
                ended_at=tuple(datetime.fromisoformat(line["time"]).timestamp() for line in ended),
            ),
            "crowds": {"meanwhile": tuple(meanwhile)},
            "rss_growth_bytes": sidecar.rss_bytes() - rss,
        }

    async def while_under_way(self) -> dict[str, Any]:
        """`echo` is denied while calls of it are under way, and allowed and denied again while others come."""
        upstream = self.around.upstream
        gate = asyncio.Event()
        upstream.begin(Script(send=_commanding, gate=gate), sends_discover=False)
        denying = {"policy": _without_echo(super().policy())}
        calls = [Connection() for _ in range(UNDER_WAY)]
        try:
            for each in calls:
                await each.open(self.sidecar.data_port)
                await each.send(self._call("echo"))
            if not await until(lambda: len(upstream.take()[0]) == UNDER_WAY):
                raise CorpusError("the calls do not arrive")
            await self.changes(**denying)
            behind = [await self._outcome("echo") for _ in range(UNDER_WAY)]
            behind_arrived = len(upstream.take()[0]) - UNDER_WAY
            gate.set()
            async with asyncio.timeout(_PATIENCE_S):
                under_way = [_word(await answer_on(each)) for each in calls]
        finally:
            gate.set()
            for each in calls:
                each.close()
        upstream.begin(Script(send=_commanding), sends_discover=False)
        across: list[str] = []

        async def calls_across(goes_on: Callable[[], bool]) -> None:
            across.extend(_word(answer) for answer in await self._echoes(goes_on))

        async def to_and_fro() -> None:
            await self.goes_back()
            await self.changes(**denying)
            await self.goes_back()

        await _beside(to_and_fro(), *[calls_across] * _AT_ONCE)
        return {
            "under_way": ReloadUnderWay(
                begun=tuple(under_way),
                behind=tuple(behind),
                behind_arrived=behind_arrived,
                across=tuple(across),
                across_arrived=len(upstream.take()[0]),
            )
        }

    def _writes_other(self, **sections: Any) -> None:
        limit = {"name": OTHER, "key": ["tenant"], "rate_per_s": 100_000, "burst": 100_000}
        self._other.write_text(json.dumps({**self.settings, "limits": [limit], **sections}), encoding="utf-8")

    def _lead_to(self, path: Path) -> None:
        """The settings file is this one now, from one moment to the next."""
        self._next.symlink_to(path)
        self._next.replace(self.sidecar.config)

    async def _said(self, mark: int, fits: Callable[[Line], bool]) -> Line | None:
        """The first line since a mark that fits, once it is there; None where it does not come."""
        found: list[Line] = []

        def look() -> bool:
            lines = entries_in(self.sidecar.log_since(mark))
            found.extend(line for line in lines if "msg" in line and fits(line))
            return bool(found) or not self.sidecar.alive

        await until(look, _PATIENCE_S)
        return found[0] if found else None

    def _call(self, tool: str) -> bytes:
        params = {"name": tool, "arguments": {}}
        document = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        return self.request(document, {"X-API-Key": self.around.mint.value(self.runners_key)})

    async def _outcome(self, tool: str) -> str:
        return outcome(next(iter((await self.say(self._call(tool))).answers), None))

    async def _echoes(self, goes_on: Callable[[], bool]) -> list[Message | None]:
        """Answers to call after call on one connection, which is kept as long as it lasts."""
        request, found = self._call("echo"), []
        connection = Connection()
        await connection.open(self.sidecar.data_port)
        try:
            while goes_on():
                async with asyncio.timeout(_PATIENCE_S):
                    answer = await answer_on(connection, request)
                found.append(answer)
                if answer is None:
                    connection.close()
                    connection = Connection()
                    await connection.open(self.sidecar.data_port)
        finally:
            connection.close()
        return found

    async def _readiness(self) -> str:
        """What its probe says of it."""
        answer = await fetch(self.sidecar.operations_port, "/readyz")
        said = None if answer is None else answer.json
        return str(said.get("status")) if isinstance(said, dict) else "nothing"

    async def _gauge(self) -> float | None:
        """Whether the last reload was successful, as its metrics have it; None while it has none."""
        answer = await fetch(self.sidecar.operations_port, "/metrics")
        found = None if answer is None else _GAUGE.search(answer.body)
        return None if found is None else float(found[1])


SCENES: Mapping[str, Callable[[ReloadStand], Awaitable[dict[str, Any]]]] = {
    "(valid, alternating)": ReloadStand.storm,
    "(deny echo)": ReloadStand.while_under_way,
}
"""What is done where the corpus only describes a file."""


async def _beside(
    work: Awaitable[None], *calls: Callable[[Callable[[], bool]], Coroutine[Any, Any, None]]
) -> None:
    """Do something while calls come and go."""
    over = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        for each in calls:
            tasks.create_task(each(lambda: not over.is_set()))
        try:
            await work
        finally:
            over.set()


def _is_reload(line: Line) -> bool:
    return line.get("msg") in (RELOADED, NOT_RELOADED)


def _is_other(line: Line) -> bool:
    return any(OTHER in str(each) for each in line["enforces"])


def _commanding() -> tuple[bytes, bytes]:
    """An answer with a command in it, in two parts."""
    text = b'{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"%b"}]}}' % COMMAND
    return as_head(f"Content-Length: {len(text)}"), text


def _word(answer: Message | None) -> str:
    """What became of a call, and whether its answer was masked."""
    word = outcome(answer)
    if word != PASSED or answer is None:
        return word
    if COMMAND in answer.body:
        return "bare"
    return PASSED if MASKED in answer.body else "odd"


def _without_echo(policy: Mapping[str, Any]) -> dict[str, Any]:
    """Nobody may call it, and what it says is not looked at."""
    tools = [{**rule, "allow": []} if rule["match"] == "echo" else rule for rule in policy["tools"]]
    return {**policy, "tools": tools}
