"""Is an audit file as it was written? A machine that is given lines. Pure: no IO, no clock.

In: names of files and their lines, in order; anchors; what checks signatures. Out: the first line that is wrong and
what was done to it, and what cannot be seen. Keeps one hash, and at most `MOST_TORN_BYTES` of half a line.

    edit         a line is not what its own hash says, or not what the next one names
    drop         numbers are missing
    reorder      what is missing comes later
    truncation   a file ends too early: in the middle of a line, before the next file goes on, or before an anchor
    splice       a line of another chain, or from another place of this one
    forgery      a signature is not that of the key, none is signed, or an anchor says otherwise
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from hashlib import sha256
from typing import Final, TypeAlias

import msgspec
from msgspec import Struct

from .audit_chain import NOTHING, hash_of, signed_text

MOST_TORN_BYTES: Final = 1_048_576
"""Of what a crash may leave behind the last whole line."""
ROTATION: Final = "rotation"
"""Why the last checkpoint of a file was written that is followed by another."""
WRITTEN_AGAIN: Final = "written again"
"""What an event says after a time in which the disk took nothing."""
CLOSE: Final = "close"
"""The same where the process ended in order."""

Anchors: TypeAlias = Mapping[tuple[str, int], str]
"""Hashes that were told elsewhere, by chain and number."""
IsSigned: TypeAlias = Callable[[str, bytes, bytes], bool]
"""(the name of a key, signature, text) → whether that key is known and signed the text."""


class Kind(StrEnum):
    """What was done."""

    EDIT = "edit"
    DROP = "drop"
    REORDER = "reorder"
    TRUNCATION = "truncation"
    SPLICE = "splice"
    FORGERY = "forgery"


class Finding(Struct, frozen=True):
    """The first line that is wrong."""

    kind: Kind
    file: str
    line: int
    """From 1."""
    why: str


class Torn(Struct, frozen=True):
    """What a line of kind `torn` says of what stands before it."""

    bytes: int
    sha256: str


class Gap(Struct, frozen=True):
    """What a line says of a time in which nothing could be written."""

    since: str
    lost: int = 0


class Read(Struct, frozen=True):
    """What a whole line says of itself."""

    seq: int
    chain: str
    prev: str
    time: str
    kind: str
    what: str = ""
    why: str = ""
    key: str = ""
    signature: str = ""
    fields: msgspec.Raw = msgspec.Raw(b"{}")


def read_line(line: bytes) -> tuple[Read, str] | None:
    """What a line says, and its hash; None where it is not as it was written."""
    hash_ = hash_of(line)
    if hash_ is None:
        return None
    try:
        return _decode(line), hash_
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None  # somebody hashed what is no record


_decode = msgspec.json.Decoder(Read).decode


class _Gap(Struct, frozen=True):
    """A line with another number than the next one: what is told depends on what comes."""

    finding: Finding
    wanted: int
    """The number that should stand there; that of any first line of a file where it is 0."""
    before: int
    """The number that stands there."""


class Verifier:
    """Goes through files once. Nothing is looked at behind the first finding, but for what tells its kind."""

    def __init__(self, anchors: Anchors | None = None, is_signed: IsSigned | None = None) -> None:
        """`is_signed` is None where no key is known."""
        self._anchors = anchors or {}
        self._is_signed = is_signed
        self.finding: Finding | None = None
        self.lines = 0
        """That are as they were written."""
        self.chain = ""
        self.first = 0
        """The number of the first line."""
        self.seq = 0
        """Of the last line."""
        self.checkpoints = 0
        self.signed_at = 0
        """The number of the last checkpoint whose signature is that of a known key; 0: none."""
        self.anchored_at = 0
        self.torn: list[str] = []
        """Where a crash left half a line, as FILE:LINE."""
        self.gaps: list[str] = []
        """When the disk took nothing, as the file itself says."""
        self._last = NOTHING
        self._ended_by = ""
        self._file = ""
        self._number = 0
        self._before = "", 0
        """The file before, and how many lines it has."""
        self._is_first_of_file = True
        self._half: tuple[Finding, bytearray] | None = None
        self._gap: _Gap | None = None

    def begin(self, file: str) -> None:
        """The next lines are of this file. Files come in the order in which they were written."""
        self._confirm_half()
        self._check_empty()
        self._before = self._file, self._number
        self._file = file
        self._number = 0
        self._is_first_of_file = True

    def line(self, line: bytes) -> None:
        """The next line, with its end where it has one."""
        self._number += 1
        if self.finding is not None:
            return
        read = read_line(line)
        if self._gap is not None:
            self._look_for(self._gap, read)
        elif self._half is not None:
            self._after_half(self._half, line, read)
        elif read is None:
            self._half = self._unread(line), bytearray(line)
        else:
            self._judge(*read)

    def ended(self) -> None:
        """There are no more lines."""
        self._confirm_half()
        if self.finding is None and self._gap is not None:
            self.finding = self._gap.finding
        if self._ended_by != ROTATION:
            self._check_empty()  # one that is begun has nothing in it for a moment
        if self.finding is not None:
            return
        if not self.lines:
            self._find(Kind.TRUNCATION, "there is not a single record")
            return
        beyond = [seq for chain, seq in self._anchors if chain == self.chain and seq > self.seq]
        if beyond:
            self._find(
                Kind.TRUNCATION, f"the file ends with record {self.seq}, an anchor is of {max(beyond)}"
            )
        elif self._anchors and not any(chain == self.chain for chain, _ in self._anchors):
            self._find(Kind.FORGERY, "none of the anchors is of this chain", line=1)
        elif self._is_signed is not None and not self.signed_at:
            self._find(Kind.FORGERY, "none of its checkpoints is signed by this key")

    @property
    def is_decided(self) -> bool:
        """Whether no other line can change what is said."""
        return self.finding is not None

    @property
    def unseen(self) -> list[str]:
        """What cannot be seen with what was given, and what should be known."""
        said = []
        if self.first > 1:
            said.append(f"It begins with record {self.first}: what stood in files before was not given.")
        safe = max(self.anchored_at, self.signed_at)
        if not self.anchored_at:
            said.append("Without an anchor it cannot be seen whether records at the end were cut off.")
        if self._is_signed is None and not self.anchored_at:
            said.append(
                "Without a public key or an anchor it cannot be seen whether it was written anew as a whole."
            )
        elif safe < self.seq:
            what = "cut off or written anew" if self.anchored_at >= self.signed_at else "written anew"
            said.append(f"Behind record {safe} of {self.seq} somebody could have {what} what stands there.")
        if self._ended_by != CLOSE:
            said.append("It does not end with a goodbye: the process runs, or has died.")
        return said

    def _judge(self, read: Read, hash_: str) -> None:
        is_first, self._is_first_of_file = self._is_first_of_file, False
        if not self.lines:
            self.chain = read.chain
        if read.chain != self.chain:
            self._find(Kind.SPLICE, f"it is of another chain, {read.chain}")
        elif not self.lines and read.kind != "file" and (read.kind != "torn" or read.seq > 1):
            self._wait_for(0, read.seq, Kind.DROP, "it is not the first line of a file: that one is missing")
        elif not self.lines and read.seq == 1 and read.prev != NOTHING:
            self._find(Kind.EDIT, "it is the first record, and names one before")
        elif self.lines and read.seq != self.seq + 1:
            self._judge_gap(read, is_first)
        elif self.lines and read.prev != self._last:
            # It is whole by itself, and so is the one before: one of them was made to be.
            at = (self._file, self._number - 1) if not is_first else self._before
            why = f"record {self.seq} is not the one that record {read.seq} names"
            self.finding = Finding(Kind.EDIT, at[0], at[1], why)
        elif self._anchors.get((read.chain, read.seq), hash_) != hash_:
            self._find(Kind.FORGERY, f"record {read.seq} is not the one that was anchored")
        elif read.kind == "checkpoint" and not self._is_good(read):
            self._find(Kind.FORGERY, "its signature is not of a given key")
        else:
            self._take(read, hash_)

    def _take(self, read: Read, hash_: str) -> None:
        self.first = self.first or read.seq
        self.seq = read.seq
        self._last = hash_
        self._ended_by = read.why if read.kind == "checkpoint" else ""
        self.lines += 1
        self.checkpoints += read.kind == "checkpoint"
        if (read.chain, read.seq) in self._anchors:
            self.anchored_at = read.seq
        if read.kind == "event" and read.what == WRITTEN_AGAIN:
            gap = msgspec.json.decode(read.fields, type=Gap)
            self.gaps.append(f"from {gap.since} to {read.time}, {gap.lost} records are missing")

    def _is_good(self, read: Read) -> bool:
        """One that is not signed vouches for nothing; the next one that is does."""
        if self._is_signed is None or not read.signature:
            return True
        try:
            signature = bytes.fromhex(read.signature)
        except ValueError:
            return False
        if not self._is_signed(read.key, signature, signed_text(read.chain, read.seq, read.prev, read.time)):
            return False
        self.signed_at = read.seq
        return True

    # Numbers that are missing

    def _judge_gap(self, read: Read, is_first: bool) -> None:
        wanted = self.seq + 1
        if is_first and read.seq > wanted and self._ended_by != ROTATION:
            file, line = self._before
            why = f"it ends with record {self.seq}, and the next file goes on with {read.seq}"
            self.finding = Finding(Kind.TRUNCATION, file, line, why)
        elif read.seq > wanted:
            what = (
                f"record {wanted} is" if read.seq == wanted + 1 else f"records {wanted} to {read.seq - 1} are"
            )
            self._wait_for(wanted, read.seq, Kind.DROP, f"{what} missing before it")
        else:
            why = f"record {read.seq} stands here instead of {wanted}"
            self._wait_for(wanted, read.seq, Kind.SPLICE, why)

    def _wait_for(self, wanted: int, before: int, kind: Kind, why: str) -> None:
        self._gap = _Gap(Finding(kind, self._file, self._number, why), wanted, before)

    def _look_for(self, gap: _Gap, read: tuple[Read, str] | None) -> None:
        """What is missing and comes later was not taken away."""
        if read is None:
            return
        if read[0].chain != self.chain:
            if not gap.wanted:
                at = gap.finding
                why = "what stands behind it is of another chain"
                self.finding = Finding(Kind.SPLICE, at.file, at.line, why)
            return
        seq, is_head = read[0].seq, read[0].kind == "file"
        if seq == gap.wanted or (not gap.wanted and is_head and seq < gap.before):
            at = gap.finding
            why = f"record {seq} should stand before it, and is line {self._number} of {self._file}"
            self.finding = Finding(Kind.REORDER, at.file, at.line, why)

    # Lines that are not whole

    def _unread(self, line: bytes) -> Finding:
        if line.endswith(b"\n"):
            return self._found(Kind.EDIT, "it is not what its hash says")
        if hash_of(line[:-1] + b"\n") is not None:
            return self._found(Kind.EDIT, "its end was changed")
        why = "it is not whole: the process died while it wrote, or the file was cut"
        return self._found(Kind.TRUNCATION, why)

    def _after_half(
        self, half: tuple[Finding, bytearray], line: bytes, read: tuple[Read, str] | None
    ) -> None:
        """What a crash has left is no crime where the next line, which is chained, says just that of it."""
        finding, left = half
        if read is None:
            left += line
            if len(left) > MOST_TORN_BYTES:
                self._confirm_half()
            return
        self._half = None
        said = read[0]
        if said.kind == "torn" and said.prev == self._last and said.seq == self.seq + 1 and _fits(said, left):
            self.torn.append(f"{finding.file}:{finding.line}")
            self._judge(*read)
        else:
            self.finding = finding

    def _confirm_half(self) -> None:
        if self._half is not None:
            self.finding, self._half = self._half[0], None

    def _check_empty(self) -> None:
        if self.finding is None and self._file and not self._number:
            self._find(Kind.TRUNCATION, "there is nothing in it")

    def _find(self, kind: Kind, why: str, *, line: int | None = None) -> None:
        self.finding = self._found(kind, why) if line is None else Finding(kind, self._file, line, why)

    def _found(self, kind: Kind, why: str) -> Finding:
        return Finding(kind, self._file, self._number, why)


def _fits(read: Read, left: bytearray) -> bool:
    try:
        torn = msgspec.json.decode(read.fields, type=Torn)
    except msgspec.MsgspecError:
        return False
    # What had no end was given one.
    ends = {torn.bytes, torn.bytes + 1}
    return len(left) in ends and sha256(left[: torn.bytes]).hexdigest() == torn.sha256


__all__ = [
    "CLOSE",
    "ROTATION",
    "WRITTEN_AGAIN",
    "Anchors",
    "Finding",
    "IsSigned",
    "Kind",
    "Verifier",
    "read_line",
]
