"""`${…}` in scalars: what it stands for, and that no mistake tells what a variable or file holds."""

from collections.abc import Mapping

import pytest

from proxy.configuration.files import REFERENCED_FILE_BYTES
from proxy.configuration.mistakes import Unfit
from proxy.configuration.references import MOST_REFERENCES, Resolved, resolve

ENVIRON = {"A": "alpha", "EMPTY": "", "NESTED": "${A}", "_x1": "low"}
FILES: Mapping[str, bytes] = {
    "/s/plain": b"hunter2",
    "/s/newline": b"hunter2\n",
    "/s/crlf": b"hunter2\r\n",
    "/s/two": b"hunter2\n\n",
    "/s/cr": b"hunter2\r",
    "/s/empty": b"",
    "/s/blank": b"\n",
    "/s/latin": b"caf\xe9",
    "/s/nested": b"${A}",
    "/s/with space": b"x",
}


def read_file(path: str, most_bytes: int) -> bytes:
    assert most_bytes == REFERENCED_FILE_BYTES
    if path not in FILES:
        raise Unfit("cannot be read", "No such file", "check the path")
    return FILES[path]


def resolved(text: str) -> Resolved:
    return resolve(text, ENVIRON, read_file)


def from_files(text: str, *files: str) -> Resolved:
    return Resolved(text, has_references=True, is_clear=False, files=files)


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("", Resolved("")),
        ("plain", Resolved("plain")),
        ("$", Resolved("$")),
        ("$A $(A) {A} $$", Resolved("$A $(A) {A} $$")),
        ("${A}", Resolved("alpha", has_references=True, is_clear=False)),
        ("<${A}-${_x1}>", Resolved("<alpha-low>", has_references=True, is_clear=False)),
        ("$${A}", Resolved("${A}")),
        ("$$${A}", Resolved("$${A}")),
        ("$${A} ${A}", Resolved("${A} alpha", has_references=True, is_clear=False)),
        ("${A:-other}", Resolved("alpha", has_references=True, is_clear=False)),
        ("${NO:-other}", Resolved("other", has_references=True)),
        ("${EMPTY:-other}", Resolved("other", has_references=True)),
        ("${NO:-}", Resolved("", has_references=True)),
        ("${NO:-a:-b $x}", Resolved("a:-b $x", has_references=True)),
        ("${NO:-x}${A}", Resolved("xalpha", has_references=True, is_clear=False)),
        ("${NESTED}", Resolved("${A}", has_references=True, is_clear=False)),
        ("${file:/s/plain}", from_files("hunter2", "/s/plain")),
        ("Bearer ${file:/s/newline}", from_files("Bearer hunter2", "/s/newline")),
        ("${file:/s/crlf}", from_files("hunter2", "/s/crlf")),
        ("${file:/s/two}", from_files("hunter2\n", "/s/two")),
        ("${file:/s/cr}", from_files("hunter2\r", "/s/cr")),
        ("${file:/s/nested}", from_files("${A}", "/s/nested")),
        ("${A}" * MOST_REFERENCES, Resolved("alpha" * 16, has_references=True, is_clear=False)),
        ("${file:/s/plain}${file:/s/crlf}${file:/s/plain}", from_files("hunter2" * 3, "/s/plain", "/s/crlf")),
        ("$${file:/s/plain}", Resolved("${file:/s/plain}")),
        ("${file:/s/with space}", from_files("x", "/s/with space")),
    ],
)
def test_references_are_replaced_once(text: str, result: Resolved) -> None:
    """design section 2: after parsing, never in text; what was put in is not read for references again."""
    assert resolved(text) == result


@pytest.mark.parametrize(
    ("text", "whats"),
    [
        ("${NO}", ["refers to the variable NO: it is not set"]),
        ("${EMPTY}", ["refers to the variable EMPTY: it is empty"]),
        (
            "${NO} ${A} ${NO2}",
            ["refers to the variable NO: it is not set", "refers to the variable NO2: it is not set"],
        ),
        ("${", ["has an open reference: ${ is never closed"]),
        ("x ${A", ["has an open reference: ${ is never closed"]),
        (
            "${}",
            ["has a reference that cannot be read: only ${VAR}, ${VAR:-default} and ${file:/path} are known"],
        ),
        (
            "${a b}",
            ["has a reference that cannot be read: only ${VAR}, ${VAR:-default} and ${file:/path} are known"],
        ),
        (
            "${1A}",
            ["has a reference that cannot be read: only ${VAR}, ${VAR:-default} and ${file:/path} are known"],
        ),
        (
            "${A-b}",
            ["has a reference that cannot be read: only ${VAR}, ${VAR:-default} and ${file:/path} are known"],
        ),
        (
            "${env:A}",
            ["has a reference that cannot be read: only ${VAR}, ${VAR:-default} and ${file:/path} are known"],
        ),
        (
            "${Ä}",
            ["has a reference that cannot be read: only ${VAR}, ${VAR:-default} and ${file:/path} are known"],
        ),
        (
            "${A\n}",
            ["has a reference that cannot be read: only ${VAR}, ${VAR:-default} and ${file:/path} are known"],
        ),
        ("${NO:-${A}}", ["nests references in ${NO:-…}: they do not nest"]),
        ("${file:relative}", ["refers to the file relative: it is not absolute"]),
        ("${file:}", ["refers to the file : it is not absolute"]),
        ("${file:/s/no}", ["refers to the file /s/no: it cannot be read: No such file"]),
        ("${file:/s/empty}", ["refers to the file /s/empty: it is empty"]),
        ("${file:/s/blank}", ["refers to the file /s/blank: it is empty"]),
        ("${file:/s/latin}", ["refers to the file /s/latin: its content is not UTF-8"]),
        ("${file:/s/\x1b[2J\n}", ["refers to the file /s/\\x1b[2J\\n: it cannot be read: No such file"]),
        ("${A}" * (MOST_REFERENCES + 1), ["has too many references: at most 16 are read in one value"]),
    ],
)
def test_every_reference_that_fails_names_itself_and_no_value(text: str, whats: list[str]) -> None:
    """Own promise: a missing variable or file is named, its value never (brief of the reader; CFG-015)."""
    result = resolved(text)
    assert [f"{unfit.what}: {unfit.why}" for unfit in result.unfits] == whats
    for unfit in result.unfits:
        assert not any(value in str(unfit) for value in ("alpha", "hunter2", "caf"))
