"""The files of TLS as settings: which belong together, and what is no path."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.downstream.settings import TlsSettings
from tests.unit.configuration.reading import mistakes, read

HEAD = "version: 1\nupstream: {url: http://127.0.0.1:8000/mcp}\n"
OWN = "certificate_file: /c, key_file: /k"
MTLS = "identity: {authenticators: [{kind: anonymous, tenant: a}, {kind: mtls, tenant: a}]}\n"


def test_every_field_is_read(tmp_path: Path) -> None:
    """Each with a value of its own."""
    text = "client_ca_file: /a, client_certificate: optional, minimum_version: '1.3'"
    settings = read(tmp_path, f"{HEAD}listen: {{tls: {{{OWN}, {text}}}}}\n")
    assert settings.listen.tls == TlsSettings(
        certificate_file="/c",
        key_file="/k",
        client_ca_file="/a",
        client_certificate="optional",
        minimum_version="1.3",
    )


def test_there_is_no_tls_unless_it_is_asked_for(tmp_path: Path) -> None:
    """And then with TLS 1.2 or newer, asking clients for nothing."""
    assert read(tmp_path, HEAD).listen.tls is None
    settings = read(tmp_path, HEAD, overrides=["listen.tls.certificate_file=/c", "listen.tls.key_file=/k"])
    assert settings.listen.tls == TlsSettings(
        certificate_file="/c",
        key_file="/k",
        client_ca_file=None,
        client_certificate=None,
        minimum_version="1.2",
    )


@pytest.mark.parametrize(
    ("tls", "expected"),
    [
        ("{key_file: /k}", "F:3:10: listen.tls.certificate_file: is missing"),
        ("{certificate_file: /c}", "F:3:10: listen.tls.key_file: is missing"),
        (f"{{{OWN}, minimum_version: '1.1'}}", "F:3:69: listen.tls.minimum_version: is no value for this"),
        (f"{{{OWN}, key_files: /k}}", "F:3:52: listen.tls.key_files: is not known"),
        ("{certificate_file: ' ', key_file: /k}", "F:3:34: listen.tls.certificate_file: is no path"),
        ("{certificate_file: /c, key_file: '${PEM}'}", "F:3:48: listen.tls.key_file: is no path"),
        (
            f"{{{OWN}, client_certificate: required}}",
            "F:3:72: listen.tls.client_certificate: needs client_ca_file",
        ),
        (
            f"{{{OWN}, client_certificate: optional}}",
            "F:3:72: listen.tls.client_certificate: needs client_ca_file",
        ),
    ],
)
def test_what_does_not_fit_is_told(tmp_path: Path, tls: str, expected: str) -> None:
    """The content of a key file in place of its path is refused before it can be shown anywhere."""
    environ = {"PEM": "-----BEGIN PRIVATE KEY-----\nsesame\n"}
    found = mistakes(tmp_path, f"{HEAD}listen: {{tls: {tls}}}\n", environ=environ)
    assert [one.partition(", ")[0] for one in found] == [expected]
    assert "sesame" not in found[0]


@pytest.mark.parametrize(
    ("listen", "is_refused"),
    [
        ("", True),
        (f"listen: {{tls: {{{OWN}}}}}\n", True),
        (f"listen: {{tls: {{{OWN}, client_ca_file: /a}}}}\n", False),
        (f"listen: {{tls: {{{OWN}, client_ca_file: /a, client_certificate: required}}}}\n", False),
        (f"listen: {{tls: {{{OWN}, client_ca_file: /a, client_certificate: optional}}}}\n", False),
    ],
)
def test_certificates_are_believed_only_where_they_are_verified(
    tmp_path: Path, listen: str, is_refused: bool
) -> None:
    """An authenticator that nobody can satisfy is a mistake, with its place."""
    refused = (
        "F:3:59: identity.authenticators[1]: needs listen.tls.client_ca_file, "
        "TLS verifies client certificates against these authorities, set it"
    )
    assert mistakes(tmp_path, f"{HEAD}{MTLS}{listen}") == ([refused] if is_refused else [])


def test_a_file_that_could_not_be_read_is_not_missed_twice(tmp_path: Path) -> None:
    """All at once, but each once: the reference is what is wrong."""
    found = mistakes(tmp_path, f"{HEAD}{MTLS}listen: {{tls: {{{OWN}, client_ca_file: '${{NO}}'}}}}\n")
    assert [one.partition(", ")[0] for one in found] == [
        "F:4:68: listen.tls.client_ca_file: refers to the variable NO"
    ]
