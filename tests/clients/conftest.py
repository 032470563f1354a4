"""Two routes to the same server: a test that takes `url` or `sse_url` runs on both and cannot tell which."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from . import running
from .policy_clients import Clients


@pytest.fixture(scope="session")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("clients")


@pytest.fixture(scope="session")
def streamable_direct(logs: Path) -> Iterator[str]:
    with running.server(logs) as url:
        yield url


@pytest.fixture(scope="session")
def streamable_sidecar(streamable_direct: str, logs: Path) -> Iterator[str]:
    with running.sidecar(streamable_direct, logs) as url:
        yield url


@pytest.fixture(scope="session")
def sse_direct(logs: Path) -> Iterator[str]:
    with running.server(logs, "--sse") as url:
        yield url


@pytest.fixture(scope="session")
def sse_sidecar(sse_direct: str, logs: Path) -> Iterator[str]:
    with running.sidecar(sse_direct, logs) as url:
        yield url


@pytest.fixture(scope="session", params=["direct", "sidecar"])
def route(request: pytest.FixtureRequest) -> str:
    """The way a test's messages take."""
    return str(request.param)


@pytest.fixture(scope="session")
def url(route: str, request: pytest.FixtureRequest) -> str:
    """Where the streamable revisions and 2026-07-28 are served."""
    return str(request.getfixturevalue(f"streamable_{route}"))


@pytest.fixture(scope="session")
def sse_url(route: str, request: pytest.FixtureRequest) -> str:
    """Where 2024-11-05 is served."""
    return str(request.getfixturevalue(f"sse_{route}"))


@pytest.fixture(scope="session")
def clients(logs: Path) -> Iterator[Clients]:
    """Clients with keys, of every SDK; those that need a process of their own share it."""
    clients = Clients(logs)
    yield clients
    clients.stop()
