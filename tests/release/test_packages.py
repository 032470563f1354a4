"""The wheel and the source distribution: made twice, opened, and installed where nothing else is."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tarfile
import zipfile
from email.parser import BytesParser
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from hatchling.builders.sdist import SdistBuilder

from proxy import __version__
from tests.release import installed
from tests.release.installed import ROOT, clean_environment, run, wheel_of
from tests.tools.python_env import TOOLS

BILL = ROOT / "deploy" / "release" / "mcp-sidecar.cdx.json"
SCRIPT = ROOT / "deploy" / "release" / "sbom.py"
LICENCES = {
    *("MIT", "MIT-0", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "PSF-2.0", "MPL-2.0"),
}
"""Those that everybody may ship beside Apache-2.0; another one is a decision."""
EPOCH = "1790000000"


def versions(lock: str) -> dict[str, str]:
    text = (ROOT / "requirements" / lock).read_text(encoding="utf-8")
    return dict(re.findall(r"(?m)^([a-z0-9-]+)==([^ ;\\]+)", text))


def checkout(folder: Path) -> Path:
    """What git would have, as somebody else has it: other times and other rights."""
    copy = folder / "elsewhere"
    names = ("proxy", "policies", "deploy", "docs", "requirements")
    for name in names:
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in (*(each.name for each in ROOT.glob("*.md")), "pyproject.toml", "LICENSE", ".gitignore"):
        shutil.copy(ROOT / name, copy / name)
    for each in copy.rglob("*"):
        os.utime(each, (1_000_000_000, 1_000_000_000))
        if each.is_file():
            each.chmod(0o600)
    return copy


def test_the_same_sources_give_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Issue 9, 7: whoever builds it again can see that what was shipped is what lies in the repository."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", EPOCH)
    copy = checkout(tmp_path)
    made = []
    for number, root in enumerate((ROOT, copy)):
        folder = tmp_path / str(number)
        (sdist,) = SdistBuilder(str(root)).build(directory=str(folder), versions=["standard"])
        made.append((wheel_of(root, folder).read_bytes(), Path(sdist).read_bytes()))
    assert made[0] == made[1]


def test_a_wheel_of_the_source_distribution_is_the_wheel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Distributions build from it: nothing may be missing there."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", EPOCH)
    (sdist,) = SdistBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    unpacked = tmp_path / f"mcp_sidecar-{__version__}"
    again = wheel_of(unpacked, tmp_path / "again").read_bytes()
    assert again == wheel_of(ROOT, tmp_path / "first").read_bytes()


def test_the_wheel_holds_the_product_and_what_belongs_to_it(tmp_path: Path) -> None:
    """Issue 9, 5 and 7: the version of one place, the policies, and the bill of materials (PEP 770)."""
    wheel = wheel_of(ROOT, tmp_path)
    about = f"mcp_sidecar-{__version__}.dist-info"
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = BytesParser().parsebytes(archive.read(f"{about}/METADATA"))
        assert archive.read(f"{about}/sboms/{BILL.name}") == BILL.read_bytes()
    assert metadata["Version"] == __version__
    assert metadata["License-Expression"] == "Apache-2.0"
    shipped = {str(each.relative_to(ROOT)) for each in (ROOT / "policies").rglob("*.yaml")}
    assert {f"proxy/{name}" for name in shipped} <= set(names)
    assert {name.split("/")[0] for name in names} == {"proxy", about}
    assert [name for name in names if "__pycache__" in name or name.startswith("tests")] == []


def test_the_bill_is_what_the_locks_say() -> None:
    """Issue 9, 7. Licences of what is installed here are asked anew."""
    done = run([sys.executable, SCRIPT, "--check"], ROOT)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_bill_fits_its_schema_and_leaves_nothing_out() -> None:
    """CycloneDX 1.6, checked strictly; each package once, with a licence we may ship."""
    text = BILL.read_text(encoding="utf-8")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    bill = json.loads(text)
    assert bill["metadata"]["component"]["version"] == __version__
    found = {each["name"]: each["version"] for each in bill["components"]}
    assert found == versions("image.lock")
    assert len(found) == len(bill["components"])
    licences = {
        each["name"]: {*re.split(" AND | OR ", one["expression"])}
        for each in bill["components"]
        for one in each["licenses"]
    }
    assert licences.keys() == found.keys()
    assert set().union(*licences.values()) <= LICENCES
    required = {each["name"] for each in bill["components"] if each["scope"] == "required"}
    assert required == versions("run.lock").keys()
    known = {each["ref"] for each in bill["dependencies"]}
    below = {ref for each in bill["dependencies"] for ref in each.get("dependsOn", [])}
    (root,) = known - below
    assert root == f"pkg:pypi/mcp-sidecar@{__version__}"


def test_a_bill_that_is_not_made_anew_is_noticed(tmp_path: Path) -> None:
    """The test above must be able to fail."""
    copy = checkout(tmp_path)
    lock = copy / "requirements" / "image.lock"
    lock.chmod(0o644)
    lock.write_text(lock.read_text("utf-8").replace("idna==3.20", "idna==3.21"), encoding="utf-8")
    done = run([sys.executable, copy / "deploy/release/sbom.py", "--check"], copy)
    assert (done.returncode, done.stderr.partition(":")[0]) == (1, f"{BILL.name} is not what the locks say")


def test_all_locks_name_the_same_versions() -> None:
    """What was tested is what is installed and what is in the image."""
    tested, image, alone = (versions(f"{name}.lock") for name in ("test", "image", "run"))
    assert alone.items() <= image.items()
    assert alone.items() <= tested.items()
    assert image.keys() <= tested.keys()
    assert {name: version for name, version in image.items() if tested.get(name, version) != version} == {}


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Our wheel in an environment of its own, with requirements/run.lock and nothing else."""
    return installed.installed(tmp_path_factory.mktemp("installed"))


