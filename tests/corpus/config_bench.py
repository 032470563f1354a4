"""What does the sidecar do with a bad configuration file? A FILE case → its files, and one ConfigRun per command
and file.

Each case is started as it stands. Where its keys are not ours, the same mistake is also made in our own
words, on top of a file that is otherwise good, so that the mistake itself is what is refused and not only
the key.
"""

import asyncio
import os
import re
import secrets
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import yaml
from msgspec import Struct

from tests.corpus.cases import Case, CorpusError
from tests.corpus.evidence import ConfigRun
from tests.corpus.sidecar import environment, status_bytes

_PATIENCE_S = 10.0
_POLL_S = 0.005
_HUGE_BYTES = 1 << 30
_GOOD = 'version: 1\nupstream: {url: "http://127.0.0.1:1/mcp"}\n'
_SPECIAL_TITLE = "file replaced by a directory, symlink loop, 1 GB file"
_OUR_WORDS: dict[str, tuple[str, str]] = {
    "SSRF-040": ('version: 1\nupstream: {url: "http://169.254.169.254/"}\n', "url"),
    "CFG-005": (f"{_GOOD}listen: {{alowed_hosts: [proxy.test]}}\n", "alowed_hosts"),
    "CFG-006": (f"{_GOOD}listen: {{allowed_hosts: [no]}}\n", "allowed_hosts"),
    "CFG-007": (f"{_GOOD}listen: {{head_timeout_s: 1:30, body_timeout_s: 010}}\n", "head_timeout_s"),
    "CFG-015": ('version: 1\nupstream: {url: "${CORPUS_VARIABLE_NOBODY_SETS}"}\n', "url"),
}
"""The same mistake with our keys, and the key the message must name."""


class File(Struct, frozen=True, kw_only=True):
    """One file of a case, and what must be said of it."""

    path: Path
    keys: tuple[str, ...] = ()
    has_lines: bool = True
    secret: str | None = None


class ConfigBench:
    """Starts the sidecar's command line with files in a folder of its own."""

    def __init__(self, argv: Sequence[str], folder: Path) -> None:
        self._argv = argv
        self._folder = folder
        self._good_rss_bytes: int | None = None
        self._files: dict[str, tuple[File, ...]] = {}

    def files(self, case: Case) -> tuple[File, ...]:
        """Those of the case, the same each time: as it stands, and the same mistake in our words.

        Raises CorpusError for a file that is only described, in words we do not know.
        """
        if case.id not in self._files:
            self._files[case.id] = self._made(case)
        return self._files[case.id]

    def _made(self, case: Case) -> tuple[File, ...]:
        folder = self._folder / case.id
        folder.mkdir()
        text = (case.request.body or b"").decode("utf-8")
        if re.fullmatch(r"\(.*\)\s*", text):
            # Prose for a file that YAML cannot hold; written down as it stands, any of it would be refused.
            if case.title != _SPECIAL_TITLE:
                raise CorpusError(f"no file for {text.strip()}, {case.title}")
            return _special(folder)
        return _files(folder, case.id, text)

    async def run(self, files: Sequence[File]) -> tuple[ConfigRun, ...]:
        """Every start that these files ask for."""
        if self._good_rss_bytes is None:
            good = self._folder / "good.yaml"
            good.write_text(_GOOD, encoding="utf-8")
            self._good_rss_bytes = (await self._start("check", good))[2]
        runs: list[ConfigRun] = []
        for file in files:
            # Two at a time: `check` and `run` of the same file.
            pair = await asyncio.gather(*(self._start(command, file.path) for command in ("check", "run")))
            for command, (exit_code, output, peak_bytes) in zip(("check", "run"), pair, strict=True):
                runs.append(
                    ConfigRun(
                        command=command,
                        file=file.path.name,
                        keys=file.keys,
                        has_lines=file.has_lines,
                        exit_code=exit_code,
                        output=output,
                        peak_rss_growth_bytes=peak_bytes - self._good_rss_bytes,
                        secret=file.secret,
                    )
                )
        return tuple(runs)

    async def _start(self, command: str, config: Path) -> tuple[int | None, str, int]:
        output = config.parent / f"{config.name}.{command}.log"
        with output.open("wb") as log:
            process = subprocess.Popen(  # noqa: ASYNC220  # forking takes a millisecond and nothing else is timed meanwhile
                [*self._argv, command, "--config", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment(),
            )
        peak = 0
        deadline = time.monotonic() + _PATIENCE_S
        while process.poll() is None and time.monotonic() < deadline:
            peak = max(peak, status_bytes(process.pid, "VmHWM"))
            await asyncio.sleep(_POLL_S)
        exit_code = process.returncode
        if exit_code is None:
            process.kill()
            await asyncio.to_thread(process.wait)
        return exit_code, output.read_text(encoding="utf-8", errors="replace"), peak


def _files(folder: Path, name: str, text: str) -> tuple[File, ...]:
    secret = None
    if match := re.search(r"key: \"(\w+)\"", text):
        # Minted, so that finding it in the output cannot be a word of the message.
        secret = f"corpus{secrets.token_hex(8)}"
        text = text.replace(match[0], f'key: "{secret}"')
    as_it_stands = folder / "config.yaml"
    as_it_stands.write_text(text, encoding="utf-8")
    found = [File(path=as_it_stands, keys=_keys(text), secret=secret)]
    if name in _OUR_WORDS:
        ours, key = _OUR_WORDS[name]
        path = folder / "ours.yaml"
        path.write_text(ours, encoding="utf-8")
        found.append(File(path=path, keys=(key,)))
    return tuple(found)


def _keys(text: str) -> tuple[str, ...]:
    # Of one letter they would be found in any message; of a file that is no YAML there is no key to name.
    try:
        yaml.compose(text, Loader=yaml.CSafeLoader)
    except yaml.YAMLError:
        return ()
    return tuple(dict.fromkeys(re.findall(r"(\w{2,}):(?=\s)", text)))


def _special(folder: Path) -> tuple[File, ...]:
    directory = folder / "directory.yaml"
    directory.mkdir()
    loop = folder / "loop.yaml"
    loop.symlink_to(folder / "pool.yaml")
    (folder / "pool.yaml").symlink_to(loop)
    huge = folder / "huge.yaml"
    with huge.open("wb") as file:
        os.truncate(file.fileno(), _HUGE_BYTES)
    return tuple(File(path=path, has_lines=False) for path in (directory, loop, huge))
