"""Callers with API keys, for tests in which it matters who calls.

In: who there is. Out: the setting that lets them in, and the header each presents.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path

from proxy.identity.api_key import hash_of
from proxy.identity.keys_file import HASH_PREFIX

_PEPPER = b"a pepper for tests, 32 bytes long"
Who = tuple[str, str, Sequence[str]]
"""Tenant, subject, roles."""


def let_in(folder: Path, people: Mapping[str, Who]) -> str:
    """The authenticator for whoever presents these keys, as `--set` takes it. Writes the keys file."""
    keys = []
    for presented, (tenant, subject, roles) in people.items():
        id, _, secret = presented.partition(".")
        hashed = HASH_PREFIX + hash_of(_PEPPER, secret).hex()
        keys.append({"id": id, "hash": hashed, "tenant": tenant, "subject": subject, "roles": list(roles)})
    file = folder / "keys.json"
    pepper = urlsafe_b64encode(_PEPPER).decode()
    file.write_text(json.dumps({"version": 1, "pepper": pepper, "keys": keys}), encoding="utf-8")
    return f"identity.authenticators={json.dumps([{'kind': 'api_key', 'keys_file': str(file)}])}"


def key(presented: str) -> tuple[str, str]:
    """The header field."""
    return ("X-API-Key", presented)
