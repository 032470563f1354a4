"""Who can be reached, and who should not? The operations port, the server, and the server without us.

In: settings, and an address outside. Out: findings. Sources: design section 2 (listeners), 4 (lifecycle); proc(5) for
the tables of listening sockets.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import aiohttp
import msgspec

from ..configuration.mistakes import shown
from ..configuration.socket_urls import LONGEST, socket_of
from ..configuration.values import Address, is_loopback, url_host_and_port
from ..pinning import Way
from ..policy.server_tools import Silent, listings
from ..settings import Settings
from ..upstream import unix_socket
from ..upstream.origin import Origin
from ..upstream.transport_aiohttp import AiohttpTransport
from .asking import Clocks, Dated, connects, get, words_of
from .finding import Finding, Findings, fail, ok, warn

KNOCK_S: Final = 2.0
"""For a connection that should not come about: a packet that is dropped has no answer to wait for."""
TABLES: Final = ("/proc/net/tcp", "/proc/net/tcp6")
LISTENS: Final = "0A"


async def operations(settings: Settings, clocks: Clocks) -> Findings:
    """Do the probes answer?"""
    address = settings.operations.address
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host)  # noqa: S104  # listened on, not asked
    where = Address(host, address.port)
    found: list[Finding] = []
    for path in ("/healthz", "/startupz", "/readyz"):
        try:
            said = await get(f"http://{where}{path}", "the sidecar", clocks)
        except (OSError, aiohttp.ClientError):
            remedy = "start the sidecar with these settings, or run this where it runs"
            return [fail("operations", f"nobody answers at {where}, where probes are asked", remedy)]
        found.append(_probe(f"{where}{path}", said.status, said.body))
    return found


def _probe(where: str, status: int, body: bytes) -> Finding:
    try:
        document = msgspec.json.decode(body)
    except msgspec.DecodeError:
        document = None
    reasons = words_of(document, "reasons")
    told = [each for each in reasons if isinstance(each, str)] if isinstance(reasons, list) else []
    if status == 200 and words_of(document, "status") == "degraded":
        why = shown("; ".join(told), 400)
        return warn("operations", f"{where}: degraded: {why}", "calls are served; mend what it names")
    if status == 200 and words_of(document, "status") == "ok":
        return ok("operations", f"{where} answers")
    reason = words_of(document, "reason")
    if status == 503 and isinstance(reason, str):
        return fail("operations", f"{where}: not ready: {shown(reason, 200)}", "mend what it names")
    return fail(
        "operations",
        f"{where} answers {status}, which no sidecar does",
        "is operations.address another's port?",
    )


async def upstream(settings: Settings, clocks: Clocks) -> Findings:
    """Is the server there, and does it speak MCP?"""
    section = settings.upstream
    where = shown(section.url.partition("?")[0], 200)
    try:
        async with asyncio.timeout(section.connect_timeout_s):
            file = socket_of(section.url)
            is_there = await (connects(*url_host_and_port(section.url)) if file is None else _opens(file))
    except PermissionError:
        remedy = "let the user of the sidecar write to the file, and enter its folder"
        return [fail("upstream", f"{where} cannot be reached from here: it is not permitted", remedy)]
    except TimeoutError:
        is_there = False
    if not is_there:
        remedy = "start the server, or correct upstream.url"
        return [fail("upstream", f"{where} cannot be reached from here", remedy)]
    transport = Dated(
        AiohttpTransport(section.url, connect_timeout_s=section.connect_timeout_s), "the server", clocks
    )
    try:
        found = await listings(Way(transport, Origin(section)), is_http_sse=section.is_http_sse)
    except Silent as silent:
        why = shown(str(silent), 300)
        remedy = "is it the endpoint of an MCP server, and of this transport?"
        return [fail("upstream", f"{where} takes connections and does not speak MCP: {why}", remedy)]
    finally:
        await transport.close()
    revisions = ", ".join(shown(each.revision, 20) for each in found)
    tools = max(len(each.tools) for each in found)
    return [ok("upstream", f"{where} speaks MCP {revisions} and lists {tools} tools")]


async def _opens(file: str) -> bool:
    """Whether somebody takes a connection there. Raises PermissionError."""
    try:
        await unix_socket.knocks(file)
    except PermissionError:
        raise
    except OSError:
        return False
    return True


async def exposure(settings: Settings, tables: Iterable[str] = TABLES) -> Findings:
    """Does a server on loopback listen elsewhere too? Seen where its sockets are seen: in its pod or on its machine."""
    file = socket_of(settings.upstream.url)
    if file is not None:
        where = shown(file, LONGEST)
        return [ok("exposure", f"the server is asked at the file {where}, which no network leads to")]
    host, port = url_host_and_port(settings.upstream.url)
    if not is_loopback(host):
        return [
            warn(
                "exposure",
                f"the server at {shown(host)} is not on loopback: others of its network may reach it past every rule",
                "put both into one pod, or close its port by a NetworkPolicy",
            )
        ]
    listening = sorted(set(_listening_on(port, tables)))
    open_ = [each for each in listening if not ipaddress.ip_address(each).is_loopback]
    if open_:
        return [
            warn(
                "exposure",
                f"the server listens on {', '.join(open_)} port {port}: who reaches the pod walks around every rule",
                "bind it to 127.0.0.1, or close its port by a NetworkPolicy; see --server-address",
            )
        ]
    if listening:
        return [ok("exposure", f"the server listens on loopback only ({', '.join(listening)} port {port})")]
    return [ok("exposure", "the server's sockets are not seen from here")]


def _listening_on(port: int, tables: Iterable[str]) -> Iterator[str]:
    for table in tables:
        try:
            lines = Path(table).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for words in (line.split() for line in lines):
            address, _, number = words[1].partition(":")
            if words[3] == LISTENS and int(number, 16) == port:
                yield _address(address)


def _address(text: str) -> str:
    """The kernel writes each 32-bit word in the machine's order, which is little-endian where we run."""
    raw = b"".join(bytes.fromhex(text[at : at + 8])[::-1] for at in range(0, len(text), 8))
    address = ipaddress.ip_address(raw)
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


async def bypass(settings: Settings | None, address: Address | None) -> Findings:
    """Can the server be reached without us, at this address?"""
    if address is None:
        remedy = "outside the pod run doctor --server-address with its IP and the server's port"
        return [ok("bypass", f"not tried: {remedy}")]
    own = None if settings is None else settings.listen.address
    if own is not None and own.port == address.port and settings is not None:
        url = settings.upstream.url
        server = None if socket_of(url) is not None else url_host_and_port(url)[1]
        if server != address.port:
            what = f"{address} has the port of the sidecar, so nothing was shown"
            which = "if it listens on one beside its file" if server is None else str(server)
            return [warn("bypass", what, f"name the server's port, {which}")]
    try:
        async with asyncio.timeout(KNOCK_S):
            is_open = await connects(address.host, address.port)
    except TimeoutError:
        is_open = False
    if not is_open:
        return [
            ok("bypass", f"nobody takes a connection at {address} from here: it is reached through us only")
        ]
    return [
        fail(
            "bypass",
            f"{address} takes connections from here: whoever does so walks around every rule",
            "bind the server to 127.0.0.1, or let a NetworkPolicy admit the sidecar's port alone",
        )
    ]
