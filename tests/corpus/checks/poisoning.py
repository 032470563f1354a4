"""Sentences of tool-poisoning: what a server says is looked at, and what is odd is told, taken out or hidden.

`ODD` says what is odd about the list of each case and what the sidecar was told to do about it; `sidecar.watching`
leaves that at what is usual.
"""

import json
import re
import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from msgspec import Struct

from tests.corpus.checks.auth import trap_untouched
from tests.corpus.checks.common import Check, Judge, Pattern, not_accepted
from tests.corpus.checks.http import loop_turned
from tests.corpus.evidence import Attempt, Evidence
from tests.corpus.fake_server import ALICE, BOB

CAP_BYTES = 8192
LONGEST_NAME = 128
"""Of a tool, in a line of the log."""
MASK = "[redacted: instructions]"
_SAMPLE = 12
"""Shorter texts may stand in a log for other reasons."""


class Odd(Struct, frozen=True, kw_only=True):
    """What a line of the log must say about each tool of a list, and what the client is shown."""

    flags: frozenset[str]
    action: Literal["report", "strip", "hide"]


def _odd(action: Literal["report", "strip", "hide"], *flags: str) -> Odd:
    return Odd(flags=frozenset(flags), action=action)


ODD: Mapping[str, Odd] = {
    "TOOL-002": _odd("report", "instructions"),
    "TOOL-004": _odd("report", "instructions"),
    "TOOL-005": _odd("strip", "invisible", "instructions"),
    "TOOL-006": _odd("strip", "tags"),
    "TOOL-010": _odd("report", "encoded_text"),
    "TOOL-012": _odd("hide", "look_alike", "disguised_name"),
    "TOOL-013": _odd("hide", "unprintable_name"),
    "TOOL-014": _odd("hide", "duplicate_name"),
    "TOOL-015": _odd("report", "instructions", "mentions_tools"),
}
"""By case."""


def as_configured(e: Evidence) -> str | None:
    """The client is shown what passes as it is, what is cleaned without what hid, and what is hidden not; all other
    tools as before."""
    odd, shown = ODD.get(e.case.id), e.tools_shown
    if odd is None or not e.offered:
        return "nobody said what is odd about this case"
    if shown is None:
        return "no list of tools was answered"
    names = {tool["name"] for tool in e.offered}
    rest = [tool["name"] for tool in shown if tool["name"] not in names]
    if not rest or rest != [name for name in e.usual if name not in names]:
        return f"of the other tools {rest} are listed, before it were {list(e.usual)}"
    passed = [tool for tool in shown if tool["name"] in names]
    expected = {
        "report": list(e.offered),
        "strip": [_without_hidden(tool) for tool in e.offered],
        "hide": [],
    }[odd.action]
    return None if passed == expected else f"listed are {_short(passed)}, expected {_short(expected)}"


def _without_hidden(value: Any) -> Any:
    if isinstance(value, str):
        return "".join(each for each in value if unicodedata.category(each) != "Cf")
    if isinstance(value, list):
        return [_without_hidden(each) for each in value]
    if isinstance(value, dict):
        return {key: _without_hidden(each) for key, each in value.items()}
    return value


def recorded(e: Evidence) -> str | None:
    """A line of the log says of each odd tool who was shown it, why it is odd and what became of it, and no text."""
    odd = ODD.get(e.case.id)
    if odd is None or not e.offered:
        return "nobody said what is odd about this case"
    for name in dict.fromkeys(tool["name"] for tool in e.offered):
        entries = _entries_about(e, name)
        flags = {flag for entry in entries for flag in entry["flags"]}
        if not odd.flags <= flags:
            return f"the log flags {name!r} with {sorted(flags)}, expected {sorted(odd.flags)}"
        if {entry.get("action") for entry in entries} != {odd.action}:
            return f"the log says {[entry.get('action') for entry in entries]} of {name!r}"
        if any((entry.get("tenant"), entry.get("principal")) != ("a", ALICE) for entry in entries):
            return f"the log does not say who was shown {name!r}"
    return _no_text_in_log(e, e.offered)


