"""The picture of the house, drawn from its imports: rooms never know each other (style guide 2)."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import proxy

ROOT = Path(proxy.__file__).parent

SHARED = {"model", "secret", "authorities", "refusals", "protocol", "shelf", "alarm"} | {
    f"configuration.{name}"
    for name in ("values", "mistakes", "files", "documents", "globs", "folding", "moments", "socket_urls")
}
"""What every room may know: the words, the table of noes, the wire, value types of settings, and small files."""

MAY_KNOW: dict[str, set[str]] = {
    "model": set(),
    "secret": set(),
    "authorities": set(),
    "refusals": {"model"},
    "shelf": {"model"},
    "alarm": set(),
    "protocol": {"model"},
    "batches": {"model", "protocol", "refusals"},
    "pipeline": {"model"},
    "configuration": {"secret"},
    "check": {"settings", "configuration", "identity.settings", "downstream.tls"},
    "settings": {"configuration", "policy.addresses", "policy.packs", "identity.keys_file"},
    "pinning": {"model", "policy", "upstream"},
    "inject": {
        "configuration.files",
        "configuration.mistakes",
        "configuration.socket_urls",
        "configuration.values",
    },
    "demo": set(),
    # Where everything is put together.
    "assemble": {""},
    "metering": {""},
    "house": {""},
    "doctor": {""},
    "commands": {""},
    "__main__": {""},
}


def is_within(module: str, place: str) -> bool:
    return not place or module == place or module.startswith(f"{place}.")


def is_right(source: str, target: str) -> bool:
    """Whether the arrow may be drawn; a room that the table does not name may know what is shared."""
    room = source.partition(".")[0]
    known = {room, *MAY_KNOW.get(source, MAY_KNOW.get(room, SHARED))}
    joins_settings = source == "settings" and target.endswith(".settings")
    return joins_settings or any(is_within(target, place) for place in known)


def name_of(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {name_of(file): file for file in ROOT.rglob("*.py")}


def arrows() -> Iterator[tuple[str, str]]:
    """Each import inside the house as (who, whom); also those for types and those inside functions."""
    for source, file in MODULES.items():
        package = source.split(".") if file.name == "__init__.py" else source.split(".")[:-1]
        for node in ast.walk(ast.parse(file.read_bytes())):
            if isinstance(node, ast.Import):
                yield from ((source, each.name) for each in node.names if is_within(each.name, "proxy"))
            elif isinstance(node, ast.ImportFrom) and node.level:
                base = [*package[: len(package) - node.level + 1], *(node.module or "").split(".")]
                target = ".".join(filter(None, base))
                for each in node.names:
                    inner = f"{target}.{each.name}".lstrip(".")
                    yield source, inner if inner in MODULES else target
            elif isinstance(node, ast.ImportFrom) and is_within(node.module or "", "proxy"):
                yield source, node.module or ""


def test_no_arrow_points_the_wrong_way() -> None:
    """Style guide 2: imports point one way; rooms never import each other; all imports are relative."""
    drawn = set(arrows())
    # Relative imports of each depth are seen, one of them inside `if TYPE_CHECKING`.
    assert ("pipeline", "model") in drawn
    assert ("upstream.forward", "protocol.headers") in drawn
    assert ("downstream.connection", "downstream.settings") in drawn
    assert ("protocol.revisions.r2025_06_18", "model") in drawn
    assert sorted(arrow for arrow in drawn if not is_right(*arrow)) == []


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("upstream.forward", "downstream.gate"),
        ("telemetry.journey", "pipeline"),
        ("identity.jwt", "settings"),
        ("cache.stage", "policy.rules"),
        ("protocol.sse", "refusals"),
        ("model", "protocol"),
        ("pipeline", "refusals"),
        ("identity.settings", "configuration.convert"),
        ("settings", "identity.anonymous"),
        ("configuration.tree", "settings"),
        ("refusals", "proxy.model"),
        ("demo.start", "assemble"),
        ("inject.sidecar", "settings"),
    ],
)
def test_these_arrows_would_be_noticed(source: str, target: str) -> None:
    """The test above must be able to fail."""
    assert not is_right(source, target)
