"""Contracts of arguments: which values pass, what a refusal says, and which settings make no sense."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct, inspect

from proxy.configuration.convert import FAILED, Converter, Spot
from proxy.configuration.files import read_bounded
from proxy.configuration.mistakes import Report, Unfit
from proxy.configuration.tree import read_tree
from proxy.policy.arguments import (
    ArgumentRule,
    ArgumentRules,
    Arguments,
    check_arguments,
    check_host_glob,
    check_name,
    check_rule,
    check_scheme,
)
from proxy.policy.urls import MAX_MARKS, MAX_URL_CHARACTERS
from tests.fuzz.bounded import FUZZ

R = ArgumentRule
PUBLIC = Arguments({"url": R(addresses="public")})
LISTED = Arguments({"url": R(hosts=("*.example.com", "api.test", "10.0.0.5", "fd00::5", "*.b\u00fccher.de"))})
EVERY = Arguments({"*": R(addresses="public")})
EVERY_LISTED = Arguments({"*": R(hosts=("*.example.com", "10.0.0.5"))})

CORPUS = [
    ("SSRF-006", "http://017700000001/"),
    ("SSRF-007", "http://0/"),
    ("SSRF-009", "http://[::1]/"),
    ("SSRF-012", "http://[::ffff:7f00:1]/"),
    ("SSRF-013", "http://[64:ff9b::7f00:1]/"),
    ("SSRF-014", "http://[2002:7f00:1::]/"),
    ("SSRF-016", "http://[fd00:ec2::254]/"),
    ("SSRF-018", "http://100.100.100.200/"),
    ("SSRF-019", "http://10.0.0.1/"),
    ("SSRF-020", "https://kubernetes.default.svc/"),
    ("SSRF-022", "http://localhost./"),
    ("SSRF-026", "http://example.com@127.0.0.1/"),
    ("SSRF-027", "http://127.0.0.1:80\\@example.com/"),
    ("SSRF-028", "http://example.com#@127.0.0.1/"),
    ("SSRF-034", "gopher://127.0.0.1:6379/_FLUSHALL"),
    ("SSRF-035", "http://example.com/%0d%0aSET%20x"),
    ("SSRF-037", "http://rebind.test/"),
    ("SSRF-038", "http://169.254.169.254/"),
]


@pytest.mark.parametrize("rules", [PUBLIC, EVERY, LISTED, EVERY_LISTED], ids=["url", "*", "hosts", "* hosts"])
@pytest.mark.parametrize(("case", "url"), CORPUS, ids=[each for each, _ in CORPUS])
def test_no_url_of_the_corpus_passes(case: str, url: str, rules: Arguments) -> None:
    """Corpus category ssrf, with and without a list of hosts."""
    assert rules.check({"url": url}) is not None


def test_a_url_deep_in_another_argument_is_found() -> None:
    """Corpus SSRF-038: only the rule for every text looks there, and the rule for that argument."""
    nested = {"opts": {"targets": [{"href": "http://169.254.169.254/"}]}}
    assert EVERY.check(nested) is not None
    assert Arguments({"opts": R(addresses="public")}).check(nested) is not None
    assert Arguments({"/opts/targets": R(addresses="public")}).check(nested) is not None
    assert Arguments({"/opts/targets/*/href": R(addresses="public")}).check(nested) is not None
    assert PUBLIC.check(nested) is None
    assert EVERY.check({"http://169.254.169.254/": 1}) is not None


REFUSED = [
    # Other spellings of one address.
    *(
        "http://127.1/",
        "http://127.0.1",
        "http://0x7f.1/",
        "http://0x7f000001",
        "http://2130706433/",
        "http://0177.0.0.1",
    ),
    *(
        "http://127.0.0.1./",
        "http://127.0.0.01/",
        "http://0x0/",
        "http://127.0.0.1:80/",
        "http://8.8.8.8.:80/",
    ),
    *(
        "http://134744072/",
        "http://[::127.0.0.1]/",
        "http://[::ffff:127.0.0.1]:80/",
        "http://[fe80::1%25eth0]/",
    ),
    *(
        "http://[::1",
        "http://::1/",
        "http://[::1]x/",
        "http://[1.2.3.4]/",
        "http://127.0.0.1%2f@example.com/",
    ),
    # Characters that some reader maps, decodes or takes out.
    *(
        "http://\uff11\uff12\uff17.0.0.1/",
        "http://127\u30020\u30020\u30021/",
        "http://\u2460\u2461\u2466.0.0.1/",
    ),
    *("http://%31%32%37.0.0.1/", "http://127.0.0.%31/", "http://exa%6dple.com/", "http://loc\u00adalhost/"),
    *(
        "ht\ntp://127.0.0.1/",
        "http://127.0.0\t.1/",
        " http://127.0.0.1/",
        "http\uff1a//127.0.0.1/",
        "\x00http://10.1/",
    ),
    *(
        "http:\\\\127.0.0.1\\",
        "http:/127.0.0.1/",
        "http:127.0.0.1",
        "http:///127.0.0.1/",
        "//127.0.0.1/x",
        "\\\\10.0.0.1\\c$",
    ),
    # Readers that end the host elsewhere.
    *(
        "http://user@example.com/",
        "http://a:b@example.com/",
        "http://example.com?@127.0.0.1/",
        "http://@127.0.0.1/",
    ),
    *(
        "http://example.com\\@127.0.0.1/",
        "http://1.1.1.1 &@2.2.2.2# @3.3.3.3/",
        "http://a.example.com\\.evil.com/",
    ),
    *(
        "http://example.com:@127.0.0.1/",
        "http://example.com:80:80/",
        "http://example.com:0/",
        "http://example.com:65536/",
    ),
    *("http://example.com:080/", "http://example.com:\uff18\uff10/", "http:// example.com/", "http://"),
    # Schemes.
    *(
        "file:///etc/passwd",
        "dict://a.example.com:11211/stat",
        "jar:http://127.0.0.1!/",
        "data:text/html,x",
        "ftp://a.example.com",
    ),
    *(
        "javascript:alert(1)",
        "ldap://a.example.com",
        "netdoc:///etc/passwd",
        "view-source:http://127.0.0.1",
        "HTTPX://example.com",
    ),
    # Names that lead inside.
    *(
        "http://localhost/",
        "http://LOCALHOST:80",
        "http://a.localhost/",
        "http://metadata.google.internal/",
        "http://metadata/",
    ),
    *(
        "http://kubernetes/",
        "http://redis:6379/",
        "http://x.svc.cluster.local/",
        "http://printer.local/",
        "http://a.nip.io/",
    ),
    # Injections by the path.
    *(
        "http://example.com/%0aX",
        "http://example.com/?a=%0D%0Ax",
        "http://example.com/%250d%250a",
        "http://example.com/%00",
    ),
    *("http://example.com/a\r\nHost: b", "http://example.com/a b", "http://example.com/\u2028"),
]


@pytest.mark.parametrize("url", REFUSED)
def test_what_may_lead_inside_or_be_read_in_two_ways_is_refused(url: str) -> None:
    """Own promise: as strict as the strictest client, as loose as the loosest."""
    assert PUBLIC.check({"url": url}) is not None
    assert PUBLIC.check({"url": ["https://example.com/", url]}) is not None


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "localhost:80",
        "10.0.0.1/x",
        "[::1]",
        "redis",
        "/etc",
        "",
        "?",
        "a b",
    ],
)
def test_a_url_argument_without_a_scheme_is_a_host(url: str) -> None:
    """Clients put one before it."""
    assert PUBLIC.check({"url": url}) is not None


@pytest.mark.parametrize(
    "url",
    [
        *(
            "https://example.com",
            "HTTPS://Example.COM/",
            "http://example.com:8080/a?b=c#d",
            "https://8.8.8.8/x",
        ),
        *(
            "https://example.com/@user/x",
            "https://example.com/a%20b",
            "https://example.com?q=a.b",
            "example.com/x",
        ),
        *(
            "https://[2606:4700::1111]:443/",
            "https://b\u00fccher.de/k\u00e4se",
            "https://x.co/http://y",
            "example.com:80",
        ),
        *("https://example.com./", "https://a_b.example.com/", "https://1e100.net/"),
    ],
)
def test_ordinary_public_urls_pass(url: str) -> None:
    """A rule that refused these would be switched off."""
    assert PUBLIC.check({"url": url}) is None
    assert PUBLIC.check({"url": [url, [url]]}) is None


@pytest.mark.parametrize(
    ("url", "passes"),
    [
        ("https://a.example.com/", True),
        ("https://a.b.example.com:8443/", True),
        ("https://A.EXAMPLE.com./", True),
        ("a.example.com", True),
        ("https://example.com/", False),
        ("https://badexample.com/", False),
        ("https://a.example.com.evil.com/", False),
        ("https://evil.com/a.example.com", False),
        ("https://evil.com#.example.com", False),
        ("https://evil.com?.example.com", False),
        ("https://evil.com\\.example.com", False),
        ("https://.example.com/", False),
        ("https://api.test/", True),
        ("https://x.api.test/", False),
        ("http://10.0.0.5/", True),
        ("http://0xa.0.0.5/", False),
        ("http://10.0.0.6/", False),
        ("http://10.0.0.5.example.com/", True),
        ("http://[fd00:0:0::5]/", True),
        ("http://[fd00::6]/", False),
        ("https://x.b\u00fccher.de/", True),
        ("https://x.xn--bcher-kva.de/", True),
        ("https://8.8.8.8/", False),
    ],
)
def test_with_a_list_of_hosts_these_alone_pass(url: str, passes: bool) -> None:
    """Design section 3, `hosts: ["*.example.com"]`: whole labels, any depth, not the name itself."""
    assert (LISTED.check({"url": url}) is None) is passes


def test_a_pattern_never_lists_a_metadata_service() -> None:
    """`*.internal` is meant for one's own servers."""
    wide = Arguments({"url": R(hosts=("*.internal",))})
    assert wide.check({"url": "http://api.internal/"}) is None
    assert wide.check({"url": "http://metadata.google.internal/"}) is not None
    assert wide.check({"url": "HTTP://metadata.google.internal./"}) is not None
    exact = Arguments({"url": R(hosts=("metadata.google.internal",))})
    assert exact.check({"url": "http://metadata.google.internal/"}) is None


