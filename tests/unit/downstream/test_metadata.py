"""The protected-resource document: where it is, and what it says."""

import json

import pytest

from proxy.downstream.metadata import Metadata
from proxy.model import Headers, PageRequest

RESOURCE = "https://tools.example.com/team/mcp"


def metadata(**changed: object) -> Metadata:
    words: dict[str, object] = {
        "issuers": ["https://a/", "https://b/", "https://a/"],
        "scopes": (),
        "path": "/mcp",
    }
    return Metadata(RESOURCE, **{**words, **changed})  # type: ignore[arg-type]  # words of the test


async def read(metadata: Metadata, path: str) -> object:
    page = metadata(path)
    assert page is not None
    assert page.methods == {"GET", "OPTIONS"}
    reply = await page.answer(PageRequest(method="GET", path=path, headers=Headers()))
    assert (reply.status, reply.headers.get("content-type")) == (200, "application/json")
    assert isinstance(reply.body, bytes)
    return json.loads(reply.body)


@pytest.mark.parametrize("path", ["", "/team/mcp", "/mcp"])
async def test_the_document_is_at_every_path_clients_try(path: str) -> None:
    """RFC 9728 section 3.1; behind a prefix our own path and the public one differ."""
    assert await read(metadata(), f"/.well-known/oauth-protected-resource{path}") == {
        "resource": RESOURCE,
        "authorization_servers": ["https://a/", "https://b/"],
        "bearer_methods_supported": ["header"],
    }


async def test_scopes_are_named_where_an_operator_names_them() -> None:
    """protocol.md 8.8: not all there are, only those clients should ask for."""
    document = await read(metadata(scopes=("mcp:call",)), "/.well-known/oauth-protected-resource")
    assert isinstance(document, dict)
    assert document["scopes_supported"] == ["mcp:call"]


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/mcp",
        "/.well-known/oauth-protected-resource/",
        "/.well-known/oauth-protected-resource/team",
        "/.well-known/oauth-authorization-server",
        "/.WELL-KNOWN/oauth-protected-resource",
    ],
)
def test_other_paths_have_no_document(path: str) -> None:
    """Paths are compared exactly."""
    assert metadata()(path) is None
