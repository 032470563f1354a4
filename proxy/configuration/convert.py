"""Which value does a tree stand for? Node and type in; a value out, or mistakes, all of them.

msgspec describes the types and holds the values; the walk is ours because `msgspec.convert` stops at the
first mistake, knows no positions, and quotes the text it refuses.
"""

from collections.abc import Callable, Mapping
from enum import Enum
from types import MappingProxyType
from typing import Final

from msgspec import NODEFAULT, Struct, structs
from msgspec import inspect as kinds

from ..secret import Secret, names_a_credential
from .files import ReadFile
from .kinds import alternatives, bare, present
from .mistakes import Position, Report, Unfit, did_you_mean, joined
from .references import Resolved, Template, resolve
from .tree import Broken, Items, Node, Scalar, Table
from .typed import fit_scalar

MOST_REFERRED_CHARACTERS: Final = 4_194_304
"""In all references together: a short file could otherwise fill the memory by naming one big file often."""


class _Failed(Enum):
    FAILED = "a mistake was reported"


FAILED: Final = _Failed.FAILED


class Spot(Struct, frozen=True):
    """Where a value stands: its path, its own name, and whether that name is a key the operator chose.

    `may_be_clear`: the file itself is kept secret, so a secret may be written into it.
    """

    path: str = ""
    name: str = ""
    is_own_key: bool = False
    may_be_clear: bool = False


