"""What does the identity provider say? Its URL → bytes, or `Unavailable`.

In: a URL from our settings, never one out of a token. Out: the body of an answer with status 200, not yet
believed. Keeps one aiohttp session, opened when it is first needed. Sources: RFC 6749 section 2.3.1 (our own
credential), RFC 9111 section 5.2.2.1 (max-age).
"""

from __future__ import annotations

import asyncio
import base64
import re
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final
from urllib.parse import quote_plus, urlencode

import aiohttp
from yarl import URL

from ..authorities import system_authorities
from ..model import Took, nobody_counts
from ..secret import Secret

MAX_BYTES: Final = 262_144
"""Key sets of large issuers stay below 30 KB; what is longer is no key set and no verdict."""
FETCH_TIMEOUT_S: Final = 5.0
CONNECT_TIMEOUT_S: Final = 2.0
"""A provider whose packets vanish is noticed soon, so that its return is, too."""

_MAX_AGE: Final = re.compile(r"(?:^|,)\s*max-age=\"?([0-9]{1,9})\"?\s*(?:,|$)", re.IGNORECASE)


class Unavailable(Exception):
    """The provider gave no answer that could be read. `args[0]`: why, in fixed words, for our own records."""


class Provider:
    """Asks identity providers, each within a total time. Used inside one running loop."""

    def __init__(
        self,
        *,
        tls: ssl.SSLContext | None = None,
        fetch_timeout_s: float = FETCH_TIMEOUT_S,
        trace_configs: Sequence[aiohttp.TraceConfig] = (),
        took: Took = nobody_counts,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`tls`: whom to trust; absent, the certificates the system trusts. `trace_configs` record what is asked;
        `took` hears of "jwks" and "introspection"."""
        self._took = took
        self._now = now
        self._tls = tls or system_authorities()
        self._fetch_timeout_s = fetch_timeout_s
        self._trace_configs = list(trace_configs)
        self._session: aiohttp.ClientSession | None = None
        self._is_closed = False

    async def fetch(self, url: str) -> tuple[bytes, float | None]:
        """GET a document: its bytes, and for how many seconds its sender calls it fresh, if it says so.

        Raises Unavailable.
        """
        body, cache_control = await self._timed("jwks", "GET", url, {}, None, self._fetch_timeout_s)
        return body, _max_age_s(cache_control)

    async def ask(
        self, url: str, form: Mapping[str, str], *, user: str, secret: Secret, timeout_s: float
    ) -> bytes:
        """POST a form with our own credential (HTTP Basic); the answer's bytes. Raises Unavailable."""
        fields = {
            "Authorization": _basic(user, secret),
            "Content-Type": "application/x-www-form-urlencoded",
        }
        form_bytes = urlencode(form).encode()
        body, _ = await self._timed("introspection", "POST", url, fields, form_bytes, timeout_s)
        return body

    async def close(self) -> None:
        """Ask nobody any more."""
        self._is_closed = True
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _timed(
        self, who: str, method: str, url: str, fields: Mapping[str, str], form: bytes | None, timeout_s: float
    ) -> tuple[bytes, str]:
        began = self._now()
        try:
            return await self._exchange(method, url, fields, form, timeout_s)
        finally:
            self._took(who, self._now() - began)

    async def _exchange(
        self, method: str, url: str, fields: Mapping[str, str], form: bytes | None, timeout_s: float
    ) -> tuple[bytes, str]:
        """Body and Cache-Control of an answer."""
        try:
            # One bound for everything, from the look-up of the name to the last byte: a peer that drips one
            # byte a second never runs into a timeout between two reads.
            async with (
                asyncio.timeout(timeout_s),
                self._opened().request(
                    method,
                    # As it was checked: yarl would decode and encode it anew.
                    URL(url, encoded=True),
                    headers={"Accept": "application/json", "Accept-Encoding": "identity", **fields},
                    data=form,
                    # A redirect would let the answer of a provider's open redirector decide who is let in.
                    allow_redirects=False,
                    ssl=self._tls,
                ) as response,
            ):
                _check_head(response)
                return await _read(response.content), ",".join(response.headers.getall("Cache-Control", []))
        except TimeoutError as error:
            raise Unavailable("timeout") from error
        except aiohttp.ClientSSLError as error:
            raise Unavailable("certificate") from error
        except aiohttp.ClientConnectorError as error:
            raise Unavailable("not reached") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise Unavailable("connection broke") from error

    def _opened(self) -> aiohttp.ClientSession:
        if self._is_closed:
            raise Unavailable("closed")
        if self._session is None:
            session = aiohttp.ClientSession(
                # One connection per question. On a kept one, bytes that came unasked are taken for the answer
                # to the next question (aiohttp's issue 13656): a yes about another token. A question also
                # never meets the closing of an idle connection. How many there are is for the askers to bound.
                connector=aiohttp.TCPConnector(limit=0, force_close=True),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
                headers={"User-Agent": "mcp-sidecar"},
                trace_configs=self._trace_configs,
            )
            # Else a GET whose connection broke is sent again at once: twice what the asker's pace allows.
            session._retry_connection = False
            self._session = session
        return self._session


def _check_head(response: aiohttp.ClientResponse) -> None:
    if 300 <= response.status < 400:
        raise Unavailable("redirect")
    if response.status != 200:
        raise Unavailable(f"status {response.status}")
    if response.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        # We did not ask for it, and a few bytes of it may stand for gigabytes.
        raise Unavailable("compressed")
    if response.content_length is not None and response.content_length > MAX_BYTES:
        raise Unavailable("too large")


async def _read(content: aiohttp.StreamReader) -> bytes:
    body = bytearray()
    async for chunk in content.iter_any():
        body += chunk
        if len(body) > MAX_BYTES:
            raise Unavailable("too large")
    return bytes(body)


def _basic(user: str, secret: Secret) -> str:
    """Both parts are form-urlencoded first, which many clients forget: a colon or umlaut would else break it."""
    pair = f"{quote_plus(user)}:{quote_plus(secret.reveal())}"
    return f"Basic {base64.b64encode(pair.encode()).decode()}"


def _max_age_s(cache_control: str) -> float | None:
    found = _MAX_AGE.search(cache_control)
    return float(found[1]) if found else None
