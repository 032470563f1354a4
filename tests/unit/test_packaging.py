"""What is shipped around the code: the image, the example pod, and the script that lets a change in.

Read as data; nothing here builds an image or speaks to a cluster.
"""

import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml

from proxy import __version__
from proxy.commands import run_command
from proxy.lifecycle.drain import GRACE_S
from proxy.lifecycle.healthcheck import DEFAULT_ADDRESS
from proxy.lifecycle.probes import Health, operations
from proxy.settings import Settings, load
from proxy.upstream.probe import TIMEOUT_S

ROOT = Path(__file__).parents[2]


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile as (instruction, rest of the line), in order, without comments."""
    text = re.sub(r"(?m)^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(encoding="utf-8"))
    lines = text.replace("\\\n", " ").splitlines()
    return [(word, rest.strip()) for line in lines if line.strip() for word, _, rest in [line.partition(" ")]]


def final_stage() -> dict[str, str]:
    """The last value of each instruction after the last FROM: what the running image is made of."""
    lines = instructions()
    start = max(at for at, (word, _) in enumerate(lines) if word == "FROM")
    return dict(lines[start:])


def pod() -> tuple[dict[str, Any], dict[str, Any]]:
    """The example's ConfigMap and Pod."""
    documents = list(yaml.safe_load_all((ROOT / "deploy" / "pod.yaml").read_text(encoding="utf-8")))
    by_kind = {each["kind"]: each for each in documents}
    assert len(documents) == len(by_kind) == 2
    return by_kind["ConfigMap"], by_kind["Pod"]


def the_sidecar() -> dict[str, Any]:
    (container,) = pod()[1]["spec"]["initContainers"]
    assert isinstance(container, dict)
    return container


def the_server() -> dict[str, Any]:
    (container,) = pod()[1]["spec"]["containers"]
    assert isinstance(container, dict)
    return container


def its_settings(folder: Path) -> Settings:
    """What the sidecar of the example reads, from the file its arguments name."""
    config_map, the_pod = pod()
    (mount,) = the_sidecar()["volumeMounts"]
    (volume,) = the_pod["spec"]["volumes"]
    assert (volume["name"], volume["configMap"]["name"]) == (mount["name"], config_map["metadata"]["name"])
    command, option, path = the_sidecar()["args"]
    assert (command, option, Path(path).parent) == ("run", "--config", Path(mount["mountPath"]))
    file = folder / "settings.yaml"
    file.write_text(config_map["data"][Path(path).name], encoding="utf-8")
    return load(file, environ={})


def test_every_package_of_the_image_is_pinned_by_its_hash() -> None:
    """What was tested is what is shipped: no step asks an index for anything but a locked file."""
    installs = [
        step.strip()
        for word, rest in instructions()
        if word == "RUN"
        for step in rest.split("&&")
        if re.search(r"\bpip .*(install|wheel) ", step)
    ]
    assert len(installs) == 5
    assert all("--require-hashes" in each or "--no-index" in each for each in installs)
    assert any("--require-hashes" in each and '-r "requirements/${LOCK}.lock"' in each for each in installs)
    assert ("ARG", "LOCK=image") in instructions()


@pytest.mark.parametrize("name", ["run.lock", "image.lock", "test.lock", "compile.lock"])
def test_a_lock_names_files_and_no_place_to_get_them_from(name: str) -> None:
    """An index belongs to whoever installs; one in a lock would override theirs."""
    text = (ROOT / "requirements" / name).read_text(encoding="utf-8")
    assert "--hash=sha256:" in text
    assert re.findall(r"https?://\S*|--(?:extra-)?index-url|--find-links|@ file:", text) == []


def test_the_image_has_the_python_the_package_asks_for() -> None:
    asked = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["requires-python"]
    bases = [rest for word, rest in instructions() if word == "FROM"]
    (base,) = [rest for word, rest in instructions() if word == "ARG" and rest.startswith("BASE=")]
    assert bases == ["${BASE} AS build", "scratch"], "nothing of a distribution is left in what runs"
    assert base == "BASE=python:3.14-trixie"
    assert asked == ">=3.11"