@pytest.mark.parametrize(
    ("addresses", "url", "passes"),
    [
        ("private", "http://10.0.0.1/", True),
        ("private", "http://localhost/", True),
        ("private", "http://api.svc.cluster.local/", True),
        ("private", "http://example.com/", False),
        ("private", "http://169.254.169.254/", False),
        ("private", "http://169.254.1.1/", False),
        ("private", "http://[fd00::1]/", True),
        ("private", "http://[fd00:ec2::254]/", False),
        ("any", "http://10.0.0.1/", True),
        ("any", "http://169.254.1.1/", True),
        ("any", "http://example.com/", True),
        ("any", "http://169.254.169.254/", False),
        ("any", "http://[::ffff:169.254.169.254]/", False),
        ("any", "http://127.1/", False),
        ("any", "http://a@10.0.0.1/", False),
    ],
)
def test_other_address_classes(addresses: Any, url: str, passes: bool) -> None:
    """Metadata services pass in no class, and what can be read in two ways neither."""
    assert (Arguments({"url": R(addresses=addresses)}).check({"url": url}) is None) is passes
    assert (Arguments({"*": R(addresses=addresses)}).check({"url": url}) is None) is passes


@pytest.mark.parametrize(
    ("rule", "url", "passes"),
    [
        (R(schemes=("https",)), "https://example.com/", True),
        (R(schemes=("https",)), "http://example.com/", False),
        (R(schemes=("https",)), "example.com", False),
        (R(schemes=("ftp",)), "ftp://example.com/", True),
        (R(schemes=("ftp",)), "ftp://127.0.0.1/", False),
        (R(schemes=("ftp",)), "FTP://example.com/", True),
        (R(ports=(443,)), "https://example.com/", True),
        (R(ports=(443,)), "https://example.com:443/", True),
        (R(ports=(443,)), "http://example.com/", False),
        (R(ports=(443,)), "https://example.com:8443/", False),
        (R(ports=(443,)), "example.com", False),
        (R(ports=(80, 443)), "example.com", True),
        (R(ports=(443,), schemes=("gemini",)), "gemini://example.com/", False),
        (R(ports=(443,), schemes=("gemini",)), "gemini://example.com:443/", True),
    ],
)
def test_schemes_and_ports(rule: ArgumentRule, url: str, passes: bool) -> None:
    assert (Arguments({"url": rule}).check({"url": url}) is None) is passes
    assert passes or Arguments({"url": rule}).check({"url": f"{url}/"}) is not None


