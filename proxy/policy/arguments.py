"""What may the arguments of a tool call say? Rules per argument → compiled once → None, or what is wrong. Pure.

In: `ArgumentRule`s by name, and the arguments of one call as the strict reader left them (nesting and structure are
bounded there). Out: None, or one sentence that names the argument as it is configured, the limit and the remedy, and
never the value. Keeps nothing.

What servers do with arguments decides how they are read here: some (in Go) fold the case of names, so a name that
differs in case only is refused; some turn "5" into 5 and a text of JSON into an object, so a value of another type
than its rule speaks of is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Final, Literal, TypeAlias

from msgspec import Meta, Struct

from ..configuration.globs import regex_of
from ..configuration.mistakes import Unfit
from ..configuration.values import fit
from .urls import Hunt, UrlRule, host_of_glob

EVERYTHING: Final = "*"
_ABSENT: Final = object()
_NO_HOSTS: Final = frozenset(
    {"about", "blob", "data", "file", "filesystem", "jar", "javascript", "mailto", "vbscript", "view-source"}
)
_NUMERIC_END: Final = re.compile(r"(?:.*\.)?(?:[0-9]+|0[xX][0-9a-fA-F]*)\.?", re.ASCII)
_SHOWN: Final = 8
_DOTS: Final = re.compile(r"(?:^|[/\\])\.{1,2}(?:[/\\]|$)|%(?:25)*(?:2[ef]|5c|00)", re.ASCII | re.I)
"""Where a server would leave the directory that a pattern names: dot segments, and characters in disguise."""

Scalar: TypeAlias = str | int | float | bool
Judge: TypeAlias = Callable[[object], str | None]


def check_name(text: str) -> None:
    """Raise Unfit unless this names arguments: a name, a path of names that begins with a slash, or * for all."""
    if not text or not text.isprintable():
        raise Unfit("names no argument", "a name has printable characters", "write its name, a /path, or *")
    if text.startswith("/") and re.search("~(?![01])", text):
        raise Unfit("is no path", "~ stands in ~0 for ~ and in ~1 for /", "write ~0 for ~")


def check_host_glob(text: str) -> None:
    """Raise Unfit unless this is a host, or *.name for every name below one."""
    remedy = "write for example tools.example.com, *.example.com, 10.0.0.5 or fd00::5"
    if text == "*":
        raise Unfit("is no host", "it would list every host", "leave hosts out, or " + remedy)
    name = text.removeprefix("*.")
    if name != text and _NUMERIC_END.fullmatch(name):
        raise Unfit("is no host", "addresses have no names below them", remedy)
    if "*" in name or "?" in name or (name != text and ":" in name):
        raise Unfit("is no host", "a star stands for whole labels, at the beginning", remedy)
    try:
        host_of_glob(name)
    except ValueError:
        raise Unfit("is no host", "it is neither a name nor an address in its usual form", remedy) from None


def check_scheme(text: str) -> None:
    """Raise Unfit unless URLs of this scheme have a host that can be judged."""
    if not re.fullmatch(r"[a-z][a-z0-9+.-]*", text, re.ASCII):
        raise Unfit("is no URL scheme", "schemes are in lower case, without ://", "write for example https")
    if text in _NO_HOSTS:
        raise Unfit("cannot be allowed", "its URLs have no host that could be judged", "remove it")


HostGlob = Annotated[str, Meta(max_length=256), fit(check_host_glob)]
Scheme = Annotated[str, Meta(max_length=32), fit(check_scheme)]
Port = Annotated[int, Meta(ge=1, le=65_535)]
Bound = Annotated[float, Meta(ge=-9_007_199_254_740_992, le=9_007_199_254_740_992)]
ArgumentName = Annotated[str, Meta(max_length=256), fit(check_name)]


class ArgumentRule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one argument may say. Where hosts, schemes, addresses or ports stand, it is a URL or a list of URLs."""

    hosts: Annotated[tuple[HostGlob, ...], Meta(min_length=1, max_length=1_024)] | None = None
    """Hosts that URLs may lead to, and no others: exact names and addresses, and *.name for all names below it."""

    schemes: Annotated[tuple[Scheme, ...], Meta(min_length=1, max_length=32)] | None = None
    """Schemes of URLs. Absent: https and http."""

    addresses: Literal["public", "private", "any"] | None = None
    """Without `hosts`: public (also when absent) refuses hosts that are not on the internet, as far as their text
    tells; private refuses all others; any refuses only metadata services."""

    ports: Annotated[tuple[Port, ...], Meta(min_length=1, max_length=1_024)] | None = None
    """Ports of URLs. Absent: all."""

    in_text: bool = False
    """true: the argument is a text in which URLs may stand. false: it is one."""

    required: bool | None = None
    """true: it must be there. Absent: only where `equals` stands."""

    equals: Scalar | None = None
    """The one value it may have. 1, 1.0, "1" and true are four values."""

    one_of: Annotated[tuple[Scalar, ...], Meta(min_length=1, max_length=1_024)] | None = None
    """The values it may have."""

    min: Bound | None = None
    """Least number."""

    max: Bound | None = None
    """Greatest number."""

    max_length: Annotated[int, Meta(ge=0, le=16_777_216)] | None = None
    """Most characters of a text, most items of a list."""

    pattern: Annotated[str, Meta(min_length=1, max_length=1_024)] | None = None
    """What a text must look like as a whole: * is any text, ? one character, all else itself. Where a slash stands in
    the pattern, dot segments and encoded slashes in the text are refused."""


