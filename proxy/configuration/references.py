"""What do `${VAR}`, `${VAR:-default}` and `${file:/path}` stand for? A scalar's text in, the resolved out.

Resolved after parsing, so a value can never open a bracket or a line of its own; once, so it can never name
another reference. `$${` is a literal `${`. Messages name variables and files, never what they hold.
"""

import re
from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from .files import REFERENCED_FILE_BYTES, ReadFile
from .mistakes import Unfit, shown

MOST_REFERENCES: Final = 16
"""In one scalar: a header holds one or two."""

_FILE: Final = "file:"
_PIECE: Final = re.compile(r"\$\$\{|\$\{([^}]*)(\}?)", re.DOTALL)
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


class Resolved(Struct, frozen=True):
    """A text without references. `has_references`: it had some. `is_clear`: it stood in the settings."""

    text: str
    has_references: bool = False
    is_clear: bool = True
    unfits: tuple[Unfit, ...] = ()
    files: tuple[str, ...] = ()
    """The files it refers to, each once."""


class Template:
    """A text whose references to files are resolved anew each time; variables keep the values of the start."""

    # No Struct: its repr would show the values of variables.
    __slots__ = ("_environ", "_read_file", "_text", "files")

    def __init__(
        self, text: str, files: tuple[str, ...], environ: Mapping[str, str], read_file: ReadFile
    ) -> None:
        self.files = files
        self._text = text
        self._read_file = read_file
        named = (match[1].partition(":-")[0] for match in _PIECE.finditer(text) if match[1])
        self._environ = {name: environ[name] for name in named if name in environ}

    def read(self) -> str:
        """The text as it stands now. Raises Unfit with the first reference that cannot be resolved."""
        resolved = resolve(self._text, self._environ, self._read_file)
        for unfit in resolved.unfits:
            raise unfit
        return resolved.text


def resolve(text: str, environ: Mapping[str, str], read_file: ReadFile) -> Resolved:
    """Replace every reference; the ones that cannot be replaced are told in `unfits`, all of them."""
    if text.count("${") > MOST_REFERENCES:
        why = f"at most {MOST_REFERENCES} are read in one value"
        return Resolved(text, unfits=(Unfit("has too many references", why, "put the text into one file"),))
    unfits: list[Unfit] = []
    files: dict[str, None] = {}
    has_references = False
    is_clear = True

    def replace(match: re.Match[str]) -> str:
        nonlocal has_references, is_clear
        if match[1] is None:
            return "${"
        has_references = True
        try:
            if not match[2]:
                raise Unfit(
                    "has an open reference", "${ is never closed", "add }, or write $${ for a literal ${"
                )
            if match[1].startswith(_FILE):
                files[match[1].removeprefix(_FILE)] = None
            found, stood_here = _look_up(match[1], environ, read_file)
        except Unfit as unfit:
            unfits.append(unfit)
            return ""
        is_clear = is_clear and stood_here
        return found

    resolved = _PIECE.sub(replace, text) if "${" in text else text
    return Resolved(resolved, has_references, is_clear, tuple(unfits), tuple(files))


def _look_up(inside: str, environ: Mapping[str, str], read_file: ReadFile) -> tuple[str, bool]:
    """The text for what the braces hold, and whether that text stood in the settings (a default)."""
    if inside.startswith(_FILE):
        return _content(inside.removeprefix(_FILE), read_file), False
    name, has_default, default = inside.partition(":-")
    if not _NAME.fullmatch(name):
        raise Unfit(
            "has a reference that cannot be read",
            "only ${VAR}, ${VAR:-default} and ${file:/path} are known",
            "write one of them, or $${ for a literal ${",
        )
    if "${" in default:
        raise Unfit(
            f"nests references in ${{{name}:-…}}", "they do not nest", "use a variable or a plain default"
        )
    value = environ.get(name, "")
    if value:
        return value, False
    if has_default:
        return default, True
    if name in environ:
        raise Unfit(f"refers to the variable {name}", "it is empty", f"set it, or write ${{{name}:-}}")
    raise Unfit(f"refers to the variable {name}", "it is not set", f"set it, or write ${{{name}:-default}}")


def _content(path: str, read_file: ReadFile) -> str:
    what = f"refers to the file {shown(path, 200)}"
    if not path.startswith("/"):
        raise Unfit(what, "it is not absolute", "write ${file:/path}")
    try:
        content = read_file(path, REFERENCED_FILE_BYTES).decode("utf-8")
    except UnicodeDecodeError:
        raise Unfit(what, "its content is not UTF-8", "store text in it") from None
    except Unfit as unfit:
        raise Unfit(what, f"it {unfit.what}: {unfit.why}", unfit.remedy) from None
    # Editors and `echo` end a file with a newline that nobody means; a second one was meant.
    content = content.removesuffix("\r\n" if content.endswith("\r\n") else "\n")
    if not content:
        raise Unfit(what, "it is empty", "store text in it")
    return content
