"""What each command does. One function a command; argparse only sorts the words."""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .model import Journey
    from .settings import Loaded

DESCRIPTION = "A transparent, JSON-RPC-aware reverse proxy that stands next to one MCP server."


def run_command(words: list[str]) -> int:
    """Parse `words` and run what they name. Returns the exit code."""
    if words[:1] == ["inject"]:  # has a parser of its own, which nobody else need import
        from .inject.command import inject

        return inject(words[1:], sys.stdin.buffer, sys.stdout, sys.stderr)
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
    if command == "pin":
        return _pin(options)
    if command == "explain":
        return _explain(options)
    if command == "doctor":
        return _doctor(options)
    if command == "audit":
        return _audit(options)
    if command == "policy" and options.policy_command != "test":
        from .policy.shipped import list_shipped, show_shipped

        if options.policy_command == "list":
            return list_shipped(sys.stdout)
        return show_shipped(options.name, sys.stdout, sys.stderr)
    if command == "policy":
        return max(_test_policy(file) for file in options.file)
    from .demo import run as demo

    return demo(serve=options.serve, listen=options.listen)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mcp-sidecar", description=DESCRIPTION)
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="run the sidecar until TERM or Ctrl-C")
    check = commands.add_parser("check", help="print every mistake in the settings, with its position")
    explain = commands.add_parser(
        "explain", help="say why a call would be allowed or refused; starts nothing"
    )
    _add_explain(explain)
    pin = commands.add_parser("pin", help="write down what the server's tools look like, or check it")
    pin.add_argument("--file", default="tools.lock.yaml", metavar="FILE", help="the lock file")
    pin.add_argument("--check", action="store_true", help="write nothing; exit 1 when something differs")
    pin.add_argument(
        "--keep",
        action="store_true",
        help="what is pinned stays: for servers that show callers different tools",
    )
    doctor = commands.add_parser("doctor", help="prove an installation: what is wrong, and what to do")
    _add_doctor(doctor)
    for each in (run, check, explain, pin, doctor):
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
    policy = commands.add_parser("policy", help="work on a policy").add_subparsers(
        dest="policy_command", required=True, metavar="COMMAND"
    )
    test = policy.add_parser("test", help="compare what the rules say with what files of cases expect")
    test.add_argument(
        "file", nargs="+", type=Path, metavar="FILE", help="cases, and the settings they are about"
    )
    policy.add_parser("list", help="name the packs and the example settings that are shipped")
    show = policy.add_parser("show", help="print one of them: the first file of a new sidecar")
    show.add_argument("name", metavar="NAME")
    _add_audit(commands.add_parser("audit", help="check audit files, or make a key that signs them"))
    commands.add_parser("inject", help="print Kubernetes manifests with the sidecar added to them")
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


def _add_doctor(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Looks at settings, probes, server, issuers, certificates, clocks, store, files and limits, all at once and "
        "within seconds. Exit code 0: nothing failed, 1: something did, 2: the words are wrong."
    )
    parser.add_argument(
        "--server-address",
        metavar="HOST:PORT",
        help="the server's own port by the pod's IP: run outside the pod, nobody may answer there",
    )
    parser.add_argument("--json", action="store_true", help="one JSON document instead of lines")


def _add_audit(parser: argparse.ArgumentParser) -> None:
    audit = parser.add_subparsers(dest="audit_command", required=True, metavar="COMMAND")
    verify = audit.add_parser("verify", help="find the first record that is not as it was written")
    verify.description = (
        "Names the first bad line and what was done to it (edit, drop, reorder, truncation, splice, forgery), and says "
        "what it cannot see. Exit code 0: all is as it was written, 1: it is not, 2: a file cannot be read."
    )
    verify.add_argument("file", nargs="+", metavar="FILE", help="all files of one chain, in any order")
    verify.add_argument(
        "--public-key", action="append", default=[], metavar="FILE", help="signs checkpoints; may be repeated"
    )
    verify.add_argument(
        "--anchors", action="append", default=[], metavar="FILE", help="lines with checkpoints told elsewhere"
    )
    keygen = audit.add_parser("keygen", help="make a key that signs checkpoints: FILE and FILE.pub")
    keygen.add_argument("file", metavar="FILE", help="where the private key is written")


