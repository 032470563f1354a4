"""Forms that ask users for secrets are found however they are written, and others are left alone.

Source: 2025-11-25 client/elicitation, "Security Considerations"; corpus TOOL-027.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxy.model import Ear, Ending, Kind, Permit, Reason, Refused
from proxy.policy.elicitation import CREATE, Forms, asks_for_secret
from tests.fakes import PRINCIPAL, RULE, make_batch, make_call


def form(message: str = "Fill this in", /, **fields: object) -> dict[str, Any]:
    """`fields` are types, or whole schemas."""
    described = {name: each if isinstance(each, dict) else {"type": each} for name, each in fields.items()}
    return {"message": message, "requestedSchema": {"type": "object", "properties": described}}


def asking(id: int | str, params: object) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": id, "method": CREATE, "params": params}).encode()


SECRET = form("Enter your password", a="string")
HARMLESS = form("Which branch?", branch="string")


@pytest.mark.parametrize(
    "params",
    [
        SECRET,
        form(password="string"),
        form(apiKey="string"),
        form(API_KEY="string"),
        form(**{"one-time code": "string"}),
        form(githubToken="string"),
        form(user_auth_token="string"),
        form(token="string"),
        form(pin="string"),
        form(cvv="integer"),
        form(a={"type": "string", "title": "Access token"}),
        form(a={"type": "string", "description": "The private key of your server."}),
        form(a={"type": "string", "format": "password"}),
        form(a={"title": "Password"}),
        form(password=7),
        form("Password:", a="string"),
        form("PLEASE PROVIDE YOUR GITHUB API KEY", a="string"),
        form("To go on, type\nthe number on your credit card.", a="string"),
        {**SECRET, "mode": "form"},
    ],
)
def test_a_form_that_asks_for_a_secret_is_found(params: object) -> None:
    assert asks_for_secret(params)


@pytest.mark.parametrize(
    "name",
    ["Раsswоrd", "passw0rd", "pass\u200bword", "ＰＡＳＳＷＯＲＤ", "pásswörd", "PassWord", "pass-word"],
)
def test_it_is_found_however_it_is_written(name: str) -> None:
    """Letters that look alike, digits for letters, what has no width, accents."""
    assert asks_for_secret(form(**{name: "string"}))
    assert asks_for_secret(form(f"Enter your {name}", a="string"))


@pytest.mark.parametrize(
    "params",
    [
        HARMLESS,
        form(name="string", email={"type": "string", "format": "email"}),
        form("Shall I reset the password?", ok="boolean"),
        form("Enter your password", a={"type": "string", "enum": ["yes", "no"]}),
        form("Enter your password"),
        form(max_tokens="integer"),
        form(pageToken="string"),
        form(next_page_token="string"),
        form(pin_to_top="boolean"),
        form(keyboard="string", shipping_code="string", author_key="string"),
        {"mode": "url", "message": "Enter your password", "url": "https://id.example"},
        {"message": "Enter your password"},
    ],
)
def test_other_forms_are_left_alone(params: object) -> None:
    """Pages are where secrets belong; what is chosen is not typed."""
    assert not asks_for_secret(params)


@pytest.mark.parametrize(
    "params",
    [
        {},
        None,
        [],
        "x",
        {"message": 1},
        {"message": "x", "requestedSchema": []},
        {"message": "x", "requestedSchema": {"properties": ["password"]}},
    ],
)
def test_a_form_nobody_can_read_counts_as_asking(params: object) -> None:
    """Forms of hundreds of kilobytes come as {}."""
    assert asks_for_secret(params)


class Room:
    """Forms, and what they told."""

    def __init__(self, *, is_blocking: bool = True) -> None:
        self.told: list[str] = []
        self._forms = Forms(is_blocking=is_blocking, found=self.told.append)

    def ear(self, kind: Kind = Kind.REQUEST) -> Ear:
        ear = self._forms(Permit(call=make_call(kind=kind), principal=PRINCIPAL, rule=RULE), None)
        assert ear is not None
        return ear


def test_in_place_of_a_form_the_user_is_told_what_was_withheld() -> None:
    """Its id and what links it to its task stay: the server gets its answer, and nobody waits for ever."""
    room = Room()
    ear = room.ear()
    params = {**SECRET, "mode": "form", "_meta": {"progressToken": 7}}
    ear.request("q", CREATE, params)
    changed = json.loads(ear.passed_on(asking("q", params)))
    assert changed["id"] == "q"
    assert changed["method"] == CREATE
    assert changed["params"]["_meta"] == {"progressToken": 7}
    assert changed["params"]["requestedSchema"] == {"type": "object", "properties": {}}
    assert "withheld" in changed["params"]["message"]
    assert room.told == ["block"]
    other = b'{"jsonrpc":"2.0","id":1,"result":{}}'
    assert ear.passed_on(other) is other


def test_of_several_messages_only_the_form_changes() -> None:
    """2025-03-26 has arrays in events; ids of two types are two."""
    ear = Room().ear(Kind.LISTEN)
    ear.request(1, CREATE, HARMLESS)
    ear.request("2", CREATE, SECRET)
    ear.request(2, "ping", {})
    harmless, ping = asking(1, HARMLESS), b'{"jsonrpc":"2.0","id":2,"method":"ping"}'
    passed = ear.passed_on(b"[" + b",".join([harmless, asking("2", SECRET), ping]) + b"]")
    one, two, three = json.loads(passed)
    assert (one, three) == (json.loads(harmless), json.loads(ping))
    assert harmless in passed
    assert two["params"]["requestedSchema"]["properties"] == {}


def test_a_form_that_was_too_large_to_be_read_goes_nowhere() -> None:
    ear = Room().ear()
    ear.request(3, CREATE, {})
    large = asking(3, {**SECRET, "message": "x" * 300_000})
    assert len(ear.passed_on(large)) < 1_000


@pytest.mark.parametrize("shape", [lambda each: {"a": each}, lambda each: [each]])
def test_a_result_that_asks_for_a_secret_is_refused(shape: Any) -> None:
    """2026-07-28, multi-round-trip requests: nothing of it is told."""
    room = Room()
    asks = {"method": CREATE, "params": SECRET}
    with pytest.raises(Refused) as refused:
        room.ear().result("tools/call", {"resultType": "input_required", "inputRequests": shape(asks)})
    assert refused.value.reason is Reason.UPSTREAM_NONSENSE
    assert room.told == ["block"]


def test_other_results_pass() -> None:
    room = Room()
    ear = room.ear()
    harmless = {"method": CREATE, "params": HARMLESS}
    roots = {"method": "roots/list", "params": {}}
    results: list[object] = [
        {"inputRequests": {"a": harmless, "b": roots, "c": 7}},
        {"inputRequests": 7},
        {"content": []},
        None,
        [],
    ]
    for result in results:
        ear.result("tools/call", result)
    assert room.told == []


def test_what_is_only_reported_keeps_its_bytes() -> None:
    room = Room(is_blocking=False)
    ear = room.ear()
    ear.request(1, CREATE, SECRET)
    data = asking(1, SECRET)
    assert ear.passed_on(data) is data
    ear.result("tools/call", {"inputRequests": {"a": {"method": CREATE, "params": SECRET}}})
    assert room.told == ["log", "log"]


def test_it_hears_the_rest_without_a_word() -> None:
    room = Room()
    ear = room.ear()
    ear.event_id(b"1")
    ear.request(1, "sampling/createMessage", SECRET)
    ear.notification(CREATE, SECRET)
    ear.ended(Ending.COMPLETE)
    assert room.told == []


def test_it_listens_where_something_can_be_asked() -> None:
    forms = Forms(is_blocking=True, found=lambda action: None)

    def listens(call: Any) -> bool:
        return forms(Permit(call=call, principal=PRINCIPAL, rule=RULE), None) is not None

    assert listens(make_batch(make_call(id=1), make_call(id=2)))
    assert listens(make_call(kind=Kind.LISTEN))
    assert not listens(make_call(kind=Kind.NOTIFICATION, id=None))