PROSE_REFUSED = [
    *(
        "see http://10.0.0.1/ now",
        "(http://127.1)",
        '<a href="http://localhost">x</a>',
        "<img src='//10.0.0.1/x'>",
    ),
    *(
        "a https://user@example.com/ b",
        "x=http://example.com#@127.0.0.1/",
        'get "http:\\/\\/10.0.0.1\\/"',
        "u:http:127.0.0.1",
    ),
    *("gopher://example.com/ in it", "file:///etc/passwd", "read file:/etc/passwd", "smb://x.example.com/"),
    *("curl 169.254.169.254/latest", "metadata.google.internal please", "\ngopher:x", "data:text/html,hi"),
    *(
        "//127.0.0.1/",
        "\\\\10.0.0.1\\share",
        "//redis/",
        "a//127.0.1/x",
        "localhost",
        "LOCALHOST",
        "10.0.0.1",
        "localhost:8080/x",
        "[::1]:80",
        "fd00::1",
        "::1",
    ),
    *(
        "0x7f.0.0.1",
        "0177.0.0.1",
        "010.0.0.1",
        "a.internal",
        "x.svc",
        "a\\u003a//127.0.0.1/",
        "http\uff1a//127.0.0.1",
    ),
    *(
        "http://example.com\n.evil.test/",
        "ht\ntp://10.0.0.1/ a b",
        "127.0\n.0.1",
        'http://example.com".evil.com/',
    ),
    *(
        "\u89c1http://10.0.0.1\u3002",
        "http://example.com%2f@10.0.0.1/",
        "http://example.com:99999/",
        "http://\ud800/",
    ),
    *("http://example.com/%0d%0aX y", "jar:https://example.com\\x", "http://a..b/", "https:/example.com"),
]
PROSE_PASSES = [
    *(
        "",
        "fast",
        "localhost is a word here",
        "Note: see below",
        "// a comment",
        "a //comment",
        "match \\\\d.internal too",
        "a // b",
        "a//b/c.txt",
    ),
    *(
        "C:\\Users\\x",
        "C:\\\\Users\\\\x",
        "12:30:59",
        "1.2.3.4",
        "127.1",
        "metadata",
        "notes.local",
        "std::vector<int>",
        "a::b",
    ),
    *(
        "see https://example.com/, https://8.8.8.8/ and (http://example.com).",
        '{"u":"http://example.com","v":1}',
    ),
    *(
        '<a href="http://example.com">x</a>',
        "git@github.com:x/y.git",
        "data: 1",
        "key:value",
        "10.0.0.1 is mine",
        "http: 80",
    ),
    *(
        "one\nhttps://example.com\ntwo",
        "https://example.com/\nhttps://example.com/",
        "\\d+\\\\w",
        ":// ://",
        "http://{host}/",
    ),
    *(
        "https://example.com...",
        "really: https://example.com:",
        "https://example.com/@me",
        "the scheme http:",
        "\u89c1https://example.com/\u3002",
    ),
]


