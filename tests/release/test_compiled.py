"""The same source, compiled: what may be, what has to be, and that it says the same.

The whole of it is tested by `make test-compiled`, which takes minutes; this is what every run can afford.
"""

from __future__ import annotations

import ast
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from tests import compiled
from tests.release.installed import ROOT, clean_environment, run, wheel_of

LIST = ROOT / "deploy" / "release" / "compiled.txt"
MODULES = [line for line in LIST.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
DESCENDS = {("proxy/policy/rules.py", "_named"), ("proxy/telemetry/audit_chain.py", "_bounded")}
"""Functions that call themselves: as deep as protocol/jsonrpc.py lets messages be, and three times."""
NOT_COMPILED = {f"proxy/telemetry/{name}.py" for name in ("lines", "redaction")}
"""What is asked once for many calls. What `lifecycle/` does comes with timers, not with calls."""

compiles = [
    pytest.mark.slow,
    pytest.mark.system("cc"),
    pytest.mark.skipif(
        not Path(sysconfig.get_path("include"), "Python.h").is_file(), reason="Python's headers are missing"
    ),
]


def calls(function: ast.AST, own: str | None) -> Iterator[str]:
    """Names that are called: of the module, and of the class (`self.name`) where there is one."""
    for node in ast.walk(function):
        match node:
            case ast.Call(func=ast.Name(id=name)):
                yield name
            case ast.Call(func=ast.Attribute(value=ast.Name(id="self"), attr=name)) if own is not None:
                yield f"{own}.{name}"


def recursive(source: str) -> set[str]:
    """Functions and methods from which a way leads back to themselves, as far as one module shows."""
    graph: dict[str, set[str]] = {}
    for node in ast.parse(source).body:
        own = node.name if isinstance(node, ast.ClassDef) else None
        for each in node.body if isinstance(node, ast.ClassDef) else [node]:
            if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef):
                graph[f"{own}.{each.name}" if own else each.name] = set(calls(each, own))
    reached = {name: set(near) & graph.keys() for name, near in graph.items()}
    for _ in graph:
        for near in reached.values():
            near |= {far for each in list(near) for far in reached[each]}
    return {name for name, near in reached.items() if name in near}


def test_the_list_names_modules_of_ours_each_once() -> None:
    """A name that is wrong would be a build that fails; one that is forgotten is told below."""
    assert sorted(set(MODULES)) == MODULES
    assert [name for name in MODULES if not (ROOT / name).is_file()] == []
    assert {name.partition("/")[0] for name in MODULES} == {"proxy"}


def test_no_listed_module_descends_into_what_strangers_sent() -> None:
    """Compiled functions do not count towards the limit of recursion: depth would end the process, not the call."""
    found = {(name, each) for name in MODULES for each in recursive((ROOT / name).read_text("utf-8"))}
    assert found == DESCENDS


def test_no_listed_module_defines_asynchronous_generators() -> None:
    """Cython 3.3 says of one that nobody has started that it was never awaited; clients leave before the first byte."""
    found = {
        (name, each.name)
        for name in MODULES
        for each in ast.walk(ast.parse((ROOT / name).read_text("utf-8")))
        if isinstance(each, ast.AsyncFunctionDef)
        and any(isinstance(part, ast.Yield) for part in ast.walk(each))
    }
    assert found == set()


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("def f(x):\n    return f(x)", {"f"}),
        ("def f(x):\n    return g(x)\ndef g(x):\n    return [f(y) for y in x]", {"f", "g"}),
        (
            "class A:\n    def f(self):\n        return self.g()\n    def g(self):\n        self.f()",
            {"A.f", "A.g"},
        ),
        ("class A:\n    def f(self):\n        return self.b.f()", set()),
        ("def f(x):\n    return g(x)\ndef g(x):\n    return x", set()),
    ],
)
def test_a_way_back_is_found(source: str, names: set[str]) -> None:
    """The test above must be able to fail."""
    assert recursive(source) == names


