"""Everybody is one named principal: for loopback, or where the operator says so."""

from __future__ import annotations

from ..model import Call, Principal
from .settings import AnonymousSettings


class Anonymous:
    """Identifies every caller as the principal of its settings."""

    def __init__(self, settings: AnonymousSettings) -> None:
        self.principal = Principal(
            issuer="anonymous",
            subject=settings.subject,
            tenant=settings.tenant,
            roles=frozenset(settings.roles),
        )

    def __call__(self, call: Call) -> Principal:
        return self.principal
