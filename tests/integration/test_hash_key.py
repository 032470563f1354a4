"""`mcp-sidecar hash-key` as a process: from the command line to a key that is let in."""

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

from proxy.configuration.documents import read_document
from proxy.identity.api_key import ApiKeys
from proxy.identity.credential import of_header
from proxy.identity.keys_file import KeysFile
from proxy.identity.settings import ApiKeySettings
from proxy.model import Principal

ROOT = Path(__file__).parents[2]
PROXY = f"{sys.executable} -m proxy"


def run(script: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """A shell script, as an operator or a CI job runs it; `$PROXY` is the command."""
    return subprocess.run(
        ["/bin/sh", "-euc", script],
        cwd=ROOT,
        env={**os.environ, "PROXY": PROXY, **environ},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def identified(file: Path, key: str) -> Principal | None:
    settings = ApiKeySettings(keys_file=str(file))
    keys = ApiKeys(
        settings, read_document(str(file), KeysFile, environ={}), now=time.monotonic, wall=time.time
    )
    return asyncio.run(keys(of_header("x-api-key", key)))


def test_a_script_makes_a_file_then_appends_and_every_key_is_let_in(tmp_path: Path) -> None:
    """Standard output is what is stored, the line `key: ` of standard error what is handed out."""
    file = tmp_path / "keys.yaml"
    done = run(
        "$PROXY hash-key --tenant acme --subject ci-bot --role viewer --role editor >$FILE 2>$DIR/1\n"
        "$PROXY hash-key --tenant acme --subject ann --expires 2999-01-01 --keys-file $FILE >>$FILE 2>$DIR/2\n"
        "$PROXY hash-key --tenant umbrella --subject bob --id bob --keys-file $FILE >>$FILE 2>$DIR/3\n"
        "sed -n 's/^key: //p' $DIR/1 $DIR/2 $DIR/3",
        FILE=str(file),
        DIR=str(tmp_path),
    )
    assert (done.returncode, done.stderr) == (0, "")
    found = [identified(file, key) for key in done.stdout.split()]
    assert [each and each.identity for each in found] == [
        ("api_key", "ci-bot", "acme"),
        ("api_key", "ann", "acme"),
        ("api_key", "bob", "umbrella"),
    ]
    assert found[0] is not None
    assert found[0].roles == {"viewer", "editor"}
    for key in done.stdout.split():
        assert key.partition(".")[2] not in file.read_text("utf-8")


def test_the_file_passes_the_check_and_a_damaged_one_does_not(tmp_path: Path) -> None:
    """What was made is what `check` reads; what it says of a mistake has file, line and column."""
    file, config = tmp_path / "keys.yaml", tmp_path / "config.yaml"
    config.write_text(
        "version: 1\nupstream: {url: http://127.0.0.1:1/mcp}\n"
        f"identity: {{authenticators: [{{kind: api_key, keys_file: {file}}}]}}\n",
        encoding="utf-8",
    )
    script = (
        "$PROXY hash-key --tenant acme --subject ci-bot >$FILE 2>/dev/null; $PROXY check --config $CONFIG"
    )
    done = run(script, FILE=str(file), CONFIG=str(config))
    assert (done.returncode, done.stderr) == (0, "")
    assert f"keys of {file}" in done.stdout
    file.write_text(file.read_text("utf-8").replace('tenant: "acme"', 'tenant: "*"'), encoding="utf-8")
    done = run("$PROXY check --config $CONFIG", CONFIG=str(config))
    assert (done.returncode, done.stdout.partition(", ")[0]) == (
        2,
        f"{file}:7:13: keys[0].tenant: is no tenant",
    )


def test_a_wrong_wish_exits_2_and_prints_nothing_to_store() -> None:
    """design section 2: exit code 2; what is appended to a file is empty."""
    done = run("$PROXY hash-key --tenant '*' --subject ci-bot --expires soon")
    assert (done.returncode, done.stdout) == (2, "")
    assert [line.partition(", ")[0] for line in done.stderr.splitlines()] == [
        "--tenant: is no tenant",
        "--expires: is no date",
    ]


def test_a_terminal_that_knows_ascii_only_is_no_obstacle() -> None:
    """Names of other alphabets are written as escapes."""
    words = "--tenant übung --subject 日本"
    done = run(f"$PROXY hash-key {words}", PYTHONIOENCODING="ascii", PYTHONUTF8="1")
    assert done.returncode == 0
    assert 'tenant: "\\U000000fcbung"' in done.stdout
