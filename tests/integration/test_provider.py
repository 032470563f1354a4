"""Identity providers are asked under our conditions: one answer, one place, bounded in time and size."""

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trustme

from proxy.identity.provider import MAX_BYTES, Provider, Unavailable
from proxy.secret import Secret
from tests.integration.upstream import Exchange, Script, Upstream, fields_of
from tests.integration.waiting import within


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    opened = Provider(fetch_timeout_s=4.0)
    yield opened
    await opened.close()


@pytest.fixture
def url(upstream: Upstream) -> str:
    return f"http://127.0.0.1:{upstream.port}/keys"


async def why_not(provider: Provider, url: str) -> str:
    """The words of the failure that fetching `url` ends in."""
    async with within():
        with pytest.raises(Unavailable) as caught:
            await provider.fetch(url)
    return str(caught.value)


def answering(body: bytes, *fields: str, status: str = "200 OK") -> Script:
    async def script(exchange: Exchange) -> None:
        exchange.answer(body, *fields, status=status)

    return script


async def ask(provider: Provider, url: str, **form: str) -> bytes:
    async with within():
        return await provider.ask(url, form, user="sidecar", secret=Secret("s3cret"), timeout_s=4.0)


async def test_a_document_is_fetched(provider: Provider, upstream: Upstream, url: str) -> None:
    """The URL goes out as it was configured, without anything that could be decoded or compressed."""
    upstream.follow(answering(b'{"keys":[]}'))
    async with within():
        assert await provider.fetch(url + "/%41?x=%2F") == (b'{"keys":[]}', None)
    [request] = upstream.seen
    assert (request.method, request.target) == ("GET", "/keys/%41?x=%2F")
    assert fields_of(request, "accept-encoding") == ["identity"]
    assert fields_of(request, "authorization") == []


@pytest.mark.parametrize(
    ("fields", "max_age_s"),
    [
        (["Cache-Control: max-age=300"], 300.0),
        (["Cache-Control: public, Max-Age=60, must-revalidate"], 60.0),
        (["Cache-Control: public", "Cache-Control: max-age=7"], 7.0),
        (['Cache-Control: max-age="5"'], 5.0),
        (["Cache-Control: max-age=0"], 0.0),
        (["Cache-Control: s-maxage=300, x-max-age=5"], None),
        (["Cache-Control: max-age=-1"], None),
        (["Cache-Control: max-age=1e9"], None),
        (["Cache-Control: max-age=99999999999999999999"], None),
        (["Cache-Control: max-age=\u0663"], None),
    ],
)
async def test_what_its_sender_calls_fresh(
    provider: Provider, upstream: Upstream, url: str, fields: list[str], max_age_s: float | None
) -> None:
    """RFC 9111, 5.2.2.1: whole seconds; anything else says nothing."""
    upstream.follow(answering(b"{}", *fields))
    async with within():
        assert await provider.fetch(url) == (b"{}", max_age_s)


async def test_a_question_carries_our_credential_and_the_form(
    provider: Provider, upstream: Upstream, url: str
) -> None:
    """RFC 6749, 2.3.1: both parts are form-urlencoded before they are joined by the colon."""
    upstream.follow(answering(b'{"active":false}'))
    async with within():
        answer = await provider.ask(
            url, {"token": "a+b &c=ü"}, user="side:car", secret=Secret("p ü%"), timeout_s=4.0
        )
    assert answer == b'{"active":false}'
    [request] = upstream.seen
    assert request.method == "POST"
    assert fields_of(request, "content-type") == ["application/x-www-form-urlencoded"]
    assert request.body == b"token=a%2Bb+%26c%3D%C3%BC"
    scheme, _, pair = fields_of(request, "authorization")[0].partition(" ")
    assert (scheme, base64.b64decode(pair)) == ("Basic", b"side%3Acar:p+%C3%BC%25")


@pytest.mark.parametrize("status", ["301 Moved Permanently", "302 Found", "307 Temporary Redirect", "308 X"])
async def test_a_redirect_is_not_followed(
    provider: Provider, upstream: Upstream, url: str, status: str
) -> None:
    """Protocol notes 8.7: who answers is decided by the settings, not by whoever answers."""
    upstream.follow(answering(b'{"keys":[]}', f"Location: {url}/elsewhere", status=status))
    assert await why_not(provider, url) == "redirect"
    with pytest.raises(Unavailable, match="redirect"):
        await ask(provider, url, token="t")
    assert [request.target for request in upstream.seen] == ["/keys", "/keys"]


