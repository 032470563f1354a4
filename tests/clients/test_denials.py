"""Refusals as real clients see them: a text that their model can read, in a session that goes on.

The server is ours on PyPI's fastmcp, so that it can say what reached it; it speaks 2026-07-28 and what came before.
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import pytest

from proxy.policy.approvals import Approvals, Override
from tests.integration import house

from .policy_clients import EVERY, OVER_SSE, Clients, Failed, Said, Session
from .policy_scene import Guarded, Keys, Person, asked, keys_for, notes_server, sidecar

POLICY: dict[str, Any] = {
    "tools": [
        {"match": "count_notes", "class": "read", "allow": ["*"]},
        {"match": "delete_note", "allow": []},
        {"match": "pay", "allow": ["*"], "approval": "gated"},
        {"match": "move_note", "allow": ["*"], "arguments": {"name": {"pattern": "note-*"}}},
        {"match": "read_note", "allow": [], "report": True},
    ],
    "methods": {
        "prompts/get": {"allow": ["*"], "match": ["greeting"]},
        "resources/read": {"allow": ["*"], "match": ["note://public/*"]},
        "notifications/roots/list_changed": {"allow": []},
    },
}

ASKED = (
    "This call needs an approval. Nothing was done. Give the confirmation id {} to your user or to whoever may "
    "approve it, and wait: do not repeat the call before they say that it is approved. Then send exactly the same "
    "call once; the approval holds for one call with these arguments."
)

Heard: TypeAlias = Callable[[], list[str]]
"""Which tools the server was asked to call, since it was asked last."""


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    people = Person(name="ann"), Person(name="bea"), Person(name="zoe", tenant="globex")
    return keys_for(tmp_path_factory.mktemp("keys"), *people)


@pytest.fixture(scope="module")
def notes(logs: Any) -> Iterator[str]:
    with notes_server(logs) as url:
        yield url


@pytest.fixture(scope="module")
def guarded(notes: str, keys: Keys, logs: Any) -> Iterator[Guarded]:
    identity = {"authenticators": keys.authenticators}
    with sidecar(notes, logs, "denials", identity=identity, policy=POLICY) as guarded:
        yield guarded


@pytest.fixture
def heard(notes: str) -> Heard:
    asked(notes, "/heard")
    return functools.partial(asked, notes, "/heard")


def confirmation(said: Said) -> str:
    """The id that a gated call waits for, as its facts and its text have it."""
    assert said.refusal is not None
    id = said.refusal["confirmationId"]
    assert (said.is_error, said.text) == (True, ASKED.format(id))
    return str(id)


@pytest.mark.parametrize("setup", EVERY)
@pytest.mark.parametrize(
    ("tool", "arguments", "reason", "text"),
    [
        ("delete_note", {"name": "diary"}, "not_allowed", "This call is not allowed."),
        ("pay", {"amount": 5}, "approval_required", None),
        (
            "move_note",
            {"name": "diary"},
            "argument_invalid",
            'An argument is not allowed. The argument "name" must be a text like note-* (* is any text, ? one '
            "character).",
        ),
    ],
    ids=["denied", "gated", "argument"],
)
async def test_a_refusal_is_a_text_and_the_session_goes_on(
    clients: Clients,
    guarded: Guarded,
    keys: Keys,
    heard: Heard,
    setup: str,
    tool: str,
    arguments: dict[str, object],
    reason: str,
    text: str | None,
) -> None:
    """protocol.md 5: 200 and `isError`, which no SDK raises on, also where the tool declares an output schema."""
    async with clients.connected(setup, guarded.url, keys.of["ann"]) as session:
        speaks = session.speaks
        declared = {each["name"]: each for each in await session.tools()}
        refused = await session.call(tool, **arguments)
        after = await session.call("count_notes")
    assert speaks == EVERY[setup]
    assert refused.refusal is not None
    assert (refused.is_error, refused.refusal["reason"]) == (True, reason)
    assert refused.text == (text or ASKED.format(confirmation(refused)))
    assert ("outputSchema" in declared.get(tool, {})) is (reason != "not_allowed")
    assert after == Said(text="1")
    assert heard() == ["count_notes"]


@pytest.mark.parametrize("setup", EVERY)
async def test_an_argument_that_fits_and_a_rule_that_only_reports_let_pass(
    clients: Clients, guarded: Guarded, keys: Keys, heard: Heard, setup: str
) -> None:
    """Issue 4, 10: what would have been refused is recorded, and the client is none the wiser."""

    def reported() -> int:
        return sum("would_refuse" in line for line in guarded.lines("tool call"))

    before = reported()
    async with clients.connected(setup, guarded.url, keys.of["ann"]) as session:
        names = [tool["name"] for tool in await session.tools()]
        moved = await session.call("move_note", name="note-1")
        read = await session.call("read_note", name="diary")
    assert names == ["count_notes", "pay", "move_note", "read_note"]
    assert moved == Said(text="moved note-1")
    assert read == Said(text="the text of diary")
    assert heard() == ["move_note", "read_note"]
    guarded.child.wait_until(lambda: reported() > before, "the record", timeout_s=5)
    (*_, line) = (line for line in guarded.lines("tool call") if "would_refuse" in line)
    assert (line["tool"], line["outcome"]) == ("read_note", "ok")
    assert line["would_refuse"] == {"rule": "read_note", "reason": "not_allowed"}


@pytest.mark.parametrize("setup", EVERY)
async def test_other_refused_requests_raise_and_the_session_goes_on(
    clients: Clients, guarded: Guarded, keys: Keys, setup: str
) -> None:
    """protocol.md 5: a JSON-RPC error with a positive code, because there is no result a model would read."""
    async with clients.connected(setup, guarded.url, keys.of["ann"]) as session:
        with pytest.raises(Failed, match=r"This call is not allowed\.") as prompt:
            await session.prompt("confession")
        with pytest.raises(Failed, match=r"This call is not allowed\.") as resource:
            await session.read("note://secret/first")
        after = await session.prompt("greeting"), await session.read("note://public/first")
    assert (prompt.value.code, resource.value.code) == (403, 403)
    assert after == ("Say hello.", "public")


@pytest.mark.parametrize("setup", [name for name in EVERY if name != "ts 2.4 auto"])
async def test_a_refused_notification_goes_nowhere_and_the_session_goes_on(
    clients: Clients, guarded: Guarded, keys: Keys, setup: str
) -> None:
    """protocol.md 5: taken and dropped, because a 4xx would end Python 1.x sessions. (The TypeScript client of
    2026-07-28 sends none.)"""

    def dropped() -> int:
        lines = guarded.lines("message")
        method = "notifications/roots/list_changed"
        return sum((line.get("method"), line["outcome"]) == (method, "denied") for line in lines)

    before = dropped()
    async with clients.connected(setup, guarded.url, keys.of["ann"]) as session:
        await session.tell_roots()
        after = await session.call("count_notes")
    assert after == Said(text="1")
    guarded.child.wait_until(lambda: dropped() > before, "the record", timeout_s=5)


@pytest.fixture(scope="module")
def guarded_sse(sse_direct: str, keys: Keys, logs: Any) -> Iterator[Guarded]:
    tools = [
        {"match": "test_simple_text", "allow": ["*"]},
        {"match": "test_wait", "allow": ["*"], "approval": "gated"},
    ]
    identity = {"authenticators": keys.authenticators}
    with sidecar(sse_direct, logs, "denials-sse", identity=identity, policy={"tools": tools}) as guarded:
        yield guarded


@pytest.mark.parametrize("setup", OVER_SSE)
async def test_over_http_and_sse_a_refusal_comes_as_an_event(
    clients: Clients, guarded_sse: Guarded, keys: Keys, setup: str
) -> None:
    """protocol.md trap 11: an HTTP error on the message endpoint would let the call time out."""
    async with clients.connected(setup, guarded_sse.url, keys.of["ann"]) as session:
        denied = await session.call("test_sampling", prompt="why?")
        gated = await session.call("test_wait")
        after = await session.call("test_simple_text")
    assert denied == Said(text="This call is not allowed.", is_error=True, refusal={"reason": "not_allowed"})
    assert confirmation(gated)
    assert after == Said(text="This is a simple text response for testing.")


@asynccontextmanager
async def in_here(notes: str, keys: Keys) -> AsyncIterator[tuple[str, house.Sidecar]]:
    """The same sidecar in this process, where an operator's hands reach it: its URL, and itself."""
    authenticators = json.dumps(keys.authenticators)
    settings = f"identity.authenticators={authenticators}", f"policy={json.dumps(POLICY)}"
    async with house.sidecar(notes, *settings) as side:
        yield f"http://127.0.0.1:{side.port}/mcp", side


