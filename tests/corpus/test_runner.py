"""The runner never passes what it does not know, sees every byte, and says what it saw."""

import asyncio
import os
import re
import time
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from proxy.model import Peer
from tests.corpus import allowances, cache_stand, client, elsewhere, made_up
from tests.corpus.allowances import ALLOWED, client_of
from tests.corpus.arena import Arena, Verdict
from tests.corpus.cases import Case, Corpus, CorpusError, read_case, read_corpus
from tests.corpus.client import Sending, converse, read_sending
from tests.corpus.deferred import Deferred
from tests.corpus.evidence import number_of, outcome
from tests.corpus.fake_server import ALICE, BOB, TOOLS, WHO
from tests.corpus.fake_upstream import FakeUpstream
from tests.corpus.made_up import CALL, LIMITS, request
from tests.corpus.pressure import crowd_of
from tests.corpus.prober import Prober
from tests.corpus.run import OWN, chosen, lag_report, report
from tests.corpus.scripts import GENERATED, METADATA_URL, Script, read_script, rug_pull
from tests.corpus.sidecar import (
    ABOVE_THE_BUCKET,
    BARRIER_TOOL,
    Lag,
    Sidecar,
    SidecarError,
    keeping,
    lag_said,
    metrics_of,
    policy,
    watching,
)
from tests.corpus.wire import Message, WireError, announced_bytes, read_answers, read_message

NOTHING_WAITS = Deferred(categories={}, cases={}, checks={}, texts={})


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return read_corpus(OWN)


def made(corpus: Corpus, **changes: Any) -> Case:
    raw: dict[str, Any] = {
        "id": "MADE-UP",
        "category": "json",
        "title": "made up",
        "request": {"method": "POST", "path": "/mcp", "headers": {}, "body": "{}"},
        "expect": {"status": [400]},
    }
    expect, asked = changes.pop("expect", {}), changes.pop("request", {})
    return read_case(
        {**raw, **changes, "expect": {**raw["expect"], **expect}, "request": {**raw["request"], **asked}}
    )


async def verdict(corpus: Corpus, deferred: Deferred = NOTHING_WAITS, **changes: Any) -> Verdict:
    """A verdict that is reached before any process is needed: the sidecar's command does not exist."""
    arena = Arena(corpus, deferred, sidecar="/nonexistent/sidecar")
    await arena.open()
    try:
        return await arena.run(made(corpus, **changes))
    finally:
        await arena.close()


@pytest.mark.parametrize(
    "changes",
    [
        {"expect": {"must_not": ["an unheard-of thing happens"]}},
        {"expect": {"also": "something pleasant"}},
        {"expect": {"outcome": "start: exit 2 with file:line and key; and a bow"}},
        {"setup": "the moon is full"},
        {"then": ["wait and see"]},
        {"category": "http-astral"},
    ],
)
async def test_an_unknown_text_fails_the_case(corpus: Corpus, changes: dict[str, Any]) -> None:
    """Unknown must_not, also, outcome, setup, then or category: a failure of the runner, never a pass."""
    found = await verdict(corpus, **changes)
    assert found.state == "failed"
    assert all(problem.startswith("runner:") for problem in found.problems)


@pytest.mark.parametrize(
    "raw",
    [
        {"expect": {"should_not": ["x"]}},
        {"request": {"body_lines": ["x"]}},
        {"teardown": ["x"]},
    ],
)
def test_an_unknown_key_is_not_read_over(corpus: Corpus, raw: dict[str, Any]) -> None:
    """A key the format does not have would be an expectation nobody checks."""
    with pytest.raises(CorpusError):
        made(corpus, **raw)


@pytest.mark.parametrize("text", ["hold", "1 word/s", "close gently", "10 bytes per second per segment"])
def test_an_unknown_way_to_send_is_refused(text: str) -> None:
    with pytest.raises(CorpusError):
        read_sending(text)


@pytest.mark.parametrize(
    "raw",
    [
        {"send": "", "then": "sulk"},
        {"send": "", "then": "hang", "rate": "1 B/s"},
        {"send": "", "rate": "split inside \\xc3\\xa9"},
        {"send_gen": "something large"},
        {"tools": [], "result": {}},
        {"tools": {}},
        {"mode": "slow"},
        {},
    ],
)
def test_a_script_the_fake_upstream_cannot_play_is_refused(raw: dict[str, Any]) -> None:
    with pytest.raises(CorpusError):
        read_script(raw)


