"""A small file of its own is read like settings: strictly, with every mistake and its place, and within bounds."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import pytest
from msgspec import Meta, Struct

from proxy.configuration.documents import document_of, read_document
from proxy.configuration.files import SETTINGS_FILE_BYTES
from proxy.configuration.mistakes import SettingsError, Unfit
from proxy.secret import Secret


def check_names(doors: tuple["Door", ...]) -> None:
    names = [door.name for door in doors]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise Unfit("is there twice", "one door, one name", "rename one", key=index)


class Door(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str
    width_s: Annotated[float, Meta(gt=0)] = 1.0


class Plan(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    version: Literal[1]
    salt: Annotated[Secret, Meta(extra={"may_be_clear": True})]
    key: Secret | None = None
    doors: Annotated[tuple[Door, ...], Meta(extra={"fit": check_names})] = ()


def mistakes(folder: Path, content: str | bytes, environ: Mapping[str, str] | None = None) -> list[str]:
    file = folder / "plan.yaml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SettingsError) as caught:
        read_document(str(file), Plan, environ=environ or {})
    return [str(mistake).replace(str(file), "F") for mistake in caught.value.mistakes]


def test_every_mistake_is_told_with_its_place_and_no_value(tmp_path: Path) -> None:
    """As in settings: file:line:column: path: what, why, remedy."""
    text = """\
version: 2
salt: [hunter2]
key: hunter2
doors:
- {name: a, name: b}
- {name: "${NO}", width_s: 0}
- {nam: hunter2}
- hunter2
version: 1
"""
    assert mistakes(tmp_path, text) == [
        "F:1:10: version: is no value for this, it must be 1, write 1, without quotes",
        "F:2:7: salt: is a list, a single value is needed, write one value",
        "F:3:6: key: is a secret in clear, settings are copied, logged and kept in version control, "
        "write ${file:/path} or ${VAR}",
        "F:5:13: doors[0].name: is there twice, the first one is in line 5, keep one",
        "F:6:10: doors[1].name: refers to the variable NO, it is not set, set it, or write ${NO:-default}",
        "F:6:28: doors[1].width_s: is out of bounds, it must be more than 0 seconds, write more",
        "F:7:3: doors[2].name: is missing, it has no default, write name: …",
        'F:7:4: doors[2].nam: is not known, a misspelt key would change nothing, did you mean "name"?',
        "F:8:3: doors[3]: is a single value, a section is needed, write key: value pairs",
        "F:9:1: version: is there twice, the first one is in line 1, keep one",
    ]


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "F:1:1: has no value"),
        (b"\xff", "F:1:1: is not UTF-8"),
        (b"\xef\xbb\xbfversion: 1", "F:1:1: begins with a byte order mark"),
        (b"version: 1\n---\nversion: 1", "F:2:1: is a second document"),
        (b"[" * 50, "F:1:33: "),
        (b"version: 1\nsalt: &x s\nkey: *x\n", "F:2:7: salt: has the anchor &x"),
        (b"x" * (SETTINGS_FILE_BYTES + 1), "F:1:1: is too big"),
        (b"doors: [" + b"a," * 20_000, "F:1:39999: doors[19995]: is too long"),
    ],
)
def test_a_hostile_file_is_told_and_costs_little(tmp_path: Path, content: bytes, what: str) -> None:
    """Capped at 1 MiB; no alias, no depth and no number of keys gets further than in settings."""
    assert mistakes(tmp_path, content)[0].startswith(what)


@pytest.mark.parametrize("make", [None, Path.mkdir, os.mkfifo])
def test_what_cannot_be_read_is_one_mistake(tmp_path: Path, make: object) -> None:
    """Missing, a directory, a FIFO that nobody writes to: told at once, never waited for."""
    file = tmp_path / "plan\x1b.yaml"
    if callable(make):
        make(file)
    with pytest.raises(SettingsError) as caught:
        read_document(str(file), Plan)
    (mistake,) = caught.value.mistakes
    assert str(mistake).startswith(f"{tmp_path}/plan\\x1b.yaml:1:1: ")


def test_one_that_fits_is_read_whole(tmp_path: Path) -> None:
    """JSON and YAML; references to the environment and to files; a secret of a secret file may be clear."""
    (tmp_path / "key").write_text("hunter2\n", encoding="utf-8")
    file = tmp_path / "plan.json"
    file.write_text(
        f'{{"version": 1, "salt": "in clear", "key": "${{file:{tmp_path}/key}}", "doors": [{{"name": "${{D}}"}}]}}',
        encoding="utf-8",
    )
    plan = read_document(str(file), Plan, environ={"D": "front"})
    assert plan == Plan(
        version=1, salt=Secret("in clear"), key=Secret("hunter2"), doors=(Door(name="front"),)
    )
    assert plan.key is not None
    assert plan.key.files == (f"{tmp_path}/key",)
    assert "in clear" not in repr(plan)


def test_the_environment_is_that_of_the_process_unless_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A room that reads a file again has no other."""
    monkeypatch.setenv("PLAN_SALT", "from outside")
    file = tmp_path / "plan.yaml"
    file.write_text("version: 1\nsalt: ${PLAN_SALT}\n", encoding="utf-8")
    assert read_document(str(file), Plan).salt.reveal() == "from outside"
    with pytest.raises(SettingsError, match="it is not set"):
        read_document(str(file), Plan, environ={})


def test_an_item_is_named_where_the_whole_list_was_judged(tmp_path: Path) -> None:
    """Two entries of one name: the second is shown."""
    text = "version: 1\nsalt: s\ndoors:\n- {name: a}\n- {name: b}\n- {name: a}\n"
    assert mistakes(tmp_path, text) == ["F:6:3: doors[2]: is there twice, one door, one name, rename one"]


def test_content_that_was_read_already_is_judged_alike() -> None:
    """Whoever has the bytes need not read twice."""
    assert document_of(b"version: 1\nsalt: s\n", "F", Plan, {}).doors == ()
    with pytest.raises(SettingsError, match=r"F:1:1: salt: is missing"):
        document_of(b"version: 1\n", "F", Plan, {})
    with pytest.raises(SettingsError, match=r"F\\x1b:2:1: salt: is there twice"):
        document_of(b"salt: s\nsalt: s\nversion: 1", "F\x1b", Plan, {})
