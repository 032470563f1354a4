"""The operations port: /healthz, /readyz, /startupz, /metrics. No secrets, no credential asked.

healthz: the loop turns, whatever the server does, or a restart would follow every outage of the server.
startupz: settings loaded and listening; ignores the server, or a native sidecar would keep its own server from
starting. readyz: keys are loaded, the server answers and nothing is being drained; what works for the moment but
needs an operator is called degraded, and stays ready.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol, TypeAlias

from aiohttp import web

LOOK_EVERY_S: Final = 2.0
"""Between two looks at what is degraded; an operator reads the line later than that."""


class Part(Protocol):
    """Something that calls depend on beside the server."""

    def why_unready(self) -> str | None: ...
    def why_degraded(self) -> Sequence[str]: ...


class Health:
    """What the probes are told from."""

    def __init__(self, upstream_answers: Callable[[], Awaitable[bool]], *parts: Part) -> None:
        self.ask_others(upstream_answers, *parts)
        self.is_listening = False
        self.is_draining = False

    def ask_others(self, upstream_answers: Callable[[], Awaitable[bool]], *parts: Part) -> None:
        """Other settings are in force."""
        self._upstream_answers = upstream_answers
        self._parts = parts

    async def why_unready(self) -> str | None:
        """One word for an operator, or None when ready."""
        if not self.is_listening:
            return "starting"
        if self.is_draining:
            return "draining"
        for part in self._parts:
            why = part.why_unready()
            if why is not None:
                return why
        return None if await self._upstream_answers() else "upstream does not answer"

    def why_degraded(self) -> Sequence[str]:
        """What an operator should look at although calls are served."""
        return [why for part in self._parts for why in part.why_degraded()]

    async def tell_changes(
        self,
        tell: Callable[[Sequence[str]], None],
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        """Tell what is degraded whenever that changes; nothing when all is well again. Ends when cancelled."""
        told: tuple[str, ...] = ()
        while True:
            await sleep(LOOK_EVERY_S)
            reasons = tuple(self.why_degraded())
            if reasons != told:
                tell(reasons)
                told = reasons


Metrics: TypeAlias = Callable[[str], Awaitable[tuple[bytes, str] | None]]
"""What a scraper accepts → the page and its content type; None where nothing is counted."""


def operations(health: Health, metrics: Metrics | None = None) -> web.Application:
    """The application of the operations port."""

    async def healthz(_: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def startupz(_: web.Request) -> web.Response:
        return _answer(None if health.is_listening else "starting")

    async def readyz(_: web.Request) -> web.Response:
        return _answer(await health.why_unready(), health.why_degraded())

    async def page(request: web.Request) -> web.Response:
        made = None if metrics is None else await metrics(", ".join(request.headers.getall("Accept", [])))
        if made is None:
            raise web.HTTPNotFound
        body, kind = made
        return web.Response(body=body, headers={"Content-Type": kind})

    app = web.Application()
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/startupz", startupz)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", page)
    return app


def _answer(why_not: str | None, degraded: Sequence[str] = ()) -> web.Response:
    if why_not is not None:
        return web.json_response({"status": "unavailable", "reason": why_not}, status=503)
    if degraded:
        return web.json_response({"status": "degraded", "reasons": list(degraded)})
    return web.json_response({"status": "ok"})