@pytest.mark.slow
@pytest.mark.skipif(compiled.runs_here(), reason="a profile does not see what is compiled")
def test_what_a_call_passes_through_is_listed() -> None:
    """What is forgotten costs time on each call, and nobody would see it."""
    done = run([sys.executable, "-m", "tests.bench.hot_path", "--modules"], ROOT)
    visited = {name for name in done.stdout.split() if not name.startswith("proxy/lifecycle/")}
    assert len(visited) > 50, done.stderr
    assert visited - {*MODULES} <= NOT_COMPILED
    assert not {*MODULES} & NOT_COMPILED


def declared(*modules: Path) -> dict[str, str]:
    """Of each class what becomes of it: "a struct", or why not."""
    done = run([sys.executable, ROOT / "deploy/release/declared.py", *modules], ROOT)
    assert done.returncode == 0, done.stderr
    lines = [line.split(": ", 1)[1] for line in done.stdout.splitlines()]
    return {re.split(r":? ", line)[0]: re.split(r":? ", line, maxsplit=1)[1] for line in lines}


def test_only_plain_classes_become_structs(tmp_path: Path) -> None:
    """What a struct cannot do as Python does it keeps a class what it is, with the reason."""
    source = """
class Plain:
    "Text."
    __slots__ = ("a",)
    __hash__ = None
    def __init__(self): self.b = 1
    def __eq__(self, other): return True
class Based(Plain): pass
class Keyed(metaclass=type): pass
@final
class Marked: pass
class Sealed:
    def __setattr__(self, name, value): raise AttributeError
class Shared:
    seen = 0
class Typed:
    seen: int
class Shadow:
    def f(self): self.f = None
"""
    file = tmp_path / "module.py"
    file.write_text(source, encoding="utf-8")
    assert declared(file) == {
        "Plain": "a struct",
        "Based": "bases: Plain",
        "Keyed": "keywords or decorators",
        "Marked": "keywords or decorators",
        "Sealed": "special methods: __setattr__",
        "Shared": "in its body: seen = 0",
        "Typed": "in its body: seen: int",
        "Shadow": "attributes with names of methods: f",
    }


def set_later(source: str) -> set[str]:
    """Attributes of structs that `__init__` may leave unset: which it sets in a branch, behind a way out, or not."""
    declared_ = runpy.run_path(str(ROOT / "deploy/release/declared.py"))
    found = set()
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef) and declared_["_why_not"](node) is None:
            methods = (each for each in node.body if isinstance(each, ast.FunctionDef))
            body = next((each.body for each in methods if each.name == "__init__"), [])
            returns = [any(isinstance(part, ast.Return) for part in ast.walk(each)) for each in body]
            sure = body[: returns.index(True)] if True in returns else body
            assigned = [each for each in sure if isinstance(each, ast.Assign | ast.AnnAssign) and each.value]
            targets = [
                target
                for each in assigned
                for target in (each.targets if isinstance(each, ast.Assign) else [each.target])
            ]
            parts = {
                part.attr for each in targets for part in ast.walk(each) if isinstance(part, ast.Attribute)
            }
            found |= {f"{node.name}.{name}" for name in declared_["_attributes"](node) - parts}
    return found


def test_structs_set_all_they_have_when_they_are_made() -> None:
    """What was never set is None in a struct, and an AttributeError in Python: nobody may come to see either."""
    found = {each for name in MODULES for each in set_later((ROOT / name).read_text("utf-8"))}
    # An alarm that never rings is asked for neither, and a thread that could not open its file has ended.
    assert found == {"Alarm._asked", "Alarm._task", "Scribe._chain", "Scribe._file"}


def test_what_is_set_later_is_found() -> None:
    """The test above must be able to fail."""
    source = """
class A:
    def __init__(self, x):
        self.a, self.b = x
        if x:
            self.c = x
            return
        self.d = x
    def f(self):
        self.e = 1
class B:
    __slots__ = ("f",)
"""
    assert set_later(source) == {"A.c", "A.d", "A.e", "B.f"}


def test_a_secret_stays_what_it_is() -> None:
    """Its fields cannot be set or read by another way than its own; a struct would show them to C."""
    assert declared(ROOT / "proxy/secret.py")["Secret"].startswith("special methods: ")


