"""Who did what, through a whole sidecar: records before the answer, refusals, streams, both endpoints, reloads."""

from __future__ import annotations

import json
import resource
import time
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import Connect, OpenSidecar
from tests.integration.house import process, run_words
from tests.integration.test_answers_not_ours import reason_of
from tests.integration.test_http_sse import opened, to
from tests.integration.upstream import Exchange, Upstream
from tests.integration.waiting import until
from tests.integration.wire import LEGACY, event, message, post, result, tool_call
from tests.unit.telemetry.audit_scene import checked, lines_of

POLICY = (
    "policy.tools=[{match: read_*, class: read, allow: ['*']}, {match: pay, class: write, allow: ['*']}, "
    "{match: drop_*, class: dangerous, deny: ['*']}]"
)
KINDS = ("intent", "result", "amended")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


def told(file: Path) -> list[tuple[str, str, str]]:
    return [
        (line["kind"], line["tool"], line.get("result", ""))
        for line in lines_of(file)
        if line["kind"] in KINDS
    ]


def settings(file: Path, mode: str = "sync", *more: str) -> list[str]:
    return [f"telemetry.audit.file={file}", f"telemetry.audit.mode={mode}", *more]


async def answered(exchange: Exchange) -> None:
    exchange.answer(result(json.loads(exchange.request.body)["id"]))


async def test_the_record_is_there_before_the_server_and_before_the_client(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream, file: Path
) -> None:
    """Issue 8: sync, for a whole answer."""
    side = await open_sidecar(*settings(file))
    client = await connect(side.port)
    client.send(post(tool_call(tool="pay")))
    exchange = await upstream.next()
    assert told(file) == [("intent", "pay", "")]
    await answered(exchange)
    assert (await client.answer()).status == 200
    assert told(file) == [("intent", "pay", ""), ("result", "pay", "ok")]
    assert b"hello" not in file.read_bytes()  # the argument


async def test_an_answer_among_events_waits_for_its_record(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream, file: Path
) -> None:
    """Issue 8: of a stream the piece that carries the answer waits."""
    side = await open_sidecar(*settings(file))
    client = await connect(side.port)
    client.send(post(tool_call(tool="pay")))
    exchange = await upstream.next()
    exchange.begin()
    note = event(message("notifications/message", LEGACY, None, level="info", data="a"))
    exchange.chunk(note)
    await client.head()
    assert await client.some() == note
    assert told(file) == [("intent", "pay", "")]
    exchange.chunk(event(result(1)))
    assert b"hello" in await client.some()
    assert told(file)[1:] == [("result", "pay", "ok")]
    exchange.end()
    assert await client.rest() == b""


async def test_an_answer_on_the_other_connection_waits_too(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream, file: Path
) -> None:
    """Issue 8: 2024-11-05, where answers arrive on the stream of the session."""
    side = await open_sidecar(*settings(file), url=f"http://127.0.0.1:{upstream.port}/sse")
    client = await connect(side.port)
    stream, uri = await opened(client, upstream)
    poster = await connect(side.port)
    poster.send(to(uri, tool_call("2025-03-26", tool="pay")))
    posted = await upstream.next()
    assert told(file) == [("intent", "pay", "")]
    posted.answer(b"Accepted", status="202 Accepted", kind="text/plain")
    assert (await poster.answer()).status == 202
    assert told(file) == [("intent", "pay", "")]
    stream.chunk(event(result(1)))
    assert b"hello" in await client.some()
    assert told(file)[1:] == [("result", "pay", "ok")]


class FullDisk:
    """A real limit of the system: no file of this process may grow."""

    def __init__(self, file: Path) -> None:
        self._before = resource.getrlimit(resource.RLIMIT_FSIZE)
        self._size = file.stat().st_size

    def __enter__(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (self._size, self._before[1]))

    def __exit__(self, *_: object) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, self._before)


