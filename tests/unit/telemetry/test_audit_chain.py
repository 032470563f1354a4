"""Lines that hold on to each other: whatever is done to them is found, named for what it is, and told apart."""

from __future__ import annotations

import json
from hashlib import sha256

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as some

from proxy.telemetry.audit_chain import (
    LONGEST_LINE_BYTES,
    Asked,
    Chain,
    CheckpointLine,
    EventLine,
    Line,
    encoded,
    hash_of,
    signed_text,
)
from proxy.telemetry.audit_verifier import Anchors, IsSigned, Kind, Verifier

KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
OTHER_KEY = Ed25519PrivateKey.from_private_bytes(bytes([1]) * 32)
TIME = "2026-01-02T03:04:05.000006Z"


class Book:
    """Writes lines as the sidecar does."""

    def __init__(self, id: str = "a" * 32, key: Ed25519PrivateKey | None = KEY) -> None:
        self.chain = Chain(id)
        self.key = key
        self.files: list[list[bytes]] = []
        self.begin()

    def add(self, make: type[Line], kind: str, *values: object) -> bytes:
        return self.put(encoded(make(kind, *values)))

    def put(self, fields: str) -> bytes:
        line = self.chain.sealed(TIME, fields)
        self.files[-1].append(line)
        return line

    def begin(self) -> None:
        self.files.append([])
        self.add(EventLine, "file", "begins", {"format": "1"})

    def call(self, tool: str = "drop_table") -> bytes:
        asked = encoded(Asked("issuer", "ann", "acme", "", "f00", "tools/call", tool))
        return self.put(f'"kind":"result","request_id":"r-1",{asked}')

    def checkpoint(self, why: str = "interval") -> bytes:
        chain = self.chain
        signature = ""
        if self.key is not None:
            signature = self.key.sign(signed_text(chain.id, chain.seq + 1, chain.last, TIME)).hex()
        return self.add(CheckpointLine, "checkpoint", why, "k", signature)


def book(calls: int = 6, *, checkpoint: bool = True, **more: object) -> Book:
    made = Book(**more)  # type: ignore[arg-type]  # by name
    for each in range(calls):
        made.call(f"tool-{each}")
    if checkpoint:
        made.checkpoint("close")
    return made


def rotated() -> Book:
    """Three files of one chain."""
    made = book(3, checkpoint=False)
    for _ in range(2):
        made.checkpoint("rotation")
        made.begin()
        for each in range(3):
            made.call(f"later-{each}")
    made.checkpoint("close")
    return made


def is_signed(key: str, signature: bytes, text: bytes) -> bool:
    try:
        KEY.public_key().verify(signature, text)
    except Exception:
        return False
    return key == "k"


def verified(
    *files: list[bytes] | bytes, anchors: Anchors | None = None, signed: IsSigned | None = None
) -> Verifier:
    verifier = Verifier(anchors, signed)
    for number, file in enumerate(files):
        verifier.begin(f"f{number}")
        whole = file if isinstance(file, bytes) else b"".join(file)
        for line in whole.splitlines(keepends=True) if b"\r" not in whole else _lines(whole):
            verifier.line(line)
    verifier.ended()
    return verifier


def _lines(whole: bytes) -> list[bytes]:
    parts = whole.split(b"\n")
    return [part + b"\n" for part in parts[:-1]] + ([parts[-1]] if parts[-1] else [])


def found(*files: list[bytes] | bytes, **more: object) -> tuple[Kind, str, int] | None:
    finding = verified(*files, **more).finding  # type: ignore[arg-type]  # by name
    return None if finding is None else (finding.kind, finding.file, finding.line)


def anchors_of(made: Book) -> dict[tuple[str, int], str]:
    """What the checkpoints of a book said elsewhere."""
    said = {}
    for line in (line for file in made.files for line in file):
        value = json.loads(line)
        if value["kind"] == "checkpoint":
            said[value["chain"], value["seq"]] = value["hash"]
    return said


