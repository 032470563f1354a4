"""Made-up evidence about settings that change: what honours each sentence, and what breaks it."""

from typing import Any

from msgspec.structs import replace

from tests.corpus.checks.reloads import DENIED, REFUSED_RELOAD
from tests.corpus.evidence import PASSED, ConfigReload, ReloadStorm, ReloadUnderWay
from tests.corpus.made_up import case, config_run

Change = dict[str, Any]

SAYS_SO = replace(case(), expect=replace(case().expect, outcome=(REFUSED_RELOAD,)))


def reloaded(**changes: Any) -> Change:
    """A file that was refused as it should be, while everything went on."""
    good = ConfigReload(
        file="settings.yaml",
        keys=("alow",),
        has_lines=True,
        mistakes=("/tmp/settings.yaml:1:9: tools.alow: unknown key",),
        printed='{"msg":"settings not reloaded"}',
        denied=DENIED,
        permitted=PASSED,
        readiness="degraded",
        recovered="ok",
        gauge=(1.0, 0.0),
        growth_bytes=1 << 20,
    )
    return {"reloads": (good, replace(good, **changes))}


def stormed(**changes: Any) -> Change:
    """Six seconds of wishes, of which one a second was granted."""
    storm = ReloadStorm(asked=600, length_s=6.0, ended_at=(10.0, 11.02, 12.1, 13.11))
    return {
        "reload_storm": replace(storm, **changes),
        "rss_growth_bytes": 1 << 20,
        "crowds": {"meanwhile": (PASSED,) * 200},
    }


def under_way(**changes: Any) -> Change:
    """Twenty calls were under way when the rules changed, and others came."""
    seen = ReloadUnderWay(
        begun=(PASSED,) * 20,
        behind=(DENIED,) * 20,
        behind_arrived=0,
        across=(PASSED, PASSED, DENIED, PASSED),
        across_arrived=3,
    )
    return {"under_way": replace(seen, **changes)}


SECRET: Change = {"runs": (config_run(secret="s3cret"),), **reloaded(secret="s3cret")}
SECRET["reloads"] = SECRET["reloads"][1:]

PAIRS: dict[str, tuple[Change, Change]] = {
    REFUSED_RELOAD: (reloaded(), reloaded(gauge=(1.0, 1.0))),
    "at most 1 reload per second": (stormed(), stormed(ended_at=(10.0, 11.02, 11.5))),
    "no request lost": (stormed(), {"crowds": {"meanwhile": (*(PASSED,) * 200, "502")}}),
    "no memory growth": (stormed(), {**stormed(), "rss_growth_bytes": 9 << 20}),
    "calls already authorised finish": (under_way(), under_way(begun=(PASSED, "not answered"))),
    "new calls use the new policy": (under_way(), under_way(behind=(DENIED, PASSED))),
    "never a mix inside one call": (under_way(), under_way(across=(PASSED, DENIED, "bare"))),
    "never printed": (
        SECRET,
        {**SECRET, "runs": (config_run(secret="s3cret", output="auth.key: s3cret"),)},
    ),
}
"""Sentence → a change that honours it, a change that breaks it."""

FORGOTTEN: tuple[Change, ...] = (
    {},
    reloaded(mistakes=None),
    reloaded(mistakes=()),
    reloaded(mistakes=("tools.alow: unknown key",)),
    reloaded(mistakes=("/tmp/settings.yaml:1:9: unknown key",)),
    reloaded(secret="s3cret", printed="auth.key: s3cret"),
    reloaded(denied=PASSED),
    reloaded(permitted=DENIED),
    reloaded(readiness="ok"),
    reloaded(recovered="degraded"),
    reloaded(growth_bytes=1 << 30),
)
"""Ways in which the settings of before are not in force, or nobody is told why others are not."""

ALSO_RED: tuple[tuple[str, Change], ...] = (
    *((REFUSED_RELOAD, each) for each in FORGOTTEN),
    (REFUSED_RELOAD, reloaded(gauge=(None, None))),
    ("never printed", {**SECRET, "reloads": ()}),
    ("never printed", {**SECRET, **reloaded(secret="s3cret", printed="auth.key: s3cret")}),
    (
        "never printed",
        {**SECRET, "reloads": (replace(SECRET["reloads"][0], printed="auth.key: s3cret"),)},
    ),
    ("at most 1 reload per second", {}),
    ("at most 1 reload per second", stormed(asked=100)),
    ("at most 1 reload per second", stormed(ended_at=(10.0, 11.02))),
    ("no request lost", stormed() | {"crowds": {"meanwhile": (PASSED,) * 20}}),
    ("no memory growth", {}),
    ("no memory growth", {**stormed(), "rss_growth_bytes": None}),
    ("calls already authorised finish", {}),
    ("calls already authorised finish", under_way(begun=())),
    ("calls already authorised finish", under_way(begun=(DENIED,))),
    ("new calls use the new policy", {}),
    ("new calls use the new policy", under_way(behind=())),
    ("new calls use the new policy", under_way(behind_arrived=1)),
    ("never a mix inside one call", {}),
    ("never a mix inside one call", under_way(across=(PASSED,) * 3)),
    ("never a mix inside one call", under_way(across=(DENIED,), across_arrived=0)),
    ("never a mix inside one call", under_way(begun=("bare",))),
    ("never a mix inside one call", under_way(across_arrived=4)),
)
"""Further ways to break a sentence, one per branch of its checker."""
