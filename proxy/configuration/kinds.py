"""What kind of value does a field take? A few questions to msgspec's picture of a type."""

from collections.abc import Iterator

from msgspec import inspect as kinds


def present(kind: kinds.Type) -> kinds.Type:
    """The kind without `| None`, which says only that the field may be left out."""
    if isinstance(kind, kinds.UnionType) and len(members := _members(kind)) == 1:
        return members[0]
    return kind


def bare(kind: kinds.Type) -> kinds.Type:
    """The kind without `| None` and without the notes on it."""
    kind = present(kind)
    while isinstance(kind, kinds.Metadata):
        kind = present(kind.type)
    return kind


def is_scalar(kind: kinds.Type) -> bool:
    """Whether one text can give the whole value."""
    scalars = (
        kinds.StrType
        | kinds.IntType
        | kinds.FloatType
        | kinds.BoolType
        | kinds.LiteralType
        | kinds.CustomType
    )
    return isinstance(bare(kind), scalars)


def alternatives(kind: kinds.Type) -> dict[str, kinds.StructType] | None:
    """The structs of a tagged union by their tag, one alone too; None where `kind` is something else."""
    members = _members(kind) if isinstance(kind, kinds.UnionType) else (kind,)
    tagged: dict[str, kinds.StructType] = {}
    for member in members:
        if not isinstance(member, kinds.StructType) or not isinstance(member.tag, str):
            return None
        tagged[member.tag] = member
    return tagged


def scalar_paths(
    kind: kinds.StructType, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], bool]]:
    """Every field of every nested section as a path, and whether it is a scalar."""
    for field in kind.fields:
        here = (*path, field.encode_name)
        section = bare(field.type)
        if isinstance(section, kinds.StructType) and section.tag is None:
            yield from scalar_paths(section, here)
        else:
            yield here, is_scalar(field.type)


def _members(kind: kinds.UnionType) -> tuple[kinds.Type, ...]:
    return tuple(member for member in kind.types if not isinstance(member, kinds.NoneType))
