"""Settings → the limits that replicas share, whose password and authorities are read again when their files change.

In: the `shared_state` section. Out: a `Shared`, not connected yet. Keeps nothing. Needs the extra [redis]; whoever has
no shared state does not import this.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from msgspec import structs

from ..configuration.files import SETTINGS_FILE_BYTES, read_bounded
from ..configuration.mistakes import Position, Report, SettingsError, Unfit, shown
from .settings import SharedStateSettings
from .shared import Fallback, Shared
from .valkey_url import Place

Watch: TypeAlias = Callable[[tuple[str, ...], Callable[[], Awaitable[None] | None]], None]
"""Paths, and what to do when a file among them has changed."""

LONGEST_SHOWN_PATH = 4_096


def share(
    settings: SharedStateSettings,
    local: Fallback,
    *,
    watch: Watch,
    told: Callable[[str | None], None],
    wall: Callable[[], float],
    chance: Callable[[], float],
    now: Callable[[], float] = time.monotonic,
) -> Shared:
    """`local` decides in outages; the others are as `Shared` has them. Raises SettingsError where the authorities of
    `ca_file` cannot be read. IO: reads that file."""
    place = settings.place
    password, ca_file = settings.password, settings.ca_file
    shared = Shared(
        place,
        local,
        on_outage=settings.on_outage,
        local_share=settings.local_share,
        timeout_s=settings.timeout_s,
        namespace=settings.namespace,
        told=told,
        wall=wall,
        chance=chance,
        now=now,
        tls=trusting(ca_file) if place.is_encrypted else None,
    )

    def renew_password() -> None:
        assert password is not None
        renewed: Place = structs.replace(place, password=password.renewed())
        shared.move(renewed)

    def renew_authorities() -> None:
        shared.trust(trusting(ca_file))

    if password is not None and password.files:
        watch(password.files, renew_password)
    if ca_file is not None:
        watch((ca_file,), renew_authorities)
    return shared


def trusting(ca_file: str | None) -> ssl.SSLContext:
    """Who trusts the authorities of a file, or those of the system. Raises SettingsError. IO: reads the file."""
    # Not ssl.create_default_context: that logs keys where the environment asks.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if ca_file is None:
        context.load_default_certs()
        return context
    try:
        context.load_verify_locations(cadata=read_bounded(ca_file, SETTINGS_FILE_BYTES).decode("ascii"))
    except Unfit as unfit:
        raise _mistake(ca_file, unfit) from None
    except (ssl.SSLError, ValueError):
        why, remedy = "OpenSSL finds no certificates in it", "write them in PEM form"
        raise _mistake(ca_file, Unfit("holds no authorities", why, remedy)) from None
    return context


def _mistake(file: str, unfit: Unfit) -> SettingsError:
    report = Report()
    report.add_unfit(Position(shown(file, LONGEST_SHOWN_PATH)), "shared_state.ca_file", unfit)
    return SettingsError(report.mistakes)
