"""`explain`, `policy test` and packs as an operator meets them: commands, shipped files, a wheel."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

from tests.integration.conftest import Connect, OpenSidecar
from tests.integration.house import process, run_words
from tests.integration.upstream import Upstream
from tests.integration.wire import post, tool_call

ROOT = Path(__file__).parents[2]
SETTINGS = sorted(path.name for path in (ROOT / "policies").glob("*.yaml"))
PACKS = sorted(path.stem for path in (ROOT / "policies" / "packs").glob("*.yaml"))
VECTORS = sorted(path.name for path in (ROOT / "policies" / "vectors").glob("*.yaml"))
KUBERNETES = ["--config", "policies/kubernetes.yaml"]


def run(*words: str, folder: Path = ROOT, package: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run one command in `folder` with the package that lies in `package`, without settings of our environment."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MCP_")}
    return subprocess.run(
        [sys.executable, "-P", "-m", "proxy", *words],
        cwd=folder,
        env={**clean, "PYTHONPATH": str(package)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize("name", SETTINGS)
def test_every_shipped_settings_file_is_ok(name: str) -> None:
    """policies/*.yaml are what people copy first."""
    done = run("check", "--config", f"policies/{name}")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"policies/{name}: ok\n")


def test_packs_and_examples_have_vectors() -> None:
    """Issue 4, item 11: packs that are themselves tested."""
    examples = {"filesystem", "git", "kubernetes", "memory"}
    assert {Path(name).stem for name in VECTORS} == {*PACKS, *examples}
    assert {f"{name}.yaml" for name in examples} <= set(SETTINGS)


@pytest.mark.parametrize("name", VECTORS)
def test_the_shipped_vectors_are_as_expected(name: str) -> None:
    done = run("policy", "test", f"policies/vectors/{name}")
    assert (done.returncode, done.stderr) == (0, "")
    (line,) = done.stdout.splitlines()
    right, _, count = line.partition(": ")[2].removesuffix(" cases as expected").partition(" of ")
    assert right == count
    assert int(count) >= 9


@pytest.mark.parametrize("pack", PACKS)
def test_the_vectors_of_a_pack_notice_when_it_is_gone(pack: str, tmp_path: Path) -> None:
    """A test that passes without the pack would test nothing."""
    text = (ROOT / "policies" / "vectors" / f"{pack}.yaml").read_text(encoding="utf-8")
    assert text.count(f"policy.packs=[{pack}]") == 1
    file = tmp_path / "vectors.yaml"
    changed = text.replace(f"policy.packs=[{pack}]", "policy.packs=[]")
    file.write_text(
        changed.replace("../observe.yaml", str(ROOT / "policies" / "observe.yaml")), encoding="utf-8"
    )
    done = run("policy", "test", str(file))
    assert done.returncode == 1
    assert "  + allow, by " in done.stdout


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (
            ["--as", "acme:ann:viewer", "--call", "kubectl_get", '{"kind": "pods"}'],
            0,
            "ALLOWED by the rule kubectl_get",
        ),
        (
            ["--as", "acme:ann:operator", "--call", "kubectl_delete"],
            1,
            "REFUSED not_allowed, by the rule kubectl_delete",
        ),
        (
            ["--as", "acme:ann:operator", "--call", "kubectl_scale"],
            1,
            "REFUSED scope_missing, by the rule kubectl_scale",
        ),
        (
            ["--as", "acme:ann:operator", "--scope", "cluster:scale", "--call", "kubectl_scale"],
            0,
            "ALLOWED by the rule kubectl_scale",
        ),
        (
            ["--as", "acme:ann:operator", "--call", "exec_in_pod"],
            1,
            "REFUSED not_visible, by the rule exec_in_pod",
        ),
        (
            ["--as", "acme:ann", "--method", "resources/read", "--target", "file:///x"],
            1,
            "REFUSED not_allowed, by the rule default",
        ),
        (["--as", "acme:ann", "--method", "tools/list"], 0, "ALLOWED by the rule protocol"),
        (["--as", "acme:ann", "--call", "a\nb"], 1, "REFUSED malformed, before any rule"),
    ],
)
def test_explain_says_what_becomes_of_a_call(words: list[str], code: int, said: str) -> None:
    done = run("explain", *KUBERNETES, *words)
    assert (done.returncode, done.stderr) == (code, "")
    assert said in done.stdout
    # One screen.
    assert len(done.stdout.splitlines()) <= 24


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--as", "acme:ann"],
        ["--as", "acme:ann", "--call", "x", "--method", "y"],
        ["--as", "acme", "--call", "x"],
        ["--as", "acme:ann", "--call", "x", "{}", "{}"],
        ["--as", "acme:ann", "--call", "x", "[]"],
        ["--as", "acme:ann", "--call", "x", "--target", "y"],
        ["--as", "acme:ann", "--method", "prompts/get"],
        ["--as", "acme:ann", "--call", "x", "--set", "drain_s=soon"],
    ],
    ids=" ".join,
)
def test_explain_does_not_guess(words: list[str]) -> None:
    """2: the settings or the words are wrong; nothing is said about a call then."""
    done = run("explain", *KUBERNETES, *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr


def test_an_override_of_packs_is_told_by_check() -> None:
    """Issue 4, item 11: one loud per-tool override."""
    loud = "policy: PACKS ARE OVERRIDDEN for "
    told = [line.strip() for line in run("check", *KUBERNETES).stdout.splitlines()]
    assert [
        line.partition(":")[0] + ":" + line.partition(":")[2].partition(":")[0]
        for line in told
        if loud in line
    ] == [f"{loud}kubectl_scale"]
    assert loud not in run("check", "--config", "policies/filesystem.yaml").stdout


async def test_an_override_of_packs_is_told_at_every_start(upstream: Upstream) -> None:
    rules = 'policy.tools=[{"match": "cleanup", "allow": ["*"], "overrides_packs": true}]'
    async with process(*run_words(upstream.url, "policy.packs=[destructive]", rules)) as child:
        await child.lines.when(
            lambda lines: any(line["msg"] == "packs are overridden" for line in lines.life)
        )
        (line,) = [line for line in child.lines.life if line["msg"] == "packs are overridden"]
    assert (line["level"], line["tools"]) == ("warning", ["cleanup"])


async def test_what_a_pack_denies_never_reaches_the_server(
    open_sidecar: OpenSidecar, connect: Connect, upstream: Upstream
) -> None:
    """The packs of the settings are in force in a running sidecar, above rules that allow."""
    sidecar = await open_sidecar(
        'policy.tools=[{"match": "*", "allow": ["*"]}]', "policy.packs=[destructive]"
    )
    client = await connect(sidecar.port)
    client.send(post(tool_call(tool="kubectl_delete")))
    assert b'"reason":"not_allowed"' in (await client.answer()).body
    assert upstream.seen == []
    client.send(post(tool_call(tool="kubectl_get")))
    assert b"kubectl_get" in (await upstream.next()).request.body


def test_an_installed_wheel_has_the_packs(tmp_path: Path) -> None:
    """policies/ lies outside the package: what is shipped must be found without the checkout."""
    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    file = tmp_path / "settings.yaml"
    file.write_text(
        "version: 1\nupstream: {url: http://127.0.0.1:1/mcp}\npolicy: {packs: [destructive, nothing]}\n",
        encoding="utf-8",
    )
    done = run("check", "--config", str(file), folder=tmp_path, package=site)
    assert done.returncode == 2
    assert done.stdout.splitlines() == [
        f"{file}:3:31: policy.packs[1]: is no shipped pack, there is none of this name, "
        f"known here: {', '.join(PACKS)}"
    ]
    words = ["--config", str(file), "--set", "policy.packs=[destructive]", "--as", "a:b", "--call", "cleanup"]
    done = run("explain", *words, folder=tmp_path, package=site)
    assert (done.returncode, done.stderr) == (1, "")
    assert "  > cleanup " in done.stdout


def test_an_installed_wheel_has_the_examples(tmp_path: Path) -> None:
    """Issue 9, 5: who has nothing but the wheel gets every file of policies/, and can use it at once."""
    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    listed = run("policy", "list", folder=tmp_path, package=site).stdout.splitlines()
    assert [line.split()[:2] for line in listed] == [
        *(["example", name.removesuffix(".yaml")] for name in SETTINGS),
        *(["pack", name] for name in PACKS),
    ]
    for kind, name in (line.split()[:2] for line in listed):
        folder = ROOT / "policies" / ("packs" if kind == "pack" else "")
        done = run("policy", "show", name, folder=tmp_path, package=site)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == (folder / f"{name}.yaml").read_text(encoding="utf-8")
    (tmp_path / "own.yaml").write_text(run("policy", "show", "memory").stdout, encoding="utf-8")
    assert run("check", "--config", "own.yaml", folder=tmp_path, package=site).returncode == 0
    shown = tmp_path / "site/proxy/policies/vectors/memory.yaml"
    assert run("policy", "test", str(shown), folder=tmp_path, package=site).returncode == 0


def test_what_is_not_shipped_is_not_shown() -> None:
    """design section 2: exit code 2; names known here are told, and no path is one."""
    for name in ("nothing", "../pyproject", "packs/strict"):
        done = run("policy", "show", name)
        assert (done.returncode, done.stdout) == (2, "")
        assert f"'{name}'" in done.stderr
        assert "nothing of this name is shipped" in done.stderr
