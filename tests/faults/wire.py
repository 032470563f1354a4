"""The script of every fault that is only a wire's: begin, call, end, look."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence

from .caller import UNCONNECTED
from .catalog import Fault
from .lab import Lab, Report, finish
from .observed import Expected, beyond_budget
from .rules import Struck


async def run(fault: Fault, lab: Lab) -> Report:
    """One fault under its crowd."""
    report = Report(fault=fault.name)
    async with lab.scene(*fault.settings) as scene:
        await scene.warm_up()
        before = len(scene.crowd.told)
        await scene.faulter.follow(*fault.rules)
        began = time.monotonic()
        told = await scene.crowd.calls(
            fault.tool,
            count=lab.many(fault.count, fault.at_once),
            at_once=fault.at_once,
            arguments=fault.arguments,
            patience_s=fault.patience_s,
            revision=fault.revision,
        )
        took_s = time.monotonic() - began
        report.injected = await scene.faulter.injected()
        await scene.faulter.follow()
        ends = Counter(each.how for each in told)
        if fault.counted == "told":
            report.injected = sum(ends[how] for how in fault.must)
        report.broken += [f"nobody was told {how}" for how in fault.must if not ends[how]]
        if UNCONNECTED in ends:
            report.broken.append(f"{ends[UNCONNECTED]} callers could not even connect")
        expected = Expected(may=frozenset(fault.may), is_idempotent=fault.is_idempotent)
        figures = {"per s": f"{len(told) / took_s:.0f}", **_places(scene.faulter.struck(), fault)}
        figures["longest"] = f"{max(each.took_s for each in scene.crowd.told[before:]):.2f} s"
        await finish(scene, report, expected, figures)
        if fault.is_complete and lab.scale >= 1 and (missed := _missed(scene.faulter.struck())):
            report.broken.append(f"{missed} places were never struck")
        if fault.is_idempotent:
            asked = [(each.nonce, each.at_ns / 1e9) for each in scene.faulter.struck() if not each.does]
            report.broken += [f"budget: {each}" for each in beyond_budget(asked)]
    return report


def _missed(struck: Sequence[Struck]) -> int:
    """How many places of the messages were not struck; most messages are equally long."""
    deeds = [each for each in struck if each.does]
    usual = Counter(each.of for each in deeds).most_common(1)[0][0]
    return usual - len({each.place for each in deeds if each.place < usual})


def _places(struck: Sequence[Struck], fault: Fault) -> dict[str, str]:
    if not any(rule.sweeps for rule in fault.rules):
        return {}
    return {"places": f"{len({each.place for each in struck if each.does})}"}
