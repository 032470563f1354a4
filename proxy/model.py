"""The words of the house: the values that travel from room to room.

A `Call` is read once and never changed. It meets a `Principal` (who), becomes a `Permit` (may), and comes back
as a `Reply` (what), which tells everybody who asked how it ended. A no is a `Refused` with a `Reason`.
Pure values and the one owner of a stream's closing; no IO, no clock.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Iterable,
    KeysView,
    Mapping,
    Sequence,
)
from enum import Enum, StrEnum
from typing import Any, Final, Literal, Protocol, TypeAlias, TypeVar

from msgspec import Struct, structs

RequestId: TypeAlias = int | str
"""A JSON-RPC id as MCP allows it: an integer or a string, never null. 1 and "1" are two ids."""


IdKey: TypeAlias = tuple[type, RequestId]


def id_key(id: RequestId) -> IdKey:
    """The id as a key of a table, with its type: to Python 1, 1.0 and True are one key."""
    return type(id), id


_NO_NOTES: Final[Mapping[object, Any]] = {}


class Headers:
    """Header fields in the order of the wire, several of one name allowed.

    A folded mapping would hide duplicates, and with them the difference between the first and the last copy.
    Look-ups take lower-case names; the bytes of names and values stay as they came.
    """

    __slots__ = ("_first", "_repeated", "notes", "pairs")

    def __init__(self, pairs: Iterable[tuple[bytes, bytes]] = ()) -> None:
        self.pairs = tuple(pairs)
        self.notes: Mapping[object, Any] = _NO_NOTES
        """What rooms have found out from these fields and their settings alone, each under a key of its own: a client
        says the same head before each call, and then these are the same `Headers`, or differ in Content-Length alone,
        of which no note may say anything. A key that outlives a reload is for what no setting changes."""
        self._first: dict[str, str] | None = None
        self._repeated: dict[str, list[str]] = {}

    def _by_name(self) -> dict[str, str]:
        first = self._first = {}
        for field, value in self.pairs:
            name = field.decode("latin-1").lower()
            text = value.decode("utf-8", "surrogateescape")
            if name in first:
                self._repeated.setdefault(name, [first[name]]).append(text)
            else:
                first[name] = text
        return first

    def note(self, key: object, found: object) -> None:
        """Put it into `notes`."""
        self.notes = {**self.notes, key: found}

    def of_length(self, at: int, digits: bytes) -> Headers:
        """The same, notes included, but for the value of Content-Length, which is the field at that place and comes
        once."""
        name = self.pairs[at][0]
        twin = Headers((*self.pairs[:at], (name, digits), *self.pairs[at + 1 :]))
        twin.notes = self.notes
        if self._first is not None:
            twin._first = {**self._first, "content-length": digits.decode()}
            twin._repeated = self._repeated
        return twin

    def forget_index(self) -> None:
        """Give back what look-ups built, and what was noted; the next one builds it again."""
        self._first = None
        self._repeated = {}
        self.notes = _NO_NOTES

    def get(self, name: str) -> str | None:
        """The first value of `name` (lower case), or None."""
        return (self._first or self._by_name()).get(name)

    def all(self, name: str) -> Sequence[str]:
        """Every value of `name` (lower case), in order."""
        first = (self._first or self._by_name()).get(name)
        if first is None:
            return ()
        return self._repeated.get(name) or [first]

    def names(self) -> KeysView[str]:
        """Lower-case names, each once."""
        return (self._first or self._by_name()).keys()

    def repeated(self) -> Collection[str]:
        """The lower-case names that come more than once."""
        if self._first is None:
            self._by_name()
        return self._repeated

    def __contains__(self, name: str) -> bool:
        return name in (self._first or self._by_name())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Headers) and self.pairs == other.pairs

    __hash__ = None  # type: ignore[assignment]  # a mutable index inside: not a key

    def __repr__(self) -> str:
        # Names only: values may be credentials.
        return f"Headers({', '.join(name.decode('latin-1') for name, _ in self.pairs)})"


_NO_HEADERS: Final = Headers()


class Era(Enum):
    """The two families of revisions: with a handshake, or with the version in every request."""

    LEGACY = "legacy"
    MODERN = "modern"


class Revision(Struct, frozen=True, kw_only=True):
    """One MCP protocol revision as a set of capabilities; ask for these, never compare names."""

    name: str
    era: Era
    has_sessions: bool
    """`Mcp-Session-Id` means something."""
    has_get_stream: bool
    """GET opens a stream of server messages; DELETE ends the session."""
    allows_batch: bool
    """A body may be a JSON array of messages."""
    mirrors_headers: bool
    """`Mcp-Method`, `Mcp-Name` and `Mcp-Param-*` repeat the body and must agree with it."""
    is_resumable: bool
    """A broken stream can be picked up with `Last-Event-ID`."""
    answers_elsewhere: bool
    """Answers arrive on the GET stream, not on the POST that asked (HTTP+SSE)."""
    disconnect_cancels: bool
    """A client that leaves has cancelled its request."""
    has_result_type: bool
    """Every result carries `resultType`."""
    link: str
    """The page of the specification these facts come from."""

    @property
    def is_modern(self) -> bool:
        return self.era is Era.MODERN


class Kind(Enum):
    """What the client wants of the wire."""

    REQUEST = "request"
    NOTIFICATION = "notification"
    ANSWER = "answer"
    """The client's response to a request of the server (legacy)."""
    BATCH = "batch"
    """Several messages in one body; `Call.parts` holds them."""
    LISTEN = "listen"
    """GET: a stream of whatever the server has to say."""
    END = "end"
    """DELETE: the session is over."""


