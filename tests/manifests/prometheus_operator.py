"""Does the Prometheus operator take this object? Judged by its own definitions (CRDs) of version 0.90.1.

In: an object. Out: nothing, or Refused with what is wrong. Keeps nothing. The npm package
@kubernetes-models/prometheus-operator 5.0.0 (MIT) holds them as compiled validators, made of the release's
stripped-down-crds.yaml (Apache-2.0), as its package.json says. They judge values and not names of fields: the API
server drops an unknown field without a word. Which fields there are stands in the package's types.
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any, Final

from tests.tools.node import node_tools

PACKAGE: Final = "@kubernetes-models/prometheus-operator"
MADE_OF: Final = "releases/download/v0.90.1/stripped-down-crds.yaml"
LONGEST_S: Final = 60.0
_SCRIPT: Final = f"""
import * as models from "{PACKAGE}/monitoring.coreos.com/v1";
let said = "";
for await (const piece of process.stdin) said += piece;
const {{ apiVersion, kind, ...rest }} = JSON.parse(said);
if (!(kind in models)) throw new Error("no such kind: " + kind);
try {{ new models[kind](rest).validate(); }} catch (error) {{ console.log(error.message); process.exit(1); }}
"""
_FIELD: Final = re.compile(r'^\s*"([A-Za-z0-9_]+)"\??:', re.MULTILINE)


class Refused(ValueError):
    """The operator's definitions do not take it."""


def judge(document: dict[str, Any]) -> None:
    """Raises Refused."""
    assert document["apiVersion"] == "monitoring.coreos.com/v1"
    tools = node_tools()
    done = subprocess.run(
        [tools.node, "--input-type=module", "-e", _SCRIPT],
        cwd=tools.root,
        input=json.dumps(document),
        capture_output=True,
        text=True,
        timeout=LONGEST_S,
    )
    assert done.stderr == ""
    if done.returncode != 0:
        raise Refused(done.stdout.strip())


def fields_of(kind: str) -> set[str]:
    """The names of all fields that an object of this kind may have, wherever they stand, but those of its metadata."""
    return set(
        _FIELD.findall((_folder() / "monitoring.coreos.com" / "v1" / f"{kind}.d.ts").read_text("utf-8"))
    )


def source() -> str:
    """The URL of what the package was made of, as it says itself."""
    package = json.loads((_folder() / "package.json").read_text("utf-8"))
    (url,) = package["crd-generate"]["input"]
    assert isinstance(url, str)
    return url


def _folder() -> Path:
    return node_tools().root / "node_modules" / PACKAGE
