"""Which transport is used for which server."""

from __future__ import annotations

import sys

import pytest

from proxy.upstream.choosing import is_local, transport_for


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("http://127.0.0.1:8000/mcp", True),
        ("http://127.9.9.9/mcp", True),
        ("http://[::1]:8000/mcp", True),
        ("http://localhost:8000/mcp", True),
        ("http://LOCALHOST/mcp", True),
        ("http+unix://%2Frun%2Fmcp.sock/mcp", True),
        ("https://127.0.0.1:8000/mcp", False),
        ("http://10.0.0.1:8000/mcp", False),
        ("http://[::2]/mcp", False),
        ("http://0.0.0.0:8000/mcp", False),
        ("http://server:8000/mcp", False),
        ("http://localhost.example.com/mcp", False),
        ("http://127.0.0.1.example.com/mcp", False),
    ],
)
def test_plain_http_on_this_machine_is_lean(url: str, local: bool) -> None:
    """issue 10, 2: chosen by itself for a plain-HTTP local origin."""
    assert is_local(url) is local
    assert transport_for(url).name == ("lean" if local else "aiohttp")


def test_without_its_library_there_is_no_lean_transport(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra [fast] is one."""
    monkeypatch.setitem(sys.modules, "httptools", None)
    assert transport_for("http://127.0.0.1:8000/mcp").name == "aiohttp"
