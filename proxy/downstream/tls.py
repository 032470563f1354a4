"""With which certificates is TLS spoken, and which clients' are believed? Settings and their files → a context.

A context never changes once it is made: other files make another one, with other keys for session tickets, so that
nobody resumes what an older one has verified. Sources: RFC 8446, RFC 9325 (recommendations for TLS), RFC 7301.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Final

from ..configuration.mistakes import Unfit, shown
from .settings import TlsSettings

MAX_FILE_BYTES: Final = 1_048_576
"""A bundle of every public authority has a quarter of this."""
LONGEST_PATH: Final = 4096
"""Shown in full: whoever has to find the file needs all of it."""

_VERSIONS: Final = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20:@SECLEVEL=2"
"""For TLS 1.2: forward secrecy and authenticated encryption only (RFC 9325 section 4.2); RSA from 2048 bits on.
Those of TLS 1.3 are all of this kind."""
_MISMATCH: Final = frozenset(("KEY_VALUES_MISMATCH", "NO_CERTIFICATE_ASSIGNED"))
"""Of one type, and of two."""

ReadFile = Callable[[str, int], bytes]
"""(path, most bytes) → content; raises Unfit."""


class Unusable(Exception):
    """A file that TLS cannot be spoken with: which, why, and what to do. Holds nothing of its content."""

    def __init__(self, setting: str, file: str, unfit: Unfit) -> None:
        super().__init__(setting, file, unfit)
        self.setting = setting
        """The name of the setting: `listen.tls.key_file`."""
        self.file = file
        self.unfit = unfit

    def __str__(self) -> str:
        unfit = self.unfit
        return f"{self.setting}: {shown(self.file, LONGEST_PATH)} {unfit.what}, {unfit.why}, {unfit.remedy}"


def files_of(settings: TlsSettings) -> tuple[str, ...]:
    """The paths whose change asks for another context."""
    named = (settings.certificate_file, settings.key_file, settings.client_ca_file)
    return tuple(path for path in named if path is not None)


def context_of(settings: TlsSettings, read: ReadFile) -> ssl.SSLContext:
    """What handshakes are made with from now on. Raises Unusable. IO: reads the files of the settings."""
    # Not ssl.create_default_context: that trusts the system's authorities and logs keys where the environment asks.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[settings.minimum_version]
    context.set_ciphers(_CIPHERS)
    context.set_alpn_protocols(["http/1.1"])
    # Python itself switches compression off, and lets us choose the cipher.
    context.options |= ssl.OP_NO_RENEGOTIATION
    _load_own(context, settings, read)
    if settings.client_ca_file is not None:
        _load_authorities(context, settings.client_ca_file, read)
        is_optional = settings.client_certificate == "optional"
        context.verify_mode = ssl.CERT_OPTIONAL if is_optional else ssl.CERT_REQUIRED
    return context


def _load_own(context: ssl.SSLContext, settings: TlsSettings, read: ReadFile) -> None:
    """Our certificate and its key. OpenSSL does not say which of the two files it dislikes: we look first."""
    certificate, key = settings.certificate_file, settings.key_file
    _certificates("listen.tls.certificate_file", certificate, read)
    try:
        _look(key, read)
        # Without a password of ours OpenSSL would ask on the terminal, and wait.
        context.load_cert_chain(certificate, key, password=_no_password)
    except Unfit as unfit:
        raise Unusable("listen.tls.key_file", key, unfit) from None
    except ssl.SSLError as error:
        if error.reason in _MISMATCH:
            what = f"is not the key of {shown(certificate, LONGEST_PATH)}"
            mismatch = Unfit(what, "the two files do not belong together", "write both anew")
            raise Unusable("listen.tls.key_file", key, mismatch) from None
        if error.reason is None:
            raise Unusable("listen.tls.key_file", key, _holds_no("private key")) from None
        why = error.reason.lower().replace("_", " ")
        weak = Unfit("is refused by OpenSSL", why, "issue a certificate of today's strength")
        raise Unusable("listen.tls.certificate_file", certificate, weak) from None
    except OSError as error:
        why = error.strerror or "the system refused"
        gone = Unfit("cannot be read", why, "check the path and its permissions")
        raise Unusable("listen.tls.key_file", key, gone) from None


def _no_password() -> str:
    remedy = "write it without a password, readable for this process alone"
    raise Unfit("is encrypted", "nobody is there to type its password", remedy)


def _load_authorities(context: ssl.SSLContext, file: str, read: ReadFile) -> None:
    setting = "listen.tls.client_ca_file"
    context.load_verify_locations(cadata=_certificates(setting, file, read))
    held = context.cert_store_stats()
    if held["x509_ca"] < held["x509"]:
        why, remedy = "whoever has its key would be believed", "list certificate authorities only"
        raise Unusable(setting, file, Unfit("holds a certificate that is no authority's", why, remedy))
    # An authority between a root and its clients may be trusted alone, without everything else of that root.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN


def _certificates(setting: str, file: str, read: ReadFile) -> str:
    """The text of a file that holds at least one certificate."""
    try:
        text = _look(file, read)
    except Unfit as unfit:
        raise Unusable(setting, file, unfit) from None
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(cadata=text)
    except (ssl.SSLError, ValueError):
        raise Unusable(setting, file, _holds_no("certificate")) from None
    return text


def _look(file: str, read: ReadFile) -> str:
    """What the file says. Beside the armour of PEM anything may be written, in any encoding."""
    return read(file, MAX_FILE_BYTES).decode("ascii", "backslashreplace")


def _holds_no(what: str) -> Unfit:
    return Unfit(f"holds no {what}", "one in PEM form is needed", "is it the right file?")
