"""What does a small file of its own say? A path and a Struct in; the Struct, or every mistake with its position.

For files that settings only name, a keys file for example, which are read again while the process runs. Read like
settings: YAML or JSON, references resolved, duplicates and surprises refused, no value shown.
"""

import os
from collections.abc import Callable, Mapping
from typing import TypeVar

from msgspec import Struct, inspect

from .convert import Converter, Spot
from .files import SETTINGS_FILE_BYTES, read_bounded
from .mistakes import Position, Report, SettingsError, Unfit, shown
from .tree import read_tree

LONGEST_SHOWN_PATH = 4096

Document = TypeVar("Document", bound=Struct)


def read_document(path: str, kind: type[Document], *, environ: Mapping[str, str] = os.environ) -> Document:
    """Read the file as a `kind`. Raises SettingsError with every mistake.

    IO: reads the file (at most 1 MiB) and those it refers to.
    """
    try:
        content = read_bounded(path, SETTINGS_FILE_BYTES)
    except Unfit as unfit:
        report = Report()
        report.add_unfit(Position(shown(path, LONGEST_SHOWN_PATH), 1, 1), "", unfit)
        raise SettingsError(report.mistakes) from None
    return document_of(content, path, kind, environ)


def document_of(
    content: bytes,
    path: str,
    kind: type[Document],
    environ: Mapping[str, str],
    *,
    check: Callable[[Mapping[str, object], Report], None] | None = None,
) -> Document:
    """Like read_document, for the content of `path` that was read already.

    `check` looks at all values that could be read, by path, and adds mistakes that no value shows alone.
    """
    report = Report()
    drawn = inspect.type_info(kind)
    root = read_tree(content, shown(path, LONGEST_SHOWN_PATH), report)
    converter = Converter(report, environ, read_bounded)
    read = None if root is None else converter.read(root, drawn, Spot(), root.at)
    if check is not None:
        check(converter.values, report)
    if report.has_mistakes or not isinstance(read, kind):
        raise SettingsError(report.mistakes)
    return read
