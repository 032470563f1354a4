"""Lists follow policy: each caller sees what it may use. A stage, and an ear for what arrives in events.

In: a `Permit`. Out: the `Reply` of the next stage without what the caller may not see, or `Refused`
(upstream_nonsense) where a list is not understood. Keeps nothing.

    listed.py   which bytes of a list stay, pure

Whole answers pass the stage, so that what lies behind it may keep the server's own list. Events pass the ear of their
exchange: a client comes back for missed ones on another stream, and in HTTP+SSE every answer arrives on the GET.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Final, TypeAlias

from ..model import (
    Broken,
    Call,
    Ending,
    Headers,
    Kind,
    Permit,
    Principal,
    Reason,
    Refused,
    Reply,
    RequestId,
    Stage,
    Stream,
    id_key,
)
from ..protocol.answers import Malformed
from ..protocol.headers import media_type
from .learning import INTRODUCTIONS, Learn
from .listed import (
    LISTS,
    MAX_LIST_BYTES,
    MAY_LIST,
    PROMPTS,
    TEMPLATES,
    TOOLS,
    MethodOf,
    Seen,
    check_size,
    may_hold_list,
    shown,
)
from .listed import Kind as ListKind

if TYPE_CHECKING:
    from .cleaning import Cleaning

MayUse: TypeAlias = Callable[[str, str, Principal], bool]
"""Whether a caller may use a target: method, its target, who. The methods are tools/call, prompts/get and
resources/read."""
MayUseTemplate: TypeAlias = Callable[[str, Principal], bool]
"""Whether a caller may read some URI of this template."""

_LISTEN: Final = Kind.LISTEN
FILTERED: Final = "list filtered"
"""What a journey is told when entries were taken out."""
CLEANED: Final = "texts cleaned"
"""What it is told when something was taken out of texts."""
MADE_PRIVATE: Final = "list made private"
"""What it is told when nothing was, and the list must still not be kept for others."""

# Marks of order and the zeros of wider encodings: lenient readers of JSON skip them.
_NO_WORDS: Final = b" \t\r\n\xef\xbb\xbf\xff\xfe\0"


class Listing:
    """Who may see what of a list. Its `listen` fulfils `Listen`."""

    def __init__(
        self,
        may_use: MayUse,
        may_use_template: MayUseTemplate,
        *,
        lists_differ: bool = False,
        cleaning: Cleaning | None = None,
        learn: Learn | None = None,
    ) -> None:
        """`lists_differ`: callers see different lists, so that none is public, not even the one in which nothing had
        to be taken out: whoever shares it would show it to those who may not see all of it. `cleaning` takes out what
        hides in texts; `learn` hears the tools of answers that were too large to be read while they came."""
        self._may_use = may_use
        self._may_use_template = may_use_template
        self._lists_differ = lists_differ
        self._cleaning = cleaning
        self._learn = learn
        introductions = frozenset[str]() if cleaning is None else INTRODUCTIONS
        self.whole = frozenset({*LISTS, *introductions})
        """The methods whose answers are looked at, whatever their size."""
        self.methods = MAY_LIST | introductions
        """Those whose answers are looked at."""

    def listen(self, permit: Permit, handed_out: str | None) -> ListEar | None:
        """An ear for one exchange; None where no list can come."""
        call = permit.call
        if call.kind is _LISTEN:
            may_hear = call.revision.answers_elsewhere or call.last_event_id is not None
        else:
            may_hear = self.concerns(call)
        return ListEar(self, permit) if may_hear else None

    def concerns(self, call: Call) -> bool:
        """Whether the answer is looked at, or one of those to a batch."""
        if call.parts:
            return any(each.method in self.methods for each in call.parts)
        return call.method in self.methods

    def shown(self, permit: Permit, text: bytes, method_of: MethodOf) -> bytes:
        """What the caller gets of an answer: the very same bytes where nothing is to be hidden. Raises Malformed."""

        def shows(kind: ListKind, name: str) -> bool:
            if kind is TEMPLATES:
                return self._may_use_template(name, permit.principal)
            method = "tools/call" if kind is TOOLS else "prompts/get" if kind is PROMPTS else "resources/read"
            return self._may_use(method, name, permit.principal)

        def introduce(said: str) -> str:
            return said if self._cleaning is None else self._cleaning.instructions(permit.principal, said)

        def heard(page: Mapping[str, object]) -> None:
            if self._learn is not None:
                self._learn(permit.principal, permit.call, page)

        seen: Seen = shown(
            text,
            method_of,
            shows,
            is_modern=permit.call.revision.is_modern,
            is_private=self._lists_differ,
            clean=None if self._cleaning is None else self._cleaning.tool,
            introduce=None if self._cleaning is None else introduce,
            heard=None if self._learn is None else heard,
        )
        if seen.text is not text:
            self._tell(permit.call, seen)
        return seen.text

    def _tell(self, call: Call, seen: Seen) -> None:
        if seen.is_cut:
            call.journey.altered(FILTERED)
        if seen.is_cleaned:
            call.journey.altered(CLEANED)
        if not seen.is_cut and not seen.is_cleaned:
            call.journey.altered(MADE_PRIVATE)


class VisibleOnly:
    """Fulfils `Stage`."""

    def __init__(self, next: Stage, listing: Listing) -> None:
        self._next = next
        self._listing = listing

    def __call__(self, permit: Permit) -> Awaitable[Reply]:
        return self._seen(permit) if self._listing.concerns(permit.call) else self._next(permit)

    async def _seen(self, permit: Permit) -> Reply:
        reply = await self._next(permit)
        try:
            await self._look(permit, reply)
        except BaseException as error:
            reply.done(Ending.of(error))
            raise
        return reply

    async def _look(self, permit: Permit, reply: Reply) -> None:
        call = permit.call
        body = reply.body
        if isinstance(body, Stream):
            kind, _ = media_type(reply.headers.get("content-type"))
            if kind == "text/event-stream" or not any(
                each.method in self._listing.whole for each in call.parts or (call,)
            ):
                return  # its events were looked at; and nobody runs a list as a task of this size
            body = await _collected(call, body)
        try:
            seen = self._listing.shown(permit, body, _by_id(call))
        except Malformed:
            # Words for people, as HTTP errors and acknowledgements have them, are no list.
            if body.lstrip(_NO_WORDS)[:1] in (b"{", b"["):
                raise not_understood() from None
            seen = body
        reply.body = seen
        if seen is not body:
            reply.headers = Headers(
                pair for pair in reply.headers.pairs if pair[0].lower() != b"content-length"
            )


class ListEar:
    """Fulfils `Ear`: knows whose answers an event holds, and looks at the lists among them."""

    __slots__ = ("_answers", "_listing", "_permit")

    def __init__(self, listing: Listing, permit: Permit) -> None:
        self._listing = listing
        self._permit = permit
        self._answers: list[str | None] = []
        """The methods of the results in the event being heard, in order."""

    def event_id(self, id: bytes) -> None:
        """Says nothing of lists."""

    def request(self, id: RequestId, method: str, params: object) -> None:
        """Says nothing of lists."""

    def notification(self, method: str, params: object) -> None:
        """Says nothing of lists."""

    def result(self, method: str | None, result: object) -> None:
        self._answers.append(method)

    def passed_on(self, data: bytes) -> bytes:
        answers, self._answers = self._answers, []
        if not any(method is None or method in self._listing.methods for method in answers):
            return data
        methods = iter(answers)
        try:
            if not any(method in self._listing.whole for method in answers) and not _may_be_read(data):
                return data
            return self._listing.shown(self._permit, data, lambda _: next(methods, None))
        except Malformed:
            raise not_understood() from None

    def ended(self, ending: Ending) -> None:
        """Nothing is kept."""


def not_understood() -> Refused:
    """What may hold something its caller may not see goes nowhere."""
    return Refused(Reason.UPSTREAM_NONSENSE, "Its list was too long, or was not understood.")


def _may_be_read(data: bytes) -> bool:
    """Whether the result of an unknown request is to be looked at: not where it is large and no list. Raises
    Malformed where it is large and may be one."""
    try:
        check_size(data)
    except Malformed:
        if may_hold_list(data):
            raise
        return False
    return True


def _by_id(call: Call) -> MethodOf:
    """Which method an answer to `call` belongs to. A single request is answered by whatever came."""
    if not call.parts:
        return lambda _: call.method
    methods = {id_key(each.id): each.method for each in call.parts if each.id is not None}
    return lambda id: methods.get(id_key(id)) if isinstance(id, int | str) else None


async def _collected(call: Call, stream: Stream) -> bytes:
    """The whole of a list that the server's side did not hold. Raises Refused."""
    held = bytearray()
    try:
        async for chunk in stream:
            held += chunk
            if len(held) > MAX_LIST_BYTES:
                raise not_understood()
    except Broken as error:
        # The journey knows why. A tool may have run in the same batch.
        may_have_run = any(each.method == "tools/call" for each in call.parts)
        reason = Reason.OUTCOME_UNKNOWN if may_have_run else Reason.UPSTREAM_BROKE
        raise Refused(reason, "Its list broke off.") from error
    stream.close()
    return bytes(held)
