"""The resources and the resource template, and how each is read."""

from __future__ import annotations

import json
import re

from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    BlobResourceContents,
    ReadResourceResult,
    Resource,
    ResourceTemplate,
    TextResourceContents,
)

from .contents import PNG

WATCHED = "test://watched-resource"

RESOURCES = [
    Resource(
        uri="test://static-text",
        name="Static Text Resource",
        description="A text that never changes",
        mime_type="text/plain",
    ),
    Resource(
        uri="test://static-binary",
        name="Static Binary Resource",
        description="A picture that never changes",
        mime_type="image/png",
    ),
    Resource(
        uri=WATCHED,
        name="Watched Resource",
        description="A text to subscribe to",
        mime_type="text/plain",
    ),
]

TEMPLATES = [
    ResourceTemplate(
        uri_template="test://template/{id}/data",
        name="Resource Template",
        description="Data for the id in the URI",
        mime_type="application/json",
    )
]

_TEMPLATE = re.compile(r"test://template/([^/]+)/data")


def read(uri: str) -> ReadResourceResult:
    """Return the contents at ``uri``.

    Raises:
        MCPError: nothing is there; -32602 with the URI in ``data``, as 2026-07-28 wants it (SEP-2164).
    """
    match uri:
        case "test://static-text":
            return _text(uri, "text/plain", "This is the content of the static text resource.")
        case "test://static-binary":
            blob = BlobResourceContents(uri=uri, mime_type="image/png", blob=PNG)
            return ReadResourceResult(contents=[blob])
        case "test://watched-resource":
            return _text(uri, "text/plain", "Watched resource content")
    if found := _TEMPLATE.fullmatch(uri):
        name = found[1]
        body = {"id": name, "templateTest": True, "data": f"Data for ID: {name}"}
        return _text(uri, "application/json", json.dumps(body))
    raise MCPError(INVALID_PARAMS, "Resource not found", {"uri": uri})


def _text(uri: str, mime_type: str, text: str) -> ReadResourceResult:
    return ReadResourceResult(contents=[TextResourceContents(uri=uri, mime_type=mime_type, text=text)])