@pytest.mark.parametrize("text", PROSE_REFUSED)
def test_urls_are_found_wherever_they_stand(text: str) -> None:
    """Own promise: in prose, in markup, in text that is JSON, behind brackets, and as whole texts without a scheme."""
    assert EVERY.check({"a": text}) is not None
    assert EVERY.check({"a": {"b": [1, None, {"c": text}]}}) is not None


@pytest.mark.parametrize("text", PROSE_PASSES)
def test_prose_that_leads_nowhere_passes(text: str) -> None:
    """The rule for every text meets code, times, paths and versions."""
    assert EVERY.check({"a": text, "b": [text]}) is None
    assert Arguments({"a": R(addresses="public", in_text=True)}).check({"a": text}) is None


def test_prose_is_held_to_the_listed_hosts() -> None:
    assert EVERY_LISTED.check({"a": "see https://x.example.com/ and http://10.0.0.5/, or 10.0.0.5"}) is None
    for text in (
        "see https://evil.com/",
        "<img src='//evil.com/x'>",
        "//evil.com/",
        "10.0.0.6",
        "x http://10.0.0.6/",
    ):
        assert EVERY_LISTED.check({"a": text}) is not None
    assert EVERY_LISTED.check({"a": "2606:4700::1", "b": "8.8.8.8"}) is None
    prose = Arguments({"a": R(hosts=("*.example.com",), in_text=True)})
    assert prose.check({"a": "see https://x.example.com/"}) is None
    assert prose.check({"a": ["fine", "see https://evil.com/"]}) is not None
    assert LISTED.check({"url": "see https://x.example.com/"}) is not None


