"""The context of a handshake: what it speaks, whom it believes, and which files it cannot be made of."""

from __future__ import annotations

import datetime
import ipaddress
import os
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID

from proxy.configuration.files import read_bounded
from proxy.downstream.settings import TlsSettings
from proxy.downstream.tls import Unusable, context_of, files_of
from tests.certificates import HOUR, Authority, Issued, a_name

SERVERS = Authority("servers")
CLIENTS = Authority("clients")
OTHERS = Authority("clients")
"""Another authority of the same name."""
OWN = SERVERS.issue(a_name(CN="sidecar"), names=[x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
CLIENT = CLIENTS.issue(a_name(CN="billing"))

Spoil = Callable[["Files"], object]


class Files:
    """Settings and their files in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.certificate, self.key = OWN.written(folder, "own")
        self.clients = folder / "clients.pem"
        self.clients.write_bytes(CLIENTS.pem)

    def settings(self, **others: object) -> TlsSettings:
        return TlsSettings(certificate_file=str(self.certificate), key_file=str(self.key), **others)  # type: ignore[arg-type]  # the names of fields

    def context(self, **others: object) -> ssl.SSLContext:
        return context_of(self.settings(**others), read_bounded)

    def mutual(self, **others: object) -> ssl.SSLContext:
        return self.context(client_ca_file=str(self.clients), **others)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def client_context(folder: Path, issued: Issued | None = None, chain: bytes = b"") -> ssl.SSLContext:
    """What a client shakes hands with."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=SERVERS.pem.decode())
    if issued is not None:
        certificate, key = issued.written(folder, "client")
        certificate.write_bytes(issued.pem + chain)
        context.load_cert_chain(certificate, key)
    return context


class Hands:
    """A client and a server that talk in memory."""

    def __init__(
        self, server: ssl.SSLContext, client: ssl.SSLContext, session: ssl.SSLSession | None = None
    ) -> None:
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.server = server.wrap_bio(to_server, to_client, server_side=True)
        self.client = client.wrap_bio(to_client, to_server, server_hostname="127.0.0.1", session=session)

    def shake(self) -> None:
        """Until both are done. Raises what one of them has against it."""
        waiting = [self.client, self.server]
        for _ in range(10):
            waiting = [each for each in waiting if not _is_done(each.do_handshake)]
            if not waiting:
                _is_done(self.client.read)  # tickets
                return
        raise AssertionError("no end to this handshake")

    def say(self, words: bytes) -> bytes:
        """Words of the client, as the server hears them."""
        self.client.write(words)
        return self.server.read()


def _is_done(act: Callable[[], object]) -> bool:
    try:
        act()
    except ssl.SSLWantReadError:
        return False
    return True


def shaken(server: ssl.SSLContext, client: ssl.SSLContext) -> Hands:
    hands = Hands(server, client)
    hands.shake()
    return hands


def test_tls_1_3_is_spoken_with_our_certificate(files: Files) -> None:
    """RFC 8446, and ALPN for HTTP/1.1 alone (RFC 7301)."""
    client = client_context(files.folder)
    client.set_alpn_protocols(["h2", "http/1.1"])
    hands = shaken(files.context(), client)
    assert hands.client.version() == "TLSv1.3"
    assert hands.client.getpeercert(binary_form=True) == OWN.der
    assert hands.client.selected_alpn_protocol() == "http/1.1"
    assert hands.server.getpeercert(binary_form=True) is None
    assert hands.say(b"GET /") == b"GET /"


def test_the_whole_chain_is_sent(files: Files) -> None:
    """listen.tls.certificate_file: clients know the root alone."""
    between = Authority("between", signer=SERVERS)
    own = between.issue(names=[x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    files.certificate.write_bytes("# Ünser eigenes\n".encode() + own.pem + between.pem)
    files.key.write_bytes(own.key_pem)
    hands = shaken(files.context(), client_context(files.folder))
    assert hands.client.getpeercert(binary_form=True) == own.der


def test_certificate_and_key_may_share_a_file(files: Files) -> None:
    """As some tools write them."""
    files.key.write_bytes(OWN.pem + OWN.key_pem)
    files.certificate = files.key
    shaken(files.context(), client_context(files.folder))


@pytest.mark.parametrize(
    ("oldest", "client_speaks", "spoken"),
    [
        ("1.2", ssl.TLSVersion.TLSv1_2, "TLSv1.2"),
        ("1.2", ssl.TLSVersion.TLSv1_1, None),
        ("1.3", ssl.TLSVersion.TLSv1_3, "TLSv1.3"),
        ("1.3", ssl.TLSVersion.TLSv1_2, None),
    ],
)
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated:DeprecationWarning")
def test_old_versions_are_not_spoken(
    files: Files, oldest: str, client_speaks: ssl.TLSVersion, spoken: str | None
) -> None:
    """RFC 8996 (TLS 1.0 and 1.1); listen.tls.minimum_version."""
    client = client_context(files.folder)
    client.minimum_version = ssl.TLSVersion.TLSv1_1
    client.maximum_version = client_speaks
    client.set_ciphers("DEFAULT:@SECLEVEL=0")
    context = files.context(minimum_version=oldest)
    if spoken is None:
        with pytest.raises(ssl.SSLError):
            shaken(context, client)
    else:
        assert shaken(context, client).client.version() == spoken


@pytest.mark.parametrize(
    "cipher", ["ECDHE-ECDSA-AES128-SHA256", "ECDHE-ECDSA-AES256-SHA", "AES128-GCM-SHA256"]
)
def test_weak_ciphers_are_not_spoken(files: Files, cipher: str) -> None:
    """RFC 9325 section 4.2: forward secrecy and authenticated encryption, or nothing."""
    client = client_context(files.folder)
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    client.set_ciphers(f"{cipher}:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError):
        shaken(files.context(), client)


def test_nothing_is_compressed_or_negotiated_anew(files: Files) -> None:
    """CRIME, and handshakes that a client repeats to keep us busy."""
    options = files.context().options
    assert options & ssl.OP_NO_COMPRESSION
    assert options & ssl.OP_NO_RENEGOTIATION
    assert options & ssl.OP_CIPHER_SERVER_PREFERENCE


def test_keys_are_not_logged_because_the_environment_asks(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SSLKEYLOGFILE is for debugging clients; whoever may set it here would read every call."""
    monkeypatch.setenv("SSLKEYLOGFILE", str(files.folder / "keys"))
    shaken(files.context(), client_context(files.folder))
    assert not (files.folder / "keys").exists()


def test_without_authorities_no_certificate_is_asked_for(files: Files) -> None:
    """What nobody verified names nobody."""
    hands = shaken(files.context(client_certificate="required"), client_context(files.folder, CLIENT))
    assert hands.server.getpeercert(binary_form=True) is None


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("mode", ["required", "optional"])
def test_a_client_of_our_authorities_is_let_in_with_its_certificate(
    files: Files, version: ssl.TLSVersion, mode: str
) -> None:
    """listen.tls.client_ca_file."""
    client = client_context(files.folder, CLIENT)
    client.maximum_version = version
    hands = shaken(files.mutual(client_certificate=mode), client)
    assert hands.server.getpeercert(binary_form=True) == CLIENT.der


def test_a_client_without_a_certificate_is_let_in_only_where_that_is_allowed(files: Files) -> None:
    """listen.tls.client_certificate: required unless it is said."""
    bare = client_context(files.folder)
    assert shaken(files.mutual(client_certificate="optional"), bare).server.getpeercert(True) is None
    with pytest.raises(ssl.SSLError, match="PEER_DID_NOT_RETURN_A_CERTIFICATE"):
        shaken(files.mutual(), bare)


@pytest.mark.parametrize("mode", ["required", "optional"])
@pytest.mark.parametrize(
    "issued",
    [
        pytest.param(OTHERS.issue(a_name(CN="billing")), id="another authority of the same name"),
        pytest.param(SERVERS.issue(a_name(CN="billing")), id="our own authority"),
        pytest.param(CLIENTS.issue(lasts=-HOUR / 2), id="expired"),
        pytest.param(CLIENTS.issue(uses=[ExtendedKeyUsageOID.SERVER_AUTH]), id="for servers only"),
    ],
)
def test_a_certificate_that_proves_nothing_is_refused(files: Files, mode: str, issued: Issued) -> None:
    """Also where none is needed: who presents a bad one does not pass for somebody who presents none."""
    with pytest.raises(ssl.SSLCertVerificationError):
        shaken(files.mutual(client_certificate=mode), client_context(files.folder, issued))


def test_every_listed_authority_is_believed(files: Files) -> None:
    """A bundle holds the old one and the new one while they are changed."""
    files.clients.write_bytes(CLIENTS.pem + b"\n# the next one\n" + OTHERS.pem)
    for issued in (CLIENT, OTHERS.issue()):
        shaken(files.mutual(), client_context(files.folder, issued))


def test_an_authority_below_a_root_is_believed_alone(files: Files) -> None:
    """One team's authority, and not every other below the same root."""
    team, other = Authority("team", signer=CLIENTS), Authority("other", signer=CLIENTS)
    files.clients.write_bytes(team.pem)
    shaken(files.mutual(), client_context(files.folder, team.issue()))
    with pytest.raises(ssl.SSLCertVerificationError):
        shaken(files.mutual(), client_context(files.folder, other.issue(), chain=other.pem + CLIENTS.pem))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_resumed_session_keeps_its_certificate_and_ends_with_its_context(
    files: Files, version: ssl.TLSVersion
) -> None:
    """RFC 8446 section 2.2: a ticket stands for the handshake before; it must not outlive an authority."""
    client = client_context(files.folder, CLIENT)
    client.maximum_version = version
    older = files.mutual()
    session = shaken(older, client).client.session
    assert session is not None
    again = Hands(older, client, session)
    again.shake()
    assert again.server.session_reused
    assert again.server.getpeercert(binary_form=True) == CLIENT.der
    files.clients.write_bytes(OTHERS.pem)
    with pytest.raises(ssl.SSLCertVerificationError):
        Hands(files.mutual(), client, session).shake()


def encrypted(issued: Issued, form: PrivateFormat) -> bytes:
    return issued.key.private_bytes(Encoding.PEM, form, BestAvailableEncryption(b"sesame"))


def weak() -> tuple[bytes, bytes]:
    """A certificate of the last millennium, and its key."""
    key = rsa.generate_private_key(65537, 1024)
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(a_name(CN="old"))
        .issuer_name(a_name(CN="old"))
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - HOUR)
        .not_valid_after(now + HOUR)
        .sign(key, hashes.SHA256())
    )
    return (
        certificate.public_bytes(Encoding.PEM),
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )


def with_weak(files: Files) -> None:
    certificate, key = weak()
    files.certificate.write_bytes(certificate)
    files.key.write_bytes(key)


RSA_KEY = rsa.generate_private_key(65537, 2048).private_bytes(
    Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
)
CUT = OWN.pem[:300] + b"\n-----END CERTIFICATE-----\n"
NO_CERTIFICATE = "holds no certificate, one in PEM form is needed"
NO_KEY = "holds no private key, one in PEM form is needed"
NO_AUTHORITY = "holds a certificate that is no authority's, whoever has its key would be believed"
NO_FILE = "cannot be read, No such file or directory"
ENCRYPTED = "is encrypted, nobody is there to type its password"
MISMATCH = "is not the key of …, the two files do not belong together"


def own(content: bytes) -> Spoil:
    return lambda files: files.certificate.write_bytes(content)


def key(content: bytes) -> Spoil:
    return lambda files: files.key.write_bytes(content)


def clients(content: bytes) -> Spoil:
    return lambda files: files.clients.write_bytes(content)


def no_key(put: Callable[[Path], object]) -> Spoil:
    def spoil(files: Files) -> None:
        files.key.unlink()
        put(files.key)

    return spoil


@pytest.mark.parametrize(
    ("spoil", "setting", "words"),
    [
        (lambda files: files.certificate.unlink(), "certificate_file", NO_FILE),
        (own(b""), "certificate_file", NO_CERTIFICATE),
        (own(OWN.key_pem), "certificate_file", NO_CERTIFICATE),
        (own(OWN.der), "certificate_file", NO_CERTIFICATE),
        (own(OWN.pem[:200]), "certificate_file", NO_CERTIFICATE),
        (own(OWN.pem + CUT), "certificate_file", NO_CERTIFICATE),
        (own(OWN.pem * 3000), "certificate_file", "is too big"),
        (with_weak, "certificate_file", "is refused by OpenSSL, ee key too small"),
        (no_key(lambda path: None), "key_file", NO_FILE),
        (no_key(Path.mkdir), "key_file", "is a directory"),
        (no_key(os.mkfifo), "key_file", "is no regular file"),
        (key(b""), "key_file", NO_KEY),
        (key(OWN.pem), "key_file", NO_KEY),
        (key(OWN.key_pem.replace(b"M", b"*")), "key_file", NO_KEY),
        (key(CLIENT.key_pem), "key_file", MISMATCH),
        (key(RSA_KEY), "key_file", MISMATCH),
        (key(encrypted(OWN, PrivateFormat.PKCS8)), "key_file", ENCRYPTED),
        (key(encrypted(OWN, PrivateFormat.TraditionalOpenSSL)), "key_file", ENCRYPTED),
        (lambda files: files.clients.unlink(), "client_ca_file", NO_FILE),
        (clients(b"x"), "client_ca_file", NO_CERTIFICATE),
        (clients(CLIENTS.pem + CUT), "client_ca_file", NO_CERTIFICATE),
        (clients(CLIENTS.pem + CLIENT.pem), "client_ca_file", NO_AUTHORITY),
    ],
)
def test_a_file_that_does_not_serve_is_named_with_its_remedy(
    files: Files, spoil: Spoil, setting: str, words: str
) -> None:
    """Own promise: which file, why, what to do; and never anything of a key."""
    spoil(files)
    with pytest.raises(Unusable) as caught:
        files.mutual()
    path = {"certificate_file": files.certificate, "key_file": files.key, "client_ca_file": files.clients}
    begin = f"listen.tls.{setting}: {path[setting]} {words.replace('…', str(files.certificate))}, "
    said = str(caught.value)
    assert said.startswith(begin)
    assert said != begin, "a remedy"
    assert (caught.value.setting, caught.value.file) == (f"listen.tls.{setting}", str(path[setting]))


def test_a_file_that_goes_between_two_looks_is_named(files: Files) -> None:
    """Files are changed while they are read."""

    def read_and_lose(path: str, most: int) -> bytes:
        content = read_bounded(path, most)
        if path == str(files.key):
            files.key.unlink()
        return content

    with pytest.raises(Unusable) as caught:
        context_of(files.settings(), read_and_lose)
    assert (
        str(caught.value) == f"listen.tls.key_file: {files.key} {NO_FILE}, check the path and its permissions"
    )


def test_the_files_that_matter_are_known(files: Files) -> None:
    """What is watched for changes."""
    own = (str(files.certificate), str(files.key))
    assert files_of(files.settings()) == own
    assert files_of(files.settings(client_ca_file="/c")) == (*own, "/c")
