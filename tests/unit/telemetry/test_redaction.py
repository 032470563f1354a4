"""No sink holds a known secret, in whatever form it got there. Issue 8, 4."""

from __future__ import annotations

import gc
import json
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable
from urllib.parse import quote, quote_plus

import msgspec
import pytest

from proxy.secret import Secret, living
from proxy.telemetry.redaction import HIDDEN, SHORTEST, Redactor, hides

SECRETS = [
    "hunter2-hunter2",
    'with "quotes" and \\ backslash',
    "with spaces / slashes + plus & more?",
    "umläut-ßecret-☃",
    "half \ud800 a character",
    "~~~???>>>~~~",
    "s3cr3t",
]


def basic(user: str) -> Callable[[str], str]:
    return lambda text: b64encode(f"{user}:{text}".encode("utf-8", "surrogatepass")).decode()


def url_safe(text: str) -> str:
    return urlsafe_b64encode(b"x" + text.encode("utf-8", "surrogatepass") + b"yz").decode().rstrip("=")


def quoted(text: str) -> str:
    return quote(text.encode("utf-8", "surrogatepass").decode("utf-8", "replace"), safe="")


FORMS: dict[str, Callable[[str], str]] = {
    "as it is": lambda text: text,
    "in words": lambda text: f"WRONGPASS for {text}!",
    "in JSON": json.dumps,
    "in JSON, as it is": lambda text: json.dumps(text, ensure_ascii=False),
    "as msgspec has it": lambda text: msgspec.json.encode(text).decode(),
    "quoted": lambda text: f"http://h/?q={quote(text, safe='')}&x=1",
    "quoted but for slashes": quote,
    "of a form": quote_plus,
    "Basic of a": basic("a"),
    "Basic of ab": basic("ab"),
    "Basic of abc": basic("abc"),
    "in base64 for URLs": url_safe,
}


@pytest.mark.parametrize("how", FORMS)
@pytest.mark.parametrize("secret", SECRETS, ids=range(len(SECRETS)))
def test_a_secret_is_found_in_every_form(secret: str, how: str) -> None:
    """Brief of issue 8: as it is, JSON-escaped, URL-quoted, and base64 as Basic has it."""
    try:
        written = FORMS[how](secret)
    except UnicodeEncodeError:
        return  # it has no such form
    redactor = Redactor(lambda: [Secret(secret)], lambda: 1)
    shown = redactor.text(f"before {written} behind")
    assert written not in shown
    assert HIDDEN in shown
    assert shown.startswith("before ")
    assert shown.endswith(" behind")
    data = f"before {written} behind".encode("utf-8", "surrogatepass")
    assert redactor.bytes(data) == shown.encode("utf-8", "surrogatepass")


@pytest.mark.parametrize(
    ("secret", "part"),
    [
        ("Bearer abcdef-123456", "abcdef-123456"),
        ("Basic YWxpY2U6c2VjcmV0", "YWxpY2U6c2VjcmV0"),
        ("redis://:s3cret%2Fpw@127.0.0.1:6379/0", "s3cret/pw"),
        ("redis://:s3cret%2Fpw@127.0.0.1:6379/0", "s3cret%2Fpw"),
        ("-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBg\nkqhkiG9w0B\n-----END", "MIIEvQIBADANBg"),
    ],
)
def test_what_of_a_secret_is_one_by_itself_is_found_alone(secret: str, part: str) -> None:
    """Own promise: the scheme in front of a token, and the URL around a password, are no secrets."""
    redactor = Redactor(lambda: [Secret(secret)], lambda: 1)
    assert redactor.text(f"<{part}>") == f"<{HIDDEN}>"
    assert (
        redactor.text("Bearer, Basic, redis://, 127.0.0.1:6379") == "Bearer, Basic, redis://, 127.0.0.1:6379"
    )


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("at redis://:pw@127.0.0.1:6379/0", f"at redis://:{HIDDEN}@127.0.0.1:6379/0"),
        ("https://ann:p%40w@h/x?y", f"https://ann:{HIDDEN}@h/x?y"),
        ("(rediss://u:a:b@h)", f"(rediss://u:{HIDDEN}@h)"),
        ("postgres://u:p@ss@h/db", f"postgres://u:{HIDDEN}@h/db"),
        ("http://127.0.0.1:8080/mcp?mail=a@b", "http://127.0.0.1:8080/mcp?mail=a@b"),
        ("http://ann@h/", "http://ann@h/"),
    ],
)
def test_no_url_shows_its_password(text: str, shown: str) -> None:
    """Corpus TEL-013: whoever's it is, known or not."""
    redactor = Redactor(list, lambda: 0)
    assert redactor.text(text) == shown
    assert redactor.bytes(text.encode()) == shown.encode()


