"""By which id do a client and we speak of the same request? Where a header is configured for it.

In: the journey of a request, and its headers. Out: the field that every reply to it carries: the client's id, or ours
where it sent none that is safe to write down. Keeps nothing. The server gets the client's header as it came.
"""

from __future__ import annotations

import re
from typing import Final

from ..model import Headers, Journey

_SAFE: Final = re.compile(r"[A-Za-z0-9_.:/+=@~-]{1,128}", re.ASCII)


class RequestIds:
    """Names requests."""

    def __init__(self, header: str) -> None:
        self._name = header.lower()
        self._field = header.encode("ascii")

    def __call__(self, journey: Journey, headers: Headers) -> tuple[bytes, bytes]:
        sent = headers.all(self._name)
        if len(sent) != 1 or not _SAFE.fullmatch(sent[0]):
            return self._field, journey.request_id.encode("ascii")
        journey.named(sent[0])
        return self._field, sent[0].encode("ascii")
