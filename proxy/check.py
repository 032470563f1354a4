"""What do `check` and `schema` print? Settings in; lines on `out` and an exit code back."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, TextIO

from .configuration.files import read_bounded
from .configuration.mistakes import shown
from .identity.settings import in_words
from .settings import Settings, SettingsError, load

CLEAN: Final = 0
BAD_CONFIGURATION: Final = 2


def check(file: Path | None, overrides: Sequence[str], environ: Mapping[str, str], out: TextIO) -> int:
    """Print every mistake and return 2, or `FILE: ok` with what is worth knowing and return 0."""
    try:
        settings = load(file, overrides=overrides, environ=environ)
    except SettingsError as error:
        for mistake in error.mistakes:
            _print(str(mistake), out)
        return BAD_CONFIGURATION
    if settings.listen.tls is not None:
        from .downstream.tls import Unusable, context_of  # most have none, and `check` is run often

        try:
            context_of(settings.listen.tls, read_bounded)
        except Unusable as unusable:
            _print(f"{'no settings file' if file is None else shown(str(file), 4096)}: {unusable}", out)
            return BAD_CONFIGURATION
    _print(f"{'no settings file' if file is None else shown(str(file), 4096)}: ok", out)
    for note in notes(settings):
        _print(f"  {note}", out)
    return CLEAN


def print_schema(out: TextIO) -> int:
    """Print the JSON Schema of a settings file, for editors."""
    from .configuration.schema import as_text
    from .settings import schema

    out.write(as_text(schema()))
    return CLEAN


def notes(settings: Settings) -> Iterator[str]:
    """What a mistake it is not, but an operator should know: who is let in, and from where."""
    where = "loopback only" if settings.listen.address.is_loopback else "reachable from outside"
    yield f"data port {settings.listen.address}{settings.listen.path}: {where}"
    for authenticator in settings.identity.chosen:
        yield f"identity: {shown(in_words(authenticator), 200)}"
    where = "loopback only" if settings.operations.address.is_loopback else "reachable from outside"
    yield f"operations port {settings.operations.address}: {where}"
    if settings.upstream.forward_client_authorization:
        yield "upstream: the clients' Authorization header is forwarded"
        if settings.identity.resource is None:
            yield "upstream: without identity.resource the server's own OAuth names an address clients may not reach"
    for tool in overriding(settings):
        yield f"policy: PACKS ARE OVERRIDDEN for {shown(tool)}: its own rule alone decides who may call it"


def overriding(settings: Settings) -> list[str]:
    """Tools that packs do not refuse any more, because a rule says so."""
    tools = settings.policy.tools if settings.policy else ()
    return [rule.match for rule in tools if rule.overrides_packs]


def _print(line: str, out: TextIO) -> None:
    # A terminal that cannot show a character must not turn a mistake into a crash.
    encoding = out.encoding or "utf-8"
    out.write(line.encode(encoding, "backslashreplace").decode(encoding) + "\n")