@pytest.mark.parametrize(
    ("status", "why"),
    [
        ("201 Created", "status 201"),
        ("204 No Content", "status 204"),
        ("304 Not Modified", "redirect"),
        ("401 Unauthorized", "status 401"),
        ("404 Not Found", "status 404"),
        ("429 Too Many Requests", "status 429"),
        ("500 Internal Server Error", "status 500"),
        ("503 Service Unavailable", "status 503"),
    ],
)
async def test_only_200_is_an_answer(
    provider: Provider, upstream: Upstream, url: str, status: str, why: str
) -> None:
    upstream.follow(answering(b"", status=status))
    assert await why_not(provider, url) == why


@pytest.mark.parametrize("has_length", [True, False])
@pytest.mark.parametrize("size", [MAX_BYTES, MAX_BYTES + 1])
async def test_an_answer_is_read_up_to_256_kib(
    provider: Provider, upstream: Upstream, url: str, size: int, has_length: bool
) -> None:
    body = b'"' + b"x" * (size - 2) + b'"'

    async def script(exchange: Exchange) -> None:
        if has_length:
            exchange.answer(body)
        else:
            exchange.begin()
            for at in range(0, size, 65_536):
                exchange.chunk(body[at : at + 65_536])
            exchange.end()

    upstream.follow(script)
    if size > MAX_BYTES:
        assert await why_not(provider, url) == "too large"
        await left(upstream)
    else:
        async with within():
            assert await provider.fetch(url) == (body, None)


async def left(upstream: Upstream) -> None:
    async with within():
        await upstream.links[-1].left.wait()


async def test_a_length_that_is_too_large_is_believed_at_once(
    provider: Provider, upstream: Upstream, url: str
) -> None:
    """No byte of the body has come yet; waiting for it would hold a call until the timeout."""

    async def script(exchange: Exchange) -> None:
        exchange.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (MAX_BYTES + 1))

    upstream.follow(script)
    assert await why_not(provider, url) == "too large"
    await left(upstream)


async def test_an_answer_without_end_is_left_at_256_kib(
    provider: Provider, upstream: Upstream, url: str
) -> None:
    async def script(exchange: Exchange) -> None:
        exchange.begin()
        while exchange.link.is_open:
            exchange.chunk(b"x" * 16_384)
            await exchange.link.drained()
            await asyncio.sleep(0)

    upstream.follow(script)
    assert await why_not(provider, url) == "too large"
    await left(upstream)


async def test_a_provider_that_drips_is_left_when_the_time_is_over(upstream: Upstream, url: str) -> None:
    """The bound is for the whole answer: between two of its bytes there never is a long pause."""
    dripped = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        exchange.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while exchange.link.is_open:
            exchange.write(b" ")
            dripped.set()
            await asyncio.sleep(0.01)

    upstream.follow(script)
    provider = Provider(fetch_timeout_s=0.2)
    assert await why_not(provider, url) == "timeout"
    assert dripped.is_set()
    await left(upstream)
    await provider.close()


async def test_a_head_that_never_comes_ends_in_a_timeout(
    provider: Provider, upstream: Upstream, url: str
) -> None:
    """The time of a question is the asker's; an endless row of 1xx answers does not stretch it."""

    async def script(exchange: Exchange) -> None:
        while exchange.link.is_open:
            exchange.write(b"HTTP/1.1 103 Early Hints\r\n\r\n")
            await asyncio.sleep(0.01)

    upstream.follow(script)
    async with within():
        with pytest.raises(Unavailable, match="timeout"):
            await provider.ask(url, {}, user="sidecar", secret=Secret("s3cret"), timeout_s=0.1)
    await left(upstream)


@pytest.mark.parametrize("coding", ["gzip", "br", "deflate, identity", "zstd", "GZIP"])
async def test_a_compressed_answer_is_refused(
    provider: Provider, upstream: Upstream, url: str, coding: str
) -> None:
    """A few bytes of it could stand for gigabytes."""
    upstream.follow(answering(b"\x1f\x8b", f"Content-Encoding: {coding}"))
    assert await why_not(provider, url) == "compressed"


async def test_an_answer_that_stops_short_is_none(provider: Provider, upstream: Upstream, url: str) -> None:
    async def script(exchange: Exchange) -> None:
        exchange.write(b'HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{"active":true}')
        exchange.link.close()

    upstream.follow(script)
    assert await why_not(provider, url) == "connection broke"


async def test_what_is_no_http_is_no_answer(provider: Provider, upstream: Upstream, url: str) -> None:
    async def script(exchange: Exchange) -> None:
        exchange.write(b"SSH-2.0-OpenSSH\r\n\r\n")
        exchange.link.close()

    upstream.follow(script)
    assert await why_not(provider, url) == "connection broke"


