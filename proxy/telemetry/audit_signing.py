"""Who vouches for checkpoints? An Ed25519 key in a file.

In: paths. Out: signatures, and what checks them. Keeps the keys. Source: RFC 8032 (Ed25519), RFC 8410 (its PEM).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from hashlib import sha256
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ..configuration.files import REFERENCED_FILE_BYTES, read_bounded
from ..configuration.mistakes import Unfit
from .audit_verifier import IsSigned

_NAME_DIGITS: Final = 16
_KIND: Final = "is no Ed25519 key"


class Signer:
    """A private key."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.name = name_of(key.public_key())
        """Names the key in checkpoints."""

    def __call__(self, text: bytes) -> bytes:
        return self._key.sign(text)


def name_of(key: Ed25519PublicKey) -> str:
    """16 hexadecimal digits of SHA-256 over the raw public key."""
    return sha256(key.public_bytes_raw()).hexdigest()[:_NAME_DIGITS]


def read_signer(path: str) -> Signer:
    """The private key (PEM, not encrypted) in a file. Raises Unfit. IO."""
    why, remedy = "checkpoints are signed with it", "make one with mcp-sidecar audit keygen"
    try:
        key = serialization.load_pem_private_key(read_bounded(path, REFERENCED_FILE_BYTES), password=None)
    except Unfit:
        raise
    except Exception:  # its texts may quote the file
        raise Unfit(_KIND, why, remedy) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise Unfit(_KIND, why, remedy)
    return Signer(key)


def read_verifying(paths: Sequence[str]) -> IsSigned:
    """Whether one of the public keys (PEM) in these files signed something. Raises Unfit. IO."""
    keys: dict[str, Ed25519PublicKey] = {}
    for path in paths:
        why, remedy = (
            "signatures are checked with it",
            "give the .pub file that mcp-sidecar audit keygen wrote",
        )
        try:
            key = serialization.load_pem_public_key(read_bounded(path, REFERENCED_FILE_BYTES))
        except Unfit:
            raise
        except Exception:
            raise Unfit(_KIND, why, remedy) from None
        if not isinstance(key, Ed25519PublicKey):
            raise Unfit(_KIND, why, remedy)
        keys[name_of(key)] = key

    def is_signed(name: str, signature: bytes, text: bytes) -> bool:
        key = keys.get(name)
        if key is None:
            return False
        try:
            key.verify(signature, text)
        except InvalidSignature:
            return False
        return True

    return is_signed


def make_key(path: str) -> str:
    """Write a new private key to `path`, for its owner only, and the public one to `path`.pub; neither is written over.
    Returns the key's name. Raises OSError. IO."""
    key = Ed25519PrivateKey.generate()
    public = key.public_key()
    private_pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public_pem = public.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    _write_new(path, private_pem, 0o600)
    _write_new(f"{path}.pub", public_pem, 0o644)
    return name_of(public)


def _write_new(path: str, content: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
