"""Redaction: what is found in the texts of a message, what becomes of it, and that all else stays byte for byte."""

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.configuration.mistakes import Unfit
from proxy.model import Reason
from proxy.policy import redaction
from proxy.policy.redaction import (
    MAX_FOUND,
    MAX_READ_BYTES,
    MAX_SEARCHED_BYTES,
    MAX_STRINGS,
    UNSEARCHED,
    Action,
    Blocked,
    Redaction,
    RedactRule,
    check_redact,
    withheld,
)
from proxy.policy.redaction_patterns import BUILT_IN
from proxy.refusals import message as refusal
from tests.fakes import make_call

from .redaction_vectors import FOUND, GITHUB, JWT, LEFT, TWENTY

Told = list[tuple[str, Action, int]]
MASK = b"[redacted: github_token]"


def made(
    *names: str, action: Action = "mask", told: Told | None = None, regex: str | None = None
) -> Redaction:
    rules = tuple(RedactRule(pattern=name, action=action, regex=regex) for name in names)
    check_redact(rules)
    heard: Told = [] if told is None else told
    return Redaction(rules, lambda *each: heard.append(each))


def answer(text: object, **members: object) -> bytes:
    """A tool's answer as SDKs write it."""
    result = {"content": [{"type": "text", "text": text}], **members}
    return json.dumps({"jsonrpc": "2.0", "id": 1, "result": result}, ensure_ascii=False).encode()


def text_of(body: bytes | Blocked) -> str:
    assert isinstance(body, bytes)
    text: str = json.loads(body)["result"]["content"][0]["text"]
    return text


GITHUB_ONLY = made("github_token")
EVERYTHING = made(*BUILT_IN)


@pytest.mark.parametrize(("name", "text", "left"), FOUND)
def test_it_is_found_and_masked(name: str, text: str, left: str) -> None:
    assert text_of(made(name).apply(answer(text))) == left.replace("~", f"[redacted: {name}]")


@pytest.mark.parametrize(("name", "text"), LEFT)
def test_what_only_looks_alike_is_left_alone(name: str, text: str) -> None:
    body = answer(text)
    assert made(name).apply(body) is body


def test_every_pattern_has_vectors_of_both_kinds() -> None:
    assert {name for name, _, _ in FOUND} == {name for name, _ in LEFT} == set(BUILT_IN)


@pytest.mark.parametrize(("name", "text", "left"), FOUND)
def test_what_is_masked_is_not_found_again(name: str, text: str, left: str) -> None:
    body = EVERYTHING.apply(answer(text))
    assert isinstance(body, bytes)
    assert EVERYTHING.apply(body) is body


SECRET = GITHUB.encode()


@pytest.mark.parametrize(
    ("body", "left"),
    [
        # Escapes: of the secret itself, and around it.
        (b'{"result":{"a":"\\u0067hp\\u005f' + SECRET[4:] + b'"}}', b'{"result":{"a":"' + MASK + b'"}}'),
        (
            b'{"result":{"a":"\\\\/\\/\\u0067' + SECRET[1:] + b'"}}',
            b'{"result":{"a":"\\\\/\\/' + MASK + b'"}}',
        ),
        (b'{"result":{"a":"\\u00e9\\n\\"' + SECRET + b'\\/\\ud83d\\ude00"}}', None),
        (b'{"result":{"a":"\\ud800' + SECRET + b' \\ude00"}}', None),
        (b'{"result":{"a":"\\\\\\n' + SECRET + b'\\\\"}}', None),
        ('{"result":{"a":"ü\\u00fc😀'.encode() + SECRET + "…\\t€".encode() + b'"}}', None),
        # Places: anywhere a text can stand, odd blanks and numbers kept.
        (b' {"result" : {"structuredContent":{"x":[1.0,1e3,-0,["' + SECRET + b'"]]}}}\r\n', None),
        (b'{"result":{"_meta":{"a/b":"' + SECRET + b'"}}}', None),
        (
            b'{"result":{"content":[{"type":"resource","resource":{"uri":"x","text":"' + SECRET + b'"}}]}}',
            None,
        ),
        (b'{"result":{"' + SECRET + b'":1}}', None),
        (b'{"id":1,"error":{"code":1,"message":"' + SECRET + b'","data":{"a":"b"}}}', None),
        (b'{"method":"notifications/progress","params":{"message":"' + SECRET + b'"}}', None),
        (b'{"method":"notifications/message","params":{"data":["' + SECRET + b'"]}}', None),
        (b'[{"result":{"a":"' + SECRET + b'"}},{"result":{}}]', None),
        (b'{"result":{"a":"' + SECRET + b" and " + SECRET + b'","b":"' + SECRET + b'"}}', None),
    ],
)
def test_only_what_is_found_changes(body: bytes, left: bytes | None) -> None:
    """design section 2: what is not cut out stays byte for byte."""
    assert GITHUB_ONLY.apply(body) == (body.replace(SECRET, MASK) if left is None else left)