async def test_a_refused_connection_is_not_reached(provider: Provider, upstream: Upstream, url: str) -> None:
    await upstream.close()
    assert await why_not(provider, url) == "not reached"


async def test_a_proxy_of_the_environment_is_not_used(
    provider: Provider, upstream: Upstream, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would see our credential and answer in the provider's place."""
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    upstream.follow(answering(b"{}"))
    async with within():
        assert await provider.fetch(url) == (b"{}", None)
    assert upstream.seen[0].target == "/keys"


async def test_no_cookie_is_kept(provider: Provider, upstream: Upstream, url: str) -> None:
    upstream.follow(answering(b"{}", "Set-Cookie: sid=1; Path=/"))
    for _ in range(2):
        async with within():
            await provider.fetch(url)
    assert [fields_of(request, "cookie") for request in upstream.seen] == [[], []]


async def test_an_answer_nobody_asked_for_is_nobodys(
    provider: Provider, upstream: Upstream, url: str
) -> None:
    """Kept connections would hand the second answer to the next question: a yes about another token."""

    async def script(exchange: Exchange) -> None:
        is_first = len(upstream.seen) == 1
        exchange.answer(b'"first"' if is_first else b'"second"')
        if is_first:
            exchange.answer(b'"planted"')

    upstream.follow(script)
    assert [await ask(provider, url, token="a"), await ask(provider, url, token="b")] == [
        b'"first"',
        b'"second"',
    ]


async def test_a_question_is_sent_once(provider: Provider, upstream: Upstream, url: str) -> None:
    """The pace of questions is counted by who asks; nothing repeats them behind its back."""

    async def script(exchange: Exchange) -> None:
        exchange.link.reset()

    upstream.follow(script)
    assert await why_not(provider, url) == "connection broke"
    assert len(upstream.seen) == 1


async def test_who_waits_may_leave(provider: Provider, upstream: Upstream, url: str) -> None:
    """A cancelled question is no `Unavailable`, and takes its connection with it."""
    asking = asyncio.ensure_future(provider.fetch(url))
    await upstream.next()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await left(upstream)


async def test_after_closing_nobody_is_asked(provider: Provider, upstream: Upstream, url: str) -> None:
    upstream.follow(answering(b"{}"))
    async with within():
        await provider.fetch(url)
    await provider.close()
    assert await why_not(provider, url) == "closed"
    assert len(upstream.seen) == 1


@asynccontextmanager
async def over_tls(certificate: trustme.LeafCert) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A server with this certificate: its URL, and the first lines it has read."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(context)
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/keys", seen


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


async def test_a_provider_with_a_trusted_certificate_is_believed() -> None:
    authority = trustme.CA()
    provider = Provider(tls=trusting(authority))
    async with over_tls(authority.issue_cert("127.0.0.1")) as (url, seen), within():
        assert await provider.fetch(url) == (b"{}", None)
        assert seen == [b"GET /keys HTTP/1.1\r\n"]
        await provider.close()


async def test_a_certificate_of_an_unknown_authority_is_refused() -> None:
    """Without a context of its own the provider trusts what the system trusts."""
    authority = trustme.CA()
    for provider in (Provider(), Provider(tls=trusting(trustme.CA()))):
        async with over_tls(authority.issue_cert("127.0.0.1")) as (url, seen):
            assert await why_not(provider, url) == "certificate"
            assert seen == []
        await provider.close()


async def test_a_certificate_for_another_host_is_refused() -> None:
    authority = trustme.CA()
    provider = Provider(tls=trusting(authority))
    async with over_tls(authority.issue_cert("login.example.com", "127.0.0.2")) as (url, seen):
        assert await why_not(provider, url) == "certificate"
        assert seen == []
    await provider.close()


async def test_it_tells_how_long_each_question_took(upstream: Upstream, url: str) -> None:
    """Metric outbound_latency_seconds: also of a question that got no answer."""
    took: list[tuple[str, float]] = []
    moments = iter([1.0, 1.5, 2.0, 2.25, 3.0, 7.0])
    asking = Provider(took=lambda who, seconds: took.append((who, seconds)), now=lambda: next(moments))
    upstream.follow(answering(b"{}"))
    async with within():
        await asking.fetch(url)
    await ask(asking, url, token="opaque")
    upstream.follow(answering(b"", status="503 Unavailable"))
    await why_not(asking, url)
    assert took == [("jwks", 0.5), ("introspection", 0.25), ("jwks", 4.0)]
    await asking.close()
