"""Command line: `python -m tests.corpus.run [--category C ...] [--case ID ...] [--sidecar COMMAND]
[--without LIBRARY ...]`.

Runs the file named by ATTACK_CORPUS (default: the project's own) and prints passed, failed and deferred per
category, with the ids that failed and why. Exit code 0 when nothing failed, 1 otherwise, 2 when the file
cannot be read.
"""

import argparse
import asyncio
import os
import shlex
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from tests.corpus.arena import Arena, Verdict
from tests.corpus.cases import Case, Corpus, CorpusError, read_corpus
from tests.corpus.deferred import read_deferred
from tests.corpus.sidecar import Lag, Sidecar, SidecarError

OWN = Path(__file__).with_name("attack-corpus.yaml")


def corpus_path() -> Path:
    """The file to run."""
    return Path(os.environ.get("ATTACK_CORPUS") or OWN)


def chosen(corpus: Corpus, categories: list[str], ids: list[str]) -> tuple[Case, ...]:
    """The cases asked for; all without a choice. Raises CorpusError for a name that chooses nothing."""
    known = {case.category for case in corpus.cases} | {case.id for case in corpus.cases}
    if unknown := sorted({*categories, *ids} - known):
        raise CorpusError(f"no category or case {', '.join(unknown)}")
    if not categories and not ids:
        return corpus.cases
    return tuple(case for case in corpus.cases if case.category in categories or case.id in ids)


async def run(arena: Arena, cases: tuple[Case, ...]) -> list[Verdict]:
    """Verdicts in file order; the arena is closed afterwards whatever happens."""
    arena.expect(cases)
    await arena.open()
    try:
        return [await arena.run(case) for case in cases]
    finally:
        await arena.close()


def report(verdicts: list[Verdict]) -> str:
    """The table per category, what failed and why, and how much waits for which room."""
    lines = [f"{'category':<18}{'passed':>7}{'failed':>7}{'deferred':>9}  failed ids"]
    for category in dict.fromkeys(verdict.category for verdict in verdicts):
        mine = [verdict for verdict in verdicts if verdict.category == category]
        states = Counter(verdict.state for verdict in mine)
        ids = " ".join(verdict.id for verdict in mine if verdict.state == "failed")
        lines.append(
            f"{category:<18}{states['passed']:>7}{states['failed']:>7}{states['deferred']:>9}  {ids}".rstrip()
        )
    states = Counter(verdict.state for verdict in verdicts)
    lines.append(f"{'all':<18}{states['passed']:>7}{states['failed']:>7}{states['deferred']:>9}")
    for verdict in verdicts:
        lines += [f"  {verdict.id}: {problem}" for problem in verdict.problems]
    rooms = Counter(room for verdict in verdicts if verdict.state == "deferred" for room in verdict.rooms)
    parts = Counter(room for verdict in verdicts if verdict.state != "deferred" for room in verdict.rooms)
    for room in sorted({*rooms, *parts}):
        some = f", {parts[room]} more in part" if parts[room] else ""
        lines.append(f"waits for {room}: {rooms[room]} cases{some}")
    return "\n".join(lines)


def lag_report(lags: Mapping[str, Lag]) -> str:
    """The latest event loops of the sidecars that told: in all, and by computing; the rest is a busy machine."""
    if not lags:
        return "loop lag: no sidecar told"
    late = max(lags, key=lambda name: lags[name].all_s)
    busy = max(lags, key=lambda name: lags[name].cpu_s)
    return (
        f"loop lag of {len(lags)} sidecars that told: {lags[late].all_s * 1000:.0f} ms at most ({late}), "
        f"of it computing {lags[busy].cpu_s * 1000:.0f} ms at most ({busy})"
    )


def without(libraries: list[str]) -> str | None:
    """The command line of a sidecar that cannot import these libraries; None when there are none."""
    if not libraries:
        return None
    gone = "; ".join(f"sys.modules[{name!r}] = None" for name in libraries)
    return shlex.join(
        [sys.executable, "-c", f"import sys; {gone}; from proxy.__main__ import main; sys.exit(main())"]
    )


def main() -> int:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(prog="python -m tests.corpus.run", description=__doc__)
    parser.add_argument("--category", action="append", default=[], help="only this category; may be repeated")
    parser.add_argument("--case", action="append", default=[], help="only this case; may be repeated")
    parser.add_argument("--sidecar", help="command line to run instead of `python -m proxy`")
    parser.add_argument(
        "--without",
        action="append",
        default=[],
        help="as if this library were not installed (httptools: servers are reached by aiohttp's client)",
    )
    options = parser.parse_args()
    try:
        corpus = read_corpus(corpus_path())
        cases = chosen(corpus, options.category, options.case)
        deferred = read_deferred()
    except CorpusError as error:
        print(error, file=sys.stderr)
        return 2
    began = time.monotonic()
    try:
        verdicts = asyncio.run(
            run(Arena(corpus, deferred, sidecar=options.sidecar or without(options.without)), cases)
        )
    except SidecarError as error:
        print(error, file=sys.stderr)
        return 1
    print(report(verdicts))
    print(lag_report(Sidecar.lags))
    print(f"{len(verdicts)} cases of {corpus_path().name} in {time.monotonic() - began:.0f} s")
    return 1 if any(verdict.state == "failed" for verdict in verdicts) else 0


if __name__ == "__main__":
    sys.exit(main())