def test_the_image_starts_the_sidecar_itself_so_that_it_hears_term() -> None:
    """The shell form would make a shell the first process, and it does not pass signals on."""
    stage = final_stage()
    entry, words = json.loads(stage["ENTRYPOINT"]), json.loads(stage["CMD"])
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    assert (entry, words) == (["mcp-sidecar"], ["run"])
    assert entry[0] in scripts


def test_the_image_does_not_run_as_root() -> None:
    """A number and not a name: with runAsNonRoot a kubelet refuses what it cannot tell from root."""
    user, _, group = final_stage()["USER"].partition(":")
    assert int(user) > 0
    assert int(group) > 0


def test_the_image_asks_whether_it_is_alive_where_the_sidecar_listens() -> None:
    check = json.loads(final_stage()["HEALTHCHECK"].partition("CMD")[2])
    assert check == ["mcp-sidecar", "healthcheck"]
    port = DEFAULT_ADDRESS.rpartition(":")[2]
    assert port in final_stage()["EXPOSE"].split()


def test_the_image_is_what_its_first_stage_put_together() -> None:
    """tests/release/test_image.py takes the steps and starts what comes out."""
    last_step = [rest for word, rest in instructions() if word == "RUN"][-1]
    assert last_step == "python deploy/release/rootfs.py /packages /rootfs"
    assert final_stage()["COPY"] == "--from=build /rootfs /"
    assert ("ARG", f"VERSION={__version__}") in instructions()
    user = str(runpy.run_path(str(ROOT / "deploy/release/rootfs.py"))["USER"])
    assert final_stage()["USER"] == f"{user}:{user}"


def test_the_build_context_holds_what_is_copied_and_nothing_else() -> None:
    """`*` first, so that a file nobody thought of, a secret perhaps, is not sent to a builder."""
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    copied = {
        source
        for word, rest in instructions()
        if word == "COPY" and not rest.startswith("--from")
        for source in rest.split()[:-1]
    }
    assert rules[0] == "*"
    assert {rule[1:] for rule in rules if rule.startswith("!")} == copied
    assert [source for source in copied if not (ROOT / source).exists()] == []
    assert any(fnmatch("proxy/__pycache__", rule) for rule in rules[1:] if not rule.startswith("!"))


def test_the_build_backend_of_the_image_is_the_one_of_the_package() -> None:
    system = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["build-system"]
    lock = (ROOT / "requirements" / "test.lock").read_text(encoding="utf-8")
    blocks = re.findall(r"(?m)^([a-z0-9-]+)==.*\n((?:^ .*\n)*)", lock)
    needed = {name for name, rest in blocks if re.search(r"(?m)^ +#(?: +via)? +hatchling$", rest)}
    (picked,) = (re.findall(r"/\^\(([a-z|-]+)\)==/", rest) for word, rest in instructions() if "awk" in rest)
    assert system["requires"] == ["hatchling"]
    assert len(needed) > 3
    assert set(picked[0].split("|")) == {"hatchling", *needed}


def test_the_example_pod_holds_settings_the_sidecar_takes(tmp_path: Path) -> None:
    settings = its_settings(tmp_path)
    assert str(settings.listen.address) == "0.0.0.0:8080"
    assert str(settings.operations.address) == "0.0.0.0:9901"
    assert settings.listen.allowed_hosts
    assert settings.identity.authenticators is not None


def test_the_check_command_agrees_with_the_example(tmp_path: Path) -> None:
    its_settings(tmp_path)
    assert run_command(["check", "--config", str(tmp_path / "settings.yaml")]) == 0


