"""The provider says what a setup wants and sees who asks; the server trusts everybody. Own promises of the runner."""

import asyncio
import json
import urllib.request
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.corpus import client
from tests.corpus.cases import Corpus, CorpusError, read_corpus
from tests.corpus.client import Connection, Sending
from tests.corpus.fake_server import STATUS_OF_BOB, WHO
from tests.corpus.fake_upstream import FakeUpstream
from tests.corpus.idp import Answer, Idp, KeySet, setup_of
from tests.corpus.keyring import Keyring
from tests.corpus.made_up import LIMITS, request
from tests.corpus.mint import EVENT_OF_BOB
from tests.corpus.run import OWN
from tests.corpus.wire import Message


@pytest.fixture
async def idp() -> AsyncIterator[Idp]:
    made = Idp(Keyring())
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


@pytest.fixture
async def upstream() -> AsyncIterator[FakeUpstream]:
    server = FakeUpstream()
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


async def fetched(url: str) -> Any:
    def fetch() -> Any:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return json.loads(answer.read())

    return await asyncio.to_thread(fetch)


def kids(document: Any) -> list[str]:
    return [key["kid"] for key in document["keys"]]


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return read_corpus(OWN)


async def test_every_setup_of_the_categories_that_run_is_known(corpus: Corpus, idp: Idp) -> None:
    """And one that nobody taught the runner is not."""
    for case in corpus.cases:
        if case.category in {"auth", "sessions"}:
            assert all(setup_of(text, idp) is not None for text in case.setup), case.id
    assert setup_of("jwks: on fire", idp) is None


async def test_a_key_set_answers_what_it_was_told_and_counts(idp: Idp) -> None:
    """Each is heard at its own URL only."""
    one, two = idp.key_set(), idp.key_set()
    assert kids(await fetched(one.url)) == ["k1", "kec", "kps"]
    setup = setup_of("jwks: kid k1 twice", idp)
    assert setup is not None
    assert setup.then is not None
    one.say(setup.then)
    assert kids(await fetched(one.url)) == ["k1", "kec", "kps", "k1"]
    assert kids(await fetched(two.url)) == ["k1", "kec", "kps"]
    assert (one.answered, two.answered) == (2, 1)


async def test_a_setup_waits_until_the_keys_were_fetched_again(idp: Idp) -> None:
    key_set = idp.key_set()
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(key_set.asked(2))
        await fetched(key_set.url)
        assert not waiting.done()
        await fetched(key_set.url)


async def test_a_fetch_that_hangs_is_seen_before_it_is_answered(idp: Idp) -> None:
    key_set = idp.key_set(Answer(hangs=True, body=b'{"keys": []}'))
    async with asyncio.TaskGroup() as tasks:
        seen = tasks.create_task(key_set.asked(1, answered=False))
        fetching = tasks.create_task(fetched(key_set.url))
        await seen
        assert (key_set.begun, key_set.answered) == (1, 0)
        key_set.close()
    assert fetching.result() == {"keys": []}


async def test_a_redirect_leads_into_the_trap_and_the_trap_remembers(idp: Idp) -> None:
    """Whoever follows gets the attacker's keys, and is seen."""
    setup = setup_of("jwks: 302", idp)
    assert setup is not None
    assert setup.then is not None
    key_set = idp.key_set(setup.then)
    assert kids(await fetched(key_set.url)) == ["ka", "k1"]
    assert "GET /latest/meta-data/ HTTP/1.1" in idp.trapped


async def test_nobody_listens_where_connections_are_to_be_refused(idp: Idp) -> None:
    with pytest.raises(OSError, match="refused"):
        await fetched(idp.refusing_url())


async def test_a_sidecar_that_never_asks_is_an_error() -> None:
    """A case about keys that were never fetched would say nothing."""
    with pytest.raises(CorpusError):
        await KeySet("http://127.0.0.1:1/jwks", Answer()).asked(1, patience_s=0.01)


async def said(upstream: FakeUpstream, data: bytes) -> Message:
    exchange = await client.converse(
        data, upstream.port, sending=Sending(kind="whole"), limits=LIMITS, raw=False, wants_close=False
    )
    return exchange.answers[0]


def asked(method: str, params: dict[str, Any], *fields: str) -> bytes:
    return request(*fields, body={"jsonrpc": "2.0", "id": 1, "method": method, "params": params})


async def session_of(upstream: FakeUpstream, who: str) -> str:
    answer = await said(upstream, asked("initialize", {}, f"{WHO}: {who}"))
    return answer.values("mcp-session-id")[0].decode()


async def test_session_ids_are_counted_so_that_the_next_one_is_somebodys(upstream: FakeUpstream) -> None:
    alice, bob = await session_of(upstream, "alice"), await session_of(upstream, "bob")
    assert bob == f"corpus-{int(alice.removeprefix('corpus-')) + 1}"


async def test_whoever_names_an_event_of_bobs_gets_what_he_missed(upstream: FakeUpstream) -> None:
    """No check at all: only the sidecar can keep them apart."""
    bob, alice = await session_of(upstream, "bob"), await session_of(upstream, "alice")
    stream = Connection()
    await stream.open(upstream.port)
    collecting = asyncio.get_running_loop().create_task(stream.collect())
    await stream.send(request(f"Mcp-Session-Id: {bob}", method="GET", body=b""))
    async with asyncio.timeout(5):
        while stream.received.count(b"\nid: ") < 3:
            await stream.news(asyncio.get_running_loop().time() + 5)
    assert b'"method": "elicitation/create"' in stream.received
    first = stream.received.split(b"id: ")[1].split(b"\n")[0].decode()
    resumed = request(f"Mcp-Session-Id: {alice}", f"Last-Event-ID: {first}", method="GET", body=b"")
    answer = await said(upstream, resumed)
    assert answer.body.count(EVENT_OF_BOB.encode()) == 2
    collecting.cancel()
    await asyncio.wait([collecting])
    stream.close()


async def test_a_task_of_bobs_is_told_to_whoever_names_it(upstream: FakeUpstream) -> None:
    created = await said(upstream, asked("tools/call", {"name": "echo", "task": {}}, f"{WHO}: bob"))
    id = created.json["result"]["task"]["taskId"]
    status = await said(upstream, asked("tasks/get", {"taskId": id}, f"{WHO}: alice"))
    assert STATUS_OF_BOB in json.dumps(status.json)


async def test_a_stream_of_many_steps_takes_its_time(upstream: FakeUpstream) -> None:
    """Fifty a second: a thousand of them outlive a token of five seconds."""
    began = asyncio.get_running_loop().time()
    answer = await said(upstream, asked("tools/call", {"name": "stream", "arguments": {"n": 5}}))
    assert answer.body.count(b"notifications/message") == 5
    assert asyncio.get_running_loop().time() - began >= 5 * 0.02