def check_rule(rule: ArgumentRule) -> None:
    """Raise Unfit where a rule says nothing, or two things that cannot both hold."""
    if rule == ArgumentRule():
        raise Unfit("says nothing", "every value would fit", "write for example max_length: 100")
    if rule.hosts is not None and rule.addresses in ("private", "any"):
        raise Unfit("says two things", "hosts alone decides where it stands", "remove addresses or hosts")
    if rule.in_text and not _has_urls(rule):
        raise Unfit("says nothing about URLs", "in_text says where they stand", "add hosts or addresses")
    if rule.min is not None and rule.max is not None and rule.min > rule.max:
        raise Unfit("fits no number", "min is more than max", "swap them")
    about_texts = _has_urls(rule) or rule.max_length is not None or rule.pattern is not None
    about_numbers = rule.min is not None or rule.max is not None
    if about_texts and about_numbers:
        raise Unfit("fits nothing", "min and max are for numbers, the others for texts", "choose one kind")
    if rule.equals is not None and (rule.one_of is not None or about_texts or about_numbers):
        raise Unfit("says two things", "equals alone decides where it stands", "remove the others")
    if rule.one_of is not None and (about_texts or about_numbers):
        raise Unfit("says two things", "one_of alone decides where it stands", "remove the others")


def check_arguments(rules: Mapping[str, ArgumentRule]) -> None:
    """Raise Unfit where rules of one tool do not go together."""
    seen: set[tuple[str, ...]] = set()
    for name, rule in rules.items():
        if name == EVERYTHING:
            only_texts = ArgumentRule(
                hosts=rule.hosts,
                schemes=rule.schemes,
                addresses=rule.addresses,
                ports=rule.ports,
                max_length=rule.max_length,
            )
            if rule != only_texts:
                what = "asks too much of every text"
                why = "* takes hosts, schemes, addresses, ports and max_length"
                raise Unfit(what, why, "name the argument for the rest", key=name)
            continue
        folded = tuple(each.casefold() for each in _steps(name))
        if folded in seen:
            raise Unfit("is there twice", "some servers ignore case in names", "keep one", key=name)
        seen.add(folded)


ArgumentRules = Annotated[
    Mapping[ArgumentName, Annotated[ArgumentRule, Meta(extra={"fit": check_rule})]],
    Meta(extra={"fit": check_arguments}),
]
"""The type of the field `arguments` of a tool rule."""


class Arguments:
    """The rules for the arguments of one tool, compiled."""

    __slots__ = ("_everything", "_folded", "_hides", "_named", "_names", "_paths")

    def __init__(self, rules: Mapping[str, ArgumentRule]) -> None:
        named = [(name, _steps(name), rule) for name, rule in rules.items() if name != EVERYTHING]
        direct = [each for each in named if len(each[1]) == 1 and each[1] != (EVERYTHING,)]
        self._named = tuple(
            (steps[0], name, _is_required(rule), _judge(rule)) for name, steps, rule in direct
        )
        self._paths = tuple(_Path(*each) for each in named if each not in direct)
        self._names = frozenset(steps[0] for _, steps, _ in named if steps[0] != EVERYTHING)
        self._folded = {each.casefold(): each for each in self._names}
        everything = rules.get(EVERYTHING)
        self._everything = None if everything is None else _Texts(everything)
        self._hides = frozenset(steps for _, steps, rule in named if _has_urls(rule))

    def check(self, arguments: Mapping[str, object]) -> str | None:
        """None, or what is wrong: one sentence for the model that made the call."""
        for key, name, is_required, judge in self._named:
            value = arguments.get(key, _ABSENT)
            if value is _ABSENT:
                if is_required:
                    return f'The argument "{name}" is missing; give it.'
                continue
            words = judge(value)
            if words is not None:
                return f'The argument "{name}" {words}.'
        for key in arguments:
            if key not in self._names and key.casefold() in self._folded:
                known = self._folded[key.casefold()]
                return f'An argument is named almost like "{known}"; write it exactly so, or leave it out.'
        for path in self._paths:
            problem = path.check(arguments)
            if problem is not None:
                return problem
        return None if self._everything is None else self._check_everything(self._everything, arguments)

    def _check_everything(self, texts: _Texts, arguments: Mapping[str, object]) -> str | None:
        """Every text at any depth, names of members too. URLs that a rule of their own judged are left out."""
        judged = {spot for steps in self._hides for spot in _places(arguments, steps)}
        words = texts.check(arguments, judged)
        return None if words is None else f"A text in the arguments {words}."