def test_an_argument_with_a_rule_of_its_own_is_not_held_to_that_for_every_text() -> None:
    """The more exact rule decides where URLs lead, there and nowhere else."""
    rules = Arguments(
        {
            "*": R(addresses="public", max_length=60),
            "url": R(hosts=("10.0.0.5",)),
            "/opts/to/*/url": R(hosts=("10.0.0.6",)),
            "/list/*": R(hosts=("10.0.0.7",)),
        }
    )
    assert rules.check({"url": "http://10.0.0.5/"}) is None
    assert rules.check({"url": ["http://10.0.0.5/"]}) is None
    assert rules.check({"url": "http://10.0.0.5/", "other": "http://10.0.0.5/"}) is not None
    assert rules.check({"opts": {"to": [{"url": "http://10.0.0.6/"}]}}) is None
    assert rules.check({"list": ["http://10.0.0.7/"]}) is None
    assert rules.check({"lists": ["http://10.0.0.7/"]}) is not None
    assert rules.check({"opts": {"to": [{"uri": "http://10.0.0.6/"}]}}) is not None
    assert rules.check({"opts": {"url": "http://10.0.0.5/"}}) is not None
    assert rules.check({"url": "http://10.0.0.5/" + "x" * 50}) == (
        "A text in the arguments must have at most 60 characters; shorten it."
    )


@pytest.mark.parametrize(
    ("rule", "passing", "refused"),
    [
        (R(equals=True), [True], [False, 1, 1.0, "true", None, [True]]),
        (R(equals=1), [1], [1.0, True, "1", 2]),
        (R(equals=1.0), [1.0], [1, True, "1.0"]),
        (R(one_of=("a", 1, False)), ["a", 1, False], ["A", "1", 1.0, True, 0, "", None, ["a"], {}]),
        (R(max=100), [100, 0, -5, 99.5, 100.0], [101, 100.5, "5", True, None, [5], 10**400]),
        (R(min=1), [1, 10**400], [0, -(10**400), "1", True]),
        (R(min=1, max=2), [1, 1.5, 2], [0, 3]),
        (R(max_length=3), ["", "abc", "\u00fc\u00fc\u00fc", [1, 2, 3]], ["abcd", [1, 2, 3, 4], 1, None, {}]),
        (
            R(pattern="/data/*"),
            ["/data/", "/data/a/b.c", "/data/..a/.b"],
            ["/dat", "x/data/a", "/data", 1, None, ["/data/a"]],
        ),
        (
            R(pattern="/data/*"),
            ["/data/a..b"],
            ["/data/..", "/data/../etc", "/data/a/./b", "/data/..\\x", "/data/.", "/data/a\0"],
        ),
        (
            R(pattern="/data/*"),
            ["/data/50%"],
            ["/data/%2e%2e/x", "/data/%2Fx", "/data/%252e", "/data/x%5cy", "/data/%00"],
        ),
        (R(pattern="v?.*"), ["v1.0", "v1.\n", "v1...", "v1.."], ["v10", "V1.0", "v.1"]),
        (R(pattern="a.c"), ["a.c"], ["abc", "a.c\n"]),
        (R(required=True), [1, "", None, False], []),
    ],
    ids=repr,
)
def test_values_are_compared_by_type_and_value(
    rule: ArgumentRule, passing: list[object], refused: list[object]
) -> None:
    """Own promise: servers turn "5" into 5 and null into a default, so another type is no way around a limit."""
    rules = Arguments({"x": rule})
    assert [value for value in passing if rules.check({"x": value}) is not None] == []
    assert [value for value in refused if rules.check({"x": value}) is None] == []
    assert (rules.check({}) is None) is (rule.equals is None and not rule.required)


def test_equals_can_be_asked_only_where_it_is_given() -> None:
    rules = Arguments({"dry_run": R(equals=True, required=False)})
    assert rules.check({}) is None
    assert rules.check({"dry_run": False}) is not None


@pytest.mark.parametrize("name", ["URL", "Url", "ur\u006c".upper(), "\u017ftart"])
def test_a_name_that_some_server_would_fold_is_refused(name: str) -> None:
    """Go's encoding/json takes "URL" for `url`, and U+017F for s."""
    rules = Arguments({"url": R(addresses="public"), "start": R(max=1), "/opts/limit": R(max=1)})
    problem = rules.check({name: "http://10.0.0.1/"})
    assert problem is not None
    assert "almost" in problem
    assert rules.check({"Opts": {"limit": 5}}) is not None
    assert rules.check({"opts": {"Limit": 5}}) is not None
    assert rules.check({"opts": {"limit": 1, "LIMIT": 5}}) is not None
    assert rules.check({"opts": {"limit": 1, "other": 5}, "urls": 1}) is None


