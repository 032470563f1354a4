"""Whose certificates are trusted where nobody says otherwise? Those of the system's authorities, read once, when they
are needed first. Keeps them.
"""

from __future__ import annotations

import functools
import os
import ssl
from typing import Final

_WHERE_THEY_ARE: Final = ("SSL_CERT_FILE", "SSL_CERT_DIR")
"""What OpenSSL asks of the environment."""


@functools.cache
def system_authorities() -> ssl.SSLContext:
    """For clients over TLS. IO: reads files, for 20 ms."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


def import_aiohttp() -> None:
    """Import it without the authorities of the system, which it would read twice: 40 ms, and 2 MB for as long as the
    process lives, also where nobody is ever asked over TLS. What it trusts by default is then nobody: whoever opens a
    session gives it `system_authorities`. Before there are threads: they would see another environment.
    """
    before = {name: os.environ.get(name) for name in _WHERE_THEY_ARE}
    os.environ.update(dict.fromkeys(_WHERE_THEY_ARE, os.devnull))
    try:
        import aiohttp  # noqa: F401
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