def release(approvals: Approvals, id: str) -> None:
    assert approvals.release(id, by="operator", now=time.monotonic()) is not None


@pytest.mark.parametrize("setup", EVERY)
async def test_a_gated_call_runs_once_when_a_person_agrees(
    clients: Clients, notes: str, keys: Keys, heard: Heard, setup: str
) -> None:
    """Issue 4, 6: bound to caller and arguments; a replay, other arguments, a colleague and another tenant are asked
    about anew."""
    async with (
        in_here(notes, keys) as (url, side),
        clients.connected(setup, url, keys.of["ann"]) as ann,
        clients.connected("mcp 2.3 auto", url, keys.of["bea"]) as bea,
        clients.connected("mcp 2.3 auto", url, keys.of["zoe"]) as zoe,
    ):
        approvals = side.house.rooms.policy.approvals

        async def pays(session: Session, amount: int = 5) -> Said:
            return await session.call("pay", amount=amount, to="bob")

        id = confirmation(await pays(ann))
        assert confirmation(await pays(ann)) == id
        others = [confirmation(said) for said in (await pays(ann, 50), await pays(bea), await pays(zoe))]
        assert len({id, *others}) == 4
        (theirs,) = approvals.pending(time.monotonic(), "globex")
        assert theirs.id == others[2]

        release(approvals, id)
        still = [confirmation(said) for said in (await pays(ann, 50), await pays(bea), await pays(zoe))]
        assert still == others
        assert heard() == []
        assert await pays(ann) == Said(text="bob got 5")
        assert confirmation(await pays(ann)) not in {id, *others}
        assert heard() == ["pay"]


async def test_what_an_operator_sets_for_one_tenant_is_nothing_to_others(
    clients: Clients, notes: str, keys: Keys
) -> None:
    """Issue 4, 6 and 7: approvals and modes at run time, in sessions that go on."""
    async with (
        in_here(notes, keys) as (url, side),
        clients.connected("mcp 1.30", url, keys.of["ann"]) as ann,
        clients.connected("mcp 2.3 auto", url, keys.of["zoe"]) as zoe,
    ):
        policy, now = side.house.rooms.policy, time.monotonic()

        async def both(tool: str, **arguments: object) -> list[str]:
            answers = [await session.call(tool, **arguments) for session in (ann, zoe)]
            return [said.text if said.refusal is None else said.refusal["reason"] for said in answers]

        assert await both("move_note", name="note-1") == ["moved note-1", "moved note-1"]
        policy.approvals.override(Override(tenant="globex", tool="move_*", approval="denied"), now)
        assert await both("move_note", name="note-1") == ["moved note-1", "not_allowed"]
        policy.approvals.clear("globex", "move_*")
        policy.modes.set("read-only", now, tenant="acme")
        assert await both("move_note", name="note-1") == ["mode", "moved note-1"]
        assert await both("count_notes") == ["1", "1"]
