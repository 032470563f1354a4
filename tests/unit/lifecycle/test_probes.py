"""What the three probes say, and what they do not depend on."""

import json

import pytest
from aiohttp.test_utils import TestClient, TestServer

from proxy.lifecycle.probes import Health, operations


def health(*, listening: bool, draining: bool, answers: bool) -> Health:
    async def upstream_answers() -> bool:
        return answers

    made = Health(upstream_answers)
    made.is_listening, made.is_draining = listening, draining
    return made


OK = (200, {"status": "ok"})


def no(reason: str) -> tuple[int, dict[str, str]]:
    return 503, {"status": "unavailable", "reason": reason}


@pytest.mark.parametrize(
    ("state", "startup", "ready"),
    [
        ({"listening": False, "draining": False, "answers": False}, no("starting"), no("starting")),
        ({"listening": False, "draining": False, "answers": True}, no("starting"), no("starting")),
        ({"listening": True, "draining": False, "answers": False}, OK, no("upstream does not answer")),
        ({"listening": True, "draining": False, "answers": True}, OK, OK),
        ({"listening": True, "draining": True, "answers": True}, OK, no("draining")),
        ({"listening": True, "draining": True, "answers": False}, OK, no("draining")),
    ],
)
async def test_the_three_probes(
    state: dict[str, bool], startup: tuple[int, object], ready: tuple[int, object]
) -> None:
    """design section 4, lifecycle: health never and start never depend on the server, or restarts follow outages."""
    async with TestClient(TestServer(operations(health(**state)), host="127.0.0.1")) as client:
        answers = []
        for path in ("/healthz", "/startupz", "/readyz"):
            async with client.get(path) as response:
                answers.append((response.status, json.loads(await response.text())))
    assert answers == [OK, startup, ready]


async def test_the_operations_port_serves_nothing_else() -> None:
    """design section 2: no tenant data, no secrets, no authentication."""
    made = health(listening=True, draining=False, answers=True)
    async with TestClient(TestServer(operations(made), host="127.0.0.1")) as client:
        for path in ("/", "/mcp", "/healthz/", "/admin"):
            async with client.get(path) as response:
                assert response.status == 404
        async with client.post("/healthz") as response:
            assert response.status == 405
