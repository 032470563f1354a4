"""The probe of a running sidecar: one real socket, one exit code."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from proxy.lifecycle.healthcheck import USAGE, healthcheck

BOUND_S = 5.0
VARIABLE = "MCP_SIDECAR_OPERATIONS__ADDRESS"


@contextmanager
def answering(*pieces: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """A server for one connection: its address, and the request it got."""
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(BOUND_S)

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.settimeout(BOUND_S)
                request = b""
                while b"\r\n\r\n" not in request and (piece := connection.recv(1_024)):
                    request += piece
                heard.append(request)
                for each in pieces:
                    connection.sendall(each)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"127.0.0.1:{server.getsockname()[1]}", heard
        finally:
            thread.join(BOUND_S)
            assert not thread.is_alive()


@pytest.fixture
def free_address() -> str:
    """Where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize(
    ("pieces", "code"),
    [
        ([OK], 0),
        ([b"HTTP/1.0 200 OK\r\n\r\n"], 0),
        ([b"HT", b"TP/1.1 2", b"00 OK\r", b"\n\r\n"], 0),
        ([b"HTTP/1.1 503 Service Unavailable\r\n\r\n"], 1),
        ([b"HTTP/1.1 2000 OK\r\n\r\n"], 1),
        ([b"HTTP/1.1 404 200\r\n\r\n"], 1),
        ([b"HTTP/2 200\r\n\r\n"], 1),
        ([b"200 200 OK\r\n"], 1),
        ([b"x" * 10_000], 1),
        ([], 1),
    ],
)
def test_only_a_200_is_well(pieces: list[bytes], code: int, capsys: pytest.CaptureFixture[str]) -> None:
    """design section 2: `healthcheck` for exec probes; anything but 200 is a reason, in one line."""
    with answering(*pieces) as (address, heard):
        assert healthcheck(["--address", address, "--path=/readyz"]) == code
    assert heard == [b"GET /readyz HTTP/1.0\r\nHost: localhost\r\n\r\n"]
    written = capsys.readouterr()
    assert written.out == ""
    assert written.err.count("\n") == (1 if code else 0)


def test_nobody_there_is_not_well(free_address: str, capsys: pytest.CaptureFixture[str]) -> None:
    """design section 2."""
    assert healthcheck([f"--address={free_address}"]) == 1
    assert free_address in capsys.readouterr().err


def test_a_server_that_says_nothing_is_not_well(capsys: pytest.CaptureFixture[str]) -> None:
    """A hung process accepts connections for as long as its kernel does."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        assert healthcheck(["--address", address, "--timeout", "0.05"]) == 1
    assert "timed out" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [["x"], ["--port", "1"], ["--address"], ["--path", "/x", "--timeout"], ["--help", "x"], [""]]
)
def test_wrong_usage_has_a_code_of_its_own(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """design section 2: exit code 2."""
    assert healthcheck(words) == 2
    assert capsys.readouterr().err == f"{USAGE}\n"


@pytest.mark.parametrize("words", [["-h"], ["--help"]])
def test_help_is_no_mistake(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """The words go where they were asked for."""
    assert healthcheck(words) == 0
    assert capsys.readouterr().out == f"{USAGE}\n"


@pytest.mark.parametrize("words", [["--address", "x"], ["--address=127.0.0.1:x"], ["--timeout=x"]])
def test_what_cannot_be_asked_is_not_well(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A probe never ends in a traceback."""
    assert healthcheck(words) == 1
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("everywhere", ["0.0.0.0", ""])
def test_an_address_that_listens_everywhere_is_asked_on_loopback(
    everywhere: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """design section 3: manifests set 0.0.0.0:9901; the variable that moves the port moves the probe."""
    with answering(OK) as (address, heard):
        monkeypatch.setenv(VARIABLE, f"{everywhere}:{address.rpartition(':')[2]}")
        assert healthcheck([]) == 0
    assert heard == [b"GET /healthz HTTP/1.0\r\nHost: localhost\r\n\r\n"]


def test_what_is_written_wins_over_the_environment(
    monkeypatch: pytest.MonkeyPatch, free_address: str
) -> None:
    """design section 3: the command line is nearest."""
    monkeypatch.setenv(VARIABLE, free_address)
    with answering(OK) as (address, _):
        assert healthcheck(["--address", address]) == 0
