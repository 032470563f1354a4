"""What does a corpus file ask for? YAML text → Corpus, or CorpusError: nothing in it is guessed or skipped.

The format is described at the top of attack-corpus.yaml. A key this module does not know is an error: a case
that asks for something the runner does not do must not pass by being ignored.
"""

import base64
import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from msgspec import Struct


class CorpusError(Exception):
    """The corpus asks for something the runner cannot do, or cannot read. Never a verdict on the sidecar."""


class Request(Struct, frozen=True, kw_only=True):
    """What the client sends; placeholders are still in it."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes | None
    """The content, or None when the request has none (or is `raw`, or is generated)."""
    body_gen: str | None
    """An expression whose value is the content; evaluated when the case runs, not when the file is read."""
    raw: bytes | None
    """The whole request as it goes on the wire, or None."""
    send: str | None
    """How it is sent, in the corpus' own words; None means: whole, then wait for the answer."""
    port: str
    """"data" or "admin"."""

    @property
    def content(self) -> bytes | None:
        """The body, generated if need be. Raises CorpusError for an expression that cannot be evaluated."""
        return self.body if self.body_gen is None else generate(self.body_gen)


class Expect(Struct, frozen=True, kw_only=True):
    """What must, and must not, be seen."""

    status: tuple[int, ...]
    """Allowed HTTP statuses of the first answer; empty asserts none."""
    jsonrpc_error: tuple[int | None, ...] | None
    """Allowed JSON-RPC error codes; None in it: no error object is fine too. None: not asserted."""
    upstream_must_not_see: bool
    must_not: tuple[str, ...]
    also: tuple[str, ...]
    outcome: tuple[str, ...]
    """Clauses of the outcome sentence, split at the semicolons."""


class Case(Struct, frozen=True, kw_only=True):
    """One hostile request, answer or configuration."""

    id: str
    category: str
    title: str
    request: Request
    expect: Expect
    setup: tuple[str, ...]
    then: tuple[str, ...]
    upstream: Mapping[str, Any] | None
    """Scripted upstream answer; None: the fake upstream answers as its tools do."""
    note: str = ""

    def texts(self) -> tuple[str, ...]:
        """Every sentence of the case that needs a checker."""
        return self.expect.must_not + self.expect.also + self.expect.outcome

    def asserted(self) -> tuple[str, ...]:
        """Everything the case asserts: the names of the fields it uses, then its sentences."""
        # Nothing is sent upstream by a configuration: there is nothing it could see.
        sees = self.expect.upstream_must_not_see and self.category != "config"
        fields = {
            "status": bool(self.expect.status),
            "jsonrpc_error": self.expect.jsonrpc_error is not None,
            "upstream_must_not_see": sees,
        }
        return (*(name for name, is_used in fields.items() if is_used), *self.texts())


class Corpus(Struct, frozen=True, kw_only=True):
    """A corpus file: its fixture and its cases, in file order."""

    fixture: Mapping[str, Any]
    tokens: Mapping[str, Mapping[str, Any]]
    cases: tuple[Case, ...]


_CASE_KEYS = frozenset(
    {"id", "category", "title", "request", "expect", "setup", "then", "upstream", "note", "measured"}
)
_REQUEST_KEYS = frozenset(
    {
        "method",
        "path",
        "headers",
        "body",
        "body_base64",
        "body_parts",
        "body_gen",
        "raw_base64",
        "raw_parts",
        "send",
        "port",
    }
)
_EXPECT_KEYS = frozenset({"status", "jsonrpc_error", "upstream_must_not_see", "must_not", "also", "outcome"})


def read_corpus(path: Path) -> Corpus:
    """The corpus in a file. Raises CorpusError when it is not in the format, or a case id appears twice."""
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise CorpusError(f"{path}: cannot be read: {error}") from error
    if not isinstance(document, dict) or document.get("version") != 1:
        raise CorpusError(f"{path}: not a corpus of version 1")
    cases = tuple(read_case(raw) for raw in document["cases"])
    seen: set[str] = set()
    for case in cases:
        if case.id in seen:
            raise CorpusError(f"{path}: {case.id} appears twice")
        seen.add(case.id)
    return Corpus(fixture=document["fixture"], tokens=document["tokens"], cases=cases)