@pytest.mark.parametrize(
    ("probe", "path"),
    [("startupProbe", "/startupz"), ("readinessProbe", "/readyz"), ("livenessProbe", "/healthz")],
)
def test_a_probe_of_the_example_asks_what_is_served(probe: str, path: str, tmp_path: Path) -> None:
    """design section 4, lifecycle: a startup that waits for the server would keep it from starting."""

    async def nobody() -> bool:
        return False

    served = {
        route.resource.canonical for route in operations(Health(nobody)).router.routes() if route.resource
    }
    asked = the_sidecar()[probe]["httpGet"]
    assert asked == {"path": path, "port": its_settings(tmp_path).operations.address.port}
    assert asked["path"] in served


def test_the_readiness_probe_waits_longer_than_the_server_may_take() -> None:
    """Else the kubelet gives up on an answer that says why."""
    assert the_sidecar()["readinessProbe"]["timeoutSeconds"] > TIMEOUT_S


def test_the_ports_of_the_example_are_those_that_are_listened_on(tmp_path: Path) -> None:
    settings = its_settings(tmp_path)
    named = {each["name"]: each["containerPort"] for each in the_sidecar()["ports"]}
    assert named == {"mcp": settings.listen.address.port, "operations": settings.operations.address.port}
    assert "ports" not in the_server(), "the server is reached through the sidecar only"


def test_the_server_of_the_example_listens_where_the_sidecar_asks(tmp_path: Path) -> None:
    arguments = the_server()["args"]
    host, port = arguments[arguments.index("--host") + 1], arguments[arguments.index("--port") + 1]
    assert its_settings(tmp_path).upstream.url == f"http://{host}:{port}/mcp"
    assert host == "127.0.0.1"


