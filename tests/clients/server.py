"""The fixture with everything, and three tools more, for cancellation and for news in a session.

python -m tests.clients.server --port 0 [--sse]
"""

from collections import defaultdict

import anyio
from mcp_types import CallToolRequestParams, Tool

from tests.servers.everything.__main__ import main
from tests.servers.everything.listing import TOOLS, ToolEntry
from tests.servers.everything.state import Context
from tests.servers.everything.tools import Run, ToolFailed, ToolResult, text

PATIENCE_S = 5.0
"""How long the server waits for a cancellation before it says that none came."""

_cancelled: defaultdict[str, anyio.Event] = defaultdict(anyio.Event)
"""By the label its caller gave: set when a call of test_wait is cancelled."""


def _label(params: CallToolRequestParams) -> str:
    label = (params.arguments or {}).get("label")
    if not isinstance(label, str):
        raise ToolFailed("The argument 'label' is required and must be a string")
    return label


async def _wait(ctx: Context, params: CallToolRequestParams) -> ToolResult:
    """Report once that it runs, then wait to be cancelled; one that nobody cancels ends by itself."""
    label = _label(params)
    await ctx.session.report_progress(0, 1, "waiting")
    try:
        await anyio.sleep(6 * PATIENCE_S)
    except anyio.get_cancelled_exc_class():
        _cancelled[label].set()
        raise
    return text("nobody cancelled")


async def _was_cancelled(ctx: Context, params: CallToolRequestParams) -> ToolResult:
    with anyio.move_on_after(PATIENCE_S):
        await _cancelled[_label(params)].wait()
        return text("cancelled")
    return text("still running")


async def _announce_tools(ctx: Context, params: CallToolRequestParams) -> ToolResult:
    """Tell this session, on its GET stream, that the tools changed. Listen streams have their own way."""
    await ctx.session.send_tool_list_changed()
    return text("announced")


def _add(name: str, description: str, run: Run) -> None:
    labelled = {"type": "object", "properties": {"label": {"type": "string"}}}
    TOOLS[name] = ToolEntry(Tool(name=name, description=description, input_schema=labelled), run)


_add("test_wait", "Waits until it is cancelled", _wait)
_add("test_was_cancelled", "Says whether the call with that label was cancelled", _was_cancelled)
_add("test_announce_tools", "Says that the list of tools changed", _announce_tools)

if __name__ == "__main__":
    main()