def read_case(raw: Mapping[str, Any]) -> Case:
    """One entry of `cases`. Raises CorpusError for a key or a form the format does not have."""
    name = str(raw.get("id"))
    _only(raw, _CASE_KEYS, name)
    expect = raw["expect"]
    _only(expect, _EXPECT_KEYS, name)
    codes = expect.get("jsonrpc_error")
    return Case(
        id=name,
        category=raw["category"],
        title=raw["title"],
        request=_request(raw["request"], name),
        expect=Expect(
            status=tuple(expect.get("status") or ()),
            jsonrpc_error=None if codes is None else tuple(codes),
            upstream_must_not_see=bool(expect.get("upstream_must_not_see")),
            must_not=_sentences(expect.get("must_not")),
            also=_sentences(expect.get("also")),
            outcome=tuple(
                clause for text in _sentences(expect.get("outcome")) for clause in text.split("; ")
            ),
        ),
        setup=_sentences(raw.get("setup")),
        then=_sentences(raw.get("then")),
        upstream=raw.get("upstream"),
        note=str(raw.get("note") or ""),
    )


def _request(raw: Mapping[str, Any], name: str) -> Request:
    _only(raw, _REQUEST_KEYS, name)
    headers = raw.get("headers") or {}
    if not all(isinstance(text, str) for pair in headers.items() for text in pair):
        raise CorpusError(f"{name}: header names and values must be texts")
    if "raw_base64" in raw:
        whole: bytes | None = base64.b64decode(raw["raw_base64"], validate=True)
    elif "raw_parts" in raw:
        whole = b"".join(text.encode("latin-1") * times for text, times in raw["raw_parts"])
    else:
        whole = None
    return Request(
        method=raw["method"],
        path=raw.get("path", "/mcp"),
        headers=headers,
        body=None if whole is not None else _body(raw),
        body_gen=raw.get("body_gen"),
        raw=whole,
        send=raw.get("send"),
        port=raw.get("port", "data"),
    )


def _body(raw: Mapping[str, Any]) -> bytes | None:
    if "body" in raw:
        return str(raw["body"]).encode("utf-8")
    if "body_base64" in raw:
        return base64.b64decode(raw["body_base64"], validate=True)
    if "body_parts" in raw:
        return b"".join(text.encode("utf-8") * times for text, times in raw["body_parts"])
    return None


def generate(expression: str) -> bytes:
    """The value of a `body_gen` expression; `call`, `rpc`, `gzip` and `json` are in scope.

    The corpus is the project's own data, or a file its operator named: evaluating it is running a test.
    """
    scope = {
        "__builtins__": {"range": range, "len": len, "str": str},
        "call": _call,
        "rpc": _rpc,
        "gzip": gzip,
        "json": json,
    }
    try:
        value = eval(expression, scope)
    except Exception as error:
        raise CorpusError(f"body_gen cannot be evaluated: {error}") from error
    return value if isinstance(value, bytes) else str(value).encode("utf-8")


def _call(name: str, arguments: str) -> str:
    return _rpc("tools/call", f'{{"name":{json.dumps(name)},"arguments":{arguments}}}')


def _rpc(method: str, params: str = "{}") -> str:
    return f'{{"jsonrpc":"2.0","id":1,"method":{json.dumps(method)},"params":{params}}}'


def _sentences(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    return tuple(value) if isinstance(value, list) else (str(value),)


def _only(raw: Mapping[str, Any], known: frozenset[str], name: str) -> None:
    if unknown := sorted(set(raw) - known):
        raise CorpusError(f"{name}: the format has no {', '.join(unknown)}")
