"""`mcp-sidecar doctor` as an operator runs it: against a whole installation, a broken one, and one that hangs."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import redis

from proxy.demo.ports import free_ports
from proxy.doctor.examine import CHECK_S, Wish, doctor
from tests.clients import running
from tests.idp import Idp, Scripted
from tests.integration.house import ROOT, process
from tests.integration.test_hash_key import run as script
from tests.integration.waiting import within
from tests.valkey import Valkey

PASSWORD = "a-password-of-the-store"
SECRET = "a-secret-of-the-cache-that-is-long-enough-for-anybody"
CLIENT_SECRET = "a-secret-of-the-client"
LONGEST_S = 4 * CHECK_S

Findings = list[dict[str, str]]


async def examined(*words: str | Path, json_form: bool = True) -> tuple[int, Any]:
    """Run the command; its exit code, and its findings or its text."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MCP_")}
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "proxy", "doctor", *(["--json"] if json_form else []), *words),
        cwd=ROOT,
        env=clean,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with within(LONGEST_S):
        out, err = await child.communicate()
    assert err == b""
    for secret in (PASSWORD, SECRET, CLIENT_SECRET):
        assert secret.encode() not in out
    assert child.returncode is not None
    text = out.decode()
    return child.returncode, json.loads(text)["findings"] if json_form else text


def levels(findings: Findings) -> dict[str, set[str]]:
    """By check."""
    found: dict[str, set[str]] = {}
    for each in findings:
        found.setdefault(each["check"], set()).add(each["level"])
    return found


def says(findings: Findings, check: str, level: str) -> str:
    return "\n".join(each["says"] for each in findings if (each["check"], each["level"]) == (check, level))


def written(folder: Path, settings: Mapping[str, object]) -> Path:
    file = folder / "sidecar.json"
    file.write_text(json.dumps({"version": 1, **settings}), encoding="utf-8")
    return file


def issuer(url: str, jwks: str) -> dict[str, object]:
    return {"kind": "jwt", "issuer": url, "jwks_url": jwks}


@pytest.fixture
def store() -> Iterator[Valkey]:
    with Valkey("--requirepass", PASSWORD) as store:
        yield store


@pytest.fixture
async def idp() -> AsyncIterator[Idp]:
    async with Idp(client_secret=CLIENT_SECRET) as idp:
        yield idp


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running.server(tmp_path_factory.mktemp("server")) as url:
        yield url


@pytest.fixture
def whole(tmp_path: Path, store: Valkey, idp: Idp, server: str) -> dict[str, Any]:
    """Settings of an installation that uses everything."""
    (tmp_path / "password").write_text(PASSWORD, encoding="utf-8")
    (tmp_path / "secret").write_text(SECRET, encoding="utf-8")
    (tmp_path / "client").write_text(CLIENT_SECRET, encoding="utf-8")
    done = script(
        "$PROXY hash-key --tenant acme --subject bot >$FILE 2>/dev/null", FILE=str(tmp_path / "keys")
    )
    assert done.returncode == 0
    listen, operations = (f"127.0.0.1:{port}" for port in free_ports(2))
    return {
        "listen": {"address": listen},
        "operations": {"address": operations},
        "upstream": {"url": server},
        "identity": {
            "resource": "https://tools.example.com/mcp",
            "authenticators": [
                issuer(idp.issuer, idp.jwks_url),
                {"kind": "api_key", "keys_file": str(tmp_path / "keys")},
                {
                    "kind": "introspection",
                    "url": idp.introspection_url,
                    "client_id": "sidecar",
                    "client_secret": f"${{file:{tmp_path / 'client'}}}",
                },
            ],
        },
        "policy": {
            "packs": ["strict"],
            "tools": [{"match": "a", "allow": ["*"], "when": "size(args.q) < 5"}],
        },
        "limits": [{"name": "r", "key": ["tenant"], "rate_per_s": 10, "burst": 10}],
        "shared_state": {
            "url": store.url,
            "password": f"${{file:{tmp_path / 'password'}}}",
            "timeout_s": 1,
        },
        "cache": {"file": str(tmp_path / "answers"), "secret": f"${{file:{tmp_path / 'secret'}}}"},
        "memory_limit_bytes": 1_073_741_824,
    }