# Until Python 3.12 a member is looked up by a function of the metaclass: 0.2 µs, as much as a call.
_REQUEST: Final = Kind.REQUEST
_LISTEN: Final = Kind.LISTEN


class Reason(StrEnum):
    """Why not. Each has one row in `refusals.py`."""

    MALFORMED = "malformed"
    HEADER_MISMATCH = "header_mismatch"
    VERSION_UNSUPPORTED = "version_unsupported"
    NO_CREDENTIAL = "no_credential"
    BAD_CREDENTIAL = "bad_credential"
    SCOPE_MISSING = "scope_missing"
    NOT_ALLOWED = "not_allowed"
    NOT_VISIBLE = "not_visible"
    APPROVAL_REQUIRED = "approval_required"
    ARGUMENT_INVALID = "argument_invalid"
    RATE_LIMITED = "rate_limited"
    QUOTA_SPENT = "quota_spent"
    OVERLOADED = "overloaded"
    BREAKER_OPEN = "breaker_open"
    QUARANTINED = "quarantined"
    MODE = "mode"
    IDP_UNAVAILABLE = "idp_unavailable"
    UPSTREAM_UNREACHABLE = "upstream_unreachable"
    UPSTREAM_BROKE = "upstream_broke"
    UPSTREAM_NONSENSE = "upstream_nonsense"
    OUTCOME_UNKNOWN = "outcome_unknown"
    DEADLINE = "deadline"
    DRAINING = "draining"
    INTERNAL = "internal"
    # What HTTP itself says no to.
    ORIGIN_NOT_ALLOWED = "origin_not_allowed"
    HOST_NOT_ALLOWED = "host_not_allowed"
    PATH_UNKNOWN = "path_unknown"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    MEDIA_TYPE = "media_type"
    EXPECTATION_FAILED = "expectation_failed"
    TOO_LARGE = "too_large"
    TOO_SLOW = "too_slow"
    SESSION_UNKNOWN = "session_unknown"
    TASK_UNKNOWN = "task_unknown"
    TOO_MANY_FAILURES = "too_many_failures"
    AUDIT_UNAVAILABLE = "audit_unavailable"


