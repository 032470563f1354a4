"""What a file of API keys may hold, and that no mistake in it tells a pepper or a hash."""

from pathlib import Path

import pytest

from proxy.configuration.documents import read_document
from proxy.configuration.mistakes import SettingsError
from proxy.identity.keys_file import KeysFile, bytes_of

PEPPER = "AAECAwQFBgcICQoLDA0ODw"
"""The bytes 0 to 15."""
HASH = "hmac-sha256:" + "0a" * 32


def read(folder: Path, text: str) -> KeysFile:
    file = folder / "keys.yaml"
    file.write_text(text, encoding="utf-8")
    return read_document(str(file), KeysFile, environ={"PEPPER": PEPPER})


def mistakes(folder: Path, text: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        read(folder, text)
    file = str(folder / "keys.yaml")
    return [str(mistake).replace(file, "F").partition(", ")[0] for mistake in caught.value.mistakes]


def keys(*entries: str, pepper: str = PEPPER) -> str:
    return "\n".join(["version: 1", f"pepper: '{pepper}'", "keys:", *(f"- {{{each}}}" for each in entries)])


def entry(**changes: str) -> str:
    fields = {"id": "a", "hash": HASH, "tenant": "acme", "subject": "ann", **changes}
    return ", ".join(f"{name}: {value}" for name, value in fields.items())


def test_a_file_is_read_whole(tmp_path: Path) -> None:
    """Every field; roles and end may be left out."""
    read_file = read(
        tmp_path, keys(entry(id="A-b_9"), entry(roles="[viewer, editor]", expires="'2027-06-30'"))
    )
    first, second = read_file.keys
    assert (first.id, first.hash, first.tenant, first.subject) == ("A-b_9", HASH, "acme", "ann")
    assert (first.roles, first.expires) == ((), None)
    assert (second.roles, second.expires) == (("viewer", "editor"), "2027-06-30")
    assert bytes_of(read_file.pepper) == bytes(range(16))


def test_a_file_without_keys_lets_nobody_in(tmp_path: Path) -> None:
    """The last key may be revoked."""
    assert read(tmp_path, f"version: 1\npepper: {PEPPER}\n").keys == ()
    assert read(tmp_path, f"version: 1\npepper: {PEPPER}\nkeys: []\n").keys == ()


@pytest.mark.parametrize(
    "pepper",
    [
        "${PEPPER}",
        "${file:DIR/pepper}",
        PEPPER,
        PEPPER + "==",
    ],
)
def test_a_pepper_may_stand_there_or_be_referred_to(tmp_path: Path, pepper: str) -> None:
    """The file is itself a secret; a pepper of its own file can be kept elsewhere than the hashes."""
    (tmp_path / "pepper").write_text(PEPPER + "\n", encoding="utf-8")
    found = read(tmp_path, keys(pepper=pepper.replace("DIR", str(tmp_path))) + " []").pepper
    assert bytes_of(found) == bytes(range(16))
    assert found.files == ((str(tmp_path / "pepper"),) if "file:" in pepper else ())


@pytest.mark.parametrize(
    ("pepper", "what"),
    [
        ("", "is too short"),
        ("AAECAwQFBgcICQoLDA0O", "is too short"),
        ("hunter2+AAECAwQFBgcICQoLDA0ODw", "is no base64url"),
        ("hunter2/AAECAwQFBgcICQoLDA0ODw", "is no base64url"),
        ("hünter2 AAECAwQFBgcICQoLDA0ODw", "is no base64url"),
        (PEPPER + "=", "is no base64url"),
        (PEPPER + "===", "is no base64url"),
        (PEPPER + "==A", "is no base64url"),
        ("A" * 25, "is no base64url"),
        ("A" * 24 + "=", "is no base64url"),
        ("A" * 24 + "\\n", "is no base64url"),
    ],
)
def test_a_weak_or_mistyped_pepper_is_refused_and_not_told(tmp_path: Path, pepper: str, what: str) -> None:
    """128 bits at least; a pepper that is read another way than it was made would let nobody in."""
    text = keys().replace(f"'{PEPPER}'", f'"{pepper}"') + " []"
    assert mistakes(tmp_path, text) == [f"F:2:9: pepper: {what}"]
    with pytest.raises(SettingsError) as caught:
        read(tmp_path, text)
    assert "hunter2" not in str(caught.value).replace(str(tmp_path), "")
    assert "hünter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "mistake"),
    [
        ({"id": "''"}, "id: is too short"),
        ({"id": "a" * 65}, "id: is too long"),
        ({"id": "a.b"}, "id: is no id of a key"),
        ({"id": "'a b'"}, "id: is no id of a key"),
        ({"id": '"a\\n"'}, "id: is no id of a key"),
        ({"id": "ä"}, "id: is no id of a key"),
        ({"id": "7"}, "id: is a number"),
        ({"hash": "0a" * 32}, "hash: is no hash of a key"),
        ({"hash": "sha256:" + "0a" * 32}, "hash: is no hash of a key"),
        ({"hash": HASH[:-1]}, "hash: is no hash of a key"),
        ({"hash": HASH + "0"}, "hash: is no hash of a key"),
        ({"hash": HASH.upper()}, "hash: is no hash of a key"),
        ({"hash": HASH[:-1] + "g"}, "hash: is no hash of a key"),
        ({"tenant": "''"}, "tenant: is blank"),
        ({"tenant": "'*'"}, "tenant: is no tenant"),
        ({"tenant": "' a'"}, "tenant: is no name"),
        ({"tenant": "[a]"}, "tenant: is a list"),
        ({"tenant": "no"}, "tenant: can be read two ways"),
        ({"subject": '"a\\u200b"'}, "subject: is no name"),
        ({"roles": "viewer"}, "roles: is a single value"),
        ({"roles": "['']"}, "roles[0]: is blank"),
        ({"expires": "2027-06-30"}, "expires: can be read two ways"),
        ({"expires": "soon"}, "expires: is no date"),
        ({"expires": "'2027-02-29'"}, "expires: is no date"),
        ({"expires": "1814400000"}, "expires: is a number"),
        ({"secret": "hunter2"}, "secret: is not known"),
    ],
)
def test_a_mistake_in_an_entry_is_told_at_its_place(
    tmp_path: Path, changes: dict[str, str], mistake: str
) -> None:
    """Nothing is guessed: an entry that cannot be read could let in somebody else."""
    (found,) = mistakes(tmp_path, keys(entry(id="z"), entry(**changes)))
    assert found.partition(": ")[2] == f"keys[1].{mistake}"
    assert found.startswith("F:5:")


def test_every_id_is_there_once(tmp_path: Path) -> None:
    """Ids differ in case; the second of two equal ones is shown."""
    assert len(read(tmp_path, keys(entry(id="a"), entry(id="A"))).keys) == 2
    found = mistakes(tmp_path, keys(entry(id="a"), entry(id="b"), entry(id="a")))
    assert found == ["F:6:3: keys[2]: has an id that is there twice"]


def test_nothing_of_a_file_is_shown(tmp_path: Path) -> None:
    """The pepper is worth guessing hashes for."""
    assert PEPPER not in repr(read(tmp_path, keys() + " []"))
