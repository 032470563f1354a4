r"""Which characters of a text does nobody see? A text in; what hides in it, or the text without it. Pure.

Models read what people do not: zero-width letters, bidirectional overrides, the tag block (ASCII twice, unseen),
data in variation selectors, terminal escapes. What languages and emoji need passes: joiners between letters of
scripts that join and inside emoji, one selector behind an emoji or an ideograph, the flags of three countries.
Sources: UTS 39 and UTR 36 (Unicode security), UAX 9 (bidirectional controls), UTS 51 (emoji), ECMA-48 (escapes).
"""

import re
from collections.abc import Collection
from typing import Final

_SELECTORS: Final = "\ufe00-\ufe0f\u180b-\u180f\U000e0100-\U000e01ef"
_IDEOGRAPHS: Final = "\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_JOINS: Final = "\u0600-\u1fff\u2190-\u2fff\u3040-\U0003ffff"
"""Letters beyond Latin, Greek, Cyrillic and Hebrew, and symbols: what a joiner may stand between."""
_FLAGS: Final = "|".join(
    "".join(chr(0xE0000 + ord(letter)) for letter in country) + "\U000e007f"
    for country in ("gbeng", "gbsct", "gbwls")
)

_KINDS: Final = {
    # First, so that what the sequence holds is not taken for text.
    "escapes": (
        "\x1b\\[[0-?]*+[ -/]*+[@-~]|\x1b\\][^\x07\x1b]*+(?:\x07|\x1b\\\\)|\x1b[ -~]?|\x9b[0-?]*+[ -/]*+[@-~]?"
    ),
    "tags": "[\U000e0000-\U000e00ff\U000e01f0-\U000e0fff]",
    "variation_selectors": (
        f"[{_SELECTORS}][{_SELECTORS}]+"
        # They select nothing at the beginning and behind Latin, Greek and other letters; keycaps are digits, # and *.
        f"|\\A[{_SELECTORS}]|(?<=[\x00-\x22\x24-\x29\x2b-\x2f\x3a-\x7f\u00c0-\u05ff])[{_SELECTORS}]"
        "|(?<=[0-9#*])[\ufe00-\ufe0d\u180b-\u180f]"
        f"|(?<![{_IDEOGRAPHS}])[\U000e0100-\U000e01ef]"
    ),
    "bidirectional": "[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]",
    "invisible": (
        f"(?<![{_JOINS}])[\u200c\u200d]|[\u200c\u200d](?![{_JOINS}])"
        "|[\u00ad\u034f\u115f\u1160\u17b4\u17b5\u180e\u200b\u2060-\u2065\u206a-\u206f\u2800\u3164\ufeff\uffa0]"
        "|[\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a]"
    ),
    "private_use": "[\ue000-\uf8ff\U000f0000-\U000ffffd\U00100000-\U0010fffd]",
    "controls": (
        "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ufdd0-\ufdef\ufff0-\ufffb\ufffe\uffff\ud800-\udfff]"
    ),
}
KINDS: Final = tuple(_KINDS)
"""The fixed words for what hides. Line feed, carriage return and tab do not."""

_PLAIN: Final = re.compile("[\t\n\r -~]*+")
"""Nearly every text; the pattern below is a hundred times slower."""
_MOST_PASSES: Final = 8
_NOT_PLAIN: Final = re.compile("[^\t\n\r -~]")
_HIDDEN: Final = re.compile(
    "|".join((f"\U0001f3f4(?:{_FLAGS})", *(f"(?P<{kind}>{pattern})" for kind, pattern in _KINDS.items())))
)


def hidden_in(text: str) -> frozenset[str]:
    """The kinds of what hides in the text."""
    if _PLAIN.fullmatch(text):
        return frozenset()
    return frozenset(match.lastgroup for match in _HIDDEN.finditer(text) if match.lastgroup)


def strip(text: str, kinds: Collection[str] = KINDS) -> str:
    """The text without what hides in it, of these kinds."""
    if _PLAIN.fullmatch(text):
        return text
    for _ in range(_MOST_PASSES):
        # Again until nothing is left: taking one away may bring two halves of another together.
        stripped = _HIDDEN.sub(lambda match: "" if match.lastgroup in kinds else match[0], text)
        if stripped == text:
            return text
        text = stripped
    return _NOT_PLAIN.sub("", text)  # made to outlast us: only what cannot hide is kept
