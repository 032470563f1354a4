"""A secret that lies in files is read from them again; what does not fit leaves the old one in use."""

import copy
import pickle
from collections.abc import Mapping
from pathlib import Path

import pytest

from proxy.configuration.files import read_bounded
from proxy.configuration.mistakes import Unfit
from proxy.configuration.references import Template
from proxy.secret import Secret
from tests.unit.configuration.reading import read

ENVIRON = {"SCHEME": "Bearer", "REALM": "here"}


def header(folder: Path, text: str, environ: Mapping[str, str] = ENVIRON) -> Secret:
    """The secret that a header written as `text` becomes; `F` stands for the folder."""
    written = text.replace("F", str(folder))
    settings = f"version: 1\nupstream: {{url: http://a/, headers: {{X-Key: '{written}'}}}}\n"
    return read(folder, settings, environ=environ).upstream.headers["X-Key"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "key"
    file.write_text("hunter2\n", encoding="utf-8")
    return file


def test_a_changed_file_is_a_renewed_secret(tmp_path: Path, file: Path) -> None:
    """design section 3: a mounted credential is rotated without a restart; the old value stays what it was."""
    secret = header(tmp_path, "${SCHEME} ${file:F/key}")
    file.write_text("hunter3\n", encoding="utf-8")
    assert secret.renewed().reveal() == "Bearer hunter3"
    assert secret.reveal() == "Bearer hunter2"
    file.write_text("hunter4", encoding="utf-8")
    assert secret.renewed().renewed().reveal() == "Bearer hunter4"


def test_it_knows_its_files_each_once(tmp_path: Path, file: Path) -> None:
    """Whoever watches them need not know how a secret is written."""
    other = tmp_path / "other"
    other.write_text("x", encoding="utf-8")
    secret = header(tmp_path, "${file:F/other} ${SCHEME} ${file:F/key}${file:F/other}")
    assert secret.files == (str(other), str(file))
    assert secret.renewed().files == secret.files
    assert header(tmp_path, "${SCHEME}").files == ()


def test_one_without_files_is_its_own_renewal(tmp_path: Path) -> None:
    """Variables of a process do not change from outside."""
    secret = header(tmp_path, "${SCHEME}")
    assert secret.renewed() is secret
    assert Secret("x").renewed().reveal() == "x"


def test_variables_keep_the_value_of_the_start(tmp_path: Path, file: Path) -> None:
    """A library that changes the environment must not change what is sent; nor are other variables kept."""
    environ = dict(ENVIRON)
    secret = header(tmp_path, "${SCHEME} ${REALM:-x} ${NO:-a}${EMPTY:-b} ${file:F/key}", environ)
    environ.update(SCHEME="Basic", REALM="hunter9", NO="hunter9", EMPTY="hunter9")
    file.write_text("hunter3", encoding="utf-8")
    assert secret.renewed().reveal() == "Bearer here ab hunter3"
    template = Template("${SCHEME} ${file:/a}", ("/a",), ENVIRON, read_bounded)
    assert template._environ == {"SCHEME": "Bearer"}


def test_every_check_holds_for_what_it_is_renewed_to(file: Path) -> None:
    """A type may lay one check upon another."""

    def check_length(secret: Secret) -> None:
        if len(secret.reveal()) < 5:
            raise Unfit("is too short", "", "")

    def check_word(secret: Secret) -> None:
        if not secret.reveal().isalnum():
            raise Unfit("is no word", "", "")

    template = Template(f"${{file:{file}}}", (str(file),), {}, read_bounded)
    secret = Secret(template.read(), template).checked(check_length).checked(check_word)
    for content, what in (("abc", "is too short"), ("a.b.c.d", "is no word")):
        file.write_text(content, encoding="utf-8")
        with pytest.raises(Unfit, match=what):
            secret.renewed()
        with pytest.raises(Unfit, match=what):
            Secret(content).checked(check_length).checked(check_word)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (None, "refers to the file F/key"),
        (b"", "refers to the file F/key"),
        (b"\n", "refers to the file F/key"),
        (b"caf\xe9", "refers to the file F/key"),
        (b"x" * 65_537, "refers to the file F/key"),
        (b"hunter3\r\nX-Admin: yes", "is no header value"),
        (b"hunter3\n\n", "is no header value"),
        (b"hunter3 ", "is no header value"),
        ("hünter3".encode(), "is no header value"),
    ],
)
def test_what_no_longer_fits_is_refused(tmp_path: Path, file: Path, content: bytes | None, what: str) -> None:
    """A file caught half written, emptied or with a line too many: no header is broken, no value is told."""
    secret = header(tmp_path, "${file:F/key}")
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(Unfit) as caught:
        secret.renewed()
    assert caught.value.what == what.replace("F", str(tmp_path))
    assert "hunter3" not in str(caught.value)
    file.write_bytes(b"hunter5")
    assert secret.renewed().reveal() == "hunter5"


def test_what_was_renewed_is_checked_when_it_is_renewed_again(tmp_path: Path, file: Path) -> None:
    """The check travels along."""
    again = header(tmp_path, "${file:F/key}").renewed()
    file.write_bytes(b"a\r\nb")
    with pytest.raises(Unfit, match="is no header value"):
        again.renewed()


def test_a_content_is_not_read_for_references(tmp_path: Path, file: Path) -> None:
    """Whoever may write one secret may not read the others with it."""
    secret = header(tmp_path, "${file:F/key}")
    file.write_text("${SCHEME} ${file:/etc/hostname}", encoding="utf-8")
    assert secret.renewed().reveal() == "${SCHEME} ${file:/etc/hostname}"


def test_a_secret_of_identity_is_renewed_too(tmp_path: Path, file: Path) -> None:
    """The client secret at the introspection endpoint; nothing knows the sections by name."""
    settings = read(
        tmp_path,
        "version: 1\nupstream: {url: http://a/}\nidentity:\n"
        "  resource: https://a.example/mcp\n"
        "  authenticators:\n"
        "  - {kind: introspection, url: https://i.example/, client_id: c,"
        f" client_secret: '${{file:{file}}}', tenant: t}}\n",
    )
    (chosen,) = settings.identity.chosen
    secret: Secret = getattr(chosen, "client_secret")  # noqa: B009  the union's other members lack it
    file.write_text("hunter3", encoding="utf-8")
    assert (secret.files, secret.renewed().reveal()) == ((str(file),), "hunter3")


def test_where_it_comes_from_is_neither_shown_nor_compared(tmp_path: Path, file: Path) -> None:
    """A reload compares texts; a repr, a copy or a pickle tells as little as before."""
    secret = header(tmp_path, "${SCHEME} ${file:F/key}")
    assert secret == Secret("Bearer hunter2")
    assert hash(secret) == hash(Secret("Bearer hunter2"))
    assert repr(secret) == f"{secret}" == "Secret(…)"
    assert "hunter2" not in repr(secret._source)
    assert "Bearer" not in repr(secret._source)
    assert copy.copy(secret) is copy.deepcopy(secret) is secret
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    with pytest.raises(AttributeError):
        secret.files = ()  # type: ignore[misc]  # a property
    with pytest.raises(AttributeError):
        secret._source = None
