"""An audit file under test: real disk, real thread."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from io import StringIO
from pathlib import Path
from typing import Any

from proxy.telemetry.audit_chain import Asked, encoded
from proxy.telemetry.audit_command import verify
from proxy.telemetry.audit_log import AuditLog
from proxy.telemetry.audit_scribe import Sign
from proxy.telemetry.audit_settings import AuditSettings
from proxy.telemetry.redaction import Redactor

LONGEST_S = 5.0
Line = dict[str, Any]


class Disk:
    """Syncs as a disk does, until it is told to hang."""

    def __init__(self) -> None:
        self._goes_on = threading.Event()
        self._goes_on.set()
        self.syncs = 0
        self.error: OSError | None = None

    def __call__(self, descriptor: int) -> None:
        self._goes_on.wait(30)
        self.syncs += 1
        if self.error is not None:
            raise self.error
        os.fdatasync(descriptor)

    def hang(self) -> None:
        self._goes_on.clear()

    def go_on(self) -> None:
        self._goes_on.set()


class Scene:
    def __init__(self, log: AuditLog, path: Path, life: list[tuple[str, str]], disk: Disk) -> None:
        self.log = log
        self.path = path
        self.life = life
        self.disk = disk

    @property
    def lines(self) -> list[Line]:
        return lines_of(self.path)

    async def written(self, number: int, timeout_s: float = LONGEST_S) -> bool:
        return await self.log.written([number], timeout_s)

    def call(self, tool: str = "drop_table", kind: str = "result") -> int:
        asked = Asked("issuer", "ann", "acme", "", "", "tools/call", tool)
        return self.log.put(f'"kind":"{kind}",{encoded(asked)}')


def lines_of(path: Path) -> list[Line]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def kinds_of(path: Path) -> list[str]:
    return [
        line.get("what") or line.get("why") or line.get("tool") or line["kind"] for line in lines_of(path)
    ]


def checked(*files: Path, keys: tuple[Path, ...] = (), anchors: tuple[Path, ...] = ()) -> tuple[int, str]:
    """Exit code and words of `audit verify`."""
    out, err = StringIO(), StringIO()
    code = verify([*map(str, files)], [*map(str, keys)], [*map(str, anchors)], out, err)
    return code, out.getvalue() + err.getvalue()


@asynccontextmanager
async def audit(
    path: Path,
    *,
    sign: Sign | None = None,
    redactor: Redactor | None = None,
    wall: Callable[[], float] = lambda: 1_767_323_045.000006,
    retry_s: float = 0.01,
    **settings: Any,
) -> AsyncIterator[Scene]:
    """A log that is closed at the end."""
    life: list[tuple[str, str]] = []
    disk = Disk()

    def tell(msg: str, level: str = "info", **fields: object) -> None:
        life.append((msg, level))

    log = AuditLog(
        AuditSettings(file=str(path), **settings),
        sign=sign,
        life=tell,
        host="here",
        wall=wall,
        redactor=redactor,
        sync=disk,
        retry_s=retry_s,
    )
    try:
        yield Scene(log, path, life, disk)
    finally:
        disk.go_on()
        await log.close()


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(LONGEST_S):
        while not is_so():  # noqa: ASYNC110  a gauge of a thread
            await asyncio.sleep(0)
