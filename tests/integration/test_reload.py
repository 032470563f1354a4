"""Settings that change while calls are under way: one reference is swapped, and nothing is lost.

Source: issue 7, point 6; design.md section 3 (reload) and section 4 (lifecycle); corpus CFG-019 and CFG-020.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import signal
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from proxy.house import House
from proxy.settings import Loaded
from tests import ledger
from tests.certificates import Authority
from tests.integration.conftest import Connect, OpenSidecar
from tests.integration.house import Sidecar, probe, process
from tests.integration.keys import key, let_in
from tests.integration.upstream import Exchange, Upstream
from tests.integration.waiting import turns, until, within
from tests.integration.wire import LEGACY, Answer, event, listen, message, post, result, tool_call

EVERYTHING = {"match": "*", "allow": ["*"], "class": "write"}
NO_ECHO = {"match": "echo", "deny": ["*"]}
ANN = "ann.secret-of-ann-01"


class File:
    """A settings file that changes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.says()

    def says(self, **settings: object) -> None:
        """Replace it whole."""
        self.path.write_text(json.dumps({"version": 1, **settings}), encoding="utf-8")

    def allows(self, *rules: Mapping[str, object], **settings: object) -> None:
        self.says(policy={"tools": [*rules, EVERYTHING]}, **settings)


@pytest.fixture
def file(tmp_path: Path) -> File:
    return File(tmp_path / "settings.yaml")


async def reload(side: Sidecar) -> None:
    assert await side.house.reload()


def reason_of(answer: Answer) -> str | None:
    """Why we refused a call; None: the server answered."""
    said: Any = answer.json
    meta = said["result"].get("_meta", {})
    refusal = meta.get("dev.mcp-sidecar/refusal")
    return None if refusal is None else str(refusal["reason"])


async def echo(exchange: Exchange) -> None:
    exchange.answer(result(json.loads(exchange.request.body)["id"]))


def mistakes_of(side: Sidecar) -> list[str]:
    lines = [line for line in side.lines.life if line["msg"] == "settings not reloaded"]
    return [mistake for line in lines for mistake in line["mistakes"]]


# What is wrong changes nothing.


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("version: 1\npolicy: {tools: [}\n", "settings.yaml:2"),
        ("", "settings.yaml:1"),
        ("version: 1\nlisten: {head_timeout_s: soon}\n", "settings.yaml:2:26: listen.head_timeout_s"),
        ("version: 1\nlimit: []\n", "settings.yaml:2:1: limit"),
        ("version: 1\npolicy: {packs: [gone.yaml]}\n", "policy.packs[0]: cannot be read"),
    ],
)
async def test_a_broken_file_changes_nothing(
    open_sidecar: OpenSidecar, upstream: Upstream, connect: Connect, file: File, content: str, said: str
) -> None:
    """design section 3: a bad file changes nothing."""
    file.allows(NO_ECHO)
    side = await open_sidecar(file=file.path)
    client = await connect(side.port)
    before = side.house.rooms
    file.path.write_text(content, encoding="utf-8")
    assert not await side.house.reload()
    assert [mistake for mistake in mistakes_of(side) if said in mistake], mistakes_of(side)
    assert side.house.rooms is before
    assert reason_of(await client.asked(post(tool_call()))) == "not_allowed"
    upstream.follow(echo)
    ready = json.loads((await side.probe("/readyz")).body)
    assert ready["reasons"] == ["the settings as they are now cannot be put into force; those of before are"]
    file.allows(NO_ECHO)
    await reload(side)
    assert json.loads((await side.probe("/readyz")).body) == {"status": "ok"}
    assert (side.house.reloads.succeeded, side.house.reloads.failed) == (1, 1)


async def test_a_file_that_is_gone_changes_nothing(
    open_sidecar: OpenSidecar, connect: Connect, file: File
) -> None:
    """Hostile: somebody removes it before they write it anew."""
    file.allows(NO_ECHO)
    side = await open_sidecar(file=file.path)
    client = await connect(side.port)
    file.path.unlink()
    await side.house.watch.look()
    assert not await side.house.reload()
    assert reason_of(await client.asked(post(tool_call()))) == "not_allowed"