@pytest.mark.slow
def test_the_wheel_works_where_nothing_else_is(command: Path, tmp_path: Path) -> None:
    """Issue 9: from an empty directory; packs and examples by name, without a checkout."""
    assert run([command, "--version"], tmp_path).stdout == f"mcp-sidecar {__version__}\n"
    assert json.loads(run([command, "schema"], tmp_path).stdout)["$schema"]
    shown = run([command, "policy", "show", "filesystem"], tmp_path).stdout
    (tmp_path / "sidecar.yaml").write_text(shown, encoding="utf-8")
    done = run([command, "check", "--config", "sidecar.yaml", "--set", "policy.packs=[strict]"], tmp_path)
    assert (done.returncode, done.stdout.splitlines()[0], done.stderr) == (0, "sidecar.yaml: ok", "")
    python = command.with_name("python")
    script = "import proxy, importlib.metadata as m; print(proxy.__file__, m.version('mcp-sidecar'))"
    where, version = run([python, "-I", "-c", script], tmp_path).stdout.split()
    assert Path(where).is_relative_to(command.parents[1])
    assert version == __version__


@pytest.mark.slow
def test_the_wheel_runs_the_demo(command: Path, tmp_path: Path) -> None:
    """Issue 9: the wheel installed in an empty environment runs the demo. The demo's own packages lie where its own
    tests keep them."""
    environment = clean_environment(XDG_CACHE_HOME=str(TOOLS))
    done = run([command, "demo"], tmp_path, environment)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "5 steps, 0 failed"), (
        done.stdout + done.stderr
    )


@pytest.mark.slow
def test_the_wheel_serves_and_its_figures_are_printed(
    command: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Issue 9: size, start and memory; numbers are printed and never judged (`python -m tests.release`)."""
    with installed.answering() as url:
        figures = installed.figures([str(command)], url, command.parents[1], tmp_path / "sidecar.log")
    with capsys.disabled():
        print(f"\nwheel without extras: {figures}")
    assert figures.installed_bytes > 0
    assert figures.rss_bytes > 0
