"""What makes a kept answer untrue? What the server tells, what it refuses to know, and calls that write.

In: exchanges as they pass, and permitted calls. Out: words to the store. Keeps the hash of each tool's definition as it
was seen last, bounded: answers of a tool that has changed are found no more.
Source: server/tools, server/prompts, server/resources (notifications); protocol facts of -32020, -32601 and -32602.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from typing import Any, Final, TypeAlias

from ..model import (
    Call,
    Ear,
    Ending,
    Permit,
    Principal,
    Reply,
    RequestId,
    Rule,
    Stage,
    Stream,
)
from ..protocol.canonical import canonical
from .store import Forget, Store

MAX_TOOLS: Final = 10_000
"""Tools whose definition is remembered, of all callers together."""

TOLD: Final[Mapping[str, tuple[str, ...]]] = {
    "notifications/tools/list_changed": ("tools/list",),
    "notifications/prompts/list_changed": ("prompts/list", "prompts/get"),
    "notifications/resources/list_changed": ("resources/list", "resources/templates/list"),
}
"""Notifications, and the methods whose answers they make untrue."""
UPDATED: Final = "notifications/resources/updated"
_UNKNOWN: Final = (b"-32020", b"-32601", b"-32602")
"""Codes with which a server says that it does not have what a list promised, or not so."""

RuleOf: TypeAlias = Callable[[Call, Principal], Rule]


class Definitions(OrderedDict[str, str]):
    """The hash of each tool's definition, by its name, in the order of the last sight."""


class Forgetting:
    """Its `listen` fulfils `Listen`, its `guarded` makes a `Stage`."""

    def __init__(self, store: Store, rule_of: RuleOf, definitions: Definitions | None = None) -> None:
        """`rule_of` names the rule of one message of a batch, `definitions` are those that were seen before."""
        self._store = store
        self._rule_of = rule_of
        self._definitions = Definitions() if definitions is None else definitions
        self._under_way: set[asyncio.Task[None]] = set()
        self._is_retold = False

    def definition(self, permit: Permit) -> str:
        """The hash of the tool's definition as anybody was told it last; "" where nobody was, and for other methods."""
        call = permit.call
        return self._definitions.get(call.target or "", "") if call.method == "tools/call" else ""

    def listen(self, permit: Permit, handed_out: str | None) -> Ear | None:
        """An ear for every exchange: any stream may say that something has changed."""
        return _Listener(self)

    def guarded(self, serve: Stage) -> Stage:
        """The stage behind what forgets after writes."""
        return _Guarded(serve, self)

    @contextmanager
    def retelling(self) -> Iterator[None]:
        """Lists that are heard meanwhile come from what is kept: others have seen newer ones since, perhaps."""
        self._is_retold = True
        try:
            yield
        finally:
            self._is_retold = False

    def told(self, method: str, params: object) -> None:
        """The server has told something."""
        methods = TOLD.get(method)
        if methods is not None:
            self.soon(Forget(None, methods))
        elif method == UPDATED:
            uri = params.get("uri") if isinstance(params, dict) else None
            # A star or a question mark in it stands for more, and then more is forgotten.
            targets = (uri,) if isinstance(uri, str) else ()
            self.soon(Forget(None, ("resources/read",), targets))

    def listed(self, tools: list[object]) -> None:
        """A list of tools has passed. Answers of those that are not what they were are found no more."""
        for tool in tools:
            name = tool.get("name") if isinstance(tool, dict) else None
            if not isinstance(name, str) or (self._is_retold and name in self._definitions):
                continue
            try:
                self._definitions[name] = sha256(canonical(tool)).hexdigest()
            except (ValueError, TypeError, RecursionError):
                self._definitions.pop(name, None)
                continue
            self._definitions.move_to_end(name)
            if len(self._definitions) > MAX_TOOLS:
                self._definitions.popitem(last=False)

    def after(self, permit: Permit) -> tuple[Forget, ...]:
        """What a call makes untrue by its rule."""
        call, principal = permit.call, permit.principal
        if not call.parts and not permit.rule.forget:
            return ()
        rules = [self._rule_of(part, principal) for part in call.parts] or [permit.rule]
        targets = tuple(dict.fromkeys(target for rule in rules for target in rule.forget))
        return (Forget(principal.tenant, ("tools/call",), targets),) if targets else ()

    def doubted(self, permit: Permit) -> tuple[Forget, ...]:
        """What may be wrong where the server does not know what is asked for."""
        return (Forget(permit.principal.tenant, ("tools/list",)),)

    async def forget(self, what: tuple[Forget, ...]) -> None:
        for each in what:
            await self._store.forget(each)

    def soon(self, *what: Forget) -> None:
        """From where nobody can wait; before anything that comes later is asked for."""
        self._run(self.forget(what))

    async def close(self) -> None:
        """Wait until what is under way was heard: what is lost here would be told elsewhere for long."""
        await asyncio.gather(*self._under_way, return_exceptions=True)

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)


