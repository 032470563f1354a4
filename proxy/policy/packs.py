"""Which rules do others share with us? Names and paths in; the packs they stand for, or every mistake in them.

A name without slash and suffix is a shipped pack (`shipped`), everything else a path from the settings file. IO: reads
those files and those they refer to.
"""

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from ..configuration.documents import document_of
from ..configuration.files import SETTINGS_FILE_BYTES, read_bounded
from ..configuration.mistakes import Mistake, Report, SettingsError, Unfit, did_you_mean, shown
from .settings import EVERYBODY, PackSettings, PolicySettings
from .shipped import packs


def read_packs(settings: PolicySettings | None, base: Path | None = None) -> tuple[PackSettings, ...]:
    """The packs of a policy, in its order. Paths count from `base`, or from where the process runs.

    Raises SettingsError with every mistake of all of them.
    """
    if settings is None:
        return ()
    read: list[PackSettings] = []
    mistakes: list[Mistake] = []
    for name in settings.packs:
        try:
            read.append(read_pack(located(name, base), settings.roles))
        except SettingsError as error:
            mistakes.extend(error.mistakes)
        except Unfit as unfit:
            mistakes.append(Mistake(shown(name), None, None, "", unfit.what, unfit.why, unfit.remedy))
    if mistakes:
        raise SettingsError(tuple(mistakes))
    return tuple(read)


def read_pack(
    path: str, roles: Collection[str] = (), environ: Mapping[str, str] = os.environ
) -> PackSettings:
    """The pack in the file, whose rules may name these roles; any where there are none.

    Raises Unfit when the file cannot be read, SettingsError with the mistakes in it.
    """
    content = read_bounded(path, SETTINGS_FILE_BYTES)
    return document_of(content, path, PackSettings, environ, check=_check(roles))


def located(name: str, base: Path | None = None) -> str:
    """The file that stands for an entry of `policy.packs`: a path from `base`, made absolute. Raises Unfit."""
    if "/" in name or "." in name:
        return str(((base or Path()) / name).absolute())
    known = packs()
    if name not in known:
        raise Unfit("is no shipped pack", "there is none of this name", did_you_mean(name, known))
    return str(known[name])


def _check(roles: Collection[str]) -> Callable[[Mapping[str, object], Report], None]:
    def check(values: Mapping[str, object], report: Report) -> None:
        for path, value in values.items():
            if path.endswith((".allow", ".deny")) and isinstance(value, tuple):
                _check_roles(path, value, roles, report)
            if path.endswith(".overrides_packs") and value is True:
                why = "whoever writes a pack would lift what others deny"
                report.add(
                    report.place_of(path), path, "stands in a pack", why, "say so in the settings file"
                )

    return check


def _check_roles(path: str, named: Sequence[str], roles: Collection[str], report: Report) -> None:
    for index, name in enumerate(named):
        if roles and name != EVERYBODY and name not in roles:
            here, why = f"{path}[{index}]", "it is none of policy.roles"
            report.add(report.place_of(here), here, "names no role", why, did_you_mean(name, roles))