async def test_a_whole_installation_is_well(tmp_path: Path, whole: dict[str, Any]) -> None:
    """Issue 9, 3: against a running instance; nobody answers where the server should not be reached."""
    file = written(tmp_path, whole)
    (nobody,) = free_ports(1)
    async with process("run", "--config", str(file)) as child:
        await child.listening()
        code, findings = await examined("--config", file, "--server-address", f"127.0.0.1:{nobody}")
    assert [each for each in findings if each["level"] == "fail"] == []
    assert code == 0
    assert set(levels(findings)) == {
        *("settings", "operations", "upstream", "exposure", "bypass", "identity", "policy", "tls", "store"),
        *("files", "memory", "descriptors", "versions", "clock"),
    }
    for check in ("settings", "operations", "upstream", "exposure", "bypass", "policy", "store", "files"):
        assert levels(findings)[check] == {"ok"}, findings
    assert says(findings, "identity", "ok").count("\n") == 2
    assert "2026-07-28" in says(findings, "upstream", "ok")
    assert "the store" in says(findings, "clock", "ok")
    assert all(each["level"] == "ok" or each["remedy"] for each in findings)


async def test_what_the_sidecar_says_of_itself_is_passed_on(
    tmp_path: Path, whole: dict[str, Any], server: str
) -> None:
    """A sidecar whose server is away is not ready, and says why."""
    (gone,) = free_ports(1)
    there = written(tmp_path, {**whole, "upstream": {"url": f"http://127.0.0.1:{gone}/mcp"}})
    async with process("run", "--config", str(there)) as child:
        await child.listening()
        code, findings = await examined("--config", there)
    assert code == 1
    assert "upstream does not answer" in says(findings, "operations", "fail")
    assert "cannot be reached" in says(findings, "upstream", "fail")


async def test_everything_broken_at_once_is_found_at_once(
    tmp_path: Path, whole: dict[str, Any], server: str
) -> None:
    """Issue 9, 3: one failure never hides another, and each has its remedy."""
    gone = [f"127.0.0.1:{port}" for port in free_ports(5)]
    jwt, keys, introspection = whole["identity"]["authenticators"]
    broken = {
        **whole,
        "operations": {"address": gone[0]},
        "upstream": {"url": f"http://{gone[1]}/mcp"},
        "listen": {
            "address": "127.0.0.1:0",
            "tls": {"certificate_file": str(tmp_path / "no.pem"), "key_file": str(tmp_path / "no.key")},
        },
        "identity": {
            "resource": "https://tools.example.com/mcp",
            "authenticators": [
                {**jwt, "jwks_url": f"http://{gone[2]}/jwks"},
                {**keys, "keys_file": str(tmp_path / "no.yaml")},
                {**introspection, "url": f"http://{gone[3]}/introspect"},
            ],
        },
        "policy": {"packs": ["./no-pack.yaml"]},
        "shared_state": {"url": f"redis://{gone[4]}/0"},
        "cache": {**whole["cache"], "file": str(tmp_path / "no" / "answers")},
        "memory_limit_bytes": 67_108_864,
    }
    address = server.split("/")[2]
    code, findings = await examined("--config", written(tmp_path, broken), "--server-address", address)
    assert code == 1
    failed = {check for check, found in levels(findings).items() if "fail" in found}
    assert failed == {
        *("settings", "operations", "upstream", "bypass", "identity", "policy", "tls", "store", "files")
    }
    assert says(findings, "identity", "fail").count("\n") == 2
    assert says(findings, "settings", "fail").count("\n") == 1
    assert levels(findings)["memory"] == {"warn"}
    assert address in says(findings, "bypass", "fail")
    assert all(each["remedy"] for each in findings if each["level"] != "ok")


async def test_settings_that_cannot_be_read_hide_nothing_else(tmp_path: Path, server: str) -> None:
    """What can be asked without them is asked."""
    file = tmp_path / "sidecar.yaml"
    file.write_text("version: 1\nupstream: {url: nonsense}\ndrain_s: soon\n", encoding="utf-8")
    code, findings = await examined("--config", file, "--server-address", server.split("/")[2])
    assert code == 1
    assert says(findings, "settings", "fail").splitlines()[0].startswith(f"{file}:2:17: upstream.url: ")
    assert says(findings, "settings", "fail").count("\n") == 1
    assert levels(findings)["bypass"] == {"fail"}
    assert {"descriptors", "versions"} <= levels(findings).keys()


