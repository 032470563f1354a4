"""The worked examples of policies/, each as it is shipped, before the real server it is for.

Servers come from the registries (npm's server-filesystem and server-memory, PyPI's mcp-server-git), each behind PyPI's
mcp-proxy. Of a file only its addresses and its authenticators are others: here nobody has a login.example.com.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec
import pytest

from proxy.demo.environment import python_environment
from proxy.demo.ports import accepts, answers_ok, free_address, free_ports
from proxy.demo.processes import Child
from proxy.demo.start import REQUIREMENTS
from tests import ledger
from tests.tools.node import node_tools
from tests.tools.python_env import TOOLS, git_server_python

from . import running
from .policy_clients import Clients, Failed, Session
from .policy_scene import ROOT, Keys, Person, keys_for

SETUP = "mcp 2.3 legacy"
"""One client is enough here: what others make of refusals is in test_policy.py and test_denials.py."""


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """A call, and what becomes of it."""

    who: str
    tool: str
    arguments: Mapping[str, object]
    reason: str | None = None
    """Of our refusal; None: the server answers, and well."""


class Example(msgspec.Struct, frozen=True, kw_only=True):
    """A server, and what its file lets whom do."""

    command: Callable[[Path], list[str]]
    """A stdio server that may reach only this folder."""
    roles: tuple[str, ...]
    """The callers, each with the role he is called by."""
    shown: Mapping[str, set[str]]
    """Which tools each of them sees."""
    steps: Callable[[Path], tuple[Step, ...]]
    """In this order."""
    left: Callable[[Path], object]
    """What the steps leave in the folder: those that are allowed, and nothing of the others."""
    hidden: str
    """A tool that the server lists, and nobody sees."""


def _filesystem(folder: Path) -> list[str]:
    (folder / "note.txt").write_text("the text of the note", encoding="utf-8")
    tools = node_tools()
    return [str(tools.node), str(tools.bin / "mcp-server-filesystem"), str(folder)]


def _memory(folder: Path) -> list[str]:
    tools = node_tools()
    graph = f"MEMORY_FILE_PATH={folder / 'graph.jsonl'}"
    return ["env", graph, str(tools.node), str(tools.bin / "mcp-server-memory")]


def _git(folder: Path) -> list[str]:
    (folder / "a.txt").write_text("one\n", encoding="utf-8")
    nobody = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    for words in (
        ("init", "--quiet", "--initial-branch=main"),
        ("config", "user.name", "Ann"),
        ("config", "user.email", "ann@example.com"),
        ("add", "a.txt"),
        ("commit", "--quiet", "--message=First"),
    ):
        subprocess.run(["git", *words], cwd=folder, env={**os.environ, **nobody}, check=True, timeout=30)
    (folder / "a.txt").write_text("two\n", encoding="utf-8")
    return [str(git_server_python()), "-I", "-m", "mcp_server_git", "--repository", str(folder)]


def _git_log(folder: Path) -> list[str]:
    words = ["git", "log", "--format=%s"]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=True, timeout=30)
    return done.stdout.split()


def _names_in(graph: Path) -> list[str]:
    return [json.loads(line)["name"] for line in graph.read_text(encoding="utf-8").splitlines()]


_FILE_READS = {
    *("read_file", "read_text_file", "read_media_file", "read_multiple_files", "list_directory"),
    *("list_directory_with_sizes", "list_allowed_directories", "directory_tree", "search_files"),
    "get_file_info",
}
_GIT_READS = {
    "git_status",
    "git_diff_unstaged",
    "git_diff_staged",
    "git_diff",
    "git_log",
    "git_show",
    "git_branch",
}
_MEMORY_READS = {"search_nodes", "open_nodes"}
_MEMORY_WRITES = {"create_entities", "create_relations", "add_observations"}
_ADA = {"name": "Ada", "entityType": "person", "observations": ["wrote the first program"]}

EXAMPLES: Mapping[str, Example] = {
    "filesystem": Example(
        command=_filesystem,
        roles=("reader", "editor"),
        shown={
            "reader": _FILE_READS,
            "editor": _FILE_READS | {"create_directory", "edit_file", "write_file"},
        },
        steps=lambda folder: (
            Step(who="reader", tool="read_text_file", arguments={"path": str(folder / "note.txt")}),
            Step(
                who="reader",
                tool="create_directory",
                arguments={"path": str(folder / "no")},
                reason="not_allowed",
            ),
            Step(who="editor", tool="create_directory", arguments={"path": str(folder / "yes")}),
        ),
        left=lambda folder: sorted(each.name for each in folder.iterdir()) == ["note.txt", "yes"],
        hidden="move_file",
    ),
    "git": Example(
        command=_git,
        roles=("reader", "committer"),
        shown={"reader": _GIT_READS, "committer": _GIT_READS | {"git_add", "git_commit"}},
        steps=lambda folder: (
            Step(who="reader", tool="git_status", arguments={"repo_path": str(folder)}),
            Step(
                who="reader",
                tool="git_add",
                arguments={"repo_path": str(folder), "files": ["a.txt"]},
                reason="not_allowed",
            ),
            Step(who="committer", tool="git_add", arguments={"repo_path": str(folder), "files": ["a.txt"]}),
            Step(
                who="committer", tool="git_reset", arguments={"repo_path": str(folder)}, reason="not_allowed"
            ),
            Step(
                who="committer", tool="git_commit", arguments={"repo_path": str(folder), "message": "Second"}
            ),
        ),
        left=lambda folder: _git_log(folder) == ["Second", "First"],
        hidden="git_reset",
    ),
    "memory": Example(
        command=_memory,
        roles=("reader", "writer", "curator"),
        shown={
            "reader": _MEMORY_READS,
            "writer": _MEMORY_READS | _MEMORY_WRITES,
            "curator": _MEMORY_READS
            | _MEMORY_WRITES
            | {"read_graph", "delete_observations", "delete_relations"},
        },
        steps=lambda _: (
            Step(who="writer", tool="create_entities", arguments={"entities": [_ADA]}),
            Step(who="reader", tool="search_nodes", arguments={"query": "Ada"}),
            Step(who="reader", tool="create_entities", arguments={"entities": [_ADA]}, reason="not_allowed"),
            Step(who="writer", tool="read_graph", arguments={}, reason="not_allowed"),
            Step(who="curator", tool="read_graph", arguments={}),
        ),
        left=lambda folder: _names_in(folder / "graph.jsonl") == ["Ada"],
        hidden="delete_entities",
    ),
}


class Scene(msgspec.Struct, frozen=True, kw_only=True):
    """A server and a sidecar before it, at work."""

    name: str
    folder: Path
    direct: str
    guarded: str
    keys: Keys

    @property
    def example(self) -> Example:
        return EXAMPLES[self.name]


@pytest.fixture(scope="module", params=list(EXAMPLES))
def scene(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, logs: Path
) -> Iterator[Scene]:
    name = str(request.param)
    example = EXAMPLES[name]
    folder = tmp_path_factory.mktemp(name)
    people = (Person(name=role, roles=(role,)) for role in example.roles)
    keys = keys_for(tmp_path_factory.mktemp("keys"), *people)
    with ExitStack() as stack:
        direct = stack.enter_context(_bridged(name, example.command(folder), logs))
        guarded = stack.enter_context(_guarded(name, direct, keys, logs))
        yield Scene(name=name, folder=folder, direct=direct, guarded=guarded, keys=keys)


@contextmanager
def _bridged(name: str, stdio: list[str], logs: Path) -> Iterator[str]:
    """The server behind PyPI's mcp-proxy; yields its URL."""
    address = free_address("127.0.0.1:0")
    host, _, port = address.rpartition(":")
    python = python_environment(TOOLS / "mcp-sidecar", REQUIREMENTS)
    words = [str(python), "-I", "-m", "mcp_proxy", "--host", host, "--port", port, "--", *stdio]
    with Child(name, words, logs / f"example-{name}-server.log", stop_s=2) as child:
        child.wait_until(lambda: accepts(address), "listening", timeout_s=running.READY_S)
        yield f"http://{address}/mcp"


