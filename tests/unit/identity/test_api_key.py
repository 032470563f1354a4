"""Keys `id.secret`: who is let in, who is not, and that nobody learns more than that."""

import asyncio
import math
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from pathlib import Path

import pytest
from msgspec import structs

from proxy.configuration.documents import document_of
from proxy.configuration.mistakes import SettingsError
from proxy.identity.api_key import LONGEST_SECRET, ApiKeys, hash_of
from proxy.identity.attempts import Attempts
from proxy.identity.credential import BEARER, Credential, of_certificate, of_header
from proxy.identity.keys_file import KeysFile
from proxy.identity.room import Room, Way
from proxy.identity.settings import ApiKeySettings
from proxy.lifecycle.watch import Watch
from proxy.model import Headers, Peer, Principal, Reason, Refused
from tests.fakes import awaited, make_call

SECRET = "c2VjcmV0LW9mLWFsaWNlLTMyLWJ5dGVzLWxvbmctMTIz"
KEY = f"alice.{SECRET}"
OTHER = "b3RoZXItc2VjcmV0LTMyLWJ5dGVzLWxvbmctMTIzNDU2"
ALICE = Principal(
    issuer="api_key",
    subject="alice@acme",
    tenant="acme",
    roles=frozenset({"viewer"}),
    client="alice",
    fingerprint="alice",
)
PEPPER = bytes(range(32))
EXPIRES_S = 1_798_761_600.0
"""2027-01-01 in UTC."""


def text_of(
    *entries: tuple[str, str], pepper: bytes = PEPPER, fields: str = "roles: [viewer]", tenant: str = "acme"
) -> str:
    """A keys file with an entry for each id and secret."""
    lines = ["version: 1", f"pepper: {urlsafe_b64encode(pepper).decode()}", "keys:"]
    for id, secret in entries:
        hashed = hash_of(pepper, secret).hex()
        lines.append(
            f"- {{id: {id}, hash: 'hmac-sha256:{hashed}', tenant: {tenant}, subject: {id}@acme, {fields}}}"
        )
    return "\n".join(lines) + "\n"


def file_of(text: str) -> KeysFile:
    return document_of(text.encode(), "F", KeysFile, {})


FILE = file_of(text_of(("alice", SECRET), ("bob", OTHER)))


class Clocks:
    """Two clocks that stand until they are moved together."""

    def __init__(self, wall: float = EXPIRES_S - 100.0) -> None:
        self.monotonic_s = 5.0
        self.wall_s = wall

    def now(self) -> float:
        return self.monotonic_s

    def wall(self) -> float:
        return self.wall_s

    def move(self, seconds: float) -> None:
        self.monotonic_s += seconds
        self.wall_s += seconds


def keys(file: KeysFile = FILE, *, header: str = "X-API-Key", clocks: Clocks | None = None) -> ApiKeys:
    clocks = clocks or Clocks()
    settings = ApiKeySettings(keys_file="keys.yaml", header=header)
    return ApiKeys(settings, file, now=clocks.now, wall=clocks.wall)


def ask(keys: ApiKeys, text: str, header: str = "x-api-key") -> Principal | None:
    return asyncio.run(keys(of_header(header, text)))


def refused(keys: ApiKeys, credential: Credential) -> tuple[Reason, str, object]:
    """All that the refusal holds."""
    with pytest.raises(Refused) as caught:
        asyncio.run(keys(credential))
    assert (caught.value.headers, caught.value.status, caught.value.code) == ((), None, None)
    return caught.value.reason, caught.value.why, dict(caught.value.data)


