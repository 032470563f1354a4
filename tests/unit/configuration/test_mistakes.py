"""Mistakes: one line each, harmless for a terminal, in file order."""

import pytest

from proxy.configuration.mistakes import Position, Report, SettingsError, did_you_mean, joined, shown


def test_a_mistake_is_one_line_with_its_place_and_remedy() -> None:
    """design section 3: file:line:column: path: what, why, remedy."""
    report = Report()
    report.add(Position("c.yaml", 3, 7), "listen.path", "is not a path", "it must begin with /", "write /mcp")
    report.add(Position("--set drain_s"), "drain_s", "is a text", "a number is needed", "write a number")
    report.add(Position("c.yaml", 1, 1), "", "is not UTF-8", "no other encoding is read", "save it as UTF-8")
    assert str(SettingsError(report.mistakes)).split("\n") == [
        "c.yaml:1:1: is not UTF-8, no other encoding is read, save it as UTF-8",
        "c.yaml:3:7: listen.path: is not a path, it must begin with /, write /mcp",
        "--set drain_s: drain_s: is a text, a number is needed, write a number",
    ]


def test_mistakes_come_in_file_order_and_overrides_last() -> None:
    """A reader corrects from top to bottom; 10 comes after 9."""
    report = Report()
    for at in (
        Position("environment B"),
        Position("F", 10, 1),
        Position("F", 9, 12),
        Position("--set a"),
        Position("F", 9, 2),
    ):
        report.add(at, "", "what", "why", "remedy")
    places = [(one.file, one.line, one.column) for one in report.mistakes]
    assert places == [
        ("F", 9, 2),
        ("F", 9, 12),
        ("F", 10, 1),
        ("environment B", None, None),
        ("--set a", None, None),
    ]


def test_a_default_has_the_place_of_the_section_around_it() -> None:
    """Two sections may contradict each other although one of them is not written."""
    report = Report()
    report.remember("", Position("F", 1, 1))
    report.remember("listen", Position("F", 4, 3))
    assert report.place_of("listen.address") == Position("F", 4, 3)
    assert report.place_of("operations.address") == Position("F", 1, 1)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("drain_s", "drain_s"),
        ("naïve", "naïve"),
        ("a\nb", "a\\nb"),
        ("\x1b[2Jx", "\\x1b[2Jx"),
        ("\u202egnp", "\\u202egnp"),
        ("\udce9", "\\udce9"),
        ("x" * 60, "x" * 60),
        ("x" * 61, "x" * 60 + "…"),
    ],
)
def test_names_are_harmless_for_a_terminal(name: str, text: str) -> None:
    """A key of the file may try to write its own mistakes, or to look like another key."""
    assert shown(name) == text


@pytest.mark.parametrize(
    ("path", "name", "result"),
    [
        ("", "listen", "listen"),
        ("listen", "address", "listen.address"),
        ("upstream.headers", "X-Team", "upstream.headers.X-Team"),
        ("upstream.headers", "a.b", 'upstream.headers."a.b"'),
        ("", "listen.address", '"listen.address"'),
        ("", "", '""'),
    ],
)
def test_a_name_that_looks_like_a_path_is_quoted(path: str, name: str, result: str) -> None:
    """Else a key `listen.address` would be taken for the setting of that path."""
    assert joined(path, name) == result


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("adress", 'did you mean "address"?'),
        ("ADDRESS", 'did you mean "address"?'),
        ("max_body", 'did you mean "max_body_bytes"?'),
        ("zzz", "known here: address, max_body_bytes"),
        ("x" * 1_000_000, "known here: address, max_body_bytes"),
    ],
)
def test_the_nearest_known_name_is_the_remedy(name: str, remedy: str) -> None:
    """CFG-005: a typing error is refused, and the word that was meant is offered."""
    assert did_you_mean(name, ["address", "max_body_bytes"]) == remedy
