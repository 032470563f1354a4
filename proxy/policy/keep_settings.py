"""How long and for whom may an answer be kept? Part of a rule of the `policy` section. Light."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from msgspec import Meta, Struct

from ..configuration.mistakes import Unfit
from ..configuration.values import fit
from ..model import Keep

_Seconds: TypeAlias = Annotated[float, Meta(ge=0, le=604_800)]
Argument: TypeAlias = Annotated[str, Meta(min_length=1, max_length=256)]
MAX_ARGUMENTS = 64


class Vary(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which arguments make two calls different. Absent: all."""

    ignore: Annotated[tuple[Argument, ...], Meta(max_length=MAX_ARGUMENTS)] = ()
    """Names of arguments that do not change the answer, a request's own number for example."""

    only: Annotated[tuple[Argument, ...], Meta(max_length=MAX_ARGUMENTS)] | None = None
    """Names of the only ones that do."""


def _check_vary(vary: Vary) -> None:
    if vary.ignore and vary.only is not None:
        raise Unfit("has both ignore and only", "an argument counts or it does not", "keep one of the two")


class CacheRule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long answers of a tool are kept, for whom, and what of a call they belong to."""

    ttl_s: Annotated[float, Meta(gt=0, le=604_800)]
    """How long an answer is as good as new."""

    stale_while_revalidate_s: _Seconds = 0
    """How much longer it is given while a new one is fetched."""

    stale_if_error_s: _Seconds = 0
    """How much longer it is given where the server fails."""

    share: Literal["caller", "tenant", "all"] = "caller"
    """Who gets what one caller was answered. caller: only one with the same issuer, subject, tenant, roles and scopes.
    tenant and all: only callers for whom the same rule decides."""

    vary: Annotated[Vary, fit(_check_vary)] = Vary()
    """Which arguments make two calls different."""

    negative_ttl_s: _Seconds = 0
    """How long a JSON-RPC error that says not found (-32601, -32602) is kept."""

    any_session: bool = False
    """true: in revisions with sessions, the session does not change the answer."""

    def keep(self) -> Keep:
        """What the rule says of its calls."""
        return Keep(
            ttl_s=self.ttl_s,
            stale_while_revalidate_s=self.stale_while_revalidate_s,
            stale_if_error_s=self.stale_if_error_s,
            share=self.share,
            ignore=self.vary.ignore,
            only=self.vary.only,
            negative_ttl_s=self.negative_ttl_s,
            any_session=self.any_session,
        )
