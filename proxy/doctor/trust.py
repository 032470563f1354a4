"""Can callers be told apart, and will they tomorrow? Issuers, keys, certificates and clocks.

In: settings. Out: findings. Asks identity providers as the sidecar does (`identity/provider.py`). Sources: RFC 7517,
RFC 7662, RFC 5280 section 4.1.2.5 (validity).
"""

from __future__ import annotations

import contextlib
import os
import stat
from datetime import datetime
from typing import Final

import aiohttp

from ..configuration.documents import read_document
from ..configuration.files import read_bounded
from ..configuration.mistakes import SettingsError, Unfit, shown
from ..configuration.moments import day_or_moment_of
from ..downstream.tls import MAX_FILE_BYTES, Unusable, context_of, files_of
from ..identity.key_set import NoKeySet, read_key_set
from ..identity.keys_file import KeysFile
from ..identity.provider import Provider, Unavailable
from ..identity.settings import ApiKeySettings, IntrospectionSettings, JwtSettings
from ..settings import Settings
from .asking import Clocks, get
from .finding import Finding, Findings, fail, ok, warn

SOON_S: Final = 14 * 86_400.0
"""What ends within two weeks is told: time for somebody to be on leave."""
FETCH_S: Final = 4.0
NOBODYS_TOKEN: Final = "mcp-sidecar-doctor"  # noqa: S105  # it is nobody's
AWRY_S: Final = 5.0
"""Clocks that are kept by anything at all are nearer than this."""
LONGEST_PATH: Final = 4_096


async def issuer(settings: JwtSettings, clocks: Clocks) -> Findings:
    """Do its keys come, and can one of them be used?"""
    who = f"issuer {shown(settings.issuer, 200)}"
    provider = Provider(fetch_timeout_s=FETCH_S)
    try:
        document, _ = await provider.fetch(settings.jwks_url)
        is_usable = bool(read_key_set(document, frozenset(settings.algorithms)))
    except Unavailable as error:
        remedy = "tokens are refused with 503: is jwks_url right, and may this pod reach it?"
        return [fail("identity", f"{who}: its keys cannot be fetched: {error}", remedy)]
    except NoKeySet as error:
        return [fail("identity", f"{who}: what jwks_url gives is no key set: {error}", "correct jwks_url")]
    finally:
        await provider.close()
    with contextlib.suppress(OSError, aiohttp.ClientError):
        await get(settings.jwks_url, who, clocks)  # for its clock
    if not is_usable:
        remedy = "write the algorithms that the issuer signs with"
        return [fail("identity", f"{who}: none of its keys fits {', '.join(settings.algorithms)}", remedy)]
    return [ok("identity", f"{who}: its keys come and can be used")]


async def introspection(settings: IntrospectionSettings) -> Findings:
    """Does the endpoint answer us? Asked about a token of nobody's."""
    who = f"introspection at {shown(settings.url.partition('?')[0], 200)}"
    provider = Provider()
    try:
        await provider.ask(
            settings.url,
            {"token": NOBODYS_TOKEN},
            user=settings.client_id,
            secret=settings.client_secret,
            timeout_s=min(settings.timeout_s, FETCH_S),
        )
    except Unavailable as error:
        why = str(error)
        remedy = (
            "correct client_id and client_secret"
            if why in ("status 401", "status 403")
            else "is url right, and reachable?"
        )
        return [fail("identity", f"{who} gives no verdict: {why}", remedy)]
    finally:
        await provider.close()
    return [ok("identity", f"{who} answers")]


