"""Every configuration in the documents loads (issue 9, point 6): whole files as they stand, parts beside a minimal one.

What they name is made up in a temporary folder: files that `${file:…}` refers to, keys, certificates, locks.
"""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import yaml
from msgspec.structs import fields

from proxy.check import check
from proxy.settings import Settings
from tests.documents.pages import Block, every_block
from tests.documents.place import Place

SECTIONS = {field.encode_name for field in fields(Settings)}
BASE = {"version": "version: 1\n", "upstream": "upstream: {url: http://127.0.0.1:8000/mcp}\n"}
ELSEWHERE = {
    "apiVersion": "a Kubernetes manifest: tests/system/test_deploy_readme.py builds it",
    "scrape_configs": "for Prometheus: tests/system/test_runbook_commands.py lets promtool check it",
}
"""Top-level keys of YAML that is not ours, and who checks it."""


def top_level(block: Block) -> set[str]:
    return set(yaml.safe_load(block.text))


# A block with a misspelt section is ours, too: it must not slip out of the test.
OURS = [each for each in every_block() if each.language == "yaml" and not top_level(each) & set(ELSEWHERE)]


@pytest.mark.parametrize("block", OURS, ids=str)
def test_a_configuration_loads(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(tmp_path)
    monkeypatch.chdir(tmp_path)
    missing = "".join(text for key, text in BASE.items() if key not in top_level(block))
    file = tmp_path / "shown.yaml"
    file.write_text(missing + place.moved(block.text), encoding="utf-8")
    out = io.StringIO()
    assert check(file, (), {}, out) == 0, out.getvalue()


def test_every_section_is_shown_somewhere() -> None:
    """What has no example is found by nobody."""
    shown = {key for block in OURS for key in top_level(block)}
    assert SECTIONS - {"version"} <= shown


def test_the_readme_shows_one_whole_file() -> None:
    whole = [
        each for each in OURS if each.page.name == "README.md" and {"version", "upstream"} <= top_level(each)
    ]
    assert len(whole) == 1
