"""What stands around one sidecar, and how is it asked? `Stand` starts one; `Around` is what all of them share.

The runner's own calls ("barriers") present Alice's API key: no setup of an identity provider makes them fail, and a
good credential now and then keeps the counter of failed ones from mixing cases up.
"""

import asyncio
import json
import re
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from tests.corpus import client
from tests.corpus.approved import Approved
from tests.corpus.cases import Case, CorpusError
from tests.corpus.client import Connection, Exchange, Sending
from tests.corpus.evidence import Limits
from tests.corpus.fake_server import ALICE, BOB, WHO
from tests.corpus.fake_upstream import FakeUpstream
from tests.corpus.idp import Answer, Idp, KeySet, Setup
from tests.corpus.mint import Mint
from tests.corpus.scripts import Script
from tests.corpus.sidecar import BARRIER_TOOL, Sidecar, configuration, identity, policy

LEGACY = "2025-11-25"
MODERN = "2026-07-28"
_PATIENCE_S = 5.0
_POLL_S = 0.01
_TOKENS = {ALICE: "TOK_ALICE", BOB: "TOK_BOB"}


class Around(Struct, frozen=True, kw_only=True):
    """What every stand of a run shares."""

    argv: Sequence[str]
    broken_argv: Sequence[str]
    """The same sidecar, whose check of tokens raises."""
    folder: Path
    fixture: Mapping[str, Any]
    host: str
    limits: Limits
    mint: Mint
    upstream: FakeUpstream
    idp: Idp
    second: KeySet
    keys_file: Path
    addresses: Iterator[str]
    """Of 127.0.0.0/8, each given once."""
    approved: Approved
    stand: "Callable[[type[Stand], str], Awaitable[Stand]]"
    """The running one of a kind that refuses in a form."""


