"""Any text that passes as a URL leads every reader to the host that was judged; any text is judged, none breaks."""

import re
from urllib.parse import urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from yarl import URL

from proxy.policy.arguments import ArgumentRule, Arguments
from proxy.policy.urls import Hunt, UrlRule
from tests.fuzz.bounded import FUZZ
from tests.unit.policy import spellings

PUBLIC = UrlRule()
LISTED = UrlRule(hosts=["*.example.com", "10.0.0.5", "fd00::5"])
ANY = UrlRule(addresses="any", schemes=["http", "https", "ftp"])
EVERY_TEXT = Arguments({"*": ArgumentRule(addresses="public")})

pieces = st.sampled_from(
    [
        *(
            "http",
            "https",
            "HTTP",
            "gopher",
            ":",
            "//",
            "/",
            "\\",
            "@",
            "#",
            "?",
            "%",
            "%0d",
            "%2e",
            ".",
            "..",
            "[",
            "]",
        ),
        *(
            "example.com",
            "a.example.com",
            "127.0.0.1",
            "::1",
            "10.0.0.5",
            "[fd00::5]",
            "localhost",
            ":80",
            ":",
            " ",
        ),
        *(
            "\t",
            "\n",
            "\0",
            "\u3002",
            "\uff11",
            "\u00fc",
            "\u00ad",
            "'",
            '"',
            "<",
            ">",
            "(",
            ")",
            ",",
            "-",
            "*",
            "0x7f.1",
        ),
    ]
)
texts = st.lists(pieces | st.text(max_size=3), max_size=12).map("".join)


def _browser_host(text: str) -> str:
    """The host as the WHATWG URL parser sees it, before it maps characters."""
    bare = re.sub(r"[\t\r\n]", "", text.strip("".join(map(chr, range(33)))))
    rest = re.sub(r"^[A-Za-z][A-Za-z0-9+.-]*:[/\\]*", "", bare)
    authority = re.split(r"[/\\?#]", rest)[0].rpartition("@")[2]
    return re.sub(r":\d*$", "", authority).lower()


def _first_slash_host(text: str) -> str:
    """The host as readers see it who end it at the first slash only, whatever stands before."""
    authority = text.partition("://")[2].partition("/")[0].rpartition("@")[2]
    return re.sub(r":\d*$", "", re.split("[?#]", authority)[0]).lower()


@given(texts | spellings.urls())
@example("http://example.com#@127.0.0.1/")
@example("http://a.example.com\\@127.0.0.1/")
@FUZZ
def test_what_passes_leads_every_reader_to_a_listed_host(text: str) -> None:
    """Own promise; corpus SSRF-026 to SSRF-028. Read by urllib, by yarl, as browsers do, and by the loosest."""
    if LISTED.of(text) is not None or "://" not in text:
        return
    hosts = {
        urlsplit(text).hostname,
        URL(text).host,
        _browser_host(text).strip("[]"),
        _first_slash_host(text).strip("[]"),
    }
    hosts = {each.encode("idna").decode().rstrip(".") if each else each for each in hosts}
    assert len(hosts) == 1, hosts
    (host,) = hosts
    assert host is not None
    assert host.endswith(".example.com") or host in ("10.0.0.5", "fd00::5")


@given(spellings.urls())
@FUZZ
def test_no_spelling_of_a_non_public_address_passes(text: str) -> None:
    """Corpus category ssrf, by a generator of spellings: as the URL itself, in prose, and nested in any argument."""
    assert PUBLIC.of(text) is not None
    assert PUBLIC.within(text, Hunt()) is not None
    assert EVERY_TEXT.check({"opts": {"targets": [{"href": text}]}}) is not None


@given(
    spellings.urls(),
    st.sampled_from(["see {} now", "({}", '"{}', "url={}", "<a href='{}", "\u89c1{}", "a,{}"]),
)
@FUZZ
def test_no_prose_hides_a_spelling(text: str, prose: str) -> None:
    """The same in the middle of a text, where a line break ends a URL for whoever looks for one."""
    if not re.search(r"[\t\r\n]", text):
        assert PUBLIC.within(prose.format(text), Hunt()) is not None


names = st.lists(
    st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True), min_size=1, max_size=4
).map(lambda labels: ".".join([*labels, "com"]))
public = st.builds(
    "{}://{}{}{}".format,
    st.sampled_from(["http", "https"]),
    names | st.sampled_from(["8.8.8.8", "[2606:4700::1]", "b\u00fccher.de"]),
    st.sampled_from(["", ":8080", ":443"]),
    st.sampled_from(["/", "/a/b.html", "/?q=1%20a", "/@user/x#y", "/%E2%82%AC", "?q=a.b"]),
)


@given(public)
@FUZZ
def test_every_ordinary_public_url_passes(text: str) -> None:
    """A rule that refused these would be switched off. Names that spell an address for everybody are no such."""
    if PUBLIC.of(text) is not None:
        pytest.fail(f"refused as a URL: {text}")
    for prose in ("{}", "see {} now", "({}), and", '{{"u": "{}"}}', "<{}>", "one\n{}\ntwo"):
        assert PUBLIC.within(prose.format(text), Hunt()) is None, prose


@given(texts | st.text())
@FUZZ
def test_any_text_is_judged(text: str) -> None:
    """Words or None, in every rule; the words never hold the text."""
    for rule in (PUBLIC, LISTED, ANY):
        for words in (rule.of(text), rule.within(text, Hunt())):
            assert words is None or isinstance(words, str)
    words = EVERY_TEXT.check({"secret": "s3cr3t" + text, text: 1})
    assert words is None or "s3cr3t" not in words
