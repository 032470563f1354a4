"""Which calls leave a record, what it says, and what waits for it."""

from __future__ import annotations

import asyncio
import errno
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from proxy.model import (
    Broken,
    Cached,
    Call,
    Ending,
    Headers,
    Kind,
    Peer,
    Permit,
    Principal,
    Reason,
    Refused,
    Reply,
    Rule,
    Stage,
    Stream,
    Verdict,
)
from proxy.protocol.revisions import TWO_ENDPOINTS
from proxy.telemetry.audit import Audit, result_of
from proxy.telemetry.audit_settings import AuditSettings
from proxy.telemetry.journey import Journeys, Observers, Record
from proxy.upstream.http_sse import Acknowledged
from tests.fakes import make_batch, make_call
from tests.unit.telemetry.audit_scene import Scene, audit, checked, until

ANN = Principal(
    issuer="https://login", subject="ann", tenant="acme", client="agent", fingerprint="jwt:0a1b2c3d"
)
DANGEROUS = Rule(id="delete_*", tool_class="dangerous")
READ = Rule(id="search_*", tool_class="read")
SSE = Headers([(b"Content-Type", b"text/event-stream")])


class Room:
    """The audit by one reading of the settings, and calls that pass through it."""

    def __init__(self, scene: Scene, **settings: Any) -> None:
        self.scene = scene
        self.now = 100.0
        self.audit = Audit(AuditSettings(file=str(scene.path), **settings), scene.log, now=lambda: self.now)
        observers = Observers(permitted=(self.audit.permitted,), ended=(self.audit.ended,))
        self.failures: list[Exception] = []
        self.journeys = Journeys(observers, lambda: self.now, self.failures.append)
        self.sent: list[str] = []
        self.deadline = 1e9

    def record(self) -> Record:
        return self.journeys.open(self.now)

    def call(
        self, tool: str = "delete_all", rule: Rule = DANGEROUS, **more: Any
    ) -> tuple[Call, Record, Permit]:
        """A call that policy lets pass."""
        record = self.record()
        more.setdefault("params", {"name": tool, "arguments": {"id": 7}})
        call = make_call(target=tool, journey=record, peer=Peer("192.0.2.7"), **more)
        record.read(call)
        record.identified(ANN)
        permit = Permit(call=call, principal=ANN, rule=rule)
        record.permitted(permit)
        return call, record, permit

    def stage(self, answer: Callable[[], Awaitable[Reply]] | Reply | Exception) -> Stage:
        async def serve(permit: Permit) -> Reply:
            # What the disk has when the server hears of it.
            self.sent += [line["tool"] for line in self.scene.lines if line["kind"] == "intent"]
            for each in permit.call.parts or (permit.call,):
                each.journey.attempted()
            if isinstance(answer, Exception):
                raise answer
            return answer if isinstance(answer, Reply) else await answer()

        return self.audit.guarded(serve, lambda _: self.deadline, "result")

    @property
    def calls(self) -> list[dict[str, Any]]:
        return [line for line in self.scene.lines if line["kind"] in ("intent", "result", "amended")]

    def break_disk(self) -> None:
        self.scene.disk.error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@asynccontextmanager
async def room(tmp_path: Path, **settings: Any) -> AsyncIterator[Room]:
    path = tmp_path / "audit.jsonl"
    async with audit(path, retry_s=60, **settings) as scene:
        made = Room(scene, **settings)
        yield made
        assert made.failures == []
        assert scene.log.open == {}
        assert made.audit._calm == {}
    if scene.disk.error is None:
        assert checked(path)[0] == 0


def kinds(lines: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(line["kind"], line.get("result", "")) for line in lines]


