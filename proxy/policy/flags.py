"""What is odd about a tool's definition? A definition, or the names of a list, in; fixed words out. Pure.

Looked at is every text that the hash counts: descriptions at any depth, parameter names, enum values, the output
schema, annotations. A flag is a hint, not a verdict: words that command are found when somebody was lazy; whoever
writes a poisoned text well is found by pins only, because it differs from what was approved.
"""

from __future__ import annotations

import binascii
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final

from ..protocol.mirrors import mirrors_of
from .definitions import NOT_COUNTED, Unreadable, written
from .invisible import KINDS, hidden_in, strip
from .lookalikes import is_disguised, skeleton
from .pin_settings import Action, DefinitionSettings

LONGEST_NAME: Final = 128
"""Characters; 2025-11-25 server/tools, "Tool names": SHOULD."""

_MOST_MENTIONS: Final = 256
_HELD_LONG: Final = 200
"""From here on a run is called encoded whatever it holds: no word and no hash (SHA-512 has 128 digits) is as long."""

_BASE64_RUN: Final = re.compile(r"[A-Za-z0-9+/_-]{24,}")
_PRINTABLE: Final = frozenset(b"\t\n\r" + bytes(range(0x20, 0x7F)))
_REFERENCES: Final = frozenset({"$ref", "$dynamicRef", "$recursiveRef"})
_MAPS: Final = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
"""Members of a schema whose keys are names, not keywords."""
_VALUES: Final = frozenset({"const", "default", "enum", "examples"})
"""Members of a schema that hold values, not schemas."""

_TOKEN: Final = re.compile(r"[A-Za-z0-9_./-]+")
_QUOTED: Final = re.compile(r"[`'\"]([A-Za-z0-9_./-]{1,128})[`'\"]")
_BEHIND_NAME: Final = re.compile(r"\(|\s(?:tool|function)\b")
_BETWEEN: Final = "\n|\n"
"""Between two texts that are looked at together: nothing that is looked for reaches across it."""

_COMMAND_WORDS: Final = (
    *("ignore", "disregard", "forget", "override", "user", "important", "system", "secret", "instruction"),
    *("admin", "critical", "assistant", "[inst", "always", "first", "before", "send", "you"),
    *("~", "$home", "%userprofile%", "/root", "/home", "id_", "authorized_keys", "mcp.json", "/etc/"),
)
"""Each of the patterns below needs one of these."""
_COMMANDS: Final = re.compile(
    r"""(?xi)
    \b(?:ignore|disregard|forget|override)\s+(?:\w+\s+){0,3}
        (?:instructions?|prompts?|rules|guidelines|user|system|restrictions)\b
    | \b(?:do\s+not|don't|never)\s+(?:tell|inform|mention|notify|reveal|show|alert|warn|ask)\b.{0,40}\buser\b
    | \bwithout\s+(?:telling|informing|notifying|asking|mentioning)\b.{0,40}\buser\b
    | <\s*/?\s*(?:important|system|secret|instructions?|admin|critical)\s*>
    | (?:\A|[\n.>])\s*(?:system|assistant)\s*:
    | \[\s*(?:system|inst)\s*\]
    | \byou\s+(?:must|should|will)\s+(?:always|first|now)\b
    | \b(?:always|first)\s+(?:add|append|bcc|call|copy|forward|include|invoke|run|send)\b
    | \bbefore\s+(?:using|calling|invoking)\s+(?:this|any|other)\b
    | \bsend\s+(?:all|every|the)\b.{0,60}\bto\s+\S+\.\S
    | (?:~|\$HOME|%USERPROFILE%|/root|/home/\w+)[/\\]{1,2}
        \.(?:ssh|aws|cursor|kube|gnupg|netrc|config|claude|docker|npmrc|env)\b
    | \b(?:id_rsa|id_ed25519|authorized_keys|mcp\.json|/etc/(?:passwd|shadow))
    """,
)


def flags_of_text(text: str) -> set[str]:
    """What is odd about one text: a description, or the server's `instructions`. Its length is not looked at."""
    found = set(hidden_in(text))
    if found:
        text = strip(text)
    lower = text.lower()
    if any(word in lower for word in _COMMAND_WORDS) and _COMMANDS.search(text):
        found.add("instructions")
    if any(map(_is_encoded, _BASE64_RUN.findall(text))):
        found.add("encoded_text")
    return found


def is_longer(text: str, most_bytes: int) -> bool:
    """Whether the text takes more bytes than that in UTF-8."""
    return len(text) * 4 > most_bytes and len(text.encode("utf-8", "surrogatepass")) > most_bytes


def flags_of(definition: Mapping[str, object], settings: DefinitionSettings) -> frozenset[str]:
    """What is odd about one definition by itself, its name included."""
    found: set[str] = set()
    counted = _counted(definition)
    try:
        size = len(written(counted))
    except Unreadable:
        return frozenset({"unreadable"})
    longest = settings.max_description_bytes
    if size > settings.max_definition_bytes or (
        size > longest and any(is_longer(text, longest) for text in texts_of(counted))
    ):
        found.add("too_long")
        if settings.too_long == "hide":
            return frozenset(found)  # megabytes are not read to find more reasons
    found.update(flags_of_text(_BETWEEN.join(texts_of(counted))))
    if _has_remote_ref(definition.get("inputSchema")) or _has_remote_ref(definition.get("outputSchema")):
        found.add("remote_ref")
    if _has_bad_header(definition):
        found.add("bad_header")
    if not found.isdisjoint(KINDS) and any(map(hidden_in, _keys_of(counted))):
        found.add("unprintable_parameter")
    name = definition.get("name")
    if isinstance(name, str):
        found.update(_flags_of_name(name))
    return frozenset(found)