async def test_a_file_that_is_only_described_is_not_written_down_as_it_stands(corpus: Corpus) -> None:
    """Prose is no YAML, so any sidecar would refuse it; own promise."""
    asked = {"method": "FILE", "path": "config.yaml", "body": "(a file that is a socket)"}
    outcome = {"status": [], "outcome": "start: exit 2 with file:line and key"}
    found = await verdict(corpus, category="config", request=asked, expect=outcome)
    assert found.problems == ("runner: no file for (a file that is a socket), made up",)


async def test_what_waits_is_not_run_and_names_its_room(corpus: Corpus) -> None:
    """By id, by category, and where every check of a case waits."""
    by_id = Deferred(categories={}, cases={"MADE-UP": "policy"}, checks={}, texts={})
    by_category = Deferred(categories={"json": "policy"}, cases={}, checks={}, texts={})
    by_checks = Deferred(categories={}, cases={}, checks={"MADE-UP": {"status": "policy"}}, texts={})
    for deferred in (by_id, by_category, by_checks):
        found = await verdict(corpus, deferred)
        assert (found.state, found.rooms) == ("deferred", ("policy",))


@pytest.fixture
async def upstream() -> AsyncIterator[FakeUpstream]:
    server = FakeUpstream()
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


async def say(
    upstream: FakeUpstream, data: bytes, *, kind: str = "whole", raw: bool = False
) -> client.Exchange:
    return await converse(
        data, upstream.port, sending=Sending(kind=kind, amount=10), limits=LIMITS, raw=raw, wants_close=False
    )


async def test_every_byte_is_recorded_unfinished_requests_included(upstream: FakeUpstream) -> None:
    """What never became a request has still arrived."""
    upstream.begin(None, sends_discover=False)
    await say(upstream, request())
    await say(upstream, request(body={**CALL, "id": 2}), kind="segments")
    unfinished = client.Connection()
    await unfinished.open(upstream.port)
    await unfinished.send(b"POST /mcp HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{")
    for _ in range(1000):
        if upstream.take()[1].endswith(b"{"):
            break
        await asyncio.sleep(0)
    requests, received = upstream.take()
    unfinished.close()
    assert [one.json["id"] for one in requests] == [1, 2]
    assert received == request() + request(body={**CALL, "id": 2}) + (
        b"POST /mcp HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{"
    )


async def test_the_sidecars_own_probe_is_not_counted_but_a_clients_is(upstream: FakeUpstream) -> None:
    probe = request(body={"jsonrpc": "2.0", "id": 1, "method": "server/discover", "params": {}})
    upstream.begin(None, sends_discover=False)
    await say(upstream, probe)
    assert upstream.take() == ((), b"")
    upstream.begin(None, sends_discover=True)
    await say(upstream, probe)
    assert upstream.take()[1] == probe