@contextmanager
def _guarded(name: str, upstream: str, keys: Keys, logs: Path) -> Iterator[str]:
    """A sidecar with the shipped file; yields the URL."""
    listen, operations = (f"127.0.0.1:{port}" for port in free_ports(2))
    words = [sys.executable, "-m", "proxy", "run", "--config", str(ROOT / "policies" / f"{name}.yaml")]
    for each in (
        f"listen.address={listen}",
        "listen.allowed_hosts=[]",
        f"operations.address={operations}",
        f"identity.authenticators={json.dumps(keys.authenticators)}",
        "drain_s=1",
    ):
        words += ["--set", each]
    log = logs / f"example-{name}.log"
    with Child(name, words, log, environment={**os.environ, "MCP_UPSTREAM_URL": upstream}) as child:
        child.wait_until(lambda: answers_ok(operations, "/readyz"), "ready", timeout_s=running.READY_S)
        yield f"http://{listen}/mcp"
        ledger.look("log of a process", log.read_bytes())


async def _names(session: Session) -> set[str]:
    return {str(tool["name"]) for tool in await session.tools()}


async def test_each_role_sees_what_its_file_says(clients: Clients, scene: Scene) -> None:
    """Issue 9, 5: the rules fit the tools that the real server has today, and all of them were thought of."""
    async with clients.connected(SETUP, scene.direct) as session:
        everything = await _names(session)
    seen = {}
    for role in scene.example.roles:
        async with clients.connected(SETUP, scene.guarded, scene.keys.of[role]) as session:
            seen[role] = await _names(session)
    assert seen == scene.example.shown
    assert scene.example.hidden in everything
    assert not any(scene.example.hidden in names for names in seen.values())