async def test_a_mistake_of_ours_changes_nothing_and_says_nothing(
    open_sidecar: OpenSidecar, file: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever fails while rooms are built: those of before stay, and nothing of the new ones is left."""
    side = await open_sidecar(file=file.path)
    held, before = len(side.house._survivors), side.house.rooms
    word = ledger.secret(f"word-{secrets.token_hex(8)}", "the text of an exception")

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError(word)

    monkeypatch.setattr("proxy.assemble.Pipeline", broken)
    assert not await side.house.reload()
    assert mistakes_of(side) == ["RuntimeError"]
    assert (side.house.rooms, len(side.house._survivors)) == (before, held)


async def test_rooms_that_could_let_nobody_in_do_not_come(
    open_sidecar: OpenSidecar,
    upstream: Upstream,
    connect: Connect,
    file: File,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Hostile: an issuer is added while its keys cannot be had. Whoever was let in before is let in."""
    monkeypatch.setattr("proxy.house.READY_S", 0.2)
    side = await open_sidecar(file=file.path)
    upstream.follow(echo)
    url = "http://127.0.0.1:9/jwks"
    issuer = {"kind": "jwt", "issuer": "https://id.example", "jwks_url": url, "tenant_claim": "org"}
    file.says(identity={"resource": "https://tools.example/mcp", "authenticators": [issuer]})
    held = len(side.house._survivors)
    assert not await side.house.reload()
    (mistake,) = mistakes_of(side)
    assert mistake.startswith("identity: keys not loaded")
    assert len(side.house._survivors) == held
    client = await connect(side.port)
    assert reason_of(await client.asked(post(tool_call()))) is None


@pytest.mark.parametrize("reloads", [0, 1, 3])
async def test_what_is_half_written_is_not_believed(
    open_sidecar: OpenSidecar, file: File, reloads: int
) -> None:
    """Hostile: the first half of a file is whole YAML, and allows everything. Regression: after a reload it was read
    half-written, because the files that must hold still were none."""
    waits: asyncio.Queue[asyncio.Future[None]] = asyncio.Queue()

    async def sleep(_: float) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waits.put_nowait(future)
        await future

    file.path.write_text("version: 1\npolicy: {tools: [{match: echo, deny: ['*']}]}\n", encoding="utf-8")
    side = await open_sidecar(file=file.path, sleep=sleep)
    for _ in range(reloads):
        await reload(side)
    before = side.house.rooms
    file.path.write_text("version: 1\n", encoding="utf-8")
    looking = asyncio.ensure_future(side.house.watch.look())
    async with within():
        first = await waits.get()
        file.path.write_text("version: 1\npolicy: {tools: [{match: other, deny: ['*']}]}\n", encoding="utf-8")
        first.set_result(None)
        second = await waits.get()
        assert side.house.rooms is before
        second.set_result(None)
        await looking
        (await waits.get()).cancel()  # behind the reload
    assert side.house.reloads.succeeded == reloads + 1
    assert side.house.settings.policy is not None
    assert side.house.settings.policy.tools[0].match == "other"


# What is under way, and what comes next.


async def test_calls_under_way_finish_by_the_old_rules_and_new_ones_begin_by_the_new(
    open_sidecar: OpenSidecar, upstream: Upstream, connect: Connect, file: File
) -> None:
    """CFG-020: calls already authorised finish, new calls use the new policy."""
    file.allows()
    side = await open_sidecar(file=file.path)
    first, second = await connect(side.port), await connect(side.port)
    first.send(post(tool_call()))
    call = await upstream.next()
    file.allows(NO_ECHO)
    await reload(side)
    assert side.house.retiring == 1
    assert reason_of(await second.asked(post(tool_call()))) == "not_allowed"
    call.answer(result())
    assert (await first.answer()).body == result()
    # The same connection asks again: what it was opened under does not matter.
    assert reason_of(await first.asked(post(tool_call()))) == "not_allowed"
    await until(lambda: side.house.retiring == 0)


async def test_a_stream_outlives_the_settings_it_was_opened_under(
    open_sidecar: OpenSidecar, upstream: Upstream, connect: Connect, file: File
) -> None:
    """Issue 7: running calls finish in the old house, streams too."""
    side = await open_sidecar(file=file.path)
    client = await connect(side.port)
    client.send(listen())
    stream = await upstream.next()
    stream.begin()
    await client.head()
    for _ in range(3):
        await reload(side)
    await until(lambda: side.house.retiring == 1)  # those without calls are gone
    note = event(message("notifications/message", LEGACY, None))
    stream.chunk(note)
    assert await client.until(note) == note
    stream.end()
    assert await client.rest() == b""
    await until(lambda: side.house.retiring == 0)


async def test_messages_of_two_endpoints_find_the_stream_of_before(
    open_sidecar: OpenSidecar, upstream: Upstream, connect: Connect, file: File
) -> None:
    """2024-11-05: the stream is the session, and outlives reloads."""
    url = f"http://127.0.0.1:{upstream.port}/sse"
    side = await open_sidecar(file=file.path, url=url)
    stream, poster = await connect(side.port), await connect(side.port)
    stream.send(listen(revision="2024-11-05", target="/sse"))
    served = await upstream.next()
    served.begin()
    served.chunk(b"event: endpoint\ndata: /messages?session_id=7\n\n")
    await stream.head()
    endpoint = (await stream.until(b"\n\n")).split(b"data: ")[1].strip().decode()
    file.allows()
    await reload(side)
    poster.send(post(tool_call("2024-11-05"), "2024-11-05", target=endpoint))
    posted = await upstream.next()
    posted.answer(b"Accepted", status="202 Accepted", kind="text/plain")
    assert (await poster.answer()).status == 202
    served.chunk(event(result()))
    assert event(result()) in await stream.until(result())


async def test_term_finishes_calls_of_all_readings(
    open_sidecar: OpenSidecar, upstream: Upstream, connect: Connect, file: File
) -> None:
    """lifecycle: what a reload left under way is drained like everything else."""
    side = await open_sidecar(file=file.path, drain_s=5)
    client, other = await connect(side.port), await connect(side.port)
    client.send(post(tool_call()))
    first = await upstream.next()
    await reload(side)
    other.send(post(tool_call(id=2)))
    second = await upstream.next()
    assert side.house.requests_under_way == 2
    closing = asyncio.ensure_future(side.house.close(grace_s=0))
    await until(lambda: side.house.health.is_draining)
    second.answer(result(2))
    assert (await other.answer()).body == result(2)
    first.answer(result())
    assert (await client.answer()).body == result()
    assert await closing == 0


# What outlives a reload.


async def test_buckets_are_as_full_as_they_were(
    open_sidecar: OpenSidecar, upstream: Upstream, connect: Connect, file: File
) -> None:
    """Hostile: whoever can cause a reload must not gain a fresh bucket, also where the limit changes."""
    limit = {"name": "rate", "key": ["tenant"], "rate_per_s": 0.001, "burst": 2}
    file.says(limits=[limit])
    side = await open_sidecar(file=file.path)
    upstream.follow(echo)
    client = await connect(side.port)
    assert reason_of(await client.asked(post(tool_call()))) is None
    await reload(side)
    assert reason_of(await client.asked(post(tool_call()))) is None
    assert reason_of(await client.asked(post(tool_call()))) == "rate_limited"
    file.says(limits=[{**limit, "burst": 3}], listen={"head_timeout_s": 9})
    await reload(side)
    assert reason_of(await client.asked(post(tool_call()))) is None
    assert reason_of(await client.asked(post(tool_call()))) == "rate_limited"


async def test_quotas_are_written_down_once_more_when_their_limits_change(
    open_sidecar: OpenSidecar, upstream: Upstream, connect: Connect, file: File, tmp_path: Path
) -> None:
    """What was spent before a reload is spent after a restart."""
    quota = {"name": "daily", "key": ["tenant"], "quota": 3, "window": "day"}
    kept = {"file": str(tmp_path / "quotas")}
    file.says(limits=[quota], local_state=kept)
    side = await open_sidecar(file=file.path)
    upstream.follow(echo)
    client = await connect(side.port)
    assert reason_of(await client.asked(post(tool_call()))) is None
    file.says(limits=[{**quota, "quota": 2}], local_state=kept)
    await reload(side)
    assert reason_of(await client.asked(post(tool_call()))) is None
    assert reason_of(await client.asked(post(tool_call()))) == "quota_spent"
    await side.house.close(grace_s=0)
    again = await open_sidecar(file=file.path)
    assert reason_of(await (await connect(again.port)).asked(post(tool_call()))) == "quota_spent"


async def test_kept_answers_are_told_again(
    open_sidecar: OpenSidecar, upstream: Upstream, connect: Connect, file: File
) -> None:
    """And what the new rules do not allow is not told from what was kept."""
    kept = {"match": "echo", "allow": ["*"], "class": "read", "cache": {"ttl_s": 600}}
    file.allows(kept, cache={})
    side = await open_sidecar(file=file.path)
    upstream.follow(echo)
    client = await connect(side.port)
    await client.asked(post(tool_call()))
    file.allows(kept, cache={}, listen={"head_timeout_s": 9})
    await reload(side)
    assert b"hello" in (await client.asked(post(tool_call(id=2)))).body
    assert len(upstream.seen) == 1
    file.allows(NO_ECHO, kept, cache={})
    await reload(side)
    assert reason_of(await client.asked(post(tool_call(id=3)))) == "not_allowed"
    assert len(upstream.seen) == 1


async def test_places_that_are_held_stay_held(
    open_sidecar: OpenSidecar, upstream: Upstream, connect: Connect, file: File
) -> None:
    """A server that takes one call at a time does not get two because settings changed, and whoever waits has its turn
    when the call of before ends."""
    capacity = {"max_in_flight": 1, "queue_depth": 1, "max_wait_s": 5}
    file.says(capacity=capacity)
    side = await open_sidecar(file=file.path)
    first, second = await connect(side.port), await connect(side.port)
    first.send(post(tool_call()))
    held = await upstream.next()
    file.says(capacity=capacity, listen={"head_timeout_s": 9})
    await reload(side)
    second.send(post(tool_call(id=2)))
    await until(lambda: side.house.rooms.capacity.waiting == 1)
    held.answer(result())
    assert (await first.answer()).body == result()
    (await upstream.next()).answer(result(2))
    assert (await second.answer()).body == result(2)
    await until(lambda: side.house.rooms.capacity.in_flight == 0)


async def test_a_server_that_is_left_alone_stays_left_alone(
    open_sidecar: OpenSidecar, upstream: Upstream, connect: Connect, file: File
) -> None:
    """design section 3: the breaker survives."""
    resilience = {"breaker": {"failures": 1, "open_s": 30}}
    file.says(resilience=resilience)
    side = await open_sidecar(file=file.path)
    client = await connect(side.port)
    client.send(post(tool_call()))
    (await upstream.next()).answer(b"", status="503 Service Unavailable")
    await client.answer()
    file.says(resilience=resilience, listen={"head_timeout_s": 9})
    await reload(side)
    assert reason_of(await client.asked(post(tool_call()))) == "breaker_open"


async def test_whoever_owns_a_session_keeps_it(
    open_sidecar: OpenSidecar, upstream: Upstream, connect: Connect, file: File, tmp_path: Path
) -> None:
    """design section 3: sessions survive; also where the way callers prove themselves changes."""
    people = let_in(tmp_path, {ANN: ("acme", "ann", ["user"])})
    ways = json.loads(people.partition("=")[2])
    file.says(identity={"authenticators": ways})
    side = await open_sidecar(file=file.path)
    client = await connect(side.port)
    client.send(post(message("initialize", LEGACY, 1), LEGACY, key(ANN)))
    (await upstream.next()).answer(result(), "Mcp-Session-Id: s-1")
    await client.answer()
    file.says(identity={"authenticators": ways, "failed_attempts": {"most": 50}})
    await reload(side)
    client.send(post(tool_call(), LEGACY, key(ANN), ("Mcp-Session-Id", "s-1")))
    (await upstream.next()).answer(result())
    assert (await client.answer()).status == 200
    foreign = await client.asked(post(tool_call(), LEGACY, key(ANN), ("Mcp-Session-Id", "s-2")))
    assert foreign.status == 404


async def test_a_person_who_agreed_is_asked_again_only_when_the_policy_changed(
    open_sidecar: OpenSidecar, upstream: Upstream, connect: Connect, file: File
) -> None:
    """Issue 4, point 6: a release is bound to the policy; issue 7: it survives any other reload."""
    gated = {"match": "echo", "allow": ["*"], "class": "dangerous", "approval": "gated"}
    file.allows(gated)
    side = await open_sidecar(file=file.path)
    upstream.follow(echo)
    client = await connect(side.port)

    async def release() -> None:
        answer: Any = (await client.asked(post(tool_call()))).json
        refusal = answer["result"]["_meta"]["dev.mcp-sidecar/refusal"]
        approvals = side.house.rooms.policy.approvals
        assert approvals.release(refusal["confirmationId"], by="op", now=asyncio.get_running_loop().time())

    await release()
    file.allows(gated, listen={"head_timeout_s": 9})
    await reload(side)
    assert reason_of(await client.asked(post(tool_call()))) is None
    await release()
    file.allows(gated, {"match": "other", "deny": ["*"]})
    await reload(side)
    assert reason_of(await client.asked(post(tool_call()))) == "approval_required"


async def test_what_lists_taught_is_not_forgotten(
    open_sidecar: OpenSidecar, upstream: Upstream, connect: Connect, file: File
) -> None:
    """A client that has listed the tools need not list them again because an operator changed something else."""
    checked = {"match": "echo", "allow": ["*"], "validate": True}
    file.allows(checked)
    side = await open_sidecar(file=file.path)
    client = await connect(side.port)
    schema = {"type": "object", "required": ["text"]}
    listed = {"jsonrpc": "2.0", "id": 1, "result": {"tools": [{"name": "echo", "inputSchema": schema}]}}
    client.send(post(message("tools/list", LEGACY, 1)))
    (await upstream.next()).answer(json.dumps(listed).encode())
    await client.answer()
    file.allows(checked, listen={"head_timeout_s": 9})
    await reload(side)
    upstream.follow(echo)
    assert reason_of(await client.asked(post(tool_call()))) is None


# When settings are read again.


async def test_a_swap_of_the_mounted_folder_is_seen(
    open_sidecar: OpenSidecar, connect: Connect, tmp_path: Path
) -> None:
    """Kubernetes swaps a symlink above the file; the file itself never changes."""
    for name, rules in (("..1", []), ("..2", [NO_ECHO])):
        (tmp_path / name).mkdir()
        File(tmp_path / name / "settings.yaml").allows(*rules)
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "settings.yaml").symlink_to("..data/settings.yaml")
    side = await open_sidecar(file=tmp_path / "settings.yaml", sleep=_at_once)
    (tmp_path / "..next").symlink_to("..2")
    (tmp_path / "..next").rename(tmp_path / "..data")
    await side.house.watch.look()
    await until(lambda: side.house.reloads.succeeded == 1)
    client = await connect(side.port)
    assert reason_of(await client.asked(post(tool_call()))) == "not_allowed"