async def test_metrics_are_those_of_now() -> None:
    """A page is told for a second (proxy/telemetry/exposition.py): what was told once is not what is counted now."""
    pages = iter(["1", "1", "1", "2", "3"])

    async def tell(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{next(pages)}".encode())
        writer.close()

    async with await asyncio.start_server(tell, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert [await metrics_of(port), await metrics_of(port)] == [b"1", b"2"]
    assert list(pages) == ["3"]


async def test_a_broken_fake_upstream_fails_the_case(upstream: FakeUpstream) -> None:
    """`big` with a size that is no number breaks our own server; that is said once and then forgotten."""
    upstream.begin(None, sends_discover=False)
    await say(upstream, request(body={**CALL, "params": {"name": "big", "arguments": {"mb": "many"}}}))
    with pytest.raises(CorpusError, match="fake upstream"):
        upstream.take()
    assert len(upstream.take()[0]) == 1


async def test_several_answers_on_one_connection_are_told_apart(upstream: FakeUpstream) -> None:
    """Pipelined requests: each answer is read by its own framing."""
    upstream.begin(None, sends_discover=False)
    stream = request(body={**CALL, "id": 2, "params": {"name": "stream"}})
    exchange = await say(upstream, request() + stream + request(body={**CALL, "id": 3}), raw=True)
    assert [one.json["id"] for one in exchange.answers] == [1, 2, 3]
    assert not exchange.closed


async def test_a_scripted_answer_is_sent_as_it_stands(upstream: FakeUpstream) -> None:
    script = read_script({"send": "HTTP/1.1 400 Bad\r\nContent-Length: 2\r\n\r\n\xe9\x00"})
    upstream.begin(script, sends_discover=False)
    exchange = await say(upstream, request())
    assert exchange.received == b"HTTP/1.1 400 Bad\r\nContent-Length: 2\r\n\r\n\xe9\x00"


LIST = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}


async def shown(upstream: FakeUpstream, script: Script | None, *lines: str) -> list[dict[str, Any]]:
    """The tools that a client is shown while a script plays."""
    upstream.begin(script, sends_discover=False)
    tools: list[dict[str, Any]] = (
        (await say(upstream, request(*lines, body=LIST))).answers[0].json["result"]["tools"]
    )
    return tools


async def test_scripted_tools_stand_before_the_servers_own_and_in_their_place(upstream: FakeUpstream) -> None:
    """Two of one name both stand there; what the script does not name stays, and comes back after it."""
    second = {"name": "echo", "description": "other"}
    script = read_script({"tools": [{"name": "echo", "_duplicate_with": second}, {"name": "odd"}]})
    usual = await shown(upstream, None)
    odd = await shown(upstream, script)
    assert odd == [
        {"name": "echo"},
        second,
        {"name": "odd"},
        *(one for one in usual if one["name"] != "echo"),
    ]
    assert await shown(upstream, None) == usual == list(TOOLS)


async def test_a_scripted_result_answers_requests_only(upstream: FakeUpstream) -> None:
    """With the id of each; a notification is accepted as ever."""
    upstream.begin(read_script({"result": {"instructions": "x"}}), sends_discover=False)
    answered = (await say(upstream, request(body={**LIST, "id": "a"}))).answers[0]
    assert answered.json == {"jsonrpc": "2.0", "id": "a", "result": {"instructions": "x"}}
    noted = await say(upstream, request(body={"jsonrpc": "2.0", "method": "notifications/initialized"}))
    assert noted.answers[0].status == 202


def test_what_the_corpus_leaves_to_the_harness_is_done() -> None:
    """TOOL-011 is sent longer, TOOL-021 has the first two of a row, TOOL-020 leads where nobody may be sent."""
    note = "sent 1 000 times longer by the harness"
    [long] = read_script({"tools": [{"name": "a", "description": "xy"}]}, note=note).tools
    assert long["description"] == "xy" * 1000
    link = {"anyOf": [{"$ref": "#/$defs/a0"}, {"$ref": "#/$defs/a0"}]}
    bomb = {"$defs": {"a0": {"type": "string"}, "a1": link}, "properties": {"a": {"$ref": "#/$defs/a30"}}}
    [grown] = read_script({"tools": [{"name": "a", "inputSchema": bomb}]}).tools
    rows = grown["inputSchema"]["$defs"]
    assert list(rows) == [f"a{number}" for number in range(31)]
    assert rows["a30"] == {"anyOf": [{"$ref": "#/$defs/a29"}, {"$ref": "#/$defs/a29"}]}
    schema = {"$ref": f"{METADATA_URL}/schema.json"}
    [led] = read_script({"tools": [{"name": "a", "inputSchema": schema}]}, trap="http://127.0.0.1:9").tools
    assert led["inputSchema"] == {"$ref": "http://127.0.0.1:9/schema.json"}


@pytest.mark.parametrize(
    ("sentence", "differs"),
    [
        ("approved hash stored; upstream changes one character", {"description"}),
        ("upstream adds property exfil", {"inputSchema"}),
        ("upstream serves the poisoned list only to Bob", {"description"}),
        ("upstream reorders JSON keys", set()),
    ],
)
async def test_a_rug_pull_changes_what_it_says_and_nothing_else(
    upstream: FakeUpstream, sentence: str, differs: set[str]
) -> None:
    """One member of `echo`, or none: then the bytes differ and the values do not."""
    script = rug_pull(sentence)
    assert script is not None
    usual = {tool["name"]: tool for tool in TOOLS}
    for who in (ALICE, BOB):
        pulled = {tool["name"]: tool for tool in await shown(upstream, script, f"{WHO}: {who}")}
        changed = {key for key in usual["echo"] if pulled["echo"][key] != usual["echo"][key]}
        assert changed == (differs if script.only_for in (None, who) else set())
        assert {**pulled, "echo": usual["echo"]} == usual
    assert rug_pull(f"{sentence} twice") is None


CALLED = request(body=CALL)
STREAM = request(body={**CALL, "params": {"name": "stream", "arguments": {"n": 100_000}}})


async def test_answers_are_cut_off_at_every_place(upstream: FakeUpstream) -> None:
    """Before the head, in it, in the body, in the events; each call has arrived."""
    upstream.begin(Script(cuts=True), sends_discover=False)
    cut = [await say(upstream, CALLED) for _ in range(4)]
    assert all(each.closed for each in cut)
    assert [len(each.answers) for each in cut] == [0, 0, 1, 1]
    assert not any(answer.complete for each in cut for answer in each.answers)
    assert len(upstream.take()[0]) == 4
    upstream.begin(None, sends_discover=False)
    assert (await say(upstream, CALLED)).answers[0].complete


async def test_of_an_answer_without_an_end_a_part_is_enough(upstream: FakeUpstream) -> None:
    """And what is no such answer is awaited as ever."""
    upstream.begin(None, sends_discover=False)
    for sent, is_complete in ((STREAM, False), (CALLED, True)):
        exchange = await converse(
            sent,
            upstream.port,
            sending=Sending(kind="whole"),
            limits=LIMITS,
            raw=False,
            wants_close=False,
            enough=b"notifications/message",
        )
        assert [(one.status, one.complete) for one in exchange.answers] == [(200, is_complete)]
        assert not exchange.closed
        assert exchange.answered_at is not None


async def leave(connection: client.Connection, collecting: asyncio.Task[None]) -> None:
    """The reading ends first: a socket closed under it would confuse whoever gets its number."""
    collecting.cancel()
    await asyncio.wait([collecting])
    connection.close()


@pytest.mark.parametrize(("then", "closes"), [("close", True), ("reset", True), ("hang", False)])
async def test_after_a_scripted_answer_a_connection_ends_as_it_says(
    upstream: FakeUpstream, then: str, closes: bool
) -> None:
    """What was sent before has arrived; whoever waits for more of a hanging answer waits."""
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"
    upstream.begin(Script(send=head, then=then), sends_discover=False)
    connection = client.Connection()
    await connection.open(upstream.port)
    await connection.send(CALLED + CALLED)
    collecting = asyncio.get_running_loop().create_task(connection.collect())
    until = time.monotonic() + 5
    while not connection.received.endswith(head) or (closes and not connection.closed):
        assert await connection.news(until)
    if not closes:
        assert not await connection.news(time.monotonic() + 0.05)
    await leave(connection, collecting)
    assert connection.received == head
    assert len(upstream.take()[0]) == 1


CLOSES = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
PARTS = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n\xc3\xa9"


@pytest.mark.parametrize(
    ("raw", "then"),
    [
        ({"send": CLOSES}, "close"),
        ({"send": CLOSES.replace("c", "C")}, "close"),
        ({"send": "HTTP/1.1 200 OK\r\n\r\nConnection: close\r\n"}, None),
        ({"send": "x", "then": "reset"}, "reset"),
        ({"send": "x", "rate": "1 B/s"}, "hang"),
    ],
)
def test_a_script_says_how_its_connection_ends(raw: dict[str, Any], then: str | None) -> None:
    """A body that only the end of the connection ends is ended, whoever wrote the header."""
    assert read_script(raw).then == then


async def test_an_answer_comes_in_pieces(upstream: FakeUpstream) -> None:
    """UP-002, UP-074: byte by byte, or split inside a character; each arrives by itself."""
    slow = read_script({"send": "HTTP", "rate": "1 B/s"})
    split = read_script({"send": PARTS, "rate": "split inside \\xc3\\xa9"})
    for script, wanted in ((slow, [b"H", b"HT", b"HTT", b"HTTP"]), (split, [PARTS[:-1].encode("latin-1")])):
        upstream.begin(script, sends_discover=False)
        connection = client.Connection()
        await connection.open(upstream.port)
        await connection.send(CALLED)
        collecting = asyncio.get_running_loop().create_task(connection.collect())
        seen: list[bytes] = []
        while len(seen) < len(wanted) and await connection.news(time.monotonic() + 5):
            seen.append(bytes(connection.received))
        await leave(connection, collecting)
        assert seen == wanted


async def test_an_answer_is_pushed_behind_another_once(upstream: FakeUpstream) -> None:
    """UP-060: on the same connection, and not behind the next one."""
    words = 'keepalive; after 10 ms push HTTP/1.1 200 OK {"id":1,"result":{"who":"evil"}}'
    script = read_script({"send": "HTTP/1.1 204 No\r\n\r\n", "then": words})
    upstream.begin(script, sends_discover=False)
    connection = client.Connection()
    await connection.open(upstream.port)
    await connection.send(CALLED)
    collecting = asyncio.get_running_loop().create_task(connection.collect())
    until = time.monotonic() + 5
    while not connection.received.endswith(b"}}"):
        assert await connection.news(until)
    await connection.send(CALLED + CALLED)
    while connection.received.count(b" 204 ") < 3:
        assert await connection.news(until)
    await leave(connection, collecting)
    answers, rest = read_answers(bytes(connection.received), closed=False)
    assert [answer.status for answer in answers] == [204, 200, 204, 204]
    assert answers[1].json == {"jsonrpc": "2.0", "id": 1, "result": {"who": "evil"}}
    assert rest == b""


async def test_a_server_that_refuses_is_back_on_its_port() -> None:
    """Connections that were open end; there is nobody, and then there is."""
    server = FakeUpstream()
    server.bind()
    port = server.port
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)
    await server.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(CALLED)
    await reader.readuntil(b"\r\n\r\n")
    try:
        await server.refuse()
        with suppress(ConnectionError):
            await reader.read()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        await server.start()
        server.begin(None, sends_discover=False)
        assert (await say(server, CALLED)).answers[0].status == 200
        assert server.port == port
    finally:
        writer.close()
        await server.stop()


