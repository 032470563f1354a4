"""Single values and their fields, where a file could not show the case."""

import pytest
from msgspec import inspect

from proxy.configuration.mistakes import Unfit
from proxy.configuration.typed import fit_scalar


def test_a_number_among_words_is_matched_by_type_and_value() -> None:
    """1 is not true, and not 1.0: in Python they are equal."""
    kind = inspect.LiteralType((1, "one"))
    assert fit_scalar(1, kind, "f", is_typed=True) == 1
    assert fit_scalar("1", kind, "f", is_typed=False) == 1
    for other in (True, 1.0, "1", 2):
        with pytest.raises(Unfit):
            fit_scalar(other, kind, "f", is_typed=True)


def test_numbers_keep_every_digit() -> None:
    """A float would lose the last one."""
    assert fit_scalar(2**53 + 1, inspect.IntType(), "f", is_typed=True) == 2**53 + 1
    assert fit_scalar(str(2**53 + 1), inspect.IntType(), "f", is_typed=False) == 2**53 + 1


def test_a_type_that_settings_cannot_hold_is_a_fault_of_ours() -> None:
    """It must be seen by whoever adds the field, not by an operator."""
    with pytest.raises(TypeError, match="BytesType"):
        fit_scalar("x", inspect.BytesType(), "f", is_typed=True)
