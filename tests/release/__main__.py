"""`python -m tests.release`: make the wheel and the image with all extras and compiled, as it is shipped, use both, and
print their figures. Compiling takes minutes."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from tests.release.image import build
from tests.release.installed import answering, figures, installed

RULES = (
    '[{"match":"a","allow":["*"],"when":"size(args.q) < 5"},'
    '{"match":"b","allow":["*"],"validate":true,"redact":[{"pattern":"github_token","action":"mask"}]}]'
)
EXTRAS = (
    f"policy.tools={RULES}",
    'limits=[{"name":"r","key":["tenant"],"rate_per_s":1,"burst":1}]',
    'shared_state={"url":"redis://127.0.0.1:1/0"}',
)
"""Settings that only somebody who has the extras accepts."""


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="mcp-sidecar-release-") as name, answering() as url:
        folder = Path(name)
        folder.chmod(0o755)
        for lock in ("run", "image"):
            home = folder / lock
            command = installed(home, Path("requirements") / f"{lock}.lock")
            print(
                f"wheel, {lock}.lock: {figures([str(command)], url, home / 'env', home / 'log')}", flush=True
            )
        for lock, is_compiled in (("run", "0"), ("image", "1")):
            place = folder / f"image-{lock}"
            place.mkdir()
            image = build(place, {"LOCK": lock, "COMPILED": is_compiled})
            words = [*image.words("check", "--set", "upstream.url=http://127.0.0.1:1/mcp")]
            words += [word for each in EXTRAS for word in ("--set", each)]
            checked = subprocess.run(
                words, env=dict(image.environment), capture_output=True, text=True, timeout=60
            )
            seen = figures(image.words()[: -len(image.command)], url, image.root, place / "log")
            print(f"image, {lock}.lock, COMPILED={is_compiled}, before compression: {seen}", flush=True)
            if checked.returncode != (0 if lock == "image" else 2):
                print(
                    f"check with extras: {checked.returncode}\n{checked.stdout}{checked.stderr}",
                    file=sys.stderr,
                )
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