def keys(settings: ApiKeySettings, now: float) -> Findings:
    """Can the file be read, who may write it, and which keys end?"""
    file = shown(settings.keys_file, LONGEST_PATH)
    try:
        document = read_document(settings.keys_file, KeysFile)
        mode = os.stat(settings.keys_file).st_mode
    except SettingsError as error:
        return [fail("identity", shown(str(error.mistakes[0]), 600), "no key is accepted until it is right")]
    except OSError:
        return [fail("identity", f"{file} is gone", "write it with mcp-sidecar hash-key")]
    found: list[Finding] = []
    if mode & stat.S_IWOTH:
        what = f"{file} can be written by everybody, who can let themselves in"
        found.append(fail("identity", what, f"chmod o-w {file}"))
    ends = {each.id: day_or_moment_of(each.expires) for each in document.keys if each.expires is not None}
    over = [name for name, end in ends.items() if end <= now]
    soon = [name for name, end in ends.items() if now < end <= now + SOON_S]
    if over:
        found.append(warn("identity", f"{file}: ended: {_some(over)}", "remove them"))
    if soon:
        remedy = "make others with mcp-sidecar hash-key, and hand them out"
        found.append(warn("identity", f"{file}: end within two weeks: {_some(soon)}", remedy))
    left = len(document.keys) - len(over)
    if not left:
        found.append(
            fail("identity", f"{file} holds no key that counts", "make one with mcp-sidecar hash-key")
        )
    else:
        found.append(ok("identity", f"{file}: {left} {'key' if left == 1 else 'keys'}"))
    return found


def _some(names: list[str]) -> str:
    return ", ".join(sorted(names)[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def certificates(settings: Settings, now: float) -> Findings:
    """Can TLS be spoken with these files, and for how long?"""
    tls = settings.listen.tls
    if tls is None:
        if settings.listen.address.is_loopback or settings.identity.is_anonymous:
            return [ok("tls", "the data port speaks plain HTTP")]
        remedy = "write listen.tls, unless a mesh or a gateway of the same pod encrypts"
        return [warn("tls", "credentials reach the data port unencrypted from outside the pod", remedy)]
    try:
        context_of(tls, read_bounded)
    except Unusable as unusable:
        return [fail("tls", shown(str(unusable), 600), "until then nobody can connect")]
    found = [each for file in files_of(tls) if file != tls.key_file for each in _validity(file, now)]
    if os.stat(tls.key_file).st_mode & stat.S_IROTH:
        key = shown(tls.key_file, LONGEST_PATH)
        found.append(
            warn("tls", f"{key} can be read by everybody on this system", "chmod o-r, or defaultMode: 0440")
        )
    return found


def authorities(file: str, now: float) -> Findings:
    """Those that vouch for the store."""
    return _validity(file, now)


def _validity(file: str, now: float) -> list[Finding]:
    from cryptography import x509

    name = shown(file, LONGEST_PATH)
    try:
        held = x509.load_pem_x509_certificates(read_bounded(file, MAX_FILE_BYTES))
    except (Unfit, ValueError):
        return [fail("tls", f"{name} holds no certificate", "is it the right file?")]
    ends = min(each.not_valid_after_utc.timestamp() for each in held)
    begins = max(each.not_valid_before_utc.timestamp() for each in held)
    if ends <= now:
        return [fail("tls", f"{name} ended on {_day(ends)}", "renew it; it is read again by itself")]
    if begins > now:
        return [
            fail("tls", f"{name} begins on {_day(begins)} only", "is a clock wrong, here or at its issuer?")
        ]
    if ends <= now + SOON_S:
        return [warn("tls", f"{name} ends on {_day(ends)}", "renew it; it is read again by itself")]
    return [ok("tls", f"{name} is valid until {_day(ends)}")]


def _day(moment: float) -> str:
    return datetime.fromtimestamp(moment).astimezone().strftime("%Y-%m-%d %H:%M")


def clock(settings: Settings | None, clocks: Clocks) -> Findings:
    """Do others think it is the same time? They are asked before."""
    if not clocks.ahead_s:
        return [ok("clock", "nobody told the time, so it could not be compared")]
    jwts = (
        []
        if settings is None
        else [each for each in settings.identity.chosen if isinstance(each, JwtSettings)]
    )
    leeway_s = min((each.leeway_s for each in jwts), default=AWRY_S)
    who, ahead_s = max(clocks.ahead_s.items(), key=lambda each: abs(each[1]))
    says = f"{who} is {abs(ahead_s):.0f} s {'ahead of' if ahead_s > 0 else 'behind'} this clock"
    remedy = "let both clocks be set by NTP"
    if jwts and abs(ahead_s) > leeway_s:
        return [
            fail(
                "clock",
                f"{says}: good tokens are refused, or old ones accepted (leeway {leeway_s:g} s)",
                remedy,
            )
        ]
    if abs(ahead_s) > AWRY_S:
        return [warn("clock", says, remedy)]
    return [ok("clock", f"agrees with {', '.join(sorted(clocks.ahead_s))}")]
