"""What does the sidecar look like in a pod? A wish and what is known of the pod in; its container out. Pure.

Kubernetes ends a native sidecar after the other containers, a classic one at the same time as them. Both orders are in
the numbers here; tests/integration/test_pod_ends.py plays them with processes.
"""

from __future__ import annotations

import json
from typing import Final

from msgspec import Struct

from ..configuration.socket_urls import url_of_socket
from .server import Mount
from .wishes import Wish
from .writing import Value

NAME: Final = "mcp-sidecar"
LISTEN_PORT: Final = 8080
OPERATIONS_PORT: Final = 9901
PORT_NAMES: Final = (NAME, "sidecar-ops")
CONFIG_VOLUME: Final = "mcp-sidecar-config"
SECRET_VOLUME: Final = "mcp-sidecar-secret"  # noqa: S105  the name of a volume
CONFIG_FOLDER: Final = "/etc/mcp-sidecar"
SECRET_FOLDER: Final = "/run/secrets/mcp-sidecar"  # noqa: S105  a path

USER: Final = 65532
"""As in the image. A number, or a kubelet cannot tell that it is not root."""

CPU, MEMORY, MEMORY_LIMIT = "100m", "96Mi", "384Mi"
"""For 100 calls a second, as tests/bench/resources.py measures it; no limit of CPU, which is latency for all."""

ENDPOINTS_S: Final = 5
"""Until nobody is sent to a pod any more that is ending: kube-proxy and load balancers hear of it with a delay."""

STOP_S: Final = 10
"""What the server may take to end after its TERM, and we to close what is left."""


class Pod(Struct, frozen=True, kw_only=True):
    """What the sidecar has to know of its pod."""

    server_port: int | None
    """None: it listens on a file, and nothing says what its port was."""
    mount: Mount | None = None
    """Where the file of `Wish.socket` lies."""
    listen_port: int
    operations_port: int
    services: tuple[str, ...]
    """Names of the Services that lead here."""


def server_sleep_s(wish: Wish) -> int:
    """How long the server is kept from its TERM.

    Native: no new calls come after a few seconds, and those under way have what `drain_s` promises; the sidecar gets
    its own TERM when the server has ended. Classic: the sidecar sleeps, then drains; the server outlives both by 1 s.
    """
    return ENDPOINTS_S + wish.drain_s + 1 if wish.is_classic else max(ENDPOINTS_S, wish.drain_s)


def grace_s(wish: Wish) -> int:
    """What a pod needs as terminationGracePeriodSeconds. It is a bound: a pod that is done ends before."""
    return server_sleep_s(wish) + STOP_S + (0 if wish.is_classic else wish.drain_s)


def server_pre_stop(wish: Wish) -> dict[str, Value] | None:
    """What is done before the server gets its TERM; None: nothing."""
    seconds = server_sleep_s(wish)
    if wish.pre_stop == "none":
        return None
    if wish.pre_stop == "sleep":
        return {"sleep": {"seconds": seconds}}
    return {"exec": {"command": ["sleep", str(seconds)]}}


def own_pre_stop(wish: Wish) -> dict[str, Value] | None:
    """What is done before a classic sidecar gets its TERM; a native one gets it late enough."""
    if not wish.is_classic or wish.pre_stop != "sleep":
        return None  # our image has no program that sleeps; what is under way is drained all the same
    return {"sleep": {"seconds": ENDPOINTS_S}}


def volumes(wish: Wish) -> list[dict[str, Value]]:
    """The volumes of the pod that the sidecar mounts: whole folders, so that updates arrive (no subPath)."""
    found: list[dict[str, Value]] = []
    if wish.config:
        found.append({"name": CONFIG_VOLUME, "configMap": {"name": wish.config}})
    if wish.secret:
        found.append({"name": SECRET_VOLUME, "secret": {"secretName": wish.secret}})
    return found