def test_what_is_only_described_is_made() -> None:
    """UP-033, 035, 039, 089: as large, as deep and as many as it says."""
    made = {words: read_script({"send_gen": words}).send for words in GENERATED}
    bomb, huge, nested, flood = made.values()
    assert isinstance(bomb, bytes)
    assert isinstance(nested, bytes)
    assert isinstance(flood, bytes)
    assert callable(huge)
    [packed] = read_answers(bomb, closed=False)[0]
    assert len(packed.body) < 1_000_000
    assert sum(len(part) for part in iter_gunzip(packed.body)) == 300_000_000
    parts = huge()
    announced = announced_bytes(next(iter(parts)))
    assert 200_000_000 < announced < 200_000_400
    assert sum(map(len, huge())) == announced
    assert nested.count(b"[") == nested.count(b"]") == 100_000
    assert flood.count(b"list_changed") == 10_000


def iter_gunzip(data: bytes) -> Iterator[bytes]:
    inflate = zlib.decompressobj(31)
    while data and not inflate.eof:
        yield inflate.decompress(data, 1 << 20)
        data = inflate.unconsumed_tail


async def test_no_two_results_have_one_number(upstream: FakeUpstream) -> None:
    """Of equal calls; a question's state is new too."""
    upstream.begin(None, sends_discover=False)
    asks = request(body={**CALL, "params": {"name": "ask"}})
    answers = [(await say(upstream, each)).answers[0] for each in (CALLED, CALLED, asks, asks)]
    assert len({number_of(answer) for answer in answers} - {None}) == 4
    states = [answer.json["result"].get("requestState") for answer in answers]
    assert states[:2] == [None, None]
    assert len(set(states)) == 3
    assert number_of(made_up.answer(200, made_up.refusal("malformed"))) is None