async def test_a_record_says_who_did_what_when_where_and_what_became_of_it(tmp_path: Path) -> None:
    """design section 6, audit; issue 8, point 5. Never an argument."""
    async with room(tmp_path, mode="sync", instance="pod-1") as it:
        _, record, permit = it.call(session="s-secret")
        record.known_as(approval="c-1")
        record.known_as(idempotency_key="k-1")
        reply = await it.stage(Reply(200, Headers(), b"{}"))(permit)
        record.answered(Verdict.OK)
        it.now = 100.25
        record.ended(Ending.COMPLETE)
        assert reply.body == b"{}"
    (intent, result, amended) = it.calls
    hash_ = result.pop("args_hash")
    assert len(hash_) == 64
    assert {key: result[key] for key in result if key not in ("seq", "chain", "prev", "hash", "time")} == {
        "kind": "result",
        "request_id": record.request_id,
        "issuer": "https://login",
        "subject": "ann",
        "tenant": "acme",
        "client": "agent",
        "credential": "jwt:0a1b2c3d",
        "method": "tools/call",
        "tool": "delete_all",
        "class": "dangerous",
        "rule": "delete_*",
        "peer": "192.0.2.7",
        "session": result["session"],
        "instance": "pod-1",
        "result": "unknown",
        "outcome": "ok",
        "attempts": 1,
        "duration_s": 0.0,
        "approval_id": "c-1",
        "idempotency_key": "k-1",
    }
    assert (len(result["session"]), intent["args_hash"]) == (16, hash_)
    assert (amended["result"], amended["duration_s"]) == ("ok", 0.25)
    assert b"s-secret" not in it.scene.path.read_bytes()


GOLDEN = (
    b'{"seq":4,"chain":"<chain>","prev":"<prev>","time":"2026-01-02T03:04:05.000006Z","kind":"result",'
    b'"request_id":"<request_id>","issuer":"https://login","subject":"ann","tenant":"acme","client":"agent",'
    b'"credential":"jwt:0a1b2c3d","method":"tools/call","tool":"delete_all","class":"dangerous","rule":"delete_*",'
    b'"peer":"192.0.2.7","session":"6a840baf5d8c3ff2","instance":"pod-1","args_hash":"<args_hash>",'
    b'"result":"refused","outcome":"denied","reason":"mode","attempts":1,"duration_s":5e-6,"approval_id":"c-1",'
    b'"would_refuse":"rate_limited","hash":"<hash>"}'
)
"""What the first version wrote, but for what is another one each time."""


async def test_the_line_of_a_call_looks_like_this(tmp_path: Path) -> None:
    """Files that are written on hold lines that look alike, byte for byte, whichever version wrote them."""
    async with room(tmp_path, instance="pod-1") as it:
        _, record, _ = it.call(session="s-1")
        record.attempted().unreached()
        record.refused(Refused(Reason.MODE))
        record.known_as(approval="c-1")
        record.would_refuse(Rule(id="other"), Reason.RATE_LIMITED)
        it.now += 0.000_005
        record.ended(Ending.COMPLETE)
    raw = it.scene.path.read_bytes().splitlines()[3]
    line = json.loads(raw)
    for name in ("chain", "prev", "request_id", "args_hash", "hash"):
        raw = raw.replace(f'"{name}":"{line[name]}"'.encode(), f'"{name}":"<{name}>"'.encode())
    assert raw.split(b",") == GOLDEN.split(b",")


async def test_the_intent_is_on_the_disk_before_the_server_hears_of_it(tmp_path: Path) -> None:
    """Issue 8: sync. And the result before the answer is released."""
    async with room(tmp_path, mode="sync") as it:

        async def answer() -> Reply:
            record.answered(Verdict.TOOL_ERROR)
            return Reply(200, Headers(), b"{}")

        _, record, permit = it.call()
        await it.stage(answer)(permit)
        assert it.sent == ["delete_all"]
        assert kinds(it.calls) == [("intent", ""), ("result", "error")]
        record.ended(Ending.COMPLETE)


async def test_what_is_of_another_class_or_no_tool_leaves_no_record(tmp_path: Path) -> None:
    """Issue 8: classes, by default write and dangerous; no cost for others."""
    async with room(tmp_path, mode="sync") as it:
        it.break_disk()
        for _, record, permit in (it.call(rule=READ), it.call(method="tools/list")):
            assert (await it.stage(Reply(200, Headers(), b"{}"))(permit)).status == 200
            record.ended(Ending.COMPLETE)
        it.scene.disk.error = None
    assert it.calls == []
    (tmp_path / "read").mkdir()
    async with room(tmp_path / "read", classes=("read",)) as it:
        it.call(rule=READ)[1].ended(Ending.COMPLETE)
        it.call()[1].ended(Ending.COMPLETE)
    assert [line["class"] for line in it.calls] == ["read"]


async def test_a_notification_that_calls_a_tool_is_a_call(tmp_path: Path) -> None:
    """Issue 8: servers run it."""
    async with room(tmp_path, mode="sync") as it:
        _, record, permit = it.call(kind=Kind.NOTIFICATION, id=None)
        await it.stage(Reply(202, Headers()))(permit)
        assert kinds(it.calls) == [("intent", ""), ("result", "unknown")]
        record.ended(Ending.COMPLETE)