def test_the_name_of_a_member_says_what_its_value_is() -> None:
    body = b'{"result":{"api_key" : "a1b2c3d4e5","api_keys":{"x":"a1b2c3d4e5"},"password":12345678}}'
    left = body.replace(b'"a1b2c3d4e5"', b'"[redacted: assigned_secret]"', 1)
    assert made("assigned_secret").apply(body) == left


def test_a_value_may_hold_a_secret_beside_the_one_its_name_announces() -> None:
    body = b'{"result":{"token":{"secret":"a1b2c3d4 password=e5f6g7h8"}}}'
    left = (
        b'{"result":{"token":{"secret":"[redacted: assigned_secret] password=[redacted: assigned_secret]"}}}'
    )
    assert made("assigned_secret").apply(body) == left


def test_a_name_that_holds_a_secret_leaves_its_value_alone() -> None:
    told: Told = []
    body = b'{"result":{"password=a1b2c3d4":"plain"}}'
    left = b'{"result":{"password=[redacted: assigned_secret]":"plain"}}'
    assert made("assigned_secret", told=told).apply(body) == left
    assert told == [("assigned_secret", "mask", 1)]


def test_masked_names_of_members_stay_apart() -> None:
    """Strict readers refuse two members of one name."""
    body = b'{"result":{"%b":1,"%b0":2}}' % (SECRET, SECRET)
    left = b'{"result":{"[redacted: github_token]":1,"[redacted: github_token 2]":2}}'
    assert GITHUB_ONLY.apply(body) == left


HANDLES = [
    b'{"id":"%b","result":{}}',
    b'{"result":{"requestState":"%b","inputRequests":{}}}',
    b'{"result":{"nextCursor":"%b","tools":[]}}',
    b'{"result":{"task":{"taskId":"%b"}}}',
    b'{"method":"notifications/progress","params":{"progressToken":"%b"}}',
]


@pytest.mark.parametrize("body", HANDLES)
def test_handles_pass(body: bytes) -> None:
    """Clients send them back as they are, and no model reads them."""
    body = body % SECRET
    assert GITHUB_ONLY.apply(body) is body


@pytest.mark.parametrize(
    "body",
    [
        b'{"id":1,"result":{"structuredContent":{"requestState":"%b"}}}',
        b'{"id":1,"result":{"content":[{"nextCursor":"%b"}]}}',
        b'{"id":"x","result":{"structuredContent":{"id":"%b"}}}',
        b'{"id":"x","result":{"requestState":"ok","_meta":{"requestState":{"a":"%b"}}}}',
    ],
)
def test_what_is_only_called_like_a_handle_does_not(body: bytes) -> None:
    assert GITHUB_ONLY.apply(body % SECRET) == body % MASK


def test_logging_counts_and_changes_nothing() -> None:
    told: Told = []
    body = answer(f"{GITHUB} {GITHUB} bob@b.de")
    assert made("github_token", "email", "jwt", action="log", told=told).apply(body) is body
    assert told == [("github_token", "log", 2), ("email", "log", 1)]


def test_masking_is_counted_too() -> None:
    told: Told = []
    made("github_token", told=told).apply(answer(GITHUB))
    assert told == [("github_token", "mask", 1)]


