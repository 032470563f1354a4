"""The identity provider around a sidecar: key sets as the corpus' setups want them, and a trap nobody may fetch.

One aiohttp server on 127.0.0.1; every `KeySet` is a URL of its own, so that what is said to one sidecar is heard by no
other. The trap stands for whatever a token or a redirect points at: it answers with the attacker's keys.
"""

import asyncio
import json
import re
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from aiohttp import web
from msgspec import Struct

from tests.corpus.cases import CorpusError
from tests.corpus.keyring import ATTACKER, Keyring
from tests.corpus.scripts import Script, rug_pull

_PATIENCE_S = 10.0
_GRACE_S = 0.1


class Answer(Struct, frozen=True, kw_only=True):
    """What a key set's URL answers."""

    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"
    location: str | None = None
    hangs: bool = False
    """No answer before the server closes."""


class KeySet:
    """One key set. `begun` and `answered` count who asked."""

    def __init__(self, url: str, answer: Answer) -> None:
        self.url = url
        self.begun = 0
        self.answered = 0
        self._answer = answer
        self._news = asyncio.Event()
        self._closing = asyncio.Event()

    def say(self, answer: Answer) -> None:
        """Answer so from now on."""
        self._answer = answer

    async def asked(self, times: int, *, answered: bool = True, patience_s: float = _PATIENCE_S) -> None:
        """Wait until it was asked `times` more, and answered unless that is what never happens.

        Raises CorpusError when that does not come: a sidecar that never asks would make the case say nothing.
        """
        began = self.answered if answered else self.begun
        try:
            async with asyncio.timeout(patience_s):
                while (self.answered if answered else self.begun) < began + times:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise CorpusError("the sidecar did not fetch its keys again") from None

    def close(self) -> None:
        """Let go of whoever still waits."""
        self._closing.set()

    async def serve(self) -> web.StreamResponse:
        """One fetch."""
        answer = self._answer
        self.begun += 1
        self._news.set()
        if answer.hangs:
            await self._closing.wait()
        headers = {"Location": answer.location} if answer.location is not None else {}
        self.answered += 1
        self._news.set()
        return web.Response(
            status=answer.status, body=answer.body, content_type=answer.content_type, headers=headers
        )


