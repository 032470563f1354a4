"""The lock file: what is written is read back, and a diff of it shows what changed."""

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.configuration.mistakes import SettingsError
from proxy.policy.definitions import define
from proxy.policy.pin_file import (
    MOST_PINS,
    PinEntry,
    PinFile,
    differences,
    entry_of,
    pins_of,
    read_pins,
    text_of,
    write_pins,
)
from tests.fuzz.bounded import FUZZ

HASH = "v1:" + "0" * 64
TEXT = st.text(min_size=1, max_size=30)


def tool(**changes: Any) -> dict[str, Any]:
    return {
        "name": "echo",
        "description": "Says it again.",
        "inputSchema": {"properties": {"text": {"type": "string"}}, "required": ["text"]},
        "annotations": {"readOnlyHint": True},
        **changes,
    }


def file_of(*tools: dict[str, Any], instructions: tuple[str, ...] = ()) -> PinFile:
    return PinFile(
        version=1, tools=tuple(entry_of(define(each)) for each in tools), instructions=instructions
    )


def read_back(pins: PinFile) -> PinFile:
    return pins_of(text_of(pins).encode(), "F")


def test_one_line_a_tool() -> None:
    """A diff of the file shows one line for each tool that changed; sorted, whatever order the server has."""
    both = (tool(name="b"), tool(name="a"))
    lines = [line for line in text_of(file_of(*both)).splitlines() if line.startswith("  - ")]
    assert [line[:13] for line in lines] == ['  - {name: "a', '  - {name: "b']
    assert text_of(file_of(*both)) == text_of(file_of(*reversed(both)))
    assert 'parameters: "text: string", hints: "readOnlyHint"' in lines[0]


def test_an_empty_file_is_one() -> None:
    assert read_back(PinFile(version=1)) == PinFile(version=1)


@FUZZ
@given(TEXT, TEXT, TEXT, TEXT)
def test_what_is_written_is_read_back(name: str, about: str, parameters: str, title: str) -> None:
    """Names with quotes, references, controls and anything else are data."""
    entry = PinEntry(
        name=name, hash=HASH, about=about + "${HOME}", parameters=parameters, title=title + "$", hints="x"
    )
    pins = PinFile(version=1, tools=(entry,), instructions=(HASH,))
    assert read_back(pins) == pins


def test_nothing_hides_or_poses_in_the_file() -> None:
    """Whoever reviews a diff must see a Cyrillic letter in a name, and every hidden one."""
    text = text_of(file_of(tool(name="e\u0441ho"), tool(name="x\u200b", description="Größe \u202e")))
    assert "\\U00000441" in text
    assert "\\U0000200b" in text
    assert "Größe" in text
    assert all(each == "\n" or each.isprintable() for each in text)


def test_the_largest_file_can_be_read() -> None:
    """The reader counts keys and values; a file of the command must never be too large for it."""
    tools = [tool(name=f"t{number}", title="x") for number in range(MOST_PINS)]
    assert len(read_back(file_of(*tools)).tools) == MOST_PINS


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (f'version: 1\ntools: [{{name: a, hash: "{HASH}"}}, {{name: a, hash: "{HASH}"}}]', "is there twice"),
        ('version: 1\ntools: [{name: a, hash: "v2:00"}]', "is no hash of a definition"),
        (f'version: 1\ntools: [{{name: a, hash: "{HASH}", parts: "title:1"}}]', "holds no digests"),
        (f'version: 1\ntools: [{{name: a, hash: "{HASH}", more: 1}}]', "more"),
        ('version: 1\ninstructions: ["x"]', "is no hash of a definition"),
        ("version: 2", "version"),
    ],
)
def test_mistakes_are_told_with_their_place(content: str, what: str) -> None:
    with pytest.raises(SettingsError) as raised:
        pins_of(content.encode(), "tools.lock")
    assert what in str(raised.value)
    assert str(raised.value).startswith("tools.lock:")


def test_no_difference_is_no_line() -> None:
    pins = file_of(tool())
    assert list(differences(pins, read_back(pins))) == []


def test_a_diff_for_people() -> None:
    """What came, what went, and of what changed the old and the new."""
    before = file_of(tool(), tool(name="gone"), instructions=(HASH,))
    after = file_of(
        tool(
            description="Says it twice.",
            inputSchema={"properties": {"text": {"type": "string"}, "exfil": {"type": "string"}}},
            annotations={"readOnlyHint": False},
        ),
        tool(name="new"),
    )
    assert list(differences(before, after)) == [
        "~ the server's instructions",
        "~ echo",
        "    about: Says it again. → Says it twice.",
        "    hints: readOnlyHint → !readOnlyHint",
        "    parameters: - text: string",
        "    parameters: + exfil?: string",
        "    parameters: + text?: string",
        "    changed: description, inputSchema, annotations",
        "- gone",
        "+ new(text: string) [readOnlyHint]: Says it again.",
    ]


def test_one_more_definition_of_a_tool() -> None:
    one, two = file_of(tool()), file_of(tool(), tool(title="x"))
    assert list(differences(one, two)) == ["~ echo: one more definition"]
    assert list(differences(two, one)) == ["~ echo: one definition less"]


def test_a_diff_is_harmless_for_a_terminal() -> None:
    lines = list(differences(file_of(), file_of(tool(name="\x1b[31mx", description="\x1b]0;x\x07"))))
    assert all(line.isprintable() for line in lines)


def test_what_a_killed_process_left_is_in_nobodys_way(tmp_path: Path) -> None:
    """Hostile: in containers everybody has the same number, so the next one meets it; and it may be a link."""
    path = tmp_path / "tools.lock"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("precious", encoding="ascii")
    Path(f"{path}.{os.getpid()}.new").symlink_to(elsewhere)
    write_pins(str(path), "new")
    assert path.read_text(encoding="ascii") == "new"
    assert elsewhere.read_text(encoding="ascii") == "precious"


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "tools.lock"
    for pins in (file_of(tool()), file_of(tool(name="x"))):
        write_pins(str(path), text_of(pins))
        assert read_pins(str(path)) == pins
    assert [each.name for each in tmp_path.iterdir()] == ["tools.lock"]


def test_a_file_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "tools.lock").mkdir()
    with pytest.raises(OSError):  # noqa: PT011  which one is the system's choice
        write_pins(str(tmp_path / "tools.lock"), "x")
    assert [each.name for each in tmp_path.iterdir()] == ["tools.lock"]