async def test_who_hangs_does_not_hang_the_doctor(tmp_path: Path, whole: dict[str, Any]) -> None:
    """Issue 9, 3: everything that is asked takes the connection and never answers."""
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(64)
        where = f"127.0.0.1:{deaf.getsockname()[1]}"
        jwt, _, introspection = whole["identity"]["authenticators"]
        hanging = {
            **whole,
            # Its address and the sidecar's own may not be one, but a name of it may.
            "upstream": {"url": f"http://localhost:{deaf.getsockname()[1]}/mcp"},
            "identity": {
                "resource": "https://tools.example.com/mcp",
                "authenticators": [
                    {**jwt, "jwks_url": f"http://{where}/jwks"},
                    {**introspection, "url": f"http://{where}/introspect"},
                ],
            },
            "shared_state": {"url": f"redis://{where}/0"},
        }
        code, findings = await examined("--config", written(tmp_path, hanging), "--server-address", where)
    assert code == 1
    failed = {check for check, found in levels(findings).items() if "fail" in found}
    assert {"upstream", "bypass", "identity", "store"} <= failed
    assert says(findings, "identity", "fail").count("timeout") == 2
    assert f"within {CHECK_S:g} s" in says(findings, "upstream", "fail")


async def test_a_store_that_does_not_let_us_is_named(
    tmp_path: Path, whole: dict[str, Any], store: Valkey
) -> None:
    """The password, the right to run a script, and a store that stands still: each in words of its own."""
    file = written(tmp_path, whole)
    (tmp_path / "password").write_text("wrong", encoding="utf-8")
    _, findings = await examined("--config", file)
    assert "does not accept the user or password" in says(findings, "store", "fail")
    (tmp_path / "password").write_text(PASSWORD, encoding="utf-8")
    with redis.Redis(port=store.port, password=PASSWORD, socket_timeout=LONGEST_S) as operator:
        operator.execute_command("ACL", "SETUSER", "default", "-evalsha")
    _, findings = await examined("--config", file)
    assert "access list" in says(findings, "store", "fail")
    store.hang()
    _, findings = await examined("--config", file)
    store.go_on()
    assert "does not answer" in says(findings, "store", "fail")


async def test_an_issuer_that_is_no_use_is_named(tmp_path: Path, whole: dict[str, Any], idp: Idp) -> None:
    """Keys that fit nothing, and a provider that does not know us."""
    idp.withdraw("k1")
    idp.publish("k9", alg="EdDSA")
    idp.introspection_answer = Scripted(status=401)
    code, findings = await examined("--config", written(tmp_path, whole))
    assert code == 1
    assert "none of its keys fits RS256, ES256" in says(findings, "identity", "fail")
    assert "status 401" in says(findings, "identity", "fail")


HOSTILE = b'{"status":"degraded","reasons":["\\u001b[2J\\u202e' + b"x" * 5_000 + b'",{"a":1},7]}'


async def test_what_others_answer_cannot_harm_a_terminal(tmp_path: Path) -> None:
    """Whoever sits at these addresses, their words are bounded and printable."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = f"HTTP/1.1 200 OK\r\nDate: \x1b]0;x\x07, 99 Foo\r\nContent-Length: {len(HOSTILE)}\r\n\r\n"
        writer.write(head.encode() + HOSTILE)
        with contextlib.suppress(OSError):
            await writer.drain()
        writer.close()

    listening = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with listening:
        port = listening.sockets[0].getsockname()[1]
        settings = {
            "operations": {"address": f"127.0.0.1:{port}"},
            "upstream": {"url": f"http://127.0.0.1:{free_ports(1)[0]}/mcp"},
        }
        code, text = await examined("--config", written(tmp_path, settings), json_form=False)
    assert code == 1
    assert "degraded: " in text
    assert all(line.isprintable() for line in text.splitlines())
    assert max(map(len, text.splitlines())) < 700


async def test_a_clock_that_is_wrong_is_told(tmp_path: Path, whole: dict[str, Any]) -> None:
    """An hour behind its issuer: good tokens would be refused."""
    out = io.StringIO()
    file = written(tmp_path, whole)

    def late() -> float:
        return time.time() - 3_600

    code = await asyncio.to_thread(doctor, Wish(file=file, is_json=True), {}, out, wall=late)
    findings = json.loads(out.getvalue())["findings"]
    assert code == 1
    assert " is 3600 s ahead of this clock" in says(findings, "clock", "fail")


@pytest.mark.parametrize(
    "words", [["--server-address", "8000"], ["--server-address", "::1:8000"], ["--verbose"], ["x"]]
)
async def test_wrong_words_are_no_examination(words: list[str]) -> None:
    """design section 2: 2 is for wrong usage."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "proxy", "doctor", *words),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with within(LONGEST_S):
        out, err = await child.communicate()
    assert (child.returncode, out) == (2, b"")
    assert err