class Idp:
    """Serves key sets, and sets the trap. `trapped` are the first lines of requests that fell into it."""

    def __init__(self, keys: Keyring) -> None:
        self.trapped: list[str] = []
        self.trap_port = 0
        self._keys = keys
        self._sets: dict[str, KeySet] = {}
        self._port = 0
        self._runner: web.AppRunner | None = None
        self._trap: asyncio.Server | None = None
        self._closed_door = socket.socket()

    async def start(self) -> None:
        """Listen. The port that refuses is bound and never listened on, so nobody else can take it."""
        application = web.Application()
        application.router.add_get("/{name}/jwks", self._serve)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=_GRACE_S)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self._port = int(self._runner.addresses[0][1])
        self._trap = await asyncio.start_server(self._fall, "127.0.0.1", 0)
        self.trap_port = self._trap.sockets[0].getsockname()[1]
        self._closed_door.bind(("127.0.0.1", 0))

    async def stop(self) -> None:
        """Close both servers."""
        for each in self._sets.values():
            each.close()
        self._closed_door.close()
        if self._trap is not None:
            self._trap.close()
            await self._trap.wait_closed()
        if self._runner is not None:
            await self._runner.cleanup()

    def key_set(self, answer: Answer | None = None) -> KeySet:
        """A URL nobody else asks; by default it answers with the fixture's keys."""
        name = f"set{len(self._sets) + 1}"
        url = f"http://127.0.0.1:{self._port}/{name}/jwks"
        made = self._sets[name] = KeySet(url, answer or keys(self.published()))
        return made

    def refusing_url(self) -> str:
        """Where connections are refused."""
        return f"http://127.0.0.1:{self._closed_door.getsockname()[1]}/jwks"

    def published(self, **changes: Any) -> dict[str, dict[str, Any]]:
        """The fixture's keys by kid: k1, kec, kps; `changes` are further members of k1."""
        return {
            "k1": self._keys.rsa_jwk("k1", **changes),
            "kec": self._keys.ec_jwk("kec"),
            "kps": self._keys.rsa_jwk("kps", alg="PS256"),
        }

    def second(self) -> Answer:
        """The key set of the second trusted issuer: another key under the kid k1."""
        return keys({"k1": self._keys.rsa_jwk("idp2", kid="k1")})

    def jwk(self, name: str, kid: str) -> dict[str, Any]:
        """Some RSA key under a kid."""
        return self._keys.rsa_jwk(name, kid=kid)

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        found = self._sets.get(request.match_info["name"])
        if found is None:
            raise web.HTTPNotFound
        return await found.serve()

    async def _fall(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # The connection alone is a fetch; whoever asks further gets what would let the attacker in.
        self.trapped.append("a connection")
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            head = await reader.readuntil(b"\r\n")
            self.trapped.append(head.decode("latin-1").strip())
            attackers = {kid: self.jwk(ATTACKER, kid) for kid in ("ka", "k1")}
            body = keys(attackers).body
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n")
            writer.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        writer.close()


def keys(by_kid: Mapping[str, Mapping[str, Any]] | Sequence[Mapping[str, Any]]) -> Answer:
    """A key set that answers as it should."""
    listed = list(by_kid.values()) if isinstance(by_kid, Mapping) else list(by_kid)
    return Answer(body=json.dumps({"keys": listed}).encode())


class Setup(Struct, frozen=True, kw_only=True):
    """What a case's `setup` wants of the provider and of the sidecar, which runs with good keys before."""

    refuses: bool = False
    """Nobody answers at the key set's URL: the sidecar runs without having been ready."""
    then: Answer | None = None
    """What it says once the sidecar has good keys."""
    fetches: int = 0
    """How often it must have been asked since, before the case runs."""
    max_stale_s: float | None = None
    is_broken: bool = False
    """The sidecar's own check of tokens raises."""
    is_closed: bool = False
    """The sidecar's rules allow no tool to anybody."""
    rug_pull: Script | None = None
    """What upstream lists once the tools were approved and one of them was called."""


def setup_of(sentence: str, idp: Idp) -> Setup | None:
    """The setup a sentence names, None for one nobody taught this module."""
    good = idp.published()
    if match := re.fullmatch(r"jwks: adds (\{.*\})", sentence):
        return Setup(then=keys([*good.values(), json.loads(match[1])]), fetches=1)
    match sentence:
        case "jwks: refuse connections, proxy restarted":
            return Setup(refuses=True)
        case "jwks: 500 from now on":
            return Setup(then=Answer(status=500, body=b"{}"), fetches=1)
        case "jwks: delay 30 s":
            return Setup(then=Answer(hangs=True), fetches=1)
        case "jwks: 302":
            # The trap stands in for 169.254.169.254, which nobody here may be sent to.
            where = f"http://127.0.0.1:{idp.trap_port}/latest/meta-data/"
            return Setup(then=Answer(status=302, location=where), fetches=1)
        case "jwks: k1 has use=enc":
            return Setup(then=keys(idp.published(use="enc")), fetches=1)
        case "jwks: kid k1 twice":
            return Setup(then=keys([*good.values(), idp.jwk(ATTACKER, "k1")]), fetches=1)
        case "jwks: <html>":
            page = Answer(body=b"<html><body>Sign in</body></html>", content_type="text/html")
            return Setup(then=page, fetches=1)
        case "jwks: k2 replaces k1, token signed with k2":
            others = [good["kec"], good["kps"]]
            return Setup(then=keys([idp.jwk("k2", "k2"), *others]), fetches=1)
        case "jwks: k1 removed, token signed with k1 after max-stale":
            # Two fetches, a second apart, are as long as the keys may be stale.
            return Setup(then=keys([good["kec"], good["kps"]]), fetches=2, max_stale_s=2.0)
        case "fault: authenticator raises RuntimeError":
            return Setup(is_broken=True)
        case "config: tools.allow: []":
            return Setup(is_closed=True)
    pulled = rug_pull(sentence)
    return None if pulled is None else Setup(rug_pull=pulled)