def _entries_about(e: Evidence, tool: str) -> list[dict[str, Any]]:
    """Lines of the log about what is odd of a tool, or has changed of it. No name: the server's instructions."""
    return [
        entry
        for entry in e.log_entries
        if entry.get("tool") == tool[:LONGEST_NAME] and isinstance(entry.get("flags"), list)
    ]


def _no_text_in_log(e: Evidence, said: Any) -> str | None:
    for text in _texts_of(said):
        for one in {text, _without_hidden(text)} if len(text) >= _SAMPLE else ():
            if one.encode() in e.log or json.dumps(one)[1:-1].encode() in e.log:
                return "the log holds what the definition says"
    return None


def _texts_of(value: Any) -> Iterator[str]:
    """Every text but names: of tools, of parameters."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _texts_of(each)
    elif isinstance(value, dict):
        for key, each in value.items():
            if key != "name":
                yield from _texts_of(each)


def looked_below(e: Evidence) -> str | None:
    """What commands stands below the description, and is found."""
    if any(_commands(tool.get("description", "")) for tool in e.offered):
        return "runner: the description itself commands"
    flags = {
        flag for tool in e.offered for entry in _entries_about(e, tool["name"]) for flag in entry["flags"]
    }
    return None if "instructions" in flags else f"the log flags {sorted(flags)}"


def _commands(text: str) -> bool:
    return re.search(r"(?i)ignore|~/|system|always|secret", text) is not None


def hidden_gone(first: int, last: int, name: str) -> Judge:
    """A judge that finds characters of a block in the texts of the list."""

    def judge(e: Evidence) -> str | None:
        if e.tools_shown is None:
            return "no list of tools was answered"
        kept = {each for text in _texts_of(e.tools_shown) for each in text if first <= ord(each) <= last}
        return f"{len(kept)} characters of {name} were kept" if kept else None

    return judge


def none_too_long(e: Evidence) -> str | None:
    """No text above the cap is in the list, and the tool cannot be called."""
    if not any(len(tool.get("description", "")) > CAP_BYTES for tool in e.offered):
        return "runner: nothing was too long"
    if any(len(text.encode("utf-8", "surrogatepass")) > CAP_BYTES for text in _texts_of(e.tools_shown or ())):
        return "a text above the cap was listed"
    return not_callable(e)


def not_listed(e: Evidence) -> str | None:
    """No tool of the odd list is in the client's, and none of them can be called."""
    if e.tools_shown is None:
        return "no list of tools was answered"
    names = {tool["name"] for tool in e.offered}
    kept = [tool["name"] for tool in e.tools_shown if tool["name"] in names]
    return f"listed: {kept}" if kept else not_callable(e)


def not_callable(e: Evidence) -> str | None:
    """Somebody tried every tool of the odd list, and no call passed."""
    tried = {attempt.tool for row in e.attempts for attempt in row}
    if not e.offered or tried != {tool["name"] for tool in e.offered}:
        return f"tried were {sorted(tried)}"
    passed = [attempt for row in e.attempts for attempt in row if _passed(attempt)]
    return f"called although hidden: {passed}" if passed else None


def _passed(attempt: Attempt) -> bool:
    return attempt.arrived > 0 or attempt.status is None or attempt.status < 400


def one_of_two(e: Evidence) -> str | None:
    """The tool that everybody knows is listed, and what looks like it is not."""
    patterns = [
        "".join(each if each.isalnum() and each.isascii() else "." for each in tool["name"])
        for tool in e.offered
    ]
    names = [str(tool["name"]) for tool in e.tools_shown or ()]
    alike = [name for name in names for pattern in patterns if re.fullmatch(pattern, name)]
    return not_listed(e) if len(alike) == 1 else f"of the tools that look alike {alike} are listed"


def second_told(e: Evidence) -> str | None:
    """Of two definitions of a name the second is not listed, and neither can be called without a word."""
    if len(e.offered) != 2 or e.offered[0]["name"] != e.offered[1]["name"]:
        return "runner: no name was there twice"
    if any(tool == e.offered[1] for tool in e.tools_shown or ()):
        return "the second definition is listed"
    if not any("duplicate_name" in entry["flags"] for entry in _entries_about(e, e.offered[0]["name"])):
        return "the log does not say that a name was there twice"
    return not_callable(e)