class Refused(Exception):
    """The one exception for a no; only the hall and the listener catch it.

    `why` reaches the client and perhaps a model: a fixed text that names the thing, the limit and the remedy,
    never a credential, an argument or a body. `code` overrides the row's JSON-RPC code, `data` adds to its
    machine-readable part, `headers` are set on the HTTP answer, `id` is the request's id where it was read.
    `scopes` are those a challenge asks for: what the operation needs, and what of it was granted already.
    """

    def __init__(
        self,
        reason: Reason,
        why: str = "",
        *,
        code: int | None = None,
        status: int | None = None,
        data: Mapping[str, object] | None = None,
        headers: Sequence[tuple[bytes, bytes]] = (),
        id: RequestId | None = None,
        retry_after_s: float | None = None,
        scopes: Sequence[str] = (),
    ) -> None:
        super().__init__(reason, why)
        self.reason = reason
        self.why = why
        self.code = code
        self.status = status
        self.data = data or {}
        self.headers = tuple(headers)
        self.id = id
        self.retry_after_s = retry_after_s
        self.scopes = tuple(scopes)


class Broken(Exception):
    """A stream stopped short. `told`: the client has been sent a last word, so the body may end properly;
    otherwise it is cut off, as the server cut it off."""

    def __init__(self, *, told: bool) -> None:
        super().__init__(told)
        self.told = told


class FirstHeld:
    """What was held back of a stream, which is given up here, and then the rest of it; or how it broke meanwhile."""

    __slots__ = ("_broken", "_held", "_rest")

    def __init__(
        self, held: Iterable[bytes], rest: AsyncIterator[bytes], broken: Broken | None = None
    ) -> None:
        self._held = deque(held)
        self._rest = rest
        self._broken = broken

    def __aiter__(self) -> FirstHeld:
        return self

    async def __anext__(self) -> bytes:
        if self._held:
            return self._held.popleft()
        if self._broken is not None:
            raise self._broken
        return await anext(self._rest)


class Ending(Enum):
    """How a reply stopped."""

    COMPLETE = "complete"
    CLIENT_GONE = "client_gone"
    UPSTREAM_BROKE = "upstream_broke"
    PROXY_FAILED = "proxy_failed"

    @staticmethod
    def of(error: BaseException) -> Ending:
        """The ending an exception stands for: cancelled means that the client left."""
        import asyncio  # whoever runs a call has it; whoever checks settings must not pay for it

        if isinstance(error, asyncio.CancelledError | ConnectionError | GeneratorExit):
            return Ending.CLIENT_GONE
        if isinstance(error, Broken):
            return Ending.UPSTREAM_BROKE
        if isinstance(error, Refused):
            # The server's fault only where the reason says so; a full table of ours is not an outage.
            return Ending.UPSTREAM_BROKE if error.reason in UPSTREAM_FAULTS else Ending.PROXY_FAILED
        return Ending.PROXY_FAILED


_COMPLETE: Final = Ending.COMPLETE
UPSTREAM_FAULTS: Final = frozenset(
    {
        Reason.UPSTREAM_UNREACHABLE,
        Reason.UPSTREAM_BROKE,
        Reason.UPSTREAM_NONSENSE,
        Reason.OUTCOME_UNKNOWN,
    }
)
TIMEOUT_HEADER: Final = "mcp-sidecar-timeout-ms"
TIMEOUT_META_KEY: Final = "dev.mcp-sidecar/timeout-ms"
"""Where a caller says how long it will wait, in milliseconds: from when the call was received. The shorter counts."""
OWN_WISH: Final = "resilience.client_may_shorten"
"""`limit` in the data of a refusal whose deadline was the caller's wish: a caller in a hurry must not look like a
server that fails, or one of them could spoil it for all."""


class Verdict(StrEnum):
    """What the server's answer said, as far as the envelope tells."""

    OK = "ok"
    TOOL_ERROR = "tool_error"
    RPC_ERROR = "rpc_error"
    UPSTREAM_ERROR = "upstream_error"
    """An HTTP error of its own, without a word of JSON-RPC."""


