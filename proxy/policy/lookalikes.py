"""Which names look alike? A name in, its skeleton out: two names that look the same have one. Pure.

A small table of our own for what tool names are imitated with: Cyrillic, Greek and a few other letters that look
Latin, full-width and mathematical letters, accents, and the pairs of ASCII that fonts blur. After the idea of UTS 39
section 4 (skeletons) and section 5 (mixed scripts), without its data.
"""

import re
import unicodedata
from functools import lru_cache
from typing import Final

from .invisible import strip

_TABLE: Final = str.maketrans(
    dict(
        zip(
            "авекмнорстухісјѕԁһӏԛԝьѵАВЕЅІЈКМНОРСТУХҮԌԜZѴ"
            "αβγδεηικνορστυχωΑΒΕΖΗΙΚΜΝΟΡΤΥΧϹϳϲ"
            "ɑɡıɩʏߋօոսցԍհᎪᏴᏟᎬᎻᎫᏦᏞᎷᏢᎡᏚᎢᏙᎳᏃ",
            "abekmhopctyxicjsdhlqwbvABESIJKMHOPCTYXYGWZV"
            "aBydenikvopotuxwABEZHIKMNOPTYXCjc"
            "agiiyoonugGhABCEHJKLMPRSTVWZ",
            strict=True,
        )
    )
    | dict.fromkeys("‐‑‒–—―−⁃﹘", "-")
    | dict.fromkeys("‿⁀＿ˍ", "_")
)
_ASCII: Final = str.maketrans(dict.fromkeys("I1|ǀ∣", "l") | {"0": "O", "o": "O"})
"""Behind the first table, whose letters are folded too."""
_PAIRS: Final = re.compile("rn|vv|VV")
_WIDE: Final = {"rn": "m", "vv": "w", "VV": "W"}
_WORD: Final = re.compile(r"[^\W\d_]+")
_LATIN: Final = re.compile("[A-Za-z\u00c0-\u024f\uff21-\uff3a\uff41-\uff5a]")
_IMITATES: Final = re.compile("[\u0370-\u03ff\u0400-\u052f\u0530-\u058f\u13a0-\u13ff\u1f00-\u1fff]")

LONGEST: Final = 1_024
"""Characters of a name that are looked at; longer ones cannot be called (protocol.jsonrpc)."""


@lru_cache(4_096)
def skeleton(name: str) -> str:
    """What the name looks like. Two names with one skeleton are look-alikes."""
    text = unicodedata.normalize("NFKC", strip(name[:LONGEST]))
    text = "".join(one for one in unicodedata.normalize("NFD", text) if unicodedata.category(one) != "Mn")
    # Folded before the pairs are: a Cyrillic letter may be half of one.
    return _PAIRS.sub(lambda pair: _WIDE[pair[0]], text.translate(_TABLE).translate(_ASCII))


@lru_cache(4_096)
def is_disguised(name: str) -> bool:
    """Whether the name looks Latin by letters that are not: scripts mixed in one word, full-width letters."""
    if name.isascii():
        return False
    if unicodedata.normalize("NFKC", name).isascii():
        return True
    return any(_LATIN.search(word) and _IMITATES.search(word) for word in _WORD.findall(name[:LONGEST]))