async def test_lists_say_how_long_they_are_good_as_scripted(upstream: FakeUpstream) -> None:
    for hints, said in (
        (None, {"ttlMs": 0, "cacheScope": "private"}),
        ({}, {}),
        ({"ttlMs": 0.5}, {"ttlMs": 0.5}),
    ):
        upstream.begin(Script(hints=hints), sends_discover=False)
        result = (await say(upstream, request(body=LIST))).answers[0].json["result"]
        assert {name: value for name, value in result.items() if name not in ("tools", "_meta")} == said


@pytest.mark.parametrize(
    ("data", "length"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", 47),
        (b"HTTP/1.1 200 OK\r\nA: b\r\ncontent-length:9\r\n\r\n", 52),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n", 0),
        (b"HTTP/1.1 200 OK\r\nX-Content-Length: 9\r\n\r\nContent-Length: 9\r\n", 0),
        (b"", 0),
    ],
)
def test_a_long_answer_is_read_when_it_is_there(data: bytes, length: int) -> None:
    assert announced_bytes(data) == length


def test_what_the_fixture_calls_cached_is_kept_and_nothing_else_but_what_cases_ask_for(
    corpus: Corpus,
) -> None:
    rules = keeping(corpus.fixture)["tools"]
    kept = {rule["match"]: rule["cache"].get("share", "caller") for rule in rules if "cache" in rule}
    assert kept == {"read*": "caller", "pub_info": "all", "pub_echo": "all", "big": "caller", "ask": "caller"}
    assert [rule["allow"] for rule in rules if rule["match"] == "read*"] == [["reader", "admin"]]
    changed = {**corpus.fixture, "tools": {**corpus.fixture["tools"], "pay": "allowed, cached"}}
    with pytest.raises(CorpusError, match="pay"):
        keeping(changed)