WRONG: tuple[Reason, str, object] = (Reason.BAD_CREDENTIAL, "Nobody here knows this credential.", {})
EXPIRED: tuple[Reason, str, object] = (Reason.BAD_CREDENTIAL, "This API key has expired.", {"expired": True})


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("wrong", id="AUTH-104"),
        pytest.param(KEY[: len(KEY) // 2], id="AUTH-105"),
        pytest.param(KEY.upper(), id="AUTH-106"),
        pytest.param("'OR'1'='1", id="AUTH-108"),
        pytest.param("ÿþ", id="AUTH-110"),
        pytest.param("\udcff\udcfe", id="AUTH-110 as bytes"),
        pytest.param(KEY[:-1] + "A", id="AUTH-111"),
        f"alice.{OTHER}",
        f"bob.{SECRET}",
        f"nobody.{SECRET}",
        f"Alice.{SECRET}",
        f"alice.{SECRET.upper()}",
        f"alice.{SECRET}=",
        f"alice.{SECRET} ",
        f" alice.{SECRET}",
        f"alice.{SECRET}\n",
        f"alice.{SECRET}é",
        f"alice.{SECRET}\0",
        f"alice.{SECRET}.",
        f"alice.{SECRET}.x",
        f"alice..{SECRET}",
        f"alice:{SECRET}",
        f"alice\uff0e{SECRET}",
        f".{SECRET}",
        SECRET,
        "alice.",
        "alice",
        ".",
        "",
        f"{'a' * 65}.{SECRET}",
        f"alice.{'A' * (LONGEST_SECRET + 1)}",
        f"../alice.{SECRET}",
        "alice." + hash_of(PEPPER, SECRET).hex(),
        f"__class__.{SECRET}",
        "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0.",
    ],
)
def test_every_wrong_key_is_refused_alike(text: str) -> None:
    """One answer for all of them: whoever guesses learns neither which ids exist nor how near they came."""
    credential = Credential(header="x-api-key", text=text, digest=b"")
    assert refused(keys(), credential) == WRONG


@pytest.mark.parametrize(
    "text",
    [
        "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0.c2ln",
        "opaque-token",
        "two.parts",
        f"Alice.{SECRET}",
        f"nobody.{SECRET}",
        f"a~b.{SECRET}",
        f"alice..{SECRET}",
        f"alice.{SECRET}.",
        f"alice.{'A' * (LONGEST_SECRET + 1)}",
        "",
    ],
)
def test_a_bearer_token_that_is_no_key_of_ours_may_be_somebody_elses(text: str) -> None:
    """JWTs and opaque tokens stand in the same header; the next authenticator is asked."""
    assert asyncio.run(keys(header="Authorization")(Credential(header=BEARER, text=text, digest=b""))) is None


@pytest.mark.parametrize("secret", [OTHER, SECRET[:-1] + "A", SECRET.upper(), "x"])
def test_a_bearer_token_with_an_id_of_ours_is_nobody_elses(secret: str) -> None:
    """A wrong key never falls through to another authenticator."""
    assert refused(keys(header="Authorization"), of_header(BEARER, f"alice.{secret}")) == WRONG


@pytest.mark.parametrize("header", ["X-API-Key", "x-api-key", "Authorization", "X-Acme-Key"])
def test_a_right_key_names_whom_it_stands_for(header: str) -> None:
    """Tenant, subject and roles are those of the file; the key's id names it in records."""
    assert ask(keys(header=header), KEY, header.lower()) == ALICE
    assert ALICE.valid_until == math.inf


@pytest.mark.parametrize(
    "credential", [of_header(BEARER, KEY), of_header("x-other", KEY), of_certificate(b"der")]
)
def test_a_key_counts_in_its_own_header_only(credential: Credential) -> None:
    """Also one that has been right before in the right place."""
    both = keys()
    assert ask(both, KEY) == ALICE
    assert asyncio.run(both(credential)) is None
    assert both.known(credential) is None


def test_a_secret_may_be_any_printable_text_without_dots() -> None:
    """Keys of another issuer may be hashed and moved here."""
    secret = "p@ss/w0rd+=~" * 8
    assert ask(keys(file_of(text_of(("alice", secret)))), f"alice.{secret}") == ALICE
    longest = "x" * LONGEST_SECRET
    assert ask(keys(file_of(text_of(("alice", longest)))), f"alice.{longest}") == ALICE


def test_a_hash_is_an_hmac_of_the_secret() -> None:
    """RFC 4231, test case 2: whoever has another tool can make entries with it."""
    made = hash_of(b"Jefe", "what do ya want for nothing?").hex()
    assert made == "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"