def test_a_line_names_the_one_before_and_ends_with_its_own_hash() -> None:
    """audit_chain.py: whoever has sha256sum can check it."""
    made = book(1)
    first, second, _ = made.files[0]
    assert json.loads(first)["prev"] == "0" * 64
    assert json.loads(second)["prev"] == json.loads(first)["hash"]
    text, _, seal = second.rpartition(b',"hash":"')
    assert seal == sha256(text).hexdigest().encode() + b'"}\n'
    assert [json.loads(line)["seq"] for line in made.files[0]] == [1, 2, 3]


@pytest.mark.parametrize(
    "made",
    [book(), rotated(), book(0), book(key=None)],
    ids=["whole", "rotated", "without calls", "unsigned"],
)
def test_what_was_written_is_as_it_was_written(made: Book) -> None:
    """Issue 8, point 5: no false alarm, or nobody looks at true ones."""
    verifier = verified(*made.files, anchors=anchors_of(made))
    assert verifier.finding is None
    assert (verifier.first, verifier.seq, verifier.lines) == (1, made.chain.seq, made.chain.seq)
    assert verifier.anchored_at == made.chain.seq


def test_every_changed_byte_is_an_edit_of_its_line() -> None:
    """Issue 8, done when: every mutation is detected; here each byte, each of three ways."""
    made = book(2)
    lines = made.files[0]
    whole = b"".join(lines)
    number = 1
    for at, byte in enumerate(whole):
        for other in (byte ^ 1, 0x0A if byte != 0x0A else 0x20, 0x00):
            changed = whole[:at] + bytes([other]) + whole[at + 1 :]
            assert found(changed) == (Kind.EDIT, "f0", number), (at, other)
        number += byte == 0x0A


def test_every_place_where_a_file_can_be_cut_is_a_truncation() -> None:
    """Issue 8: up to the last anchor; behind it nothing can be seen, which is said."""
    made = book(2)
    whole, anchors = b"".join(made.files[0]), anchors_of(made)
    for at in range(len(whole)):
        kind, *_ = found(whole[:at], anchors=anchors) or (None,)
        assert kind is Kind.TRUNCATION, at
    lines = made.files[0]
    short = verified(lines[:2])
    assert short.finding is None
    assert "Without an anchor it cannot be seen whether records at the end were cut off." in short.unseen


@pytest.mark.parametrize("at", range(8))
def test_every_dropped_line_is_missing(at: int) -> None:
    """Issue 8."""
    made = book()
    lines = made.files[0]
    expected = (Kind.TRUNCATION, "f0", 7) if at == 7 else (Kind.DROP, "f0", at + 1)
    assert found(lines[:at] + lines[at + 1 :], anchors=anchors_of(made)) == expected


def test_every_move_of_a_line_is_a_reorder() -> None:
    """Issue 8: told apart from a drop, because what is missing comes later."""
    lines = book().files[0]
    for source in range(len(lines)):
        for target in range(len(lines)):
            moved = lines[:source] + lines[source + 1 :]
            moved.insert(target, lines[source])
            if moved != lines:
                assert found(moved) == (Kind.REORDER, "f0", min(source, target) + 1), (source, target)


def test_a_repeated_line_is_out_of_order() -> None:
    """Issue 8: a copy looks whole by itself."""
    lines = book().files[0]
    assert found([*lines[:4], lines[2], *lines[4:]]) == (Kind.REORDER, "f0", 5)


def test_lines_of_another_chain_are_spliced() -> None:
    """Issue 8: splice from another file, whole and chained there."""
    one, other = book().files[0], book(id="b" * 32).files[0]
    for at in range(1, 8):
        assert found([*one[:at], other[at], *one[at + 1 :]]) == (Kind.SPLICE, "f0", at + 1)
        assert found([*one[:at], other[at], *one[at:]]) == (Kind.SPLICE, "f0", at + 1)
    assert found(one, other) == (Kind.SPLICE, "f1", 1)


