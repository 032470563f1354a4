"""Does a tool read, write or endanger? What a rule says; else what the server hints, as far as it is believed.

In: a rule's class, the default, the server's hints. Out: a class. Keeps the hints of each caller's own lists, bounded:
whoever is forgotten gets the default until the next list. Source: MCP tool annotations; clients MUST take them for
untrusted unless the server is trusted, so that untrusted ones may only tighten.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from ..model import Call, Identity, Principal
from .settings import ToolClass

MAX_IDENTITIES: Final = 10_000
MAX_TOOLS: Final = 2_000
_STRICTNESS: Final[dict[ToolClass, int]] = {"read": 0, "write": 1, "dangerous": 2}


class Hints(Struct, frozen=True):
    """What a server says of a tool. Anything but a true or false is the default of the specification."""

    read_only: bool = False
    destructive: bool = True

    @property
    def tool_class(self) -> ToolClass:
        if self.read_only:
            return "read"
        return "dangerous" if self.destructive else "write"


def hints_in(tool: object) -> Hints | None:
    """The hints in a definition; None where it has none."""
    annotations = tool.get("annotations") if isinstance(tool, dict) else None
    if not isinstance(annotations, dict):
        return None
    read_only, destructive = annotations.get("readOnlyHint"), annotations.get("destructiveHint")
    if not isinstance(read_only, bool) and not isinstance(destructive, bool):
        return None
    return Hints(read_only is True, destructive is not False)


def class_of(default: ToolClass, hints: Hints | None, *, are_trusted: bool) -> ToolClass:
    """The class of a tool that no rule gives one."""
    if hints is None:
        return default
    said = hints.tool_class
    if are_trusted:
        return said
    return max(default, said, key=_STRICTNESS.__getitem__)


class HintTable:
    """What the server told whom of its tools."""

    def __init__(self) -> None:
        self._hints: OrderedDict[Identity, dict[str, Hints]] = OrderedDict()

    def learn(self, principal: Principal, call: Call, page: Mapping[str, object]) -> None:
        """Fulfils `learning.Learn`. Of two tools of one name the stricter hints count."""
        tools = page.get("tools")
        known = self._hints.setdefault(principal.identity, {})
        self._hints.move_to_end(principal.identity)
        if len(self._hints) > MAX_IDENTITIES:
            self._hints.popitem(last=False)
        seen: set[str] = set()
        for tool in tools if isinstance(tools, list) else ():
            name = tool.get("name") if isinstance(tool, dict) else None
            if isinstance(name, str):
                self._learn(known, name, hints_in(tool), again=name in seen)
                seen.add(name)

    def of(self, principal: Principal, name: str) -> Hints | None:
        known = self._hints.get(principal.identity)
        return None if known is None else known.get(name)

    def _learn(self, known: dict[str, Hints], name: str, hints: Hints | None, *, again: bool) -> None:
        if hints is None:
            if not again:
                known.pop(name, None)
            return
        before = known.get(name)
        if again and before is not None:
            hints = max(before, hints, key=lambda each: _STRICTNESS[each.tool_class])
        if name in known or len(known) < MAX_TOOLS:
            known[name] = hints
