"""By which key does the server know a call again? One for all attempts, from the caller or made by us.

In: a permit whose rule asks for it. Out: the permit of the same call with the key, in the header Idempotency-Key and
in `_meta`. Keeps nothing. Source: draft-ietf-httpapi-idempotency-key-header (a structured string, so quoted); MCP has
no name for it in `_meta`, so it is one of ours.

The server gets no key as the caller chose it, but a digest of that and of who the caller is: a server keeps what it
answered by key, and whoever sent another tenant's key would be told that tenant's answer. The same caller's same key
is the same digest, in every replica and after every restart.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from hashlib import sha256
from typing import Final

import msgspec
from msgspec import structs

from ..model import Call, Headers, Kind, Permit, Reason, Refused
from ..protocol.splice import with_meta

HEADER: Final = "idempotency-key"
META_KEY: Final = "dev.mcp-sidecar/idempotency-key"
ALTERED: Final = "idempotency key"

_QUOTED: Final = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\])*)"')
_ESCAPED: Final = re.compile(r'\\(["\\])')
_KEY: Final = re.compile(r"[ -~]{1,255}")


def keyed(permit: Permit, made: Callable[[], str]) -> Permit:
    """The permit of the same call with a key; itself where its rule asks for none. `made` makes a new one. Raises
    Refused where it came with what is no key, or with two."""
    call = permit.call
    if not permit.rule.idempotency_key or call.method != "tools/call" or call.kind is not Kind.REQUEST:
        return permit
    key = _scoped(permit, _given(call) or made())
    call.journey.altered(ALTERED)
    call.journey.known_as(idempotency_key=key)
    fields = [pair for pair in call.headers.pairs if pair[0].lower() != HEADER.encode()]
    headers = Headers([*fields, (b"Idempotency-Key", f'"{key}"'.encode())])
    body = with_meta(call.body, {META_KEY: key})
    return structs.replace(permit, call=structs.replace(call, headers=headers, body=body))


def _given(call: Call) -> str | None:
    """The caller's own key. Raises Refused."""
    told = [_unquoted(value.strip(" \t")) for value in call.headers.all(HEADER)]
    meta = call.params.get("_meta")
    if isinstance(meta, dict) and META_KEY in meta:
        told.append(meta[META_KEY])
    for key in told:
        if not isinstance(key, str) or not _KEY.fullmatch(key):
            raise Refused(Reason.MALFORMED, "Its idempotency key is no text of 1 to 255 ASCII characters.")
        if key != told[0]:
            raise Refused(Reason.MALFORMED, "It has two idempotency keys.")
    return told[0] if told else None


def _unquoted(value: str) -> str | None:
    """Many clients send it bare."""
    if not value.startswith('"'):
        return value
    quoted = _QUOTED.fullmatch(value)
    return None if quoted is None else _ESCAPED.sub(r"\1", quoted[1])


def _scoped(permit: Permit, key: str) -> str:
    return sha256(msgspec.json.encode((*permit.principal.identity, key))).hexdigest()
