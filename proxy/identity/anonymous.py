"""Everybody is one named principal: for loopback, or where the operator says so."""

from __future__ import annotations

from ..model import Call, Identify, Principal
from .settings import AnonymousSettings, IdentitySettings


class Anonymous:
    """Identifies every caller as the principal of its settings."""

    def __init__(self, settings: AnonymousSettings) -> None:
        self._principal = Principal(
            issuer="anonymous",
            subject=settings.subject,
            tenant=settings.tenant,
            roles=frozenset(settings.roles),
        )

    async def __call__(self, call: Call) -> Principal:
        return self._principal


def build(settings: IdentitySettings) -> Identify:
    """The authenticator the settings name; the single tenant `local` where they name none."""
    chosen = settings.chosen[0]
    assert isinstance(chosen, AnonymousSettings)
    return Anonymous(chosen)