class _Path:
    """The rule for an argument inside another."""

    __slots__ = ("_is_required", "_judge", "_name", "_steps")

    def __init__(self, name: str, steps: tuple[str, ...], rule: ArgumentRule) -> None:
        self._name = name
        self._steps = steps
        self._is_required = _is_required(rule)
        self._judge = _judge(rule)

    def check(self, arguments: Mapping[str, object]) -> str | None:
        found: list[object] = [arguments]
        for index, step in enumerate(self._steps):
            inside: list[object] = []
            for each in found:
                if each is None or each is _ABSENT:
                    # No object, no argument in it.
                    inside.append(_ABSENT)
                elif isinstance(each, dict | list):
                    words = _step_into(each, step, inside)
                    if words is not None:
                        return f'On the way to the argument "{self._name}" {words}.'
                else:
                    around = "/".join(("", *self._steps[:index]))
                    return f'The argument "{around}" must be an object or a list, not a text or number.'
            found = inside
        for value in found:
            if value is _ABSENT:
                if self._is_required:
                    return f'The argument "{self._name}" is missing; give it.'
                continue
            words = self._judge(value)
            if words is not None:
                return f'The argument "{self._name}" {words}.'
        return None


def _step_into(around: dict[str, object] | list[object], step: str, inside: list[object]) -> str | None:
    """Adds what stands at one step of a path to `inside`; the star stands for every member."""
    if isinstance(around, list):
        if step == EVERYTHING:
            inside.extend(around)
        else:
            index = int(step) if step.isascii() and step.isdigit() else len(around)
            inside.append(around[index] if index < len(around) else _ABSENT)
        return None
    if step == EVERYTHING:
        inside.extend(around.values())
        return None
    inside.append(around.get(step, _ABSENT))
    folded = step.casefold()
    if any(each != step and each.casefold() == folded for each in around):
        return f'a name is almost "{step}"; write it exactly so'
    return None


def _places(arguments: Mapping[str, object], steps: tuple[str, ...]) -> Iterator[tuple[int, object]]:
    """Where a path leads: the container by identity, and the key or index in it."""
    found: list[object] = [arguments]
    for step in steps[:-1]:
        inside: list[object] = []
        for each in found:
            if isinstance(each, dict | list):
                _step_into(each, step, inside)
        found = inside
    last = steps[-1]
    for each in found:
        if isinstance(each, dict):
            yield from ((id(each), key) for key in each if last in (EVERYTHING, key))
        elif isinstance(each, list):
            yield from ((id(each), index) for index in range(len(each)) if last in (EVERYTHING, str(index)))


class _Texts:
    """The rule for every text, wherever it stands."""

    __slots__ = ("_max_length", "_urls")

    def __init__(self, rule: ArgumentRule) -> None:
        self._max_length = rule.max_length
        self._urls = _url_rule(rule)

    def check(self, value: object, judged: set[tuple[int, object]]) -> str | None:
        """What is wrong with some text in the value. The walk goes on without recursion."""
        hunt = Hunt()
        waiting: list[tuple[object, bool]] = [(value, False)]
        while waiting:
            around, is_judged = waiting.pop()
            if isinstance(around, str):
                words = self._text(around, is_judged, hunt)
                if words is not None:
                    return words
            elif isinstance(around, dict):
                for key, inner in around.items():
                    words = self._text(key, False, hunt)
                    if words is not None:
                        return words
                    if isinstance(inner, str | dict | list):
                        waiting.append((inner, is_judged or (id(around), key) in judged))
            elif isinstance(around, list):
                waiting.extend(
                    (inner, is_judged or (id(around), index) in judged)
                    for index, inner in enumerate(around)
                    if isinstance(inner, str | dict | list)
                )
        return None

    def _text(self, text: str, is_judged: bool, hunt: Hunt) -> str | None:
        if self._max_length is not None and len(text) > self._max_length:
            return f"must have at most {self._max_length} characters; shorten it"
        return None if self._urls is None or is_judged else self._urls.within(text, hunt)


def _has_urls(rule: ArgumentRule) -> bool:
    return any(each is not None for each in (rule.hosts, rule.schemes, rule.addresses, rule.ports))


