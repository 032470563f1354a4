"""Does a single value fit its field? Value and type in; the field's value out, or Unfit. Pure.

Messages hold limits and kinds, never the value.
"""

from collections.abc import Callable
from typing import Final

from msgspec import inspect as kinds

from .mistakes import Unfit, did_you_mean
from .scalars import plain_value

Plain = str | int | float | bool

_UNITS: Final = (("_per_s", " a second"), ("_ms", " milliseconds"), ("_s", " seconds"), ("_bytes", " bytes"))


def fit_scalar(value: Plain, kind: kinds.Type, name: str, *, is_typed: bool) -> object:
    """The value of the field `name` of this kind. Raises Unfit.

    `is_typed` is false for a text from a variable, a file or an override: it is read as the field wants it,
    by the rules for unquoted words. A text that was quoted in the file stays a text.
    """
    if isinstance(kind, kinds.LiteralType):
        return _literal(value, kind, is_typed=is_typed)
    if isinstance(kind, kinds.StrType):
        return _text(value, kind)
    if isinstance(kind, kinds.CustomType):
        return _custom(value, kind)
    if not is_typed and isinstance(value, str):
        value = _word(value)
    if isinstance(kind, kinds.UnionType):
        return value  # any single value, as it was written: 1, 1.0, "1" and true stay four
    if isinstance(kind, kinds.BoolType):
        if not isinstance(value, bool):
            raise Unfit(
                f"is {_kind_of(value)}", "true or false is needed", "write true or false, without quotes"
            )
        return value
    if isinstance(kind, kinds.IntType | kinds.FloatType):
        return _number(value, kind, name)
    raise TypeError(f"settings cannot hold {kind!r}")


def _literal(value: Plain, kind: kinds.LiteralType, *, is_typed: bool) -> object:
    for allowed in kind.values:
        # 1 is not true and not "1": in Python they would be equal or coerced.
        if type(allowed) is type(value) and allowed == value:
            return allowed
        if not is_typed and str(allowed) == value:
            return allowed
    texts = [str(allowed) for allowed in kind.values]
    listed = f"one of {', '.join(texts)}" if len(texts) > 1 else texts[0]
    if isinstance(value, str) and any(isinstance(allowed, str) for allowed in kind.values):
        remedy = did_you_mean(value, texts)
    else:
        remedy = f"write {texts[0]}, without quotes"
    raise Unfit("is no value for this", f"it must be {listed}", remedy)


def _text(value: Plain, kind: kinds.StrType) -> str:
    if not isinstance(value, str):
        raise Unfit(f"is {_kind_of(value)}", "a text is needed", "quote it")
    if kind.max_length is not None and len(value) > kind.max_length:
        raise Unfit("is too long", f"at most {kind.max_length} characters are allowed", "shorten it")
    if kind.min_length is not None and len(value) < kind.min_length:
        raise Unfit("is too short", f"at least {kind.min_length} characters are needed", "lengthen it")
    return value


def _custom(value: Plain, kind: kinds.CustomType) -> object:
    """A type of our own reads itself: `parse(text)`, which raises Unfit."""
    if not isinstance(value, str):
        raise Unfit(f"is {_kind_of(value)}", "a text is needed", "quote it")
    parse: Callable[[str], object] = getattr(kind.cls, "parse")  # noqa: B009  msgspec knows the class as `type`
    return parse(value)


def _word(text: str) -> Plain:
    """What an unquoted word would be, for a text that nobody could have quoted."""
    remedy = "write true, false or a decimal number"
    try:
        value = plain_value(text)
    except Unfit as unfit:
        raise Unfit(unfit.what, unfit.why.removeprefix("unquoted "), remedy) from None
    if value is None:
        raise Unfit("is empty", "a value is needed", remedy)
    return value


def _number(value: Plain, kind: kinds.IntType | kinds.FloatType, name: str) -> int | float:
    if isinstance(value, bool | str):
        raise Unfit(f"is {_kind_of(value)}", "a number is needed", "write a number, without quotes")
    if isinstance(kind, kinds.IntType) and not isinstance(value, int):
        raise Unfit(
            "is not a whole number", "a whole number is needed", "write it without point and exponent"
        )
    too_low = (kind.ge is not None and value < kind.ge) or (kind.gt is not None and value <= kind.gt)
    too_high = (kind.le is not None and value > kind.le) or (kind.lt is not None and value >= kind.lt)
    if too_low or too_high:
        raise Unfit(
            "is out of bounds", f"it must be {_bounds(kind, name)}", f"write {'more' if too_low else 'less'}"
        )
    return value if isinstance(kind, kinds.IntType) else float(value)


def _bounds(kind: kinds.IntType | kinds.FloatType, name: str) -> str:
    words = (("at least", kind.ge), ("more than", kind.gt), ("at most", kind.le), ("less than", kind.lt))
    unit = next((unit for ending, unit in _UNITS if name.endswith(ending)), "")
    return " and ".join(f"{word} {bound}" for word, bound in words if bound is not None) + unit


def _kind_of(value: Plain) -> str:
    if isinstance(value, bool):
        return "a boolean"
    return "a text" if isinstance(value, str) else "a number"
