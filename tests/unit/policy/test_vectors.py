"""`policy test`: cases in a file, a difference for each that is not as expected."""

import io
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from proxy.commands import run_command
from proxy.configuration.documents import read_document
from proxy.configuration.mistakes import SettingsError
from proxy.policy.vectors import Vectors
from tests.unit.configuration.reading import written

SETTINGS = """\
version: 1
upstream: {url: http://127.0.0.1:1/mcp}
policy:
  roles: {viewer: {}, editor: {inherits: [viewer]}}
  tools:
    - {match: "read_*", allow: [viewer]}
    - {match: write, allow: [editor], scopes: [w]}
    - {match: secret, hidden: true}
    - {match: asks, allow: [viewer], approval: gated}
    - {match: never, allow: [viewer], approval: denied}
    - {match: trial, id: t-1, allow: [], report: true}
  methods: {"resources/read": {allow: [viewer], match: ["file:///pub/*"]}}
"""
VIEWER = "as: {tenant: acme, subject: ann, roles: [viewer]}"
EDITOR = "as: {tenant: acme, subject: eve, roles: [editor]}"


def outcome(folder: Path, *cases: str, more: str = "", settings: str = SETTINGS) -> tuple[int, list[str]]:
    """The exit code and the lines of `policy test`, with `V` for the file and `F` for the settings."""
    config = written(folder, settings)
    file = folder / "vectors.yaml"
    listed = "".join(f"  - {{{each}}}\n" for each in cases)
    file.write_text(f"config: config.yaml\n{more}cases:\n{listed}", encoding="utf-8")
    out = io.StringIO()
    with redirect_stdout(out):
        code = run_command(["policy", "test", str(file)])
    return code, out.getvalue().replace(str(file), "V").replace(str(config), "F").splitlines()


RIGHT = [
    f'{VIEWER}, call: read_a, expect: allow, rule: "read_*"',
    f"{EDITOR}, call: read_a, arguments: {{path: a, deep: [1, null, {{x: true}}]}}, expect: allow",
    f"{VIEWER}, call: write, expect: deny, rule: write",
    f"{EDITOR}, call: write, expect: step_up",
    "as: {tenant: a, subject: b, roles: [editor], scopes: [w]}, call: write, expect: allow",
    f"{EDITOR}, call: secret, expect: hidden",
    f"{EDITOR}, call: trial, expect: deny, rule: t-1",
    f"{EDITOR}, call: asks, expect: gated, rule: asks",
    f"{EDITOR}, call: never, expect: deny, rule: never",
    f"{EDITOR}, call: nothing, expect: hidden, rule: default",
    f"{VIEWER}, method: resources/read, target: 'file:///pub/a', expect: allow",
    f"{VIEWER}, method: resources/read, target: 'file:///etc/a', expect: deny, rule: resources/read",
    f"{VIEWER}, method: resources/subscribe, params: {{uri: 'file:///etc/a'}}, expect: deny",
    f"{VIEWER}, method: prompts/get, target: p, arguments: {{a: b}}, expect: deny, rule: default",
    f"{VIEWER}, method: tools/list, expect: allow, rule: protocol",
]


def test_cases_as_expected_are_only_counted(tmp_path: Path) -> None:
    assert outcome(tmp_path, *RIGHT) == (0, ["V: 15 of 15 cases as expected"])


def test_every_case_can_differ(tmp_path: Path) -> None:
    """The test above must be able to fail: each case expects something else here."""
    other = {"allow": "deny", "deny": "allow", "hidden": "deny", "step_up": "deny", "gated": "allow"}
    for case in RIGHT:
        before, _, after = case.partition("expect: ")
        word, comma, rest = after.partition(",")
        code, lines = outcome(tmp_path, f"{before}expect: {other[word]}{comma}{rest}")
        assert (code, lines[-1]) == (1, "V: 0 of 1 cases as expected")


def test_a_wrong_case_is_told_as_a_difference(tmp_path: Path) -> None:
    """Issue 4, item 11: prints a diff."""
    code, lines = outcome(
        tmp_path,
        RIGHT[0],
        f"{EDITOR}, call: write, expect: allow",
        f"{VIEWER}, call: read_a, expect: allow, rule: write",
        f"{VIEWER}, method: tools/list, expect: deny, rule: default",
    )
    assert code == 1
    assert lines == [
        "V: cases[1]: acme:eve (editor) tools/call write",
        "  - allow",
        "  + step_up, by write",
        "V: cases[2]: acme:ann (viewer) tools/call read_a",
        "  - allow, by write",
        "  + allow, by read_*",
        "V: cases[3]: acme:ann (viewer) tools/list",
        "  - deny, by default",
        "  + allow, by protocol",
        "V: 1 of 4 cases as expected",
    ]


