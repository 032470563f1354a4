"""Equal arguments are known again, and nobody can guess them. Design section 6, args_hash."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from proxy.model import Ending, Permit
from proxy.telemetry.args_hash import DIGITS, ArgsHash
from proxy.telemetry.journey import Journeys, Observers, Record
from tests.fakes import PRINCIPAL, RULE, make_call

KEY = b"k" * 32


def test_the_same_arguments_have_the_same_hash_however_they_were_written() -> None:
    """Computed with OpenSSL: HMAC-SHA-256 over {"a":1,"b":[true,"x"]}, the first 64 bits."""
    hashed = ArgsHash(KEY)
    assert hashed.of({"b": [True, "x"], "a": 1}) == "fc0d4c62d9a0ba8b"
    assert hashed.of({"a": 1, "b": [True, "x"]}) == "fc0d4c62d9a0ba8b"
    others: list[Mapping[str, object]] = [
        {},
        {"a": 1.0, "b": [True, "x"]},
        {"a": "1", "b": [True, "x"]},
        {"a": 1},
    ]
    assert len({hashed.of(each) for each in others} | {"fc0d4c62d9a0ba8b"}) == 5


def test_without_the_key_nobody_can_try_words() -> None:
    """Own promise: random for each process, so that a short secret is not found by hashing a dictionary."""
    arguments = {"password": "hunter2"}
    assert ArgsHash().of(arguments) != ArgsHash().of(arguments)
    assert len(ArgsHash().of(arguments)) == DIGITS


@pytest.mark.parametrize("method", ["tools/call", "prompts/get"])
def test_a_call_has_one_hash_also_when_its_arguments_are_gone(method: str) -> None:
    """A call that waits long is forwarded and forgotten: what policy let pass was seen before."""
    hashed = ArgsHash(KEY)
    heard: list[Record] = []
    record = Journeys(Observers(permitted=[hashed], ended=[hashed, heard.append])).open(0.0)
    call = make_call(method=method, target="echo", id=1, params={"arguments": {"a": 1}}, journey=record)
    record.read(call)
    record.permitted(Permit(call=call, principal=PRINCIPAL, rule=RULE))
    record.forget_payload()
    record.ended(Ending.COMPLETE)
    assert heard[0].args_hash == (hashed.of({"a": 1}) if method == "tools/call" else None)


def test_a_call_that_was_refused_has_one_too() -> None:
    """Who tries the same again and again is seen."""
    hashed = ArgsHash(KEY)
    record = Journeys(Observers(ended=[hashed])).open(0.0)
    record.read(make_call(target="echo", id=1, params={"arguments": {"a": 1}}, journey=record))
    record.ended(Ending.COMPLETE)
    assert record.args_hash == hashed.of({"a": 1})
