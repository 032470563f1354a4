"""Claims become exactly one principal, or nobody."""

import math
from collections.abc import Mapping

import msgspec
import pytest

from proxy.identity.claims import Expected, moment_of, principal_of
from proxy.model import Principal, Reason, Refused

EXPECTED = Expected(
    issuer="https://idp.test/",
    audiences=frozenset({"https://tools.test/mcp", "https://tools.test/sse"}),
    tenant_claim="tenant",
    roles_claim="roles",
)
CLAIMS: Mapping[str, object] = {
    "iss": "https://idp.test/",
    "aud": "https://tools.test/mcp",
    "sub": "alice",
    "tenant": "acme",
    "scope": "mcp:call mcp:read",
    "roles": ["editor", "viewer"],
}
ABSENT = object()


def read(claims: Mapping[str, object], expected: Expected = EXPECTED) -> Principal:
    return principal_of(claims, expected, fingerprint="f1", valid_until=42.0)


def changed(**members: object) -> dict[str, object]:
    return {name: value for name, value in {**CLAIMS, **members}.items() if value is not ABSENT}


def why_refused(claims: Mapping[str, object], expected: Expected = EXPECTED) -> str:
    with pytest.raises(Refused) as refusal:
        read(claims, expected)
    assert refusal.value.reason is Reason.BAD_CREDENTIAL
    return refusal.value.why


def test_good_claims_name_one_principal() -> None:
    assert read(CLAIMS) == Principal(
        issuer="https://idp.test/",
        subject="alice",
        tenant="acme",
        roles=frozenset({"editor", "viewer"}),
        scopes=frozenset({"mcp:call", "mcp:read"}),
        fingerprint="f1",
        valid_until=42.0,
    )


@pytest.mark.parametrize(
    "issuer",
    [
        "https://idp.test",  # without the slash
        "https://idp.test//",
        "https://idp.test/evil",
        "HTTPS://IDP.TEST/",
        "https://idp",
        " https://idp.test/",
        ["https://idp.test/"],
        {"https://idp.test/": 1},
        "",
        None,
        ABSENT,
    ],
)
def test_another_issuer_is_not_ours(issuer: object) -> None:
    """Exactly equal, character for character (RFC 7519 4.1.1): prefixes and lists were let in elsewhere."""
    assert why_refused(changed(iss=issuer)) == "The token was issued by somebody else."


def test_an_answer_need_not_repeat_who_gives_it() -> None:
    """RFC 7662 2.2: `iss` is optional there; one that is named must fit all the same."""
    asked = msgspec.structs.replace(EXPECTED, issuer_required=False)
    assert read(changed(iss=ABSENT), asked).issuer == "https://idp.test/"
    assert why_refused(changed(iss="https://evil.test/"), asked)
    assert why_refused(changed(iss=None), asked)


@pytest.mark.parametrize(
    "audience",
    [
        "https://other.test",
        "xhttps://tools.test/mcpx",
        "https://tools.test/mcp//",
        "https://tools.test",
        "https://tools.test/MCP",
        "",
        "/",
        [],
        ["https://other.test"],
        [["https://tools.test/mcp"]],
        ["https://tools.test/mcp", 1],
        ["https://tools.test/mcp", None],
        {"https://tools.test/mcp": 1},
        True,
        7,
        None,
        ABSENT,
    ],
)
def test_another_audience_is_not_ours(audience: object) -> None:
    """RFC 7519 4.1.3: equal, not contained; a list with anything but strings is no list of audiences."""
    assert why_refused(changed(aud=audience))


@pytest.mark.parametrize(
    "audience",
    [
        "https://tools.test/mcp",
        "https://tools.test/mcp/",
        "https://tools.test/sse",
        ["https://other.test", "https://tools.test/mcp"],
        ["https://tools.test/sse/"],
    ],
)
def test_one_of_our_audiences_is_enough(audience: object) -> None:
    """RFC 8707: with or without one slash at the end, as clients send the resource both ways."""
    assert read(changed(aud=audience)).subject == "alice"


def test_a_slash_in_the_settings_makes_no_difference_either() -> None:
    with_slash = msgspec.structs.replace(EXPECTED, audiences=frozenset({"https://tools.test/mcp/"}))
    assert read(CLAIMS, with_slash).subject == "alice"


def test_no_audience_passes_only_where_the_operator_says_so() -> None:
    """Settings, audience_required: false; another audience is refused nevertheless."""
    lenient = msgspec.structs.replace(EXPECTED, audience_required=False)
    assert read(changed(aud=ABSENT), lenient).subject == "alice"
    audiences: tuple[object, ...] = ("https://other.test", [], None, "")
    for audience in audiences:
        assert why_refused(changed(aud=audience), lenient)


