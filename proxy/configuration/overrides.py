"""What do the environment and `--set` change? They write into the tree before it is converted.

So an overridden value is read by the same rules as a written one, and its mistakes name the override.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from msgspec import inspect as kinds

from .kinds import bare, is_scalar, scalar_paths
from .mistakes import Position, Report, did_you_mean, joined, shown
from .tree import Broken, Entry, Node, Scalar, Table, read_text

PREFIX: Final = "MCP_SIDECAR_"

_PATH: Final = re.compile(r"[A-Za-z0-9_.-]*", re.ASCII)
# Kubernetes puts these into every pod of a namespace that has a Service called mcp-sidecar or mcp-sidecar-…;
# they are nobody's typing error (kubernetes.io: "Accessing the Service", environment variables).
_SERVICE_LINK: Final = re.compile(
    r"\w*(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?|PORT_[0-9]+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)",
    re.ASCII,
)
_SERVICE_URL: Final = re.compile(r"(?:tcp|udp|sctp)://.*", re.ASCII)


def apply_environment(
    root: Node | None, kind: kinds.StructType, environ: Mapping[str, str], report: Report
) -> None:
    """Write every `MCP_SIDECAR_<SECTION>__<FIELD>` into the tree; the unknown ones are mistakes."""
    known = {PREFIX + "__".join(path).upper(): (path, scalar) for path, scalar in scalar_paths(kind)}
    for name in sorted(environ):
        if not name.startswith(PREFIX) or _is_service_link(name, environ[name]):
            continue
        at = Position(f"environment {shown(name)}")
        path, scalar = known.get(name, ((), False))
        if not path:
            why = "a misspelt name would change nothing"
            report.add(at, "", "is no setting", why, did_you_mean(name, known, PREFIX))
        elif not scalar:
            remedy = "set it in the file, or with --set"
            report.add(at, ".".join(path), "is not a single value", "a variable holds one text", remedy)
        else:
            _write(root, path, Scalar(at, environ[name], is_typed=False, is_clear=False), at)


def _is_service_link(name: str, value: str) -> bool:
    rest = name.removeprefix(PREFIX)
    if _SERVICE_LINK.fullmatch(rest):
        return True
    return rest.endswith("PORT") and bool(_SERVICE_URL.fullmatch(value))


def apply_sets(root: Node | None, kind: kinds.StructType, overrides: Sequence[str], report: Report) -> None:
    """Write every `path=value` into the tree. Lists and mappings are written in one line of YAML or JSON."""
    for override in overrides:
        path, equals, text = override.partition("=")
        # Only what looks like a path is shown: where = was forgotten, the rest may be a value.
        looks = _PATH.match(path)
        at = Position(f"--set {shown(looks[0])}" if looks else "--set")
        if not equals:
            report.add(at, "", "has no value", "an override is path=value", "write for example drain_s=10")
            continue
        found = _find(kind, path, at, report)
        if found is None:
            continue
        steps, target = found
        if is_scalar(target):
            node: Node | None = Scalar(at, text, is_typed=False)
        else:
            node = read_text(text, _always(at), report, ".".join(steps))
        _write(root, steps, Broken(at) if node is None else node, at)


def _always(at: Position) -> Callable[[int, int], Position]:
    return lambda _line, _column: at


def _find(
    kind: kinds.Type, path: str, at: Position, report: Report
) -> tuple[tuple[str, ...], kinds.Type] | None:
    """Walk the types along `path`: its steps and the kind at its end, or None and a mistake."""
    steps: tuple[str, ...] = ()
    rest = path
    while rest or not steps:
        kind = bare(kind)
        here = ".".join(steps)
        if isinstance(kind, kinds.StructType) and kind.tag is None:
            step, _, rest = rest.partition(".")
            fields = {field.encode_name: field.type for field in kind.fields}
            if step not in fields:
                remedy = did_you_mean(step, fields)
                report.add(
                    at, joined(here, step), "is not known", "a misspelt key would change nothing", remedy
                )
                return None
            kind = fields[step]
        elif isinstance(kind, kinds.DictType):
            step, rest, kind = rest, "", kind.value_type
        else:
            report.add(at, here, "has no parts with names", "the path goes on", "set it as a whole")
            return None
        steps = (*steps, step)
    return steps, kind


def _write(root: Node | None, path: Sequence[str], node: Node, at: Position) -> None:
    """Put `node` at `path` and make the sections on the way; what the file has wrong there stays wrong."""
    for step in path[:-1]:
        if not isinstance(root, Table):
            return
        root = root.entries.setdefault(step, Entry(at, Table(at))).node
    if isinstance(root, Table):
        root.entries[path[-1]] = Entry(at, node)
