"""What each command does. One function a command; argparse only sorts the words."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

DESCRIPTION = "A transparent, JSON-RPC-aware reverse proxy that stands next to one MCP server."


def run_command(words: list[str]) -> int:
    """Parse `words` and run what they name. Returns the exit code."""
    options = _parser().parse_args(words)
    command = options.command
    if command == "run":
        return _run(options)
    if command == "check":
        from .check import check

        return check(options.config, _overrides(options), os.environ, sys.stdout)
    if command == "schema":
        from .check import print_schema

        return print_schema(sys.stdout)
    if command == "hash-key":
        return _hash_key(options)
    from .demo import run as demo

    return demo(serve=options.serve, listen=options.listen)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mcp-sidecar", description=DESCRIPTION)
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="run the sidecar until TERM or Ctrl-C")
    check = commands.add_parser("check", help="print every mistake in the settings, with its position")
    for each in (run, check):
        each.add_argument("--config", type=Path, metavar="FILE", help="settings in YAML or JSON")
        each.add_argument("--upstream", metavar="URL", help="the server to guard: upstream.url")
        each.add_argument("--listen", metavar="HOST:PORT", help="the data port: listen.address")
        each.add_argument(
            "--set", action="append", default=[], metavar="path=value", help="override one setting"
        )
    commands.add_parser("schema", help="print the JSON Schema of the settings, for editors")
    demo = commands.add_parser("demo", help="stand before a real third-party server and show what happens")
    demo.add_argument("--serve", action="store_true", help="keep running until Ctrl-C")
    demo.add_argument("--listen", default="127.0.0.1:8080", metavar="HOST:PORT")
    _add_hash_key(commands.add_parser("hash-key", help="make an API key and its entry for a keys file"))
    commands.add_parser("healthcheck", help="ask a probe of a running sidecar: exit 0 when it answers 200")
    return parser


def _add_hash_key(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Makes a key. Standard output gets what belongs into the keys file; the key itself goes to standard "
        "error, once, in a line that begins with `key: `."
    )
    parser.add_argument("--tenant", required=True, help="the tenant the key stands for")
    parser.add_argument("--subject", required=True, help="the name of whoever presents the key")
    parser.add_argument("--role", action="append", default=[], metavar="ROLE", help="may be repeated")
    parser.add_argument("--id", help="names the key in records; made up from the subject unless given")
    parser.add_argument("--expires", metavar="DATE", help='"2027-06-30" (as it begins, UTC) or a date-time')
    parser.add_argument(
        "--keys-file", metavar="FILE", help="make one more entry for this file, not a new file"
    )


def _overrides(options: argparse.Namespace) -> list[str]:
    named = []
    if options.upstream is not None:
        named.append(f"upstream.url={options.upstream}")
    if options.listen is not None:
        named.append(f"listen.address={options.listen}")
    return [*options.set, *named]


def _run(options: argparse.Namespace) -> int:
    from .settings import SettingsError, load

    try:
        settings = load(options.config, overrides=_overrides(options), environ=os.environ)
    except SettingsError as error:
        for mistake in error.mistakes:
            print(mistake, file=sys.stderr)
        return 2
    from .assemble import serve
    from .telemetry.logs import Log

    log = Log()
    try:
        import uvloop
    except ImportError:
        import asyncio

        return asyncio.run(serve(settings, log))
    return uvloop.run(serve(settings, log))


def _hash_key(options: argparse.Namespace) -> int:
    import time

    from .identity.hash_key import Wish, hash_key

    wish = Wish(
        tenant=options.tenant,
        subject=options.subject,
        roles=tuple(options.role),
        id=options.id,
        expires=options.expires,
        keys_file=options.keys_file,
    )
    wall = time.time  # noqa: TID251  nothing is assembled for this command
    return hash_key(wish, os.environ, sys.stdout, sys.stderr, wall=wall)


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"mcp-sidecar {version('mcp-sidecar')}"
    except PackageNotFoundError:
        return "mcp-sidecar (not installed)"
