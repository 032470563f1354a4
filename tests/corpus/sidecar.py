"""The sidecar under test, as a process: built settings in, a running `proxy run` out.

`configuration` is the only place that turns the corpus' fixture into our configuration; a later room adds its
section there.
"""

import asyncio
import json
import math
import os
import re
import secrets
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple
from urllib.parse import urlsplit

from proxy.telemetry.exposition import FRESH_S
from tests import ledger
from tests.corpus.cases import CorpusError
from tests.corpus.evidence import Limits
from tests.corpus.wire import Message, read_answers

HEAD_TIMEOUT_S = 1.0
BODY_TIMEOUT_S = 1.5
STREAM_GRACE_S = 1.0
SCOPE = "mcp:call"
SECOND_ISSUER = "https://idp2.test"
_SECRET_VARIABLE = "CORPUS_UPSTREAM_CREDENTIAL"  # the name of a variable: settings hold no secret in clear
_SECRET = f"Bearer corpus-{secrets.token_hex(12)}"
CREDENTIALS = (("Authorization", _SECRET), ("X-Principal", "corpus-sidecar"))
"""What the sidecar adds upstream; the second stands for any header that only the sidecar may set."""

BARRIER_TOOL = "corpus_barrier"
"""The tool the runner itself calls between the cases."""

READER = "reader"
"""A role."""
KEPT_S = 60
"""How long answers are kept: longer than any case takes."""

ABOVE_THE_BUCKET = 1_000
"""A cost of which no bucket of `allowances` that a case meets with it has enough."""

_EVERYBODY = ["*"]
_STARTED = re.compile(rb'(?m)^\{.*"msg":"started".*\}$')
_READY_S = 15.0
_STOP_S = 5.0
_POLL_S = 0.02
_METRICS = "/metrics"
_told: dict[int, float] = {}
"""When each operations port had last told its metrics to this process, which alone asks: seconds, monotonic."""


class SidecarError(Exception):
    """The sidecar did not start, or did not end; with what it printed."""


def limits(fixture: Mapping[str, Any]) -> Limits:
    """The times `configuration` sets, beside those the corpus was written for."""
    return Limits(
        head_timeout_s=HEAD_TIMEOUT_S,
        body_timeout_s=BODY_TIMEOUT_S,
        slack_s=1.5,
        fixture_head_timeout_s=float(fixture["proxy"]["head_timeout_s"]),
        fixture_body_timeout_s=float(fixture["proxy"]["body_timeout_s"]),
        stream_grace_s=STREAM_GRACE_S,
    )


def identity(
    fixture: Mapping[str, Any],
    *,
    jwks_url: str,
    second_jwks_url: str,
    keys_file: Path,
    max_stale_s: float | None = None,
) -> dict[str, Any]:
    """Who may call: tokens of the fixture's issuer and of a second one, and API keys.

    Keys are fetched every second, so that a case sees what its setup changed. Every token of the fixture has the
    scope mcp:call, and all must.
    """
    tokens = {
        "kind": "jwt",
        "algorithms": list(fixture["allowed_algs"]),
        "tenant_claim": "tenant",
        "leeway_s": fixture["proxy"]["leeway_s"],
        "max_token_lifetime_s": fixture["proxy"]["max_token_lifetime_s"],
        "required_scopes": [SCOPE],
        "jwks_refresh_s": 1,
        **({"jwks_max_stale_s": max_stale_s} if max_stale_s is not None else {}),
    }
    return {
        "resource": fixture["audience"],
        "authenticators": [
            {**tokens, "issuer": fixture["issuer"], "jwks_url": jwks_url},
            {**tokens, "issuer": SECOND_ISSUER, "jwks_url": second_jwks_url},
            {"kind": "api_key", "keys_file": str(keys_file)},
        ],
        "stream_grace_s": STREAM_GRACE_S,
    }


def policy(fixture: Mapping[str, Any], *, is_closed: bool = False) -> dict[str, Any]:
    """Who may call which tool and read which resource; `is_closed`: every tool has an empty `allow`.

    Rules stand in the fixture's order, so that a pattern which fits more than its own name decides too early. The
    runner's own tool is always allowed. Raises CorpusError for words the fixture did not have before.
    """
    rules = [
        {"match": name, "allow": [] if is_closed else _roles(name, said), **_arguments(said), **_cost(said)}
        for name, said in fixture["tools"].items()
    ]
    readable = [uri for uri, said in fixture["resources"].items() if _roles(uri, said)]
    return {
        "tools": [*rules, {"match": BARRIER_TOOL, "allow": _EVERYBODY}],
        "methods": {"resources/read": {"allow": _EVERYBODY, "match": readable}},
    }