def test_the_sidecar_of_the_example_outlives_its_server(tmp_path: Path) -> None:
    """A native sidecar starts first and gets its TERM last: what the server takes comes off the pod's grace."""
    assert the_sidecar()["restartPolicy"] == "Always"
    spec = pod()[1]["spec"]
    asleep = the_server()["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert asleep > GRACE_S
    assert spec["terminationGracePeriodSeconds"] > asleep + its_settings(tmp_path).drain_s


@pytest.mark.parametrize("container", [the_sidecar, the_server])
def test_a_container_of_the_example_may_do_nothing_it_need_not(container: Any) -> None:
    """The restricted pod security standard, and a file system nobody writes to."""
    rights = container()["securityContext"]
    assert rights.pop("runAsUser") > 0
    assert rights.pop("runAsGroup") > 0
    assert rights == {
        "runAsNonRoot": True,
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert container()["resources"]["requests"].keys() == {"cpu", "memory"}
    assert "memory" in container()["resources"]["limits"]


def test_the_example_runs_the_image_as_the_image_does() -> None:
    user, _, group = final_stage()["USER"].partition(":")
    rights = the_sidecar()["securityContext"]
    assert (rights["runAsUser"], rights["runAsGroup"]) == (int(user), int(group))
    assert the_server()["securityContext"]["runAsUser"] != rights["runAsUser"]
    assert the_sidecar()["image"] == f"mcp-sidecar:{__version__}"


def ci(
    folder: Path, *, says: str, test_code: int = 0, check_code: int = 0, programs: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run the script in an empty clone whose `make` prints `says` for the tests and notes what it was asked, and whose
    tests need `programs`."""
    (folder / ".ci").mkdir()
    script = shutil.copy(ROOT / ".ci" / "run", folder / ".ci" / "run")
    system = folder / "tests" / "system"
    system.mkdir(parents=True)
    shutil.copy(ROOT / "tests" / "system" / "tools.py", system)
    (system / "packages.txt").write_text(programs, encoding="utf-8")
    tools = folder / "tools"
    tools.mkdir()
    apt = tools / "apt-get"
    apt.write_text(f'#!/bin/sh\necho "apt-get $*" >> {shlex.quote(str(folder))}/asked\n', encoding="utf-8")
    apt.chmod(0o755)
    sudo = tools / "sudo"
    sudo.write_text('#!/bin/sh\nshift; exec "$@"\n', encoding="utf-8")
    sudo.chmod(0o755)
    make = tools / "make"
    make.write_text(
        "#!/bin/sh\n"
        'echo "$1 CI=$CI options=[$PYTEST_ADDOPTS] $(pwd)" >> asked\n'
        f'if [ "$1" = check ]; then echo "12 passed in 1.00s"; exit {check_code}; fi\n'
        "if read -r line; then exit 9; fi\n"
        f"printf '%b\\n' {shlex.quote(says)}\n"
        f"exit {test_code}\n",
        encoding="utf-8",
    )
    make.chmod(0o755)
    environment = {"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}", "PYTEST_ADDOPTS": "--ignore=tests"}
    return subprocess.run(
        [script],
        env=environment,
        cwd="/",
        input="not for the tests\n",
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


@pytest.mark.parametrize(
    "closing",
    [
        "812 passed in 61.20s (0:01:01)",
        "1 passed in 0.01s",
        "812 passed, 2 warnings in 61.20s",
        "812 passed, 40 subtests passed in 61.20s",
        "\x1b[32m\x1b[1m812 passed\x1b[0m\x1b[32m in 61.20s\x1b[0m",
        "==== 812 passed in 61.20s ====",
    ],
)
def test_a_change_is_taken_when_every_test_ran(closing: str, tmp_path: Path) -> None:
    """The last line is the runner's own, for whoever reads only that."""
    done = ci(tmp_path, says=f"....\\n3 skipped in 1.00s\\n{closing}")
    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-1]
    assert last == re.sub(r"\x1b\[[0-9;]*m|=+ | =+", "", closing)
    asked = (tmp_path / "asked").read_text(encoding="utf-8").splitlines()
    assert asked == [f"{word} CI=true options=[] {tmp_path}" for word in ("check", "test")]


@pytest.mark.parametrize(
    "closing",
    [
        "811 passed, 1 skipped in 61.20s",
        "811 passed, 1 deselected in 61.20s",
        "811 passed, 1 xpassed in 61.20s",
        "811 passed, 1 xfailed in 61.20s",
        "811 passed, 1 rerun in 61.20s",
        "1 failed, 811 passed in 61.20s",
        "811 passed, 1 error in 61.20s",
        "1 skipped in 0.10s",
        "3 warnings in 0.10s",
        "no tests ran in 0.01s",
        "",
        "all 812 passed",
    ],
)
def test_a_change_is_not_taken_when_something_did_not_run(closing: str, tmp_path: Path) -> None:
    """Also when the runner itself says success: skipped and deselected tests are no failures to it."""
    done = ci(tmp_path, says=f"....\\n{closing}")
    assert done.returncode == 1
    assert ".ci/run: " in done.stderr


def test_a_change_is_not_taken_when_the_runner_fails(tmp_path: Path) -> None:
    """Whatever the closing line says; the script must not lose the exit code in a pipe."""
    assert ci(tmp_path, says="812 passed in 61.20s", test_code=2).returncode == 2


def test_no_test_is_run_when_lint_or_types_fail(tmp_path: Path) -> None:
    assert ci(tmp_path, says="812 passed in 61.20s", check_code=2).returncode == 2
    assert (tmp_path / "asked").read_text(encoding="utf-8").startswith("check ")
    assert "test " not in (tmp_path / "asked").read_text(encoding="utf-8")


def test_programs_that_tests_start_are_installed_before_they_run(tmp_path: Path) -> None:
    """Only those that are missing, and only then: machines that have them need no registry."""
    programs = "sh dash\nfrobnicate frob-tools\nunfrobnicate frob-tools\n"
    assert ci(tmp_path, says="812 passed in 61.20s", programs=programs).returncode == 0
    asked = (tmp_path / "asked").read_text(encoding="utf-8").splitlines()
    installs = "apt-get install -y -qq --no-install-recommends frob-tools"
    assert asked[:2] == ["apt-get update -qq", installs]
    assert [line.split()[0] for line in asked[2:]] == ["check", "test"]


def test_the_script_can_be_called_by_its_name() -> None:
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
