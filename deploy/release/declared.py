"""Which classes of a module become C structs? A module's source → declarations for Cython (a .pxd), and a reason for
each class that stays what it is.

    python deploy/release/declared.py MODULE...      # what becomes of each class

Attributes of such a class lie in the object and are found by their place; the source does not change. What is different
then, and must not matter to anybody: there is no `__dict__`, so only attributes that the class itself sets (or names in
`__slots__`) can be set; one that was never set is None, where it would be an AttributeError; `copy` and `pickle` refuse
it; the class itself cannot be changed, not even by tests. Each may be referred to weakly, as other classes may.
Standard library only; pure.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import Final

SPECIAL: Final = frozenset(
    {
        *("__init__", "__call__", "__len__", "__contains__", "__iter__", "__repr__", "__eq__"),
        *("__aiter__", "__anext__", "__aenter__", "__aexit__", "__enter__", "__exit__"),
    }
)
"""Methods that were looked at, and mean the same in both."""


def declarations(source: str) -> tuple[str, dict[str, str]]:
    """The text of the .pxd, and the classes that are not in it, each with the reason."""
    structs, others = [], {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef):
            if (why := _why_not(node)) is not None:
                others[node.name] = why
            else:
                structs.append(_struct(node))
    return "\n".join(structs), others


def _why_not(node: ast.ClassDef) -> str | None:
    if node.bases:
        return f"bases: {', '.join(map(ast.unparse, node.bases))}"
    if node.keywords or node.decorator_list:
        return "keywords or decorators"
    methods = _methods(node)
    strange = [each.name for each in methods if each.name.startswith("__") and each.name not in SPECIAL]
    if strange:
        return f"special methods: {', '.join(strange)}"
    for each in node.body:
        is_docstring = isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant)
        # C structs with `__eq__` have no hash either.
        is_unhashable = ast.unparse(each) == "__hash__ = None"
        if not (is_docstring or is_unhashable or each in methods or _slots(each) is not None):
            return f"in its body: {ast.unparse(each).splitlines()[0]}"
    if shadowed := _attributes(node) & {each.name for each in methods}:
        return f"attributes with names of methods: {', '.join(sorted(shadowed))}"
    return None


def _methods(node: ast.ClassDef) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [each for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)]


def _slots(statement: ast.stmt) -> set[str] | None:
    """The names in a `__slots__ = …`; None for any other statement."""
    match statement:
        case ast.Assign(targets=[ast.Name(id="__slots__")], value=value):
            names = ast.literal_eval(value)
            return {names} if isinstance(names, str) else set(names)
    return None


def _attributes(node: ast.ClassDef) -> set[str]:
    """What `__slots__` names, or methods set or delete of their first argument. A property's setter is none."""
    names = {name for each in node.body for name in _slots(each) or ()}
    for method in _methods(node):
        own = method.args.args[0].arg if method.args.args else None
        for part in ast.walk(method):
            match part:
                case ast.Attribute(value=ast.Name(id=name), attr=attribute, ctx=ast.Store() | ast.Del()):
                    if name == own:
                        names.add(attribute)
    return names - {"__weakref__"}


def _struct(node: ast.ClassDef) -> str:
    # Public: rooms and tests look at attributes that begin with an underscore as they do in Python.
    fields = ["object __weakref__", *(f"public object {name}" for name in sorted(_attributes(node)))]
    return f"cdef class {node.name}:\n" + "".join(f"    cdef {field}\n" for field in fields)


if __name__ == "__main__":
    for file in sys.argv[1:]:
        text, others = declarations(Path(file).read_text(encoding="utf-8"))
        for line in text.splitlines():
            if line.startswith("cdef class "):
                print(f"{file}: {line.removeprefix('cdef class ')} a struct")
        for name, why in others.items():
            print(f"{file}: {name}: {why}")