async def test_a_change_while_it_is_being_read_is_not_missed(
    open_sidecar: OpenSidecar, connect: Connect, file: File
) -> None:
    """Regression: what a file held when the reload was over counted as read, also where it had changed since it was.
    Rooms that wait for keys made that seconds, and what was taken away from somebody stayed theirs."""
    side = await open_sidecar(file=file.path, sleep=_at_once)
    read = side.house._read
    assert read is not None

    def and_then_another_writes() -> Loaded:
        loaded = read()
        side.house._read = read
        file.allows(NO_ECHO)
        return loaded

    side.house._read = and_then_another_writes
    file.allows()
    await reload(side)
    await side.house.watch.look()
    await until(lambda: side.house.reloads.succeeded == 2)
    client = await connect(side.port)
    assert reason_of(await client.asked(post(tool_call()))) == "not_allowed"


async def test_a_change_while_it_starts_is_not_missed(
    open_sidecar: OpenSidecar, connect: Connect, file: File, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: the same, between the first reading and the moment when files are looked at."""
    of_house = House.__init__

    def late(*things: Any, **named: Any) -> None:
        file.allows(NO_ECHO)
        of_house(*things, **named)

    monkeypatch.setattr(House, "__init__", late)
    side = await open_sidecar(file=file.path, sleep=_at_once)
    await side.house.watch.look()
    await until(lambda: side.house.reloads.succeeded == 1)
    client = await connect(side.port)
    assert reason_of(await client.asked(post(tool_call()))) == "not_allowed"


async def test_packs_and_secrets_in_files_are_read_again(
    open_sidecar: OpenSidecar, connect: Connect, file: File, tmp_path: Path
) -> None:
    """Issue 7: secrets re-read. What rooms do not look at themselves is looked at for them."""
    pack, secret = tmp_path / "pack.yaml", tmp_path / "secret"
    pack.write_text("version: 1\ntools: []\n", encoding="utf-8")
    secret.write_text(_a_secret(), encoding="utf-8")
    cache = {"file": str(tmp_path / "kept"), "secret": f"${{file:{secret}}}"}
    file.says(policy={"packs": [str(pack)], "tools": [EVERYTHING]}, cache=cache)
    side = await open_sidecar(file=file.path, sleep=_at_once)
    pack.write_text("version: 1\ntools: [{match: echo, deny: ['*']}]\n", encoding="utf-8")
    await side.house.watch.look()
    await until(lambda: side.house.reloads.succeeded == 1)
    client = await connect(side.port)
    assert reason_of(await client.asked(post(tool_call()))) == "not_allowed"
    # Entries signed with the old one must not be told any more, and two secrets cannot sign one file.
    secret.write_text(_a_secret(), encoding="utf-8")
    await side.house.watch.look()
    await until(lambda: side.house.reloads.failed == 1)
    (mistake,) = mistakes_of(side)
    assert mistake.startswith("cache, because two would write one file")


def _a_secret() -> str:
    return ledger.secret(secrets.token_hex(24), "the cache's secret")


async def test_what_is_missing_may_come_later(
    open_sidecar: OpenSidecar,
    connect: Connect,
    file: File,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Regression: settings that named a file before it was there were never put into force, because nobody looks at
    what refused settings name. Kubernetes may mount a Secret after the ConfigMap that refers to it."""
    monkeypatch.setattr("proxy.house.RETRY_S", 0.02, raising=False)
    side = await open_sidecar(file=file.path, sleep=_at_once)
    read, readings = side.house._read, 0
    assert read is not None

    def counted() -> Loaded:
        nonlocal readings
        readings += 1
        return read()

    side.house._read = counted
    pack = tmp_path / "pack.yaml"
    file.says(policy={"packs": [str(pack)], "tools": [EVERYTHING]})
    assert not await side.house.reload()
    await until(lambda: readings > 2)
    # People are told once, and counted is what they asked for.
    assert (len(mistakes_of(side)), side.house.reloads.failed) == (1, 1)
    pack.write_text("version: 1\ntools: [{match: echo, deny: ['*'], allow: 7}]\n", encoding="utf-8")
    await until(lambda: len(mistakes_of(side)) == 2)  # another mistake is news
    pack.write_text("version: 1\ntools: [{match: echo, deny: ['*']}]\n", encoding="utf-8")
    await until(lambda: side.house.reloads.is_current)
    client = await connect(side.port)
    assert reason_of(await client.asked(post(tool_call()))) == "not_allowed"


async def test_who_may_ask_changes_with_the_settings(
    open_sidecar: OpenSidecar, upstream: Upstream, connect: Connect, file: File
) -> None:
    """Whatever `listen` says beside its address may change, also for connections that are open."""
    side = await open_sidecar(file=file.path)
    upstream.follow(echo)
    client = await connect(side.port)
    assert (await client.asked(post(tool_call()))).status == 200
    file.says(listen={"allowed_hosts": ["tools.example.com"]})
    await reload(side)
    assert (await client.asked(post(tool_call()))).status == 421


async def test_tls_may_begin_with_a_reload(
    open_sidecar: OpenSidecar, upstream: Upstream, file: File, tmp_path: Path
) -> None:
    """Who connects from then on speaks TLS, at the same port; a file that is no certificate changes nothing."""
    authority = Authority("ours")
    certificate, own_key = tmp_path / "tls.pem", tmp_path / "tls.key"
    tls = {"certificate_file": str(certificate), "key_file": str(own_key)}
    certificate.write_text("no certificate", encoding="utf-8")
    own_key.write_text("no key", encoding="utf-8")
    side = await open_sidecar(file=file.path)
    upstream.follow(echo)
    port, held = side.port, len(side.house._survivors)
    file.says(listen={"tls": tls})
    assert not await side.house.reload()
    assert [mistake.partition(":")[0] for mistake in mistakes_of(side)] == ["listen.tls.certificate_file"]
    assert len(side.house._survivors) == held
    issued = authority.issue()
    certificate.write_bytes(issued.pem)
    own_key.write_bytes(issued.key_pem)
    await reload(side)
    assert side.port == port
    await turns()  # what accepted until now is closed after that
    trusting = ssl.create_default_context(cadata=authority.pem.decode())
    trusting.check_hostname = False
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting)
    writer.close()


