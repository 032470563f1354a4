"""Does a synchronous audit have a record of every call that reached the server, whenever the process is killed?

    python -m tests.faults.audit_kills [--rounds 50] [--seed N]
    python -m tests.faults.audit_kills --mode batch          # must fail: it promises less

Each round: a sidecar process before a recording server (in this process, which is not killed), a few clients that call
without a pause, and SIGKILL at a random moment. All rounds write one file. Asked of it: an intent for each call that
the server has seen, a result for each answer that a client has got, and that `audit verify` finds one unbroken chain.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Iterator
from io import StringIO
from itertools import count
from pathlib import Path
from random import Random

import uvloop
from msgspec import Struct, field

from proxy.telemetry.audit_command import verify
from tests.integration.client import Cut, connected
from tests.integration.house import process, run_words
from tests.integration.upstream import Exchange, Upstream
from tests.integration.wire import LEGACY, message, post, result

CLIENTS = 8
LONGEST_S = 60.0


class Tally(Struct):
    """What was seen, by the nonces in the names of tools."""

    sent: set[str] = field(default_factory=set)
    reached: set[str] = field(default_factory=set)
    answered: set[str] = field(default_factory=set)
    intents: set[str] = field(default_factory=set)
    results: set[str] = field(default_factory=set)
    rounds: int = 0
    torn: int = 0
    verdict: str = ""

    @property
    def broken(self) -> list[str]:
        said = []
        if missing := self.reached - self.intents:
            said.append(f"{len(missing)} calls reached the server without an intent")
        if missing := self.answered - self.results:
            said.append(f"{len(missing)} answers were released without a result")
        if not self.answered:
            said.append("not a single call was answered")
        if self.verdict:
            said.append(self.verdict)
        return said


async def _calls(port: int, nonces: Iterator[int], tally: Tally) -> None:
    """One client, until the process is gone."""
    try:
        async with connected(port) as client:
            while True:
                tool = f"delete-{next(nonces)}"
                tally.sent.add(tool)
                body = message("tools/call", LEGACY, tool, name=tool, arguments={"a": 1})
                if b"hello" in (await client.asked(post(body, LEGACY))).body:
                    tally.answered.add(tool)
    except (Cut, OSError, AssertionError):
        return


async def _round(
    upstream: Upstream, words: list[str], nonces: Iterator[int], tally: Tally, dice: Random
) -> None:
    async with process(*words) as side, asyncio.timeout(LONGEST_S):
        port, _ = await side.listening()
        async with asyncio.TaskGroup() as clients:
            for _ in range(CLIENTS):
                clients.create_task(_calls(port, nonces, tally))
            await asyncio.sleep(dice.uniform(0, 0.4))
            side.process.kill()
    tally.rounds += 1


async def run(rounds: int, seed: int, folder: Path, mode: str = "sync") -> Tally:
    """So many kills, and what was seen. In batch mode something must be missing."""
    dice, tally, nonces = Random(seed), Tally(), count()
    file = folder / "audit.jsonl"
    upstream = Upstream()

    async def answer(exchange: Exchange) -> None:
        said = json.loads(exchange.request.body)
        tally.reached.add(said["params"]["name"])
        exchange.answer(result(said["id"]))

    upstream.follow(answer)
    await upstream.open()
    try:
        for _ in range(rounds):
            words = run_words(upstream.url, f"telemetry.audit.file={file}", f"telemetry.audit.mode={mode}")
            await _round(upstream, words, nonces, tally, dice)
        # Whoever opens it once more accounts for what the last kill left.
        async with (
            process(*run_words("http://127.0.0.1:9/mcp", f"telemetry.audit.file={file}")) as side,
            asyncio.timeout(LONGEST_S),
        ):
            await side.listening()
            side.process.terminate()
            await side.process.wait()
    finally:
        await upstream.close()
    for raw in file.read_bytes().splitlines():
        try:
            line = json.loads(raw)
        except ValueError:
            continue  # torn; verify says whether it is accounted for
        tally.torn += line["kind"] == "torn"
        if line["kind"] == "intent":
            tally.intents.add(line["tool"])
        elif line["kind"] in ("result", "amended"):
            tally.results.add(line["tool"])
    out = StringIO()
    tally.verdict = out.getvalue() if verify([str(file)], [], [], out, out) else ""
    return tally


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=8)
    parser.add_argument("--mode", default="sync", help="batch must break the promise")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tally = uvloop.run(run(options.rounds, options.seed, Path(folder), options.mode))
    print(
        f"{tally.rounds} kills (seed {options.seed}): {len(tally.sent):,} calls sent, {len(tally.reached):,} reached "
        f"the server, {len(tally.answered):,} answered; {len(tally.intents):,} intents, {len(tally.results):,} "
        f"results, {tally.torn} torn lines"
    )
    for each in tally.broken:
        print(f"BROKEN: {each}")
    return 1 if tally.broken else 0


if __name__ == "__main__":
    sys.exit(main())
