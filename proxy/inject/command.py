"""What does `mcp-sidecar inject` read and print? Words and standard input in; manifests on `out`, remarks on `err`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import BinaryIO, Final, TextIO

from ..configuration.files import read_bounded
from ..configuration.mistakes import Position, Report, SettingsError, Unfit, shown
from . import sidecar
from .injecting import injected
from .wishes import DRAIN_S, Wish, wished

CLEAN: Final = 0
REFUSED: Final = 2
MOST_BYTES: Final = 16_777_216
STANDARD_INPUT: Final = "-"

_TEXTS: Final = {
    "container": ("NAME", "the server's container, where there are several"),
    "port": ("PORT", "the server's port: its number, or its name; the only one unless given"),
    "socket": ("FILE", "the server listens on this unix socket, in a volume that it mounts, and on no port"),
    "path": ("PATH", "the server's path: /mcp unless given; …/sse for a server of 2024-11-05"),
    "config": ("NAME", "a ConfigMap with settings.yaml; without one everything is passed and observed"),
    "secret": ("NAME", f"a Secret, mounted as files in {sidecar.SECRET_FOLDER}"),
    "image": ("IMAGE", "the sidecar's image"),
    "listen-port": ("PORT", f"the sidecar's port: {sidecar.LISTEN_PORT}, or the next that is free"),
    "operations-port": (
        "PORT",
        f"for probes and metrics: {sidecar.OPERATIONS_PORT}, or the next that is free",
    ),
    "cpu": ("QUANTITY", f"requested: {sidecar.CPU}"),
    "memory": ("QUANTITY", f"requested: {sidecar.MEMORY}"),
    "memory-limit": ("QUANTITY", f"the limit: {sidecar.MEMORY_LIMIT}"),
    "tenant": ("NAME", "everybody is this one tenant; `local` without --config"),
    "hosts": (
        "NAME,…",
        "names clients use, beside those of the Services; with --config in the place of its own",
    ),
    "drain-s": ("SECONDS", f"how long calls may go on when the pod ends: {DRAIN_S}"),
    "pre-stop": (
        "HOW",
        "what keeps the server from its TERM meanwhile: sleep (1.30), exec (needs `sleep`), none",
    ),
}


def inject(words: Sequence[str], stdin: BinaryIO, out: TextIO, err: TextIO) -> int:
    """Print the manifests of `-f` with the sidecar added. Returns the exit code."""
    options = _parser().parse_args(words)
    file: str = options.file
    source = "standard input" if file == STANDARD_INPUT else shown(file, 4096)
    try:
        text = _text(file, source, stdin)
        done = injected(text, source, _wish(options), services=options.service, only=options.only)
    except SettingsError as error:
        print(error, file=err)
        return REFUSED
    out.write(done.text)
    for note in done.notes or (f"{source}: nothing here gets a sidecar",):
        print(note, file=err)
    return CLEAN


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mcp-sidecar inject",
        description=(
            "Prints the manifests with the sidecar in front of the server of each workload, and their Services led "
            "to it. Nothing else changes: comments, order and quotes stay. What has a sidecar is left as it is. Each "
            "option but the first three can stand in the manifest as an annotation, mcp-sidecar.dev/OPTION, which goes "
            'before it; mcp-sidecar.dev/inject: "false" leaves a workload or a Service alone.'
        ),
    )
    parser.add_argument(
        "-f", "--file", required=True, metavar="FILE", help="manifests in YAML or JSON; - is standard input"
    )
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="KIND/NAME",
        help="of all workloads these; may be repeated",
    )
    parser.add_argument(
        "--service",
        action="append",
        default=[],
        metavar="NAME",
        help="lead this Service to the sidecar too, by --port",
    )
    for word, (what, about) in _TEXTS.items():
        parser.add_argument(f"--{word}", metavar=what, help=about)
    parser.add_argument(
        "--classic", action="store_true", help="among the containers: for clusters older than 1.29"
    )
    return parser


def _text(file: str, source: str, stdin: BinaryIO) -> str:
    """What is to be worked on. Raises SettingsError."""
    report = Report()
    try:
        data = stdin.read(MOST_BYTES + 1) if file == STANDARD_INPUT else read_bounded(file, MOST_BYTES)
        if len(data) > MOST_BYTES:
            raise Unfit("is too big", f"at most {MOST_BYTES} bytes are read", "work on it in parts")
        if data.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
            raise Unfit("begins with a byte order mark", "UTF-8 needs none", "save it as UTF-8 without one")
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        report.add(
            Position(source, line), "", "is not UTF-8", "no other encoding is read", "save it as UTF-8"
        )
    except Unfit as unfit:
        report.add_unfit(Position(source), "", unfit)
    raise SettingsError(report.mistakes) from None


def _wish(options: argparse.Namespace) -> Wish:
    """What the options ask for. Raises SettingsError with every mistake."""
    report, wish = Report(), Wish(is_classic=options.classic)
    for word in _TEXTS:
        text = getattr(options, word.replace("-", "_"))
        if text is None:
            continue
        try:
            wish = wished(wish, word, text)
        except Unfit as unfit:
            report.add_unfit(Position(f"--{word}"), "", unfit)
    if report.has_mistakes:
        raise SettingsError(report.mistakes)
    return wish
