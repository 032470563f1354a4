"""What becomes of manifests: all that was there stays, the sidecar is added once, and what is not clear is refused."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from proxy.commands import _overrides, _parser
from proxy.configuration.mistakes import SettingsError
from proxy.inject import sidecar
from proxy.inject.wishes import Wish
from proxy.settings import load
from tests.manifests import FILES, IMAGE, documents, golden, inject, objects, text_of
from tests.manifests.kubernetes import check

REPLACED = re.compile(
    r'.*(targetPort|terminationGracePeriodSeconds|lifecycle: \{\}|volumes: *#|\{"?port"?:).*', re.DOTALL
)
"""Lines in which a value of ours stands instead of theirs; in flow style also those that are added to."""

SERVER = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: here}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata:
      labels: {app: web}
    spec:
      containers:
      - name: server
        image: server:1
        ports:
        - {containerPort: 8000, name: http}
"""
SERVICE = """---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: here}
spec:
  selector: {app: web}
  ports:
  - port: 80
    targetPort: http
"""


def pods(text: str) -> Iterator[dict[str, Any]]:
    """The pods of all objects that make some."""
    for each in objects(text):
        spec = each.get("spec", {})
        if each["kind"] == "CronJob":
            spec = spec["jobTemplate"]["spec"]
        if each["kind"] == "Pod":
            yield spec
        elif "template" in spec and each["apiVersion"] in ("apps/v1", "batch/v1"):
            yield spec["template"]["spec"]


def the_pod(text: str) -> dict[str, Any]:
    (pod,) = pods(text)
    return pod


def ours(pod: dict[str, Any]) -> dict[str, Any]:
    """The sidecar of a pod, where it should be."""
    (found,) = (
        it
        for key in ("initContainers", "containers")
        for it in pod.get(key, ())
        if it["name"] == "mcp-sidecar"
    )
    assert isinstance(found, dict)
    return found


def with_line(text: str, after: str, *lines: str) -> str:
    """The text with lines added behind the one that begins so, as deep as that."""
    (line,) = (each for each in text.splitlines() if each.strip().startswith(after))
    blanks = line[: len(line) - len(line.lstrip())]
    return text.replace(line, "\n".join((line, *(blanks + each for each in lines))))


def in_pod(lines: str, text: str = SERVER) -> str:
    """The text with more in its pod, before the containers."""
    more = "".join(f"      {each}\n" for each in lines.splitlines())
    return text.replace("      containers:", f"{more}      containers:")


def annotated(**annotations: str) -> str:
    """The server with annotations on its Deployment."""
    pairs = ", ".join(f"mcp-sidecar.dev/{key}: {value}" for key, value in annotations.items())
    return SERVER.replace("namespace: here", f"annotations: {{{pairs}}}")


def refused(text: str, wish: Wish = IMAGE, **options: Any) -> str:
    with pytest.raises(SettingsError) as caught:
        inject(text, wish, **options)
    return str(caught.value)


@pytest.mark.parametrize("name", FILES)
def test_a_manifest_becomes_what_was_looked_at(name: str) -> None:
    """Issue 9, point 4: golden files."""
    assert inject(text_of(name)).text == golden(name)


@pytest.mark.parametrize("name", FILES)
def test_injected_twice_equals_injected_once(name: str) -> None:
    """Issue 9: byte for byte; also with other wishes, which come too late."""
    once = golden(name)
    assert inject(once).text == once
    assert inject(once, Wish(port=1, config="other", is_classic=True)).text == once


@pytest.mark.parametrize("name", [each for each in FILES if each != "dense.json"])
def test_every_line_stays_in_its_place(name: str) -> None:
    """Issue 9: it loses nothing and keeps comments out of its way. Judged without the machine that does it; what
    has one line is left to the next two."""
    after = iter(golden(name).splitlines(keepends=True))
    for line in text_of(name).splitlines(keepends=True):
        if name.endswith(".json") or name == "flow.yaml" or REPLACED.match(line):
            kept = re.sub(
                r"(targetPort\W*|Seconds\W*)\w+.*|(\{\}|\]|\}|\d|,)+[ #a-z]*\n?$", "", line, flags=re.DOTALL
            ).rstrip()
            assert any(each.startswith(kept) for each in after), line
        else:
            assert any(each.rstrip("\n") == line.rstrip("\n") for each in after), line


