"""Tree and type → value. The types here are of the kinds that rooms may bring, beyond those in use today."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

import pytest
from msgspec import Meta, Struct, field, inspect

from proxy.configuration.convert import FAILED, MOST_REFERRED_CHARACTERS, Converter, Spot
from proxy.configuration.files import read_bounded
from proxy.configuration.mistakes import Report, Unfit
from proxy.configuration.overrides import apply_environment, apply_sets
from proxy.configuration.tree import read_tree
from proxy.configuration.values import Address, fit
from proxy.secret import Secret


def check_even(number: int) -> None:
    if number % 2:
        raise Unfit("is odd", "pairs are needed", "add one")


class Key(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="key"):
    header: str
    value: Secret


class Token(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind", tag="token"):
    issuer: str
    leeway_s: Annotated[int, Meta(ge=0, lt=60)] = 30


class Admin(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    token: Secret


class Room(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    level: Literal["info", "debug"] = "info"
    pairs: Annotated[int, Meta(extra={"fit": check_even})] = 2
    share: Annotated[float, Meta(gt=0, le=1)] = 0.5
    awake: bool = False
    names: frozenset[str] = frozenset()
    rate_per_s: Annotated[float, Meta(ge=0.5)] | None = None
    address: Address = field(default_factory=lambda: Address("127.0.0.1", 1))
    limits: Mapping[str, Annotated[int, Meta(ge=1)]] = field(default_factory=lambda: MappingProxyType({}))


class House(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    room: Room = field(default_factory=Room)
    admin: Admin | None = None
    proofs: tuple[Key | Token, ...] = ()
    note: Annotated[str, Meta(min_length=2, max_length=4)] = "none"


def convert(
    text: str,
    *,
    environ: Mapping[str, str] | None = None,
    overrides: tuple[str, ...] = (),
) -> tuple[object, list[str]]:
    report = Report()
    kind = inspect.type_info(House)
    assert isinstance(kind, inspect.StructType)
    root = read_tree(text.encode(), "F", report)
    assert root is not None
    apply_environment(root, kind, environ or {}, report)
    apply_sets(root, kind, overrides, report)
    value = Converter(report, environ or {}, read_bounded).read(root, kind, Spot(), root.at)
    return value, [str(mistake) for mistake in report.mistakes]


def test_every_kind_of_field_is_read() -> None:
    """Numbers, words, sets, mappings, optional sections, one of several structs, types that read themselves."""
    value, mistakes = convert(
        """\
room:
  {level: debug, pairs: 4, share: 1, awake: true, names: [b, a, b], rate_per_s: 1, address: "[::1]:0", limits: {a: 1}}