async def test_a_storm_of_wishes_is_one_reload(open_sidecar: OpenSidecar, file: File) -> None:
    """CFG-019: at most one reload a second, whatever happens."""
    waits: asyncio.Queue[float] = asyncio.Queue()

    async def sleep(seconds: float) -> None:
        waits.put_nowait(seconds)
        await asyncio.Event().wait()

    side = await open_sidecar(file=file.path, sleep=sleep)
    for _ in range(100):
        side.house.reload_soon()
    async with within():
        assert await waits.get() == 1.0
    for _ in range(100):
        side.house.reload_soon()
    await asyncio.sleep(0)
    assert (side.house.reloads.succeeded, side.house.reloads.failed) == (1, 0)


async def test_a_hundred_reloads_under_load_lose_nothing(
    open_sidecar: OpenSidecar, upstream: Upstream, connect: Connect, file: File
) -> None:
    """Issue 7: 100 reloads with every tenth broken: 0 failed calls; nothing is left of those before."""
    file.allows(limits=[])
    side = await open_sidecar(file=file.path)
    upstream.follow(echo)
    over, asked = False, 0

    async def load() -> None:
        nonlocal asked
        client = await connect(side.port)
        while not over:
            answer = await client.asked(post(tool_call()))
            assert (answer.status, answer.body) == (200, result())
            asked += 1

    workers = [asyncio.ensure_future(load()) for _ in range(4)]
    await until(lambda: asked > 4)
    held = len(side.house._survivors)
    for number in range(1, 101):
        if number % 10:
            file.allows({"match": f"tool-{number}", "deny": ["*"]}, limits=[])
            await reload(side)
        else:
            file.path.write_text("version: 1\npolicy: {", encoding="utf-8")
            assert not await side.house.reload()
    over = True
    async with within(10):
        await asyncio.gather(*workers)
    await until(lambda: side.house.retiring == 0)
    assert (side.house.reloads.succeeded, side.house.reloads.failed) == (90, 10)
    assert (len(side.house._survivors), side.house.rooms.capacity.in_flight) == (held, 0)
    assert asked > 100