async def test_a_full_disk_refuses_what_must_be_recorded_and_serves_what_need_not(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream, file: Path
) -> None:
    """Issue 8: if it is impossible the call is refused; /readyz says so; it recovers by itself."""
    side = await open_sidecar(*settings(file, "sync", POLICY))
    upstream.follow(answered)
    client = await connect(side.port)
    with FullDisk(file):
        for _ in range(3):
            answer = await client.asked(post(tool_call(tool="pay")))
            assert reason_of(answer.body) == "audit_unavailable"
        assert (await client.asked(post(tool_call(tool="read_a")))).status == 200
        assert [json.loads(each.body)["params"]["name"] for each in upstream.seen] == ["read_a"]
        await until(lambda: side.house.rooms.parts[-1].why_degraded() != [])
        said = json.loads((await side.probe("/readyz")).body)
    assert said == {"status": "degraded", "reasons": ["audit cannot be written: File too large"]}
    await until(lambda: side.house.rooms.parts[-1].why_degraded() == [])
    assert ("audit cannot be written", "error") in [(each["msg"], each["level"]) for each in side.lines.life]


async def test_without_an_intent_nothing_is_sent(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream, file: Path
) -> None:
    """Issue 8: audit_unavailable, which the model can read; then it works again."""
    side = await open_sidecar(*settings(file))
    upstream.follow(answered)
    client = await connect(side.port)
    with FullDisk(file):
        answer = await client.asked(post(tool_call(tool="pay")))
        assert (answer.status, reason_of(answer.body)) == (200, "audit_unavailable")
        assert upstream.seen == []
    await until(lambda: side.house.rooms.parts[-1].why_degraded() == [])
    answer = await client.asked(post(tool_call(tool="pay")))
    assert b"hello" in answer.body
    assert told(file)[-2:] == [("intent", "pay", ""), ("result", "pay", "ok")]


async def test_without_a_result_the_answer_is_withheld(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream, file: Path
) -> None:
    """Issue 8: outcome_unknown, in words that say so."""
    side = await open_sidecar(*settings(file))
    client = await connect(side.port)
    client.send(post(tool_call(tool="pay")))
    exchange = await upstream.next()
    with FullDisk(file):
        await answered(exchange)
        answer = await client.answer()
    assert reason_of(answer.body) == "outcome_unknown"
    assert b"could not be recorded" in answer.body
    assert b"hello" not in answer.body


async def test_without_a_result_an_answer_on_the_other_connection_is_withheld(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream, file: Path
) -> None:
    """Issue 8: the same in 2024-11-05; the session goes on."""
    side = await open_sidecar(*settings(file), url=f"http://127.0.0.1:{upstream.port}/sse")
    client = await connect(side.port)
    stream, uri = await opened(client, upstream)
    poster = await connect(side.port)

    async def posted(id: int) -> None:
        poster.send(to(uri, tool_call("2025-03-26", id, tool="pay")))
        (await upstream.next()).answer(b"Accepted", status="202 Accepted", kind="text/plain")
        assert (await poster.answer()).status == 202

    await posted(1)
    with FullDisk(file):
        stream.chunk(event(result(1)))
        said = await client.some()
    assert b"outcome_unknown" in said
    assert b"hello" not in said
    (line,) = [line for line in side.lines.calls if line.get("tool") == "pay"]
    assert (line["outcome"], line["reason"]) == ("outcome_unknown", "outcome_unknown")
    await until(lambda: side.house.rooms.parts[-1].why_degraded() == [])
    await posted(2)
    stream.chunk(event(result(2)))
    assert b"hello" in await client.some()
    assert told(file)[-1] == ("result", "pay", "ok")


async def test_a_denied_attempt_of_a_dangerous_tool_is_recorded(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream, file: Path
) -> None:
    """Issue 8: refused ones too; what reads is not."""
    side = await open_sidecar(*settings(file, "batch", POLICY))
    upstream.follow(answered)
    client = await connect(side.port)
    for tool in ("drop_all", "read_a"):
        await client.asked(post(tool_call(tool=tool)))
    await side.house.close(grace_s=0)
    assert told(file) == [("result", "drop_all", "refused")]
    assert checked(file)[0] == 0


