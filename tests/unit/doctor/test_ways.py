"""Where does the server listen? Tables of the kernel in, findings out."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.doctor.ways import exposure
from proxy.settings import Settings, load

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
LOOPBACK, EVERYWHERE, POD = "0100007F", "00000000", "0500000A"
LOOPBACK_6, EVERYWHERE_6 = "00000000000000000000000001000000", "0" * 32
MAPPED_LOOPBACK, MAPPED_POD = f"0000000000000000FFFF0000{LOOPBACK}", f"0000000000000000FFFF0000{POD}"


def settings(url: str = "http://127.0.0.1:8000/mcp") -> Settings:
    return load(None, overrides=[f"upstream.url={url}"], environ={})


def table(folder: Path, *sockets: tuple[str, int, str]) -> list[str]:
    """Address, port and state of each, as proc(5) has them."""
    lines = [
        f"   0: {host}:{port:04X} 00000000:0000 {state} 00000000:0 0 0 0 0 1\n"
        for host, port, state in sockets
    ]
    (folder / "tcp").write_text(HEAD + "".join(lines), encoding="ascii")
    return [str(folder / "tcp"), str(folder / "tcp6")]


@pytest.mark.parametrize(
    ("hosts", "level", "told"),
    [
        ([LOOPBACK], "ok", "127.0.0.1 port 8000"),
        ([LOOPBACK_6, LOOPBACK], "ok", "127.0.0.1, ::1 port 8000"),
        ([MAPPED_LOOPBACK], "ok", "127.0.0.1 port 8000"),
        ([EVERYWHERE], "warn", "0.0.0.0 port 8000"),
        ([EVERYWHERE_6], "warn", ":: port 8000"),
        ([POD, LOOPBACK], "warn", "10.0.0.5 port 8000"),
        ([MAPPED_POD], "warn", "10.0.0.5 port 8000"),
        ([], "ok", "not seen from here"),
    ],
)
async def test_a_server_that_listens_elsewhere_is_told(
    tmp_path: Path, hosts: list[str], level: str, told: str
) -> None:
    """Issue 9, 3: the pod's IP reaches it past every rule, whatever upstream.url says."""
    tables = table(tmp_path, *((host, 8000, "0A") for host in hosts))
    (one,) = await exposure(settings(), tables)
    assert one.level == level
    assert told in one.says


async def test_other_sockets_are_not_the_servers(tmp_path: Path) -> None:
    """Of another port, and connections that do not listen."""
    tables = table(tmp_path, (EVERYWHERE, 8001, "0A"), (POD, 8000, "01"), (LOOPBACK, 8000, "0A"))
    (one,) = await exposure(settings(), tables)
    assert one.level == "ok"


async def test_no_network_leads_to_a_file(tmp_path: Path) -> None:
    """issue 10, 2: a socket file closes the way past us; tables of ports say nothing of it."""
    (one,) = await exposure(settings("http+unix://%2Frun%2Fmcp.sock/mcp"), table(tmp_path, (POD, 80, "0A")))
    assert (one.level, one.says) == (
        "ok",
        "the server is asked at the file /run/mcp.sock, which no network leads to",
    )


async def test_a_server_of_another_host_is_told() -> None:
    (one,) = await exposure(settings("http://10.0.0.9:8000/mcp"))
    assert one.level == "warn"
