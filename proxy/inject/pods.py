"""What has to be changed in an object that makes pods? The object and a wish in; changes and words out. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from msgspec import Struct

from ..configuration.mistakes import Unfit
from . import sidecar
from .edits import AddEntry, AddItem, Change, Replace
from .nodes import Items, Table
from .server import containers, free_port, mount_of, name_of, port_before, port_of, ports_of, server_of
from .spots import Spot
from .wishes import PREFIX, Wish, wished
from .writing import Value

SPECS: Final[Mapping[tuple[str, str], tuple[str, ...]]] = {
    ("apps", "Deployment"): ("spec", "template"),
    ("apps", "StatefulSet"): ("spec", "template"),
    ("apps", "DaemonSet"): ("spec", "template"),
    ("apps", "ReplicaSet"): ("spec", "template"),
    ("batch", "Job"): ("spec", "template"),
    ("batch", "CronJob"): ("spec", "jobTemplate", "spec", "template"),
    ("", "Pod"): (),
}
"""Where the pod stands, for each group and kind that has one."""

ENDS_BY_ITSELF: Final = frozenset(("Job", "CronJob"))

_LISTEN: Final = re.compile(r"(?:--listen[ =])\S*?:([0-9]{1,5})(?= |$)")
_UPSTREAM: Final = re.compile(r"(?:--upstream[ =])http://[^ /]*:([0-9]{1,5})(?=[/ ]|$)")


class Workload(Struct, frozen=True):
    """An object that makes pods with a sidecar: what a Service has to know of it."""

    name: str
    namespace: str | None
    labels: Mapping[str, str]
    server_ports: frozenset[int | str]
    """Number and names of the port that nobody may use any more."""
    listen_port: int | None
    """The sidecar's. None: somebody wrote it by hand, and it is not known."""


class Plan(Struct, frozen=True):
    """What is done about one object."""

    changes: tuple[Change, ...]
    workload: Workload | None
    notes: tuple[str, ...]


def wish_of(wish: Wish, *annotated: Spot | None) -> Wish:
    """The wish with what annotations of these objects say, the last one first in rank. Raises Refusal."""
    for each in annotated:
        annotations = each.down("metadata", "annotations") if each else None
        for name, text in annotations.texts().items() if annotations else ():
            if not name.startswith(PREFIX) or annotations is None:
                continue
            try:
                wish = wished(wish, name.removeprefix(PREFIX), text)
            except Unfit as unfit:
                at = annotations.get(name) or annotations
                raise at.refused(unfit.what, unfit.why, unfit.remedy) from None
    return wish


def plan(thing: Spot, kind: str, way: Iterable[str], wish: Wish, services: tuple[str, ...]) -> Plan:
    """What to do about an object that makes pods. Raises Refusal."""
    template = thing.down(*way)
    spec = template.get("spec") if template else None
    if template is None or spec is None or not isinstance(spec.node, Table):
        raise thing.refused(
            f"is a {kind} without a pod", "there is nowhere to add the sidecar", "is it whole?"
        )
    wish = wish_of(wish, thing, None if template is thing else template)
    if not wish.is_wanted:
        return Plan((), None, ("left alone, as its annotation says",))
    there = _of_ours(spec)
    if there is not None:
        return Plan((), _known(thing, template, there, spec), ("has a sidecar already, left as it is",))
    _check(spec, kind, wish)
    server = server_of(spec, wish)
    number: int | None
    number, names = port_of(server, wish) if wish.socket is None else port_before(server, wish)
    pod = sidecar.Pod(
        server_port=number,
        mount=None if wish.socket is None else mount_of(server, wish.socket),
        listen_port=free_port(spec, wish.listen_port, sidecar.LISTEN_PORT, number, "--listen-port"),
        operations_port=free_port(
            spec, wish.operations_port, sidecar.OPERATIONS_PORT, number, "--operations-port"
        ),
        services=services,
    )
    if pod.listen_port == pod.operations_port:
        raise spec.refused(
            "has one port for calls and probes", "they never share one", "choose another --listen-port"
        )
    changes, notes = _changes(spec, server, wish, pod)
    where = f":{number}" if wish.socket is None else f" at {wish.socket}"
    first = f"sidecar added in front of {name_of(server)}{where}, listening on {pod.listen_port}"
    ports: tuple[int | str, ...] = () if number is None else (number, *names)
    return Plan(tuple(changes), _workload(thing, template, ports, pod.listen_port), (first, *notes))