@pytest.mark.parametrize(
    "subject",
    [
        *("", " ", "\u00a0", "alice\nroot", "alice\x00", "\ud800", "alice\u200b", "\u202ealice", "a" * 257),
        *(7, True, None, ["alice"], {"alice": 1}, ABSENT),
    ],
)
def test_a_subject_is_a_printable_name(subject: object) -> None:
    assert why_refused(changed(sub=subject)).startswith("The claim sub ")


@pytest.mark.parametrize("subject", ["alice:b", "\uff21lice", "a" * 256, "auth0|5f7c", "Ålice B.", "*"])
def test_a_subject_stays_as_it_is(subject: str) -> None:
    """Neither folded nor split: two subjects that look alike stay two."""
    assert read(changed(sub=subject)).subject == subject


@pytest.mark.parametrize(
    "tenant",
    [
        *("", " ", "\u2003", "*", " * ", "a\n", "\ta", "a\u200b", "\ud800", "a" * 257),
        *(["acme"], {"id": "acme"}, 7, True, None, ABSENT),
    ],
)
def test_without_one_tenant_nobody_is_named(tenant: object) -> None:
    """design section 4: tenant non-blank; there is no tenant to fall into."""
    assert "tenant" in why_refused(changed(tenant=tenant))


@pytest.mark.parametrize(
    ("tenant", "read_as"), [("acme", "acme"), (" acme ", "acme"), ("ACME", "ACME"), ("\uff41", "\uff41")]
)
def test_a_tenant_is_trimmed_and_not_folded(tenant: str, read_as: str) -> None:
    assert read(changed(tenant=tenant)).tenant == read_as


def test_the_settings_may_name_the_tenant_of_everybody() -> None:
    """A claim of the same name does not matter then: the operator said whose issuer it is."""
    fixed = msgspec.structs.replace(EXPECTED, tenant="acme")
    assert read(changed(tenant="evil"), fixed).tenant == "acme"
    assert read(changed(tenant=ABSENT), fixed).tenant == "acme"


@pytest.mark.parametrize(
    ("claim", "claims"),
    [
        ("/org/id", {"org": {"id": "acme"}}),
        ("/a/b/c", {"a": {"b": {"c": "acme"}}}),
        ("https://example.test/tenant", {"https://example.test/tenant": "acme"}),
        ("org.id", {"org.id": "acme"}),
    ],
)
def test_a_claim_is_found_by_name_or_by_path(claim: str, claims: dict[str, object]) -> None:
    """Settings: `org_id`, or a path such as `/realm_access/roles`."""
    elsewhere = msgspec.structs.replace(EXPECTED, tenant_claim=claim)
    assert read({**changed(tenant=ABSENT), **claims}, elsewhere).tenant == "acme"


@pytest.mark.parametrize(
    "claims",
    [
        {"org": "acme"},
        {"org": ["acme"]},
        {"org": {}},
        {"org": {"id": {}}},
        {"/org/id": "acme"},
        {"org": None},
    ],
)
def test_a_path_leads_through_objects_only(claims: dict[str, object]) -> None:
    elsewhere = msgspec.structs.replace(EXPECTED, tenant_claim="/org/id")
    assert why_refused({**CLAIMS, **claims}, elsewhere)


@pytest.mark.parametrize(
    ("roles", "read_as"),
    [
        (ABSENT, set()),
        ([], set()),
        ("admin", {"admin"}),
        ("notadmin", {"notadmin"}),
        ("admin viewer", {"admin viewer"}),
        ("admin,viewer", {"admin,viewer"}),
        (["admin", "viewer", "admin"], {"admin", "viewer"}),
    ],
)
def test_roles_are_whole_names(roles: object, read_as: set[str]) -> None:
    """One string is one role: parts of a name grant nothing."""
    assert read(changed(roles=roles)).roles == read_as


@pytest.mark.parametrize(
    "roles",
    [
        {"admin": True},
        ["admin", 1],
        [["admin"]],
        [None],
        True,
        None,
        1,
        "",
        [""],
        ["a\n"],
        "\ud800",
        "a" * 257,
    ],
)
def test_roles_of_another_kind_refuse(roles: object) -> None:
    assert why_refused(changed(roles=roles))


def test_roles_may_stand_deeper() -> None:
    deeper = msgspec.structs.replace(EXPECTED, roles_claim="/realm_access/roles")
    assert read({**CLAIMS, "realm_access": {"roles": ["admin"]}}, deeper).roles == {"admin"}
    assert read({**CLAIMS, "realm_access": {}}, deeper).roles == frozenset()
    assert read(CLAIMS, deeper).roles == frozenset()
    assert why_refused({**CLAIMS, "realm_access": ["admin"]}, deeper)