class _Listener:
    """Fulfils `Ear`."""

    __slots__ = ("_forgetting",)

    def __init__(self, forgetting: Forgetting) -> None:
        self._forgetting = forgetting

    def event_id(self, id: bytes) -> None:
        """Changes nothing."""

    def request(self, id: RequestId, method: str, params: object) -> None:
        """Changes nothing."""

    def notification(self, method: str, params: object) -> None:
        self._forgetting.told(method, params)

    def result(self, method: str | None, result: object) -> None:
        if (
            method in (None, "tools/list")
            and isinstance(result, dict)
            and isinstance(result.get("tools"), list)
        ):
            self._forgetting.listed(result["tools"])

    def passed_on(self, data: bytes) -> bytes:
        return data

    def ended(self, ending: Ending) -> None:
        """Nothing is kept."""


class _Guarded:
    """Fulfils `Stage`."""

    def __init__(self, serve: Stage, forgetting: Forgetting) -> None:
        self._serve = serve
        self._forgetting = forgetting

    def __call__(self, permit: Permit) -> Awaitable[Reply]:
        call = permit.call
        if call.method == "tools/call" or any(each.method == "tools/call" for each in call.parts):
            return self._called(permit)
        return self._serve(permit)

    async def _called(self, permit: Permit) -> Reply:
        what = self._forgetting.after(permit)
        try:
            reply = await self._serve(permit)
        except BaseException:
            if what and permit.call.was_sent:
                self._forgetting.soon(*what)
            raise
        if what:
            reply.when_done(lambda _: self._forgetting.soon(*what))
        try:
            # Before its caller has the answer: what it asks next must not be told as it was.
            body = reply.body
            if isinstance(body, bytes):
                if what:
                    await self._forgetting.forget(what)
                if _says_unknown(body):
                    await self._forgetting.forget(self._forgetting.doubted(permit))
            else:
                doubted = self._forgetting.doubted(permit)
                reply.body = Stream(_Passing(self._forgetting, aiter(body), what, doubted), body.close)
        except BaseException as error:
            reply.done(Ending.of(error))
            raise
        return reply


class _Passing:
    """The chunks of a stream, each after what it makes be forgotten."""

    __slots__ = ("_chunks", "_doubted", "_forgetting", "_what")

    def __init__(
        self,
        forgetting: Forgetting,
        chunks: AsyncIterator[bytes],
        what: tuple[Forget, ...],
        doubted: tuple[Forget, ...],
    ) -> None:
        self._forgetting = forgetting
        self._chunks = chunks
        self._what = what
        self._doubted = doubted

    def __aiter__(self) -> _Passing:
        return self

    async def __anext__(self) -> bytes:
        chunk = await anext(self._chunks)
        if self._what and (b'"result"' in chunk or b'"error"' in chunk):
            await self._forgetting.forget(self._what)
        if _says_unknown(chunk):
            await self._forgetting.forget(self._doubted)
        return chunk


def _says_unknown(text: bytes) -> bool:
    """Whether an error may say so. A text that only speaks of it costs a list, no more."""
    return b'"error"' in text and any(code in text for code in _UNKNOWN)
