"""Unquoted words: YAML 1.2 core values, and a mistake wherever YAML 1.1 would have read something else."""

import pytest

from proxy.configuration.mistakes import Unfit
from proxy.configuration.scalars import plain_value


@pytest.mark.parametrize(
    "text",
    [
        *("y", "Y", "n", "N", "yes", "Yes", "YES", "no", "No", "NO", "on", "On", "ON", "off", "Off", "OFF"),
        *("012", "010", "08", "00", "-07", "0_1", "007_1"),
        *("1_000", "-1_0", "1_0.5", "1.0_0", "._5", "0x_1f", "1_0e3", "685_230.15"),
        *("0b1", "+0b1_0", "-0x1f", "+0x1F", "-0o7"),
        *("1:30", "190:20:30", "-1:30", "190:20:30.15", "8080:30", "0:1"),
        *("2025-03-26", "2001-12-14t21:59:43.10-05:00", "2001-12-14 21:59:43.10 -5", "2001-1-1"),
        *("<<", "="),
        *(".inf", "-.INF", "+.Inf", ".nan", ".NaN", ".NAN", "1e400", "-1e999"),
        *("9" * 41, "0x" + "f" * 40, "1." + "0" * 40),
    ],
)
def test_words_that_readers_disagree_about_are_refused(text: str) -> None:
    """YAML 1.2.2 section 10.3.2 against yaml.org/type of 1.1; own promise (design section 3)."""
    with pytest.raises(Unfit) as caught:
        plain_value(text)
    assert "quote" in caught.value.remedy
    assert len(text) < 3 or text not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("~", None),
        ("null", None),
        ("Null", None),
        ("NULL", None),
        ("true", True),
        ("True", True),
        ("TRUE", True),
        ("false", False),
        ("False", False),
        ("FALSE", False),
        ("0", 0),
        ("-0", 0),
        ("+12", 12),
        ("-19", -19),
        ("9007199254740993", 9007199254740993),
        ("9" * 40, int("9" * 40)),
        ("0o14", 12),
        ("0x1F", 31),
        ("0.5", 0.5),
        (".5", 0.5),
        ("5.", 5.0),
        ("-1.5e-3", -0.0015),
        ("1e3", 1000.0),
    ],
)
def test_core_values_are_exact(text: str, value: object) -> None:
    """YAML 1.2.2 section 10.3.2; the type is part of the value."""
    read = plain_value(text)
    assert (read, type(read)) == (value, type(value))


@pytest.mark.parametrize(
    "text",
    [
        *("nope", "yess", "oN", "nO", "tRue", "nil", "None", "ye", "off1"),
        *("127.0.0.1:8080", "127.0.0.1", "1.2.3", "a:1", "1:60", "1:30x", "v1", "1s", "64Mi", "0o8", "0xg"),
        *(
            "2025-03",
            "2025-03-26-x",
            "http://127.0.0.1:8000/mcp",
            "${DRAIN}",
            "e3",
            "+",
            "-",
            ".",
            "_",
            "inf",
            "nan",
        ),
        *("１２", "٣"),
    ],
)
def test_other_words_are_texts(text: str) -> None:
    """No reading but text is known for these in either version."""
    assert plain_value(text) == text
