"""`pin` against a real server, in both eras and over both transports."""

import io
from pathlib import Path

import pytest

from proxy.pinning import pin_tools
from proxy.policy.pin_command import PinWish
from proxy.policy.pin_file import read_pins
from proxy.upstream.settings import UpstreamSettings
from tests.conformance.stand import everything


@pytest.mark.parametrize("options", [(), ("--sse",)], ids=["streamable", "http_sse"])
async def test_a_real_server_is_pinned_and_has_not_changed_a_second_later(
    options: tuple[str, ...], tmp_path: Path
) -> None:
    """Every revision shows what was pinned: a check right after is clean."""
    wish = PinWish(file=str(tmp_path / "tools.lock"))
    async with everything(tmp_path, *options) as url:
        upstream = UpstreamSettings(url=url)
        out, err = io.StringIO(), io.StringIO()
        assert await pin_tools(upstream, wish, out, err) == 0, err.getvalue()
        names = {entry.name for entry in read_pins(wish.file).tools}
        assert {"test_simple_text", "test_error_handling"} <= names
        again = PinWish(file=wish.file, is_check=True)
        assert await pin_tools(upstream, again, out, err) == 0


async def test_nobody_there(tmp_path: Path) -> None:
    err = io.StringIO()
    wish = PinWish(file=str(tmp_path / "tools.lock"))
    code = await pin_tools(UpstreamSettings(url="http://127.0.0.1:9/mcp"), wish, io.StringIO(), err)
    assert code == 1
    assert "cannot be reached" in err.getvalue()
