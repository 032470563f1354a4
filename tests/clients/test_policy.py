"""Two roles before a server that somebody else wrote, and the definitions of a server that turns on its users.

Keys, sidecars and the `pin` command are used as operators use them; clients are real.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import msgspec
import pytest
import yaml

from .policy_clients import EVERY, OVER_SSE, Clients, Failed, Said, Session
from .policy_scene import ROOT, Keys, Person, files_server, keys_for, sidecar

READS = {
    "read_file",
    "read_text_file",
    "read_media_file",
    "read_multiple_files",
    "list_directory",
    "list_directory_with_sizes",
    "list_allowed_directories",
    "directory_tree",
    "search_files",
    "get_file_info",
}
"""What our worked example lets readers call."""

WRITES = {"create_directory", "edit_file", "write_file"}
"""What editors may call as well, the last one with a scope: it is shown to who may ask for the scope."""


class Files(msgspec.Struct, frozen=True, kw_only=True):
    """npm's server-filesystem with a sidecar that follows policies/filesystem.yaml."""

    folder: Path
    """What the server may reach."""
    direct: str
    guarded: str


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    folder = tmp_path_factory.mktemp("keys")
    return keys_for(folder, Person(name="ann", roles=("reader",)), Person(name="ed", roles=("editor",)))


@pytest.fixture(scope="module")
def files_origin(logs: Path, files_folder: Path) -> Iterator[str]:
    with files_server(logs, files_folder) as origin:
        yield origin


@pytest.fixture(scope="module")
def files_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    (folder / "note.txt").write_text("the text of the note", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def both(files_origin: str, files_folder: Path, keys: Keys, logs: Path) -> Iterator[dict[str, Files]]:
    """Both of the server's endpoints, each with a sidecar."""
    policy = yaml.safe_load((ROOT / "policies/filesystem.yaml").read_text(encoding="utf-8"))["policy"]
    identity = {"authenticators": keys.authenticators}
    found = {}
    with ExitStack() as stack:
        for path in ("/mcp", "/sse"):
            direct = files_origin + path
            guarded = sidecar(direct, logs, f"files-{path[1:]}", identity=identity, policy=policy)
            url = stack.enter_context(guarded).url
            found[path] = Files(folder=files_folder, direct=direct, guarded=url)
        yield found


@pytest.fixture
def files(path: str, both: dict[str, Files]) -> Files:
    return both[path]


each_client = pytest.mark.parametrize(
    ("path", "setup"),
    [*(("/mcp", setup) for setup in EVERY), *(("/sse", setup) for setup in OVER_SSE)],
)


async def answer(session: Session, tool: str, **arguments: object) -> tuple[object, ...]:
    """All that a client can tell of the answer, with the tool's name as NAME."""
    try:
        said = await session.call(tool, **arguments)
    except Failed as failed:
        return failed.kind, failed.code, failed.message.replace(tool, "NAME")
    return said.text.replace(tool, "NAME"), said.is_error, said.refusal


@each_client
async def test_two_roles_see_two_lists(clients: Clients, files: Files, keys: Keys, setup: str) -> None:
    """Issue 4, 3: of what the server lists, in its order, each definition as the server wrote it."""
    async with clients.connected(setup, files.direct) as session:
        everything = await session.tools()
    seen = {}
    for name, key in keys.of.items():
        async with clients.connected(setup, files.guarded, key) as session:
            seen[name] = await session.tools()
    assert {tool["name"] for tool in everything} == READS | WRITES | {"move_file"}
    assert seen == {
        "ann": [tool for tool in everything if tool["name"] in READS],
        "ed": [tool for tool in everything if tool["name"] in READS | WRITES],
    }


@each_client
async def test_what_is_hidden_answers_like_what_does_not_exist(
    clients: Clients, files: Files, keys: Keys, setup: str
) -> None:
    """Issue 4, 3: like a tool that does not exist on that server, in whatever way the client tells it. HTTP+SSE, where
    answers come elsewhere, has words of ours (decision "Hidden means that the server answers")."""
    moved = {"source": str(files.folder / "note.txt"), "destination": str(files.folder / "moved.txt")}
    async with clients.connected(setup, files.direct) as session:
        unknown = await answer(session, "move_files", **moved)
    async with clients.connected(setup, files.guarded, keys.of["ed"]) as session:
        hidden = await answer(session, "move_file", **moved)
        after = await session.call("read_text_file", path=moved["source"])
    if files.direct.endswith("/sse"):
        unknown = ("Unknown tool.", True, {"reason": "not_visible"})
    assert hidden == unknown
    assert after == Said(text="the text of the note")


@each_client
async def test_what_one_role_may_call_another_may_not(
    clients: Clients, files: Files, keys: Keys, setup: str, tmp_path: Path
) -> None:
    """Issue 4, 1: roles inherit; the session of who was refused goes on."""
    made = files.folder / tmp_path.name
    async with clients.connected(setup, files.guarded, keys.of["ann"]) as session:
        refused = await session.call("create_directory", path=str(made))
        was_made = made.exists()
        after = await session.call("read_text_file", path=str(files.folder / "note.txt"))
    async with clients.connected(setup, files.guarded, keys.of["ed"]) as session:
        done = await session.call("create_directory", path=str(made))
    assert (refused.is_error, was_made) == (True, False)
    assert refused.refusal is not None
    assert refused.refusal["reason"] == "not_allowed"
    assert after == Said(text="the text of the note")
    assert (done.is_error, made.is_dir()) == (False, True)
