"""Manifests as charts, programs and people write them, and what `mcp-sidecar inject` makes of them (golden/).

`python -m tests.manifests` writes golden/ anew: look at the difference before it is committed.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from proxy.inject.injecting import Injected, injected
from proxy.inject.wishes import Wish

FOLDER = Path(__file__).parent
FILES = sorted(each.name for each in FOLDER.iterdir() if each.suffix in (".yaml", ".json"))

IMAGE = Wish(image="registry.example.com/mcp-sidecar:1")
"""So that golden files do not follow our version."""


def text_of(name: str) -> str:
    return (FOLDER / name).read_bytes().decode()


def golden(name: str) -> str:
    return (FOLDER / "golden" / name).read_bytes().decode()


def inject(text: str, wish: Wish = IMAGE, **options: Any) -> Injected:
    return injected(text, "manifest", wish, **options)


def objects(text: str) -> Iterator[dict[str, Any]]:
    """Every object of a text, those in Lists by themselves."""
    for document in documents(text):
        yield from document["items"] if document["kind"] == "List" else [document]


def documents(text: str) -> list[dict[str, Any]]:
    """Read as kubectl reads: its YAML is that of libyaml, which lets tabs stand where Python's own does not."""
    return [each for each in yaml.load_all(text, Loader=yaml.CSafeLoader) if each is not None]