def _add_explain(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Prints the way of a call through every rule and what its caller would see. Exit code 0: it passes, "
        "1: it is refused, 2: the settings or the words are wrong."
    )
    parser.add_argument(
        "--as",
        dest="caller",
        required=True,
        metavar="TENANT:SUBJECT[:ROLE,…]",
        help="who calls; a subject with a colon needs one behind it too",
    )
    parser.add_argument(
        "--scope", action="append", default=[], help="an OAuth scope they have; may be repeated"
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--call", nargs="+", metavar=("TOOL", "JSON"), help="a tool, and its arguments")
    what.add_argument("--method", help="another method")
    parser.add_argument("--target", help="what the method names: a URI, the name of a prompt")
    parser.add_argument("--params", metavar="JSON", help="what else the params of the method hold")


def _overrides(options: argparse.Namespace) -> list[str]:
    named = []
    if options.upstream is not None:
        named.append(f"upstream.url={options.upstream}")
    if options.listen is not None:
        named.append(f"listen.address={options.listen}")
    return [*options.set, *named]


def _run(options: argparse.Namespace) -> int:
    from .settings import SettingsError, load_with_files

    overrides = _overrides(options)

    def read() -> Loaded:
        return load_with_files(options.config, overrides=overrides, environ=os.environ)

    try:
        return _serve(read)
    except SettingsError as error:
        for mistake in error.mistakes:
            print(mistake, file=sys.stderr)
        return 2


def _serve(read: Callable[[], Loaded]) -> int:
    gc.disable()  # a fifth of a start: what is imported and built stays. `serve` lets it run again
    from .lifecycle.descriptors import hold_standard
    from .lifecycle.watch import look_at

    hold_standard()
    loaded = read()
    seen = look_at(loaded.files)  # now: what comes next takes its time, and somebody may write them meanwhile
    from .authorities import import_aiohttp

    import_aiohttp()
    from .house import serve
    from .telemetry.channels import redirect
    from .telemetry.logs import Log

    log = Log()
    log.say_life(loaded.settings.telemetry.life)
    redirect(log.life)
    try:
        try:
            import uvloop
        except ImportError:
            import asyncio

            return asyncio.run(serve(loaded, seen, log, read))
        return uvloop.run(serve(loaded, seen, log, read))
    finally:
        log.close()


def _explain(options: argparse.Namespace) -> int:
    from .configuration.mistakes import Unfit
    from .identity.challenges import Challenges
    from .model import Refused
    from .policy.asked import TOOL_CALL, asked, caller_of, object_of
    from .policy.explain import REFUSED, Policy, explain
    from .policy.packs import read_packs
    from .refusals import explain as answer
    from .settings import SettingsError, load

    try:
        settings = load(options.config, overrides=_overrides(options), environ=os.environ)
        policy = Policy(settings.policy, read_packs(settings.policy))
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2
    try:
        principal = caller_of(options.caller, options.scope)
        tool, *arguments = options.call or [None]
        if len(arguments) > 1 or (tool is not None and (options.target or options.params)):
            raise Unfit(
                "--call has too many words", "a tool and its arguments are one call", "quote the JSON"
            )
        params = object_of(options.params) if options.params else {}
        if arguments:
            params = {"arguments": object_of(arguments[0])}
        call = asked(options.method or TOOL_CALL, tool or options.target, _journey(), params)
    except Unfit as unfit:
        print(unfit, file=sys.stderr)
        return 2
    except Refused as refused:
        print(f"REFUSED {refused.reason.value}, before any rule: {refused.why}")
        return REFUSED
    challenges = Challenges(settings.identity)
    lines, code = explain(
        policy, call, principal, lambda refused, call: answer(challenges(refused), call, settings.refusals)
    )
    print("\n".join(lines))
    return code


def _doctor(options: argparse.Namespace) -> int:
    import time

    from .configuration.mistakes import Unfit
    from .configuration.values import Address
    from .doctor.examine import Wish, doctor

    try:
        named = None if options.server_address is None else Address.parse(options.server_address)
    except Unfit as unfit:
        print(f"--server-address: {unfit}", file=sys.stderr)
        return 2
    wish = Wish(
        file=options.config, overrides=_overrides(options), server_address=named, is_json=options.json
    )
    wall = time.time  # noqa: TID251  nothing is assembled for this command
    return doctor(wish, os.environ, sys.stdout, wall=wall)


def _test_policy(file: Path) -> int:
    from .configuration.documents import read_document
    from .policy.packs import read_packs
    from .policy.rules import Rules
    from .policy.vectors import AS_EXPECTED, DIFFERS, Vectors, differences
    from .settings import SettingsError, load

    try:
        vectors = read_document(str(file), Vectors)
        settings = load(file.parent / vectors.config, overrides=vectors.set, environ=os.environ)
        rules = Rules(settings.policy, read_packs(settings.policy))
    except SettingsError as error:
        print(error)
        return 2
    wrong = list(differences(vectors, rules, _journey))
    for lines in wrong:
        print("\n".join(f"{'' if index else f'{file}: '}{line}" for index, line in enumerate(lines)))
    count = len(vectors.cases)
    print(f"{file}: {count - len(wrong)} of {count} cases as expected")
    return DIFFERS if wrong else AS_EXPECTED


def _journey() -> Journey:
    """A record that nobody reads."""
    from .telemetry.journey import Journeys, Observers

    return Journeys(Observers()).open(0.0)


def _pin(options: argparse.Namespace) -> int:
    import asyncio

    from .pinning import pin_tools
    from .policy.pin_command import PinWish
    from .settings import SettingsError, load

    try:
        settings = load(options.config, overrides=_overrides(options), environ=os.environ)
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2
    wish = PinWish(file=options.file, is_check=options.check, keeps=options.keep)
    return asyncio.run(pin_tools(settings.upstream, wish, sys.stdout, sys.stderr))


def _audit(options: argparse.Namespace) -> int:
    from .telemetry.audit_command import keygen, verify

    if options.audit_command == "keygen":
        return keygen(options.file, sys.stdout, sys.stderr)
    return verify(options.file, options.public_key, options.anchors, sys.stdout, sys.stderr)


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
    from . import __version__

    return f"mcp-sidecar {__version__}"
