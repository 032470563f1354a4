"""What deploy/README.md says is so: its kustomization builds, its commands run, its tables name what is there."""

from __future__ import annotations

import io
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from proxy.check import check as check_settings
from proxy.inject import sidecar
from proxy.inject.command import _TEXTS, inject
from proxy.inject.wishes import READ, Wish
from tests.manifests import objects as every_object
from tests.manifests.kubernetes import check
from tests.system import tools
from tests.system.test_kustomize import DEPLOY, OVERLAYS, ROOT, build, objects, overlay, pod, settings_of
from tests.unit.inject.test_injecting import ours

README = (DEPLOY / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```([a-z]*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
COMMANDS = [line for language, block in BLOCKS if not language for line in block.splitlines()]


def test_every_folder_is_in_its_table_and_every_name_is_a_folder() -> None:
    table = README[README.index("| here |") : README.index("## With kustomize")]
    named = {
        each
        for row in table.splitlines()[2:]
        if row
        for each in re.findall(r"`([\w./-]+)`", row.split("|")[1])
    }
    there = {
        each.name for each in DEPLOY.iterdir() if each.name not in ("README.md", "overlays", "__pycache__")
    }
    assert named == there | {f"overlays/{each}" for each in OVERLAYS}


@pytest.mark.system("kubectl")
def test_the_kustomization_that_it_shows_guards_a_server(tmp_path: Path) -> None:
    (block,) = re.findall(r"```yaml\n# kustomization.yaml\n(.*?)```", README, re.DOTALL)
    mine = tmp_path / "mine"
    mine.mkdir()
    (tmp_path / "mcp-sidecar").mkdir()
    (tmp_path / "mcp-sidecar" / "deploy").symlink_to(DEPLOY)
    (mine / "kustomization.yaml").write_text(block, encoding="utf-8")
    (mine / "settings.yaml").write_bytes((DEPLOY / "overlays/observe/settings.yaml").read_bytes())
    text = (DEPLOY / "example" / "server.yaml").read_text(encoding="utf-8")
    (mine / "server.yaml").write_text(text, encoding="utf-8")
    found = objects(build(mine))
    for each in found.values():
        check(each)
    assert ours(pod(found))["image"] == "registry.example.com/mcp-sidecar:0.1.0"
    assert found["Service/mcp-server"]["spec"]["ports"][0]["targetPort"] == 8080
    assert check_settings(settings_of(found, tmp_path), (), {}, sys.stdout) == 0


def test_the_inject_commands_that_it_shows_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to the pipe into kubectl, which would want a cluster."""
    monkeypatch.chdir(tmp_path)
    server = (DEPLOY / "example" / "server.yaml").read_bytes()
    (tmp_path / "deployment.yaml").write_bytes(server)
    shown = [
        part.strip()
        for line in COMMANDS
        for part in line.split("|")
        if part.strip().startswith("mcp-sidecar inject")
    ]
    assert len(shown) == 2
    for each in shown:
        out = io.StringIO()
        words = [*shlex.split(each)[2:], "--port", "8000"]  # the example's server names none, as it should
        assert inject(words, io.BytesIO(server), out, io.StringIO()) == 0
        for thing in every_object(out.getvalue()):
            check(thing)


def test_its_table_of_options_is_the_commands() -> None:
    table = README[README.index("| option |") : README.index("An annotation goes before")]
    options, annotations = (
        set(re.findall(r"`--([a-z-]+)", table)),
        set(re.findall(r"(?:dev|…)/([a-z-]+)(?=[`:])", table)),
    )
    assert options == {*_TEXTS, "classic", "only", "service"}
    assert annotations == set(READ)
    for default in (sidecar.CPU, sidecar.MEMORY, sidecar.MEMORY_LIMIT, sidecar.SECRET_FOLDER):
        assert default in table


def test_its_table_of_seconds_is_what_the_manifests_say() -> None:
    native, classic = Wish(), Wish(is_classic=True)
    seconds = [int(each) for each in re.findall(r"^\| ([0-9]+) \|", README, re.MULTILINE)]
    asleep = sidecar.server_sleep_s(native)
    assert seconds == [
        0,
        sidecar.ENDPOINTS_S,
        asleep,
        sidecar.server_sleep_s(classic),
        asleep + sidecar.STOP_S,
    ]
    assert f"| {sidecar.grace_s(classic)}, {sidecar.grace_s(native)} |" in README


@pytest.mark.system("kubectl")
def test_the_key_that_it_makes_fits_the_overlay(tmp_path: Path) -> None:
    """The Secret of overlays/enforce, made as the page says; the check reads the file."""
    (line,) = (each for each in COMMANDS if each.startswith("mcp-sidecar hash-key"))
    words = shlex.split(line.partition(">")[0])[1:]
    done = subprocess.run(
        [sys.executable, "-m", "proxy", *words], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    file = settings_of(overlay("enforce"), tmp_path)
    (keys,) = tmp_path.rglob("api-keys.yaml")
    keys.write_text(done.stdout, encoding="utf-8")
    assert check_settings(file, (), {}, sys.stdout) == 0


@pytest.mark.system("kubectl")
def test_the_secrets_that_it_makes_hold_what_is_mounted() -> None:
    """kubectl makes them here as it would there, and sends them to nobody."""
    created = [each for each in COMMANDS if each.startswith("kubectl create secret")]
    found = {}
    for each in created:
        words = [word.replace("$password", "x") for word in shlex.split(each)[1:] if "api-keys" not in word]
        done = subprocess.run(
            [tools.path("kubectl"), *words, "--dry-run=client", "-o", "name"],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        found[words[3]] = set(re.findall(r"--from-(?:literal|file)=([\w.-]+)", each))
    assert found == {"mcp-sidecar": {"api-keys.yaml"}, "mcp-sidecar-valkey": {"password", "auth.conf"}}
    text = (DEPLOY / "overlays/shared-quota/valkey.yaml").read_text(encoding="utf-8")
    text += (DEPLOY / "overlays/shared-quota/password.yaml").read_text(encoding="utf-8")
    assert set(re.findall(r"\{key: ([\w.]+),", text)) == found["mcp-sidecar-valkey"]
