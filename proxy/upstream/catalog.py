"""What the answers to tools/list taught us about the server's tools.

In: results of tools/list as they pass, and calls. Out: `Refused` where a call contradicts what its tool
declares. Keeps, for each identity, which headers mirror which arguments: lists may vary by caller, so what one
was told decides nothing for another. Bounded; whoever is forgotten is simply not compared until the next list.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final

from ..model import Call, Principal
from ..protocol.mirrors import Mirrors, compare_params, mirrors_of

MAX_IDENTITIES: Final = 10_000
MAX_TOOLS: Final = 2_000
"""Tools with mirrors, for each identity."""

_LIST: Final = "tools/list"
_Identity = tuple[str, str, str]


class Catalog:
    """Learns while it listens; asks the server nothing."""

    def __init__(self, listed: Callable[[Iterable[object]], None] | None = None) -> None:
        """`listed` hears the names of tools, whoever asked; a server may list anything."""
        self._listed = listed
        self._mirrors: OrderedDict[_Identity, dict[str, Mirrors]] = OrderedDict()

    def pupil(self, principal: Principal, call: Call) -> Callable[[Call, object], None] | None:
        """What hears the results of a call, and of each message of a batch; None where there is nothing to learn."""
        return partial(self.heard, principal) if call.parts or call.method == _LIST else None

    def heard(self, principal: Principal, call: Call, result: object) -> None:
        """A result has passed. Of tools/list it teaches names, in a revision with mirrors also those."""
        if call.method != _LIST or not isinstance(result, dict):
            return
        tools = result.get("tools")
        if self._listed is not None and isinstance(tools, list):
            self._listed(tool.get("name") for tool in tools if isinstance(tool, dict))
        if not call.revision.mirrors_headers:
            return
        for tool in tools if isinstance(tools, list) else ():
            if isinstance(tool, dict) and isinstance(tool.get("name"), str):
                self._learn(principal, tool["name"], mirrors_of(tool.get("inputSchema")))

    def check(self, principal: Principal, call: Call) -> None:
        """Compare a call with what its tool declares. Raises Refused (header_mismatch)."""
        if call.method != "tools/call" or not call.revision.mirrors_headers or call.target is None:
            return
        known = self._mirrors.get(_identity(principal))
        if known is not None and (mirrors := known.get(call.target)):
            compare_params(call, mirrors)

    def _learn(self, principal: Principal, name: str, mirrors: Mirrors) -> None:
        identity = _identity(principal)
        known = self._mirrors.get(identity)
        if known is None:
            if not mirrors:
                return  # nearly every tool: nothing to keep
            known = self._mirrors[identity] = {}
            if len(self._mirrors) > MAX_IDENTITIES:
                self._mirrors.popitem(last=False)
        self._mirrors.move_to_end(identity)
        if mirrors and (name in known or len(known) < MAX_TOOLS):
            known[name] = mirrors
        else:
            known.pop(name, None)


def _identity(principal: Principal) -> _Identity:
    return principal.issuer, principal.tenant, principal.subject