ATTACKS = """
import sys
import proxy.protocol.jsonrpc as read
from proxy.model import Refused
texts = [
    b"[" * 100_000, b"[" * 65 + b"]" * 65, b'{"a":' * 70 + b"1" + b"}" * 70, b"{" + b'"a":1,' * 70_000 + b'"b":1}',
    b"[" + b"[]," * 70_000 + b"[]]", b'{"jsonrpc":"2.0","id":' + b"9" * 5_000 + b',"method":"ping"}',
    b'{"jsonrpc":"2.0","id":' + b"9" * 100 + b',"method":"ping"}', b'{"a":1,"a":2}', b'{"a":{"b":1,"b":1}}',
    b'{"jsonrpc":"2.0","id":1.0,"method":"ping"}', b'{"jsonrpc":"2.0","id":true,"method":"ping"}', b"1e999", b"NaN",
    b'{"jsonrpc":"2.0","id":1,"METHOD":"x","method":"ping"}', b'{"jsonrpc":"2.0","id":1,"method":"Tools/Call"}',
    b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a\\\\u0000b"}}', b"\\xff", b"", b'"\\\\ud800"',
    b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"' + b"n" * 1_025 + b'"}}', b"[1,2]", b"null",
    b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"n","arguments":[]}}', b'{"jsonrpc":"2.0","id":7}',
]
for text in texts:
    try:
        print(read.read_message(read.read_json(text), b""))
    except Refused as refused:
        print(refused.reason, refused.code, refused.why, refused.id)
    except BaseException as error:
        print("NOT REFUSED", type(error))
try:
    read._read_id(None)
except TypeError as error:
    frame = error.__traceback__
    while frame.tb_next is not None:
        frame = frame.tb_next
    print(frame.tb_frame.f_code.co_filename[-25:], frame.tb_lineno, error)
from proxy.upstream.idle import Idle
idle = Idle(2.0, 1)
print(idle.put("a", 0.0), idle.put("b", 1.0), len(idle), idle.take(2.5), idle.take(2.5))
print(idle.ended(9.0), idle.first_end())
print(*(sys.modules[f"proxy.{name}"].__file__[-2:] for name in ("upstream.idle", "protocol.jsonrpc")), file=sys.stderr)
"""


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree in which two modules are compiled."""
    target = tmp_path_factory.mktemp("small")
    compiled.compile(target, "proxy/protocol/jsonrpc.py", "proxy/upstream/idle.py")
    return target


def said(tree: Path) -> tuple[list[str], str]:
    done = run([sys.executable, "-c", ATTACKS], tree, clean_environment(PYTHONPATH=str(tree)))
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines(), done.stderr


class TestCompiled:
    """With two modules: what holds for one holds for all."""

    pytestmark = compiles

    def test_what_an_attacker_sends_is_refused_in_the_same_words(self, small: Path) -> None:
        """One reader, one truth: depth, numbers, duplicate keys, look-alikes; and a mistake of ours names its line."""
        python, which = said(ROOT)
        compiled_, which_compiled = said(small)
        assert (which.split(), which_compiled.split()) in ((["py", "py"], ["so", "so"]), (["so", "so"],) * 2)
        assert compiled_ == python
        assert len(python) == 27
        assert [line for line in python if "NOT REFUSED" in line] == []
        assert python[-3].startswith("proxy/protocol/jsonrpc.py ")

    def test_attributes_are_those_of_python_whatever_was_asked_before(self, tmp_path: Path) -> None:
        """attributes.h remembers where they lie: not for a class that is changed, hides them, or decides by itself."""
        source, made = tmp_path / "source", tmp_path / "made"
        for folder in ("proxy", "policies"):
            (source / folder).mkdir(parents=True)
        (source / "proxy" / "asks.py").write_text(ASKS, encoding="utf-8")
        words = [compiled.builder(), compiled.BUILDER / "compiled.py", source, made]
        done = run([*words, "--only", "proxy/asks.py"], tmp_path)
        assert done.returncode == 0, done.stderr
        assert len([*made.rglob("*.so")]) == 1
        answers = []
        for tree in (source, made):
            environment = clean_environment(PYTHONPATH=str(tree / "proxy"))
            done = run([sys.executable, "-c", ASKED], tmp_path, environment)
            assert done.returncode == 0, done.stderr
            answers.append(done.stdout.splitlines())
        assert answers[0] == answers[1]
        assert len(answers[0]) > 250

    def test_objects_name_no_place_of_the_build(self, small: Path) -> None:
        """Else the same sources would give other bytes elsewhere."""
        objects = [*small.rglob("*.so")]
        assert len(objects) == 2
        for each in objects:
            content = each.read_bytes()
            assert b"proxy/" in content
            assert not re.search(rb"mcp-sidecar-compiled|" + re.escape(str(ROOT).encode()), content)

    def test_a_wheel_with_the_variable_is_for_this_platform_and_the_same_twice(self, tmp_path: Path) -> None:
        """Issue 9, 7, for the wheel that the image is made of."""
        made = [platform_wheel(tmp_path / name) for name in ("one", "another")]
        assert made[0].read_bytes() == made[1].read_bytes()
        tag = f"{sys.implementation.cache_tag.replace('cpython-', 'cp')}-linux"
        assert tag in made[0].name
        with zipfile.ZipFile(made[0]) as archive:
            names = archive.namelist()
        (shared,) = [name for name in names if name.endswith(".so")]
        assert shared == "proxy/upstream/idle" + sysconfig.get_config_var("EXT_SUFFIX")
        assert {"proxy/upstream/idle.py", "proxy/policies/packs/strict.yaml"} <= {*names}


ASKS = """
def read(thing): return thing.a
def ask(thing): return thing.m(1)
"""
ASKED = """
import sys
from fractions import Fraction
from msgspec import Struct
from asks import ask, read