async def test_a_reload_is_recorded_and_the_file_goes_on(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream, tmp_path: Path, file: Path
) -> None:
    """Issue 8: every lever; the writer survives, and another file is opened before this one is closed."""
    other = tmp_path / "other.jsonl"
    config = tmp_path / "sidecar.yaml"

    def write(audit: str) -> None:
        config.write_text(f"version: 1\ntelemetry: {{audit: {audit}}}\n", encoding="utf-8")

    write(f"{{file: {file}}}")
    side = await open_sidecar(file=config)
    upstream.follow(answered)
    client = await connect(side.port)
    write(f"{{file: {file}, mode: sync, instance: pod-1}}")
    assert await side.house.reload()
    await client.asked(post(tool_call(tool="pay")))
    write("{file: /nonexistent/audit.jsonl}")
    assert not await side.house.reload()
    write(f"{{file: {other}, mode: sync}}")
    assert await side.house.reload()
    await client.asked(post(tool_call(tool="pay")))
    await until(lambda: not side.house.retiring)
    events = [line["what"] for line in lines_of(file) if line["kind"] == "event"]
    assert events == [
        "started",
        "audit settings changed",
        "settings reloaded",
        "settings not reloaded",
        "stopped",
    ]
    assert told(file) == [("intent", "pay", ""), ("result", "pay", "ok")]
    assert told(other) == [("intent", "pay", ""), ("result", "pay", "ok")]
    assert checked(file)[0] == 0


async def test_what_identifies_a_call_elsewhere_is_recorded(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream, file: Path
) -> None:
    """design section 6: idempotency and approval id."""
    rule = "policy.tools=[{match: pay, class: write, allow: ['*'], idempotency_key: true, approval: gated}]"
    side = await open_sidecar(*settings(file, "sync", rule))
    upstream.follow(answered)
    client = await connect(side.port)
    answer = await client.asked(post(tool_call(tool="pay")))
    id = json.loads(answer.body)["result"]["_meta"]["dev.mcp-sidecar/refusal"]["confirmationId"]
    approvals = side.house.rooms.policy.approvals
    assert approvals.release(id, "boss", time.monotonic()) is not None
    assert b"hello" in (await client.asked(post(tool_call(tool="pay")))).body
    last = [line for line in lines_of(file) if line["kind"] == "result"][-1]
    assert (last["approval_id"], len(last["idempotency_key"])) == (id, 64)
    side.house.rooms.policy.modes.set("read-only", 10.0, tenant="local", until=70.0)
    await side.house.close(grace_s=0)
    levers = [(line["what"], line.get("fields")) for line in lines_of(file) if line["kind"] == "event"][1:3]
    who = {"issuer": "anonymous", "subject": "anonymous", "tenant": "local"}
    assert levers == [
        ("approval given", {"by": "boss", "approval_id": id, "tool": "pay", **who}),
        ("mode set", {"mode": "read-only", "tenant": "local", "lasts_s": 60.0}),
    ]
    assert b"hello" not in file.read_bytes()


async def test_stdout_gets_checkpoints_and_the_commands_check_them(
    upstream: Upstream, tmp_path: Path, file: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Issue 8: keygen, anchors on standard output, verify; by the command line."""
    key = tmp_path / "key"
    async with process("audit", "keygen", str(key)) as made:
        assert await made.exit_code() == 0
    words = [*settings(file), f"telemetry.audit.signing_key_file={key}", "telemetry.audit.anchor=stdout"]
    async with process(*run_words(upstream.url, *words)) as running:
        await running.listening()
        assert "audit sync" in running.lines.life[0]["enforces"]
        running.signal(15)
        assert await running.exit_code() == 0
    anchors = tmp_path / "anchors"
    anchors.write_text(capfd.readouterr().out, encoding="utf-8")
    check = ["audit", "verify", str(file), "--public-key", f"{key}.pub", "--anchors", str(anchors)]
    async with process(*check) as verify:
        assert await verify.exit_code() == 0
    said = capfd.readouterr().out
    assert "with 2 checkpoints, are as they were written." in said
    assert "cannot be seen" not in said
    file.write_bytes(file.read_bytes().replace(b'"stopped"', b'"started"'))
    async with process(*check) as verify:
        assert await verify.exit_code() == 1
    assert f"{file}:4: edit: it is not what its hash says" in capfd.readouterr().out


async def test_off_is_nothing(open_sidecar: OpenSidecar) -> None:
    """Issue 8, point 7: feature off, nothing added."""
    side = await open_sidecar()
    parts: list[Any] = list(side.house.rooms.parts)
    assert not any(type(part).__name__ == "Audit" for part in parts)
