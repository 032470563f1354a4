"""Settings → who uses the store that replicas share; password and authorities are read again when their files change.

In: the `shared_state` section. Out: a `Shared` or a `Link`, not connected yet. Keeps nothing. Needs the extra [redis];
whoever has no shared state does not import this.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable

from msgspec import structs

from ..configuration.files import SETTINGS_FILE_BYTES, read_bounded
from ..configuration.mistakes import Position, Report, SettingsError, Unfit, shown
from ..model import Took, Watches, nobody_counts
from .settings import SharedStateSettings
from .shared import Fallback, Shared
from .valkey_link import Greet, Link
from .valkey_url import Place

LONGEST_SHOWN_PATH = 4_096


def share(
    settings: SharedStateSettings,
    local: Fallback,
    *,
    watch: Watches,
    told: Callable[[str | None], None],
    wall: Callable[[], float],
    chance: Callable[[], float],
    took: Took = nobody_counts,
    now: Callable[[], float] = time.monotonic,
) -> Shared:
    """`local` decides in outages; the others are as `Shared` has them. Raises SettingsError where the authorities of
    `ca_file` cannot be read. IO: reads that file."""
    shared = Shared(
        settings.place,
        local,
        on_outage=settings.on_outage,
        local_share=settings.local_share,
        timeout_s=settings.timeout_s,
        namespace=settings.namespace,
        told=told,
        wall=wall,
        chance=chance,
        now=now,
        took=took,
        tls=_trusted(settings),
    )
    _follow_files(settings, watch, move=shared.move, trust=shared.trust)
    return shared


def link(
    settings: SharedStateSettings,
    greet: Greet,
    *,
    watch: Watches,
    told: Callable[[str | None], None],
    chance: Callable[[], float],
    max_reply_bytes: int,
) -> Link:
    """A connection beside the one of limits, for whoever else uses the store; words and errors as in `share`."""
    own = Link(
        settings.place,
        greet,
        told=told,
        chance=chance,
        tls=_trusted(settings),
        max_reply_bytes=max_reply_bytes,
    )

    def move(place: Place) -> None:
        own.place = place

    def trust(authorities: ssl.SSLContext) -> None:
        own.tls = authorities

    _follow_files(settings, watch, move=move, trust=trust)
    return own


def _trusted(settings: SharedStateSettings) -> ssl.SSLContext | None:
    return trusting(settings.ca_file) if settings.place.is_encrypted else None


def _follow_files(
    settings: SharedStateSettings,
    watch: Watches,
    *,
    move: Callable[[Place], None],
    trust: Callable[[ssl.SSLContext], None],
) -> None:
    """Whoever connects hears of a new password, and of new authorities, before it connects the next time."""
    place, password, ca_file = settings.place, settings.password, settings.ca_file

    def renew_password() -> None:
        assert password is not None
        move(structs.replace(place, password=password.renewed()))

    if password is not None and password.files:
        watch(password.files, renew_password)
    if ca_file is not None:
        watch((ca_file,), lambda: trust(trusting(ca_file)))


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