def services_of(thing: Spot, way: Iterable[str]) -> tuple[str | None, Mapping[str, str]]:
    """Namespace and labels of the pods, for whoever looks for the Services that select them."""
    template = thing.down(*way)
    return thing.text_of("metadata", "namespace"), _labels(template) if template else {}


def _labels(template: Spot) -> Mapping[str, str]:
    labels = template.down("metadata", "labels")
    return labels.texts() if labels else {}


def _workload(thing: Spot, template: Spot, ports: Iterable[int | str], listen_port: int | None) -> Workload:
    name, namespace = thing.text_of("metadata", "name"), thing.text_of("metadata", "namespace")
    return Workload(name or "?", namespace, _labels(template), frozenset(ports), listen_port)


def _of_ours(spec: Spot) -> Spot | None:
    """The sidecar that is there already. Raises Refusal for something else of that name."""
    for each in containers(spec):
        name = each.get("name")
        if name is None or name.text != sidecar.NAME:
            continue
        arguments = [it.text for it in each.listed("args")]
        if arguments[:1] == ["run"] and each.text_of("readinessProbe", "httpGet", "path") == "/readyz":
            return each
        what = f"is called {sidecar.NAME} and is none"
        raise name.refused(what, "two containers cannot have one name", "give it another name")
    return None


def _known(thing: Spot, template: Spot, ours: Spot, spec: Spot) -> Workload:
    """What its arguments say of a sidecar that was added before."""
    words = " ".join(it.text or "" for it in ours.listed("args"))
    listen, upstream = _LISTEN.search(words), _UPSTREAM.search(words)
    ports: set[int | str] = set()
    if upstream:
        ports.add(int(upstream[1]))
        for each in ports_of(spec, "containers"):
            number, name = each.get("containerPort"), each.get("name")
            if number and name and name.text and number.number == int(upstream[1]):
                ports.add(name.text)
    return _workload(thing, template, ports, int(listen[1]) if listen else None)


def _check(spec: Spot, kind: str, wish: Wish) -> None:
    if wish.is_classic and kind in ENDS_BY_ITSELF:
        why = "a classic sidecar never ends, and its Job neither"
        raise spec.refused(
            "cannot have a classic sidecar", why, "leave --classic out (Kubernetes 1.29 or newer)"
        )
    name = spec.down("os", "name") or spec.down("nodeSelector", "kubernetes.io/os")
    if name is not None and name.text == "windows":
        raise name.refused(
            "is Windows", "the sidecar's image is for Linux", "leave it out: mcp-sidecar.dev/inject"
        )
    for volume in spec.listed("volumes"):
        spot = volume.get("name")
        if spot is not None and spot.text in (sidecar.CONFIG_VOLUME, sidecar.SECRET_VOLUME):
            raise spot.refused(
                "is the name of a volume of ours", "names are there once", "give it another name"
            )
    for port in ports_of(spec):
        spot = port.get("name")
        if spot is not None and spot.text in sidecar.PORT_NAMES:
            raise spot.refused(
                "is the name of a port of ours", "a Service would find two", "give it another name"
            )