class Outcome(Enum):
    """What became of a call at the server; limits settle by it."""

    NOT_REACHED = "not reached"
    """The server never heard of it: refused here, or the connection could not be made."""
    ATTEMPTED = "attempted"
    """It was sent, and no answer has come."""
    ANSWERED = "answered"
    UNKNOWN = "unknown"
    """It was sent, and nobody will know."""


class Cached(Enum):
    """Where an answer came from that may be kept."""

    MISS = "miss"
    """From the server."""
    HIT = "hit"
    STALE = "stale"
    """It was kept, and is older than it should be."""
    JOINED = "joined"
    """From the server, to somebody who asked the same at the same time."""


class Attempt(Protocol):
    """One try of a call at the server, as its journey records it."""

    @property
    def carries(self) -> Sequence[tuple[bytes, bytes]]:
        """Header fields by which the server knows where the attempt belongs; they replace what the caller sent under
        these names (in lower case); without a value they only take it out."""
        ...

    def unreached(self) -> None:
        """It never left."""
        ...

    def answered(self, status: int) -> None:
        """The head of its answer came."""
        ...

    def ended(self, refused: Refused | None = None) -> None:
        """Nothing more comes of it; `refused` is why it failed. Later words are not heard."""
        ...


class Journey(Protocol):
    """The record of one call: every room tells it what happened, sinks hear of it once, at the end."""

    request_id: str

    @property
    def outcome_at_server(self) -> Outcome: ...

    def named(self, client_request_id: str) -> None:
        """Its client knows it by an id of its own."""
        ...

    def read(self, call: Call) -> None: ...
    def identified(self, principal: Principal) -> None: ...
    def permitted(self, permit: Permit) -> None: ...
    def denied(self, rule: Rule) -> None:
        """By which rule policy says no."""
        ...

    def waited(self, seconds: float) -> None:
        """It stood in the queue for a place at the server, and its turn has come, or never will."""
        ...

    def attempted(self) -> Attempt:
        """It is about to be sent."""
        ...

    def answered(self, verdict: Verdict, code: int | None = None) -> None:
        """What its answer was; `code` is that of a JSON-RPC error, where it is known."""
        ...

    def altered(self, what: str) -> None: ...
    def cached(self, how: Cached) -> None:
        """Where its answer came from, where answers are kept."""
        ...

    def would_refuse(self, rule: Rule, reason: Reason) -> None: ...
    def refused(self, refused: Refused) -> None: ...
    def ended(self, ending: Ending) -> None: ...
    def forget_payload(self) -> None: ...
    def known_as(self, approval: str = "", idempotency_key: str = "") -> None:
        """By what else the call can be found: the id of the approval it spends, the key the server knows it by."""
        ...

    def sibling(self) -> Journey: ...


class Peer(Struct, frozen=True):
    """The other end of a client's connection."""

    address: str = ""
    """Its IP address, without port."""
    certificate: bytes | None = None
    """The client certificate (DER) that TLS has verified."""


NOBODY: Final = Peer()


class Call(Struct, frozen=True, kw_only=True, eq=False):
    """One message from the client, read once and never changed."""

    revision: Revision
    kind: Kind
    id: RequestId | None = None
    method: str = ""
    """The JSON-RPC method, "tools/call"; empty where the wire has none (answers, batches, GET, DELETE)."""
    target: str | None = None
    """Tool name, prompt name or resource URI the method names."""
    params: Mapping[str, object] = {}
    headers: Headers
    body: bytes = b""
    """Exactly what was inspected, exactly what will be forwarded."""
    query: str = ""
    """Raw query of the request target, without the question mark."""
    session: str | None = None
    """The `Mcp-Session-Id` or the message endpoint the client named: a claim, bound by the identity room."""
    last_event_id: str | None = None
    parts: tuple[Call, ...] = ()
    """The messages of a batch, each with its own bytes and its own journey."""
    received: float
    """Seconds, monotonic, stamped by the listener."""
    peer: Peer = NOBODY
    journey: Journey

    @property
    def arguments(self) -> Mapping[str, object]:
        """`params.arguments`, or nothing."""
        value = self.params.get("arguments")
        return value if isinstance(value, dict) else {}

    def without_payload(self) -> Call:
        """What there is to say of the call when it has been forwarded, without what it said itself."""
        return structs.replace(self, params={}, headers=_NO_HEADERS, body=b"")

    @property
    def was_sent(self) -> bool:
        """Whether the server may have heard of it, or of a part of it, by any attempt."""
        return any(
            each.journey.outcome_at_server is not Outcome.NOT_REACHED for each in self.parts or (self,)
        )

    @property
    def is_open_ended(self) -> bool:
        """Whether its stream ends only when somebody leaves."""
        return self.kind is _LISTEN or self.method == "subscriptions/listen"

    @property
    def wants_answer(self) -> bool:
        return self.kind is _REQUEST or any(part.kind is _REQUEST for part in self.parts)


