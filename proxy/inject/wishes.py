"""What does somebody want of the sidecar? Options and annotations, as texts, in; one frozen wish out. Pure.

An annotation of the manifest goes before an option of the command line: whoever wrote it knew this workload.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

from msgspec import Struct, structs

from ..configuration.mistakes import Unfit, did_you_mean
from ..configuration.socket_urls import check_socket_file
from ..configuration.values import check_host_name, check_path

PREFIX: Final = "mcp-sidecar.dev/"

DRAIN_S: Final = 25
"""As `drain_s` in the settings."""

_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", re.ASCII)
_PORT_NAME: Final = re.compile(r"(?=.*[a-z])(?!.*--)[a-z0-9]([a-z0-9-]{0,13}[a-z0-9])?", re.ASCII)
_IMAGE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,511}", re.ASCII)
_QUANTITY: Final = re.compile(r"[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi)?", re.ASCII)
_TENANT: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,62}[A-Za-z0-9])?", re.ASCII)


class Wish(Struct, frozen=True, kw_only=True):
    """How the sidecar of one workload should be. None: found in the manifest, or the default of `sidecar.py`."""

    is_wanted: bool = True
    is_classic: bool = False
    """Among the containers: for clusters older than 1.29."""
    container: str | None = None
    """The server's, where there are several."""
    port: int | str | None = None
    """The server's: a number, or the name of one of its ports."""
    socket: str | None = None
    """The file that the server listens on instead, in a volume that it mounts."""
    path: str | None = None
    """The server's: /mcp unless said."""
    config: str | None = None
    """The ConfigMap with settings.yaml. None: everything is an argument, and nothing but the protocol is enforced."""
    secret: str | None = None
    """A Secret whose keys become files in /run/secrets/mcp-sidecar."""
    image: str | None = None
    listen_port: int | None = None
    operations_port: int | None = None
    cpu: str | None = None
    memory: str | None = None
    memory_limit: str | None = None
    tenant: str | None = None
    """Everybody is one anonymous tenant of this name; also where the ConfigMap says otherwise."""
    hosts: tuple[str, ...] = ()
    """Names that clients use, beside those of the Services found."""
    drain_s: int = DRAIN_S
    """How long calls may go on after the pod was told to end."""
    pre_stop: str = "sleep"
    """sleep: the kubelet waits (Kubernetes 1.30). exec: the images have a program that does (1.29). none: nobody."""


def _matching(pattern: re.Pattern[str], what: str, remedy: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if not pattern.fullmatch(text):
            raise Unfit(f"is not {what}", "Kubernetes would refuse it", remedy)
        return text

    return read


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text[:6]) <= 65535):
        raise Unfit("is not a port", "a number from 1 to 65535 is needed", "write for example 8000")
    return int(text)


def _port_or_name(text: str) -> int | str:
    if text.isdigit():
        return _port(text)
    return _matching(_PORT_NAME, "a port", "write its number, or its name in the container")(text)


def _path(text: str) -> str:
    check_path(text)
    return text


def _socket(text: str) -> str:
    check_socket_file(text)
    return text


def _hosts(text: str) -> tuple[str, ...]:
    names = tuple(each.strip() for each in text.split(",") if each.strip())
    for each in names:
        check_host_name(each)
    return names


def _seconds(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text[:6]) <= 3600):
        raise Unfit(
            "is not a number of seconds", "whole ones from 1 to 3600 are needed", "write for example 25"
        )
    return int(text)


def _yes_or_no(text: str) -> bool:
    if text not in ("true", "false"):
        raise Unfit("is neither true nor false", "another word would be a guess", 'write "true" or "false"')
    return text == "true"


def _one_of(*words: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in words:
            raise Unfit(
                "is not known", "it says who waits before the server ends", f"write {' or '.join(words)}"
            )
        return text

    return read


_name = _matching(_NAME, "a name of Kubernetes", "write lower case letters, digits, - and .")
_quantity = _matching(_QUANTITY, "a quantity", "write for example 100m or 96Mi")

READ: Final[Mapping[str, tuple[str, Callable[[str], object]]]] = {
    "inject": ("is_wanted", _yes_or_no),
    "classic": ("is_classic", _yes_or_no),
    "container": ("container", _name),
    "port": ("port", _port_or_name),
    "socket": ("socket", _socket),
    "path": ("path", _path),
    "config": ("config", _name),
    "secret": ("secret", _name),
    "image": ("image", _matching(_IMAGE, "an image", "write REGISTRY/NAME:TAG or …@sha256:DIGEST")),
    "listen-port": ("listen_port", _port),
    "operations-port": ("operations_port", _port),
    "cpu": ("cpu", _quantity),
    "memory": ("memory", _quantity),
    "memory-limit": ("memory_limit", _quantity),
    "tenant": ("tenant", _matching(_TENANT, "a tenant", "write letters, digits, -, _ and .")),
    "hosts": ("hosts", _hosts),
    "drain-s": ("drain_s", _seconds),
    "pre-stop": ("pre_stop", _one_of("sleep", "exec", "none")),
}
"""Each word of a wish: as an annotation `mcp-sidecar.dev/word`, as an option `--word`. Field and reader."""


def wished(wish: Wish, word: str, text: str) -> Wish:
    """The wish with one more word. Raises Unfit."""
    if word not in READ:
        raise Unfit("is not known", "a misspelt key would change nothing", did_you_mean(word, READ))
    name, read = READ[word]
    return structs.replace(wish, **{name: read(text)})
