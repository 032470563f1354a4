"""Settings → the policy room, with what it hears and what stands before the server's side.

In: settings and packs. Out: a `Policy`: who authorises, which ears listen, and the stages around the server. Without a
policy section there are none of these, and everything is allowed.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..model import Listen, Stage
from .learning import Learning
from .listing import Listing, VisibleOnly
from .rules import Rules
from .settings import PackSettings, PolicySettings
from .tool_classes import HintTable


class Policy:
    """The policy room as the house uses it."""

    def __init__(self, settings: PolicySettings | None, packs: Sequence[PackSettings] = ()) -> None:
        hints = HintTable()
        self.rules = Rules(settings, packs, hints.of)
        self.listens: tuple[Listen, ...] = ()
        """Ears for exchanges, in the order in which they hear."""
        self._listing: Listing | None = None
        if settings is None:
            return
        # Learnt before anything is cut out: a tool that one caller may not see has hints all the same.
        self.listens = (Learning([hints.learn]),)
        if settings.mode == "enforce":
            self._listing = Listing(
                self.rules.may_use, self.rules.may_use_template, lists_differ=self.rules.tells_callers_apart
            )
            self.listens = (*self.listens, self._listing.listen)

    def guarded(self, serve: Stage) -> Stage:
        """The stage behind what shows callers only what they may use."""
        return serve if self._listing is None else VisibleOnly(serve, self._listing)
