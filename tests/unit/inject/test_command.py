"""`mcp-sidecar inject`: what it reads, what it prints where, and how it says no."""

import io
from pathlib import Path

import pytest

from proxy.commands import run_command
from proxy.inject import sidecar, wishes
from proxy.inject.command import _TEXTS, MOST_BYTES, inject
from tests.manifests import golden, text_of


def run(*words: str, stdin: bytes = b"") -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    return inject(words, io.BytesIO(stdin), out, err), out.getvalue(), err.getvalue()


IMAGE = ("--image", "registry.example.com/mcp-sidecar:1")


def test_a_file_is_printed_with_the_sidecar_and_remarks_go_elsewhere(tmp_path: Path) -> None:
    """`mcp-sidecar inject -f … | kubectl apply -f -` gets manifests and nothing else."""
    file = tmp_path / "list.yaml"
    file.write_text(text_of("list.yaml"), encoding="utf-8")
    code, out, err = run("-f", str(file), *IMAGE)
    assert (code, out) == (0, golden("list.yaml"))
    assert (
        f"{file}:3: ReplicaSet git: sidecar added in front of git:8000, listening on 8080" in err.splitlines()
    )


def test_standard_input_is_read_where_the_file_is_a_dash() -> None:
    code, out, _ = run("-f", "-", *IMAGE, stdin=text_of("dense.json").encode())
    assert (code, out) == (0, golden("dense.json"))


def test_it_is_a_command_of_the_command_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "pod.yaml"
    file.write_text(text_of("pod.yaml"), encoding="utf-8")
    assert run_command(["inject", "-f", str(file), *IMAGE]) == 0
    assert capfd.readouterr().out == golden("pod.yaml")


@pytest.mark.parametrize(
    ("stdin", "words", "says"),
    [
        (b"\xef\xbb\xbfkind: Pod\n", (), "standard input: begins with a byte order mark, UTF-8 needs none"),
        (b"kind: Pod\n\nname: \xff\n", (), "standard input:3: is not UTF-8"),
        (b"#" * (MOST_BYTES + 1), (), "standard input: is too big"),
        (b"", ("--port", "x_y"), "--port: is not a port, Kubernetes would refuse it"),
        (b"", ("--port", "65536"), "--port: is not a port, a number from 1 to 65535 is needed"),
        (b"", ("--path", "/a/../b"), "--path: is not a path, dot segments"),
        (b"", ("--hosts", "a,*"), "--hosts: is not a host name, * would let every name in"),
        (b"", ("--memory", "lots"), "--memory: is not a quantity"),
        (b"", ("--image", "a b"), "--image: is not an image"),
        (b"", ("--config", "Mine"), "--config: is not a name of Kubernetes"),
        (b"", ("--tenant", "$(PATH)"), "--tenant: is not a tenant"),
        (b"", ("--drain-s", "0"), "--drain-s: is not a number of seconds"),
        (b"", ("--pre-stop", "shell"), "--pre-stop: is not known"),
        (b"a: [", (), "standard input:2:1: is broken YAML"),
    ],
)
def test_what_cannot_be_done_is_said_and_nothing_is_printed(
    stdin: bytes, words: tuple[str, ...], says: str
) -> None:
    """Exit code 2, as for every bad configuration: a pipe into kubectl gets nothing to apply."""
    code, out, err = run("-f", "-", *words, stdin=stdin)
    assert (code, out) == (2, "")
    assert says in err


def test_every_mistake_in_the_options_is_told_at_once() -> None:
    _, _, err = run("-f", "-", "--port", "0", "--cpu", "x")
    assert len(err.splitlines()) == 2


def test_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    code, _, err = run("-f", str(tmp_path))
    assert code == 2
    assert "is a directory" in err


def test_what_holds_nothing_for_it_is_printed_as_it_is() -> None:
    assert run("-f", "-", stdin=b"kind: Thing # mine\n") == (
        0,
        "kind: Thing # mine\n",
        "standard input: nothing here gets a sidecar\n",
    )


def test_every_word_of_a_wish_is_an_option_and_an_annotation() -> None:
    assert set(_TEXTS) | {"inject", "classic"} == set(wishes.READ)


def test_the_help_tells_the_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    """The table of defaults in deploy/README.md is this one."""
    with pytest.raises(SystemExit):
        run("--help")
    said = " ".join(capsys.readouterr().out.split())
    for word in (sidecar.CPU, sidecar.MEMORY, sidecar.MEMORY_LIMIT, "8080", "9901", "25"):
        assert word in said
