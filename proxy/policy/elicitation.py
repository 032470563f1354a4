"""Does a form of the server ask its user for a secret? What the server asks, in; the same, or a form that says what
was withheld, out. Keeps nothing beyond one exchange.

A form is asked for by `elicitation/create`, or in 2026-07-28 by a result that wants input. Such a result is refused;
the other one is changed, because the server waits for an answer on another connection, and only the user can decline.
Pages (mode `url`) pass: they are where secrets belong. Words are looked for in English, however they are written.

Source: client/elicitation of 2025-06-18 and later: servers must not ask for sensitive information in forms.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Final, Literal

from ..model import Call, Ear, Ending, Kind, Permit, Reason, Refused, RequestId
from ..protocol.answers import Malformed, read_tree
from ..protocol.batch import join_array, split_array
from .lookalikes import LONGEST, skeleton

CREATE: Final = "elicitation/create"
WITHHELD: Final = "form withheld"
"""What a journey is told."""
ASKED: Final = "secret_form"
"""The name told for a form that asks for a secret."""

_NOTICE: Final = (
    "The server asked for a password or another secret in a form. Servers must not do that, so the form was withheld. "
    "Please decline."
)
_REFUSED: Final = (
    "The server asked its user for a password or another secret in a form. Servers must not do that, so the form was "
    "withheld. Do not ask the user for it either; use another tool."
)

_SECRETS: Final = (
    r"(?:pass ?(?:word|phrase|code)s?|passwd|pwd|secrets?|credentials?"
    r"|(?:api|access|private|ssh|signing|encryption|license|auth(?:entication|orization)?|bearer|refresh|session|id)"
    r" ?(?:keys?|tokens?)"
    r"|(?:one ?time|security|verification|recovery|mfa|2fa|auth(?:entication)?|login|sms) ?(?:codes?|pins?)"
    r"|security answers?"
    r"|(?:card|bank account) numbers?|(?:credit|debit) ?cards?|pin (?:codes?|numbers?)"
    r"|cvv2?|cvc2?|t?otp|(?:seed|recovery) ?phrases?|mnemonic)"
)
_WANTS: Final = (
    r"(?:enter|type|provide|give|paste|supply|input|submit|send|share|confirm|tell|need|needs|require|requires|what is"
    r"|what s|whats)"
)


def _alike(pattern: str) -> str:
    """The pattern, for texts in which letters that look alike are one."""
    return re.sub(r"(?<!\\)[a-z0-9]+", lambda word: _folded(word[0]), pattern)


def _folded(text: str) -> str:
    return skeleton(text.casefold()).casefold()


_SECRET: Final = re.compile(rf"\b{_alike(_SECRETS)}\b")
_IS_SECRET: Final = re.compile(
    rf"(?:your |the )?(?:{_alike(_SECRETS)}|{_alike('pin')}"
    # Those of pages are none.
    rf"|(?:(?!{_alike('page|next|previous|continuation|cursor|max')}\b)\w+ )*{_alike('tokens?')})"
)
_ASKS: Final = re.compile(rf"\b{_alike(_WANTS)}\b.{{0,60}}?\b{_alike(_SECRETS)}\b")
_CAMEL: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_NO_WORD: Final = re.compile(r"[\W_]+")


def asks_for_secret(params: object) -> bool:
    """Whether `params` of elicitation/create ask for a secret in a form. True also where nobody can tell."""
    if not isinstance(params, dict):
        return True
    if params.get("mode", "form") != "form":
        return False
    message, schema = params.get("message"), params.get("requestedSchema")
    if not isinstance(message, str) or not isinstance(schema, dict | None):
        return True
    fields = {} if schema is None else schema.get("properties", {})
    if not isinstance(fields, dict):
        return True
    typed = {name: field for name, field in fields.items() if _is_typed(field)}
    if any(_SECRET.search(text) or _IS_SECRET.fullmatch(text) for text in map(_words, _texts_of(typed))):
        return True
    said = _words(message)
    return bool(typed) and bool(_ASKS.search(said) or _IS_SECRET.fullmatch(said))


def _is_typed(field: object) -> bool:
    """Whether the user writes the value, and does not choose it."""
    if not isinstance(field, dict):
        return True
    return field.get("type") not in ("boolean", "array") and not {"enum", "oneOf", "const"} & field.keys()


def _texts_of(fields: Mapping[str, object]) -> Iterator[str]:
    for name, field in fields.items():
        yield name
        if isinstance(field, dict):
            yield from (
                text for key in ("title", "description", "format") if isinstance(text := field.get(key), str)
            )


def _words(text: str) -> str:
    """Lower-case words with single blanks between them: `apiKey`, `API_KEY` and `Ａｐｉ-Кey` are one."""
    pieces = (text[at : at + LONGEST] for at in range(0, len(text), LONGEST))
    return _NO_WORD.sub(" ", "".join(_folded(_CAMEL.sub(" ", piece)) for piece in pieces)).strip()


class Forms:
    """Fulfils `Listen`. `found` is told of each form that asks for a secret, with what became of it."""

    def __init__(self, *, is_blocking: bool, found: Callable[[Literal["log", "block"]], None]) -> None:
        self.is_blocking = is_blocking
        self._found = found

    def __call__(self, permit: Permit, handed_out: str | None) -> Ear | None:
        call = permit.call
        return _Reader(self, call) if call.kind in (Kind.REQUEST, Kind.LISTEN) or call.parts else None

    def must_be_withheld(self, params: object) -> bool:
        """Whether this form goes no further."""
        if not asks_for_secret(params):
            return False
        self._found("block" if self.is_blocking else "log")
        return self.is_blocking


class _Reader:
    """Fulfils `Ear`."""

    __slots__ = ("_call", "_forms", "_withheld")

    def __init__(self, forms: Forms, call: Call) -> None:
        self._forms = forms
        self._call = call
        self._withheld: list[RequestId] = []
        """Requests in what was just heard that do not pass as they are."""

    def event_id(self, id: bytes) -> None:
        """Asks for nothing."""

    def request(self, id: RequestId, method: str, params: object) -> None:
        if method == CREATE and self._forms.must_be_withheld(params):
            self._withheld.append(id)

    def notification(self, method: str, params: object) -> None:
        """Asks for nothing."""

    def result(self, method: str | None, result: object) -> None:
        wanted = result.get("inputRequests") if isinstance(result, dict) else None
        each = wanted.values() if isinstance(wanted, dict) else wanted if isinstance(wanted, list) else ()
        forms = [one for one in each if isinstance(one, dict) and one.get("method") == CREATE]
        if any(self._forms.must_be_withheld(form.get("params")) for form in forms):
            raise Refused(Reason.UPSTREAM_NONSENSE, _REFUSED)

    def passed_on(self, data: bytes) -> bytes:
        withheld, self._withheld = self._withheld, []
        if not withheld:
            return data
        self._call.journey.altered(WITHHELD)
        if data.lstrip()[:1] != b"[":
            return _notice(data, withheld[0])
        return join_array(_instead(text, withheld) for text in split_array(data))

    def ended(self, ending: Ending) -> None:
        """Nothing is kept."""


def _instead(text: bytes, withheld: list[RequestId]) -> bytes:
    message = _read(text)
    id = message.get("id")
    is_meant = message.get("method") == CREATE and isinstance(id, int | str) and id in withheld
    return _notice(text, id) if is_meant and isinstance(id, int | str) else text


def _notice(text: bytes, id: RequestId) -> bytes:
    """The request with an empty form that says why. What links it to its task, or to its progress, stays."""
    params = _read(text).get("params")
    kept = params if isinstance(params, dict) else {}
    form = {**kept, "message": _NOTICE, "requestedSchema": {"type": "object", "properties": {}}}
    request = {"jsonrpc": "2.0", "id": id, "method": CREATE, "params": form}
    return json.dumps(request).encode("ascii")


def _read(text: bytes) -> dict[str, object]:
    try:
        message = read_tree(text)
    except Malformed:
        return {}
    return message if isinstance(message, dict) else {}
