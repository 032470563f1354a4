"""Which address is free, and does it answer? Sockets on the loopback interface only."""

import errno
import http.client
import secrets
import socket

ANSWER_S = 1.0
"""For one probe: a local process that is up answers in milliseconds."""
FIRST_PORT, LAST_PORT = 20_000, 32_000
"""Below the range from which systems take ports of their own choice: those get in between, and a server that comes back
would find its port taken."""


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
        else:
            if int(port):
                return wanted
    return f"{host}:{free_ports(1, host)[0]}"


def free_ports(count: int, host: str = "127.0.0.1") -> list[int]:
    """Different ports nobody listens on, drawn by lot so that two who ask at once seldom meet. Raises OSError for a
    host that is not ours."""
    held: list[socket.socket] = []
    try:
        while len(held) < count:
            probe = socket.socket()
            held.append(probe)
            try:
                probe.bind((host, FIRST_PORT + secrets.randbelow(LAST_PORT - FIRST_PORT)))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                held.pop().close()
        return [probe.getsockname()[1] for probe in held]
    finally:
        for probe in held:
            probe.close()


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
