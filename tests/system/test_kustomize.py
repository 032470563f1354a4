"""deploy/ as kubectl builds it: every overlay and component is taken by every version of Kubernetes, its settings by
the sidecar, and its numbers fit each other."""

from __future__ import annotations

import os
import re
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml

from proxy.check import check as check_settings
from proxy.inject import sidecar
from proxy.inject.wishes import Wish
from proxy.lifecycle.drain import GRACE_S
from proxy.settings import Settings, load
from tests.manifests import inject
from tests.manifests.kubernetes import check
from tests.system import tools
from tests.unit.inject.test_injecting import ours
from tests.valkey import Valkey

pytestmark = pytest.mark.system("kubectl")

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
OVERLAYS = sorted(each.name for each in (DEPLOY / "overlays").iterdir())
GUARDED = {"mcp-sidecar.dev/guarded": "true"}
Objects = dict[str, dict[str, Any]]


def build(folder: Path) -> str:
    """What `kubectl kustomize` prints. It speaks to no cluster."""
    done = subprocess.run(
        [tools.path("kubectl"), "kustomize", folder],
        capture_output=True,
        text=True,
        timeout=60,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "KUBECONFIG": "/dev/null"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def objects(text: str) -> Objects:
    """By `kind/name`."""
    return {f"{each['kind']}/{each['metadata']['name']}": each for each in yaml.safe_load_all(text)}


def overlay(name: str) -> Objects:
    return objects(build(DEPLOY / "overlays" / name))


def made(folder: Path, **parts: object) -> Objects:
    """What somebody else's kustomization makes of ours; `@` in a path is deploy/."""
    to_deploy = os.path.relpath(DEPLOY, folder)
    text = yaml.safe_dump({"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", **parts})
    (folder / "kustomization.yaml").write_text(text.replace("@", to_deploy), encoding="utf-8")
    return objects(build(folder))


def pod(found: Objects, name: str = "Deployment/mcp-server") -> dict[str, Any]:
    spec = found[name]["spec"]["template"]["spec"]
    assert isinstance(spec, dict)
    return spec


def server(of: dict[str, Any]) -> dict[str, Any]:
    (found,) = (each for each in of["containers"] if each["name"] != sidecar.NAME)
    assert isinstance(found, dict)
    return found


def settings_of(found: Objects, folder: Path) -> Path:
    """The file that the sidecar reads, with stand-ins for the secrets it names."""
    text = found["ConfigMap/mcp-sidecar"]["data"]["settings.yaml"]
    for path in set(re.findall(r"/run/secrets/[a-z./-]+", text)):
        stand_in = folder / path.lstrip("/")
        stand_in.parent.mkdir(parents=True, exist_ok=True)
        is_keys = stand_in.suffix == ".yaml"
        stand_in.write_text(
            "version: 1\npepper: AAAAAAAAAAAAAAAAAAAAAA\nkeys: []\n" if is_keys else "a secret",
            encoding="utf-8",
        )
        text = text.replace(path, str(stand_in))
    file = folder / "settings.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def read(found: Objects, folder: Path) -> Settings:
    return load(settings_of(found, folder), environ={"POD_NAMESPACE": "here"})


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_version_of_kubernetes_takes_an_overlay(name: str) -> None:
    """Issue 9: strictly, 1.29 to 1.37."""
    for each in overlay(name).values():
        check(each)


@pytest.mark.parametrize("name", OVERLAYS)
def test_its_settings_pass_the_check(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Issue 9: what `mcp-sidecar check` says of the ConfigMap, taken out of what kubectl built."""
    import sys

    code = check_settings(settings_of(overlay(name), tmp_path), (), {}, sys.stdout)
    assert (code, capsys.readouterr().out.splitlines()[0]) == (0, f"{tmp_path}/settings.yaml: ok")


@pytest.mark.parametrize("name", OVERLAYS)
def test_nobody_gets_past_the_sidecar(name: str, tmp_path: Path) -> None:
    """Issue 9: the server on loopback, the Service led to the sidecar, every other port closed by a policy."""
    found = overlay(name)
    the_pod, settings = pod(found), read(found, tmp_path)
    arguments = server(the_pod)["args"]
    assert settings.upstream.url.startswith(f"http://{arguments[arguments.index('--host') + 1]}:8000/")
    assert "127.0.0.1" in arguments
    assert "ports" not in server(the_pod)
    assert [each["targetPort"] for each in found["Service/mcp-server"]["spec"]["ports"]] == [8080]
    policy = found["NetworkPolicy/mcp-sidecar"]["spec"]
    labels = found["Deployment/mcp-server"]["spec"]["template"]["metadata"]["labels"]
    assert policy["podSelector"]["matchLabels"].items() <= labels.items()
    assert policy["policyTypes"] == ["Ingress"]
    calls, metrics = policy["ingress"]
    assert calls == {"ports": [{"protocol": "TCP", "port": settings.listen.address.port}]}
    assert metrics["ports"] == [{"protocol": "TCP", "port": settings.operations.address.port}]
    assert metrics["from"], "metrics are for the namespace that gathers them"


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_sidecar_is_the_one_that_inject_adds(name: str, tmp_path: Path) -> None:
    """Probes, rights, resources and ports are the same whichever way somebody goes; and inject leaves it alone."""
    found = overlay(name)
    the_pod = pod(found)
    mine = sidecar.container(
        Wish(image="mcp-sidecar:0.1.0", config="x", is_classic=name == "classic"),
        sidecar.Pod(server_port=8000, listen_port=8080, operations_port=9901, services=()),
    )
    for key in set(mine) - {"args", "volumeMounts"}:
        assert ours(the_pod)[key] == mine[key], key
    text = yaml.safe_dump_all(found.values())
    assert inject(text).text == text


@pytest.mark.parametrize("name", OVERLAYS)
def test_a_change_of_its_settings_reaches_it(name: str) -> None:
    """No suffix in the ConfigMap's name, no subPath: the kubelet swaps the folder's symlink, and that is looked at."""
    the_pod = pod(overlay(name))
    volumes = {each["name"]: each for each in the_pod["volumes"]}
    mounts = ours(the_pod)["volumeMounts"]
    assert all("subPath" not in each for each in mounts)
    (mount,) = (each for each in mounts if each["mountPath"] == "/etc/mcp-sidecar")
    assert volumes[mount["name"]]["configMap"]["name"] == "mcp-sidecar"
    assert {each["name"] for each in mounts} <= set(volumes)


@pytest.mark.parametrize("name", OVERLAYS)
def test_a_pod_has_the_time_that_its_parts_take(name: str, tmp_path: Path) -> None:
    """tests/integration/test_pod_ends.py plays the sequence; these are the numbers it plays."""
    found = overlay(name)
    the_pod, drain_s = pod(found), read(found, tmp_path).drain_s
    wish = Wish(is_classic=name == "classic", drain_s=int(drain_s))
    assert server(the_pod)["lifecycle"] == {"preStop": sidecar.server_pre_stop(wish)}
    assert the_pod["terminationGracePeriodSeconds"] == sidecar.grace_s(wish)
    assert sidecar.server_sleep_s(wish) >= drain_s > GRACE_S


def test_the_classic_sidecar_differs_where_it_must() -> None:
    """Two files, because kustomize cannot move a container without knowing what else is there."""
    native, classic = ours(pod(overlay("observe"))), ours(pod(overlay("classic")))
    assert native.pop("restartPolicy") == "Always"
    assert classic.pop("lifecycle") == {"preStop": {"sleep": {"seconds": sidecar.ENDPOINTS_S}}}
    assert native == classic


def test_the_store_is_for_guarded_pods_alone_and_its_password_stands_nowhere(tmp_path: Path) -> None:
    found = overlay("shared-quota")
    (mount,) = (
        each for each in ours(pod(found))["volumeMounts"] if each["mountPath"] == "/run/secrets/valkey"
    )
    (volume,) = (each for each in pod(found)["volumes"] if each["name"] == mount["name"])
    assert volume["secret"]["secretName"] == "mcp-sidecar-valkey"
    assert not any(key.startswith("Secret/") for key in found)
    shared = read(found, tmp_path).shared_state
    service = found["Service/mcp-sidecar-valkey"]
    assert shared is not None
    assert shared.url == f"redis://{service['metadata']['name']}:{service['spec']['ports'][0]['port']}/0"
    (rule,) = found["NetworkPolicy/mcp-sidecar-valkey"]["spec"]["ingress"]
    assert rule["from"] == [{"podSelector": {"matchLabels": GUARDED}}]


def test_a_real_store_takes_its_configuration_and_asks_for_the_password(tmp_path: Path) -> None:
    """The configuration file of the overlay, given to a Valkey with folders of this machine."""
    text = overlay("shared-quota")["ConfigMap/mcp-sidecar-valkey"]["data"]["valkey.conf"]
    (tmp_path / "auth.conf").write_text("requirepass a-secret\n", encoding="utf-8")
    text = text.replace("/run/secrets/valkey", str(tmp_path)).replace("dir /data", f"dir {tmp_path}")
    (tmp_path / "valkey.conf").write_text(text, encoding="utf-8")
    with Valkey(file=tmp_path / "valkey.conf") as store:
        with pytest.raises(redis.AuthenticationError):
            store.say("PING")
        with closing(redis.Redis(port=store.port, password="a-secret", socket_timeout=5)) as client:
            assert client.config_get("maxmemory-policy", "appendonly") == {
                "maxmemory-policy": "noeviction",
                "appendonly": "no",
            }


def test_everything_beside_it_can_be_added_to_an_overlay(tmp_path: Path) -> None:
    """Monitors by the operator's schema, the autoscaler by Kubernetes'; they mean pods and ports that are there."""
    parts = [f"@/{each}" for each in ("podmonitor", "servicemonitor", "autoscaling")]
    found = made(tmp_path, resources=["@/overlays/observe"], components=parts)
    for each in found.values():
        check(each)
    names = {each["name"] for each in ours(pod(found))["ports"]}
    labels = found["Deployment/mcp-server"]["spec"]["template"]["metadata"]["labels"]
    monitor = found["PodMonitor/mcp-sidecar"]["spec"]
    assert monitor["selector"]["matchLabels"].items() <= labels.items()
    assert {each["port"] for each in monitor["podMetricsEndpoints"]} <= names
    metrics = found["Service/mcp-sidecar-metrics"]
    assert metrics["spec"]["selector"].items() <= labels.items()
    assert metrics["spec"]["ports"] == [{"name": "sidecar-ops", "port": 9901, "targetPort": 9901}]
    selector = found["ServiceMonitor/mcp-sidecar"]["spec"]
    assert selector["selector"]["matchLabels"].items() <= metrics["metadata"]["labels"].items()
    assert [each["port"] for each in selector["endpoints"]] == ["sidecar-ops"]
    target = found["HorizontalPodAutoscaler/mcp-server"]["spec"]["scaleTargetRef"]
    assert f"{target['kind']}/{target['name']}" in found


def test_a_folder_of_the_two_can_be_added(tmp_path: Path) -> None:
    """issue 10, 2: a server on a file. The sidecar connects there, and can put nothing in its place."""
    mount = {"name": "mcp-socket", "mountPath": "/run/mcp"}
    to_server = [{"op": "add", "path": "/spec/template/spec/containers/0/volumeMounts", "value": [mount]}]
    found = made(
        tmp_path,
        resources=["@/overlays/observe"],
        components=["@/socket"],
        patches=[{"patch": yaml.safe_dump(to_server), "target": {"kind": "Deployment"}}],
    )
    check(found["Deployment/mcp-server"])
    the_pod = pod(found)
    assert [each["name"] for each in the_pod["initContainers"]] == [sidecar.NAME]
    assert {**mount, "readOnly": True} in ours(the_pod)["volumeMounts"]
    assert server(the_pod)["volumeMounts"] == [mount]
    assert {"name": "mcp-socket", "emptyDir": {}} in the_pod["volumes"]
    plain = ours(pod(overlay("observe")))
    assert plain["volumeMounts"] == [
        each for each in ours(the_pod)["volumeMounts"] if each["name"] != "mcp-socket"
    ]


def test_the_autoscaler_asks_for_what_the_adapter_gives() -> None:
    """prometheus-adapter turns the gauge of design section 6 into a metric of pods."""
    text = (DEPLOY / "autoscaling" / "prometheus-adapter.yaml").read_text(encoding="utf-8")
    (rule,) = yaml.safe_load(text)["rules"]["custom"]
    (metric,) = yaml.safe_load((DEPLOY / "autoscaling" / "hpa.yaml").read_text(encoding="utf-8"))["spec"][
        "metrics"
    ]
    assert rule["name"]["as"] == metric["pods"]["metric"]["name"] == "in_flight_tool_calls"
    assert rule["seriesQuery"].startswith("in_flight_tool_calls{")


WORKLOAD = """
apiVersion: apps/v1
kind: {kind}
metadata: {{name: other, labels: {{mcp-sidecar.dev/guarded: "{guarded}"}}}}
spec:
  {more}
  selector: {{matchLabels: {{app: other}}}}
  template:
    metadata: {{labels: {{app: other}}}}
    spec:
      initContainers:
      - {{name: first, image: "busybox:1"}}
      containers:
      - {{name: tool, image: "tool:1", ports: [{{containerPort: 8000}}]}}
      - {{name: helper, image: "helper:1"}}
      volumes:
      - {{name: data, emptyDir: {{}}}}
"""


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("StatefulSet", "serviceName: other"),
        ("DaemonSet", "minReadySeconds: 1"),
        ("Deployment", "replicas: 3"),
    ],
)
@pytest.mark.parametrize("variant", ["base", "classic"])
def test_it_is_added_to_any_workload_with_the_label(
    kind: str, more: str, variant: str, tmp_path: Path
) -> None:
    """Issue 9: whatever else stands in the pod stays."""
    text = WORKLOAD.format(kind=kind, more=more, guarded="true")
    (tmp_path / "workload.yaml").write_text(text, encoding="utf-8")
    found = made(tmp_path, resources=["workload.yaml"], components=[f"@/{variant}"])
    the_pod = pod(found, f"{kind}/other")
    check(found[f"{kind}/other"])
    assert ours(the_pod)
    assert {"first"} <= {each["name"] for each in the_pod["initContainers"]}
    assert [each["name"] for each in the_pod["containers"] if each["name"] != "mcp-sidecar"] == [
        "tool",
        "helper",
    ]
    (tool,) = (each for each in the_pod["containers"] if each["name"] == "tool")
    assert tool["lifecycle"]["preStop"]["sleep"]
    assert "data" in {each["name"] for each in the_pod["volumes"]}


def test_a_workload_without_the_label_stays_what_it_is(tmp_path: Path) -> None:
    text = WORKLOAD.format(kind="Deployment", more="replicas: 1", guarded="no")
    (tmp_path / "workload.yaml").write_text(text, encoding="utf-8")
    found = made(tmp_path, resources=["workload.yaml"], components=["@/base"])
    assert found["Deployment/other"] == yaml.safe_load(text)


def test_the_image_is_named_in_one_place(tmp_path: Path) -> None:
    image = {
        "name": "mcp-sidecar",
        "newName": "registry.example.com/mcp-sidecar",
        "digest": "sha256:" + "0" * 64,
    }
    found = made(tmp_path, resources=["@/overlays/observe"], images=[image])
    assert ours(pod(found))["image"] == f"{image['newName']}@{image['digest']}"
