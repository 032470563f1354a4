"""What is in the box? A lock with hashes → a software bill of materials: CycloneDX 1.6, as JSON.

    python deploy/release/sbom.py             # write it
    python deploy/release/sbom.py --check     # exit 1 where it is not what the locks say

In: requirements/image.lock (everything), run.lock (what is always there), and, where they are installed, the packages
themselves, which know their licences. Out: mcp-sidecar.cdx.json beside this file; a licence that cannot be asked for
now stays as it was written last. The same locks give the same bytes: there is no time and no chance in it. Stdlib
only. Sources: CycloneDX 1.6, the purl specification, PEP 639 (licences), PEP 770 (its place in a wheel).
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import tomllib
import uuid
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]
FILE: Final = Path(__file__).with_name("mcp-sidecar.cdx.json")
EVERYTHING: Final = ROOT / "requirements" / "image.lock"
ALWAYS: Final = ROOT / "requirements" / "run.lock"

_ENTRY: Final = re.compile(r"(?m)^([a-z0-9-]+)==([^ ;\\]+)(?: ; ([^\\\n]+?))? \\\n((?:^ .*\n?)*)")
_VIA: Final = re.compile(r"(?m)^ +#(?: via)? +(?!via$)([a-z0-9-]+)(?: \(pyproject\.toml\))?$")
_BY_OLD_NAME: Final = {
    "Apache License 2.0": "Apache-2.0",
    "Apache License, Version 2.0": "Apache-2.0",
    "Apache-2.0 license": "Apache-2.0",
    "MIT License": "MIT",
    "License :: OSI Approved :: Apache Software License": "Apache-2.0",
    "License :: OSI Approved :: BSD License": "BSD-3-Clause",
    "License :: OSI Approved :: MIT License": "MIT",
    "3-Clause BSD License": "BSD-3-Clause",
    "BSD": "BSD-3-Clause",
    "PSF-2.0": "PSF-2.0",
    "License :: OSI Approved :: Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
}
"""Of packages that name their licence as before PEP 639."""


def packages(lock: Path) -> dict[str, tuple[str, str | None, set[str]]]:
    """By name: version, environment marker, and who asked for it."""
    text = lock.read_text(encoding="utf-8")
    return {
        name: (version, marker or None, set(_VIA.findall(rest)))
        for name, version, marker, rest in _ENTRY.findall(text)
    }


def licence_of(name: str) -> str | None:
    """An SPDX expression, or the words of the package; None where it is not installed, or says nothing."""
    try:
        said: Any = metadata(name)
    except PackageNotFoundError:
        return None
    if expression := said.get("License-Expression"):
        return str(expression)
    words = [said.get("License") or "", *(said.get_all("Classifier") or [])]
    return (
        next((_BY_OLD_NAME[each] for each in words if each in _BY_OLD_NAME), words[0].partition("\n")[0])
        or None
    )


def bill(known: Mapping[str, str]) -> dict[str, Any]:
    """The document. `known`: licences by name, where packages cannot be asked."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (version,) = re.findall(r'(?m)^__version__ = "(.+)"$', (ROOT / "proxy/__init__.py").read_text("utf-8"))
    everything, always = packages(EVERYTHING), packages(ALWAYS)
    own = _purl(project["name"], version)
    refs = {name: _purl(name, found[0]) for name, found in everything.items()}
    needs: dict[str, list[str]] = {ref: [] for ref in (own, *refs.values())}
    for name, (_, _, wanted_by) in everything.items():
        for who in wanted_by:
            needs[own if who == project["name"] else refs[who]].append(refs[name])
    about = {"type": "application", "bom-ref": own, "name": project["name"], "version": version, "purl": own}
    locks = b"".join(lock.read_bytes() for lock in (EVERYTHING, ALWAYS))
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": uuid.uuid5(uuid.NAMESPACE_URL, own + hashlib.sha256(locks).hexdigest()).urn,
        "version": 1,
        "metadata": {
            "lifecycles": [{"phase": "pre-build"}],
            "component": {
                **about,
                "description": project["description"],
                "licenses": [{"expression": project["license"]}],
            },
        },
        "components": [
            _component(name, refs[name], found, name in always, licence_of(name) or known.get(name))
            for name, found in everything.items()
        ],
        "dependencies": [
            {"ref": ref, **({"dependsOn": sorted(below)} if below else {})}
            for ref, below in sorted(needs.items())
        ],
    }


def _purl(name: str, version: str) -> str:
    return f"pkg:pypi/{name}@{version}"


def _component(
    name: str, ref: str, found: tuple[str, str | None, set[str]], is_always: bool, licence: str | None
) -> dict[str, Any]:
    version, marker, _ = found
    component: dict[str, Any] = {
        "type": "library",
        "bom-ref": ref,
        "name": name,
        "version": version,
        # What only extras bring along is in the image, and not in an installation without them.
        "scope": "required" if is_always else "optional",
        "purl": ref,
    }
    if licence is not None:
        is_spdx = re.fullmatch(r"[A-Za-z0-9.+-]+(?: (?:AND|OR|WITH) [A-Za-z0-9.+-]+)*", licence)
        component["licenses"] = [{"expression": licence} if is_spdx else {"license": {"name": licence}}]
    if marker is not None:
        component["properties"] = [{"name": "mcp-sidecar:marker", "value": marker}]
    return component


def licences(document: Mapping[str, Any]) -> dict[str, str]:
    """Those of a bill, by the name of the package."""
    return {
        each["name"]: one.get("expression") or one["license"]["name"]
        for each in document.get("components", [])
        for one in each.get("licenses", [])
    }


def text_of(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def main(words: list[str]) -> int:
    before = FILE.read_text(encoding="utf-8") if FILE.exists() else "{}"
    text = text_of(bill(licences(json.loads(before))))
    if words == ["--check"]:
        if text != before:
            print(
                f"{FILE.name} is not what the locks say: run python deploy/release/sbom.py", file=sys.stderr
            )
        return int(text != before)
    FILE.write_text(text, encoding="utf-8")
    print(f"{FILE.name}: {len(json.loads(text)['components'])} packages")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
