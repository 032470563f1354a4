"""Asks a probe of a running sidecar, for exec probes and HEALTHCHECK: a socket and nothing else.

In: an address and a path. Out: exit code 0 for HTTP 200, 1 for anything else, 2 for wrong usage. Imports no
HTTP library and no argument parser: the interpreter's own start is most of its time.
"""

import os
import socket
import sys

USAGE = "usage: mcp-sidecar healthcheck [--address HOST:PORT] [--path /readyz] [--timeout SECONDS]"
DEFAULT_ADDRESS = "127.0.0.1:9901"


def healthcheck(words: list[str]) -> int:
    """Exit code of one probe. The address defaults to MCP_SIDECAR_OPERATIONS__ADDRESS, then to the built-in one."""
    options = {
        "--address": os.environ.get("MCP_SIDECAR_OPERATIONS__ADDRESS") or DEFAULT_ADDRESS,
        "--path": "/healthz",
        "--timeout": "2",
    }
    if words in (["-h"], ["--help"]):
        print(USAGE)
        return 0
    while words:
        name, separator, value = words[0].partition("=")
        if name not in options or (not separator and len(words) < 2):
            print(USAGE, file=sys.stderr)
            return 2
        options[name] = value if separator else words[1]
        words = words[1:] if separator else words[2:]
    host, _, port = options["--address"].rpartition(":")
    host = host.strip("[]")
    if host in ("", "0.0.0.0", "::"):  # noqa: S104  # listening everywhere is reached by loopback
        host = "127.0.0.1" if host != "::" else "::1"
    try:
        return _ask(host, int(port), options["--path"], float(options["--timeout"]))
    except (OSError, ValueError) as error:
        print(f"{options['--address']}{options['--path']}: {error}", file=sys.stderr)
        return 1


def _ask(host: str, port: int, path: str, timeout_s: float) -> int:
    with socket.create_connection((host, port), timeout=timeout_s) as connection:
        connection.sendall(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        answer = b""
        while b"\r\n" not in answer and len(answer) < 256:
            piece = connection.recv(256)
            if not piece:
                break
            answer += piece
    words = answer.split(b" ", 2)
    if len(words) > 1 and words[0].startswith(b"HTTP/1.") and words[1] == b"200":
        return 0
    line = answer.split(b"\r\n", 1)[0].decode("latin-1")
    print(f"{host}:{port}{path}: {line or 'no answer'}", file=sys.stderr)
    return 1