def watching(fixture: Mapping[str, Any]) -> dict[str, Any]:
    """The same, and what the server says is looked at: definitions, instructions, forms, and what `echo` returns, whose
    arguments must fit its own schema.

    Whatever else it may list is allowed: what is not shown then was not hidden by a rule.
    """
    rules = redacting(policy(fixture), validate=True)
    return {
        **rules,
        "tools": [*rules["tools"], {"match": "*", "allow": _EVERYBODY}],
        "definitions": {},
        "elicitation": {"secrets": "block"},
    }


def redacting(rules: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """These rules, by which what `echo` returns is masked where it commands."""
    redact = [{"pattern": "instructions", "action": "mask"}]
    tools = [
        {**rule, **more, "redact": redact} if rule["match"] == "echo" else rule for rule in rules["tools"]
    ]
    return {**rules, "tools": tools}


def keeping(fixture: Mapping[str, Any]) -> dict[str, Any]:
    """The same as `policy`, and answers are kept of the tools that the fixture calls cached or shared, and of those of
    which a case asks whether they are.

    Reading is for readers. One rule is for `read_doc` and `read`, so that nothing but their names tells them apart.
    """
    rules = policy(fixture)
    own = {"class": "read", "cache": {"ttl_s": KEPT_S}}
    for_all = {"ttl_s": KEPT_S, "share": "all"}
    kept: dict[str, dict[str, Any]] = {
        "read_doc": {**own, "match": "read*", "allow": [READER, "admin"]},
        "pub_info": {**own, "cache": for_all},
        "pub_echo": {**own, "cache": {**for_all, "vary": {"ignore": ["inject"]}}},
        "big": own,
        "ask": own,
    }
    tools = [{**rule, **kept.get(rule["match"], {})} for rule in rules["tools"]]
    words = {
        name: said for name, said in fixture["tools"].items() if re.search(r"(?<!not )cached|shared", said)
    }
    if set(words) != {"read_doc", "pub_info", "pub_echo"}:
        raise CorpusError(f"the fixture keeps answers of {sorted(words)}, which no rule says")
    return {**rules, "tools": tools}


def comparing(fixture: Mapping[str, Any], lock_file: Path) -> dict[str, Any]:
    """The same as `policy`, and definitions are compared with those that were approved."""
    return {**policy(fixture), "pins": {"file": str(lock_file)}}


def _arguments(said: str) -> dict[str, Any]:
    """Hosts are listed, because the sidecar resolves no names: what is not on the list cannot change its address
    between check and use."""
    if "SSRF rule on url-like strings" not in said:
        return {}
    return {"arguments": {"*": {"hosts": ["example.com", "*.example.com"]}}}


def _cost(said: str) -> dict[str, Any]:
    if match := re.search(r"cost (\d+|above the bucket)", said):
        return {"cost": int(match[1]) if match[1].isdigit() else ABOVE_THE_BUCKET}
    return {}


def _roles(name: str, said: str) -> list[str]:
    if said == "allowed" or said.startswith("allowed, "):
        return _EVERYBODY
    if match := re.fullmatch(r"denied(?: for all but (\w+))?", said):
        return [match[1]] if match[1] else []
    raise CorpusError(f"the fixture's {name} is {said!r}, which no rule says")


def configuration(
    fixture: Mapping[str, Any],
    *,
    refusals: str,
    upstream_url: str,
    identity: Mapping[str, Any],
    policy: Mapping[str, Any],
    sections: Mapping[str, Any],
) -> dict[str, Any]:
    """The fixture in the words of our configuration; times are shortened so that slow cases end soon.

    `sections` are those that only some sidecars have; `upstream` in it is added to that one.
    """
    proxy = fixture["proxy"]
    return {
        "version": 1,
        "refusals": refusals,
        "listen": {
            "address": "127.0.0.1:0",
            "path": "/mcp",
            "allowed_hosts": list(proxy["allowed_hosts"]),
            "allowed_origins": list(proxy["allowed_origins"]),
            "max_body_bytes": proxy["max_body_bytes"],
            "head_timeout_s": HEAD_TIMEOUT_S,
            "body_timeout_s": BODY_TIMEOUT_S,
            "write_idle_timeout_s": BODY_TIMEOUT_S,
        },
        "operations": {"address": "127.0.0.1:0"},
        "upstream": {
            "url": upstream_url,
            "connect_timeout_s": 1,
            "headers": {**dict(CREDENTIALS), "Authorization": f"${{{_SECRET_VARIABLE}}}"},
            "forward_client_authorization": False,
            # What names the server's software and pods (UP-062). Without a word of ours it passes: we are transparent.
            "hide_headers": ["Server", "X-Internal-*"],
            **sections.get("upstream", {}),
        },
        "identity": dict(identity),
        "policy": dict(policy),
        "drain_s": 1,
        **{name: section for name, section in sections.items() if name != "upstream"},
    }


def command(override: str | None = None) -> list[str]:
    """How the sidecar is called: `python -m proxy`, or another build's command line."""
    return shlex.split(override) if override else [sys.executable, "-m", "tests.corpus.at_once"]


def environment() -> dict[str, str]:
    """Our environment without anything that would configure the sidecar, and with the secret it is to add."""
    foreign = ("MCP_SIDECAR_", "REDIS_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return {**kept, _SECRET_VARIABLE: _SECRET}


async def pin(argv: Sequence[str], lock_file: Path, upstream_url: str) -> None:
    """Approve what the server lists now, with the command that operators use. Raises SidecarError."""
    process = await asyncio.create_subprocess_exec(
        *argv,
        *("pin", "--upstream", upstream_url, "--file", str(lock_file)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment(),
    )
    printed = b""
    try:
        async with asyncio.timeout(_READY_S):
            printed, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
    if process.returncode != 0:
        raise SidecarError(f"the tools were not pinned: {printed[-2000:].decode('utf-8', 'replace')}")


class Lag(NamedTuple):
    """How late an event loop was at most, in seconds, and at most because it computed."""

    all_s: float
    cpu_s: float


def lag_said(log: bytes) -> Lag | None:
    """What a sidecar said of its event loop: at its end, and when it was blocked before."""
    lines = [json.loads(line) for line in log.splitlines() if b"lag" in line and line.startswith(b"{")]
    said = [
        Lag(line[names[0]], line[names[1]])
        for line in lines
        for names in (("loop_lag_max_s", "loop_lag_max_cpu_s"), ("lag_s", "cpu_s"))
        if names[0] in line
    ]
    return Lag(max(each.all_s for each in said), max(each.cpu_s for each in said)) if said else None


class Sidecar:
    """One running process and what can be seen of it from outside."""

    lags: ClassVar[dict[str, Lag]] = {}
    """By their names, the loops of those that ended in order, or were blocked: in this process, since its start."""

    def __init__(
        self,
        argv: Sequence[str],
        folder: Path,
        name: str,
        settings: Mapping[str, Any],
        out: Path | None = None,
    ) -> None:
        """`settings` are its configuration. Ports are 0 in it: it says itself which it was given. Its standard output
        is appended to `out`; None: to its log."""
        self.data_port = self.operations_port = 0
        self._argv = argv
        self._config = folder / f"{name}.yaml"
        self._log = folder / f"{name}.log"
        self._out = out or self._log
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self, probe: str = "/readyz") -> None:
        """Start and wait until a probe says yes. Raises SidecarError if it ends or 15 s pass before."""
        self._config.write_text(json.dumps(self._settings), encoding="utf-8")
        with self._log.open("ab") as log, self._out.open("ab") as out:
            mark = log.tell()
            self._process = subprocess.Popen(  # noqa: ASYNC220  # forking takes a millisecond and nothing else is timed meanwhile
                [*self._argv, "run", "--config", str(self._config)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=log,
                env=environment(),
            )
        deadline = time.monotonic() + _READY_S
        while time.monotonic() < deadline:
            if not self.alive:
                break
            if self._knows_ports(mark):
                answer = await fetch(self.operations_port, probe)
                if answer is not None and answer.status == 200:
                    return
            await asyncio.sleep(_POLL_S)
        printed = self.log_since(0)[-2000:].decode("utf-8", "replace")
        self.stop()
        raise SidecarError(f"the sidecar did not become ready; it printed: {printed}")

    def _knows_ports(self, mark: int) -> bool:
        """Whether it has said where it listens. A port chosen before it starts may be somebody else's by then."""
        if not self.data_port and (said := _STARTED.search(self.log_since(mark))) is not None:
            line = json.loads(said[0])
            self.data_port, self.operations_port = (
                urlsplit(line[name]).port or 0 for name in ("listen", "operations")
            )
        return bool(self.data_port)

    @property
    def config(self) -> Path:
        """Its settings file."""
        return self._config

    def hang_up(self) -> None:
        """HUP: it is to read its settings again."""
        assert self._process is not None
        self._process.send_signal(signal.SIGHUP)

    def terminate(self) -> None:
        """TERM, without waiting for its end: `stop` does."""
        if self._process is not None:
            self._process.terminate()

    def stop(self, *, politely: bool = True) -> None:
        """TERM, then KILL after 5 s; KILL at once where nobody looks at how it ends."""
        if self._process is None:
            return
        ledger.look("corpus log", self._log.read_bytes())
        if not politely:
            self._process.kill()
            self._process.wait(_STOP_S)
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(_STOP_S)
        self._process = None
        if (said := lag_said(self._log.read_bytes())) is not None:
            self.lags[self._log.stem] = said

    @property
    def alive(self) -> bool:
        """The process runs."""
        return self._process is not None and self._process.poll() is None

    def log_size(self) -> int:
        """Bytes written so far; a mark for `log_since`."""
        return self._log.stat().st_size

    def log_since(self, mark: int) -> bytes:
        """What was written since a mark, without the lines about the runner's own calls."""
        with self._log.open("rb") as log:
            log.seek(mark)
            written = log.read()
        lines = written.splitlines(keepends=True)
        return b"".join(line for line in lines if BARRIER_TOOL.encode() not in line)

    def rss_bytes(self) -> int:
        """Resident memory, 0 when the process is gone."""
        return status_bytes(self._process.pid, "VmRSS") if self._process is not None else 0

    def forget_peak(self) -> None:
        """From now on its peak is measured anew. Source: proc(5), clear_refs."""
        if self._process is not None:
            Path(f"/proc/{self._process.pid}/clear_refs").write_text("5", encoding="ascii")

    def peak_rss_bytes(self) -> int:
        """The most resident memory since `forget_peak`, 0 when the process is gone."""
        return status_bytes(self._process.pid, "VmHWM") if self._process is not None else 0

    def open_fds(self) -> int:
        """Open file descriptors, 0 when the process is gone."""
        try:
            return len(os.listdir(f"/proc/{self._process.pid}/fd")) if self._process is not None else 0
        except OSError:
            return 0


def status_bytes(pid: int, field: str) -> int:
    """A size of /proc/PID/status in bytes; 0 when the process is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:")), 0)


def unread_bytes(port: int) -> int:
    """Bytes that arrived at the other ends of connections to a local port and were not read there yet."""
    return _unread(2, port)


def unread_bytes_at(port: int) -> int:
    """Bytes that arrived on connections to a local port and were not read by whoever listens there."""
    return _unread(1, port)


def _unread(column: int, port: int) -> int:
    lines = Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]
    fields = (line.split() for line in lines)
    return sum(int(one[4].split(":")[1], 16) for one in fields if int(one[column].split(":")[1], 16) == port)


async def metrics_of(port: int) -> bytes | None:
    """What it counts now. A page is told for a second, and no other one is the same: clocks are on it. Where nobody
    asked in that second, what is told is new."""
    is_new = time.monotonic() - _told.get(port, -math.inf) > FRESH_S
    found = await fetch(port, _METRICS)
    if found is not None and found.status == 200 and not is_new:
        stale = found.body
        async with asyncio.timeout(10):
            while found is not None and found.body == stale:
                await asyncio.sleep(_POLL_S)
                found = await fetch(port, _METRICS)
    return None if found is None or found.status != 200 else found.body


async def fetch(port: int, path: str, timeout_s: float = 3.0) -> Message | None:
    """GET a path of the operations port; None when nothing answers."""
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
                data = await reader.read(-1)
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return None
    finally:
        if path == _METRICS:
            _told[port] = time.monotonic()
    ledger.look("operations port", data)
    answers, _ = read_answers(data, closed=True)
    return answers[0] if answers else None