def stripped(definition: Mapping[str, object], kinds: Collection[str] = KINDS) -> bytes:
    """The definition as JSON (ASCII), without what hides in its texts. Name and keys stay: calls depend on them."""
    clean = {key: value if key == "name" else _stripped(value, kinds) for key, value in definition.items()}
    return json.dumps(clean, separators=(",", ":")).encode("ascii")


def mentions_of(definition: Mapping[str, object]) -> frozenset[str]:
    """What may be names of other tools: words of descriptions and titles that look like identifiers, are quoted or
    stand before `tool` or `(`.

    Its own name and parameters are left out. At most 256.
    """
    text = _BETWEEN.join(_prose_of(definition))
    # Lower-case words are left out at once: they are nearly all there are.
    found = {
        word
        for word in {*_TOKEN.findall(text)}
        if not word.isalpha() or not (word.islower() or word.istitle())
    }
    found.update(_QUOTED.findall(text))
    for behind in _BEHIND_NAME.finditer(text):
        before = text[max(0, behind.start() - LONGEST_NAME) : behind.start()].split()
        found.update(_TOKEN.findall(before[-1]) if before else ())
    if not found:
        return frozenset()
    own = {definition.get("name"), *_keys_of(definition)}
    found = {word.strip("./-") for word in found if len(word) <= LONGEST_NAME} - own
    return frozenset(sorted(found)[:_MOST_MENTIONS])


def look_alikes(names: Iterable[str], known: Collection[str] = ()) -> frozenset[str]:
    """Which of the names look like another one. `known` names are trusted, and so is the only one in plain ASCII."""
    by_look: dict[str, set[str]] = {}
    for name in {*names, *known}:
        by_look.setdefault(skeleton(name), set()).add(name)
    found: set[str] = set()
    for group in by_look.values():
        if len(group) > 1:
            trusted = {name for name in group if name in known}
            if not trusted:
                ascii_ones = {name for name in group if name.isascii()}
                trusted = ascii_ones if len(ascii_ones) == 1 else set()
            found |= group - trusted
    return frozenset(found)


def texts_of(value: object) -> Iterator[str]:
    """Every text of a JSON value, keys included."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, dict):
            yield from one
            waiting.extend(one.values())
        elif isinstance(one, list):
            waiting.extend(one)


def _prose_of(value: object) -> Iterator[str]:
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            for key in ("description", "title"):
                if isinstance(text := one.get(key), str):
                    yield text
            waiting.extend(inner for inner in one.values() if isinstance(inner, dict | list))
        elif isinstance(one, list):
            waiting.extend(one)


def _counted(definition: Mapping[str, object]) -> dict[str, object]:
    return {key: value for key, value in definition.items() if key not in NOT_COUNTED}


def _keys_of(value: object) -> Iterator[str]:
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            yield from one
            waiting.extend(one.values())
        elif isinstance(one, list):
            waiting.extend(one)


def _stripped(value: object, kinds: Collection[str]) -> object:
    if isinstance(value, str):
        return strip(value, kinds)
    if isinstance(value, list):
        return [_stripped(one, kinds) for one in value]
    if isinstance(value, dict):
        return {key: _stripped(one, kinds) for key, one in value.items()}
    return value


def _flags_of_name(name: str) -> Iterator[str]:
    bare = name.replace(" ", "")
    if not bare.isprintable() or not bare or hidden_in(name) or len(name) > LONGEST_NAME:
        yield "unprintable_name"
    if len(bare) != len(name):
        yield "spaced_name"
    if is_disguised(name):
        yield "disguised_name"


def _is_encoded(run: str) -> bool:
    """Whether a run of base64's alphabet is a text in base64; paths, hashes and long names are none."""
    if len(run) >= _HELD_LONG:
        return True
    standard = run.replace("-", "+").replace("_", "/")
    whole = standard[: len(standard) // 4 * 4]
    plain = binascii.a2b_base64(whole)
    return sum(byte in _PRINTABLE for byte in plain) >= 0.9 * len(plain)


def _schemas_of(schema: object) -> Iterator[dict[str, object]]:
    """Every object of a schema whose keys are keywords."""
    waiting = [schema]
    while waiting:
        one = waiting.pop()
        if isinstance(one, list):
            waiting.extend(one)
        elif isinstance(one, dict):
            yield one
            for key, inner in one.items():
                if key in _MAPS and isinstance(inner, dict):
                    waiting.extend(inner.values())
                elif key not in _VALUES:
                    waiting.append(inner)


def _has_remote_ref(schema: object) -> bool:
    return any(
        isinstance(target, str) and not target.startswith("#")
        for each in _schemas_of(schema)
        for key in _REFERENCES
        if (target := each.get(key)) is not None
    )


def _has_bad_header(definition: Mapping[str, object]) -> bool:
    """Whether some x-mcp-header is not one that `mirrors_of` takes: no token, twice, or out of reach."""
    schema = definition.get("inputSchema")
    declared = sum(each.get("x-mcp-header") is not None for each in _schemas_of(schema))
    return declared != 0 and declared != len(mirrors_of(schema))


def worst(actions: Sequence[Action]) -> Action:
    """What becomes of a tool with several flags."""
    return "hide" if "hide" in actions else "strip" if "strip" in actions else "report"