@pytest.mark.parametrize(
    ("scope", "scp", "read_as"),
    [
        (ABSENT, ABSENT, set()),
        ("", ABSENT, set()),
        ("  a  b ", ABSENT, {"a", "b"}),
        ("a\tb", ABSENT, {"a\tb"}),
        ("a\u00a0b", ABSENT, {"a\u00a0b"}),
        (["a", "b"], ABSENT, {"a", "b"}),
        (["a b"], ABSENT, {"a b"}),
        (ABSENT, "a b", {"a", "b"}),
        (ABSENT, ["a"], {"a"}),
        ("a", "b", {"a"}),
    ],
)
def test_scopes_are_whole_names(scope: object, scp: object, read_as: set[str]) -> None:
    """RFC 8693 4.2: separated by spaces. A list is a list of whole names; `scp` counts without `scope` only."""
    assert read(changed(scope=scope, scp=scp)).scopes == read_as


@pytest.mark.parametrize("scope", [1, True, None, {"a": 1}, ["a", 1], [["a"]], [None]])
def test_scopes_of_another_kind_refuse(scope: object) -> None:
    assert why_refused(changed(scope=scope))
    assert why_refused(changed(scope=ABSENT, scp=scope))


@pytest.mark.parametrize("granted", ["", "other", "mcp:callx", "xmcp:call", "mcp:call", "MCP:CALL mcp:read"])
def test_a_missing_scope_is_asked_for(granted: str) -> None:
    """RFC 6750 3.1: insufficient_scope, with all that the operation needs."""
    strict = msgspec.structs.replace(EXPECTED, required_scopes=("mcp:call", "mcp:read"))
    with pytest.raises(Refused) as refusal:
        read(changed(scope=granted), strict)
    assert refusal.value.reason is Reason.SCOPE_MISSING
    assert refusal.value.scopes == ("mcp:call", "mcp:read")


def test_scopes_are_asked_of_those_only_who_are_proven() -> None:
    """A step-up challenge to a stranger would say that all the rest was good."""
    strict = msgspec.structs.replace(EXPECTED, required_scopes=("mcp:call",))
    assert read(CLAIMS, strict).scopes == {"mcp:call", "mcp:read"}
    assert why_refused(changed(scope="", tenant="*"), strict)


@pytest.mark.parametrize("cnf", [{"jkt": "x"}, {}, None, False])
def test_a_token_bound_to_a_key_is_no_bearer_token(cnf: object) -> None:
    """RFC 7800, RFC 9449: without the proof, whoever stole the token would be let in."""
    assert "cnf" in why_refused(changed(cnf=cnf))


@pytest.mark.parametrize("name", ["iss", "aud", "sub", "tenant", "roles", "scope"])
def test_no_text_repeats_a_claim(name: str) -> None:
    """`why` reaches the caller and logs: fixed words only."""
    with pytest.raises(Refused) as refusal:
        read(changed(**{name: {"MARKER": ["MARKER"]}}))
    assert "MARKER" not in f"{refusal.value.args} {refusal.value.data} {refusal.value.headers}"


@pytest.mark.parametrize(
    "value",
    [
        *(True, False, "1700000000", None, [], {}, -1, -0.5, 1e308, math.nan, math.inf, -math.inf),
        *(253_402_300_800, 10**400, -(10**400), 1_700_000_000_000),
    ],
)
def test_only_a_number_of_this_age_is_a_time(value: object) -> None:
    """RFC 7519 section 2, NumericDate: seconds. Strings, booleans, milliseconds and overflows are not."""
    with pytest.raises(Refused) as refusal:
        moment_of({"exp": value}, "exp")
    assert refusal.value.why == "The claim exp is not a point in time."


@pytest.mark.parametrize(
    ("claims", "moment"),
    [
        ({}, None),
        ({"exp": 0}, 0.0),
        ({"exp": 1_700_000_000}, 1.7e9),
        ({"exp": 1.5}, 1.5),
        ({"exp": 253_402_300_799}, 253_402_300_799.0),
    ],
)
def test_a_time_is_read_in_seconds(claims: dict[str, object], moment: float | None) -> None:
    assert moment_of(claims, "exp") == moment


@pytest.mark.parametrize(
    ("claims", "client"),
    [
        ({"client_id": "agent-7", "azp": "other"}, "agent-7"),
        ({"azp": "agent-8"}, "agent-8"),
        ({}, ""),
        ({"client_id": ["agent-7"]}, ""),
        ({"client_id": ""}, ""),
        ({"client_id": "a\nb"}, ""),
    ],
)
def test_the_application_is_named_where_it_is_named(claims: dict[str, object], client: str) -> None:
    """RFC 9068 section 2.2 (client_id), OpenID Connect Core section 2 (azp)."""
    assert read({**CLAIMS, **claims}).client == client