def _is_required(rule: ArgumentRule) -> bool:
    return rule.equals is not None if rule.required is None else rule.required


def _url_rule(rule: ArgumentRule) -> UrlRule | None:
    if not _has_urls(rule):
        return None
    return UrlRule(
        hosts=rule.hosts,
        schemes=rule.schemes or ("https", "http"),
        addresses=rule.addresses or "public",
        ports=rule.ports,
    )


def _steps(name: str) -> tuple[str, ...]:
    """A name, or the steps of a path as in RFC 6901; `*` is every member."""
    if not name.startswith("/"):
        return (name,)
    return tuple(each.replace("~1", "/").replace("~0", "~") for each in name[1:].split("/"))


def _judge(rule: ArgumentRule) -> Judge:
    """One question for all that a rule says about a value."""
    judges = list(_judges(rule))
    if len(judges) == 1:
        return judges[0]

    def judge(value: object) -> str | None:
        for each in judges:
            words = each(value)
            if words is not None:
                return words
        return None

    return judge


def _judges(rule: ArgumentRule) -> Iterator[Judge]:
    if rule.equals is not None:
        yield _one_of((rule.equals,))
    if rule.one_of is not None:
        yield _one_of(rule.one_of)
    if rule.min is not None or rule.max is not None:
        yield _between(rule.min, rule.max)
    if rule.max_length is not None:
        yield _no_longer(rule.max_length)
    if rule.pattern is not None:
        yield _like(rule.pattern)
    urls = _url_rule(rule)
    if urls is not None:
        yield _leading(urls, in_text=rule.in_text)


def _one_of(values: tuple[Scalar, ...]) -> Judge:
    # By type first: 1 == 1.0 == True in Python.
    allowed = frozenset((type(each), each) for each in values)
    listed = ", ".join(map(_written, values[:_SHOWN])) + (" …" if len(values) > _SHOWN else "")
    words = f"must be {listed}" if len(values) == 1 else f"must be one of {listed}"

    def judge(value: object) -> str | None:
        if isinstance(value, str | int | float) and (type(value), value) in allowed:
            return None
        return words

    return judge


def _between(least: float | None, greatest: float | None) -> Judge:
    bounds = [
        f"{word} {_round(bound)}"
        for word, bound in (("at least", least), ("at most", greatest))
        if bound is not None
    ]
    words = f"must be a number of {' and '.join(bounds)}, not a text; or leave it out"
    low = float("-inf") if least is None else least
    high = float("inf") if greatest is None else greatest

    def judge(value: object) -> str | None:
        # `true` is an int too.
        if (type(value) is int or type(value) is float) and low <= value <= high:
            return None
        return words

    return judge


def _no_longer(most: int) -> Judge:
    words = f"must be a text of at most {most} characters or a list of at most {most} items; shorten it"

    def judge(value: object) -> str | None:
        return None if isinstance(value, str | list) and len(value) <= most else words

    return judge


def _like(pattern: str) -> Judge:
    compiled = re.compile(regex_of(pattern), re.DOTALL)
    is_path = "/" in pattern
    words = f"must be a text like {pattern} (* is any text, ? one character)"
    if is_path:
        words += ", without . and .. segments and encoded slashes"

    def judge(value: object) -> str | None:
        if not isinstance(value, str) or compiled.fullmatch(value) is None:
            return words
        return words if is_path and ("\0" in value or _DOTS.search(value)) else None

    return judge


def _leading(urls: UrlRule, *, in_text: bool) -> Judge:
    of = urls.of

    def judge(value: object) -> str | None:
        if isinstance(value, str):
            return urls.within(value, Hunt()) if in_text else of(value)
        return _each_url(urls, value, in_text=in_text)

    return judge


def _each_url(urls: UrlRule, value: object, *, in_text: bool) -> str | None:
    """The URLs of a list, and those in the texts of objects, at any depth."""
    hunt = Hunt()
    waiting: list[tuple[object, bool]] = [(value, in_text)]
    while waiting:
        each, is_prose = waiting.pop()
        if isinstance(each, str):
            words = urls.within(each, hunt) if is_prose else urls.of(each)
            if words is not None:
                return words
        elif isinstance(each, list):
            waiting.extend((inner, is_prose) for inner in each)
        elif isinstance(each, dict):
            # What its members mean is not known here: URLs are looked for.
            waiting.extend((text, True) for member in each.items() for text in member)
        elif not is_prose:
            return "must be a text with a URL, or a list of them; or leave it out"
    return None


def _written(value: Scalar) -> str:
    """As in JSON."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return f'"{value}"' if isinstance(value, str) else str(value)


def _round(bound: float) -> str:
    return str(int(bound)) if bound == int(bound) else str(bound)