class Stand:
    """One sidecar before the fake upstream. `form` is how it refuses."""

    runners_key = "KEY_ALICE"
    """Who makes the runner's own calls."""

    def __init__(self, around: Around, name: str, form: str, setup: Setup | None = None) -> None:
        self.around = around
        self.name = name
        self.form = form
        self.setup = setup or Setup()
        self.key_set = None if self.setup.refuses else around.idp.key_set()
        who = identity(
            around.fixture,
            jwks_url=around.idp.refusing_url() if self.key_set is None else self.key_set.url,
            second_jwks_url=around.second.url,
            keys_file=around.keys_file,
            max_stale_s=self.setup.max_stale_s,
        )
        self.settings = configuration(
            around.fixture,
            refusals=form,
            upstream_url=self.upstream_url,
            identity=who,
            policy=self.policy(),
            sections=self.sections(),
        )
        self.sidecar = Sidecar(self.argv(), around.folder, name, self.settings, self.output())
        self.trapped = len(around.idp.trapped)
        """How much lay in the trap before."""
        self._barriers = 0

    def policy(self) -> dict[str, Any]:
        """The section of its settings."""
        return policy(self.around.fixture, is_closed=self.setup.is_closed)

    def sections(self) -> dict[str, Any]:
        """Further sections of its settings."""
        return {}

    def argv(self) -> Sequence[str]:
        """How it is called."""
        return self.around.broken_argv if self.setup.is_broken else self.around.argv

    def output(self) -> Path | None:
        """Where its standard output goes; None: to its log."""
        return None

    @property
    def upstream_url(self) -> str:
        """Where the sidecar finds the fake upstream."""
        return f"http://127.0.0.1:{self.around.upstream.port}/mcp"

    async def start(self) -> None:
        """Start, as the setup wants it. May run beside another stand's case. Raises SidecarError or CorpusError."""
        await self.sidecar.start("/startupz" if self.setup.refuses else "/readyz")
        if self.setup.then is not None and not self.setup.then.hangs:
            await self._change(self.setup.then)

    async def begin(self) -> None:
        """What happens just before the first case: a fetch that hangs does so for a while only, and what every
        client does is recorded upstream. Raises CorpusError."""
        if self.setup.then is not None and self.setup.then.hangs:
            await self._change(self.setup.then)
        if self.setup == Setup():
            await self._list_tools()

    def introduce(self, case: Case) -> None:
        """Give the mint what stands for the caller, where that is not what the corpus says to the letter."""

    def dressed(self, sent: bytes) -> bytes:
        """The request of the case, with what the corpus leaves to the harness."""
        return sent

    async def settle(self, case: Case) -> dict[str, Any]:
        """What happened long before the case, when nothing was odd yet; changes to its Evidence. Raises CorpusError."""
        return {}

    async def lead_in(self, case: Case, script: Script | None) -> None:
        """What its client does right before the request. Raises CorpusError."""

    async def leave(self) -> None:
        """What happens after the case and all that was asked beside it: what it left behind goes."""

    async def _change(self, then: Answer) -> None:
        """Let the key set say something else, and wait until the sidecar has heard it."""
        if self.key_set is not None:
            self.key_set.say(then)
            await self.key_set.asked(self.setup.fetches, answered=not then.hangs)
            await self.barrier()

    async def stop(self, *, politely: bool = True) -> None:
        """End the sidecar."""
        self.sidecar.stop(politely=politely)

    def address(self) -> str:
        """An address nobody came from before: what one case presents is not held against the next."""
        return next(self.around.addresses)

    async def barrier(self) -> bool:
        """An ordinary call goes all the way: what came before it has arrived, and the sidecar serves."""
        marker, document = self._marked()
        arrived = self.around.upstream.expect_barrier(marker)
        try:
            async with asyncio.timeout(_PATIENCE_S):
                exchange = await self.ask(document, {"X-API-Key": self.around.mint.value(self.runners_key)})
        except (TimeoutError, OSError):
            return False
        return arrived.is_set() and bool(exchange.answers) and exchange.answers[0].status == 200

    async def ask(
        self, document: Mapping[str, Any], fields: Mapping[str, str], version: str = LEGACY
    ) -> Exchange:
        """One ordinary request, for example `{"Authorization": "Bearer …"}`."""
        return await self.say(self.request(document, fields, version))

    def as_who(self, who: str) -> dict[str, str]:
        """Headers of Alice's or Bob's, who are known upstream too."""
        return {"Authorization": f"Bearer {self.around.mint.value(_TOKENS[who])}", WHO: who}

    def request(
        self,
        document: Mapping[str, Any],
        fields: Mapping[str, str],
        version: str = LEGACY,
        path: str = "/mcp",
    ) -> bytes:
        """Its bytes."""
        return self.framed(json.dumps(document).encode(), fields, version, path)

    def framed(
        self, body: bytes, fields: Mapping[str, str], version: str = LEGACY, path: str = "/mcp"
    ) -> bytes:
        """Those of a request with this body."""
        head = {
            "Host": self.around.host,
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": version,
            **fields,
            "Content-Length": str(len(body)),
        }
        lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in head.items())]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + body

    async def say(self, data: bytes, port: int | None = None) -> Exchange:
        """Send bytes on a connection of their own and wait for the answer; to another sidecar's port if given."""
        return await client.converse(
            data,
            port or self.sidecar.data_port,
            sending=Sending(kind="whole"),
            limits=self.around.limits,
            raw=False,
            wants_close=False,
        )

    async def listen(self, path: str, fields: Mapping[str, str], wanted: str) -> "Listening":
        """Open a stream with GET and keep it. Raises CorpusError when the `wanted` pattern does not arrive."""
        head = {"Host": self.around.host, "Accept": "text/event-stream", **fields}
        lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in head.items())]
        return await self.hold("\r\n".join(lines).encode() + b"\r\n\r\n", wanted)

    async def hold(self, request: bytes, wanted: str) -> "Listening":
        """Ask, and keep the answer coming. Raises CorpusError when the `wanted` pattern does not arrive."""
        connection = Connection()
        await connection.open(self.sidecar.data_port)
        await connection.send(request)
        listening = Listening(connection)
        try:
            await listening.hear(wanted)
        except BaseException:
            await listening.close()
            raise
        return listening

    def _marked(self) -> tuple[bytes, dict[str, Any]]:
        self._barriers += 1
        marker = f"corpus-barrier-{self.around.mint.nonce}-{id(self)}-{self._barriers}"
        params = {"name": BARRIER_TOOL, "arguments": {}}
        return marker.encode(), {"jsonrpc": "2.0", "id": marker, "method": "tools/call", "params": params}

    async def _list_tools(self) -> None:
        """What every modern client did before it could mirror an argument: the list names the headers."""
        meta = {
            "io.modelcontextprotocol/protocolVersion": MODERN,
            "io.modelcontextprotocol/clientCapabilities": {},
        }
        document = {"jsonrpc": "2.0", "id": "corpus-list", "method": "tools/list", "params": {"_meta": meta}}
        self.around.upstream.begin(None, sends_discover=False)
        for credential in (
            {"Authorization": f"Bearer {self.around.mint.value('TOK_ALICE')}"},
            {"X-API-Key": self.around.mint.value("KEY_ALICE")},
        ):
            exchange = await self.ask(document, {"Mcp-Method": "tools/list", **credential}, MODERN)
            if not exchange.answers or exchange.answers[0].status != 200:
                raise CorpusError("the sidecar passes no list of tools")