Identity: TypeAlias = tuple[str, str, str]
"""Issuer, subject and tenant: what stays the same when a credential is renewed."""


class Principal(Struct, frozen=True, kw_only=True):
    """Who calls, proven."""

    issuer: str
    subject: str
    tenant: str
    roles: frozenset[str] = frozenset()
    scopes: frozenset[str] = frozenset()
    client: str = ""
    """The application that acts for the subject, where the credential names one."""
    fingerprint: str = ""
    """Names the credential without being it."""
    valid_until: float = math.inf
    """When the proof ends: seconds, monotonic."""

    @property
    def identity(self) -> Identity:
        return self.issuer, self.subject, self.tenant


class Keep(Struct, frozen=True, kw_only=True):
    """What a rule says of keeping answers."""

    ttl_s: float
    stale_while_revalidate_s: float = 0
    stale_if_error_s: float = 0
    share: Literal["caller", "tenant", "all"] = "caller"
    ignore: tuple[str, ...] = ()
    """Names of arguments that do not count."""
    only: tuple[str, ...] | None = None
    """Names of the only ones that count; None: all."""
    negative_ttl_s: float = 0
    """How long a JSON-RPC error that says not found is kept."""
    any_session: bool = False
    """The session of older revisions does not count."""


class Rule(Struct, frozen=True, kw_only=True):
    """What policy says of a call; made from the settings."""

    id: str
    tool_class: str = "dangerous"
    approval: Literal["auto", "gated", "denied"] = "auto"
    """Whether a person has to agree to each call."""
    is_reported: bool = False
    """What it would refuse is recorded and passes."""
    cost: int = 1
    """What a call takes from limits."""
    instead: str = ""
    """What to do where a limit refuses: told to the model."""
    idempotent: bool = False
    """To do it twice is as good as once, says the operator."""
    timeout_s: float | None = None
    """How long the whole call may take; None: as for all."""
    idempotency_key: bool = False
    """Every attempt carries one key, by which the server knows it again."""
    hedge_after_s: float | None = None
    """When a second attempt may be sent beside the first; never set for a tool that does more than read."""
    reinitialise: bool = False
    """A session that the server has lost may be begun anew for its calls."""
    keep: Keep | None = None
    """How long an answer may be kept; never set for a tool that does more than read."""
    forget: tuple[str, ...] = ()
    """Patterns of the tools whose kept answers are no longer good after a call."""


class Permit(Struct, frozen=True, kw_only=True, eq=False):
    """A call that was allowed, with the rule that allowed it. Made in `policy/` only."""

    call: Call
    principal: Principal
    rule: Rule


class Lease(Protocol):
    """A held place in a limit, given back on every exit path."""

    def release(self, ending: Ending) -> None: ...


class Identify(Protocol):
    def __call__(self, call: Call) -> Principal | Awaitable[Principal]:
        """At once where the caller is known: a coroutine less for each call. Raises Refused, at once or when it is
        awaited."""
        ...


Who: TypeAlias = Callable[[Headers, Peer], Awaitable[Principal]]
"""Who sent this, whatever it says. Raises Refused."""