def contained(before: object, after: object, path: str = "") -> Iterator[str]:
    """Where `after` lacks something of `before`."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key, value in before.items():
            yield from contained(value, after.get(key), f"{path}.{key}")
    elif isinstance(before, list) and isinstance(after, list):
        for index, value in enumerate(before):
            yield from contained(value, after[index] if index < len(after) else None, f"{path}[{index}]")
    elif before is not None and (before != after or type(before) is not type(after)):
        yield path


@pytest.mark.parametrize("name", FILES)
def test_all_that_was_said_is_still_said(name: str) -> None:
    """Issue 9: parse(before) is contained in parse(after), but for ports of Services and the time a pod has to end."""
    before, after = documents(text_of(name)), documents(golden(name))
    lost = [path for one, two in zip(before, after, strict=True) for path in contained(one, two)]
    assert [it for it in lost if not it.endswith((".targetPort", ".terminationGracePeriodSeconds"))] == []


@pytest.mark.parametrize("name", FILES)
def test_without_our_edits_it_is_what_it_was(name: str) -> None:
    """Issue 9: removing our additions gives before, byte for byte."""
    before, done = text_of(name), inject(text_of(name))
    left, text, at = "", done.text, 0
    for edit in sorted(done.edits, key=lambda it: (it.start, -it.column)):
        theirs = before[len(left) : edit.start]
        assert text[at : at + len(theirs) + len(edit.text)] == theirs + edit.text
        at += len(theirs) + len(edit.text)
        left += theirs + before[edit.start : edit.end]
    assert left + text[at:] == before


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("line_end", ["\r\n", "\r"])
def test_line_ends_stay_what_they_are(name: str, line_end: str) -> None:
    """Issue 9: files of Windows (and of older Macs, which YAML 1.2.2 section 5.4 knows too)."""
    text = text_of(name).replace("\n", line_end)
    assert inject(text).text == golden(name).replace("\n", line_end)


@pytest.mark.parametrize("name", [each for each in FILES if text_of(each).endswith("\n")])
def test_a_file_whose_last_line_has_no_end_is_not_given_one(name: str) -> None:
    text = text_of(name)[:-1]
    after = inject(text).text
    assert after == golden(name)[:-1]
    assert inject(after).text == after


@pytest.mark.parametrize("name", FILES)
def test_every_version_of_kubernetes_takes_it(name: str) -> None:
    """Issue 9: strictly, 1.29 to 1.37."""
    for each in objects(golden(name)):
        if not each["apiVersion"].startswith("serving.knative.dev"):
            check(each)


@pytest.mark.parametrize("name", [each for each in FILES if each.endswith(".json")])
def test_json_stays_json(name: str) -> None:
    assert json.loads(golden(name))
    assert [*json.loads(text_of(name))] == [*json.loads(golden(name))], "also the order of its keys"


@pytest.mark.parametrize("name", FILES)
def test_the_arguments_are_settings_that_a_sidecar_takes(name: str) -> None:
    """What the kubelet would run is read as `mcp-sidecar check` reads it."""
    for pod in pods(golden(name)):
        if "mcp-sidecar" not in str(pod):
            continue
        words = [
            each.replace("$(POD_IP)", "10.1.2.3").replace("$(POD_NAMESPACE)", "here")
            for each in ours(pod)["args"]
        ]
        assert "$(" not in str(words)
        options = _parser().parse_args(words)
        config = options.config
        mounted = {it["mountPath"] for it in ours(pod).get("volumeMounts", ())}
        assert config is None or str(config.parent) in mounted
        extra = [] if config is None else ["identity.authenticators=[{kind: anonymous, tenant: x}]"]
        settings = load(None, overrides=[*extra, *_overrides(options)], environ={})
        ports = {each["containerPort"] for each in ours(pod)["ports"]}
        assert ports == {settings.listen.address.port, settings.operations.address.port}
        assert pod["terminationGracePeriodSeconds"] > settings.drain_s


@pytest.mark.parametrize("is_classic", [False, True])
def test_the_sidecar_has_no_right_it_does_not_need(is_classic: bool) -> None:
    """Issue 9, point 2: the restricted pod security standard, and a file system nobody writes to."""
    found = ours(the_pod(inject(SERVER, Wish(is_classic=is_classic)).text))
    assert found["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "runAsGroup": 65532,
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert "cpu" not in found["resources"]["limits"]


@pytest.mark.parametrize(
    ("mounts", "expected"),
    [
        (["{name: run, mountPath: /run}"], {"name": "run", "mountPath": "/run"}),
        (["{name: mcp, mountPath: /run/mcp/}"], {"name": "mcp", "mountPath": "/run/mcp"}),
        (
            ["{name: mcp, mountPath: /run/mcp}", "{name: run, mountPath: /run}"],
            {"name": "mcp", "mountPath": "/run/mcp"},
        ),
        (
            ["{name: run, mountPath: /run, subPath: of/the/server}"],
            {"name": "run", "mountPath": "/run", "subPath": "of/the/server"},
        ),
    ],
)
def test_the_folder_of_a_socket_file_is_mounted_as_the_server_has_it(
    mounts: list[str], expected: dict[str, str]
) -> None:
    """issue 10, 2: the innermost mount is what is seen; read-only, or somebody here could put another file there."""
    found = inject(mounting(*mounts), Wish(**ON_A_FILE))
    assert ours(the_pod(found.text))["volumeMounts"] == [{**expected, "readOnly": True}]


def test_services_of_a_server_that_went_to_a_file_are_moved_by_the_port_it_had() -> None:
    """Its container names the port still, or somebody does; where nobody does it is said."""
    mount = "{name: v, mountPath: /run/mcp}"
    silent = mounting(mount).replace("        ports:\n        - {containerPort: 8000, name: http}\n", "")
    by_number = SERVICE.replace("targetPort: http", "targetPort: 8000")
    for text, port in ((mounting(mount) + SERVICE, None), (silent + by_number, 8000)):
        found = inject(text, Wish(**ON_A_FILE, port=port))
        assert list(objects(found.text))[1]["spec"]["ports"] == [{"port": 80, "targetPort": 8080}]
    found = inject(silent + by_number, Wish(**ON_A_FILE))
    assert list(objects(found.text))[1]["spec"]["ports"] == [{"port": 80, "targetPort": 8000}]
    assert "no Service is moved by itself" in "\n".join(found.notes)


@pytest.mark.parametrize(("volume", "is_told"), [("emptyDir: {}", False), ("hostPath: {path: /srv}", True)])
def test_a_volume_that_others_may_mount_is_told(volume: str, is_told: bool) -> None:
    """Whoever mounts the folder has a way past us."""
    text = mounting("{name: v, mountPath: /run/mcp}") + f"      volumes: [{{name: v, {volume}}}]\n"
    notes = "\n".join(inject(text, Wish(**ON_A_FILE)).notes)
    assert ("the volume v is not of this pod alone" in notes) is is_told
    assert "must listen on no port beside its file" in notes


def test_a_native_sidecar_is_an_init_container_that_stays() -> None:
    """Issue 9: the default; its start-up must ignore the server, which starts only after it (design section 4)."""
    pod = the_pod(inject(SERVER).text)
    (found,) = pod["initContainers"]
    assert found["restartPolicy"] == "Always"
    paths = {key: found[key]["httpGet"]["path"] for key in found if key.endswith("Probe")}
    assert paths == {"startupProbe": "/startupz", "readinessProbe": "/readyz", "livenessProbe": "/healthz"}
    assert {found[key]["httpGet"]["port"] for key in paths} == {9901}


def test_a_classic_sidecar_is_one_of_the_containers_and_the_last() -> None:
    """The first one is what kubectl logs and kubectl exec mean."""
    pod = the_pod(inject(SERVER, Wish(is_classic=True)).text)
    assert [each["name"] for each in pod["containers"]] == ["server", "mcp-sidecar"]
    assert "initContainers" not in pod
    assert "restartPolicy" not in ours(pod)


@pytest.mark.parametrize("drain_s", [1, 25, 100])
@pytest.mark.parametrize("is_classic", [False, True])
def test_the_pod_has_the_time_that_its_parts_take(drain_s: int, is_classic: bool) -> None:
    """Native: server sleeps, server ends, sidecar ends. Classic: sidecar sleeps and drains while the server sleeps."""
    pod = the_pod(inject(SERVER, Wish(is_classic=is_classic, drain_s=drain_s)).text)
    asleep = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    if is_classic:
        assert asleep > ours(pod)["lifecycle"]["preStop"]["sleep"]["seconds"] + drain_s
        assert pod["terminationGracePeriodSeconds"] >= asleep + sidecar.STOP_S
    else:
        assert "lifecycle" not in ours(pod)
        assert asleep >= max(drain_s, sidecar.ENDPOINTS_S)
        assert pod["terminationGracePeriodSeconds"] >= asleep + sidecar.STOP_S + drain_s
    assert f"drain_s={drain_s}" in ours(pod)["args"]


def test_a_server_is_kept_from_its_term_without_a_shell() -> None:
    """Images without a shell: the kubelet sleeps itself (1.30), or a program of the image does."""
    server = the_pod(inject(SERVER, Wish(pre_stop="exec")).text)["containers"][0]
    assert server["lifecycle"]["preStop"] == {"exec": {"command": ["sleep", "25"]}}
    without = inject(SERVER, Wish(pre_stop="none"))
    assert "lifecycle" not in the_pod(without.text)["containers"][0]
    assert any("warning: without preStop" in note for note in without.notes)


def test_a_prestop_of_theirs_is_left_to_them() -> None:
    text = with_line(SERVER, "image:", "lifecycle: {preStop: {sleep: {seconds: 3}}}")
    done = inject(text)
    assert the_pod(done.text)["containers"][0]["lifecycle"] == {"preStop": {"sleep": {"seconds": 3}}}
    assert any("warning: server has a preStop of its own" in note for note in done.notes)


@pytest.mark.parametrize(
    ("line", "after"),
    [
        ("terminationGracePeriodSeconds: 600", 600),
        ("terminationGracePeriodSeconds: 60", 60),
        ("terminationGracePeriodSeconds: 30 # short", 60),
        ("terminationGracePeriodSeconds: null", 60),
        ("terminationGracePeriodSeconds:", 60),
    ],
)
def test_a_pod_that_has_time_enough_keeps_it(line: str, after: int) -> None:
    done = inject(in_pod(line)).text
    assert the_pod(done)["terminationGracePeriodSeconds"] == after
    assert ("# short" in done) == ("# short" in line)


def test_a_sidecar_somebody_wrote_by_hand_is_a_sidecar() -> None:
    """deploy/pod.yaml, and what kustomize made of deploy/base."""
    text = SERVER + (
        "      - name: mcp-sidecar\n        args: [run, --config, /x]\n"
        "        readinessProbe: {httpGet: {path: /readyz, port: 9901}}\n"
    )
    assert inject(text).text == text


def test_a_service_that_comes_later_is_moved_too() -> None:
    """The arguments of a sidecar that is there tell where the server and the sidecar listen."""
    once = inject(SERVER, Wish(listen_port=8443)).text
    done = inject(once + SERVICE).text
    assert done.startswith(once)
    assert done == once + SERVICE.replace("targetPort: http", "targetPort: 8443")


@pytest.mark.parametrize(
    ("was", "becomes"),
    [
        ("targetPort: http", "targetPort: 8080"),
        ('targetPort: "http"', "targetPort: 8080"),
        ("targetPort: 8000 # the server", "targetPort: 8080 # the server"),
        ("targetPort: 9000", None),
        ("targetPort: metrics", None),
        ('targetPort: "8000"', None),
        ("protocol: UDP\n    targetPort: 8000", None),
    ],
)
def test_a_service_is_led_to_the_sidecar_where_it_led_to_the_server(was: str, becomes: str | None) -> None:
    """By number: no Service finds a named port of a native sidecar before 1.32 (kubernetes issue 127958)."""
    service = SERVICE.replace("targetPort: http", was)
    expected = service if becomes is None else SERVICE.replace("targetPort: http", becomes)
    assert inject(SERVER + service).text == inject(SERVER + service).text
    assert inject(SERVER + service).text.endswith(expected)


def test_a_service_without_targetport_leads_to_its_own_port() -> None:
    service = SERVICE.replace("port: 80\n    targetPort: http", "port: 8000 # same")
    assert inject(SERVER + service).text.endswith("- port: 8000 # same\n    targetPort: 8080\n")


@pytest.mark.parametrize(
    "service",
    [
        SERVICE.replace("app: web", "app: other"),
        SERVICE.replace("app: web", "app: web, tier: x"),
        SERVICE.replace("namespace: here", "namespace: there"),
        SERVICE.replace("  selector: {app: web}\n", ""),
        SERVICE.replace("apiVersion: v1", "apiVersion: serving.knative.dev/v1"),
        SERVICE.replace("namespace: here", 'annotations: {mcp-sidecar.dev/inject: "false"}'),
    ],
)
def test_a_service_of_somebody_else_stays(service: str) -> None:
    assert inject(SERVER + service).text.endswith(service)


def test_a_service_alone_is_moved_where_somebody_says_so() -> None:
    """Issue 9: by annotation or --service."""
    service = SERVICE.replace("http", "8000").removeprefix("---\n")
    annotated = service.replace("name: web", 'name: web, annotations: {mcp-sidecar.dev/port: "8000"}')
    assert inject(service).text == service
    assert "targetPort: 8080" in inject(service, Wish(port=8000), services=["web"]).text
    assert "targetPort: 8443" in inject(service, Wish(port=8000, listen_port=8443), services=["web"]).text
    once = inject(annotated).text
    assert "targetPort: 8080" in once
    assert inject(once).text == once
    assert "which port of web is the server's" in refused(service, services=["web"])
    assert "--service wed: is not here, here are: web" in refused(service, services=["wed"])


def test_names_of_services_are_names_that_clients_may_use() -> None:
    """Otherwise every call would be answered 421 where no ConfigMap lists them."""
    arguments = ours(the_pod(inject(SERVER + SERVICE, Wish(hosts=("tools.example.com",))).text))["args"]
    (hosts,) = (each.partition("=")[2] for each in arguments if each.startswith("listen.allowed_hosts="))
    inside = [
        "web",
        "web.$(POD_NAMESPACE)",
        "web.$(POD_NAMESPACE).svc",
        "web.$(POD_NAMESPACE).svc.cluster.local",
    ]
    assert json.loads(hosts) == ["localhost", "127.0.0.1", "$(POD_IP)", *inside, "tools.example.com"]


def test_an_annotation_goes_before_an_option_and_the_pods_before_the_workloads() -> None:
    text = SERVER.replace(
        "namespace: here", 'annotations: {mcp-sidecar.dev/path: /a, mcp-sidecar.dev/image: "a:1"}'
    )
    text = with_line(text, "labels: {app", "annotations: {mcp-sidecar.dev/path: /b}")
    found = ours(the_pod(inject(text, Wish(path="/c", image="c:1", cpu="1")).text))
    assert found["image"] == "a:1"
    assert "http://127.0.0.1:8000/b" in found["args"]
    assert found["resources"]["requests"]["cpu"] == "1"


def test_only_what_is_named_gets_a_sidecar() -> None:
    other = SERVER.replace("name: web", "name: other").replace("app: web", "app: other")
    assert inject(SERVER + "---" + other, only=["deployment/web"]).text == inject(SERVER).text + "---" + other
    assert "--only" in refused(SERVER, only=["deployment/wed"])


def test_the_port_of_the_sidecar_is_one_that_is_free() -> None:
    text = SERVER.replace("8000", "8080")
    assert '--listen\n        - "0.0.0.0:8081"' in inject(text).text
    assert "uses port 8080, server listens there" in refused(text, Wish(listen_port=8080))
    assert "server listens there" in refused(SERVER, Wish(operations_port=8000))
    assert "has one port for calls and probes" in refused(SERVER, Wish(listen_port=9901))


TWO = (
    SERVER
    + """\
      - name: proxy
        image: proxy:1
        ports: [{containerPort: 1}, {containerPort: 2, name: two}]