async def test_calls_are_allowed_and_refused_as_the_file_says(clients: Clients, scene: Scene) -> None:
    """Issue 9, 5: who is allowed is answered by the server, who is not by us."""
    steps = scene.example.steps(scene.folder)
    found = []
    for step in steps:
        async with clients.connected(SETUP, scene.guarded, scene.keys.of[step.who]) as session:
            said = await session.call(step.tool, **step.arguments)
        reason = None if said.refusal is None else said.refusal["reason"]
        assert said.is_error == (reason is not None), said.text
        found.append((step.who, step.tool, reason))
    assert found == [(step.who, step.tool, step.reason) for step in steps]
    assert scene.example.left(scene.folder)
    assert {None, "not_allowed"} <= {step.reason for step in steps}


@pytest.mark.parametrize("scene", ["filesystem", "memory"], indirect=True)
async def test_what_is_hidden_cannot_be_called(clients: Clients, scene: Scene) -> None:
    """Issue 9, 5: by whoever may do most, like a tool that the server does not have."""
    hidden = scene.example.hidden
    key = scene.keys.of[scene.example.roles[-1]]
    async with clients.connected(SETUP, scene.guarded, key) as session:
        answered = await _answer(session, hidden)
    async with clients.connected(SETUP, scene.direct) as session:
        unknown = await _answer(session, f"{hidden}s")
    assert answered == unknown


async def _answer(session: Session, tool: str) -> tuple[object, ...]:
    """All that a client can tell of the answer, with the tool's name as NAME."""
    try:
        said = await session.call(tool)
    except Failed as failed:
        return failed.kind, failed.code, failed.message.replace(tool, "NAME")
    return said.text.replace(tool, "NAME"), said.is_error, said.refusal
