"""The examination: every check at once, each within a time, and what they found in a fixed order.

In: the words of the command line. Out: lines, or one JSON document, and an exit code: 0 without a failure, 1 with one.
A check that hangs is a finding, and so is one that breaks: the others are heard all the same. Settings that cannot be
read are failures; what can be asked without them is asked.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, TextIO, TypeAlias

import msgspec
from msgspec import Struct

from ..configuration.mistakes import Mistake, SettingsError, shown
from ..configuration.values import Address
from ..identity.settings import ApiKeySettings, IntrospectionSettings, JwtSettings
from ..settings import Settings, attempt
from . import machine, places, trust, ways
from .asking import Clocks
from .finding import Finding, Findings, Level, fail, ok

CHECK_S: Final = 5.0
"""For one check. All run at once, and the clock's afterwards: what is asked of the network ends within this time."""
HEALTHY: Final = 0
UNWELL: Final = 1
_MARKS: Final[Mapping[Level, str]] = {"ok": "ok  ", "warn": "WARN", "fail": "FAIL"}

Check: TypeAlias = Callable[[], Awaitable[Findings]]


class Wish(Struct, frozen=True, kw_only=True):
    """What the command line asks for."""

    file: Path | None = None
    overrides: Sequence[str] = ()
    server_address: Address | None = None
    """Where the server should not be reached."""
    is_json: bool = False


def doctor(wish: Wish, environ: Mapping[str, str], out: TextIO, *, wall: Callable[[], float]) -> int:
    """Examine, print, and return the exit code. `wall`: seconds from 1970."""
    findings: list[Finding] = []

    def look() -> None:
        findings.extend(asyncio.run(_examined(wish, environ, wall)))

    # A name that is being looked up, or a file on a dead volume, holds a thread that nobody can end. It must not hold
    # whoever waits for findings.
    examining = threading.Thread(target=look, daemon=True)
    examining.start()
    examining.join(2 * CHECK_S + 2)
    if not findings:
        findings.append(
            fail("doctor", "the examination does not end", "is a name server or a mounted volume dead?")
        )
    if wish.is_json:
        out.write(msgspec.json.encode({"findings": findings, **_counts(findings)}).decode() + "\n")
    else:
        _print(findings, out)
    out.flush()
    code = UNWELL if any(each.level == "fail" for each in findings) else HEALTHY
    if examining.is_alive():
        os._exit(code)  # everything is said, and the threads of the look-up would be waited for
    return code


async def _examined(wish: Wish, environ: Mapping[str, str], wall: Callable[[], float]) -> list[Finding]:
    read = attempt(wish.file, overrides=wish.overrides, environ=environ)
    settings, clocks = read.settings, Clocks(wall)
    found = [_mistaken(each) for each in read.mistakes]
    if not found:
        found = [ok("settings", f"{_named(wish.file)}: no mistakes")]
    checks = _checks(settings, wish, clocks, wall)
    answers = await asyncio.gather(*(_within(name, check) for name, check in checks))
    found += [finding for each in answers for finding in each]
    return [*found, *trust.clock(settings, clocks)]


def _checks(
    settings: Settings | None, wish: Wish, clocks: Clocks, wall: Callable[[], float]
) -> list[tuple[str, Check]]:
    """In the order in which they are printed."""
    found: list[tuple[str, Check]] = []
    if settings is not None:
        found.append(("operations", lambda: ways.operations(settings, clocks)))
        found.append(("upstream", lambda: ways.upstream(settings, clocks)))
        found.append(("exposure", lambda: ways.exposure(settings)))
    found.append(("bypass", lambda: ways.bypass(settings, wish.server_address)))
    if settings is not None:
        found += [("identity", each) for each in _identity(settings, clocks, wall)]
        found.append(("policy", lambda: _policy(settings, wish.file)))
        found.append(("tls", lambda: asyncio.to_thread(trust.certificates, settings, wall())))
        found += _store(settings, clocks, wall)
        found.append(("files", lambda: asyncio.to_thread(places.places, settings)))
        found.append(("memory", lambda: _at_once(lambda: machine.memory(settings))))
    found.append(("descriptors", lambda: _at_once(machine.descriptors)))
    found.append(("versions", lambda: _at_once(machine.versions)))
    return found


