"""Which container is the server, where does it listen, and what is free beside it? A pod and a wish in. Pure.

What is not clear is refused and never guessed: a sidecar in front of something else guards nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from ..configuration.mistakes import shown
from .spots import Spot
from .wishes import PREFIX, Wish


class Mount(Struct, frozen=True):
    """A volume, or a folder in it, and where it is seen."""

    volume: str
    path: str
    sub_path: str | None


def containers(spec: Spot, *keys: str) -> Iterator[Spot]:
    for key in keys or ("containers", "initContainers"):
        yield from spec.listed(key)


def name_of(container: Spot) -> str:
    return shown(container.text_of("name") or "?")


def ports_of(spec: Spot, *keys: str) -> Iterator[Spot]:
    for each in containers(spec, *keys):
        yield from each.listed("ports")


def server_of(spec: Spot, wish: Wish) -> Spot:
    """The server's container. Raises Refusal where it is not clear which one that is."""
    found = list(containers(spec, "containers"))
    if not found:
        raise spec.refused("has no containers", "there is no server to guard", "is it whole?")
    names = ", ".join(map(name_of, found))
    if wish.container is not None:
        for each in found:
            if each.text_of("name") == wish.container:
                return each
        why = f"the containers here are {names}"
        raise spec.refused(f"has no container {shown(wish.container)}", why, "name one of them")
    if len(found) > 1:
        remedy = f"name it: --container NAME or {PREFIX}container"
        raise spec.refused(f"has {len(found)} containers", f"the server is one of {names}", remedy)
    return found[0]


def port_of(server: Spot, wish: Wish) -> tuple[int, list[str]]:
    """The server's port, and the names it has. Raises Refusal where it is not clear which one that is."""
    found = _named_ports(server)
    if wish.port is not None:
        numbers = {number for number, name in found if wish.port in (number, name)}
        if isinstance(wish.port, str) and not numbers:
            what = f"has no port {shown(wish.port)}"
            raise server.refused(what, f"it names {_in_words(found)}", "give its number")
        number = wish.port if isinstance(wish.port, int) else min(numbers)
    elif len({number for number, _ in found}) == 1:
        number = found[0][0]
    else:
        remedy = f"name it: --port NUMBER or {PREFIX}port"
        raise server.refused("leaves open where the server listens", f"it names {_in_words(found)}", remedy)
    return number, [name for each, name in found if each == number and name]


def port_before(server: Spot, wish: Wish) -> tuple[int | None, list[str]]:
    """The port that Services led to before the server listened on a file, and the names it has: None where nothing
    says which one that was. Raises Refusal."""
    if wish.port is None and len({number for number, _ in _named_ports(server)}) != 1:
        return None, []
    return port_of(server, wish)


def _named_ports(server: Spot) -> list[tuple[int, str | None]]:
    found: list[tuple[int, str | None]] = []
    for each in server.listed("ports"):
        listens, name, protocol = each.get("containerPort"), each.get("name"), each.get("protocol")
        if listens is not None and listens.number and (protocol is None or protocol.text == "TCP"):
            found.append((listens.number, name.text if name else None))
    return found


def mount_of(server: Spot, file: str) -> Mount:
    """The mount of the server that holds the file. Raises Refusal where none does, or not one that others can have."""
    best: Spot | None = None
    folder = ""
    for each in server.listed("volumeMounts"):
        path = (each.text_of("mountPath") or "").rstrip("/")
        # Mounts lie in each other: what is seen is the innermost.
        if path and file.startswith(f"{path}/") and len(path) > len(folder):
            best, folder = each, path
    if best is None:
        raise server.refused(
            f"mounts no volume that holds {shown(file)}",
            "the sidecar reaches the file through a volume that both mount",
            "give the pod an emptyDir volume, and mount it into the server at the file's folder",
        )
    volume = best.text_of("name")
    if volume is None or best.get("subPathExpr") is not None:
        why = "which folder of it that is follows from the server's own environment"
        raise best.refused("cannot be mounted a second time", why, "mount a volume of its own there")
    return Mount(volume, folder, best.text_of("subPath"))


def _in_words(ports: list[tuple[int, str | None]]) -> str:
    return (
        ", ".join(f"{number} ({shown(name)})" if name else str(number) for number, name in ports) or "no port"
    )


def free_port(spec: Spot, wanted: int | None, usual: int, server_port: int | None, option: str) -> int:
    """A port that nobody in the pod names: the wanted one, or the usual one or the next."""
    taken = {} if server_port is None else {server_port: "the server"}
    for each in containers(spec):
        for port in each.listed("ports"):
            number = port.get("containerPort")
            if number is not None and number.number:
                taken[number.number] = name_of(each)
    if wanted is not None:
        if wanted in taken:
            raise spec.refused(
                f"uses port {wanted}", f"{taken[wanted]} listens there", f"choose another {option}"
            )
        return wanted
    return next(port for port in range(usual, 65536) if port not in taken)
