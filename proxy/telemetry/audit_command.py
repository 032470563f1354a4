"""`mcp-sidecar audit verify` and `audit keygen`: thin shells around `audit_verifier.py` and `audit_signing.py`.

In: paths. Out: words, and an exit code. Files are read once, a line at a time. IO.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import IO, Final, TextIO

from ..configuration.mistakes import Unfit, shown
from .audit_chain import LONGEST_LINE_BYTES
from .audit_verifier import Anchors, Verifier, read_line

AS_WRITTEN: Final = 0
NOT_AS_WRITTEN: Final = 1
UNREADABLE: Final = 2
LONGEST_SHOWN: Final = 4_096
BESIDE: Final = (".lock", ".next")


def verify(
    files: Sequence[str], public_keys: Sequence[str], anchors: Sequence[str], out: TextIO, err: TextIO
) -> int:
    """Say whether these files are as they were written. Returns the exit code."""
    is_signed = None
    try:
        if public_keys:
            from .audit_signing import read_verifying  # cryptography takes its time

            is_signed = read_verifying(public_keys)
        told = _anchors(anchors)
        verifier = Verifier(told, is_signed)
        # Whoever writes FILE* means the files of the chain, not what lies beside them.
        for file in _in_order([each for each in files if not each.endswith(BESIDE)]):
            verifier.begin(shown(file, LONGEST_SHOWN))
            with open(file, "rb") as opened:
                for line in _lines(opened):
                    verifier.line(line)
                    if verifier.is_decided:
                        break
            if verifier.is_decided:
                break
        verifier.ended()
    except Unfit as unfit:
        print(unfit, file=err)
        return UNREADABLE
    except OSError as error:
        print(f"{shown(str(error.filename), LONGEST_SHOWN)}: {error.strerror}", file=err)
        return UNREADABLE
    if anchors and not told:
        print("the anchors hold no checkpoint", file=err)
        return UNREADABLE
    return _said(verifier, out)


def _said(verifier: Verifier, out: TextIO) -> int:
    finding = verifier.finding
    if finding is not None:
        print(f"{finding.file}:{finding.line}: {finding.kind}: {finding.why}", file=out)
        print(f"What stands before it is as it was written: {verifier.lines} records.", file=out)
        return NOT_AS_WRITTEN
    print(
        f"{verifier.lines} records of chain {verifier.chain}, {verifier.first} to {verifier.seq}, with "
        f"{verifier.checkpoints} checkpoints, are as they were written.",
        file=out,
    )
    for place in verifier.torn:
        print(f"{place}: left by a crash, as the next record says.", file=out)
    for gap in verifier.gaps:
        print(f"The disk took nothing: {gap}.", file=out)
    for said in verifier.unseen:
        print(said, file=out)
    return AS_WRITTEN


def keygen(path: str, out: TextIO, err: TextIO) -> int:
    """Make a key. Returns the exit code."""
    from .audit_signing import make_key

    try:
        name = make_key(path)
    except OSError as error:
        print(f"{shown(str(error.filename or path), LONGEST_SHOWN)}: {error.strerror}", file=err)
        return UNREADABLE
    print(
        f"key {name}: {shown(path, LONGEST_SHOWN)} signs, {shown(path, LONGEST_SHOWN)}.pub checks", file=out
    )
    return AS_WRITTEN


def _lines(file: IO[bytes]) -> Iterator[bytes]:
    """Lines with their ends. What is longer than any of ours comes in pieces."""
    return iter(lambda: file.readline(LONGEST_LINE_BYTES), b"")


def _in_order(files: Sequence[str]) -> list[str]:
    """By the number of the first record; as given where one cannot be read. Raises OSError."""

    def first(file: str) -> int | None:
        with open(file, "rb") as opened:
            read = read_line(opened.readline(LONGEST_LINE_BYTES))
        return None if read is None else read[0].seq

    numbered = [(first(file), file) for file in files]
    known = [number for number, _ in numbered if number is not None]
    if len(known) < len(numbered):
        # A full file is named after its first record, and the newest has no number.
        return sorted(files, key=_number_in_name)
    return [file for _, file in sorted(numbered, key=lambda each: each[0] or 0)]


def _number_in_name(file: str) -> tuple[int, int]:
    end = os.path.basename(file).rpartition(".")[2]
    return (0, int(end)) if end.isdecimal() and end.isascii() else (1, 0)


def _anchors(files: Sequence[str]) -> Anchors:
    """The checkpoints in these files; other lines are those of somebody else. Raises OSError."""
    told: dict[tuple[str, int], str] = {}
    for file in files:
        with open(file, "rb") as opened:
            for line in _lines(opened):
                # Collectors of output cut the end of a line off, or put another one there.
                read = read_line(line.rstrip(b"\r\n") + b"\n")
                if read is not None and read[0].kind == "checkpoint":
                    told[read[0].chain, read[0].seq] = read[1]
    return told
