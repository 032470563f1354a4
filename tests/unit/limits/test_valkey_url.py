"""Where the store is: read strictly, and never shown."""

from __future__ import annotations

import pytest

from proxy.configuration.mistakes import Unfit
from proxy.limits.valkey_url import Place, read_place
from proxy.secret import Secret


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("redis://127.0.0.1", Place(host="127.0.0.1")),
        ("redis://127.0.0.1:6380/3", Place(host="127.0.0.1", port=6380, database=3)),
        ("valkey://store/", Place(host="store")),
        ("rediss://store:1", Place(host="store", port=1, is_encrypted=True)),
        ("valkeys://[::1]:1/0", Place(host="::1", port=1, is_encrypted=True)),
        ("redis://:p%40ss%2F@store", Place(host="store", password=Secret("p@ss/"))),
        ("redis://me:secret@store", Place(host="store", user="me", password=Secret("secret"))),
    ],
)
def test_a_url_names_a_place(url: str, place: Place) -> None:
    assert read_place(Secret(url)) == place


@pytest.mark.parametrize(
    "url",
    [
        *("", "store:6379", "http://store", "redis:store", "redis://", "redis://:6379", "redis:///0"),
        *("redis://store:0", "redis://store:70000", "redis://store:x", "redis://store:-1", "redis://[::1"),
        *(
            "redis://store/x",
            "redis://store/-1",
            "redis://store/01",
            "redis://store/0/1",
            "redis://store/99999",
        ),
        *("redis://store?ssl=false", "redis://store/0#a", "redis://store?", "redis://store#"),
        *("redis://st\tore", "redis://store\n", "redis://störe", "redis://st ore", "unix:///run/valkey.sock"),
        "redis://me@store",
    ],
)
def test_what_is_no_place_is_refused(url: str) -> None:
    with pytest.raises(Unfit):
        read_place(Secret(url))


@pytest.mark.parametrize(
    "url",
    ["redis://me:hunter2-hunter2@store:x", "http://me:hunter2-hunter2@store", "redis://hunter2-hunter2@a?"],
)
def test_a_mistake_does_not_show_the_password(url: str) -> None:
    with pytest.raises(Unfit) as caught:
        read_place(Secret(url))
    assert "hunter2" not in f"{caught.value!r} {caught.value.__cause__!r}"
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_a_place_shows_no_password() -> None:
    place = read_place(Secret("rediss://me:hunter2-hunter2@[::1]:7000/2"))
    assert "hunter2" not in repr(place)
    assert place.origin == "rediss://[::1]:7000/2"
