"""The workflow files: linted, least of rights, everything pinned, and in step with the rest."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TOOLS = Path(sys.executable).parent
PINNED = re.compile(r"[a-z-]+/[a-z-]+@[0-9a-f]{40}")


def ran(*words: str | Path) -> str:
    """Run a checker; what it says when it is content."""
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def workflow(file: Path) -> dict[Any, Any]:
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


def test_there_are_these() -> None:
    """Issue 9, 7: test, build, multi-arch image, signing, release."""
    assert [file.stem for file in FILES] == ["build", "image", "release", "test"]


def test_the_checkers_find_nothing() -> None:
    """check-jsonschema for their form, zizmor (without asking anybody) for what an attacker would use."""
    ran(TOOLS / "check-jsonschema", "--builtin-schema", "vendor.github-workflows", *FILES)
    assert "No findings to report" in ran(TOOLS / "zizmor", "--offline", "--no-progress", *FILES)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_everything_of_others_is_pinned_by_its_commit(file: Path) -> None:
    """A tag can be moved to other code; each has its version behind it, for people."""
    text = file.read_text(encoding="utf-8")
    lines = [line.strip().removeprefix("- ") for line in text.splitlines() if "uses:" in line]
    foreign = [line.removeprefix("uses: ") for line in lines if not line.startswith("uses: $/")]
    assert foreign or file.stem == "release"
    for line in foreign:
        action, _, version = line.partition(" # ")
        assert PINNED.fullmatch(action), line
        assert re.fullmatch(r"v\d+\.\d+\.\d+", version), line


def test_an_action_has_one_commit_everywhere() -> None:
    """Else one of them is old, or somebody else's."""
    found: dict[str, set[str]] = {}
    for file in FILES:
        for action, commit in re.findall(r"uses: ([a-z-]+/[a-z-]+)@(\S+)", file.read_text(encoding="utf-8")):
            found.setdefault(action, set()).add(commit)
    assert {action: commits for action, commits in found.items() if len(commits) > 1} == {}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_workflow_may_do_nothing_and_a_job_what_it_needs(file: Path) -> None:
    """Nothing for all, then a few rights for a job; writing only where something is published."""
    content = workflow(file)
    assert content["permissions"] == {}
    writers = {
        f"{name}: {right}"
        for name, job in content["jobs"].items()
        for right, how in job["permissions"].items()
        if how == "write"
    }
    publishing = {"id-token", "attestations", "packages", "contents"}
    if file.stem in ("test", "build"):
        assert writers == set()
    assert {each.split(": ")[1] for each in writers} <= publishing
    for job in content["jobs"].values():
        assert "timeout-minutes" in job or "uses" in job
        for step in job.get("steps", []):
            if str(step.get("uses", "")).startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False


def test_every_python_that_is_supported_is_tested() -> None:
    """requires-python and the image's own version are in the matrix."""
    matrix = workflow(ROOT / ".github/workflows/test.yml")["jobs"]["test"]["strategy"]["matrix"]["python"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["requires-python"] == f">={matrix[0]}"
    image = re.findall(r"ARG BASE=python:(\d\.\d+)-", (ROOT / "Dockerfile").read_text(encoding="utf-8"))
    assert image == [matrix[-1]]
    assert matrix == ["3.11", "3.12", "3.13", "3.14"]


def test_what_the_image_holds_is_tested_with_its_python() -> None:
    """The image is compiled for one Python; that form of it runs every test before anything is published."""
    jobs = workflow(ROOT / ".github/workflows/test.yml")["jobs"]
    compiled = jobs["compiled"]["steps"]
    assert compiled[-1] == {"run": "make test-compiled"}
    (python,) = [
        step["with"]["python-version"] for step in compiled if "setup-python" in step.get("uses", "")
    ]
    assert python == jobs["test"]["strategy"]["matrix"]["python"][-1]


def test_a_change_is_tested_as_it_is_taken() -> None:
    """.ci/run is the one thing that says yes, here as there."""
    steps = workflow(ROOT / ".github/workflows/test.yml")["jobs"]["test"]["steps"]
    assert steps[-1] == {"run": ".ci/run"}


def test_a_release_is_tested_signed_and_attested_before_it_is_published() -> None:
    """Whatever a tag says: nothing is published that was not tested, and the image goes before its notes."""
    jobs = workflow(ROOT / ".github/workflows/release.yml")["jobs"]

    def before(name: str) -> set[str]:
        needed = jobs[name].get("needs", [])
        direct = {needed} if isinstance(needed, str) else set(needed)
        return direct.union(*(before(each) for each in direct))

    assert before("pypi") == {"version", "test", "build", "image"}
    assert before("image") == {"version", "test", "build"}
    assert before("notes") == {"pypi", *before("pypi")}
    push = workflow(ROOT / ".github/workflows/image.yml")["jobs"]["push"]["steps"]
    names = [str(step.get("uses", step.get("name"))).split("@")[0] for step in push]
    assert names.index("docker/build-push-action") < names.index("Sign by digest")
    assert {"actions/attest-sbom", "actions/attest-build-provenance"} <= set(names)
    (build,) = [step for step in push if str(step.get("uses", "")).startswith("docker/build-push-action")]
    assert build["with"]["platforms"] == "linux/amd64,linux/arm64"
