"""What the three probes say, and what they do not depend on."""

import asyncio
import json
from collections.abc import Sequence

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


class Part:
    """Something beside the server that calls depend on."""

    def __init__(self, unready: str | None = None, degraded: Sequence[str] = ()) -> None:
        self.unready = unready
        self.degraded = degraded

    def why_unready(self) -> str | None:
        return self.unready

    def why_degraded(self) -> Sequence[str]:
        return self.degraded


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (Part(unready="keys not loaded", degraded=["i: no keys: timeout"]), no("keys not loaded")),
        (
            Part(degraded=["i: keys not renewed: timeout"]),
            (200, {"status": "degraded", "reasons": ["i: keys not renewed: timeout"]}),
        ),
        (Part(), OK),
    ],
)
async def test_what_works_for_the_moment_is_degraded_and_ready(
    part: Part, expected: tuple[int, object]
) -> None:
    """Issue 3, 1: IdP trouble is a degraded readiness; without keys nobody can be let in."""

    async def upstream_answers() -> bool:
        return True

    made = Health(upstream_answers, part)
    made.is_listening = True
    async with TestClient(TestServer(operations(made))) as client:
        response = await client.get("/readyz")
        assert (response.status, json.loads(await response.read())) == expected


async def test_an_operator_is_told_once_of_each_change() -> None:
    """Own promise: a provider that is away is a line in the log, and one when it is back."""
    told: list[list[str]] = []
    part = Part()
    states: list[Sequence[str]] = [[], ["a"], ["a"], ["a", "b"], [], []]

    async def upstream_answers() -> bool:
        return True

    async def sleep(seconds: float) -> None:
        if not states:
            raise asyncio.CancelledError
        part.degraded = states.pop(0)

    made = Health(upstream_answers, part)
    with pytest.raises(asyncio.CancelledError):
        await made.tell_changes(lambda reasons: told.append(list(reasons)), sleep)
    assert told == [["a"], ["a", "b"], []]