class Slots:
    __slots__ = ("a",)
    def __init__(self, a): self.a = a
    def m(self, x): return "slots", x
class Below(Slots):
    __slots__ = ()
    def m(self, x): return "below", x
class Loose(Slots):
    def __init__(self, a, m=None):
        super().__init__(a)
        if m: self.m = m
class Packed(Struct):
    a: object = 1
    def m(self, x): return "packed", x
class Frozen(Struct, frozen=True):
    b: object
    a: object
class Counts:
    __slots__ = ()
    @property
    def a(self): raise KeyError("property")
    @classmethod
    def m(cls, x): return cls.__name__, x
class Answers:
    __slots__ = ()
    def __getattr__(self, name): return "answered" if name == "a" else lambda *x: (name, *x)
class Decides(Slots):
    __slots__ = ()
    def __getattribute__(self, name): return f"decided {name}"
class Static(Slots):
    __slots__ = ()
    m = staticmethod(lambda x: ("static", x))
class Typed(type):
    a = property(lambda cls: f"a of {cls.__name__}")
class Made(metaclass=Typed):
    m = 5

def say(what, *args):
    for _ in range(3):  # asked, remembered, known
        try:
            print(what.__name__, type(args[0]).__name__, what(*args))
        except Exception as error:
            print(what.__name__, type(args[0]).__name__, type(error).__name__, error)

class Changes:
    __slots__ = ()
    def m(self, x):
        Changes.m = lambda self, x: "changed"  # nobody else holds the function that is running
        gc.collect()
        return "changes", x
import gc

things = [Slots(1), Below(2), Loose(3), Loose(4, m=lambda x: ("own", x)), Packed(), Frozen(6, 7), Counts(), Answers(),
    Static(8), Made, Made(), Changes(), {}, "text", None, 5, sys, Fraction(1, 2)]
for thing in [*things, *things]:
    say(read, thing); say(ask, thing)
say(read, Decides(1)); say(ask, Decides(1))

slots = Slots(1)
say(read, slots)
del slots.a; say(read, slots)
slots.a = None; say(read, slots)
kept = Slots.a
Slots.a = property(lambda self: "now a property"); say(read, slots); say(read, Below.__new__(Below))
Slots.a = 5; say(read, slots)
del Slots.a; say(read, slots)
Slots.a = kept; say(read, slots)
Packed.a = kept; say(read, Packed())
say(ask, slots)
Slots.m = lambda self, x: "another"; say(ask, slots); say(ask, Below(1)); say(ask, Loose(1))
del Below.m; say(ask, Below(1))
loose = Loose(1); say(ask, loose); loose.m = lambda x: "its own"; say(ask, loose); del loose.m; say(ask, loose)
class Other:
    __slots__ = ("b", "a")
    def m(self, x): return "other", x