def test_blocking_withholds_the_message_and_names_patterns_only() -> None:
    told: Told = []
    found = made("jwt", "github_token", action="block", told=told).apply(answer(GITHUB))
    assert found == Blocked(("github_token",))
    assert told == [("github_token", "block", 1)]
    assert GITHUB not in repr(found)


def test_what_would_block_can_be_masked_instead_and_is_not_counted_twice() -> None:
    told: Told = []
    blocking = made("github_token", action="block", told=told)
    assert text_of(blocking.apply(answer(GITHUB), blocks=False)) == MASK.decode()
    assert told == []


def test_a_refusal_of_a_withheld_answer_says_that_the_call_was_carried_out() -> None:
    """A model that reads "not allowed" alone would believe that nothing has happened."""
    text = refusal(withheld(), make_call()).decode()
    assert withheld().reason is Reason.NOT_ALLOWED
    assert "was carried out" in text
    assert "Do not repeat it" in text
    assert "github" not in text


def test_report_mode_changes_not_a_byte() -> None:
    told: Told = []
    rules = (RedactRule(pattern="github_token", action="block"), RedactRule(pattern="email"))
    reporting = Redaction(rules, lambda *each: told.append(each), only_report=True)
    body = answer(f"{GITHUB} bob@b.de")
    assert reporting.apply(body) is body
    assert not reporting.may_change
    assert told == [("github_token", "log", 1), ("email", "log", 1)]


def test_joined_redactions_take_the_strictest_of_each() -> None:
    several = [
        Redaction((RedactRule(pattern="email", action="log"), RedactRule(pattern="jwt")), lambda *_: None),
        made("email"),
        made("jwt", action="log"),
        Redaction((RedactRule(pattern="iban", action="block"),), lambda *_: None, only_report=True),
    ]
    joined = Redaction.joined(several, lambda *_: None)
    assert {rule.pattern: rule.action for rule in joined.rules} == {
        "email": "mask",
        "jwt": "mask",
        "iban": "log",
    }


def test_nothing_to_look_for_finds_nothing() -> None:
    body = answer(GITHUB)
    nothing = Redaction.joined((), lambda *_: None)
    assert nothing.apply(body) is body
    assert not nothing.finds(body)


def test_what_overlaps_is_one_mask_of_the_first() -> None:
    text = f"Authorization: Bearer {JWT}"
    assert text_of(made("jwt", "bearer").apply(answer(text))) in (
        "Authorization: Bearer [redacted: jwt]",
        "Authorization: Bearer [redacted: bearer]",
    )


def test_what_is_no_json_is_searched_as_it_is() -> None:
    """The page of an HTTP error is not judged, and still reaches the client."""
    page = b"<p>\xff" + SECRET + b'\\" </p>'
    assert GITHUB_ONLY.apply(page) == page.replace(SECRET, MASK)


def test_what_hides_in_what_is_no_json_is_withheld() -> None:
    page = b'{"a":"\\u0067' + SECRET[1:] + b'", cut'
    assert GITHUB_ONLY.apply(page) == Blocked(())
    assert made("github_token", action="log").apply(page) is page


def test_a_message_too_long_to_be_searched_is_withheld() -> None:
    told: Told = []
    body = answer("x" * MAX_SEARCHED_BYTES)
    assert made("jwt", told=told).apply(body) == Blocked(())
    assert made("jwt", action="log", told=told).apply(body) is body
    assert told == [(UNSEARCHED, "block", 1), (UNSEARCHED, "log", 1)]


def test_a_long_message_passes_where_nothing_seems_to_be_in_it() -> None:
    """A screenshot has four megabytes."""
    clean = answer("x" * MAX_READ_BYTES)
    assert GITHUB_ONLY.apply(clean) is clean
    assert GITHUB_ONLY.apply(answer("x" * MAX_READ_BYTES + f" {GITHUB}")) == Blocked(())