@pytest.mark.parametrize(
    ("path", "arguments", "passes"),
    [
        ("/a/b", {"a": {"b": 1}}, True),
        ("/a/b", {"a": {"b": 2}}, False),
        ("/a/b", {"a": {}}, True),
        ("/a/b", {}, True),
        ("/a/b", {"a": None}, True),
        ("/a/b", {"a": '{"b": 2}'}, False),
        ("/a/b", {"a": 5}, False),
        ("/a/b", {"a": [{"b": 2}]}, True),
        ("/a/*/b", {"a": [{"b": 1}, {"b": 2}]}, False),
        ("/a/*/b", {"a": {"x": {"b": 2}}}, False),
        ("/a/*/b", {"a": [1]}, False),
        ("/a/1", {"a": [2, 1]}, True),
        ("/a/1", {"a": [1, 2]}, False),
        ("/a/1", {"a": {"1": 2}}, False),
        ("/a/\u0661", {"a": [2, 2]}, True),
        ("/a/99999999999999999999", {"a": [2, 2]}, True),
        ("/*", {"a": 1, "b": 1}, True),
        ("/*", {"a": 1, "b": 2}, False),
        ("/a", {"a": 2}, False),
        ("/a~1b", {"a/b": 2}, False),
        ("/a~0b/c", {"a~b": {"c": 2}}, False),
        ("a/b", {"a/b": 2, "a": {"b": 1}}, False),
    ],
)
def test_paths_lead_into_objects_and_lists(path: str, arguments: dict[str, object], passes: bool) -> None:
    """RFC 6901, with * for every member. A text on the way may be JSON to the server: refused."""
    assert (Arguments({path: R(max=1)}).check(arguments) is None) is passes


def test_what_is_required_inside_is_missed() -> None:
    rules = Arguments({"/opts/dry_run": R(equals=True)})
    cases: list[dict[str, object]] = [{}, {"opts": None}, {"opts": {}}, {"opts": []}]
    for arguments in cases:
        assert rules.check(arguments) == 'The argument "/opts/dry_run" is missing; give it.'
    each = Arguments({"/items/*/dry_run": R(equals=True)})
    assert each.check({"items": [{"dry_run": True}]}) is None
    assert each.check({"items": [{"dry_run": True}, {}]}) is not None


SECRET = "s3cr3t"


@pytest.mark.parametrize(
    ("rules", "arguments", "words"),
    [
        (
            {"url": R(hosts=("*.example.com", "api.test"))},
            {"url": f"https://{SECRET}.com/"},
            "*.example.com, api.test",
        ),
        ({"url": R(addresses="public")}, {"url": f"http://{SECRET}.internal/"}, "public host"),
        ({"url": R(addresses="public")}, {"url": f"http://{SECRET}@example.com/"}, "no user"),
        ({"url": R(schemes=("https",))}, {"url": f"http://{SECRET}.com"}, "https"),
        ({"url": R(ports=(443, 8443))}, {"url": f"https://{SECRET}.com:1/"}, "443, 8443"),
        ({"url": R(addresses="any")}, {"url": 5}, "text"),
        ({"url": R(max=5)}, {"url": SECRET}, "at most 5, not a text"),
        ({"url": R(min=0.5)}, {"url": 0}, "at least 0.5"),
        ({"url": R(one_of=("a", 1, True, 1.0))}, {"url": SECRET}, '"a", 1, true, 1.0'),
        ({"url": R(one_of=tuple(range(99)))}, {"url": SECRET}, "6, 7 …"),
        ({"url": R(equals=False)}, {"url": SECRET}, "must be false"),
        ({"url": R(max_length=2)}, {"url": SECRET}, "at most 2"),
        ({"url": R(pattern="/data/*")}, {"url": SECRET}, "/data/*"),
        ({"url": R(required=True)}, {SECRET: 1}, "missing"),
        ({"url": R(max=1)}, {"URL": SECRET}, "exactly"),
        ({"/url/x": R(max=1)}, {"url": SECRET}, "object"),
        ({"/url/x": R(max=1)}, {"url": {"X": SECRET}}, "exactly"),
    ],
)
def test_a_refusal_says_what_to_change_and_not_what_was_sent(
    rules: dict[str, ArgumentRule], arguments: dict[str, object], words: str
) -> None:
    """Own promise: the model reads this and repairs its call; logs may keep it."""
    problem = Arguments(rules).check(arguments)
    assert problem is not None
    assert words in problem
    assert "url" in problem
    assert SECRET not in problem
    assert problem.endswith(".")
    assert len(problem) < 400


