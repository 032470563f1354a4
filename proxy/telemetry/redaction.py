"""What must no sink ever hold? Known secrets, by their value; whatever names itself a credential, by its name.

In: texts, bytes and values that somebody is about to write. Out: the same without secrets. Keeps the forms in which
each living `Secret` may stand in them: as it is, escaped in JSON, quoted in a URL, and inside base64 wherever it begins
there, so that Basic credentials are found whatever user stands before them. New secrets are known as soon as they are
made: those of a reload, and those that are renewed.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final
from urllib.parse import quote, quote_plus, unquote, urlsplit

from ..secret import Secret, living, made, names_a_credential

HIDDEN: Final = "[redacted]"
SHORTEST: Final = 6
"""Characters of a secret that is looked for: shorter ones are parts of everything."""
MAX_DEPTH: Final = 16
_NAMES: Final = ("passwd", "pwd", "credential", "session", "bearer", "private", "signature", "assertion")
"""Beside `names_a_credential`: what settings may hold in clear, and lines may not."""
_SCHEME: Final = re.compile(r"(?:basic|bearer|token|apikey|api-key|digest|negotiate) +", re.IGNORECASE)
_USERINFO: Final = re.compile(r"(://[^\s/?#@:\"'<>]*:)[^\s/?#\"'<>]*@")
_USERINFO_BYTES: Final = re.compile(_USERINFO.pattern.encode())


class Redactor:
    """Takes secrets out of what is about to be written. `text` and `bytes` are for whoever writes anywhere."""

    def __init__(
        self, secrets: Callable[[], Iterable[Secret]] = living, made: Callable[[], int] = made
    ) -> None:
        """`secrets` are those there are, `made` a number that changes when there is a new one."""
        self._secrets = secrets
        self.made = made
        """For whoever remembers what was looked through: when this has changed, it was not."""
        self._learnt = -1
        self._texts: tuple[str, ...] = ()
        self._bytes: tuple[bytes, ...] = ()
        self._has_digits = False

    def text(self, text: str) -> str:
        """Without secrets, and without the password of any URL."""
        self._learn()
        for form in self._texts:
            if form in text:
                text = text.replace(form, HIDDEN)
        return _USERINFO.sub(rf"\1{HIDDEN}@", text) if "://" in text else text

    def bytes(self, data: bytes) -> bytes:
        """The same for what is encoded already."""
        self._learn()
        for form in self._bytes:
            if form in data:
                data = data.replace(form, HIDDEN.encode())
        return _USERINFO_BYTES.sub(rb"\1" + HIDDEN.encode() + b"@", data) if b"://" in data else data

    def knows_digits(self) -> bool:
        """Whether a secret can be among hexadecimal digits in lower case: if not, they need not be looked through."""
        self._learn()
        return self._has_digits

    def value(self, value: object, depth: int = MAX_DEPTH) -> object:
        """The same of a JSON value: texts without secrets, nothing under a name of credentials, at any depth."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping | list | tuple | set | frozenset) and not depth:
            return HIDDEN
        if isinstance(value, Mapping):
            return {
                self.text(str(name)): HIDDEN if hides(str(name)) else self.value(each, depth - 1)
                for name, each in value.items()
            }
        if isinstance(value, list | tuple | set | frozenset):
            return [self.value(each, depth - 1) for each in value]
        if isinstance(value, bytes | bytearray | memoryview):
            return HIDDEN  # nobody can tell what it is
        return value

    def _learn(self) -> None:
        now = self.made()
        if now == self._learnt:
            return
        found = {form for secret in self._secrets() for form in forms(secret.reveal())}
        # A form that holds another one goes first: or the other would be taken out of its middle.
        self._texts = tuple(sorted(found, key=lambda form: (-len(form), form)))
        self._bytes = tuple(form.encode("utf-8", "surrogatepass") for form in self._texts)
        self._has_digits = any(not form.strip("0123456789abcdef") for form in self._texts)
        self._learnt = now


def hides(name: str) -> bool:
    """Whether what stands under this name is not shown."""
    lower = name.lower().replace("-", "").replace("_", "")
    return names_a_credential(lower) or any(part in lower for part in _NAMES)


def forms(secret: str) -> Iterator[str]:
    """The texts by which a secret is known in a line; none where it is too short to be known at all."""
    for part in _parts(secret):
        if len(part) < SHORTEST:
            continue
        yield part
        yield json.dumps(part)[1:-1]
        yield json.dumps(part, ensure_ascii=False)[1:-1]
        if not any("\ud800" <= each <= "\udfff" for each in part):
            yield quote(part, safe="")
            yield quote(part)
            yield quote_plus(part)
        data = part.encode("utf-8", "surrogatepass")
        for before in range(3):
            for encode in (b64encode, urlsafe_b64encode):
                # Of the characters around it, those that its neighbours decide are left away.
                first, last = (0, 2, 3)[before], (before + len(data)) * 8 // 6
                yield encode(b"\0" * before + data).decode()[first:last]


def _parts(secret: str) -> Iterator[str]:
    """The secret, and what of it is one by itself."""
    scheme = _SCHEME.match(secret)
    yield secret if scheme is None else secret[scheme.end() :].strip()
    if "://" in secret and (password := _password(secret)):
        yield password
        yield unquote(password)
    if "\n" in secret:
        yield from (line.strip() for line in secret.splitlines() if not line.startswith("-----"))


def _password(url: str) -> str | None:
    try:
        return urlsplit(url).password
    except ValueError:
        return None
