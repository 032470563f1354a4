"""What a start loads, and what runs then: what the configuration needs, and nothing else."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.certificates import Authority, a_name
from tests.idp import AUDIENCE, Idp
from tests.integration.house import Process, probe, process, run_words
from tests.integration.tls import LOOPBACK
from tests.integration.upstream import Exchange, Upstream
from tests.integration.waiting import within
from tests.integration.wire import result

TELLS = """
import gc, json, pathlib, sys
from proxy.__main__ import main
code = main()
gc_is = [gc.isenabled(), gc.get_threshold()[0], gc.get_freeze_count() > 10_000]
pathlib.Path({file!r}).write_text(json.dumps([gc_is, sorted(sys.modules)]))
sys.exit(code)
"""
OF_EXTRAS = {"cel_expr_python", "hiredis", "jsonschema_rs", "opentelemetry", "re2", "requests"}
OF_ROOMS = {"aiolimiter", "cachetools", "prometheus_client", "importlib.metadata", "yaml"}
OF_TOKENS = {"cryptography", "jwt"}
OURS = {
    *(
        "cache.memory",
        "cache.stage",
        "capacity.pace",
        "identity.ownership",
        "limits.shared",
        "policy.elicitation",
    ),
    *("policy.pins", "policy.invisible", "telemetry.audit", "telemetry.page", "telemetry.spans"),
}
"""Modules of ours that nothing needs where their settings say nothing, and that cost."""


async def ready(running: Process) -> None:
    _, operations = await running.listening()
    async with within(10):
        while (await probe(operations, "/readyz")).status != 200:  # noqa: ASYNC110  a probe is asked, and tells nobody
            await asyncio.sleep(0.01)


async def answer(exchange: Exchange) -> None:
    exchange.answer(result())


async def loaded(tmp_path: Path, upstream: Upstream, *settings: str) -> tuple[list[object], set[str], int]:
    """The state of the collector, names of modules, and how many threads there were when it was ready."""
    file = tmp_path / "loaded"
    upstream.follow(answer)
    start = ("-c", TELLS.format(file=str(file)))
    async with process(*run_words(upstream.url, *settings), start=start) as running:
        await ready(running)
        threads = len(os.listdir(f"/proc/{running.process.pid}/task"))
        running.signal(signal.SIGINT)
        assert await running.exit_code() == 0
    collector, modules = json.loads(file.read_text(encoding="utf-8"))
    return collector, set(modules), threads


async def test_a_plain_start_loads_nothing_that_it_does_not_need(tmp_path: Path, upstream: Upstream) -> None:
    """Issue 10: imports on demand, no thread without a reason. The two are the loop, and the one that tells where the
    loop is blocked (`lifecycle/loop_watch.py`)."""
    _, modules, threads = await loaded(tmp_path, upstream)
    assert modules & (OF_EXTRAS | OF_ROOMS | OF_TOKENS | {f"proxy.{name}" for name in OURS}) == set()
    assert {"proxy.house", "aiohttp", "httptools"} <= modules
    assert threads == 2


async def test_who_reads_tokens_loads_what_reads_them(tmp_path: Path, upstream: Upstream) -> None:
    """Issue 10: CEL, OTLP, Redis and cryptography only where they are configured."""
    async with Idp() as idp:
        jwt = {"kind": "jwt", "issuer": idp.issuer, "jwks_url": idp.jwks_url}
        settings = f"identity.resource={AUDIENCE}", f"identity.authenticators={json.dumps([jwt])}"
        _, modules, _ = await loaded(tmp_path, upstream, *settings)
    assert modules & (OF_EXTRAS | {"prometheus_client", "importlib.metadata"}) == set()
    assert modules >= OF_TOKENS


async def test_the_collector_runs_once_it_serves(tmp_path: Path, upstream: Upstream) -> None:
    """Own promise: it sleeps until then, and what was built is none of its business."""
    collector, _, _ = await loaded(tmp_path, upstream)
    assert collector == [True, 10_000, True]


@asynccontextmanager
async def server(authority: Authority, folder: Path) -> AsyncIterator[str]:
    """One that answers everything over TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue(a_name(CN="server"), names=[LOOPBACK]).written(folder, "server"))

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
        writer.close()

    listening = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    async with listening:
        yield f"https://127.0.0.1:{listening.sockets[0].getsockname()[1]}/mcp"


@pytest.mark.parametrize("is_known", [True, False], ids=["known", "unknown"])
async def test_authorities_of_the_system_are_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_known: bool
) -> None:
    """They are not read when aiohttp is imported (`authorities.py`), and for a server over TLS all the same."""
    authority, stranger = Authority("ours"), Authority("a stranger")
    file = tmp_path / "authorities.pem"
    file.write_bytes((authority if is_known else stranger).pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))
    async with server(authority, tmp_path) as url, process(*run_words(url)) as running:
        _, operations = await running.listening()
        assert (await probe(operations, "/readyz")).status == (200 if is_known else 503)