class Converter:
    """Walks a tree and a type side by side. `values` keeps what was read, by path, for checks across it."""

    def __init__(self, report: Report, environ: Mapping[str, str], read_file: ReadFile) -> None:
        self._report = report
        self._environ = environ
        self._read_file = read_file
        self._referred = 0
        self.values: dict[str, object] = {}
        self.files: dict[str, None] = {}
        """What values refer to, each path once."""

    def read(self, node: Node, kind: kinds.Type, spot: Spot, at: Position) -> object:
        """The value of `node`, or FAILED. `at` is where its name stands: missing parts are missed there."""
        self._report.remember(spot.path, node.at)
        value = self._read(node, present(kind), spot, at)
        if value is not FAILED:
            self.values[spot.path] = value
        return value

    def _read(self, node: Node, kind: kinds.Type, spot: Spot, at: Position) -> object:
        if isinstance(node, Broken):
            return FAILED
        if isinstance(kind, kinds.AnyType):
            return self._anything(node, spot)
        if isinstance(node, Scalar) and node.value is None:
            remedy = "write one, or leave the key out" if spot.path else "begin with version: 1"
            return self._no(node.at, spot, "has no value", "null says nothing", remedy)
        if isinstance(kind, kinds.Metadata):
            return self._checked(node, kind, spot, at)
        tagged = alternatives(kind)
        if tagged is not None:
            return self._tagged(node, tagged, spot, at)
        if isinstance(kind, kinds.StructType):
            return self._struct(node, kind, spot, at)
        if isinstance(kind, kinds.VarTupleType | kinds.FrozenSetType):
            return self._list(node, kind, spot)
        if isinstance(kind, kinds.DictType):
            return self._mapping(node, kind, spot)
        return self._scalar(node, kind, spot)

    def _checked(self, node: Node, kind: kinds.Metadata, spot: Spot, at: Position) -> object:
        """A value with a check beside its type."""
        if kind.extra and kind.extra.get("may_be_clear"):
            spot = structs.replace(spot, may_be_clear=True)
        value = self._read(node, present(kind.type), spot, at)
        if value is FAILED:
            return FAILED
        try:
            return _check(kind, value)
        except Unfit as unfit:
            at, path = node.at, spot.path
            if isinstance(unfit.key, str) and isinstance(node, Table):
                at, path = node.entries[unfit.key].key_at, joined(spot.path, unfit.key)
            elif isinstance(unfit.key, int) and isinstance(node, Items):
                at, path = node.items[unfit.key].at, f"{spot.path}[{unfit.key}]"
            self._report.add_unfit(at, path, unfit)
            return FAILED

    def _struct(self, node: Node, kind: kinds.StructType, spot: Spot, at: Position) -> object:
        if not isinstance(node, Table):
            return self._no(
                node.at, spot, f"is {_form(node)}", "a section is needed", "write key: value pairs"
            )
        fields = {field.encode_name: field for field in kind.fields}
        known = [*fields, *((kind.tag_field,) if kind.tag_field else ())]
        read: dict[str, object] = {}
        failed = False
        for key, entry in node.entries.items():
            here = Spot(joined(spot.path, key), key)
            if key in fields:
                value = self.read(entry.node, fields[key].type, here, entry.key_at)
                read[fields[key].name] = value
                failed = failed or value is FAILED
            elif key not in known:
                remedy = did_you_mean(key, known)
                self._no(entry.key_at, here, "is not known", "a misspelt key would change nothing", remedy)
                failed = True
        for key in (key for key in fields if key not in node.entries):
            value = self._absent(fields[key], Spot(joined(spot.path, key), key), at)
            if value is not NODEFAULT:
                read[fields[key].name] = value
            failed = failed or value is FAILED
        return FAILED if failed else kind.cls(**read)

    def _absent(self, field: kinds.Field, spot: Spot, at: Position) -> object:
        """The default of a field nobody wrote; a section is read as empty, so that its parts are missed."""
        kind = present(field.type)
        if isinstance(kind, kinds.StructType) and kind.tag is None and field.default is not None:
            return self._read(Table(at), kind, spot, at)
        if field.default is not NODEFAULT:
            self.values[spot.path] = field.default
            return field.default
        if field.default_factory is not NODEFAULT:
            self.values[spot.path] = value = field.default_factory()
            return value
        plain = bare(kind)
        example = plain.values[0] if isinstance(plain, kinds.LiteralType) else "…"
        # Without a file there is no place to write into.
        remedy = f"write {spot.name}: {example}" if at.line else f"give it with --set {spot.path}={example}"
        return self._no(at, spot, "is missing", "it has no default", remedy)

    def _tagged(self, node: Node, tagged: dict[str, kinds.StructType], spot: Spot, at: Position) -> object:
        """One of several structs: the tag says which."""
        tag_field = next(iter(tagged.values())).tag_field or "type"
        tags = " or ".join(tagged)
        if not isinstance(node, Table):
            return self._no(
                node.at, spot, f"is {_form(node)}", "keys are needed", f"write {{{tag_field}: {tags}, …}}"
            )
        here = Spot(joined(spot.path, tag_field), tag_field)
        entry = node.entries.get(tag_field)
        if entry is None:
            return self._no(
                at, here, "is missing", "it says which keys may follow", f"write {tag_field}: {tags}"
            )
        tag = self.read(entry.node, kinds.LiteralType(tuple(tagged)), here, entry.key_at)
        return self._struct(node, tagged[tag], spot, at) if isinstance(tag, str) else FAILED

    def _list(self, node: Node, kind: kinds.VarTupleType | kinds.FrozenSetType, spot: Spot) -> object:
        if not isinstance(node, Items):
            return self._no(node.at, spot, f"is {_form(node)}", "a list is needed", "write [one, two]")
        if kind.min_length and not node.items:
            remedy = "list one, or leave the key out for the default"
            return self._no(
                node.at, spot, "is an empty list where a choice is needed", "nothing is chosen", remedy
            )
        read = [
            self.read(
                item, kind.item_type, Spot(f"{spot.path}[{index}]", spot.name, spot.is_own_key), item.at
            )
            for index, item in enumerate(node.items)
        ]
        if any(value is FAILED for value in read):
            return FAILED
        return frozenset(read) if isinstance(kind, kinds.FrozenSetType) else tuple(read)

    def _mapping(self, node: Node, kind: kinds.DictType, spot: Spot) -> object:
        if not isinstance(node, Table):
            return self._no(node.at, spot, f"is {_form(node)}", "a mapping is needed", "write {key: value}")
        read: dict[str, object] = {}
        for key, entry in node.entries.items():
            here = Spot(joined(spot.path, key), key, is_own_key=True)
            try:
                _check(kind.key_type, key)
            except Unfit as unfit:
                self._report.add_unfit(entry.key_at, here.path, unfit)
                read[key] = FAILED
                continue
            read[key] = self.read(entry.node, kind.value_type, here, entry.key_at)
        return FAILED if any(value is FAILED for value in read.values()) else MappingProxyType(read)

    def _anything(self, node: Node, spot: Spot) -> object:
        """What JSON could say too, nulls included: for values that are passed on and not looked at."""
        if isinstance(node, Table):
            named = {key: self._anything(entry.node, spot) for key, entry in node.entries.items()}
            return FAILED if any(each is FAILED for each in named.values()) else named
        if isinstance(node, Items):
            listed = [self._anything(each, spot) for each in node.items]
            return FAILED if any(each is FAILED for each in listed) else listed
        if isinstance(node, Broken):
            return FAILED
        if not isinstance(node.value, str):
            return node.value
        resolved = self._resolve(node.value, node.at, spot)
        return FAILED if resolved is None else resolved.text

    def _scalar(self, node: Node, kind: kinds.Type, spot: Spot) -> object:
        if not isinstance(node, Scalar) or node.value is None:
            return self._no(node.at, spot, f"is {_form(node)}", "a single value is needed", "write one value")
        value, is_typed, is_clear = node.value, node.is_typed, node.is_clear
        source: Template | None = None
        if isinstance(value, str):
            resolved = self._resolve(value, node.at, spot)
            if resolved is None:
                return FAILED
            if resolved.files:
                source = Template(value, resolved.files, self._environ, self._read_file)
            value, is_clear = resolved.text, is_clear and resolved.is_clear
            is_typed = is_typed and not resolved.has_references
        try:
            if isinstance(kind, kinds.CustomType) and kind.cls is Secret:
                return _secret(value, source, spot, is_clear=is_clear)
            return fit_scalar(value, kind, spot.name, is_typed=is_typed)
        except Unfit as unfit:
            self._report.add_unfit(node.at, spot.path, unfit)
            return FAILED

    def _resolve(self, text: str, at: Position, spot: Spot) -> Resolved | None:
        """The text without references, or None and a mistake for each that cannot be resolved."""
        resolved = resolve(text, self._environ, self._read_file)
        self.files.update(dict.fromkeys(resolved.files))
        for unfit in resolved.unfits:
            self._report.add_unfit(at, spot.path, unfit)
        if resolved.unfits:
            return None
        if not _is_text(resolved.text):
            self._no(
                at, spot, "is not UTF-8", "a variable or an argument holds other bytes", "set it to text"
            )
            return None
        if resolved.has_references:
            self._referred += len(resolved.text)
            if self._referred > MOST_REFERRED_CHARACTERS:
                why = f"all of them may hold {MOST_REFERRED_CHARACTERS} characters"
                self._no(at, spot, "is one reference too many", why, "refer to less")
                return None
        return resolved

    def _no(self, at: Position, spot: Spot, what: str, why: str, remedy: str) -> object:
        self._report.add(at, spot.path, what, why, remedy)
        return FAILED


def _secret(
    value: str | int | float | bool, source: Template | None, spot: Spot, *, is_clear: bool
) -> Secret:
    """Wrap a secret. One that stands in the settings in clear is refused, unless its name says it is none."""
    if not isinstance(value, str):
        raise Unfit("is no text", "a text is needed", "quote it")
    if is_clear and not spot.may_be_clear and (not spot.is_own_key or names_a_credential(spot.name)):
        why = "settings are copied, logged and kept in version control"
        raise Unfit("is a secret in clear", why, "write ${file:/path} or ${VAR}")
    return Secret(value, source)


def _check(kind: kinds.Type, value: object) -> object:
    """The value, found fit by the check that stands beside a type. Raises Unfit."""
    if isinstance(kind, kinds.Metadata) and kind.extra:
        check: Callable[[object], None] | None = kind.extra.get("fit")
        if check is not None and isinstance(value, Secret):
            return value.checked(check)
        if check is not None:
            check(value)
    return value


def _is_text(text: str) -> bool:
    """Whether it can be written: Python keeps bytes that are not UTF-8 as lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _form(node: Node) -> str:
    if isinstance(node, Items):
        return "a list"
    return "a section" if isinstance(node, Table) else "a single value"