def test_every_setup_of_the_cache_is_known_and_nothing_like_it(corpus: Corpus) -> None:
    setups = {text for case in corpus.cases if case.category == "cache" for text in case.setup}
    assert all(map(cache_stand.knows, setups))
    assert not any(
        map(cache_stand.knows, ("Alice asked", "asked with", "first answer was 200", "upstream ttlMs"))
    )


async def test_a_crowd_tells_what_became_of_each(upstream: FakeUpstream) -> None:
    """More requests than connections, and connections that end: nobody is left out."""
    upstream.begin(None, sends_discover=False)
    found = await crowd_of([upstream.port], [CALLED] * 10, at_once=3)
    assert [each.outcome for each in found] == ["passed"] * 10
    assert all(each.sent_at < each.answered_at for each in found)
    upstream.begin(Script(cuts=True), sends_discover=False)
    cut = await crowd_of([upstream.port], [CALLED] * 10, at_once=3)
    assert [each.outcome for each in cut] == ["not answered"] * 10
    assert len(upstream.take()[0]) == 10


async def test_a_crowd_comes_from_where_it_is_told_and_to_each_port() -> None:
    """Each request from an address of its own; ports by turns."""
    came: list[tuple[int, str]] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        came.append((writer.get_extra_info("sockname")[1], writer.get_extra_info("peername")[0]))
        writer.write(b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n")
        await reader.read()
        writer.close()

    servers = [await asyncio.start_server(answer, "127.0.0.1", 0) for _ in range(2)]
    ports = [server.sockets[0].getsockname()[1] for server in servers]
    try:
        sources = ["127.1.250.1", "127.1.250.2", "127.1.250.3", "127.1.250.4"]
        asked = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
        found = await crowd_of(ports, [asked] * 4, at_once=2, sources=sources)
    finally:
        for server in servers:
            server.close()
    assert [each.outcome for each in found] == ["401"] * 4
    assert sorted(address for _, address in came) == sources
    assert sorted(port for port, _ in came) == sorted(ports * 2)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (None, "not answered"),
        (made_up.answer(200, {"result": {}}), "passed"),
        (made_up.answer(202, b""), "passed"),
        (made_up.answer(503, b""), "503"),
        (made_up.answer(429, made_up.refusal("rate_limited", 429)), "rate_limited"),
        (made_up.answer(200, made_up.refused_result("quota_spent")), "quota_spent"),
        (made_up.answer(200, {"result": {"isError": True}}), "passed"),
        (made_up.answer(200, {"error": {"data": {"origin": "server", "reason": "mine"}}}), "passed"),
    ],
)
def test_an_outcome_is_the_sidecars_reason_in_either_form(said: Message | None, expected: str) -> None:
    """What the server itself refuses has passed."""
    assert outcome(said) == expected


@pytest.mark.parametrize(
    ("address", "seen"),
    [
        ("127.66.0.1", "0:0:0:0:0:0:1:001"),
        ("127.66.1.255", "0:0:0:0:0:0:1:1ff"),
        ("127.67.0.1", "0:0:0:1:0:0:1:001"),
        ("127.1.0.1", "127.1.0.1"),
        ("::1", "::1"),
    ],
)
def test_addresses_that_no_machine_has_are_seen_elsewhere(address: str, seen: str) -> None:
    """LIM-016: one network of 64 bits, and the one beside it."""
    assert elsewhere.moved(Peer(address, b"kept")) == Peer(seen, b"kept")


def test_a_clock_elsewhere_stands_still_is_ahead_or_behind(tmp_path: Path) -> None:
    file = tmp_path / "clock"
    wall = elsewhere.clock(file)
    file.write_text("1774742399.9")
    assert wall() == 1774742399.9
    file.write_text("+3000")
    assert 2990 < wall() - time.time() < 3010
    file.write_text("-3000")
    assert 2990 < time.time() - wall() < 3010