@pytest.mark.parametrize("bit", [0, 100, 255])
def test_every_bit_of_a_hash_counts(bit: int) -> None:
    """Compared whole, not by its beginning."""
    right = hash_of(PEPPER, SECRET)
    other = (int.from_bytes(right, "big") ^ 1 << bit).to_bytes(32, "big")
    changed = text_of(("alice", SECRET)).replace(right.hex(), other.hex())
    assert refused(keys(file_of(changed)), of_header("x-api-key", KEY)) == WRONG


def test_the_pepper_counts() -> None:
    """The same entry under another pepper lets nobody in."""
    other = text_of(("alice", SECRET)).replace(
        urlsafe_b64encode(PEPPER).decode(), urlsafe_b64encode(bytes(32)).decode()
    )
    assert refused(keys(file_of(other)), of_header("x-api-key", KEY)) == WRONG


def test_a_key_ends_when_it_expires() -> None:
    """To the second, by the wall clock; the proof ends then by the monotonic one, for streams."""
    clocks = Clocks(EXPIRES_S - 100.0)
    ending = keys(file_of(text_of(("alice", SECRET), fields="expires: '2027-01-01'")), clocks=clocks)
    first = ask(ending, KEY)
    assert first is not None
    assert first.valid_until == 5.0 + 100.0
    clocks.move(99.5)
    again = ending.known(of_header("x-api-key", KEY))
    assert again is not None
    assert (again.identity, again.valid_until) == (first.identity, 105.0)
    clocks.move(0.5)
    assert ending.known(of_header("x-api-key", KEY)) is None
    assert refused(ending, of_header("x-api-key", KEY)) == EXPIRED


@pytest.mark.parametrize("text", [f"alice.{OTHER}", f"nobody.{SECRET}"])
def test_only_who_has_the_secret_learns_that_a_key_has_expired(text: str) -> None:
    """Else ids of old keys could be found; and a guess must count as a failed attempt."""
    expired = keys(file_of(text_of(("alice", SECRET), fields="expires: '1970-01-01'")))
    assert refused(expired, of_header("x-api-key", text)) == WRONG
    assert refused(expired, of_header("x-api-key", KEY)) == EXPIRED


def test_a_key_is_known_when_it_has_been_right() -> None:
    """The room lets such callers pass although their address is blocked; nothing else is remembered."""
    them = keys()
    right, wrong = of_header("x-api-key", KEY), of_header("x-api-key", KEY[:-1] + "A")
    assert them.known(right) is None
    assert asyncio.run(them(right)) == ALICE
    assert refused(them, wrong) == WRONG
    assert (them.known(right), them.known(wrong)) == (ALICE, None)


def test_a_replaced_file_counts_at_once() -> None:
    """Removed is revoked, also for a key that was right a moment ago; new ones and new roles count."""
    them = keys()
    alice, bob = of_header("x-api-key", KEY), of_header("x-api-key", f"bob.{OTHER}")
    for each in (alice, bob):
        assert asyncio.run(them(each)) is not None
    them.replace(file_of(text_of(("alice", SECRET), ("carol", OTHER), fields="roles: []", tenant="umbrella")))
    assert (them.known(alice), them.known(bob)) == (None, None)
    assert refused(them, bob) == WRONG
    changed = asyncio.run(them(alice))
    assert changed is not None
    assert (changed.tenant, changed.roles) == ("umbrella", frozenset())
    assert them.known(alice) == changed
    carol = ask(them, f"carol.{OTHER}")
    assert carol is not None
    assert carol.subject == "carol@acme"