def test_lines_of_another_place_of_the_same_chain_are_spliced() -> None:
    """Issue 8: a line of an older file in the place of a newer one."""
    first, second, third = rotated().files
    assert found(first, [*second[:2], first[2], *second[3:]], third) == (Kind.SPLICE, "f1", 3)


def test_a_line_that_was_written_anew_is_not_the_one_the_next_names() -> None:
    """Issue 8: who edits a line can hash it, too."""
    made = book()
    forged = Book()
    forged.call("tool-0")
    line = forged.call("harmless")
    lines = made.files[0]
    assert hash_of(line) is not None
    assert found([*lines[:2], line, *lines[3:]]) == (Kind.EDIT, "f0", 3)


def test_a_file_of_a_rotated_set_that_was_cut_is_told_from_one_that_is_missing() -> None:
    """Issue 8: a file that is followed by another ends with a checkpoint that says so."""
    first, second, third = rotated().files
    assert found(first[:-1], second, third) == (Kind.TRUNCATION, "f0", 4)
    assert found(first, third) == (Kind.DROP, "f1", 1)
    assert found(second, third) is None
    assert "It begins with record 6: what stood in files before was not given." in verified(second).unseen


def test_a_file_that_was_written_anew_needs_an_anchor_or_a_key_to_be_seen() -> None:
    """Issue 8: says what it cannot detect without an anchor."""
    real, forged = book(), book(2, key=None)
    plain = verified(*forged.files)
    assert plain.finding is None
    assert any("written anew as a whole" in said for said in plain.unseen)
    assert found(*forged.files, anchors=anchors_of(real)) == (Kind.TRUNCATION, "f0", 4)
    longer = book(9, key=None)
    assert found(*longer.files, anchors=anchors_of(real)) == (Kind.FORGERY, "f0", 8)
    assert found(*longer.files, signed=is_signed) == (Kind.FORGERY, "f0", 11)
    assert found(*book(key=OTHER_KEY).files, signed=is_signed) == (Kind.FORGERY, "f0", 8)
    elsewhere = book(id="b" * 32)
    assert found(*elsewhere.files, anchors=anchors_of(real)) == (Kind.FORGERY, "f0", 1)
    signed = verified(*real.files, signed=is_signed)
    assert (signed.finding, signed.signed_at) == (None, 8)


def test_what_stands_behind_the_last_anchor_is_named() -> None:
    """Issue 8: up to the last anchor."""
    made = book()
    anchors = anchors_of(made)
    made.call()
    made.call()
    verifier = verified(*made.files, anchors=anchors)
    said = "Behind record 8 of 10 somebody could have cut off or written anew what stands there."
    assert verifier.finding is None
    assert said in verifier.unseen


def torn(made: Book, left: bytes) -> bytes:
    """The line that says what a crash has left."""
    return made.add(EventLine, "torn", "left", {"bytes": len(left), "sha256": sha256(left).hexdigest()})


@pytest.mark.parametrize("left", [b'{"seq":3,"ch', b"\0" * 700, b'{"a":1}\n{"b":2}\nhalf', b'{"a":1}\n'])
def test_what_a_crash_left_is_no_crime_where_the_next_line_says_so(left: bytes) -> None:
    """Issue 8: a torn last line is kept as evidence."""
    made = Book()
    made.call()
    file = made.files[0]
    before = b"".join(file)
    mark = torn(made, left)
    made.call()
    after = b"".join([mark, file[-1]])
    end = b"" if left.endswith(b"\n") else b"\n"
    verifier = verified(before + left + end + after)
    assert (verifier.finding, verifier.torn, verifier.seq) == (None, ["f0:3"], 4)
    # Nor can somebody hide behind it.
    assert found(before + b"x" + left + end + after) == (Kind.EDIT, "f0", 3)
    assert found(before + left) in [(Kind.TRUNCATION, "f0", 3), (Kind.EDIT, "f0", 3)]