admin: {token: "${T}"}
proofs: [{kind: token, issuer: i}, {value: "x${T}", kind: key, header: h}]
note: okay
""",
        environ={"T": "hunter2"},
    )
    assert mistakes == []
    assert value == House(
        room=Room(
            level="debug",
            pairs=4,
            share=1.0,
            awake=True,
            names=frozenset({"a", "b"}),
            rate_per_s=1.0,
            address=Address("::1", 0),
            limits=MappingProxyType({"a": 1}),
        ),
        admin=Admin(token=Secret("hunter2")),
        proofs=(Token(issuer="i", leeway_s=30), Key(header="h", value=Secret("xhunter2"))),
        note="okay",
    )
    assert isinstance(value, House)
    assert isinstance(value.room.share, float)


def test_nothing_written_is_all_defaults() -> None:
    """An empty mapping is a house as its types say."""
    assert convert("{}") == (House(), [])


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("[]", "F:1:1: is a list, a section is needed, write key: value pairs"),
        ("text", "F:1:1: is a single value, a section is needed, write key: value pairs"),
        ("room: []", "F:1:7: room: is a list, a section is needed, write key: value pairs"),
        ("room:", "F:1:6: room: has no value, null says nothing, write one, or leave the key out"),
        ("room: ~", "F:1:7: room: has no value, null says nothing, write one, or leave the key out"),
        ("admin: null", "F:1:8: admin: has no value, null says nothing, write one, or leave the key out"),
        ("admin: {}", "F:1:1: admin.token: is missing, it has no default, write token: …"),
        ("note: 5", "F:1:7: note: is a number, a text is needed, quote it"),
        ("note: true", "F:1:7: note: is a boolean, a text is needed, quote it"),
        ("note: [a]", "F:1:7: note: is a list, a single value is needed, write one value"),
        ("note: {a: b}", "F:1:7: note: is a section, a single value is needed, write one value"),
        ("note: x", "F:1:7: note: is too short, at least 2 characters are needed, lengthen it"),
        ("note: xxxxx", "F:1:7: note: is too long, at most 4 characters are allowed, shorten it"),
        (
            "room: {level: dbug}",
            'F:1:15: room.level: is no value for this, it must be one of debug, info, did you mean "debug"?',
        ),
        (
            "room: {level: 1}",
            "F:1:15: room.level: is no value for this, it must be one of debug, info, write debug, without quotes",
        ),
        ("room: {pairs: 3}", "F:1:15: room.pairs: is odd, pairs are needed, add one"),
        (
            "room: {pairs: 2.0}",
            "F:1:15: room.pairs: is not a whole number, a whole number is needed, "
            "write it without point and exponent",
        ),
        (
            'room: {pairs: "2"}',
            "F:1:15: room.pairs: is a text, a number is needed, write a number, without quotes",
        ),
        (
            "room: {pairs: true}",
            "F:1:15: room.pairs: is a boolean, a number is needed, write a number, without quotes",
        ),
        (
            "room: {share: 0}",
            "F:1:15: room.share: is out of bounds, it must be more than 0 and at most 1, write more",
        ),
        (
            "room: {share: 1.01}",
            "F:1:15: room.share: is out of bounds, it must be more than 0 and at most 1, write less",
        ),
        (
            "room: {rate_per_s: 0}",
            "F:1:20: room.rate_per_s: is out of bounds, it must be at least 0.5 a second, write more",
        ),
        (
            'room: {awake: "true"}',
            "F:1:15: room.awake: is a text, true or false is needed, write true or false, without quotes",
        ),
        (
            "room: {awake: 1}",
            "F:1:15: room.awake: is a number, true or false is needed, write true or false, without quotes",
        ),
        ("room: {names: a}", "F:1:15: room.names: is a single value, a list is needed, write [one, two]"),
        ("room: {names: [a, 5]}", "F:1:19: room.names[1]: is a number, a text is needed, quote it"),
        ("room: {address: 5}", "F:1:17: room.address: is a number, a text is needed, quote it"),
        ("room: {limits: [a]}", "F:1:16: room.limits: is a list, a mapping is needed, write {key: value}"),
        (
            "room: {limits: {a: 0}}",
            "F:1:20: room.limits.a: is out of bounds, it must be at least 1, write more",
        ),
        ("proofs: {}", "F:1:9: proofs: is a section, a list is needed, write [one, two]"),
        (
            "proofs: [x]",
            "F:1:10: proofs[0]: is a single value, keys are needed, write {kind: key or token, …}",
        ),
        (
            "proofs: [{header: h}]",
            "F:1:10: proofs[0].kind: is missing, it says which keys may follow, write kind: key or token",
        ),
        (
            "proofs: [{kind: tokn, issuer: i}]",
            'F:1:17: proofs[0].kind: is no value for this, it must be one of key, token, did you mean "token"?',
        ),
        (
            "proofs: [{kind: token, issuer: i, leeway_s: 60}]",
            "F:1:45: proofs[0].leeway_s: is out of bounds, it must be at least 0 and less than 60 seconds, write less",
        ),
        (
            "proofs: [{kind: token}]",
            "F:1:10: proofs[0].issuer: is missing, it has no default, write issuer: …",
        ),
        (
            "proofs: [{kind: token, issuer: i, header: h}]",
            "F:1:35: proofs[0].header: is not known, a misspelt key would change nothing, "
            "known here: issuer, leeway_s, kind",
        ),
        # CFG-014: in clear, whatever the field is called, and never shown.
        (
            "admin: {token: hunter2}",
            "F:1:16: admin.token: is a secret in clear, settings are copied, logged and kept in version control, "
            "write ${file:/path} or ${VAR}",
        ),
        (
            'admin: {token: "${T:-hunter2}"}',
            "F:1:16: admin.token: is a secret in clear, settings are copied, logged and kept in version control, "
            "write ${file:/path} or ${VAR}",
        ),
        (
            "proofs: [{kind: key, header: h, value: hunter2}]",
            "F:1:40: proofs[0].value: is a secret in clear, "
            "settings are copied, logged and kept in version control, write ${file:/path} or ${VAR}",
        ),
        ("admin: {token: 5}", "F:1:16: admin.token: is no text, a text is needed, quote it"),
    ],
)
def test_what_does_not_fit_is_one_mistake_at_its_place(text: str, mistake: str) -> None:
    """Own promise: file:line:column: path: what, why, remedy; the value is never shown."""
    value, mistakes = convert(text)
    assert (value, mistakes) == (FAILED, [mistake])


@pytest.mark.parametrize(
    ("text", "environ", "note"),
    [
        ("room: {pairs: '${V}'}", {"V": "4"}, "Room(level='info', pairs=4,"),
        ("room: {share: '${V}'}", {"V": "1"}, "share=1.0,"),
        ("room: {awake: '${V:-true}'}", {}, "awake=True"),
        ("room: {level: '${V}'}", {"V": "debug"}, "level='debug'"),
        ("room: {address: '${V}'}", {"V": "[::1]:7"}, "Address('::1', 7)"),
        ("note: '${V}'", {"V": "012"}, "note='012'"),
        ("note: '${V}'", {"V": "no"}, "note='no'"),
    ],
)
def test_a_resolved_text_takes_the_type_of_its_field(text: str, environ: dict[str, str], note: str) -> None:
    """So that a number can come from a variable although a variable is always text."""
    value, mistakes = convert(text, environ=environ)
    assert mistakes == []
    assert note in repr(value)


@pytest.mark.parametrize(
    "raw", ["hunter2", "0127", "YES", "1:30", ".inf", "1_000", "99999999", "-5", "\udce9"]
)
@pytest.mark.parametrize(
    "place", ["room.pairs", "room.awake", "room.level", "room.share", "room.address", "room.names"]
)
def test_a_referred_value_is_never_in_a_message(place: str, raw: str) -> None:
    """Own promise: whatever goes wrong, what a variable holds is not shown."""
    section, name = place.split(".")
    value, mistakes = convert(f"{section}: {{{name}: '${{V}}'}}", environ={"V": raw})
    assert value is FAILED
    assert len(mistakes) == 1
    assert raw not in mistakes[0]


def test_a_secret_may_come_from_a_variable_of_its_own_but_not_from_the_command_line() -> None:
    """The environment is where secrets are mounted; arguments are seen by every process of the machine."""
    value, mistakes = convert("{}", environ={"MCP_SIDECAR_ADMIN__TOKEN": "hunter2"})
    assert (value, mistakes) == (House(admin=Admin(token=Secret("hunter2"))), [])
    value, mistakes = convert("{}", overrides=("admin.token=hunter2",))
    assert value is FAILED
    assert [mistake.partition(", ")[0] for mistake in mistakes] == [
        "--set admin.token: admin.token: is a secret in clear"
    ]


def test_one_big_file_named_often_does_not_fill_the_memory(tmp_path: Path) -> None:
    """A reference is 20 bytes, what it stands for 64 KiB."""
    big = tmp_path / "big"
    big.write_bytes(b"x" * 65_536)
    most = MOST_REFERRED_CHARACTERS // 65_536
    items = ", ".join([f'"${{file:{big}}}"'] * (most + 1))
    value, mistakes = convert(f"room: {{names: [{items}]}}")
    assert value is FAILED
    assert [mistake.partition(": ")[2] for mistake in mistakes] == [
        f"room.names[{most}]: is one reference too many, all of them may hold 4194304 characters, refer to less"
    ]
    value, mistakes = convert(f"room: {{names: [{items.rpartition(',')[0]}]}}")
    assert mistakes == []


def test_a_check_may_point_at_one_key() -> None:
    """Where a whole mapping is judged, the mistake still has the line of the entry."""

    def refuse_b(mapping: Mapping[str, str]) -> None:
        if "two" in mapping:
            raise Unfit("is too much", "one is enough", "remove it", key="two")

    class Keys(Struct, frozen=True):
        keys: Annotated[Mapping[Annotated[str, fit(lambda _: None)], str], Meta(extra={"fit": refuse_b})]

    report = Report()
    root = read_tree(b"keys:\n  one: a\n  two: b\n", "F", report)
    assert root is not None
    assert Converter(report, {}, read_bounded).read(root, inspect.type_info(Keys), Spot(), root.at) is FAILED
    assert [str(one) for one in report.mistakes] == ["F:3:3: keys.two: is too much, one is enough, remove it"]


class Passed(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    given: Mapping[str, Any]


def passed_on(text: str, **environ: str) -> tuple[object, list[str]]:
    report = Report()
    root = read_tree(text.encode(), "F", report)
    assert root is not None
    kind = inspect.type_info(Passed)
    read = Converter(report, environ, read_bounded).read(root, kind, Spot(), root.at)
    return read, [str(mistake).partition(", ")[0] for mistake in report.mistakes]


def test_what_is_only_passed_on_may_be_anything_that_json_has() -> None:
    """Arguments in test vectors: nulls, lists and sections inside each other; references as everywhere."""
    value, mistakes = passed_on(
        'given: {a: null, b: [1, 2.5, true, {c: ["x", "${V}", "$${V}"]}], d: {}}', V="1"
    )
    assert mistakes == []
    assert value == Passed(given={"a": None, "b": [1, 2.5, True, {"c": ["x", "1", "${V}"]}], "d": {}})


def test_mistakes_inside_of_it_are_told_all_at_once() -> None:
    value, mistakes = passed_on("given:\n  a: [{b: '${NONE}'}]\n  c: '${NADA}'\n")
    assert value is FAILED
    assert mistakes == [
        "F:2:11: given.a: refers to the variable NONE",
        "F:3:6: given.c: refers to the variable NADA",
    ]
