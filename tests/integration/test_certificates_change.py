"""Certificates and client authorities change while connections run: no restart, and nobody is cut off.

On both event loops: uvloop, which production uses, and asyncio's own, which serves where uvloop is not installed.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop

from proxy.configuration.files import read_bounded
from proxy.configuration.values import Address
from proxy.downstream.acceptor import Acceptor, always
from proxy.downstream.connection import CLOSE, KEEP, Connection, Done, Incoming, Server
from proxy.downstream.settings import ListenSettings, TlsSettings
from proxy.downstream.tls import Unusable
from proxy.model import Refused
from tests.certificates import Authority
from tests.integration.client import Client, connected
from tests.integration.tls import LOOPBACK, REFUSED, Pki, tls_connected
from tests.integration.wire import request

Run = Callable[[Coroutine[Any, Any, None]], None]

ASK = request("GET", "/")


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    with asyncio.Runner(loop_factory=request.param) as runner:
        yield runner.run


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return Pki(tmp_path)


async def tell_who(incoming: Incoming) -> Done:
    """Answers with the certificate the connection knows its client by."""
    connection = incoming.connection
    body = connection.peer.certificate or b"nobody"
    assert connection.transport is not None
    connection.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    connection.request_ended()
    return KEEP


def close_at_once(connection: Connection, refused: Refused) -> Done:
    return CLOSE


@asynccontextmanager
async def accepting(
    tls: TlsSettings | None, may_accept: Callable[[], bool] = always, **others: Any
) -> AsyncIterator[Acceptor]:
    settings = ListenSettings(address=Address("127.0.0.1", 0), tls=tls, **others)
    server = Server(settings, tell_who, close_at_once)
    acceptor = Acceptor(settings, server, read_bounded, may_accept)
    await acceptor.open()
    try:
        yield acceptor
    finally:
        acceptor.stop_accepting()
        await server.shutdown(timeout=0.1)


def tls(pki: Pki, **others: Any) -> TlsSettings:
    return TlsSettings(certificate_file=str(pki.certificate), key_file=str(pki.key), **others)


def mutual(pki: Pki, **others: Any) -> TlsSettings:
    return tls(pki, client_ca_file=str(pki.client_ca), **others)


async def who(client: Client) -> bytes:
    """Whom the other side takes us for."""
    return (await client.asked(ASK)).body


async def who_anew(acceptor: Acceptor, context: ssl.SSLContext) -> bytes | None:
    """Whom it takes a new connection for; None: it is not let in."""
    try:
        async with tls_connected(acceptor.address.port, context) as client:
            return await who(client)
    except REFUSED:
        return None


def test_a_port_without_tls_is_plain(run: Run) -> None:
    """No listen.tls; `renew` has nothing to do then."""

    async def story() -> None:
        async with accepting(None) as acceptor:
            assert acceptor.address.port != 0
            await acceptor.renew()
            async with connected(acceptor.address.port) as client:
                assert await who(client) == b"nobody"

    run(story())


def test_a_connection_knows_the_certificate_of_its_client(run: Run, pki: Pki) -> None:
    """Peer.certificate: DER, as the handshake has verified it."""

    async def story() -> None:
        issued = pki.clients.issue()
        async with accepting(mutual(pki)) as acceptor:
            assert await who_anew(acceptor, pki.context(issued)) == issued.der
            assert await who_anew(acceptor, pki.context()) is None
            assert await who_anew(acceptor, pki.context(Authority("clients").issue())) is None
        async with accepting(mutual(pki, client_certificate="optional")) as acceptor:
            assert await who_anew(acceptor, pki.context(issued)) == issued.der
            assert await who_anew(acceptor, pki.context()) == b"nobody"
            assert await who_anew(acceptor, pki.context(Authority("clients").issue())) is None
        async with accepting(tls(pki)) as acceptor:
            assert await who_anew(acceptor, pki.context(issued)) == b"nobody"

    run(story())


def test_a_new_certificate_is_shown_to_new_connections_and_old_ones_go_on(run: Run, pki: Pki) -> None:
    """Own promise: certificates rotate without restart and without losing a connection."""

    async def story() -> None:
        async with (
            accepting(tls(pki)) as acceptor,
            tls_connected(acceptor.address.port, pki.context()) as older,
        ):
            port = acceptor.address.port
            first = pki.own
            assert (older.shown, await who(older)) == (first.der, b"nobody")
            second = pki.new_own()
            async with tls_connected(port, pki.context()) as between:
                assert between.shown == first.der, "nothing changes by itself"
            await acceptor.renew()
            assert acceptor.address.port == port
            async with tls_connected(port, pki.context()) as newer:
                assert newer.shown == second.der
                assert await who(newer) == b"nobody"
            assert await who(older) == b"nobody"
            for _ in range(3):
                pki.new_own()
                await acceptor.renew()
            async with tls_connected(port, pki.context()) as newest:
                assert newest.shown == pki.own.der
            assert await who(older) == b"nobody"

    run(story())


def test_a_request_under_way_is_answered_while_certificates_change(run: Run, pki: Pki) -> None:
    """A head that has half arrived belongs to its connection, not to a certificate."""

    async def story() -> None:
        async with (
            accepting(tls(pki)) as acceptor,
            tls_connected(acceptor.address.port, pki.context()) as client,
        ):
            client.send(ASK[:10])
            pki.new_own()
            await acceptor.renew()
            client.more(ASK[10:])
            assert (await client.answer()).body == b"nobody"

    run(story())


def test_an_authority_that_is_replaced_is_not_believed_any_more(run: Run, pki: Pki) -> None:
    """Own promise: no new handshake, also not with a ticket of the old one; running connections stay."""

    async def story() -> None:
        old, new = pki.clients.issue(), Authority("next")
        fresh = new.issue()
        old_context = pki.context(old)
        async with (
            accepting(mutual(pki)) as acceptor,
            tls_connected(acceptor.address.port, old_context) as running,
        ):
            assert await who(running) == old.der
            pki.client_ca.write_bytes(pki.clients.pem + new.pem)
            await acceptor.renew()
            assert await who_anew(acceptor, old_context) == old.der
            assert await who_anew(acceptor, pki.context(fresh)) == fresh.der
            pki.client_ca.write_bytes(new.pem)
            await acceptor.renew()
            assert await who_anew(acceptor, old_context) is None
            assert await who_anew(acceptor, pki.context(fresh)) == fresh.der
            assert await who(running) == old.der

    run(story())


def halved(pki: Pki) -> None:
    """The certificate has been written, its key not yet."""
    pki.certificate.write_bytes(pki.servers.issue(names=[LOOPBACK]).pem)


def gone(pki: Pki) -> None:
    pki.client_ca.unlink()


@pytest.mark.parametrize(
    ("spoil", "named"), [(halved, "key_file"), (gone, "client_ca_file")], ids=["half written", "gone"]
)
def test_files_that_do_not_serve_change_nothing(
    run: Run, pki: Pki, spoil: Callable[[Pki], None], named: str
) -> None:
    """The older ones stay in use, and whoever asked is told which file it is; the next change is as good as any."""

    async def story() -> None:
        issued, first = pki.clients.issue(), pki.own
        async with accepting(mutual(pki)) as acceptor:
            spoil(pki)
            with pytest.raises(Unusable) as caught:
                await acceptor.renew()
            assert caught.value.setting == f"listen.tls.{named}"
            async with tls_connected(acceptor.address.port, pki.context(issued)) as client:
                assert (client.shown, await who(client)) == (first.der, issued.der)
            second = pki.new_own()
            pki.client_ca.write_bytes(pki.clients.pem)
            await acceptor.renew()
            async with tls_connected(acceptor.address.port, pki.context(issued)) as client:
                assert client.shown == second.der

    run(story())


def test_nobody_is_turned_away_while_certificates_change(run: Run, pki: Pki) -> None:
    """The queue of the kernel outlives the descriptors that are closed."""

    async def story() -> None:
        async with accepting(tls(pki)) as acceptor:
            context = pki.context()
            for _ in range(10):
                knocks = [who_anew(acceptor, context) for _ in range(8)]
                _, *let_in = await asyncio.gather(acceptor.renew(), *knocks)
                assert let_in == [b"nobody"] * 8

    run(story())


def test_changes_that_meet_leave_one_server(run: Run, pki: Pki) -> None:
    """A signal and the watcher at the same time: the last files win, and stopping closes everything."""

    async def story() -> None:
        async with accepting(tls(pki)) as acceptor:
            port = acceptor.address.port
            pki.new_own()
            await asyncio.gather(acceptor.renew(), acceptor.renew(), acceptor.renew())
            async with tls_connected(port, pki.context()) as client:
                assert client.shown == pki.own.der
            acceptor.stop_accepting()
            with pytest.raises(ConnectionRefusedError):
                async with tls_connected(port, pki.context()):
                    pass

    run(story())


@pytest.mark.parametrize("when", ["before", "during"])
def test_a_port_that_was_closed_stays_closed(run: Run, pki: Pki, when: str) -> None:
    """A change of certificates during a drain must not open the door again."""

    async def story() -> None:
        async with accepting(tls(pki)) as acceptor:
            if when == "during":
                renewing = asyncio.ensure_future(acceptor.renew())
                await asyncio.sleep(0)
                acceptor.stop_accepting()
                await renewing
            else:
                acceptor.stop_accepting()
                await acceptor.renew()
            with pytest.raises(ConnectionRefusedError):
                async with connected(acceptor.address.port):
                    pass

    run(story())


def test_a_running_connection_outlives_the_listening_sockets(run: Run, pki: Pki) -> None:
    """Drain: what is open is served to its end."""

    async def story() -> None:
        async with (
            accepting(tls(pki)) as acceptor,
            tls_connected(acceptor.address.port, pki.context()) as client,
        ):
            acceptor.stop_accepting()
            assert await who(client) == b"nobody"

    run(story())


class Gatekeeper:
    """Says yes so many times."""

    def __init__(self, yes: int) -> None:
        self.yes = yes

    def __call__(self) -> bool:
        self.yes -= 1
        return self.yes >= 0


def test_who_comes_after_a_no_waits_and_is_served_when_it_goes_on(run: Run) -> None:
    """Issue 7, 7: accepting pauses without turning anybody away; those who were let in are served meanwhile."""

    async def story() -> None:
        gatekeeper = Gatekeeper(1)
        async with AsyncExitStack() as stack:
            acceptor = await stack.enter_async_context(accepting(None, may_accept=gatekeeper))

            async def client() -> Client:
                return await stack.enter_async_context(connected(acceptor.address.port))

            first = await client()
            assert await who(first) == b"nobody"
            second = await client()  # the last one: it is in when the no comes
            assert await who(second) == b"nobody"
            assert acceptor.is_paused
            waiting = [await client() for _ in range(40)]
            for each in waiting:
                each.send(ASK)
            assert [await who(each) for each in (first, second)] == [b"nobody", b"nobody"]
            gatekeeper.yes = 100
            await acceptor.resume()
            assert [(await each.answer()).body for each in waiting] == [b"nobody"] * 40
            assert (acceptor.is_paused, gatekeeper.yes) == (False, 60)
            gatekeeper.yes = 0
            assert await who(await client()) == b"nobody"
            assert acceptor.is_paused
            await acceptor.resume()
            await acceptor.resume()

    run(story())


def test_a_new_certificate_is_shown_by_whoever_was_paused(run: Run, pki: Pki) -> None:
    """Files change while nobody is accepted: that neither lets anybody in nor is forgotten. Broken ones do not keep it
    from going on with what it had."""

    async def story() -> None:
        gatekeeper = Gatekeeper(0)
        async with accepting(tls(pki), may_accept=gatekeeper) as acceptor:
            port = acceptor.address.port
            async with tls_connected(port, pki.context()) as last:
                assert last.shown == pki.own.der
                assert acceptor.is_paused
                second = pki.new_own()
                await acceptor.renew()
                assert acceptor.is_paused
                pki.key.write_text("broken")
                with pytest.raises(Unusable):
                    await acceptor.renew()
                gatekeeper.yes = 10
                coming = asyncio.ensure_future(shown(port, pki))
                await acceptor.resume()
                assert await coming == second.der
                assert await who(last) == b"nobody"

    run(story())


async def shown(port: int, pki: Pki) -> bytes | None:
    async with tls_connected(port, pki.context()) as client:
        return client.shown


def test_it_can_stop_while_it_is_paused(run: Run) -> None:
    """Drain, with no descriptors left: nobody waits in a queue that nobody will look at."""

    async def story() -> None:
        async with accepting(None, may_accept=Gatekeeper(0)) as acceptor:
            port = acceptor.address.port
            async with connected(port) as client:
                assert await who(client) == b"nobody"
                acceptor.stop_accepting()
                await acceptor.resume()
                with pytest.raises(OSError, match=r"refused|Connect call failed"):
                    await asyncio.open_connection("127.0.0.1", port)

    run(story())


def test_an_address_that_is_taken_is_an_error(run: Run, pki: Pki) -> None:
    """OSError, and no server is left behind."""

    async def story() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            settings = ListenSettings(address=Address(*taken.getsockname()), tls=tls(pki))
            with pytest.raises(OSError, match="in use"):
                await Acceptor(settings, asyncio.Protocol, read_bounded).open()

    run(story())