def _changes(spec: Spot, server: Spot, wish: Wish, pod: sidecar.Pod) -> tuple[list[Change], list[str]]:
    changes: list[Change] = []
    notes: list[str] = []
    _before_term(server, wish, changes, notes)
    ours = sidecar.container(wish, pod)
    _add(spec, "containers" if wish.is_classic else "initContainers", [ours], changes)
    volumes: list[Value] = list(sidecar.volumes(wish))
    if volumes:
        _add(spec, "volumes", volumes, changes)
    _grace(spec, wish, changes, notes)
    if not wish.config and not pod.services and not wish.hosts:
        notes.append(
            "warning: no Service here selects it, so that clients may use the address of the pod only; name theirs "
            "with --hosts"
        )
    for key in ("livenessProbe", "readinessProbe", "startupProbe"):
        if server.get(key) is not None:
            notes.append(f"{name_of(server)} has a {key} of its own, which is left as it is")
            break
    if wish.is_classic and wish.pre_stop == "exec":
        notes.append(
            "warning: the sidecar stops listening a second after its TERM, before everybody has heard of it"
        )
    if spec.text_of("hostNetwork") == "true":
        notes.append(
            "warning: it shares the network of its node, whose other programs reach the server on 127.0.0.1"
        )
    notes += _ways_past(spec, server, pod)
    return changes, notes


def _ways_past(spec: Spot, server: Spot, pod: sidecar.Pod) -> Iterator[str]:
    """What else has to be done, so that nobody gets past the sidecar."""
    if pod.mount is None:
        yield (
            f"port {pod.server_port} of {name_of(server)} can still be reached past the sidecar: bind it to 127.0.0.1, "
            "or close it with a NetworkPolicy"
        )
        return
    if pod.server_port is None and pod.services:
        yield "warning: no Service is moved by itself: say with --port which port they led to"
    yield f"{name_of(server)} must listen on no port beside its file, and let user {sidecar.USER} write to it"
    for each in spec.listed("volumes"):
        if each.text_of("name") == pod.mount.volume and each.get("emptyDir") is None:
            yield f"warning: the volume {pod.mount.volume} is not of this pod alone: who mounts it reaches the server"


def _before_term(server: Spot, wish: Wish, changes: list[Change], notes: list[str]) -> None:
    """Keep the server from its TERM while calls are under way: kubelets end native sidecars after it."""
    asleep = sidecar.server_pre_stop(wish)
    lifecycle = server.entry("lifecycle")
    there = lifecycle.get("preStop") if lifecycle else None
    if there is not None:
        notes.append(
            f"warning: {name_of(server)} has a preStop of its own, which is left as it is: calls in flight are safe "
            "for as long as it takes"
        )
    elif asleep is None:
        notes.append("warning: without preStop the server is ended under calls in flight")
    elif lifecycle is None:
        changes.append(AddEntry(server.to_change(), "lifecycle", {"preStop": asleep}))
    elif isinstance(lifecycle.node, Table) and lifecycle.node.entries:
        empty = lifecycle.entry("preStop")
        changes.append(
            Replace(empty, asleep) if empty else AddEntry(lifecycle.to_change(), "preStop", asleep)
        )
    else:
        changes.append(Replace(lifecycle.to_change(), {"preStop": asleep}))


def _add(spec: Spot, key: str, values: list[Value], changes: list[Change]) -> None:
    """Add to a list of the pod, which may not be there yet."""
    found = spec.entry(key)
    if found is None:
        changes.append(AddEntry(spec.to_change(), key, values))
    elif isinstance(found.node, Items) and found.node.items:
        changes.extend(AddItem(found.to_change(), each) for each in values)
    elif found.is_null or isinstance(found.node, Items):
        changes.append(Replace(found.to_change(), values))
    else:
        raise found.refused("is no list", "Kubernetes would refuse it", "write a list")


def _grace(spec: Spot, wish: Wish, changes: list[Change], notes: list[str]) -> None:
    """A native sidecar gets its TERM when the server has ended: the time of both comes off the pod's."""
    key, needed = "terminationGracePeriodSeconds", sidecar.grace_s(wish)
    found = spec.entry(key)
    if found is None:
        changes.append(AddEntry(spec.to_change(), key, needed))
    elif found.is_null or (found.number is not None and found.number < needed):
        notes.append(f"{key} raised to {needed}: {wish.drain_s} s for calls in flight, and time to end")
        changes.append(Replace(found.to_change(), needed))
    elif found.number is None:
        raise found.refused("is no number", "Kubernetes would refuse it", "write seconds")
