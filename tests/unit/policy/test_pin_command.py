"""`mcp-sidecar pin`: what is printed, what is written, and when the answer is no."""

import io
from pathlib import Path
from typing import Any

import pytest

from proxy.policy.pin_command import PinWish, pin
from proxy.policy.pin_file import read_pins
from proxy.policy.server_tools import Listing, Silent

ECHO: dict[str, Any] = {"name": "echo", "description": "Says it again."}
ADD: dict[str, Any] = {"name": "add", "description": "Adds."}


async def run(
    path: Path,
    *tools: object,
    revisions: tuple[tuple[object, ...], ...] = (),
    is_check: bool = False,
    keeps: bool = False,
) -> tuple[int, str, str]:
    """The exit code, and what went to `out` and to `err`."""

    async def ask() -> list[Listing]:
        return [Listing(revision=str(at), tools=each) for at, each in enumerate(revisions or (tools,))]

    out, err = io.StringIO(), io.StringIO()
    code = await pin(PinWish(file=str(path), is_check=is_check, keeps=keeps), ask, out, err)
    return code, out.getvalue(), err.getvalue()


def pinned(path: Path) -> list[str]:
    return [entry.name for entry in read_pins(str(path)).tools]


async def test_the_first_time_everything_is_new(tmp_path: Path) -> None:
    path = tmp_path / "tools.lock"
    code, out, err = await run(path, ECHO, ADD)
    assert (code, err) == (0, "")
    assert out == f"+ add(): Adds.\n+ echo(): Says it again.\n2 tools, 2 definitions: written to {path}\n"
    assert pinned(path) == ["add", "echo"]


async def test_what_did_not_change_is_not_written(tmp_path: Path) -> None:
    """Own promise: a file without differences keeps its bytes, and what somebody wrote into it."""
    path = tmp_path / "tools.lock"
    await run(path, ECHO)
    path.write_text(path.read_text() + "# mine\n")
    code, out, _ = await run(path, dict(reversed(ECHO.items())))
    assert (code, out) == (0, f"1 tools, 1 definitions: as pinned in {path}\n")
    assert path.read_text().endswith("# mine\n")


async def test_a_change_is_printed_and_written(tmp_path: Path) -> None:
    path = tmp_path / "tools.lock"
    await run(path, ECHO, ADD)
    code, out, _ = await run(path, {**ECHO, "description": "Mails it."})
    assert code == 0
    assert out.splitlines()[:4] == [
        "- add",
        "~ echo",
        "    about: Says it again. → Mails it.",
        "    changed: description",
    ]
    assert pinned(path) == ["echo"]


async def test_a_check_writes_nothing(tmp_path: Path) -> None:
    """`--check` in CI: 1 when something differs, and when there is no file."""
    path = tmp_path / "tools.lock"
    assert (await run(path, ECHO, is_check=True))[0] == 1
    assert not path.exists()
    await run(path, ECHO)
    before = path.read_bytes()
    assert (await run(path, ECHO, is_check=True))[0] == 0
    code, out, _ = await run(path, ECHO, ADD, is_check=True)
    assert (code, out.splitlines()[0]) == (1, "+ add(): Adds.")
    assert path.read_bytes() == before


async def test_both_definitions_of_one_tool_are_pinned(tmp_path: Path) -> None:
    """Servers show older clients less; each of what they show is approved."""
    path = tmp_path / "tools.lock"
    await run(path, revisions=(({**ECHO, "title": "Echo"},), (ECHO,), (ECHO,)))
    assert pinned(path) == ["echo", "echo"]


async def test_what_is_pinned_can_be_kept(tmp_path: Path) -> None:
    """`--keep`: one more caller's list."""
    path = tmp_path / "tools.lock"
    await run(path, ECHO)
    await run(path, ADD, {**ECHO, "title": "x"}, keeps=True)
    assert pinned(path) == ["add", "echo", "echo"]


@pytest.mark.parametrize(
    ("tools", "why"),
    [
        ((ECHO, {**ECHO, "title": "x"}), "two definitions"),
        (("x",), "no definition"),
        (({"title": "x"},), "no definition"),
    ],
)
async def test_what_cannot_be_approved_is_not(tools: tuple[object, ...], why: str, tmp_path: Path) -> None:
    path = tmp_path / "tools.lock"
    code, _, err = await run(path, *tools)
    assert code == 1
    assert why in err
    assert not path.exists()


async def test_odd_definitions_are_pointed_out(tmp_path: Path) -> None:
    """Nobody approves unseen what nobody can see."""
    _, _, err = await run(tmp_path / "f", {**ECHO, "description": "a\u200b"}, {"name": "e\u0441ho"})
    assert err.splitlines() == [
        "Look at echo before you approve it: invisible",
        "Look at eсho before you approve it: disguised_name, look_alike",
    ]


async def test_a_broken_file_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "tools.lock"
    path.write_text("version: 2\n")
    code, _, err = await run(path, ECHO)
    assert code == 2
    assert err.startswith(f"{path}:1:10: version: ")
    assert path.read_text() == "version: 2\n"


async def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    code, _, err = await run(tmp_path / "nowhere" / "f", ECHO)
    assert code == 1
    assert "cannot be written: No such file or directory" in err


async def test_a_server_that_does_not_answer(tmp_path: Path) -> None:
    async def ask() -> list[Listing]:
        raise Silent("it cannot be reached")

    out, err = io.StringIO(), io.StringIO()
    assert await pin(PinWish(file=str(tmp_path / "f")), ask, out, err) == 1
    assert err.getvalue() == "The tools cannot be listed: it cannot be reached\n"
