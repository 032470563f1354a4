"""Clauses of the config outcomes: what a process that runs must do when its settings change."""

import itertools

from tests.corpus.checks.common import Check
from tests.corpus.checks.config import SPARE_RSS_BYTES, names_place
from tests.corpus.evidence import PASSED, ConfigReload, Evidence

REFUSED_RELOAD = "reload: refused, old config stays active, metric config_reload_failed +1"
DENIED = "not_allowed"
STORM_RSS_BYTES = 8 << 20
"""What a storm of reloads may leave."""
LEAST_RELOADS = 3
"""As few show that there is a second between them."""
BETWEEN_S = 0.98
"""That second, but for the clock of the log."""
LEAST_CALLS = 100
"""Fewer in a storm show nothing."""


def old_settings_stay(e: Evidence) -> str | None:
    """The file is refused, with what is wrong and where, and all goes on as before until a good one comes."""
    return next(filter(None, map(_stays, e.reloads)), None) if e.reloads else "nothing was reloaded"


def _stays(reload: ConfigReload) -> str | None:
    if not reload.mistakes:
        return f"the log names no mistake: {reload.mistakes}"
    if said := names_place(reload, " ".join(reload.mistakes)):
        return f"the log {said}"
    if reload.secret is not None and reload.secret in reload.printed:
        return "the log has the secret of the file"
    if (reload.denied, reload.permitted) != (DENIED, PASSED):
        return f"a call that was denied is {reload.denied}, another {reload.permitted}"
    if (reload.readiness, reload.recovered) != ("degraded", "ok"):
        return f"the probe says {reload.readiness}, and with the good file {reload.recovered}"
    if reload.growth_bytes > SPARE_RSS_BYTES:
        return f"it grew by {reload.growth_bytes >> 20} MB"
    return None


def reload_refused(e: Evidence) -> str | None:
    """The same, and the metric says so: ours is a gauge, which the corpus' counter is another word for."""
    if said := old_settings_stay(e):
        return said
    gauges = {each.gauge for each in e.reloads}
    return None if gauges == {(1.0, 0.0)} else f"the metric went from and to {sorted(map(str, gauges))}"


def one_a_second(e: Evidence) -> str | None:
    """However often they are wished, reloads have a second between them."""
    storm = e.reload_storm
    if storm is None or storm.asked < 50 * storm.length_s:
        return "nobody wished for reloads, or too seldom"
    if len(storm.ended_at) < LEAST_RELOADS:
        return f"{len(storm.ended_at)} reloads in {storm.length_s:.1f} s show nothing"
    closest_s = min(after - before for before, after in itertools.pairwise(storm.ended_at))
    return f"two reloads within {closest_s:.3f} s" if closest_s < BETWEEN_S else None


def none_lost(e: Evidence) -> str | None:
    """Every call is answered by the server."""
    meanwhile = e.crowds.get("meanwhile", ())
    if len(meanwhile) < LEAST_CALLS:
        return f"{len(meanwhile)} calls show nothing"
    lost = [each for each in meanwhile if each != PASSED]
    return f"{len(lost)} of {len(meanwhile)} calls: {sorted(set(lost))}" if lost else None


def memory_stays(e: Evidence) -> str | None:
    """What was read before is gone."""
    if e.reload_storm is None or e.rss_growth_bytes is None:
        return "memory was not measured"
    return f"RSS +{e.rss_growth_bytes >> 20} MB" if e.rss_growth_bytes > STORM_RSS_BYTES else None


def begun_calls_finish(e: Evidence) -> str | None:
    """What was authorised is answered."""
    begun = () if e.under_way is None else e.under_way.begun
    lost = [each for each in begun if each not in (PASSED, "bare")]
    if lost:
        return f"{len(lost)} of {len(begun)} calls ended as {sorted(set(lost))}"
    return None if begun else "no call was under way"


def new_calls_are_denied(e: Evidence) -> str | None:
    """Whoever comes afterwards is judged by the new rules, although others are still under way."""
    seen = e.under_way
    if seen is None or not seen.behind:
        return "nobody called afterwards"
    passed = [each for each in seen.behind if each != DENIED]
    if passed or seen.behind_arrived:
        return f"{len(passed)} calls were not denied: {sorted(set(passed))}; {seen.behind_arrived} arrived"
    return None


def never_mixed(e: Evidence) -> str | None:
    """A call is allowed and masked, or denied and never sent: the rules of one reading belong together."""
    seen = e.under_way
    if seen is None or not {PASSED, DENIED} <= set(seen.across):
        return "the rules did not change under calls"
    odd = [each for each in (*seen.begun, *seen.across) if each not in (PASSED, DENIED)]
    if odd:
        return f"{len(odd)} calls were neither: {sorted(set(odd))}"
    passed = seen.across.count(PASSED)
    return None if passed == seen.across_arrived else f"{passed} passed, and {seen.across_arrived} arrived"


TABLE: dict[str, Check] = {
    REFUSED_RELOAD: Check(reload_refused),
    "at most 1 reload per second": Check(one_a_second, True),
    "no request lost": Check(none_lost),
    "no memory growth": Check(memory_stays, True),
    "calls already authorised finish": Check(begun_calls_finish),
    "new calls use the new policy": Check(new_calls_are_denied),
    "never a mix inside one call": Check(never_mixed),
}