def test_an_empty_file_is_cut() -> None:
    """Issue 8: nothing is less than what was written."""
    assert found(b"") == (Kind.TRUNCATION, "f0", 0)


_TEXTS = some.text(some.characters(codec=None), max_size=400)


@given(some.lists(_TEXTS, min_size=8, max_size=8), some.dictionaries(_TEXTS, _TEXTS, max_size=4))
def test_nobody_who_chooses_a_text_ends_a_line_or_hides_in_it(
    texts: list[str], given: dict[str, str]
) -> None:
    """Issue 8: injection-proof. Control characters, line separators, bidi, lone surrogates, quotes, any length."""
    for fields in (Asked("i", *texts), EventLine("event", "x", dict(given))):
        line = Chain("c").sealed(TIME, encoded(fields))
        assert all(0x20 <= byte < 0x7F for byte in line[:-1])
        assert len(line) < LONGEST_LINE_BYTES
        assert json.loads(line)["seq"] == 1


@pytest.mark.parametrize(
    "tool",
    [
        'x","result":"ok',
        "x\n{}",
        "x\r\n",
        "\u2028\u2029\x85",
        "\x7f\x1b[2K",
        "\u202eexe",
        "\ud800",
        "a" * 100_000,
        "😀" * 5_000,
    ],
)
def test_a_hostile_name_stays_one_name(tool: str) -> None:
    """Corpus category telemetry (TEL-001 and following): one line, one field."""
    line = Book().call(tool)
    value = json.loads(line)
    assert line.count(b"\n") == 1
    assert (value["subject"], value["kind"]) == ("ann", "result")
    assert "result" not in value
    assert len(line) < 4_096


def test_two_long_names_that_begin_alike_are_two() -> None:
    """Own promise: nobody hides a call behind another one's name."""
    made = Book()
    one, other = made.call("a" * 5_000), made.call("a" * 5_000 + "b")
    assert json.loads(one)["tool"] != json.loads(other)["tool"]


_MUTATION = some.sampled_from(["edit", "drop", "reorder", "truncate", "splice"])


@given(some.data())
def test_any_mutation_is_found_and_named(data: some.DataObject) -> None:
    """Issue 8, done when: edit, drop, reorder, truncate and splice, in any place of a rotated set."""
    made, other = rotated(), book(20, id="c" * 32)
    files = [list(file) for file in made.files]
    number = data.draw(some.integers(0, 2))
    file = files[number]
    at = data.draw(some.integers(0, len(file) - 1))
    what = data.draw(_MUTATION)
    kinds = {what}
    if what == "edit":
        place = data.draw(some.integers(0, len(file[at]) - 1))
        new = data.draw(some.integers(0, 255).filter(lambda byte: byte != file[at][place]))
        file[at] = file[at][:place] + bytes([new]) + file[at][place + 1 :]
        if at == len(file) - 1 and number < 2 and place == len(file[at]) - 1:
            kinds = {"edit", "truncation"}
    elif what == "drop":
        del file[at]
        if at == len(file):
            kinds = {"truncation"}
    elif what == "reorder":
        to = data.draw(some.integers(0, len(file) - 1).filter(lambda to: to != at))
        file.insert(to, file.pop(at))
        kinds = {"reorder", "truncation"} if {at, to} & {len(file) - 1} else {"reorder"}
    elif what == "truncate":
        whole = b"".join(file)
        cut = data.draw(some.integers(0, len(whole) - 1))
        files[number] = _lines(whole[:cut])
        kinds = {"truncation"}
    else:
        file[at] = other.files[0][data.draw(some.integers(0, 20))]
    finding = verified(*files, anchors=anchors_of(made)).finding
    assert finding is not None
    assert finding.kind in kinds