def test_more_urls_than_anybody_needs_are_not_looked_at() -> None:
    """A body full of them would hold up every other caller."""
    assert EVERY.check({"a": "https://example.com/ " * MAX_MARKS}) is None
    problem = EVERY.check(
        {"a": "https://example.com/ " * MAX_MARKS, "b": "https://example.com/x/http://y.com/"}
    )
    assert problem is not None
    assert "fewer" in problem


def test_a_url_has_a_greatest_length() -> None:
    url = "https://example.com/".ljust(MAX_URL_CHARACTERS, "x")
    assert PUBLIC.check({"url": url}) is None
    problem = PUBLIC.check({"url": url + "x"})
    assert problem is not None
    assert "longer" in problem


def test_deep_and_wide_arguments_are_walked_without_recursion() -> None:
    deep: object = "http://10.0.0.1/"
    for _ in range(20_000):
        deep = [deep]
    assert EVERY.check({"a": deep}) is not None
    assert PUBLIC.check({"url": deep}) is not None
    assert EVERY.check({"a": ["x"] * 65_000}) is None


@pytest.mark.parametrize(
    "text",
    [
        *(
            "a" * 1_000_000,
            "a." * 300_000,
            ":" * 1_000_000,
            "http:" * 200_000,
            "://" * 300_000,
            "-a" * 300_000,
        ),
        *(
            "%25" * 300_000,
            "http://" + "a" * 1_000_000,
            "http://" + "a." * 300_000,
            "http://[" + ":" * 1_000_000,
        ),
        *(
            "\\/" * 300_000,
            "http://a?" + "x" * 1_000_000,
            "http://a" + '"x' * 300_000,
            "a:\n" * 300_000,
            "x //y " * 600_000,
        ),
    ],
    ids=lambda text: f"{text[:9]}",
)
def test_long_texts_are_judged_in_linear_time(text: str) -> None:
    """Takes the time-out of the whole run where it goes wrong: a quadratic step would need days."""
    globs = R(pattern="*a*a*a*a*b?c*d")
    rules = Arguments({"a": R(addresses="public"), "b": globs, "*": R(addresses="public")})
    rules.check({"a": text, "b": text, "c": text})
    rules.check({"c": text})
    Arguments({"b": globs}).check({"b": text})


@pytest.mark.parametrize(
    "text",
    ["*.example.com", "a.b", "localhost", "10.0.0.1", "::1", "[::1]", "*.com", "B\u00fccher.de", "a.b."],
)
def test_these_are_hosts_to_list(text: str) -> None:
    check_host_glob(text)
    Arguments({"url": R(hosts=(text,))})


@pytest.mark.parametrize(
    "text",
    [
        *(
            "*",
            "",
            "*.",
            "*a.com",
            "a.*.com",
            "a*.com",
            "*.*.com",
            "?.com",
            "*.10.0.0.1",
            "*.1",
            "*.0x1",
            "127.1",
            "0x7f.0.0.1",
        ),
        *(
            "http://a",
            "a/b",
            "a:80",
            "[::1]:80",
            "[::1",
            "*.[::1]",
            "*.::1",
            "10.0.0.0/8",
            "a b",
            "\uff11.com",
            "a..b",
        ),
    ],
)
def test_these_are_not(text: str) -> None:
    with pytest.raises(Unfit) as raised:
        check_host_glob(text)
    assert not text.strip("*?. []:") or text not in str(raised.value)


@pytest.mark.parametrize("text", ["", "a\n", "\u202e", "/a~2", "/~", "/a~"])
def test_these_name_no_argument(text: str) -> None:
    with pytest.raises(Unfit):
        check_name(text)


@pytest.mark.parametrize("text", ["a", "*", "/a/b", "/*/b", "/a~1b~0", "a~b", "a b", "/"])
def test_these_do(text: str) -> None:
    check_name(text)


@pytest.mark.parametrize("text", ["", "HTTP", "http:", "://", "1a", "file", "data", "javascript"])
def test_a_scheme_without_hosts_cannot_be_allowed(text: str) -> None:
    with pytest.raises(Unfit):
        check_scheme(text)


@pytest.mark.parametrize(
    "rule",
    [
        R(),
        R(hosts=("a.b",), addresses="any"),
        R(hosts=("a.b",), addresses="private"),
        R(in_text=True),
        R(in_text=True, max_length=5),
        R(min=2, max=1),
        R(min=1, max_length=5),
        R(min=1, hosts=("a.b",)),
        R(equals=1, min=1),
        R(equals=1, one_of=(1,)),
        R(one_of=(1,), pattern="a"),
    ],
    ids=repr,
)
def test_a_rule_that_says_nothing_or_two_things_is_a_mistake(rule: ArgumentRule) -> None:
    with pytest.raises(Unfit):
        check_rule(rule)


