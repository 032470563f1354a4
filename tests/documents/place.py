"""A folder in which the configurations and commands of the documents find what they name.

In: a folder. Out: texts whose absolute paths lead into it. The files are real ones: keys, certificates, an audit.
"""

from __future__ import annotations

import re
from pathlib import Path

from tests.certificates import Authority
from tests.documents.pages import ROOT, blocks
from tests.integration.keys import let_in

ABSOLUTE = re.compile(r"(?<![\w.])/(?:run|var/log|var/lib|etc)/[\w./-]+")
"""Paths of the documents that are not on this machine."""


class Place:
    """Files are made up when a text first names them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        authority = Authority("documents")
        self._own = authority.issue()
        self._authority = authority.pem
        (example,) = (
            each
            for each in blocks(ROOT / "README.md")
            if each.language == "yaml" and "version: 1" in each.text
        )
        for name in ("sidecar.yaml", "settings.yaml"):
            (folder / name).write_text(example.text, encoding="utf-8")
        server = (ROOT / "deploy" / "example" / "server.yaml").read_bytes()
        (folder / "deployment.yaml").write_bytes(server)
        (folder / "tools.lock.yaml").write_text("version: 1\ntools: []\n", encoding="utf-8")
        for name in ("policies", "deploy"):
            (folder / name).symlink_to(ROOT / name)

    def moved(self, text: str) -> str:
        """The text with its paths in the folder, where there is something now."""
        return ABSOLUTE.sub(lambda found: str(self._made(found[0])), text)

    def _made(self, path: str) -> Path:
        file = self.folder / path.removeprefix("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.exists():
            return file
        if "api-keys" in path:
            let_in(file.parent, {"ci.secret-of-ci-for-documents": ("acme", "ci", ["viewer"])})
            (file.parent / "keys.json").rename(file)
        elif path.endswith(".crt"):
            file.write_bytes(self._authority if "ca" in file.stem else self._own.pem)
        elif path.endswith(".key"):
            file.write_bytes(self._own.key_pem)
        elif path.endswith("settings.yaml"):
            file.write_bytes((self.folder / "settings.yaml").read_bytes())
        elif "/run/" in path:
            file.write_text("a-secret-that-the-documents-made-up-and-nobody-uses\n", encoding="utf-8")
        return file