async def test_a_changed_file_is_read_again_and_a_bad_one_changes_nothing(tmp_path: Path) -> None:
    """design section 3, from file to answer: revoked within one look of the watcher."""
    file = tmp_path / "keys.yaml"
    file.write_text(text_of(("alice", SECRET)), encoding="utf-8")
    clocks = Clocks()
    settings = ApiKeySettings(keys_file=str(file))
    them = ApiKeys(settings, file_of(file.read_text("utf-8")), now=clocks.now, wall=clocks.wall)
    errors: list[Exception] = []
    watch = Watch(report=errors.append)
    watch.add(them.files, them.reload)
    alice, bob = of_header("x-api-key", KEY), of_header("x-api-key", f"bob.{OTHER}")
    assert await them(alice) == ALICE

    for broken in ("version: 1\nkeys: [", text_of(("alice", OTHER), ("alice", OTHER)), ""):
        file.write_text(broken, encoding="utf-8")
        await watch.look()
        assert await them(alice) == ALICE
    assert [type(error) for error in errors] == [SettingsError] * 3

    file.write_text(text_of(("bob", OTHER)), encoding="utf-8")
    await watch.look()
    assert await them(bob) is not None
    with pytest.raises(Refused):
        await them(alice)
    file.unlink()
    await watch.look()
    assert await them(bob) is not None
    assert len(errors) == 3


def test_a_pepper_of_its_own_file_is_watched_too(tmp_path: Path) -> None:
    """Whichever of the two is replaced last, the pair is read then."""
    pepper = tmp_path / "pepper"
    pepper.write_text(urlsafe_b64encode(PEPPER).decode(), encoding="utf-8")
    text = text_of(("alice", SECRET)).replace(urlsafe_b64encode(PEPPER).decode(), f"${{file:{pepper}}}")
    them = keys(file_of(text))
    assert them.files == ("keys.yaml", str(pepper))
    assert ask(them, KEY) == ALICE
    assert keys(FILE).files == ("keys.yaml",)


def room(ways: Sequence[Way], most: int = 100) -> Room:
    return Room(ways, anonymous=None, attempts=Attempts(most, 60), owns=None, now=lambda: 0.0)


def say(room: Room, fields: Sequence[tuple[bytes, bytes]], query: str = "") -> Principal | tuple[object, ...]:
    call = make_call(headers=Headers(fields), peer=Peer("192.0.2.1"))
    try:
        return asyncio.run(awaited(room(structs.replace(call, query=query))))
    except Refused as refused:
        return refused.reason, refused.why, dict(refused.data)


def test_in_the_room_a_guess_as_bearer_looks_like_any_unknown_token() -> None:
    """Own promise: whether an id exists is not told there either."""
    them = room([Way(BEARER, keys(header="Authorization"))])
    for text in (f"alice.{OTHER}", f"nobody.{OTHER}", "opaque"):
        assert say(them, [(b"Authorization", f"Bearer {text}".encode())]) == WRONG
    assert say(them, [(b"Authorization", f"Bearer {KEY}".encode())]) == ALICE


def test_in_the_room_a_key_elsewhere_is_no_credential() -> None:
    """AUTH-112: a key in the query stands in logs and histories; it is not looked at."""
    them = room([Way("x-api-key", keys())])
    reason = say(them, [], query=f"api_key={KEY}")
    assert isinstance(reason, tuple)
    assert reason[0] is Reason.NO_CREDENTIAL


@pytest.mark.parametrize("value", [b"\xff\xfe", b"' OR '1'='1", KEY.encode() + b"\xff", b"", b" "])
def test_in_the_room_odd_bytes_are_a_bad_key(value: bytes) -> None:
    """AUTH-108, AUTH-110: comparing texts that are not ASCII raises in Python; bytes are compared here."""
    said = say(room([Way("x-api-key", keys())]), [(b"X-API-Key", value)])
    assert isinstance(said, tuple)
    assert said[0] is Reason.BAD_CREDENTIAL


def test_in_the_room_who_was_right_passes_a_blocked_address() -> None:
    """One guesser behind the same address must not lock out the others; guessing goes on being refused."""
    them = room([Way("x-api-key", keys())], most=3)
    assert say(them, [(b"x-api-key", KEY.encode())]) == ALICE
    for _ in range(3):
        assert say(them, [(b"x-api-key", b"alice.guess")]) == WRONG
    blocked = say(them, [(b"x-api-key", b"alice.guess")])
    assert isinstance(blocked, tuple)
    assert blocked[0] is Reason.TOO_MANY_FAILURES
    assert say(them, [(b"x-api-key", KEY.encode())]) == ALICE
