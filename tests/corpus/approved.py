"""Which tools did an operator approve? Those of the fake server, pinned once a run by the real command."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from tests.corpus.fake_upstream import FakeUpstream
from tests.corpus.sidecar import pin


class Approved:
    """The lock file."""

    def __init__(self, argv: Sequence[str], folder: Path) -> None:
        self.file = folder / "tools.lock.yaml"
        self._argv = argv
        self._lock = asyncio.Lock()

    async def write(self) -> None:
        """Write it unless it is there. Raises SidecarError."""
        async with self._lock:
            if self.file.exists():
                return
            # A server of its own: what is asked here is no case's request.
            server = FakeUpstream()
            await server.start()
            try:
                await pin(self._argv, self.file, f"http://127.0.0.1:{server.port}/mcp")
            finally:
                await server.stop()