async def test_each_message_of_a_batch_has_its_own_records(tmp_path: Path) -> None:
    """Issue 8: batches of 2025-03-26, each message by itself."""
    async with room(tmp_path, mode="sync") as it:
        (one, first, _), (two, second, _), (three, third, _) = (
            it.call("a", id=1),
            it.call("b", id=2),
            it.call("c", id=3, rule=READ),
        )
        batch = make_batch(one, two, three)

        async def answer() -> Reply:
            first.answered(Verdict.OK)
            first.ended(Ending.COMPLETE)  # as the judge does: it has its answer
            second.answered(Verdict.RPC_ERROR)
            return Reply(200, Headers(), b"[]")

        envelope = Permit(call=batch, principal=ANN, rule=Rule(id="batch"))
        await it.stage(answer)(envelope)
        assert it.sent == ["a", "b"]
        told = [(line["kind"], line["tool"], line.get("result")) for line in it.calls]
        assert told == [
            ("intent", "a", None),
            ("intent", "b", None),
            ("result", "a", "ok"),
            ("result", "b", "error"),
        ]
        second.ended(Ending.COMPLETE)
        third.ended(Ending.COMPLETE)


async def test_without_an_intent_nothing_is_sent(tmp_path: Path) -> None:
    """Issue 8: and if that is impossible the call is refused."""
    async with room(tmp_path, mode="sync") as it:
        it.break_disk()
        for _ in range(2):
            _, record, permit = it.call()
            with pytest.raises(Refused) as caught:
                await it.stage(Reply(200, Headers(), b"{}"))(permit)
            assert caught.value.reason is Reason.AUDIT_UNAVAILABLE
            record.refused(caught.value)
            record.ended(Ending.COMPLETE)
        assert it.sent == []
        assert it.audit.log.write_failures >= 1
        assert it.audit.why_unready() is None
        assert it.audit.why_degraded() == ["audit cannot be written: No space left on device"]
    # Written at the end, when the disk took something again.
    it.scene.disk.error = None


async def test_without_a_result_the_answer_is_withheld(tmp_path: Path) -> None:
    """Issue 8: the caller gets outcome_unknown with words that say so; the reply is closed once."""
    endings: list[Ending] = []
    async with room(tmp_path, mode="sync") as it:
        reply = Reply(200, Headers(), b"secret answer")
        reply.when_done(endings.append)

        async def answer() -> Reply:
            record.answered(Verdict.OK)
            it.break_disk()
            return reply

        _, record, permit = it.call()
        with pytest.raises(Refused) as caught:
            await it.stage(answer)(permit)
        assert (caught.value.reason, "withheld" in caught.value.why) == (Reason.OUTCOME_UNKNOWN, True)
        assert endings == [Ending.PROXY_FAILED]
        record.refused(caught.value)
        record.ended(Ending.COMPLETE)


async def into(pieces: list[bytes], reply: Reply) -> None:
    assert isinstance(reply.body, Stream)
    async for piece in reply.body:
        pieces.append(piece)


def events(*datas: bytes, journeys: Sequence[Callable[[], None]] = ()) -> Stream:
    """Pieces of a stream; the judge tells a journey right before its piece is passed on."""
    tells = list(journeys)

    async def chunks() -> AsyncIterator[bytes]:
        for data in datas:
            if data.startswith(b"answer"):
                tells.pop(0)()
            yield data

    return Stream(chunks(), lambda: None)


async def test_of_a_stream_the_piece_with_the_answer_waits(tmp_path: Path) -> None:
    """Issue 8: what comes before it passes as it comes."""
    async with room(tmp_path, mode="sync") as it:
        _, record, permit = it.call()
        body = events(b"note", b"answer", b"after", journeys=[lambda: record.answered(Verdict.OK)])
        reply = await it.stage(Reply(200, SSE, body))(permit)
        assert isinstance(reply.body, Stream)
        pieces = aiter(reply.body)
        assert await anext(pieces) == b"note"
        assert kinds(it.calls) == [("intent", "")]
        it.scene.disk.hang()
        waits = asyncio.ensure_future(anext(pieces))
        await until(lambda: it.scene.log.waiting == 1)
        assert not waits.done()
        it.scene.disk.go_on()
        assert await waits == b"answer"
        assert kinds(it.calls) == [("intent", ""), ("result", "ok")]
        assert [piece async for piece in pieces] == [b"after"]
        reply.done(Ending.COMPLETE)
        record.ended(Ending.COMPLETE)
    assert kinds(it.calls) == [("intent", ""), ("result", "ok")]


