"""Any manifest, however it is laid out, gets its sidecar once, says all it said before, and keeps every line."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.configuration.mistakes import SettingsError
from proxy.inject.wishes import Wish
from tests.fuzz.bounded import FUZZ, examples
from tests.manifests import documents, inject
from tests.unit.inject.test_injecting import contained

words = st.sampled_from(
    [
        "a",
        "web",
        "0",
        "no",
        "'",
        '"',
        "# x",
        "a: b",
        "- c",
        "\t",
        "🙂",
        "",
        " ",
        "{",
        "*a",
        "&b",
        "|",
        "ä\u00a0",
    ]
)
texts = st.lists(words, max_size=3).map("".join)
comments = st.sampled_from(["", "", "", "# why", "# - name: x", "#", "#\t{"])
line_ends = st.sampled_from(["\n", "\r\n"])


class Layout:
    """Writes a value as YAML in one of very many ways, each by a draw."""

    def __init__(self, draw: st.DrawFn) -> None:
        self._draw = draw
        self.step = draw(st.sampled_from([2, 2, 2, 4, 3]))
        self.dash = draw(st.sampled_from([0, 2, 4]))
        self.gap = draw(st.sampled_from(["- ", "- ", "-   "]))

    def _remark(self) -> str:
        return self._draw(st.sampled_from(["", "", "", "   # beside", " #", "  "]))

    def _noise(self, column: int) -> list[str]:
        comment = self._draw(comments)
        return (
            [" " * self._draw(st.sampled_from([column, 0])) + comment]
            if comment
            else [""] * self._draw(st.integers(0, 1))
        )

    def lines(self, value: object, column: int) -> list[str]:
        """A mapping or a list in block style."""
        found: list[str] = []
        if isinstance(value, dict):
            for key, each in value.items():
                found += self._noise(column)
                found += self._entry(" " * column + f"{key}:", each, column)
        elif isinstance(value, list):
            for each in value:
                found += self._noise(column)
                if isinstance(each, dict) and each and self._draw(st.integers(0, 3)):
                    inner = [line for line in self.lines(each, column + len(self.gap)) if line.strip()]
                    while inner[0].lstrip().startswith("#"):
                        inner.pop(0)
                    found += [" " * column + self.gap + inner[0].lstrip(), *inner[1:]]
                else:
                    found.append(" " * column + self.gap + self._flow(each) + self._remark())
        return found

    def _entry(self, key: str, value: object, column: int) -> list[str]:
        if isinstance(value, dict | list) and value and self._draw(st.integers(0, 4)):
            deeper = column + (self.step if isinstance(value, dict) else self.dash)
            return [key + self._remark(), *self.lines(value, deeper)]
        if isinstance(value, str) and value.startswith("|"):
            head = self._draw(st.sampled_from(["|", "|-", "|+", ">", ">+"]))
            body = [" " * (column + self.step) + each for each in ("one", "", "  two # not a comment", "")]
            return [f"{key} {head}", *body]
        return [f"{key} {self._flow(value)}{self._remark()}"]

    def _flow(self, value: object) -> str:
        if isinstance(value, str) and value.isalpha() and self._draw(st.booleans()):
            return "'" + value + "'"
        return json.dumps(
            value, ensure_ascii=self._draw(st.booleans()) and all(ord(it) < 65536 for it in str(value))
        )


@st.composite
def manifests(draw: st.DrawFn) -> str:
    """A Deployment with whatever stands in one, and perhaps its Service, laid out in any way."""
    container: dict[str, Any] = {
        "name": "server",
        "image": "x",
        "ports": [{"containerPort": 8000, "name": "http"}],
    }
    container |= draw(st.fixed_dictionaries({}, optional={
        "args": st.lists(texts, min_size=1, max_size=3),
        "env": st.just([{"name": "A", "value": "|"}, {"name": "B", "value": "b"}]),
        "lifecycle": st.sampled_from([{}, None, {"postStart": {"exec": {"command": ["x"]}}}]),
        "workingDir": st.just("|"),
    }))  # fmt: skip
    spec: dict[str, Any] = {"containers": [container]} | draw(st.fixed_dictionaries({}, optional={
        "volumes": st.sampled_from([[], None, [{"name": "v", "emptyDir": {}}], [{"name": "a"}, {"name": "b"}]]),
        "initContainers": st.sampled_from([[], None, [{"name": "i", "image": "x", "command": ["|"]}]]),
        "terminationGracePeriodSeconds": st.sampled_from([5, 600, None]),
        "nodeName": texts,
        "subdomain": st.just("|"),
    }))  # fmt: skip
    spec = dict(draw(st.permutations(list(spec.items()))))
    labels = {"app": "web", "note": draw(texts)}
    deployment = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "labels": labels},
                  "spec": {"template": {"metadata": {"labels": labels}, "spec": spec}}}  # fmt: skip
    targets: list[dict[str, object]] = [{}, {"targetPort": 8000}, {"targetPort": "http"}]
    port = {"port": 8000, **draw(st.sampled_from(targets))}
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
               "spec": {"selector": {"app": "web"}, "ports": [port]}}  # fmt: skip
    layout = Layout(draw)
    parts = [layout.lines(each, 0) for each in draw(st.sampled_from([(deployment,), (deployment, service)]))]
    lines = [line for part in parts for line in ("---", *part)]
    line_end = draw(line_ends)
    return line_end.join(lines) + draw(st.sampled_from([line_end, "", line_end * 2, f"{line_end}# end"]))


@given(manifests(), st.booleans(), st.sampled_from([None, "settings"]))
@settings(FUZZ, max_examples=examples(150))  # 45 ms each
def test_any_manifest_gets_its_sidecar_once_and_loses_nothing(
    text: str, is_classic: bool, config: str | None
) -> None:
    """Issue 9, point 4: idempotent, parse(before) within parse(after), every line there is still there, in order."""
    try:
        before = documents(text)
    except Exception:  # a layout that is no YAML: then it must be refused
        with pytest.raises(SettingsError):
            inject(text)
        return
    wish = Wish(is_classic=is_classic, config=config)
    try:
        done = inject(text, wish)
    except SettingsError as error:  # the one thing that cannot be added to without changing what it says
        if "end the last line" not in str(error) or text.endswith("\n"):
            raise
        text += "\n"
        before, done = documents(text), inject(text, wish)
    assert inject(done.text, wish).text == done.text
    after = documents(done.text)
    lost = [path for one, two in zip(before, after, strict=True) for path in contained(one, two)]
    assert [it for it in lost if not it.endswith((".targetPort", ".terminationGracePeriodSeconds"))] == []
    keys = "containers" if is_classic else "initContainers"
    assert after[0]["spec"]["template"]["spec"][keys][-1]["name"] == "mcp-sidecar"
    ports = [each["spec"]["ports"][0]["targetPort"] for each in after[1:]]
    assert ports in ([], [8080])
    rest = iter(done.text.splitlines())
    changed = ("targetPort", "Grace", "lifecycle", "volumes", "initContainers", '{"', "[")
    for line in text.splitlines():
        if not any(each in line for each in changed):
            assert any(line == each for each in rest), line
