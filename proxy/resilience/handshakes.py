"""How did a session begin, and would a new one be the same? Kept for sessions that may be begun anew. Pure.

In: handshakes as they pass, with what the server answered, and what is said in sessions later. Out: the `Session` a
call names, as long as it is known. Keeps the handshake of each session by the identity it belongs to; bounded, whoever
floods paying first; no credential, because each handshake is repeated with that of the call it is repeated for.

A session is bare while it holds nothing but its handshake. What makes it hold more, and cannot be carried over:

    resources/subscribe     the new session would be told nothing
    logging/setLevel        it would have another level
    a task                  it would not be there
    a question of the server's, but for a ping: the answer may be under way, and ids begin anew
    an event with an id     a client that comes back with it could be given events of others

Source: basic/lifecycle and basic/transports ("Session Management") of 2025-03-26 to 2025-11-25.
"""

from __future__ import annotations

import re
from typing import Final, TypeAlias

from ..model import Call, Ear, Ending, Identity, Kind, Permit, RequestId, Revision
from ..protocol.canonical import digest
from ..shelf import Shelf

LONGEST_BYTES: Final = 16_384
"""Of a handshake that is kept: SDKs send 200 to 600."""
SHARE_BYTES: Final = 1_048_576
TOTAL_BYTES: Final = 16_777_216
OVERHEAD_BYTES: Final = 1_024
"""Of a session beside its handshake."""

METHOD: Final = "initialize"
_LASTS: Final = frozenset({"resources/subscribe", "logging/setLevel"})
_ID: Final = re.compile(r"[\x21-\x7e]{1,1024}")
"""Visible ASCII, says the specification; and it goes into a header."""


def is_id(text: str) -> bool:
    """Whether this can name a session."""
    return _ID.fullmatch(text) is not None


_Key: TypeAlias = tuple[Identity, str]
"""Two identities may each have had a session of one name, one after the other."""


class Session:
    """One session of a client, and the one of the server's that stands behind it now."""

    __slots__ = ("body", "current", "id", "is_bare", "request_id", "revision", "said")

    def __init__(self, id: str, call: Call, said: bytes) -> None:
        self.id = id
        """What its client calls it, for good."""
        self.current = id
        """What the server calls it."""
        self.is_bare = True
        """Holds nothing but its handshake."""
        self.body = call.body
        self.request_id = call.id
        self.revision: Revision = call.revision
        self.said = said
        """Digest of what the server answered the handshake."""

    def takes(self, call: Call) -> None:
        """The call is about to be sent in it."""
        if any(each.method in _LASTS or "task" in each.params for each in call.parts or (call,)):
            self.is_bare = False

    @staticmethod
    def weigh(session: Session) -> int:
        return OVERHEAD_BYTES + len(session.body)


class Handshakes:
    """What is known of sessions."""

    def __init__(self, *, share_bytes: int = SHARE_BYTES, total_bytes: int = TOTAL_BYTES) -> None:
        self._sessions: Shelf[_Key, Session] = Shelf(
            share=share_bytes, total=total_bytes, weigh=Session.weigh
        )

    def __len__(self) -> int:
        return len(self._sessions)

    def of(self, permit: Permit) -> Session | None:
        """The session that a call names, of whoever calls."""
        call = permit.call
        if call.session is None or not call.revision.has_sessions or call.method == METHOD:
            return None
        return self.get(permit.principal.identity, call.session)

    def get(self, identity: Identity, id: str) -> Session | None:
        return self._sessions.get(identity, (identity, id))

    def take(self, identity: Identity, id: str) -> Session | None:
        """The session, which is forgotten."""
        return self._sessions.take(identity, (identity, id))

    def put(self, identity: Identity, session: Session) -> None:
        """Know it from now on, by what its client calls it."""
        self.take(identity, session.id)
        self._sessions.put(identity, (identity, session.id), session)

    def listen(self, permit: Permit, handed_out: str | None) -> Ear | None:
        """An ear for one exchange; fulfils `Listen`."""
        call = permit.call
        if call.method != METHOD:
            session = self.of(permit)
            return None if session is None else _Under(session)
        begins = call.kind is Kind.REQUEST and call.session is None and call.revision.has_sessions
        if (
            not begins
            or handed_out is None
            or not _ID.fullmatch(handed_out)
            or len(call.body) > LONGEST_BYTES
        ):
            return None
        return _Beginning(self, permit, handed_out)


class _Ear:
    """Fulfils `Ear`, but for results: hears what a session cannot lose."""

    __slots__ = ("_session",)

    def __init__(self, session: Session | None = None) -> None:
        self._session = session

    def event_id(self, id: bytes) -> None:
        self._holds_more()

    def request(self, id: RequestId, method: str, params: object) -> None:
        if method != "ping":
            self._holds_more()

    def notification(self, method: str, params: object) -> None:
        """Nothing of it stays."""

    def passed_on(self, data: bytes) -> bytes:
        return data

    def ended(self, ending: Ending) -> None:
        """Nothing was opened."""

    def _holds_more(self) -> None:
        if self._session is not None:
            self._session.is_bare = False


class _Under(_Ear):
    """What is said in a session."""

    __slots__ = ()

    def result(self, method: str | None, result: object) -> None:
        """Belongs to its caller, not to the session."""


class _Beginning(_Ear):
    """The answer to a handshake."""

    __slots__ = ("_handed_out", "_handshakes", "_is_bare", "_permit")

    def __init__(self, handshakes: Handshakes, permit: Permit, handed_out: str) -> None:
        super().__init__()
        self._handshakes = handshakes
        self._permit = permit
        self._handed_out = handed_out
        self._is_bare = True

    def result(self, method: str | None, result: object) -> None:
        if method != METHOD or not isinstance(result, dict):
            return
        said = digest({name: value for name, value in result.items() if name != "_meta"})
        self._session = Session(self._handed_out, self._permit.call, said)
        self._session.is_bare = self._is_bare
        self._handshakes.put(self._permit.principal.identity, self._session)

    def _holds_more(self) -> None:
        self._is_bare = False
        super()._holds_more()
