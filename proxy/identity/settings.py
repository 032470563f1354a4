"""How do callers prove who they are? The `identity` section: authenticators, told apart by `kind`."""

from typing import Annotated

from msgspec import Meta, Struct

from ..configuration.mistakes import Unfit
from ..configuration.values import fit


def check_label(text: str) -> None:
    """Raise Unfit unless this can name a tenant, subject or role: a key of limits and a metric label."""
    if not text.strip():
        raise Unfit("is blank", "limits and records are kept by this name", "give it a name")
    if text != text.strip() or not text.isprintable():
        raise Unfit("is no name", "spaces at its ends and control characters make look-alikes", "remove them")


Label = Annotated[str, Meta(max_length=256), fit(check_label)]


class AnonymousSettings(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="anonymous"
):
    """Everybody is the same principal, and needs no credential."""

    tenant: Label
    """The tenant every caller belongs to."""

    subject: Label = "anonymous"
    """The name every caller goes by."""

    roles: tuple[Label, ...] = ()
    """The roles every caller has."""


class IdentitySettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who may call at all."""

    authenticators: Annotated[tuple[AnonymousSettings, ...], Meta(min_length=1)] | None = None
    """Tried in order. Absent: everybody is anonymous in tenant `local`, on a loopback data port only."""