async def _at_once(_: float) -> None:
    await asyncio.sleep(0)


# A real process.


async def test_hup_reads_again_and_a_second_term_does_not_wait(
    upstream: Upstream, connect: Connect, file: File
) -> None:
    """design section 2: HUP reload; issue 7: a second TERM is faster."""
    ports = {"listen": {"address": "127.0.0.1:0"}, "operations": {"address": "127.0.0.1:0"}}
    file.says(upstream={"url": upstream.url}, drain_s=60, **ports)
    async with process("run", "--config", str(file.path)) as running:
        data, operations = await running.listening()
        client = await connect(data)
        file.says(
            upstream={"url": upstream.url}, drain_s=50, policy={"tools": [NO_ECHO, EVERYTHING]}, **ports
        )
        running.signal(signal.SIGHUP)
        await running.lines.when(lambda lines: any(each["msg"] == "settings reloaded" for each in lines.life))
        assert reason_of(await client.asked(post(tool_call()))) == "not_allowed"
        moved = {**ports, "listen": {"address": "127.0.0.1:1"}}
        file.says(upstream={"url": upstream.url}, **moved)
        running.signal(signal.SIGHUP)
        await running.lines.when(lambda lines: any("mistakes" in each for each in lines.life))
        (mistake,) = running.lines.life[-1]["mistakes"]
        assert mistake == "listen.address: cannot change while it runs, start it anew"
        client.send(post(tool_call(tool="slow")))
        call = await upstream.next()
        running.signal(signal.SIGTERM)
        await running.lines.when(lambda lines: any(each["msg"] == "draining" for each in lines.life))
        assert (await probe(operations, "/readyz")).status == 503
        running.signal(signal.SIGTERM)
        assert await running.exit_code() == 0
        assert running.lines.life[-1]["cut_off"] == 1
        call.link.reset()
