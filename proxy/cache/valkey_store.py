"""Answers that replicas share, in Valkey or Redis; and the news of what was forgotten, for all of them.

In: entries, and what is forgotten. Out: entries that we signed and nobody forgot. Keeps what it heard was forgotten,
and what it could not tell the store yet.

In the store, under the hash tag {mcp-sidecar:NAMESPACE}:

    cache:1:entry:DIGEST   a signed entry, with the era and number it is from; it expires
    cache:1:forgotten      a sorted set: signed words of what was forgotten, each with its number; `era:…` at 0, made
                           anew with the set; `floor` where old ones were cut

Numbers go up with each thing that is forgotten, and an entry that is older than what covers it is none. Every look for
an entry brings the news with it in the same piece, and a job asks for them four times a second. So when `forget` has
returned, no replica finds the entry here, and none tells it from its memory for longer than BOUND_S: whoever heard
nothing for so long does not use its memory (`is_current`).

Who can write to the store cannot make an answer, copy one to another key, or use one of another deployment. They can
take away what is there, also what was forgotten: then an old answer is told until it ends by itself.

What can happen:
 1. The store is away, late, full, or says nonsense: a miss, after `timeout_s` at most; `Link` leaves it alone.
 2. Somebody leaves: the reply comes all the same, and belongs to whoever asked (the `Wire` sees to it).
 3. Something is forgotten while the store is away: it is told when it returns, before anything else is believed.
 4. The store was emptied, or dropped the set: the era is another one, and entries of the last one are none.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final, Protocol, TypeAlias

import hiredis
from msgspec import Struct, structs

from ..model import Job
from .entry import Entry, is_over, lifetime_s
from .forgotten import Forgotten
from .store import Counts, Forget, Mark, Seal, read_forget, unpacked, written

TIMEOUT_S: Final = 0.05
"""For an answer of the store: a miss is better than a slow hit."""
POLL_S: Final = 0.25
DRIFT_S: Final = 0.5
"""Between clocks that count as the same."""
BOUND_S: Final = 1.0
"""After `forget` has returned, no replica tells the entry for longer."""
MOST_FORGOTTEN: Final = 4_096
"""Different things in the store. Beyond it, what is older than the oldest is a miss."""
MOST_UNTOLD: Final = 256
"""Different things that the store was not told yet. Beyond it, it is told to forget everything."""
MOST_NEWS: Final = 250
"""In one reply."""
LONGEST_WORDS_BYTES: Final = 2_048
"""Of one thing that was forgotten; longer ones become all targets."""
LONGEST_NEWS_BYTES: Final = LONGEST_WORDS_BYTES + 128
"""With its signature and number, on the wire."""
MOST_UNDER_WAY: Final = 4_096
"""Commands without a reply."""
MOST_UNSENT_BYTES: Final = 8 * 1024 * 1024
"""Of entries without a reply."""

_FRAME_BYTES: Final = 64
_NUMBER_BYTES: Final = 8
_LAST_NUMBER: Final = 2**53
"""Scores are doubles: beyond it, one more is the same."""
_WORDS: Final = b"forgotten"
_FLOOR: Final = b"floor"
_ERA_BYTES: Final = 32

_BEGIN: Final = """\
if redis.call('TYPE', KEYS[1]).ok ~= 'zset' or not redis.call('ZRANGE', KEYS[1], 0, 0)[1]:find('^era:') then
  redis.call('DEL', KEYS[1])
  redis.call('ZADD', KEYS[1], 0, 'era:' .. ARGV[1])
end
"""
"""A set that is ours, begun now where there is none. ARGV[1]: the name of a new era."""

_FORGET: Final = (
    _BEGIN
    + """\