async def _at_once(check: Callable[[], Findings]) -> Findings:
    return check()


def _identity(settings: Settings, clocks: Clocks, wall: Callable[[], float]) -> list[Check]:
    found: list[Check] = []
    for each in settings.identity.chosen:
        match each:
            case JwtSettings() as jwt:
                found.append(lambda jwt=jwt: trust.issuer(jwt, clocks))  # type: ignore[misc]
            case IntrospectionSettings() as asked:
                found.append(lambda asked=asked: trust.introspection(asked))  # type: ignore[misc]
            case ApiKeySettings() as keys:
                found.append(lambda keys=keys: asyncio.to_thread(trust.keys, keys, wall()))  # type: ignore[misc]
    return found


def _store(settings: Settings, clocks: Clocks, wall: Callable[[], float]) -> list[tuple[str, Check]]:
    shared = settings.shared_state
    if shared is None:
        return []
    from .store import store  # needs an extra

    is_for_cache = settings.cache is not None and settings.cache.shared
    found: list[tuple[str, Check]] = [("store", lambda: store(shared, clocks, is_for_cache=is_for_cache))]
    if (file := shared.ca_file) is not None:
        found.append(("tls", lambda: asyncio.to_thread(trust.authorities, file, wall())))
    return found


async def _policy(settings: Settings, file: Path | None) -> Findings:
    """Does the room of rules come up as it would in service? Packs, pins, patterns, expressions."""
    from ..policy.building import Policy
    from ..policy.packs import read_packs

    section = settings.policy
    if section is None:
        return [ok("policy", "none: whoever may call at all may call everything")]

    def nobody(*_: object) -> None:
        """What is found in answers: there are none."""

    packs = read_packs(section, None if file is None else file.parent)
    Policy(section, packs, form=settings.refusals, found=nobody, drifted=nobody, token=lambda: "0" * 32)
    mode = "enforced" if section.mode == "enforce" else "only reported"
    return [ok("policy", f"{len(section.tools)} rules and {len(packs)} packs load, and are {mode}")]


async def _within(name: str, check: Check) -> Findings:
    try:
        async with asyncio.timeout(CHECK_S):
            return await check()
    except TimeoutError:
        return [
            fail(
                name,
                f"there was no answer within {CHECK_S:g} s",
                "what it asks hangs: see the other findings",
            )
        ]
    except SettingsError as error:
        return [_mistaken(each, name) for each in error.mistakes]
    except (
        Exception
    ) as error:  # one check that breaks must not take the others along; its text may hold anything
        return [
            fail(
                name,
                f"could not be looked at: {type(error).__name__}",
                "please report this with your settings",
            )
        ]


def _mistaken(mistake: Mistake, name: str = "settings") -> Finding:
    place = f"{mistake.file}:{mistake.line}:{mistake.column}: " if mistake.line else f"{mistake.file}: "
    says = f"{place}{mistake.path + ': ' if mistake.path else ''}{mistake.what}, {mistake.why}"
    return fail(name, shown(says, 1_000), mistake.remedy)


def _named(file: Path | None) -> str:
    return "no settings file" if file is None else shown(str(file), 4_096)


def _counts(findings: Findings) -> dict[str, int]:
    return {level: sum(each.level == level for each in findings) for level in _MARKS}


def _print(findings: Findings, out: TextIO) -> None:
    encoding = out.encoding or "utf-8"

    def line(text: str) -> None:
        out.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")

    for each in findings:
        line(f"{_MARKS[each.level]} {each.check:<11} {each.says}")
        if each.remedy:
            line(f"     {'':<11} → {each.remedy}")
    counts = _counts(findings)
    line(f"{counts['ok']} ok, {counts['warn']} to look at, {counts['fail']} failed")