class Authorise(Protocol):
    def __call__(self, call: Call, principal: Principal) -> Permit: ...


class Limit(Protocol):
    def __call__(self, permit: Permit) -> Lease | Awaitable[Lease | None] | None:
        """None where nothing comes back. At once where nobody else is asked. Raises Refused, at once or when it is
        awaited."""
        ...

    async def denied(self, call: Call, principal: Principal) -> None:
        """A message that policy refuses counts too, where everything counts. Raises Refused."""
        ...


class Stage(Protocol):
    """Anything that can serve a permitted call; a stage holds the next one. One that has nothing to do when the reply
    comes returns what the next one returned: a coroutine less for each call."""

    def __call__(self, permit: Permit) -> Awaitable[Reply]:
        """Raises Refused, at once or when it is awaited. Awaited once."""
        ...


Deadline: TypeAlias = Callable[[Permit], float]
"""When a call is over whatever happens: seconds, monotonic; infinite where it has no end."""


def never_ends(_: Permit) -> float:
    """No deadline."""
    return math.inf


class Ear(Protocol):
    """Listens to one exchange with the server: what will its caller own, and what may it not see of an event?"""

    def event_id(self, id: bytes) -> None:
        """An event had this id, and the caller can come back to it."""
        ...

    def request(self, id: RequestId, method: str, params: object) -> None:
        """The server asks something under this id, and the caller may answer. Raises Refused. `params` is an empty
        object where the message was too large to be read whole."""
        ...

    def notification(self, method: str, params: object) -> None:
        """The server tells something; `params` as above."""
        ...

    def result(self, method: str | None, result: object) -> None:
        """The result of a request; `method` is None where another exchange carried that. Raises Refused."""
        ...

    def passed_on(self, data: bytes) -> bytes:
        """What the caller gets of the data of an event that was just heard: nearly always `data` itself. Raises
        Refused."""
        ...

    def ended(self, ending: Ending) -> None:
        """The exchange is over."""
        ...


Listen: TypeAlias = Callable[[Permit, str | None], Ear | None]
"""An ear for the exchange of a permit, which hands out the session or message endpoint named, if any; None where
nothing of that exchange matters. Raises Refused when what it hands out was somebody else's before."""

Tell: TypeAlias = Callable[[Ending], None]


def _nobody_waits() -> bool:
    return False


class Stream:
    """Bytes still arriving, who may look at them, and how to close their source.

    The object owns `close`: a generator that was never started never runs its `finally`, and clients do leave
    before the first byte. `close` is called exactly once.
    """

    __slots__ = ("_chunks", "_close", "_early", "_is_ending", "_taps", "_write", "awaited")

    def __init__(self, chunks: AsyncIterator[bytes], close: Callable[[], None]) -> None:
        self._chunks = chunks
        self._close: Callable[[], None] | None = close
        self._taps: tuple[Callable[[bytes], None], ...] = ()
        self._write: Callable[[bytes], None] | None = None
        self._early = b""
        self._is_ending = False
        self.awaited: Callable[[], bool] = _nobody_waits
        """Whether answers to other requests are still to come on this stream."""

    def tap(self, see: Callable[[bytes], None]) -> None:
        """Let `see` look at every chunk: synchronous, must not keep the chunk, must not raise."""
        self._taps = (*self._taps, see)

    def written_by(self, write: Callable[[bytes], None]) -> None:
        """The writer introduces itself; what was interjected before it came goes out first."""
        self._write = write
        early, self._early = self._early, b""
        if early:
            write(early)

    def interject(self, chunk: bytes) -> None:
        """Put whole events of our own between those of the server, at once."""
        if self._write is None:
            self._early += chunk
        else:
            self._write(chunk)

    @property
    def is_ending(self) -> bool:
        """It stops because we want it to."""
        return self._is_ending

    def end(self) -> None:
        """Close the source as soon as nobody awaits anything of it."""
        self._is_ending = True
        self.settled()

    def settled(self) -> None:
        """Something that was awaited has come."""
        if self._is_ending and not self.awaited():
            self.close()

    def close(self) -> None:
        close, self._close = self._close, None
        self._write = None
        if close is not None:
            close()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return _Seen(self, aiter(self._chunks))


