"""Is this wheel compiled? A build hook of hatchling: with MCP_SIDECAR_COMPILED=1 the wheel holds extension modules
beside their sources, for one platform and one Python; without it nothing happens, and the wheel is for all of them.

In: the variable. Out: files and a tag of the wheel. What is compiled, and how, says deploy/release/compiled.py.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

VARIABLE: Final = "MCP_SIDECAR_COMPILED"


class CompiledHook(BuildHookInterface[Any]):
    """Called by hatchling before and after it makes a wheel."""

    folder: Path | None = None
    """Of objects, until they are in the wheel."""

    def dependencies(self) -> list[str]:
        """What an isolated build gets beside hatchling: the version that is locked."""
        if not _is_wanted():
            return []
        lock = Path(self.root, "requirements", "compile.lock").read_text(encoding="utf-8")
        return re.findall(r"(?m)^cython==[^ ;\\]+", lock)

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """An editable installation is never compiled: what is edited there is what runs."""
        if not _is_wanted() or version == "editable":
            return
        self.folder = Path(tempfile.mkdtemp(prefix="mcp-sidecar-wheel-"))
        builder = Path(self.root, "deploy", "release", "compiled.py")
        done = subprocess.run([sys.executable, str(builder), self.root, str(self.folder)], check=False)
        if done.returncode:
            shutil.rmtree(self.folder)
            raise SystemExit(f"{VARIABLE} is set, and it cannot be compiled")
        for each in sorted(self.folder.rglob("*.so")):
            build_data["force_include"][str(each)] = str(each.relative_to(self.folder))
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if self.folder is not None:
            shutil.rmtree(self.folder)


def _is_wanted() -> bool:
    wish = os.environ.get(VARIABLE, "0")
    if wish not in ("0", "1"):
        raise SystemExit(f"{VARIABLE} is 0 or 1")
    return wish == "1"