async def test_an_answer_on_a_stream_that_cannot_be_recorded_becomes_a_last_word(tmp_path: Path) -> None:
    """Issue 8: withheld, and told on the stream where the client looks for it."""
    async with room(tmp_path, mode="sync") as it:
        closed: list[bool] = []
        _, record, permit = it.call(id="x")
        body = events(b"answer", journeys=[lambda: record.answered(Verdict.OK)])
        body._close = lambda: closed.append(True)
        reply = await it.stage(Reply(200, SSE, body))(permit)
        it.break_disk()
        pieces: list[bytes] = []
        with pytest.raises(Broken) as broken:
            await into(pieces, reply)
        assert broken.value.told
        assert closed == [True]
        (said,) = pieces
        assert b"answer" not in said.replace(b"Its answer is withheld", b"")
        assert b'"id":"x"' in said
        assert b"outcome_unknown" in said
        assert record.refusal is not None
        record.ended(Ending.UPSTREAM_BROKE)


async def test_a_large_answer_that_cannot_be_recorded_is_cut_off(tmp_path: Path) -> None:
    """Issue 8: nothing can be said in the middle of a JSON text; its end is what waits."""
    async with room(tmp_path, mode="sync") as it:
        _, record, permit = it.call()
        body = events(b"{", b"answer}", journeys=[lambda: record.answered(Verdict.OK)])
        headers = Headers([(b"Content-Type", b"application/json")])
        reply = await it.stage(Reply(200, headers, body))(permit)
        it.break_disk()
        pieces: list[bytes] = []
        with pytest.raises(Broken) as broken:
            await into(pieces, reply)
        assert (broken.value.told, pieces) == (False, [b"{"])
        record.ended(Ending.UPSTREAM_BROKE)


async def test_an_answer_after_one_that_was_repeated_waits_too(tmp_path: Path) -> None:
    """Own promise: what an attempt before was told is not the answer that is released."""
    async with room(tmp_path, mode="sync") as it:
        _, record, permit = it.call()
        record.answered(Verdict.UPSTREAM_ERROR)
        body = events(b"note", b"answer", journeys=[lambda: record.answered(Verdict.OK)])
        reply = await it.stage(Reply(200, SSE, body))(permit)
        assert [piece async for piece in reply.body] == [b"note", b"answer"]  # type: ignore[union-attr]
        assert kinds(it.calls) == [("intent", ""), ("result", "error"), ("amended", "ok")]
        record.ended(Ending.COMPLETE)


async def test_an_answer_that_arrives_elsewhere_is_not_waited_for_here(tmp_path: Path) -> None:
    """Issue 8: 2024-11-05. The acknowledgement passes; the answer waits where it arrives."""
    async with room(tmp_path, mode="sync") as it:
        call, record, permit = it.call(revision=TWO_ENDPOINTS)
        await it.stage(Acknowledged(202, Headers()))(permit)
        assert kinds(it.calls) == [("intent", "")]
        record.answered(Verdict.OK)
        assert await it.audit.recorded([call]) is None
        assert kinds(it.calls) == [("intent", ""), ("result", "ok")]
        record.ended(Ending.COMPLETE)
        assert await it.audit.recorded([call]) is None


async def test_a_call_whose_time_is_over_is_not_sent(tmp_path: Path) -> None:
    """Issue 8: waits are bounded by the call's own deadline, too."""
    async with room(tmp_path, mode="sync") as it:
        _, record, permit = it.call()
        it.deadline = it.now
        with pytest.raises(Refused) as caught:
            await it.stage(Reply(200, Headers(), b"{}"))(permit)
        assert (caught.value.reason, it.sent) == (Reason.OVERLOADED, [])
        record.refused(caught.value)
        record.ended(Ending.COMPLETE)
        it.deadline = it.now + 0.05
        it.scene.disk.hang()
        _, record, permit = it.call()
        with pytest.raises(Refused) as caught:
            await it.stage(Reply(200, Headers(), b"{}"))(permit)
        assert (caught.value.reason, it.sent, it.scene.log.waiting) == (Reason.OVERLOADED, [], 0)
        # Whoever is in a hurry says nothing of the disk: others must not be refused for it.
        assert it.audit.why_degraded() == []
        assert it.audit.log.write_failures == 0
        record.refused(caught.value)
        record.ended(Ending.COMPLETE)
        it.scene.disk.go_on()