"""
)
ON_A_FILE: dict[str, Any] = {"socket": "/run/mcp/s.sock"}


def mounting(*mounts: str) -> str:
    """The server with these mounts."""
    return f"{SERVER}        volumeMounts: [{', '.join(mounts)}]\n"


MISSPELT = '"mcp-sidecar.dev/prot": is not known, a misspelt key would change nothing, did you mean "port"?'


@pytest.mark.parametrize(
    ("text", "wish", "says"),
    [
        (
            TWO,
            {},
            "manifest:11:7: spec.template.spec: has 2 containers, the server is one of server, proxy, name",
        ),
        (TWO, {"container": "sever"}, "has no container sever, the containers here are server, proxy"),
        (
            TWO,
            {"container": "proxy"},
            "manifest:16:9: spec.template.spec.containers[1]: leaves open where the server",
        ),
        (TWO, {"container": "proxy", "port": "one"}, "has no port one, it names 1, 2 (two), give its number"),
        (SERVER.replace("        - {containerPort: 8000, name: http}\n", ""), {}, "it names no port"),
        (
            SERVER.replace("name: server", "name: mcp-sidecar"),
            {},
            "manifest:12:15: spec.template.spec.containers[0].name: is called mcp-sidecar and is none",
        ),
        (in_pod("volumes: [{name: mcp-sidecar-config}]"), {}, "is the name of a volume of ours"),
        (SERVER.replace("name: http", "name: mcp-sidecar"), {}, "is the name of a port of ours"),
        (in_pod("os: {name: windows}"), {}, "manifest:11:18: spec.template.spec.os.name: is Windows"),
        (in_pod("nodeSelector: {kubernetes.io/os: windows}"), {}, "is Windows"),
        (
            SERVER.replace("Deployment", "Job").replace("apps", "batch"),
            {"is_classic": True},
            "its Job neither",
        ),
        (SERVER.partition("  template:")[0], {}, "manifest:2:1: is a Deployment without a pod"),
        (SERVER.replace("containers:", "containers: []\n      x:"), {}, "has no containers"),
        (in_pod("initContainers: none"), {}, "manifest:11:23: spec.template.spec.initContainers: is no list"),
        (in_pod("terminationGracePeriodSeconds: 1m"), {}, "is no number"),
        (with_line(SERVER, "image:", "name: other"), {}, "containers[0].name: is there twice"),
        (annotated(prot="x"), {}, MISSPELT),
        (annotated(inject="'no'"), {}, "is neither true nor false"),
        (annotated(config="NO"), {}, "is not a name of Kubernetes"),
        (
            annotated(socket="'@mcp'"),
            {},
            "is not the path of a socket file, an abstract socket has no permissions",
        ),
        (
            SERVER,
            {"socket": "/run/mcp/s.sock"},
            "mounts no volume that holds /run/mcp/s.sock, the sidecar reaches",
        ),
        (
            mounting("{name: v, mountPath: /run/mcpx}"),
            ON_A_FILE,
            "manifest:12:9: spec.template.spec.containers[0]: mou",
        ),
        (mounting("{name: v, mountPath: /run/mcp/s.sock}"), ON_A_FILE, "mounts no volume that holds"),
        (
            mounting("{name: v, mountPath: /run/mcp, subPathExpr: $(X)}"),
            ON_A_FILE,
            "cannot be mounted a second time",
        ),
        (mounting("{mountPath: /run/mcp}"), ON_A_FILE, "cannot be mounted a second time"),
    ],
)
def test_what_is_not_clear_is_refused_with_its_place_and_a_remedy(
    text: str, wish: dict[str, Any], says: str
) -> None:
    """Issue 9: file:line and remedy, never guessed."""
    assert says in refused(text, Wish(**wish))


POD = SERVER.replace("    spec:\n", "    spec: &pod\n")
SHARED_CONTAINER = SERVER.replace("- name: server", "- &it\n        name: server")
SHARED_LIST = SERVER.replace("containers:", "containers: &all")
OLD_TEMPLATE = SERVER.replace("  template:\n", "  old: &t\n")
OLD_POD = POD.replace("  template:", "  old:")


def merging(merged: str) -> str:
    """A pod with a merge key."""
    return in_pod("<<: *base").replace("  selector", f"  x: &base {{{merged}}}\n  selector")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            POD + "  other: *pod\n",
            "manifest:10:11: spec.template.spec: cannot be changed, an alias refers to it",
        ),
        (
            SHARED_CONTAINER + "  other: *it\n",
            "spec.template.spec.containers[0]: cannot be changed, an alias refers",
        ),
        (
            SHARED_LIST + "      ephemeralContainers: *all\n",
            "spec.containers: cannot be changed, an alias refers",
        ),
        (
            OLD_TEMPLATE + "  template: *t\n",
            "manifest:16:13: spec.template: cannot be changed, it is the alias *t",
        ),
        (
            OLD_POD + "  template:\n    spec: *pod\n",
            "spec.template.spec: cannot be changed, it is the alias *pod",
        ),
        (
            merging("terminationGracePeriodSeconds: 1"),
            "it comes from a merge key (<<), and others use what is merged, write terminationGracePeriodSeconds out",
        ),
        (merging("initContainers: [{name: x}]"), "write initContainers out here"),
    ],
)
def test_what_is_used_elsewhere_is_not_changed(text: str, says: str) -> None:
    """Issue 9: anchored and aliased pods, merge keys in the way: refused, or else as in the next test."""
    assert says in refused(text)


@pytest.mark.parametrize(
    "text",
    [
        POD,
        SHARED_CONTAINER,
        merging("restartPolicy: Always, volumes: [{name: v}]"),
        SERVER.replace("{app: web}}", "&l {app: web}}").replace("labels: {app: web}", "labels: *l"),
    ],
)
def test_an_anchor_that_is_not_in_the_way_is_left_alone(text: str) -> None:
    """Nobody refers to it, or to nothing that is changed."""
    assert ours(the_pod(inject(text).text))


def test_what_is_merged_is_read_as_kubectl_reads_it() -> None:
    """Ports that come with a merge key are the server's all the same; what is added goes beside it."""
    text = SERVER.replace("  selector", "  x: &s {ports: [{containerPort: 7000}], image: x}\n  selector")
    text = text.replace(
        "        image: server:1\n        ports:\n        - {containerPort: 8000, name: http}\n",
        "        <<: *s\n",
    )
    pod = the_pod(inject(text).text)
    assert "http://127.0.0.1:7000/mcp" in ours(pod)["args"]
    assert pod["containers"][0]["lifecycle"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "kind: Deployment\n{{- if .x }}\na: 1\n",
            "render it first with helm template: line 2 has {{- if .x }}",
        ),
        ("a: [1\n", "manifest:2:1: is broken YAML"),
        ("a: \x00\n", "manifest:1:1: holds the character U+0000"),
        ("a: " + "[" * 100 + "]" * 100, "is too deep"),
    ],
)
def test_a_text_that_is_no_manifest_is_refused_with_its_place(text: str, says: str) -> None:
    assert says in refused(text)


