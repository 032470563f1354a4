"""The client of this package with a sidecar between it and the server: a command for the suite.

    python -m tests.conformance.client.through URL

Starts a sidecar in front of URL, runs the client against the sidecar and ends with the client's exit code. The
server owns its OAuth, so the sidecar passes tokens on. Whatever happens to us, both end with us.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

from tests.conformance.processes import ProcessFailed, child, end_with_parent, tail
from tests.conformance.stand import sidecar, sidecar_command


def command(upstream: str, port: int, operations_port: int) -> list[str]:
    """A sidecar that leaves tokens to the server, and knows the URL clients use."""
    return [
        *sidecar_command(upstream, port, operations_port),
        *("--set", "upstream.forward_client_authorization=true"),
        *("--set", f"identity.resource=http://127.0.0.1:{port}/mcp"),
    ]


async def main(server: str) -> int:
    with tempfile.TemporaryDirectory(prefix="conformance-") as folder:
        logs = Path(folder)
        log = logs / "client.log"
        async with sidecar(server, logs, command) as url:
            client = [sys.executable, "-m", "tests.conformance.client", url]
            async with child(client, log=log) as process:
                code = await process.wait()
        if code != 0:
            print("client:", tail(log), "sidecar:", tail(logs / "sidecar.log"), sep="\n", file=sys.stderr)
        return code


if __name__ == "__main__":
    if (ask := end_with_parent()) is not None:
        ask()
    try:
        sys.exit(asyncio.run(main(sys.argv[-1])))
    except ProcessFailed as failed:
        sys.exit(str(failed))