def test_short_secrets_are_not_looked_for() -> None:
    """Own promise: whoever has one of five characters would read nothing any more."""
    redactor = Redactor(lambda: [Secret("x" * (SHORTEST - 1))], lambda: 1)
    assert redactor.text("x" * 20) == "x" * 20


def test_a_secret_that_holds_another_one_goes_as_a_whole() -> None:
    """Own promise: else the rest of it would stay."""
    redactor = Redactor(lambda: [Secret("inner-secret"), Secret("outer-inner-secret-rest")], lambda: 1)
    assert redactor.text("outer-inner-secret-rest inner-secret") == f"{HIDDEN} {HIDDEN}"


def test_secrets_are_known_as_soon_as_there_are_some_and_as_long() -> None:
    """Issue 8, 4: those of a reload and those that are renewed too; equal ones are counted by themselves."""
    redactor = Redactor()
    assert redactor.text("a-secret-of-this-test") == "a-secret-of-this-test"
    first, second = Secret("a-secret-of-this-test"), Secret("a-secret-of-this-test")
    assert redactor.text("a-secret-of-this-test") == HIDDEN
    del first
    gc.collect()
    assert second in living()
    again = Redactor()
    assert again.text("a-secret-of-this-test") == HIDDEN
    del second
    gc.collect()
    assert Redactor().text("a-secret-of-this-test") == "a-secret-of-this-test"


def test_values_are_without_secrets_at_any_depth() -> None:
    """Issue 8, 4: by name and by value; what nobody can look into is not shown."""
    redactor = Redactor(lambda: [Secret("hunter2-hunter2")], lambda: 1)
    deep: object = "hunter2-hunter2"
    for _ in range(5_000):
        deep = [deep]
    said = {
        "why": "hunter2-hunter2",
        "hunter2-hunter2": 1,
        "token": {"a": "b"},
        "list": ({"Cookie": "c"}, "x", 1, None, True, 1.5),
        "raw": b"hunter2",
        "deep": deep,
    }
    shown = redactor.value(said)
    assert isinstance(shown, dict)
    assert "hunter2" not in repr(shown)
    del shown["deep"]
    assert shown == {
        "why": HIDDEN,
        HIDDEN: 1,
        "token": HIDDEN,
        "list": [{"Cookie": HIDDEN}, "x", 1, None, True, 1.5],
        "raw": HIDDEN,
    }


@pytest.mark.parametrize(
    "name",
    [
        *("Authorization", "Proxy-Authorization", "Cookie", "Set-Cookie", "X-API-Key", "api_key", "apiKey"),
        *("token", "access_token", "id_token", "password", "PASSWD", "passwordHash", "client_secret"),
        *("private_key", "privateKey", "Mcp-Session-Id", "sessionId", "credentials", "client_assertion"),
    ],
)
def test_these_names_are_of_credentials(name: str) -> None:
    """Issue 8, 4."""
    assert hides(name)


@pytest.mark.parametrize(
    "name", ["query", "limit", "tenant", "tool", "why", "user", "path", "Accept", "reason"]
)
def test_these_names_are_not(name: str) -> None:
    """Own promise: lines stay readable."""
    assert not hides(name)