@pytest.mark.parametrize(
    ("rules", "key"),
    [
        ({"a": R(max=1), "A": R(max=1)}, "A"),
        ({"a": R(max=1), "/a": R(max=1)}, "/a"),
        ({"/a/b": R(max=1), "/A/b": R(max=1)}, "/A/b"),
        ({"*": R(required=True, max_length=1)}, "*"),
        ({"*": R(max=1)}, "*"),
        ({"*": R(pattern="a")}, "*"),
        ({"*": R(equals=1)}, "*"),
    ],
)
def test_rules_that_do_not_go_together_are_a_mistake(rules: Mapping[str, ArgumentRule], key: str) -> None:
    with pytest.raises(Unfit) as raised:
        check_arguments(rules)
    assert raised.value.key == key


class Rule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    arguments: ArgumentRules


def read(folder: Path, text: str) -> tuple[object, list[str]]:
    """The value of a section, and the mistakes in it."""
    file = folder / "c.yaml"
    file.write_text(text, encoding="utf-8")
    report = Report()
    tree = read_tree(file.read_bytes(), "F", report)
    assert tree is not None
    value = Converter(report, {}, read_bounded).read(tree, inspect.type_info(Rule), Spot(), tree.at)
    return value, [str(each) for each in report.mistakes]


def test_rules_are_read_from_settings(tmp_path: Path) -> None:
    """Design section 3."""
    value, found = read(
        tmp_path,
        'arguments: {url: {hosts: ["*.example.com"], ports: [443]}, limit: {max: 100, required: true},'
        ' /opts/q: {max_length: 5}, "*": {addresses: public}, dry_run: {equals: true},'
        ' format: {one_of: [json, "1", 1, 1.0, true]}}',
    )
    assert found == []
    assert isinstance(value, Rule)
    assert dict(value.arguments) == {
        "url": R(hosts=("*.example.com",), ports=(443,)),
        "limit": R(max=100, required=True),
        "/opts/q": R(max_length=5),
        "*": R(addresses="public"),
        "dry_run": R(equals=True),
        "format": R(one_of=("json", "1", 1, 1.0, True)),
    }
    rules = Arguments(value.arguments)
    assert (
        rules.check({"limit": 100, "url": "https://a.example.com/", "dry_run": True, "format": 1.0}) is None
    )
    assert rules.check({"limit": 100, "dry_run": 1}) is not None
    assert rules.check({"limit": 100, "dry_run": True, "format": False}) is not None


def test_mistakes_in_rules_have_their_places(tmp_path: Path) -> None:
    value, found = read(
        tmp_path,
        'arguments:\n  url: {hosts: ["*"]}\n  a: {}\n  b: {max: 1, mix: 2}\n  "": {max: 1}\n  c: {ports: [0]}\n',
    )
    assert value is FAILED
    assert [re.sub(r"(?s): .*", "", each) for each in found] == [
        "F:2:17",
        "F:3:6",
        "F:4:15",
        "F:5:3",
        "F:6:15",
    ]


@given(
    st.dictionaries(
        st.text(max_size=5) | st.sampled_from(["url", "URL", "opts", "limit"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
            lambda inner: (
                st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
            ),
        ),
        max_size=4,
    )
)
@FUZZ
def test_any_arguments_are_judged(arguments: dict[str, object]) -> None:
    """A sentence or None, whatever the arguments are."""
    rules = Arguments(
        {
            "url": R(hosts=("*.example.com",)),
            "limit": R(min=1, max=5),
            "/opts/*/x": R(one_of=("a", 1)),
            "/opts/0": R(pattern="/a/*"),
            "*": R(addresses="public", max_length=15),
        }
    )
    problem = rules.check(arguments)
    assert problem is None or problem.endswith(".")


def test_a_rule_may_say_several_things() -> None:
    """All of them hold."""
    rules = Arguments({"url": R(max_length=30, hosts=("*.example.com",), pattern="https:*")})
    assert rules.check({"url": "https://a.example.com/"}) is None
    for url in ("https://a.example.com/".ljust(31, "x"), "http://a.example.com/", "https://example.com/", 5):
        assert rules.check({"url": url}) is not None