def container(wish: Wish, pod: Pod) -> dict[str, Value]:
    """The container of the sidecar."""
    found: dict[str, Value] = {"name": NAME, "image": wish.image or default_image()}
    if not wish.is_classic:
        found["restartPolicy"] = "Always"
    found["args"] = list(_arguments(wish, pod))
    if not wish.config:
        found["env"] = [
            {"name": "POD_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
            {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        ]
    data, operations = PORT_NAMES
    found["ports"] = [
        {"name": data, "containerPort": pod.listen_port},
        {"name": operations, "containerPort": pod.operations_port},
    ]
    found |= _probes(pod.operations_port)
    own = own_pre_stop(wish)
    if own is not None:
        found["lifecycle"] = {"preStop": own}
    found["securityContext"] = {
        "runAsNonRoot": True,
        "runAsUser": USER,
        "runAsGroup": USER,
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    found["resources"] = {
        "requests": {"cpu": wish.cpu or CPU, "memory": wish.memory or MEMORY},
        "limits": {"memory": wish.memory_limit or MEMORY_LIMIT},
    }
    mounts: list[Value] = []
    if wish.config:
        mounts.append({"name": CONFIG_VOLUME, "mountPath": CONFIG_FOLDER, "readOnly": True})
    if wish.secret:
        mounts.append({"name": SECRET_VOLUME, "mountPath": SECRET_FOLDER, "readOnly": True})
    if pod.mount is not None:
        # Read-only: enough to connect, and nobody here puts another file in its place.
        part: dict[str, Value] = {} if pod.mount.sub_path is None else {"subPath": pod.mount.sub_path}
        where: dict[str, Value] = {"name": pod.mount.volume, "mountPath": pod.mount.path}
        mounts.append({**where, **part, "readOnly": True})
    if mounts:
        found["volumeMounts"] = mounts
    return found


def _arguments(wish: Wish, pod: Pod) -> list[str]:
    """What follows from the pod is said here, and goes before the ConfigMap: one settings file serves many pods."""
    path = wish.path or "/mcp"
    found = ["run"]
    if wish.config:
        found += ["--config", f"{CONFIG_FOLDER}/settings.yaml"]
    found += [
        "--upstream",
        url_of_socket(wish.socket, path) if wish.socket else f"http://127.0.0.1:{pod.server_port}{path}",
        "--listen",
        f"0.0.0.0:{pod.listen_port}",
    ]
    sets: dict[str, object] = {
        "operations.address": f"0.0.0.0:{pod.operations_port}",
        "drain_s": wish.drain_s,
    }
    if path != "/mcp" and not path.endswith("/sse"):
        sets["listen.path"] = path
    if wish.tenant or not wish.config:
        sets["identity.authenticators"] = [{"kind": "anonymous", "tenant": wish.tenant or "local"}]
    if wish.hosts or not wish.config:
        sets["listen.allowed_hosts"] = list(_hosts(wish, pod))
    for name, value in sets.items():
        written = value if isinstance(value, str) else json.dumps(value)
        found += ["--set", f"{name}={written}"]
    return found


def _hosts(wish: Wish, pod: Pod) -> dict[str, None]:
    """Names clients may use, each once. $(…) is filled in by the kubelet; localhost is for kubectl port-forward."""
    names = ["localhost", "127.0.0.1", "$(POD_IP)"] if not wish.config else []
    for service in pod.services if not wish.config else ():
        inside = f"{service}.$(POD_NAMESPACE)"
        names += [service, inside, f"{inside}.svc", f"{inside}.svc.cluster.local"]
    return dict.fromkeys((*names, *wish.hosts))


def _probes(port: int) -> dict[str, Value]:
    def probe(path: str, **numbers: Value) -> Value:
        return {"httpGet": {"path": path, "port": port}, **numbers}

    return {
        # Listening is enough: a native sidecar that waited for the server would keep it from starting.
        "startupProbe": probe("/startupz", periodSeconds=1, failureThreshold=30),
        # Longer than the 3 s that the server has for its answer.
        "readinessProbe": probe("/readyz", periodSeconds=5, timeoutSeconds=4),
        "livenessProbe": probe("/healthz", periodSeconds=10, timeoutSeconds=3, failureThreshold=3),
    }


def default_image() -> str:
    """The image of this version, by the name it is built with."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"{NAME}:{version(NAME)}"
    except PackageNotFoundError:
        return NAME
