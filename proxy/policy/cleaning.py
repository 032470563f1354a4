"""What hides in a tool's definition, or in the server's instructions, and does not reach clients? Bytes of an entry of
a list in, the very same or fewer out. Keeps, bounded, what was made of the entries that were seen last.

Which tools are not listed at all is not decided here: their names are refused, in lists as in calls (pins.py).
"""

from __future__ import annotations

from collections import OrderedDict
from hashlib import sha256
from typing import Final

from ..model import Principal
from ..protocol.answers import Malformed, read_tree
from .flags import stripped, texts_of
from .invisible import KINDS, hidden_in, strip
from .pin_settings import DefinitionSettings
from .pins import Pins

MAX_KEPT: Final = 2_048
MAX_KEPT_BYTES: Final = 16_384
"""Of one cleaned entry that is remembered."""


class Cleaning:
    """Takes out of texts what the settings say."""

    def __init__(self, settings: DefinitionSettings, pins: Pins) -> None:
        self._kinds = frozenset(kind for kind in KINDS if settings.action_of(kind) == "strip")
        self._pins = pins
        self._kept: OrderedDict[bytes, bytes | None] = OrderedDict()

    def tool(self, entry: bytes) -> bytes:
        """The definition without what hides in its texts: the very same bytes where nothing does. Raises Malformed."""
        if not self._kinds or _is_plain(entry):
            return entry
        key = sha256(entry).digest()
        if key in self._kept:
            self._kept.move_to_end(key)
            kept = self._kept[key]
            return entry if kept is None else kept
        clean = self._cleaned(entry)
        if clean is None or len(clean) <= MAX_KEPT_BYTES:
            self._kept[key] = clean
            if len(self._kept) > MAX_KEPT:
                self._kept.popitem(last=False)
        return entry if clean is None else clean

    def instructions(self, principal: Principal, text: str) -> str:
        """What the client gets of the server's instructions; nothing where they may not be shown."""
        sight = self._pins.heard_instructions(principal.identity, text)
        if sight.action == "hide":
            return ""
        return strip(text, sight.kinds) if sight.kinds else text

    def _cleaned(self, entry: bytes) -> bytes | None:
        definition = read_tree(entry)
        if not isinstance(definition, dict):
            raise Malformed
        hidden = {kind for text in texts_of(definition) for kind in hidden_in(text)}
        return stripped(definition, self._kinds & hidden) if self._kinds & hidden else None


def _is_plain(entry: bytes) -> bool:
    """Whether nothing can hide: printable ASCII, and no escape that stands for something else."""
    return (
        entry.isascii()
        and b"\\u" not in entry
        and b"\\b" not in entry
        and b"\\f" not in entry
        and b"\x7f" not in entry
    )
