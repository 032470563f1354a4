"""Evidence nobody gathered: the smallest that honours a sentence, and changes that break it."""

import json
from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from tests.corpus.cases import Case, read_case
from tests.corpus.evidence import Attempt, ConfigRun, Evidence, Limits
from tests.corpus.wire import Message, read_message

CREDENTIALS = (("Authorization", "Bearer made-up"),)
METADATA = "https://proxy.test/.well-known/oauth-protected-resource/mcp"
CALL = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "tools/call",
    "params": {"name": "echo", "arguments": {"a": "b"}},
}
LIMITS = Limits(
    head_timeout_s=1.0,
    body_timeout_s=1.5,
    slack_s=1.0,
    fixture_head_timeout_s=10.0,
    fixture_body_timeout_s=30.0,
    stream_grace_s=1.0,
)


def case(**expect: Any) -> Case:
    """A case that expects a refusal with 400, or what is given."""
    return read_case(
        {
            "id": "MADE-UP",
            "category": "json",
            "title": "made up",
            "request": {"method": "POST", "path": "/mcp", "headers": {}, "body": ""},
            "expect": {"status": [400], "upstream_must_not_see": True, **expect},
        }
    )


def request(*lines: str, body: Any = None, method: str = "POST", tail: bytes = b"") -> bytes:
    """A request's bytes; `body` is JSON unless it is bytes."""
    content = body if isinstance(body, bytes) else json.dumps(CALL if body is None else body).encode()
    length = (
        ()
        if any(line.startswith("Transfer-Encoding") for line in lines)
        else (f"Content-Length: {len(content)}",)
    )
    head = "\r\n".join([f"{method} /mcp HTTP/1.1", "Host: proxy.test", *lines, *length])
    return head.encode("latin-1") + b"\r\n\r\n" + content + tail


def seen(*lines: str, body: Any = None, method: str = "POST") -> dict[str, Any]:
    """The change to Evidence: upstream received this request."""
    raw = request(*lines, body=body, method=method)
    message = read_message(raw, answers=False)
    assert message is not None
    return {"upstream": (message,), "upstream_bytes": raw}


def permitted(*lines: str) -> dict[str, Any]:
    """The change to Evidence: upstream received this of a call that may pass."""
    return {"permitted": seen(*lines)["upstream"]}


def answered(status: int, document: Any = None, *, content_type: str = "application/json") -> dict[str, Any]:
    """The change to Evidence: this was the only answer."""
    message = answer(status, document, content_type=content_type)
    return {"answers": (message,), "received": message.raw}


def challenged(status: int, challenge: str, *fields: str) -> dict[str, Any]:
    """The change to Evidence: the only answer had this WWW-Authenticate, and further fields."""
    message = answer(status, refusal("no_credential"), f"WWW-Authenticate: {challenge}", *fields)
    return {"answers": (message,), "received": message.raw}


def answer(
    status: int, document: Any = None, *fields: str, content_type: str = "application/json"
) -> Message:
    """An answer with a JSON body, or with these bytes, and further fields."""
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    lines = (f"Content-Type: {content_type}", *fields, f"Content-Length: {len(body)}")
    head = "\r\n".join((f"HTTP/1.1 {status} X", *lines))
    message = read_message(head.encode() + b"\r\n\r\n" + body, answers=True)
    assert message is not None
    return message


def refusal(reason: str, code: int = -32600, id: Any = 1) -> dict[str, Any]:
    """The sidecar's error object in a JSON-RPC answer."""
    error = {"code": code, "message": "no", "data": {"origin": "proxy", "reason": reason}}
    return {"jsonrpc": "2.0", "id": id, "error": error}


def refused_result(reason: str, id: Any = 1) -> dict[str, Any]:
    """The sidecar's no as a result the model can read."""
    meta = {"dev.mcp-sidecar/refusal": {"reason": reason}}
    result = {"content": [{"type": "text", "text": "no"}], "isError": True, "_meta": meta}
    return {"jsonrpc": "2.0", "id": id, "result": result}


def listed(*tools: Mapping[str, Any]) -> dict[str, Any]:
    """The change to Evidence: these tools were shown."""
    return answered(200, {"jsonrpc": "2.0", "id": 1, "result": {"tools": list(tools)}})


def told(tool: str, *flags: str, **members: Any) -> bytes:
    """A line of the log about what is odd of a tool."""
    said = {"tenant": "a", "principal": "alice", "state": "unwatched", "changes": [], "action": "report"}
    return json.dumps({"msg": "odd", "tool": tool, "flags": list(flags), **said, **members}).encode() + b"\n"


def attempt(**changes: Any) -> Attempt:
    """A call of a tool that was not listed, refused."""
    return replace(Attempt(who="alice", tool="echo", listed=0, status=403, arrived=0), **changes)


def config_run(**changes: Any) -> ConfigRun:
    """A start that was refused as it should be."""
    good = ConfigRun(
        command="check",
        file="config.yaml",
        keys=("alow",),
        has_lines=True,
        exit_code=2,
        output="/tmp/config.yaml:1:9: tools.alow: unknown key",
        peak_rss_growth_bytes=1 << 20,
    )
    return replace(good, **changes)


def evidence(**changes: Any) -> Evidence:
    """A call that was refused with 400 at once, nothing forwarded, connection closed; with changes."""
    good = Evidence(
        case=case(),
        form="http",
        limits=LIMITS,
        sent=request(),
        **answered(400, refusal("malformed")),
        closed=True,
        held_s=0.1,
        first_answer_s=0.01,
        upstream=(),
        upstream_bytes=b"",
        credentials=CREDENTIALS,
        resource_metadata=METADATA,
    )
    return replace(good, **changes)