other = Other(); other.a, other.b = "a", "b"
mixed = Below(1)
for thing in (mixed, other, mixed, other): print(read(thing), ask(thing))
class Base:
    __slots__ = ()
    def m(self, x): return "base", x
class A(Base): __slots__ = ()
say(ask, A())
class Base2:
    __slots__ = ()
    def m(self, x): return "base two", x
A.__bases__ = (Base2,); say(ask, A())
for n in range(2_000):  # a class takes the place of another one in memory
    class Short:
        __slots__ = ("a", "b") if n % 2 else ("b", "a")
        def m(self, x): return n
    short = Short(); short.a, short.b = "a", "b"
    if read(short) != "a" or ask(short) != n: print("WRONG", n)
    del short, Short
    if not n % 100: gc.collect()
"""


def platform_wheel(folder: Path) -> Path:
    """Of a copy of this checkout that lists one module, made by a Python with hatchling and Cython."""
    copy = folder / "checkout"
    for name in ("proxy", "policies", "deploy/release", "requirements"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    for name in ("README.md", "CHANGELOG.md", "LICENSE", "pyproject.toml", ".gitignore"):
        shutil.copy(ROOT / name, copy / name)
    (copy / "deploy/release/compiled.txt").write_text("proxy/upstream/idle.py\n", encoding="utf-8")
    packages = str(Path(aiohttp.__file__).parents[1])
    environment = clean_environment(
        MCP_SIDECAR_COMPILED="1", PYTHONPATH=packages, SOURCE_DATE_EPOCH="1790000000"
    )
    done = run(
        [compiled.builder(), "-m", "hatchling", "build", "-t", "wheel", "-d", folder / "dist"],
        copy,
        environment,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = (folder / "dist").glob("*.whl")
    return wheel


def test_a_wheel_without_the_variable_is_for_everybody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever installs from PyPI needs no compiler, and any Python from 3.11 on."""
    monkeypatch.delenv("MCP_SIDECAR_COMPILED", raising=False)
    wheel = wheel_of(ROOT, tmp_path)
    assert wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert [name for name in archive.namelist() if name.endswith((".so", ".pxd", ".c"))] == []


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    """Neither a pure wheel under the name of a compiled one, nor a traceback of somebody else's."""
    words: list[str | Path] = [sys.executable, ROOT / "deploy/release/compiled.py", ROOT, tmp_path / "tree"]
    done = run(words, tmp_path)
    assert (done.returncode, "requirements/compile.lock" in done.stderr) == (1, True)
    assert "Traceback" not in done.stderr
    hatch = (sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path / "dist")
    for value, why in (("1", "cannot be compiled"), ("yes", "MCP_SIDECAR_COMPILED is 0 or 1")):
        done = run([*hatch], ROOT, clean_environment(MCP_SIDECAR_COMPILED=value))
        assert (done.returncode, why in done.stderr) == (1, True), done.stderr
    assert not (tmp_path / "dist").exists() or not [*(tmp_path / "dist").iterdir()]


@pytest.mark.slow
def test_a_machine_without_a_compiler_is_told_so(tmp_path: Path) -> None:
    """The remedy in one line."""
    words: list[str | Path] = [
        compiled.builder(),
        ROOT / "deploy/release/compiled.py",
        ROOT,
        tmp_path / "tree",
    ]
    done = subprocess.run(
        [*map(str, words)],
        cwd=tmp_path,
        env={**os.environ, "PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, "no C compiler" in done.stderr) == (1, True)


def test_an_isolated_build_gets_the_locked_version() -> None:
    """Only where it is wanted: nobody else needs Cython."""
    script = (
        "import json, sys; from hatchling.builders.wheel import WheelBuilder;"
        "print(json.dumps(WheelBuilder(sys.argv[1]).config.dependencies))"
    )
    lock = (ROOT / "requirements/compile.lock").read_text(encoding="utf-8").split(" ", 1)[0]
    for value, wanted in (("0", []), ("1", [lock])):
        done = run(
            [sys.executable, "-c", script, str(ROOT)], ROOT, clean_environment(MCP_SIDECAR_COMPILED=value)
        )
        assert json.loads(done.stdout) == wanted, done.stderr
