"""Which calls leave a record that can be checked, where, and how sure is it? The `telemetry.audit` section.

Absent: there is no audit. Light: `check` reads it without a loop.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeAlias

from msgspec import Meta, Struct

from ..configuration.mistakes import Unfit
from ..configuration.values import fit
from ..secret import Secret

SHORTEST_KEY: Final = 32
"""Characters. Whoever guesses it can try arguments until a hash fits."""
STDOUT: Final = "stdout"


def check_args_key(key: Secret) -> None:
    """Raise Unfit where the key of hashes is too short to keep guessers out."""
    if len(key.reveal().strip()) < SHORTEST_KEY:
        why = "whoever guesses it can try arguments until a hash fits"
        raise Unfit("is too short", why, f"write at least {SHORTEST_KEY} random characters")


def check_file(path: str) -> None:
    """Raise Unfit unless this can be the path of a file."""
    if "\0" in path or path.endswith("/"):
        raise Unfit("is no path of a file", "records are appended to a file", "name the file")


Path = Annotated[str, Meta(min_length=1, max_length=4_096), fit(check_file)]
KeyText = Annotated[Secret, Meta(extra={"fit": check_args_key})]


class AuditSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who did what: a file of records that are chained, so that whoever changes one is found out."""

    file: Path
    """Where records are appended, one JSON line each. Beside it lie its lock and, numbered, the files before it."""

    mode: Literal["sync", "batch"] = "batch"
    """sync: nothing is sent to the server before the disk has the intent, no answer released before it has the result;
    where that cannot be, calls are refused. batch: records reach the disk within a second, so that a crash may lose
    the last second."""

    classes: Annotated[tuple[Literal["read", "write", "dangerous"], ...], Meta(min_length=1)] = (
        "write",
        "dangerous",
    )
    """Tool calls of these classes leave a record, refused ones too. What operators do always does."""

    timeout_s: Annotated[float, Meta(gt=0, le=30)] = 1.0
    """How long a call waits for the disk, each time (sync)."""

    signing_key_file: Path | None = None
    """An Ed25519 key (PEM) that signs checkpoints; `mcp-sidecar audit keygen` makes one. Absent: they are not signed,
    and whoever can write the file can write it anew as a whole."""

    anchor: Annotated[str, Meta(min_length=1, max_length=4_096), fit(check_file)] | None = None
    """Where checkpoints are told as well: stdout, or the path of a second file. What was told there cannot be cut off,
    or written anew, unnoticed."""

    checkpoint_records: Annotated[int, Meta(ge=1, le=1_000_000)] = 1_000
    """A checkpoint is written after so many records,"""

    checkpoint_s: Annotated[float, Meta(gt=0, le=86_400)] = 60.0
    """or after so long, where there were any."""

    max_file_bytes: Annotated[int, Meta(ge=65_536, le=1_099_511_627_776)] = 67_108_864
    """Beyond this another file is begun, and the chain goes on in it."""

    keep_files: Annotated[int, Meta(ge=1, le=100_000)] | None = None
    """How many of the files before are kept. Absent: all."""

    args_key: KeyText | None = None
    """What keys the hash of arguments: with it somebody can prove later which arguments were sent. Absent: a random
    one, which dies with the process; then equal hashes of one run mean equal arguments, and nothing else can be
    learnt."""

    instance: Annotated[str, Meta(max_length=128)] = ""
    """Names this sidecar in records. Empty: the name of the host."""


def check_audit(audit: AuditSettings) -> None:
    """Raise Unfit where two fields name one file."""
    if audit.anchor == audit.file:
        why = "whoever can change the one can change the other"
        raise Unfit("has its anchor in the same file", why, "name another, or stdout", key="anchor")


Audit: TypeAlias = Annotated[AuditSettings, fit(check_audit)]
"""The section as the settings of the room hold it."""