@pytest.mark.parametrize(
    "text",
    ["", "\n", "---\n", "# only a comment", "null\n", "[1, 2]\n", "just: text\n", "---\n...\n---\nkind: X\n"],
)
def test_what_holds_no_workload_passes_untouched(text: str) -> None:
    assert inject(text).text == text


def test_a_mistake_in_one_document_stops_all_and_every_mistake_is_told() -> None:
    """Half a manifest would be applied."""
    said = refused(TWO + "---\n" + SERVER + "---\n" + TWO).splitlines()
    assert [each.split(":")[1] for each in said] == ["11", "46"]


@pytest.mark.parametrize(
    ("header", "is_good"), [("|", False), (">", False), ("|+", False), ("|-", True), (">-", True)]
)
def test_a_text_in_block_style_without_a_last_line_end_is_not_given_one(header: str, is_good: bool) -> None:
    """YAML 1.2.2 section 8.1.1.2: clipping keeps the last line end where there is one, so that adding a line behind it
    would change what the text says. Found by tests/fuzz/test_any_manifest.py."""
    text = SERVER + f"        workingDir: {header}\n          one"
    if is_good:
        assert the_pod(inject(text).text)["containers"][0]["workingDir"] == "one"
    else:
        assert "end the last line" in refused(text)


def test_what_would_say_something_else_is_not_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last safety: with the machine broken on purpose nothing comes out."""
    from proxy.inject import edits

    monkeypatch.setattr(edits, "entry_lines", lambda key, value, style: [f"{key}: 1"])
    assert "cannot be edited safely" in refused(SERVER)
