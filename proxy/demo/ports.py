"""Which address is free, and does it answer? Sockets on the loopback interface only."""

import errno
import http.client
import socket

ANSWER_S = 1.0
"""For one probe: a local process that is up answers in milliseconds."""


def free_address(wanted: str) -> str:
    """Return `wanted` ("host:port"), or the same host with a free port when somebody listens there.

    Raises OSError or ValueError for an address that cannot be had at all.
    """
    host, _, port = wanted.rpartition(":")
    if not host:  # to a socket that means every interface, which nobody asked for
        raise ValueError("the host is missing")
    with socket.socket() as probe:
        # As servers do: without it the waiting connections of one just stopped would count as taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            probe.bind((host, 0))
        return f"{host}:{probe.getsockname()[1]}"


def two_free_addresses() -> tuple[str, str]:
    """Two that are free at once: one after the other the system may name one port twice. Raises OSError."""
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{one.getsockname()[1]}", f"127.0.0.1:{other.getsockname()[1]}"


def accepts(address: str) -> bool:
    """Somebody accepts connections there."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=ANSWER_S).close()
    except OSError:
        return False
    return True


def answers_ok(address: str, path: str) -> bool:
    """A GET of `path` is answered with 200."""
    host, _, port = address.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=ANSWER_S)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