@pytest.mark.parametrize("at", ["intent", "result"])
async def test_a_client_that_leaves_while_the_disk_is_waited_for_leaves_nothing_behind(
    tmp_path: Path, at: str
) -> None:
    """Endings matrix: cancelled in front of each of the two waits."""
    endings: list[Ending] = []
    async with room(tmp_path, mode="sync") as it:
        reply = Reply(200, Headers(), b"{}")
        reply.when_done(endings.append)

        async def answer() -> Reply:
            record.answered(Verdict.OK)
            it.scene.disk.hang()
            return reply

        _, record, permit = it.call()
        if at == "intent":
            it.scene.disk.hang()
        task = asyncio.ensure_future(it.stage(answer)(permit))
        await until(lambda: it.scene.log.waiting == 1 and (at == "intent" or bool(it.sent)))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()
        assert it.scene.log.waiting == 0
        assert endings == ([] if at == "intent" else [Ending.CLIENT_GONE])
        record.ended(Ending.CLIENT_GONE)
        it.scene.disk.go_on()
    expected = ("result", "refused") if at == "intent" else ("result", "ok")
    assert kinds(it.calls) == [("intent", ""), expected]


async def test_a_refusal_by_policy_is_recorded(tmp_path: Path) -> None:
    """Issue 8: a denied attempt of a dangerous tool; `Record.denied_by` names its rule."""
    async with room(tmp_path) as it:
        for rule, tool in ((DANGEROUS, "delete_all"), (READ, "search_all")):
            record = it.record()
            call = make_call(target=tool, journey=record, params={"arguments": {"a": 1}})
            record.read(call)
            record.identified(ANN)
            record.denied(rule)
            record.refused(Refused(Reason.NOT_ALLOWED))
            record.ended(Ending.COMPLETE)
    (line,) = it.calls
    told = line["kind"], line["result"], line["outcome"], line["reason"], line["rule"], line["subject"]
    assert told == ("result", "refused", "denied", "not_allowed", "delete_*", "ann")


async def test_in_batch_mode_nobody_waits_and_a_long_call_is_seen(tmp_path: Path) -> None:
    """Issue 8: at each flush calls under way that have no record get an intent."""
    async with room(tmp_path) as it:
        it.scene.disk.hang()
        _, long, permit = it.call("long")
        _, short, _ = it.call("short")
        assert (await it.stage(Reply(200, Headers(), b"{}"))(permit)).status == 200
        short.ended(Ending.COMPLETE)
        it.scene.disk.go_on()
        it.scene.log.flush()
        it.scene.log.flush()
        await until(lambda: len(it.calls) == 2)
        long.answered(Verdict.OK)
        long.ended(Ending.COMPLETE)
    assert [(line["kind"], line["tool"]) for line in it.calls] == [
        ("result", "short"),
        ("intent", "long"),
        ("result", "long"),
    ]


@pytest.mark.parametrize(
    ("told", "result"),
    [
        (["answered ok"], "ok"),
        (["answered tool_error"], "error"),
        (["answered rpc_error"], "error"),
        (["answered upstream_error"], "error"),
        (["answered upstream_error", "refused outcome_unknown"], "unknown"),
        (["answered ok", "refused outcome_unknown"], "ok"),
        (["refused rate_limited"], "refused"),
        ([], "refused"),
        (["attempted"], "unknown"),
        (["attempted", "unreached", "refused upstream_unreachable"], "refused"),
        (["attempted", "refused outcome_unknown"], "unknown"),
        (["attempted", "refused deadline"], "unknown"),
        (["hit", "answered ok"], "ok"),
    ],
)
def test_what_a_result_says(told: list[str], result: str) -> None:
    """design section 6: ok | error | refused | unknown, by what happened at the server."""
    record = Journeys(Observers()).open(0.0)
    attempt = None
    for word in told:
        what, _, more = word.partition(" ")
        if what == "answered":
            record.attempted()
            record.answered(Verdict(more))
        elif what == "refused":
            record.refused(Refused(Reason(more)))
        elif what == "attempted":
            attempt = record.attempted()
        elif what == "hit":
            record.cached(Cached.HIT)
        elif attempt is not None:
            attempt.unreached()
    assert result_of(record) == result