class SseStand(Stand):
    """The same in front of HTTP+SSE (2024-11-05): Alice has a stream of her own for the runner's calls."""

    _own: "Listening | None" = None
    _endpoint = ""

    @property
    def upstream_url(self) -> str:
        return f"http://127.0.0.1:{self.around.upstream.port}/sse"

    async def begin(self) -> None:
        self._own, self._endpoint = await self.open_pair({"X-API-Key": self.around.mint.value("KEY_ALICE")})

    async def open_pair(self, fields: Mapping[str, str]) -> tuple["Listening", str]:
        """A stream, and the endpoint for messages that its first event names."""
        listening = await self.listen("/sse", fields, r"data: (/messages\?\S+)")
        return listening, listening.heard

    async def stop(self, *, politely: bool = True) -> None:
        if self._own is not None:
            await self._own.close()
        await super().stop(politely=politely)

    async def barrier(self) -> bool:
        """Her message is taken, and arrives."""
        marker, document = self._marked()
        arrived = self.around.upstream.expect_barrier(marker)
        fields = {"X-API-Key": self.around.mint.value("KEY_ALICE")}
        try:
            async with asyncio.timeout(_PATIENCE_S):
                exchange = await self.say(self.request(document, fields, path=self._endpoint))
        except (TimeoutError, OSError):
            return False
        return arrived.is_set() and bool(exchange.answers) and exchange.answers[0].status == 202


async def until(is_so: Callable[[], bool], patience_s: float = 10.0) -> bool:
    """Look again and again whether something is so in another process; False when the patience ends before."""
    ended = time.monotonic() + patience_s
    while not (found := is_so()) and time.monotonic() < ended:  # noqa: ASYNC110  # no event comes from there
        await asyncio.sleep(_POLL_S)
    return found


class Listening:
    """An open stream. `heard` is what the last wanted pattern's first group found."""

    def __init__(self, connection: Connection) -> None:
        self.heard = ""
        self._connection = connection
        self._collecting = asyncio.get_running_loop().create_task(connection.collect())

    @property
    def received(self) -> bytes:
        """Everything that has arrived."""
        return bytes(self._connection.received)

    async def hear(self, wanted: str) -> str:
        """Wait for a pattern; its first group. Raises CorpusError when the stream ends or 5 s pass before."""
        until = time.monotonic() + _PATIENCE_S
        while True:
            match = re.search(wanted, self.received.decode("latin-1"))
            if match is not None:
                self.heard = match[1]
                return self.heard
            if self._connection.closed or not await self._connection.news(until):
                seen = self.received[:80]
                raise CorpusError(f"the stream said nothing like {wanted}, but {seen!r}")

    async def close(self, *, reset: bool = False) -> None:
        """Leave. The reading ends first: a socket closed under it would confuse whoever gets its number."""
        self._collecting.cancel()
        await asyncio.wait([self._collecting])
        self._connection.close(reset=reset)