class _Seen:
    """What arrives on a stream, once everybody has looked at it."""

    __slots__ = ("_chunks", "_stream")

    def __init__(self, stream: Stream, chunks: AsyncIterator[bytes]) -> None:
        self._stream = stream
        self._chunks = chunks

    def __aiter__(self) -> _Seen:
        return self

    async def __anext__(self) -> bytes:
        chunk = await anext(self._chunks)
        for see in self._stream._taps:
            see(chunk)
        return chunk


class Reply:
    """What goes back: a whole body or a stream, and whom to tell, once, how it ended.

    Told last-added first, so that what was opened last closes first. Whoever gets a Reply must either write it
    inside `async with reply`, or call `done`.
    """

    __slots__ = ("_ending", "_tellers", "body", "headers", "status")

    def __init__(self, status: int, headers: Headers, body: bytes | Stream = b"") -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self._tellers: list[Tell] = []
        self._ending: Ending | None = None

    def when_done(self, tell: Tell) -> None:
        """Be told how the reply ended; at once when it already has."""
        if self._ending is not None:
            tell(self._ending)
        else:
            self._tellers.append(tell)

    def done(self, ending: Ending) -> None:
        """Close the source and tell everybody, exactly once, whatever one of them raises."""
        if self._ending is not None:
            return
        self._ending = ending
        failure: Exception | None = None
        if isinstance(self.body, Stream):
            try:
                self.body.close()
            except Exception as error:
                failure = error
        tellers = self._tellers
        while tellers:
            try:
                tellers.pop()(ending)
            except Exception as error:  # one that fails must not silence the others
                failure = failure or error
        if failure is not None:
            raise failure

    async def __aenter__(self) -> Reply:
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.done(_COMPLETE if error is None else Ending.of(error))


class PageRequest(Struct, frozen=True, kw_only=True, eq=False):
    """A request for something on the data port that is not MCP."""

    method: str
    path: str
    query: str = ""
    headers: Headers
    body: bytes = b""


class Page(Struct, frozen=True, kw_only=True):
    """What is served without a credential beside MCP: documents that say how to get one."""

    methods: frozenset[str]
    answer: Callable[[PageRequest], Awaitable[Reply]]
    """Raises Refused."""


FindPage: TypeAlias = Callable[[str], Page | None]
"""The page at an exact path, or None."""


class Lever(Protocol):
    """Hears what an operator did at run time."""

    def __call__(self, what: str, **fields: object) -> None: ...


def nobody_hears(what: str, **fields: object) -> None:
    """A `Lever` for whoever records nothing."""


Job: TypeAlias = Callable[[], Awaitable[None]]
"""What runs beside the calls, until it is cancelled."""

Changed: TypeAlias = Callable[[], Awaitable[None] | None]
"""Called in the event loop; what takes its time may return an awaitable, which is awaited."""

Watches: TypeAlias = Callable[[tuple[str, ...], Changed], None]
"""Paths, and what to do when a file among them has changed."""

Took: TypeAlias = Callable[[str, float], None]
"""Hears who was asked, a word of a closed set, and how many seconds that took, whatever became of it."""


def nobody_counts(_: str, __: float) -> None:
    """A `Took` for whoever counts nothing."""


Thing = TypeVar("Thing")


class Shelve(Protocol):
    """Gives what outlives a reload of the settings."""

    def __call__(self, name: str, made_of: object, make: Callable[[], Thing]) -> Thing:
        """The thing of this name that there is, where it is made of the same; else a new one."""
        ...


def shelve_nothing(name: str, made_of: object, make: Callable[[], Thing]) -> Thing:
    """A `Shelve` for whoever is never reloaded."""
    return make()
