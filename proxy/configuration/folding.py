"""Are two names one? A name → the spelling that all its variants share. Pure.

For keys of tables about callers only: "acme", "Acme " and its full-width form are one tenant there, or each spelling
would have a bucket of its own. Names that servers compare (tools, URIs) are never folded.
Source: the Unicode Standard, section 3.13, caseless matching of compatibility equivalents.
"""

import unicodedata


def fold(name: str) -> str:
    """The spelling that variants of a name share: compatibility characters, case and outer blanks do not count."""
    if name.isascii():
        return name.strip().lower()
    # Twice, and blanks last: folding a letter may give what composes again, and some characters become blanks.
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return folded.strip()
