"""A Secret shows itself nowhere by accident."""

import copy
import json
import logging
import pickle
import sys
import threading

import msgspec
import pytest

from proxy.secret import Secret, living, names_a_credential

TEXT = "hunter2"


class Holder(msgspec.Struct, frozen=True):
    token: Secret


@pytest.mark.parametrize(
    "shown",
    [
        repr(Secret(TEXT)),
        str(Secret(TEXT)),
        f"{Secret(TEXT)}",
        f"{Secret(TEXT)!r:>40}",
        format(Secret(TEXT), ">40"),
        "%s %r" % (Secret(TEXT), Secret(TEXT)),  # noqa: UP031  logging formats like this
        str([Secret(TEXT)]),
        repr(Holder(Secret(TEXT))),
        str({"token": Secret(TEXT)}),
        str(ValueError(Secret(TEXT))),
        logging.LogRecord("n", 10, "p", 1, "it is %s", (Secret(TEXT),), None).getMessage(),
    ],
)
def test_no_way_of_printing_shows_it(shown: str) -> None:
    """Own promise: secrets are wrapped in a type whose repr hides them (style guide 6)."""
    assert TEXT not in shown
    assert "Secret(…)" in shown


def test_it_is_revealed_where_it_is_sent() -> None:
    """The one way out."""
    assert Secret(TEXT).reveal() == TEXT


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_it_is_not_pickled(protocol: int) -> None:
    """A pickle is a file or a message to another process."""
    with pytest.raises(TypeError, match="not written anywhere"):
        pickle.dumps(Secret(TEXT), protocol)
    with pytest.raises(TypeError, match="not written anywhere"):
        pickle.dumps(Holder(Secret(TEXT)), protocol)


def test_it_becomes_no_json() -> None:
    """Neither of the two writers in use knows it."""
    with pytest.raises(TypeError):
        json.dumps(Secret(TEXT))
    with pytest.raises(TypeError):
        msgspec.json.encode(Holder(Secret(TEXT)))
    with pytest.raises(TypeError):
        msgspec.to_builtins(Holder(Secret(TEXT)))


def test_its_state_is_not_handed_out() -> None:
    """What copyreg and inspectors ask an object for."""
    with pytest.raises(TypeError):
        Secret(TEXT).__getstate__()
    with pytest.raises(TypeError):
        vars(Secret(TEXT))


def test_copies_are_the_same_secret() -> None:
    """Settings may be copied for a test or a report."""
    secret = Secret(TEXT)
    assert copy.copy(secret) is secret
    assert copy.deepcopy([secret])[0] is secret


def test_equality_is_that_of_the_text() -> None:
    """A reload that changes a secret is a change; a Secret never equals its text."""
    assert Secret(TEXT) == Secret(TEXT)
    assert Secret(TEXT) != Secret(TEXT + "x")
    assert Secret("é\ud800") == Secret("é\ud800")
    assert Secret(TEXT) != TEXT
    assert len({Secret(TEXT), Secret(TEXT), Secret("other")}) == 2


def test_it_never_changes() -> None:
    """It is hashed and shared."""
    secret = Secret(TEXT)
    with pytest.raises(AttributeError):
        secret._text = "other"
    with pytest.raises(AttributeError):
        del secret._text
    with pytest.raises(AttributeError):
        secret.note = "other"
    assert secret.reveal() == TEXT


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("Authorization", True),
        ("Proxy-AUTHORIZATION", True),
        ("Cookie", True),
        ("X-API-Key", True),
        ("x-auth-token", True),
        ("Client-Secret", True),
        ("X-Password", True),
        ("X-Team", False),
        ("User-Agent", False),
        ("Accept", False),
    ],
)
def test_names_tell_credentials(name: str, is_one: bool) -> None:
    """Under these names a clear text is refused, under others it is an ordinary header."""
    assert names_a_credential(name) is is_one


def test_secrets_are_counted_while_others_make_some() -> None:
    """A reload reads settings in a thread while lines are written in the loop."""
    is_over = threading.Event()

    def make() -> None:
        while not is_over.is_set():
            held = [Secret(f"{number}") for number in range(100)]
            del held

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    thread = threading.Thread(target=make)
    thread.start()
    try:
        mine = [Secret(TEXT) for _ in range(2_000)]
        for _ in range(100):
            assert {id(each) for each in mine} <= {id(each) for each in living()}
    finally:
        is_over.set()
        thread.join()
        sys.setswitchinterval(before)
