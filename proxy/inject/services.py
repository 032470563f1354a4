"""Which Services have to lead to the sidecar, and what has to be changed in them? Pure.

A Service is moved where it selects the pods of a workload that has a sidecar and leads to its server's port; or where
somebody says so. The number is written: before Kubernetes 1.32 a Service finds no named port of a native sidecar
(kubernetes/kubernetes issue 127958).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ..configuration.mistakes import shown
from . import sidecar
from .edits import AddEntry, Change, Replace
from .pods import Plan, Workload, wish_of
from .spots import Spot
from .wishes import Wish


def name_of(service: Spot) -> str:
    return service.text_of("metadata", "name") or "?"


def selects(service: Spot, namespace: str | None, labels: Mapping[str, str]) -> bool:
    """Whether a Service leads to pods with these labels. Where one side names no namespace they are in the same."""
    own, selector = service.text_of("metadata", "namespace"), service.down("spec", "selector")
    if own is not None and namespace is not None and own != namespace:
        return False
    wanted = selector.texts() if selector else {}
    return bool(wanted) and wanted.items() <= labels.items()


def plan_service(service: Spot, wish: Wish, workloads: Iterable[Workload], named: Sequence[str]) -> Plan:
    """What to do about a Service. `wish` is that of the command line. Raises Refusal."""
    own = wish_of(Wish(), service)
    if not own.is_wanted:
        return Plan((), None, ("left alone, as its annotation says",))
    targets: dict[int | str, int] = {}
    for each in workloads:
        if each.listen_port is None or not selects(service, each.namespace, each.labels):
            continue
        for port in each.server_ports:
            if targets.setdefault(port, each.listen_port) != each.listen_port:
                why = f"their sidecars listen on {targets[port]} and on {each.listen_port}"
                raise service.refused("leads to two workloads", why, "give both the same --listen-port")
    if own.port is not None or name_of(service) in named:
        asked = own.port if own.port is not None else wish.port
        if asked is None:
            why = f"nothing here says which port of {shown(name_of(service))} is the server's"
            raise service.refused("cannot be moved", why, "name it: --port NUMBER or mcp-sidecar.dev/port")
        targets.setdefault(asked, own.listen_port or wish.listen_port or sidecar.LISTEN_PORT)
    changes: list[Change] = []
    notes: list[str] = []
    ports = service.down("spec", "ports")
    for entry in ports.items() if ports and targets else ():
        _move(entry, targets, changes, notes)
    if changes and service.text_of("spec", "clusterIP") == "None":
        notes.append(
            "warning: it is headless, so that clients choose the port themselves: they have to know the new one"
        )
    return Plan(tuple(changes), None, tuple(notes))


def _move(port: Spot, targets: Mapping[int | str, int], changes: list[Change], notes: list[str]) -> None:
    target, number, protocol = port.get("targetPort"), port.get("port"), port.get("protocol")
    if protocol is not None and protocol.text != "TCP":
        return
    leads_to = (target.number or target.text) if target else number.number if number else None
    if leads_to is None or leads_to not in targets:
        return
    to = targets[leads_to]
    changes.append(
        Replace(target.to_change(), to) if target else AddEntry(port.to_change(), "targetPort", to)
    )
    notes.append(f"port {number.text if number else '?'} leads to the sidecar now: {leads_to} became {to}")