def test_secrets_are_found_wherever_among_many_strings() -> None:
    strings = [f"s{place}" for place in range(1_000)]
    for place in (0, 7, 8, 9, 63, 64, 65, 500, 999):
        strings[place] = GITHUB
    body = answer("", structuredContent={"a": strings, GITHUB: dict.fromkeys(strings[1:9], GITHUB)})
    out = GITHUB_ONLY.apply(body)
    assert isinstance(out, bytes)
    assert SECRET not in out
    assert re.sub(rb"(token)( \d)?\]", rb"\1]", out) == body.replace(SECRET, MASK)


def test_strings_are_not_looked_at_one_by_one_for_ever() -> None:
    few = ['"a@b.de"', *['"a"'] * 7]
    body = b'{"result":[%b]}' % ",".join(few * (MAX_STRINGS // 8 + 1)).encode()
    assert made("email").apply(body) == Blocked(())
    body = b'{"result":[%b]}' % ",".join(['"a@b.de"', *['"a"'] * 700] * 100).encode()
    assert made("email").apply(body) == body.replace(b"a@b.de", b"[redacted: email]")


@pytest.mark.parametrize("each", ["a@b.de ", "4111111111111112 "])
def test_a_list_of_secrets_is_not_worked_through(each: str) -> None:
    """Five thousand cost 30 ms; what only looks alike costs as much."""
    redacts = made("email", "credit_card")
    assert redacts.apply(answer(each * (MAX_FOUND + 1))) == Blocked(())
    assert redacts.apply(b"words " + each.encode() * (MAX_FOUND + 1)) == Blocked(())
    assert isinstance(redacts.apply(answer(each * (MAX_FOUND - 1))), bytes)


@pytest.mark.parametrize(
    "part",
    ["-----BEGIN PRIVATE KEY-----", "password=", "1.1.1.", "10.0.0.", "eyJ", "a.b@c", "bearer ", "DE00AAAA"],
)
def test_no_text_costs_more_than_its_length(part: str) -> None:
    """Each of these made a pattern quadratic once; a megabyte would take minutes then."""
    assert EVERYTHING.apply(answer(part * (500_000 // len(part)))) is not None


def test_an_own_pattern_masks_its_group() -> None:
    own = made("ticket", regex=r"(?i)case[ -]?(\d{4})")
    assert (
        text_of(own.apply(answer("Case 1234, CASE-5678")))
        == "Case [redacted: ticket], CASE-[redacted: ticket]"
    )


def test_an_own_pattern_reads_characters_not_bytes() -> None:
    own = made("word", regex="g.heim")
    assert text_of(own.apply(b'{"result":{"content":[{"text":"g\\u00fcheim"}]}}')) == "[redacted: word]"
    assert text_of(own.apply(answer("göheim"))) == "[redacted: word]"


def test_an_own_pattern_finds_nothing_across_texts() -> None:
    body = b'{"result":{"a":"from","b":"to"}}'
    assert made("span", regex="from.*to").apply(body) is body


@pytest.mark.parametrize(
    ("rules", "what"),
    [
        ([RedactRule(pattern="github")], "names no pattern"),
        ([RedactRule(pattern="jwt", regex="x")], "has the name of a built-in pattern"),
        ([RedactRule(pattern="jwt"), RedactRule(pattern="jwt", action="log")], "is there twice"),
        ([RedactRule(pattern='a"b', regex="x")], "is no name"),
        ([RedactRule(pattern="own", regex="(?=x)")], "is no expression of RE2"),
        ([RedactRule(pattern="own", regex=r"(x)\1")], "is no expression of RE2"),
        ([RedactRule(pattern="own", regex="(x")], "is no expression of RE2"),
        ([RedactRule(pattern="own", regex="x{1000}{1000}")], "is no expression of RE2"),
        ([RedactRule(pattern="own", regex="\ud800")], "is no expression of RE2"),
        ([RedactRule(pattern="own", regex="^x")], "is bound to where a text begins or ends"),
        ([RedactRule(pattern="own", regex=r"x\z")], "is bound to where a text begins or ends"),
        ([RedactRule(pattern="own", regex=r"\C")], "is bound to where a text begins or ends"),
        ([RedactRule(pattern="own", regex="x*")], "finds the empty text"),
        ([RedactRule(pattern="own", regex="redacted")], "finds its own mask"),
    ],
)
def test_patterns_that_cannot_work_are_mistakes(rules: list[RedactRule], what: str) -> None:
    with pytest.raises(Unfit) as caught:
        check_redact(rules)
    assert caught.value.what == what
    assert caught.value.key == len(rules) - 1


@pytest.mark.parametrize("regex", [r"[^$]x", r"\^x\$", r"\bx", r"[]^]x"])
def test_what_is_no_anchor_may_stand(regex: str) -> None:
    check_redact([RedactRule(pattern="own", regex=regex)])


def test_without_the_engine_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "re2", None)
    redaction._compiled.cache_clear()
    with pytest.raises(Unfit) as caught:
        check_redact([RedactRule(pattern="jwt")])
    assert "pip install" in caught.value.remedy
    check_redact([])


# Everything below: whatever the message.

ANY_TEXT = st.text() | st.sampled_from([text for _, text, _ in FOUND] + [text for _, text in LEFT])
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | ANY_TEXT,
    lambda below: (
        st.lists(below, max_size=4)
        | st.dictionaries(ANY_TEXT | st.sampled_from(["id", "password", "requestState"]), below, max_size=4)
    ),
    max_leaves=12,
)


def spelt(value: object, choices: st.DataObject) -> bytes:
    """JSON in which any character of a string may be an escape."""
    text = json.dumps(
        value, ensure_ascii=choices.draw(st.booleans()), indent=choices.draw(st.sampled_from([None, 1]))
    )
    every = choices.draw(st.integers(2, 9))
    body = text.encode("utf-8", "replace")

    def escaped(match: re.Match[bytes]) -> bytes:
        return b"\\u%04x" % match.group()[0] if match.start() % every == 0 else match.group()

    # Every other piece is a string.
    return b"".join(
        re.sub(rb"[a-z0-9_@.]", escaped, each) if place % 2 and b"\\" not in each else each
        for place, each in enumerate(re.split(rb'("(?:[^"\\]|\\.)*")', body))
    )


def texts_in(value: object) -> list[str]:
    if isinstance(value, dict):
        return [text for key, each in value.items() for text in (key, *texts_in(each))]
    if isinstance(value, list):
        return [text for each in value for text in texts_in(each)]
    return [value] if isinstance(value, str) else []


@settings(deadline=None)
@given(value=JSON, choices=st.data())
def test_json_stays_json_and_nothing_that_was_found_remains(value: object, choices: st.DataObject) -> None:
    body = spelt({"jsonrpc": "2.0", "id": 1, "result": value}, choices)
    out = EVERYTHING.apply(body)
    assert isinstance(out, bytes)
    read = json.loads(out)
    assert EVERYTHING.apply(out) is out
    if not EVERYTHING.finds(body):
        assert out is body
    # Between the masks, everything is as it was.
    rest = [re.escape(each) for each in re.split(rb"\[redacted: [a-z0-9_]+(?: \d+)?\]", out)]
    assert re.fullmatch(b".*?".join(rest), body, re.DOTALL) is not None
    assert set(read) == {"jsonrpc", "id", "result"}


@settings(deadline=None)
@given(
    secret=st.sampled_from([GITHUB, JWT, f"glpat-{TWENTY}"]), before=st.text(), value=JSON, choices=st.data()
)
def test_a_secret_is_found_however_it_is_spelt(
    secret: str, before: str, value: object, choices: st.DataObject
) -> None:
    body = spelt({"id": 1, "result": {"a": value, "content": [{"text": f"{before} {secret}"}]}}, choices)
    out = EVERYTHING.apply(body)
    assert isinstance(out, bytes)
    assert not any(secret in text for text in texts_in(json.loads(out)["result"]["content"]))


@settings(deadline=None)
@given(body=st.binary() | st.builds(lambda a, b: a + SECRET + b, st.binary(), st.binary()))
def test_any_bytes_come_out_as_bytes_or_blocked(body: bytes) -> None:
    out = EVERYTHING.apply(body)
    assert isinstance(out, Blocked) or SECRET not in out or not EVERYTHING.finds(body)