def test_every_allowance_is_for_a_case_and_for_each_of_its_tries(corpus: Corpus) -> None:
    """Otherwise a case would meet limits without an end, and nothing would be refused."""
    assert set(ALLOWED) <= {case.id for case in corpus.cases}
    rate, quota = allowances.limits()
    clients = {client_of(case, turn) for case in ALLOWED for turn in (1, 2, 3)}
    limited = {*rate["overrides"], *(name.removeprefix("a/") for name in quota["overrides"])}
    assert limited == clients
    assert quota["overrides"]["a/lim-010.2"] == {"quota": 10}
    assert rate["overrides"]["lim-003.3"] == {"rate_per_s": 10, "burst": 20}


async def test_keys_are_reordered_on_the_wire(upstream: FakeUpstream) -> None:
    upstream.begin(None, sends_discover=False)
    before = await say(upstream, request(body=LIST))
    upstream.begin(rug_pull("upstream reorders JSON keys"), sends_discover=False)
    after = await say(upstream, request(body=LIST))
    assert before.answers[0].json["result"]["tools"] == after.answers[0].json["result"]["tools"]
    assert before.answers[0].body.index(b'"inputSchema"') > before.answers[0].body.index(b'"name"')
    assert after.answers[0].body.index(b'"inputSchema"') < after.answers[0].body.index(b'"name"')
    assert b"\n" in after.answers[0].body


async def test_the_longest_wait_is_that_of_a_loop_that_stood_still() -> None:
    """The prober asks before it says that it watches, so that nothing is missed."""
    asked, release = asyncio.Event(), asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for is_held in (False, True):
            await reader.readuntil(b"\r\n\r\n")
            if is_held:
                asked.set()
                await release.wait()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    prober = Prober()
    try:
        async with asyncio.timeout(5):
            await prober.start(server.sockets[0].getsockname()[1])
            await asked.wait()
            # A length of time is what is measured: there is no event to wait for instead.
            asyncio.get_running_loop().call_later(0.1, release.set)
            await release.wait()
            assert 0.1 <= await prober.stop() < 5
    finally:
        prober.close()
        server.close()


