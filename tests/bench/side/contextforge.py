"""ContextForge before a server: started with its documented settings, asked through its API to know the server, called
at its own MCP address.

Where it may, it does less than by default: no pages for people, no admin API. Its limit on rates stays on, raised out
of the way.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import aiohttp
from msgspec.structs import replace

from proxy.demo.environment import python_environment
from proxy.demo.ports import free_ports
from tests.conformance.processes import ProcessFailed
from tests.tools.python_env import TOOLS

from .calls import Asked
from .peers import on_core, running
from .proving import must_ask_who
from .wrk import PROXY_CORE, Peer

LOCK: Final = Path(__file__).with_name("contextforge.lock")
READY_TIMEOUT_S: Final = 120.0
"""It makes its database first."""
CALL_TIMEOUT_S: Final = 30.0
ADMIN: Final = "admin@example.com"
TOKEN_MINUTES: Final = "120"
_ENDLESS: Final = "1000000000"


@asynccontextmanager
async def contextforge(upstream: int, logs: Path) -> AsyncIterator[Peer]:
    (port,) = free_ports(1)
    python = python_environment(TOOLS, LOCK)
    folder = logs / "contextforge"
    folder.mkdir()
    env = _settings(folder)
    command = on_core(PROXY_CORE, python.with_name("mcpgateway"), "--host", "127.0.0.1", "--port", str(port))
    log = logs / "contextforge.log"
    async with running(command, port, log, cwd=folder, more_env=env, timeout_s=READY_TIMEOUT_S) as peer:
        token = await _token(python, env, folder)
        asked = Asked(token=token, tool=await _registered(port, token, upstream))
        await must_ask_who(port, asked)
        yield replace(peer, says_no_with_200=True, asked=asked)


def _settings(folder: Path) -> dict[str, str]:
    password = f"Aa1!{secrets.token_urlsafe(24)}"
    return {
        "HOME": str(folder),
        "DATABASE_URL": f"sqlite:///{folder}/gateway.db",
        "JWT_SECRET_KEY": secrets.token_urlsafe(48),
        "AUTH_ENCRYPTION_SECRET": secrets.token_urlsafe(48),
        "PLATFORM_ADMIN_EMAIL": ADMIN,
        "PLATFORM_ADMIN_PASSWORD": password,
        "DEFAULT_USER_PASSWORD": password,
        "MCPGATEWAY_UI_ENABLED": "false",
        "MCPGATEWAY_ADMIN_API_ENABLED": "false",
        "SSRF_ALLOW_LOCALHOST": "true",
        "SSRF_ALLOW_PRIVATE_NETWORKS": "true",
        "RATE_LIMITING_REDIS_ENABLED": "false",
        "RATE_LIMIT_MEDIUM_RPM": _ENDLESS,
        "RATE_LIMIT_MEDIUM_BURST": _ENDLESS,
    }


async def _token(python: Path, env: Mapping[str, str], folder: Path) -> str:
    """What its own program makes of its secret."""
    words = ("--username", ADMIN, "--exp", TOKEN_MINUTES, "--secret", env["JWT_SECRET_KEY"])
    maker = await asyncio.create_subprocess_exec(
        *(python, "-m", "mcpgateway.utils.create_jwt_token", *words),
        stdout=PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=os.environ | dict(env),
        cwd=folder,
    )
    said, _ = await maker.communicate()
    if maker.returncode != 0 or not said.split():
        raise ProcessFailed("ContextForge made no token")
    return said.split()[-1].decode()


async def _registered(port: int, token: str, upstream: int) -> str:
    """Make the server known; the name its tool has from then on. Raises ProcessFailed."""
    timeout = aiohttp.ClientTimeout(total=CALL_TIMEOUT_S)
    server = {
        "name": "bench",
        "url": f"http://127.0.0.1:{upstream}/mcp",
        "transport": "STREAMABLEHTTP",
    }
    async with aiohttp.ClientSession(
        f"http://127.0.0.1:{port}", timeout=timeout, headers={"Authorization": f"Bearer {token}"}
    ) as session:
        try:
            async with session.post("/v1/gateways", json=server) as answer:
                if answer.status != 200:
                    raise ProcessFailed(f"ContextForge did not take the server: {answer.status}")
            async with session.get("/v1/tools") as answer:
                tools: list[dict[str, Any]] = await answer.json()
        except (TimeoutError, aiohttp.ClientError) as error:
            raise ProcessFailed(f"ContextForge did not take the server: {error!r}") from None
    if not tools:
        raise ProcessFailed("ContextForge found no tool at the server")
    return str(tools[0]["name"])