local number = tonumber(redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')[2]) + 1
redis.call('ZADD', KEYS[1], string.format('%.0f', number), ARGV[2])
local over = redis.call('ZCARD', KEYS[1]) - tonumber(ARGV[3])
if over > 0 then
  -- A quarter more, so that not each one after it cuts again. The era stays, at 0.
  local cut = redis.call('ZRANGE', KEYS[1], 1, over + math.floor(ARGV[3] / 4), 'WITHSCORES')
  redis.call('ZREMRANGEBYRANK', KEYS[1], 1, #cut / 2)
  redis.call('ZADD', KEYS[1], cut[#cut], 'floor')
end
return number
"""
)
"""ARGV[2]: what to forget; ARGV[3]: how many to keep."""

Tell: TypeAlias = Callable[[object], None]


class Wire(Protocol):
    """A connection on which each reply belongs to the oldest command without one."""

    def __len__(self) -> int: ...
    def send(self, command: bytes, tell: Tell) -> None: ...


class Ask(Protocol):
    """Sends commands on a connection that is being made, and gives the replies."""

    async def __call__(self, *commands: bytes) -> list[object]: ...


class Link(Protocol):
    """Keeps a connection up, and leaves the store alone while it fails."""

    @property
    def wire(self) -> Wire | None: ...
    def went_well(self) -> None: ...
    def had_trouble(self, why: str) -> None: ...
    async def run(self) -> None: ...
    async def close(self) -> None: ...


Greet: TypeAlias = Callable[[Ask], Awaitable[None]]


class _Question(Struct, frozen=True):
    """What was new when?"""

    commands: tuple[bytes, bytes]
    era: str
    asked_s: float


def _ignore(_: Forget | None) -> None:
    """Nobody listens."""


class ValkeyStore:
    """Build it anywhere, use it inside one running loop, with its jobs running."""

    def __init__(
        self,
        link: Callable[[Greet], Link],
        seal: Seal,
        *,
        namespace: str,
        max_entry_bytes: int,
        max_reply_bytes: int,
        wall: Callable[[], float],
        now: Callable[[], float],
        token: Callable[[], str],
        timeout_s: float = TIMEOUT_S,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        """`link` makes the connection's keeper, which greets the store as it is told. `max_entry_bytes` of a result.
        `max_reply_bytes`: what the connection takes for one reply; it breaks at longer ones, so they are not stored.
        `wall` counts seconds from 1970, `now` is monotonic, `token` gives 32 fresh hexadecimal digits.
        `timeout_s`: the longest that a look waits."""
        self.heard: Callable[[Forget | None], None] = _ignore
        """Told what any replica forgot; None: everything may be."""
        self._link = link(self._greet)
        self._seal = seal
        name = f"{{mcp-sidecar:{namespace}}}:cache:1:".encode("utf-8", "surrogatepass")
        self._entries = name + b"entry:"
        self._log = name + b"forgotten"
        self._max_entry_bytes = max_entry_bytes
        self._max_value_bytes = max_reply_bytes - _FRAME_BYTES
        self._most_news = max(1, min(MOST_NEWS, max_reply_bytes // LONGEST_NEWS_BYTES))
        self._wall = wall
        self._now = now
        self._token = token
        self._timeout_s = timeout_s
        self._sleep = sleep
        self._forgotten = Forgotten()
        self._era = ""
        self._untold: dict[Forget, None] = {}
        self._current_s = -math.inf
        self._unsent_bytes = 0
        self._counts: Counter[str] = Counter()

    @property
    def counts(self) -> Counts:
        return self._counts

    @property
    def jobs(self) -> tuple[Job, ...]:
        return (self._link.run, self._listen)

    @property
    def is_current(self) -> bool:
        """Whether everything was heard that was forgotten more than BOUND_S ago."""
        return self._now() - self._current_s <= BOUND_S

    def mark(self) -> Mark:
        return Mark(shared=self._forgotten.last, era=self._era)

    def look(self, digest: bytes) -> Awaitable[Entry | None]:
        return self.get(digest)

    async def get(self, digest: bytes) -> Entry | None:
        key = self._entries + digest.hex().encode()
        # The news behind the entry: what was forgotten before we looked is among them.
        question = self._question()
        replies = await self._asked(_packed("GET", key), _packed("PTTL", key), *question.commands)
        if replies is None or not self._learn(question, replies[2], replies[3]):
            return None
        return self._read(digest, replies[0], replies[1])

    async def put(self, digest: bytes, entry: Entry, asked: Mark) -> None:
        if len(entry.result) > self._max_entry_bytes:
            self._counts["too_large"] += 1
            return
        if not self._era or asked.era != self._era or self._is_forgotten(entry, asked.shared):
            self._counts["late"] += 1
            return
        left_ms = math.ceil((entry.stored_s + lifetime_s(entry) - self._wall()) * 1000)
        if left_ms <= 0:
            self._counts["expired"] += 1
            return
        stamp = self._era.encode() + asked.shared.to_bytes(_NUMBER_BYTES, "little")
        value = self._seal.signed(digest, stamp + self._seal.packed(entry))
        if len(value) > self._max_value_bytes:
            self._counts["too_large"] += 1
            return
        self._store(_packed("SET", self._entries + digest.hex().encode(), value, "PX", left_ms), len(value))

    async def forget(self, what: Forget) -> None:
        what = _short(what)
        self._untold[what] = None
        if len(self._untold) > MOST_UNTOLD:
            what = Forget(None)
            self._untold = {what: None}
        await self._tell(what)

    async def flush(self) -> None:
        """They lie there until they expire, and nobody reads them."""
        await self.forget(Forget(None))

    async def close(self) -> None:
        await self._link.close()

    # Entries

    def _read(self, digest: bytes, value: object, left_ms: object) -> Entry | None:
        if value is None:
            return None
        if isinstance(value, Exception):
            # Of another type: somebody else's.
            self._counts["foreign"] += 1
            return None
        text = self._seal.verified(digest, value)
        if text is None:
            self._counts["forged"] += 1
            return None
        era, number = text[:_ERA_BYTES], text[_ERA_BYTES : _ERA_BYTES + _NUMBER_BYTES]
        entry = unpacked(text[_ERA_BYTES + _NUMBER_BYTES :])
        if entry is None:
            self._counts["foreign"] += 1
            return None
        if era != self._era.encode() or self._is_forgotten(entry, int.from_bytes(number, "little")):
            self._counts["forgotten"] += 1
            return None
        return self._aged(entry, left_ms)

    def _aged(self, entry: Entry, left_ms: object) -> Entry | None:
        """As old as its clock says, or the store's: whoever stored it may be minutes ahead. Whoever can change what the
        store says can make it older, never younger."""
        wall = self._wall()
        if not isinstance(left_ms, int) or left_ms <= 0:
            return None
        passed_s = lifetime_s(entry) - left_ms / 1000
        if wall - passed_s < entry.stored_s - DRIFT_S:
            entry = structs.replace(entry, stored_s=wall - passed_s)
        if is_over(entry, wall):
            self._counts["expired"] += 1
            return None
        return entry

    def _is_forgotten(self, entry: Entry, since: int) -> bool:
        if self._forgotten.covers(entry, since):
            return True
        if not self._untold:
            return False
        untold = Forgotten()
        for what in self._untold:
            untold.add(what)
        return untold.covers(entry, 0)

    def _store(self, command: bytes, size: int) -> None:
        """Send it and go on: nobody waits for what they already have."""
        wire = self._link.wire
        if wire is None or len(wire) >= MOST_UNDER_WAY or self._unsent_bytes + size > MOST_UNSENT_BYTES:
            self._counts["unwritten"] += 1
            return
        self._unsent_bytes += size

        def told(reply: object) -> None:
            self._unsent_bytes -= size
            if reply == b"OK":
                self._counts["stored"] += 1
            else:
                self._counts["unwritten"] += 1

        wire.send(command, told)

    # What was forgotten

    async def _greet(self, ask: Ask) -> None:
        """Make sure that there is a set which is ours."""
        await ask(self._begin())

    def _begin(self) -> bytes:
        return _packed("EVAL", _BEGIN, 1, self._log, self._token())

    def _question(self) -> _Question:
        last = self._forgotten.last
        return _Question(
            commands=(
                _packed("ZRANGE", self._log, 0, 0),
                _packed(
                    "ZRANGEBYSCORE", self._log, f"({last}", "+inf", "WITHSCORES", "LIMIT", 0, self._most_news
                ),
            ),
            era=self._era,
            asked_s=self._now(),
        )

    def _learn(self, question: _Question, first: object, news: object) -> bool:
        """Hear what was forgotten. Whether that is all."""
        era = _era_in(first)
        if era is None or not isinstance(news, list):
            self._counts["outage"] += 1
            self._begin_anew()
            return False
        if era != self._era:
            self._era = era
            self._forgotten = Forgotten()
            self.heard(None)
        if question.era != era:
            # What is new since a number of another era: nobody knows what that leaves out.
            return False
        for word, score in zip(news[::2], news[1::2], strict=False):
            if not self._hear(word, score):
                self._counts["forged"] += 1
                self._begin_anew(_packed("DEL", self._log))
                return False
        if len(news) >= 2 * self._most_news:
            return False
        self._current_s = max(self._current_s, question.asked_s)
        self._link.went_well()
        return True

    def _begin_anew(self, *first: bytes) -> None:
        """The set is gone, or not to be believed: begin another era, so that nothing of this one is told."""
        wire = self._link.wire
        if wire is not None:
            for command in (*first, self._begin()):
                wire.send(command, _unheard)

    def _hear(self, word: object, score: object) -> bool:
        """One of the news; whether it is ours. Else nobody knows what was forgotten: words may have been changed, or
        a replica has another secret, and what it forgets is not to be missed."""
        number = _number_in(score)
        if number is None:
            return False
        if number <= self._forgotten.last:
            return True
        if word == _FLOOR:
            self._forgotten.below(number)
            self.heard(None)
            return True
        text = self._seal.verified(_WORDS, word)
        if text is None:
            return False
        what = read_forget(text)
        self._forgotten.add(what, number)
        self.heard(what)
        return True

    async def _tell(self, *untold: Forget) -> bool:
        """Tell the store what to forget, and hear the news. Whether they are all."""
        commands = [self._forget_command(what) for what in untold]
        question = self._question()
        replies = await self._asked(*commands, *question.commands)
        if replies is None:
            return False
        for what, reply in zip(untold, replies, strict=False):
            if isinstance(reply, int):
                self._untold.pop(what, None)
        return self._learn(question, *replies[-2:])

    def _forget_command(self, what: Forget) -> bytes:
        word = self._seal.signed(_WORDS, written(what))
        return _packed("EVAL", _FORGET, 1, self._log, self._token(), word, MOST_FORGOTTEN)

    async def _listen(self) -> None:
        """Tell what could not be told, and hear what others forgot, for ever."""
        while True:
            before = self._forgotten.last, self._era
            if self._link.wire is not None:
                is_all = await self._tell(*self._untold)
                if not is_all and (self._forgotten.last, self._era) != before:
                    continue  # there is more, and it is coming
            await self._sleep(POLL_S)

    async def _asked(self, *commands: bytes) -> list[object] | None:
        """The replies in order, or None where one does not come in time."""
        wire = self._link.wire
        if wire is None or len(wire) + len(commands) > MOST_UNDER_WAY:
            self._counts["outage"] += 1
            return None
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        replies: list[object] = []

        def told(reply: object) -> None:
            replies.append(reply)
            if len(replies) == len(commands) and not done.done():
                done.set_result(None)

        for command in commands:
            wire.send(command, told)
        try:
            async with asyncio.timeout(self._timeout_s):
                await done
        except TimeoutError:
            self._counts["outage"] += 1
            self._link.had_trouble("the store is late")
            return None
        if not all(each is None or isinstance(each, _REPLIES) for each in replies):
            self._counts["outage"] += 1
            return None
        return replies


_REPLIES: Final = (bytes, int, list, Exception)
"""What a store can say; anything else stands for a reply that did not come."""


def _era_in(first: object) -> str | None:
    """The era, as the first member of the set names it."""
    member = first[0] if isinstance(first, list) and first else None
    if not isinstance(member, bytes) or not member.startswith(b"era:") or len(member) != 4 + _ERA_BYTES:
        return None
    era = member[4:]
    return era.decode() if era.isascii() and era.isalnum() else None


def _number_in(score: object) -> int | None:
    try:
        number = float(score) if isinstance(score, bytes) else math.nan
    except ValueError:
        return None
    return int(number) if 0 < number < _LAST_NUMBER else None


def _short(what: Forget) -> Forget:
    """As it is, or more, so that news have a bounded length."""
    for each in (what, Forget(what.tenant, what.methods)):
        if len(written(each)) <= LONGEST_WORDS_BYTES:
            return each
    return Forget(None)


def _unheard(_: object) -> None:
    """The next reader sees what came of it."""


def _packed(*parts: str | int | bytes) -> bytes:
    """One command as the wire has it."""
    command: bytes = hiredis.pack_command(parts)  # type: ignore[arg-type]  # its stub means tuples of any length
    return command
