"""Keys that are made: what is stored, what is shown, and that whatever was wished for is read back."""

import asyncio
import io
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.configuration.documents import document_of
from proxy.identity.api_key import ApiKeys, hash_of
from proxy.identity.credential import of_header
from proxy.identity.hash_key import Wish, hash_key
from proxy.identity.keys_file import KeysFile, bytes_of
from proxy.identity.settings import ApiKeySettings
from proxy.model import Principal

WALL = 1_800_000_000.0
"""2027-01-15T08:00:00Z."""


class Chance:
    """Bytes that are never twice the same."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __call__(self, count: int) -> bytes:
        self.asked.append(count)
        return bytes([len(self.asked)]) * count


def make(
    wish: Wish, environ: Mapping[str, str] | None = None, chance: Callable[[int], bytes] | None = None
) -> tuple[int, str, str]:
    """The exit code, and what went to `out` and to `err`."""
    out, err = io.StringIO(), io.StringIO()
    code = hash_key(wish, environ or {}, out, err, wall=lambda: WALL, chance=chance or Chance())
    return code, out.getvalue(), err.getvalue()


def key_in(err: str) -> str:
    (line,) = (line for line in err.splitlines() if line.startswith("key: "))
    return line.removeprefix("key: ")


def identified(text: str, key: str) -> Principal | None:
    file = document_of(text.encode(), "F", KeysFile, {})
    settings = ApiKeySettings(keys_file="F")
    return asyncio.run(
        ApiKeys(settings, file, now=lambda: 0.0, wall=lambda: WALL)(of_header("x-api-key", key))
    )


def test_what_is_stored_lets_in_what_is_shown() -> None:
    """From wish to principal, through the very file."""
    wish = Wish(tenant="acme", subject="ci-bot", roles=("viewer", "editor"), expires="2027-01-16")
    code, out, err = make(wish)
    assert code == 0
    principal = identified(out, key_in(err))
    assert principal is not None
    assert principal.identity == ("api_key", "ci-bot", "acme")
    assert principal.roles == {"viewer", "editor"}
    assert principal.valid_until == 16 * 3600.0
    assert "It ends at 2027-01-16T00:00:00Z." in err


def test_the_secret_is_shown_once_and_stored_never() -> None:
    """design section 4: stored as an HMAC. What is redirected into the file is safe there."""
    code, out, err = make(Wish(tenant="acme", subject="ci-bot"))
    secret = key_in(err).partition(".")[2]
    assert (code, err.count(secret), out.count(secret)) == (0, 1, 0)
    assert len(secret) == 43
    pepper = bytes_of(document_of(out.encode(), "F", KeysFile, {}).pepper)
    assert len(pepper) == 32
    assert hash_of(pepper, secret).hex() in out


def test_secret_and_pepper_are_of_their_own_chance() -> None:
    """256 bits each; the digits of the id are a third."""
    chance = Chance()
    make(Wish(tenant="acme", subject="ci-bot"), chance=chance)
    assert sorted(chance.asked) == [4, 32, 32]


def test_one_more_entry_is_appended_to_a_file(tmp_path: Path) -> None:
    """`hash-key --keys-file FILE >> FILE`, as often as one likes; its pepper is kept, in whatever form it stands."""
    file = tmp_path / "keys.yaml"
    _, out, first = make(Wish(tenant="acme", subject="ann"))
    file.write_text(out.replace("keys:", "keys: # ours"), encoding="utf-8")
    made = [first]
    for subject in ("bob", "carol"):
        _, out, err = make(Wish(tenant="acme", subject=subject, keys_file=str(file)))
        assert "pepper" not in out
        file.write_text(file.read_text("utf-8") + out, encoding="utf-8")
        made.append(err)
    found = [identified(file.read_text("utf-8"), key_in(err)) for err in made]
    assert [each and each.subject for each in found] == ["ann", "bob", "carol"]


def test_a_pepper_that_is_referred_to_is_used(tmp_path: Path) -> None:
    """The environment that is given counts."""
    file = tmp_path / "keys.yaml"
    file.write_text("version: 1\npepper: ${PEPPER}\n", encoding="utf-8")
    code, out, err = make(Wish(tenant="a", subject="s", keys_file=str(file)), {"PEPPER": "A" * 43})
    assert code == 0
    assert identified(f"version: 1\npepper: {'A' * 43}\nkeys:\n{out}", key_in(err)) is not None


@pytest.mark.parametrize(
    ("subject", "id"),
    [
        ("ci-bot", "ci-bot-01010101"),
        ("Ann Lee <ann@acme.example>", "Ann-Lee-ann-acme-example-01010101"),
        ("${HOME}", "HOME-01010101"),
        ("日本", "key-01010101"),
        ("x" * 200, "x" * 55 + "-01010101"),
    ],
)
def test_an_id_is_made_up_from_the_subject(subject: str, id: str) -> None:
    """It names the key in records, so people should recognise it."""
    code, _, err = make(Wish(tenant="a", subject=subject))
    assert (code, key_in(err).partition(".")[0]) == (0, id)


def test_an_id_that_is_made_up_is_not_taken(tmp_path: Path) -> None:
    """Four random bytes meet now and then."""
    file = tmp_path / "keys.yaml"
    _, out, err = make(Wish(tenant="a", subject="s"))
    file.write_text(out, encoding="utf-8")
    assert key_in(err).startswith("s-01010101.")
    _, _, err = make(Wish(tenant="a", subject="s", keys_file=str(file)))
    assert key_in(err).startswith("s-02020202.")


@pytest.mark.parametrize(
    ("changes", "mistakes"),
    [
        ({"tenant": ""}, ["--tenant: is blank"]),
        ({"tenant": "*"}, ["--tenant: is no tenant"]),
        ({"tenant": "a\nroles: [admin]"}, ["--tenant: is no name"]),
        ({"tenant": "a\udcff"}, ["--tenant: is no name"]),
        ({"subject": " s"}, ["--subject: is no name"]),
        ({"subject": "s" * 257}, ["--subject: is too long"]),
        ({"roles": ("ok", "")}, ["--role: is blank"]),
        ({"id": ""}, ["--id: is too short"]),
        ({"id": "a.b"}, ["--id: is no id of a key"]),
        ({"id": "a" * 65}, ["--id: is too long"]),
        ({"expires": "soon"}, ["--expires: is no date"]),
        ({"expires": "2027-01-15"}, ["--expires: has passed"]),
        ({"expires": "2027-01-15T08:00:00Z"}, ["--expires: has passed"]),
        ({"keys_file": "KEYS", "id": "taken"}, ["--id: is there already"]),
        ({"keys_file": "KEYS", "id": "taken", "expires": "1970-01-01"}, ["--id: is there", "--expires: has"]),
        ({"keys_file": "missing"}, ["missing:1:1: cannot be read"]),
        ({"keys_file": "BAD"}, ["BAD:1:10: version: is no value", "BAD:1:1: pepper: is missing"]),
        (
            {"tenant": "*", "subject": "", "roles": ("", "b "), "id": "ä", "expires": "never"},
            ["--id: ", "--tenant: ", "--subject: ", "--role: ", "--role: ", "--expires: "],
        ),
    ],
)
def test_every_mistake_is_told_and_nothing_is_made(
    tmp_path: Path, changes: dict[str, str], mistakes: list[str]
) -> None:
    """Exit code 2, nothing on standard output: a script that appends it appends nothing; no key is shown."""
    keys, bad = tmp_path / "KEYS", tmp_path / "BAD"
    keys.write_text(make(Wish(tenant="a", subject="s", id="taken"))[1], encoding="utf-8")
    bad.write_text("version: 2\n", encoding="utf-8")
    wish: dict[str, str] = {"tenant": "a", "subject": "s", **changes}
    if "keys_file" in wish:
        wish["keys_file"] = str(tmp_path / wish["keys_file"])
    code, out, err = make(Wish(**wish))  # type: ignore[arg-type]  # roles are a tuple
    lines = err.replace(f"{tmp_path}/", "").splitlines()
    assert (code, out) == (2, "")
    assert len(lines) == len(mistakes)
    for line, start in zip(sorted(lines), sorted(mistakes), strict=True):
        assert line.startswith(start)


labels = st.text(st.characters(categories=["L", "M", "N", "P", "S"]), min_size=1, max_size=40)


@settings(deadline=None)
@given(tenant=labels.filter(lambda text: text != "*"), subject=labels, role=labels)
def test_every_name_is_read_back_as_it_was_wished(tenant: str, subject: str, role: str) -> None:
    """Quotes, backslashes, references, other alphabets; and a terminal that knows ASCII only can show it."""
    code, out, err = make(Wish(tenant=tenant, subject=subject, roles=(role,)))
    assert (code, out.isascii()) == (0, True), err
    found = identified(out, key_in(err))
    assert found is not None
    assert (found.tenant, found.subject, found.roles) == (tenant, subject, frozenset({role}))


@pytest.mark.parametrize(
    "text", ["${HOME}", "$${HOME}", "$$${", "a${file:/etc/hostname}b", "no", "2027-01-01", "~"]
)
def test_no_name_becomes_a_reference_or_another_type(text: str) -> None:
    """What a role is called cannot read files."""
    _, out, err = make(Wish(tenant=text, subject=text, roles=(text,)))
    found = identified(out, key_in(err))
    assert found is not None
    assert (found.tenant, found.subject, found.roles) == (text, text, frozenset({text}))