@pytest.mark.parametrize(
    "data",
    [
        b"POST /mcp HTTP/1.1\nHost: x\r\n\r\n",
        b"POST  /mcp HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /mcp HTTP/1.1\r\nHost : x\r\n\r\n",
        b"POST /mcp HTTP/1.1\r\n Host: x\r\n\r\n",
        b"POST /mcp HTTP/1.1\r\nA: x\x00\r\n\r\n",
        b"POST /mcp HTTP/1.1\r\nContent-Length: +1\r\n\r\n{",
        b"POST /mcp HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
        b"POST /mcp HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /mcp HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"POST /mcp HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\n{\r\n0\r\n\r\n",
        b"POST /mcp HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{}\r\n0\r\n\r\n",
    ],
)
def test_the_fake_upstream_reads_strictly(data: bytes) -> None:
    """A lax reader would hide a smuggled request; RFC 9112."""
    with pytest.raises(WireError):
        read_message(data, answers=False)


def test_an_answer_is_read_by_its_framing_or_not_at_all() -> None:
    """Content-Length, chunks, until close, bodiless statuses; HTTP/0.9 is no answer."""
    close = b"HTTP/1.1 200 OK\r\n\r\nrest"
    assert read_answers(close, closed=False) == ((), close)
    assert [one.body for one in read_answers(close, closed=True)[0]] == [b"rest"]
    cut = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nrest"
    assert [one.complete for one in read_answers(cut, closed=True)[0]] == [False]
    interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No\r\n\r\n"
    assert [one.status for one in read_answers(interim, closed=False)[0]] == [100, 204]
    assert read_answers(b"<html>ok</html>", closed=True) == ((), b"<html>ok</html>")


async def test_a_sidecar_that_does_not_start_is_an_error_that_says_what_it_printed(
    corpus: Corpus, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("sidecar")
    sidecar = Sidecar(["python", "-c", "print('no such luck')"], folder, "unlucky", {})
    with pytest.raises(SidecarError, match="no such luck"):
        await sidecar.start()


def test_the_lateness_of_loops_is_read_from_what_sidecars_say() -> None:
    """Issue 7, done when: loop lag max < 100 ms over the whole corpus. Text that no sidecar wrote is passed over."""
    log = (
        b'{"msg":"started","flags":[]}\nTraceback: lag\n'
        b'{"msg":"loop was blocked","lag_s":0.5,"cpu_s":0.25}\n{"msg":"stopped","loop_lag_max_s":0.6,'
        b'"loop_lag_max_cpu_s":0.2}\n'
    )
    assert lag_said(log) == Lag(0.6, 0.25)
    assert lag_said(b'{"msg":"started"}\n') is None
    assert lag_report({}) == "loop lag: no sidecar told"
    assert lag_report({"a": Lag(0.02, 0.012), "b": Lag(0.2504, 0.001)}) == (
        "loop lag of 2 sidecars that told: 250 ms at most (b), of it computing 12 ms at most (a)"
    )


def children() -> list[str]:
    """Command names of the processes that this one has started and that have not ended."""
    stats = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            stats.append(path.read_text())
    found = (re.fullmatch(r"\d+ \((.*)\) (\w) (\d+) .*", stat, re.DOTALL) for stat in stats)
    return [match[1] for match in found if match and int(match[3]) == os.getpid() and match[2] != "Z"]


async def test_no_store_outlives_a_sidecar_that_does_not_start(corpus: Corpus) -> None:
    """It was there first, and nobody would end it."""
    arena = Arena(corpus, NOTHING_WAITS, sidecar="false")
    before = children()
    await arena.open()
    try:
        with pytest.raises(SidecarError):
            await arena.run(next(case for case in corpus.cases if case.id == "LIM-007"))
        assert children() == before
    finally:
        await arena.close()


def test_the_report_counts_and_names_what_failed() -> None:
    """Passed, failed and deferred per category, the failed ids, and the rooms that are waited for."""
    text = report(
        [
            Verdict(id="A-1", category="json", state="passed", rooms=("cache",)),
            Verdict(id="A-2", category="json", state="failed", problems=("status: expected [400], got 200",)),
            Verdict(id="B-1", category="auth", state="deferred", rooms=("identity",)),
        ]
    )
    lines = [line.split() for line in text.splitlines()]
    assert ["json", "1", "1", "0", "A-2"] in lines
    assert ["auth", "0", "0", "1"] in lines
    assert ["all", "1", "1", "1"] in lines
    assert "  A-2: status: expected [400], got 200" in text
    assert "waits for identity: 1 cases" in text
    assert "waits for cache: 0 cases, 1 more in part" in text


def test_what_the_server_says_is_looked_at_where_rules_hide_nothing(corpus: Corpus) -> None:
    """Otherwise a look-alike would be missing because no rule allows it, and nobody would have looked."""
    rules = watching(corpus.fixture)["tools"]
    assert rules[-1] == {"match": "*", "allow": ["*"]}
    assert [rule["match"] for rule in rules if rule.get("validate")] == ["echo"]


def test_a_choice_of_nothing_is_an_error(corpus: Corpus) -> None:
    """A misspelt category must not look like a clean run."""
    assert chosen(corpus, [], []) == corpus.cases
    assert {case.category for case in chosen(corpus, ["json"], [])} == {"json"}
    assert [case.id for case in chosen(corpus, [], ["HTTP-005"])] == ["HTTP-005"]
    with pytest.raises(CorpusError):
        chosen(corpus, ["jason"], [])


def test_the_fixtures_words_become_rules(corpus: Corpus) -> None:
    """Allowed is everybody, denied nobody, and the runner's own call passes whatever the setup."""
    rules = {rule["match"]: rule["allow"] for rule in policy(corpus.fixture)["tools"]}
    assert list(rules) == [*corpus.fixture["tools"], BARRIER_TOOL]
    costs = {rule["match"]: rule["cost"] for rule in policy(corpus.fixture)["tools"] if "cost" in rule}
    assert costs == {"heavy": 50, "heavier": ABOVE_THE_BUCKET}
    assert (rules["echo"], rules["danger"], rules["echo_danger"]) == (["*"], ["admin"], [])
    assert policy(corpus.fixture)["methods"]["resources/read"]["match"] == ["file:///public/*"]
    closed = {rule["match"]: rule["allow"] for rule in policy(corpus.fixture, is_closed=True)["tools"]}
    assert [name for name, roles in closed.items() if roles] == [BARRIER_TOOL]


@pytest.mark.parametrize(
    "said", ["allowed on Mondays", "denied, mostly", "denied for all but", "", "Allowed"]
)
def test_words_that_no_rule_says_are_refused(corpus: Corpus, said: str) -> None:
    """A fixture that is understood in part would be tested against other rules than its own."""
    with pytest.raises(CorpusError, match="echo"):
        policy({**corpus.fixture, "tools": {"echo": said}})