def test_a_policy_is_tested_before_it_is_enforced(tmp_path: Path) -> None:
    """`mode: report` changes nothing about what the rules say."""
    reporting = SETTINGS.replace("policy:\n", "policy:\n  mode: report\n")
    assert outcome(tmp_path, *RIGHT, settings=reporting)[0] == 0


def test_settings_can_be_overridden_for_a_file_of_cases(tmp_path: Path) -> None:
    """For packs, which are no settings: on top of any."""
    deny = f"{EDITOR}, call: kubectl_delete, expect: deny, rule: kubectl_delete"
    more = "set: ['policy.packs=[destructive]', 'policy.tools=[{match: \"*\", allow: [\"*\"]}]']\n"
    assert outcome(tmp_path, deny, f"{EDITOR}, call: kubectl_get, expect: allow", more=more)[0] == 0
    assert outcome(tmp_path, deny)[0] == 1


def test_a_call_that_nobody_can_make_is_as_nobody_expects(tmp_path: Path) -> None:
    code, lines = outcome(tmp_path, f'{VIEWER}, call: "a\\tb", expect: deny')
    assert code == 1
    assert lines[2].startswith("  + no call at all: ")
    code, lines = outcome(tmp_path, f"{VIEWER}, method: tools/list, target: x, expect: deny")
    assert (code, lines[2].partition(",")[0]) == (1, "  + no call at all: has no target")


@pytest.mark.parametrize(
    ("case", "mistake"),
    [
        (f"{VIEWER}, call: a, expect: allowed", "V:3:74: cases[0].expect: is no value for this"),
        (f"{VIEWER}, expect: allow", "V:3:5: cases[0]: names no call, or two"),
        (f"{VIEWER}, call: a, method: b, expect: allow", "V:3:5: cases[0]: names no call, or two"),
        (f"{VIEWER}, call: a, target: b, expect: allow", "V:3:5: cases[0]: has a target beside call"),
        (f"{VIEWER}, method: tools/call, expect: deny", "V:3:5: cases[0]: calls a tool by its method"),
        ("as: {tenant: a}, call: a, expect: deny", "V:3:6: cases[0].as.subject: is missing"),
        (f"{VIEWER}, call: a, arguments: [1], expect: deny", "V:3:77: cases[0].arguments: is a list"),
        (f"{VIEWER}, call: ' ', expect: deny", "V:3:63: cases[0].call: is blank"),
    ],
)
def test_mistakes_in_cases_have_positions(tmp_path: Path, case: str, mistake: str) -> None:
    code, lines = outcome(tmp_path, case)
    assert code == 2
    assert [line[: len(mistake)] for line in lines] == [mistake]


def test_a_file_without_cases_tests_nothing_and_says_so(tmp_path: Path) -> None:
    file = tmp_path / "vectors.yaml"
    file.write_text("config: config.yaml\ncases: []\n", encoding="utf-8")
    with pytest.raises(SettingsError, match="cases: is an empty list"):
        read_document(str(file), Vectors)


def test_settings_that_cannot_be_used_are_exit_2(tmp_path: Path) -> None:
    code, lines = outcome(tmp_path, RIGHT[0], settings=SETTINGS + "drain_s: soon\n")
    assert code == 2
    assert [line.partition(": is")[0] for line in lines] == ["F:13:10: drain_s"]


def test_the_worst_of_several_files_is_the_exit_code(tmp_path: Path) -> None:
    (tmp_path / "good").mkdir()
    outcome(tmp_path / "good", RIGHT[0])
    outcome(tmp_path, f"{EDITOR}, call: write, expect: allow")
    good, bad = tmp_path / "good" / "vectors.yaml", tmp_path / "vectors.yaml"
    with redirect_stdout(io.StringIO()):
        assert run_command(["policy", "test", str(good), str(good)]) == 0
        assert run_command(["policy", "test", str(bad), str(good)]) == 1
        assert run_command(["policy", "test", str(good), str(tmp_path / "none"), str(bad)]) == 2
