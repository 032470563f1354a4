"""What is this resource, and who issues tokens for it? The protected-resource document (RFC 9728).

In: settings. Out: pages for the well-known paths, or none: without OAuth they are a clean 404, because clients take
anything else for the beginning of a flow. Keeps the document, made once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

import msgspec

from ..model import Headers, Page, PageRequest, Reply
from ..protocol.discovery import WELL_KNOWN, metadata_path

_FIELDS: Final = Headers([(b"Content-Type", b"application/json"), (b"Cache-Control", b"max-age=300")])


class Metadata:
    """Fulfils `FindPage`."""

    def __init__(self, resource: str, *, issuers: Sequence[str], scopes: Sequence[str], path: str) -> None:
        """`path` is where we listen; behind a prefix the path of `resource` differs, and clients may ask for both."""
        document: dict[str, object] = {
            "resource": resource,
            "authorization_servers": list(dict.fromkeys(issuers)),
            "bearer_methods_supported": ["header"],
        }
        if scopes:
            document["scopes_supported"] = list(scopes)
        self._body = msgspec.json.encode(document)
        self._paths = frozenset((WELL_KNOWN, metadata_path(urlsplit(resource).path), metadata_path(path)))
        self._page = Page(methods=frozenset({"GET", "OPTIONS"}), answer=self._answer)

    def __call__(self, path: str) -> Page | None:
        return self._page if path in self._paths else None

    async def _answer(self, request: PageRequest) -> Reply:
        return Reply(200, _FIELDS, self._body)
