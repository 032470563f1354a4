"""How are spans sent to a collector? By OTLP over HTTP, as protobuf. Needs the extra [otlp].

In: the settings. Out: an exporter. Keeps one session of `requests`, which believes no environment: neither its proxies
nor its passwords.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import requests
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

from .traces_settings import ENDPOINT, TracesSettings

PATH = "/v1/traces"


class Collector:
    """Where spans go."""

    def __init__(self, settings: TracesSettings) -> None:
        self._headers = dict(settings.headers)
        self._session = _Session()
        self._set_headers()
        self.exporter = OTLPSpanExporter(
            endpoint_of(settings),
            certificate_file=settings.ca_file,
            timeout=settings.timeout_s,
            compression=Compression.NoCompression,
            session=self._session,
        )

    @property
    def files(self) -> tuple[str, ...]:
        """Those that values of headers come from."""
        return tuple(dict.fromkeys(file for secret in self._headers.values() for file in secret.files))

    def renew(self) -> None:
        """Read the headers again. Raises Unfit, and keeps the old ones."""
        self._headers = {name: secret.renewed() for name, secret in self._headers.items()}
        self._set_headers()

    def why(self) -> str | None:
        """What became of the last export that failed: a status, or the kind of an error. Never its text."""
        return self._session.why

    def _set_headers(self) -> None:
        self._session.fields = {name: secret.reveal() for name, secret in self._headers.items()}


class _Session(requests.Session):
    def __init__(self) -> None:
        super().__init__()
        self.trust_env = False
        self.fields: dict[str, str] = {}
        self.why: str | None = None

    def request(  # type: ignore[override]  # as the exporter calls it
        self, method: Any, url: Any, *, headers: Any = None, **params: Any
    ) -> requests.Response:
        try:
            # Streamed, and its body not read: nobody looks at it, and it might never end.
            response = super().request(method, url, headers={**headers, **self.fields}, stream=True, **params)
        except Exception as error:
            self.why = type(error).__name__
            raise
        response.close()
        self.why = None if response.status_code < 300 else f"status {response.status_code}"
        if 300 <= response.status_code < 400:
            raise requests.TooManyRedirects  # the exporter would take it for a yes, and nothing has arrived
        return response


def endpoint_of(settings: TracesSettings) -> str:
    """The URL that spans are posted to."""
    url = settings.endpoint or ENDPOINT
    parts = urlsplit(url)
    return parts._replace(path=PATH).geturl() if parts.path in ("", "/") else url