def change_noticed(e: Evidence) -> str | None:
    """The tool that is not the approved one was not called, and the log says that it has changed."""
    if said := not_accepted(e):
        return said
    changed = [
        entry
        for tool in e.offered
        for entry in _entries_about(e, tool["name"])
        if entry.get("state") == "changed" and entry.get("changes")
    ]
    return None if changed else "the log does not say that the tool has changed"


def each_compared(e: Evidence) -> str | None:
    """Whoever is first: Alice is shown what was approved and may call it, Bob neither."""
    if {row[0].who for row in e.attempts if row} != {ALICE, BOB}:
        return "not everybody was the first once"
    for attempt in (attempt for row in e.attempts for attempt in row):
        is_good = (attempt.listed, attempt.status, attempt.arrived) == (1, 200, 1)
        is_blocked = attempt.listed == 0 and not _passed(attempt)
        if not (is_good if attempt.who == ALICE else is_blocked):
            return f"not as it should be: {attempt}"
    return None


def reference_left_alone(e: Evidence) -> str | None:
    """Nobody followed it, neither when the tool was listed nor when it was called."""
    if not any("$ref" in json.dumps(tool) for tool in e.offered) or not any(map(len, e.attempts)):
        return "no tool with a reference was called"
    return trap_untouched(e)


def validated_in_time(milliseconds: int) -> Judge:
    """A judge of how long the loop did not turn while arguments were compared with a schema."""
    turned = loop_turned(milliseconds)

    def judge(e: Evidence) -> str | None:
        if e.reason != "argument_invalid":
            return f"the arguments were not looked at: {e.status}, {e.reason}"
        return turned(e)

    return judge


def result_flagged(e: Evidence) -> str | None:
    """What looks like a command in a result is masked, as the rule says, and counted."""
    if not any(
        entry.get("pattern") == "instructions" and entry.get("count", 0) > 0 for entry in e.log_entries
    ):
        return "the log does not say that it was found"
    if not e.calls:
        return "upstream was not called"
    return (
        None if MASK.encode() in e.received and b"<system>" not in e.received else "it was passed on as it is"
    )


def instructions_looked_at(e: Evidence) -> str | None:
    """The server's instructions are flagged, and not repeated."""
    said = (e.case.upstream or {}).get("result", {}).get("instructions")
    if not said:
        return "runner: the server has no instructions"
    flags = {flag for entry in _entries_about(e, "") for flag in entry["flags"]}
    return _no_text_in_log(e, said) if "instructions" in flags else f"the log flags {sorted(flags)}"


def form_withheld(e: Evidence) -> str | None:
    """The client is told no instead of being handed the form, and the log says why."""
    if not e.calls:
        return "upstream was not called"
    if b'"password"' in e.received or b"Enter your" in e.received:
        return "the form was handed on"
    if e.reason is None:
        return f"answered {e.status} without a reason"
    if not any(entry.get("pattern") == "secret_form" for entry in e.log_entries):
        return "the log does not say that a form asked for a secret"
    return None


def _short(value: Any) -> str:
    return ascii(value)[:400]


TABLE: dict[str, Check] = {
    "flagged, stripped or blocked as configured": Check(as_configured),
    "audit event": Check(recorded),
    "only the top description scanned": Check(looked_below),
    "U+200B kept": Check(hidden_gone(0x200B, 0x200D, "zero width")),
    "U+E0000 block kept": Check(hidden_gone(0xE0000, 0xE007F, "the block U+E0000")),
    "description above the cap (fixture 8 kB) passed on": Check(none_too_long),
    "two look-alike tools listed": Check(one_of_two),
    "listed": Check(not_listed),
    "second definition wins silently": Check(second_told),
    "call allowed on the changed tool": Check(change_noticed),
    "hash compared only for the first caller": Check(each_compared),
    "$ref fetched": Check(reference_left_alone),
    "tool kept; header name used": Check(not_listed),
    "unflagged when result scanning is on": Check(result_flagged),
    "instructions not scanned": Check(instructions_looked_at),
    "passed without flag when policy forbids secrets": Check(form_withheld),
}

PATTERNS: tuple[Pattern, ...] = (
    (re.compile(r"validation > (\d+) ms"), lambda m: Check(validated_in_time(int(m[1])), True)),
)
