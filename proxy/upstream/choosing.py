"""Which transport is used? The lean one for plain HTTP on this machine, where its library is installed; else aiohttp.

In: the server's URL; a socket file is on this machine. Out: a class that fulfils `Transport`, and its name. Keeps
nothing.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Literal, Protocol

from msgspec import Struct

from ..configuration.socket_urls import socket_of
from ..configuration.values import url_host_and_port
from .transport import Transport


class Make(Protocol):
    def __call__(
        self, url: str, *, connect_timeout_s: float, may_connect: Callable[[], bool] = ...
    ) -> Transport: ...


class Choice(Struct, frozen=True):
    """`name` is what the start-up line says."""

    name: Literal["lean", "aiohttp"]
    make: Make


def transport_for(url: str) -> Choice:
    """What requests to a checked URL go through."""
    if is_local(url):
        try:
            import httptools  # noqa: F401  # of the extra [fast]; asked for itself, because tests take it away

            from .transport_lean import LeanTransport
        except ImportError:
            pass
        else:
            return Choice("lean", LeanTransport)
    from .transport_aiohttp import AiohttpTransport

    return Choice("aiohttp", AiohttpTransport)


def is_local(url: str) -> bool:
    """Whether a checked URL is plain HTTP to this machine: the usual place of a sidecar's server."""
    if socket_of(url) is not None:
        return True
    if not url.startswith("http://"):
        return False
    host, _ = url_host_and_port(url)
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
