"""Whom do these claims name? Claims that are already believed → `Principal`, or `Refused`. Pure.

In: the claims of a verified token, or an introspection endpoint's answer, read without duplicate members. Keeps
nothing. Nothing is guessed, folded or defaulted: a claim of another type than its specification says refuses the
token, because two readers of it would see two callers.
Sources: RFC 7519 section 4.1, RFC 8693 section 4.2 (`scope`), RFC 7800 (`cnf`), RFC 9068 section 2.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from ..model import Principal, Reason, Refused
from .credential import bad

MAX_NAME_CHARACTERS: Final = 256
"""Of a subject, a tenant, a role: they become keys of tables and words of log lines."""
_LAST_MOMENT: Final = 253_402_300_799
"""The end of the year 9999. What lies beyond is milliseconds, an overflow or an attack."""


class Expected(Struct, frozen=True, kw_only=True):
    """What the claims must say, and where they say it."""

    issuer: str
    """Equal to `iss`, character for character; also the issuer of the principal."""
    issuer_required: bool = True
    """False: claims without `iss` are of this issuer, because it was the issuer who said them."""
    audiences: frozenset[str]
    """`aud` must name one of these. One slash at the end makes no difference."""
    audience_required: bool = True
    """False: claims without `aud` pass. Claims that name another audience never do."""
    tenant: str | None = None
    """The tenant of everybody. None: `tenant_claim` says it."""
    tenant_claim: str
    """The claim with the tenant: a name, or a path that begins with a slash."""
    roles_claim: str
    """The claim with the roles, likewise."""
    required_scopes: tuple[str, ...] = ()
    """All of these must have been granted."""


def principal_of(
    claims: Mapping[str, object], expected: Expected, *, fingerprint: str, valid_until: float
) -> Principal:
    """Who the claims name; `valid_until` in seconds, monotonic.

    Raises Refused: bad_credential, or scope_missing once everything else is good.
    """
    _check_issuer(claims, expected)
    _check_audience(claims, expected)
    if "cnf" in claims:
        # Bound to a key the sender must prove to hold; taken as a bearer token it would work for a thief.
        raise bad("The token is bound to a key (cnf), which is not supported here; use a bearer token.")
    principal = Principal(
        issuer=expected.issuer,
        subject=_subject(claims),
        tenant=_tenant(claims, expected),
        roles=_roles(claims, expected.roles_claim),
        scopes=_scopes(claims),
        client=_client(claims),
        fingerprint=fingerprint,
        valid_until=valid_until,
    )
    if not principal.scopes.issuperset(expected.required_scopes):
        raise Refused(
            Reason.SCOPE_MISSING,
            "Ask the authorization server for the scopes named in the challenge.",
            scopes=expected.required_scopes,
        )
    return principal


def moment_of(claims: Mapping[str, object], name: str) -> float | None:
    """The claim `name` as seconds since 1970; None where it is absent.

    Raises Refused for anything but a number between 1970 and 9999.
    """
    value = claims.get(name, _ABSENT)
    if value is _ABSENT:
        return None
    # By type: `true` is an int too. NaN compares false.
    if (type(value) is int or type(value) is float) and 0 <= value <= _LAST_MOMENT:
        return float(value)
    raise bad(f"The claim {name} is not a point in time.")


def _check_issuer(claims: Mapping[str, object], expected: Expected) -> None:
    issuer = claims.get("iss", _ABSENT)
    if issuer is _ABSENT and not expected.issuer_required:
        return
    if issuer != expected.issuer:
        raise bad("The token was issued by somebody else.")


def _check_audience(claims: Mapping[str, object], expected: Expected) -> None:
    audience = claims.get("aud", _ABSENT)
    if audience is _ABSENT:
        if expected.audience_required:
            raise bad("The token names no audience (aud).")
        return
    named = _names(audience, "aud")
    # Clients send the resource with and without its last slash (RFC 8707), and servers copy what they got.
    ours = {each.removesuffix("/") for each in expected.audiences}
    if ours.isdisjoint(each.removesuffix("/") for each in named):
        raise bad("The token was issued for another audience.")


def _subject(claims: Mapping[str, object]) -> str:
    subject = claims.get("sub")
    if not isinstance(subject, str) or not _is_name(subject):
        raise bad("The claim sub is missing, or is not a printable name of at most 256 characters.")
    return subject


def _tenant(claims: Mapping[str, object], expected: Expected) -> str:
    if expected.tenant is not None:
        return expected.tenant
    tenant = _find(claims, expected.tenant_claim)
    # Printable before it is trimmed: a line break at its end is refused, not forgiven.
    if not isinstance(tenant, str) or not _is_name(tenant):
        raise bad("The token names no tenant, or one that is not a printable name of at most 256 characters.")
    tenant = tenant.strip()
    if tenant == "*":
        raise bad("The token names * as its tenant, which stands for everybody.")
    return tenant


def _client(claims: Mapping[str, object]) -> str:
    """The application: `client_id` (RFC 9068, RFC 7662), or `azp` where OpenID Connect names it so. What is no name
    is none: nothing is granted by it."""
    client = claims.get("client_id", claims.get("azp"))
    return client if isinstance(client, str) and _is_name(client) else ""


def _roles(claims: Mapping[str, object], claim: str) -> frozenset[str]:
    roles = _find(claims, claim)
    if roles is _ABSENT:
        return frozenset()
    names = _names(roles, "with the roles")
    if not all(map(_is_name, names)):
        raise bad("A role in the token is not a printable name of at most 256 characters.")
    return names


def _scopes(claims: Mapping[str, object]) -> frozenset[str]:
    """Of `scope`, or where that is absent of `scp`, as some issuers call it."""
    scopes = claims.get("scope", _ABSENT)
    if scopes is _ABSENT:
        scopes = claims.get("scp", _ABSENT)
    if scopes is _ABSENT:
        return frozenset()
    if isinstance(scopes, str):
        # At spaces alone: other blanks are no separators in RFC 6749, so that "a\tb" grants neither a nor b.
        return frozenset(filter(None, scopes.split(" ")))
    return _names(scopes, "with the scopes")


def _names(value: object, claim: str) -> frozenset[str]:
    """One name, or a list of names."""
    if isinstance(value, str):
        return frozenset((value,))
    if not isinstance(value, list):
        raise bad(f"The claim {claim} is neither a string nor a list of strings.")
    names: set[str] = set()
    for each in value:
        if not isinstance(each, str):
            raise bad(f"The claim {claim} is neither a string nor a list of strings.")
        names.add(each)
    return frozenset(names)


def _is_name(text: str) -> bool:
    """Whether people and log lines can tell it from another; surrogates are not printable either."""
    return len(text) <= MAX_NAME_CHARACTERS and text.isprintable() and bool(text.strip())


def _find(claims: Mapping[str, object], claim: str) -> object:
    """The value of a claim by its name, or by a path of members; `_ABSENT` where nothing stands there."""
    if not claim.startswith("/"):
        return claims.get(claim, _ABSENT)
    value: object = claims
    for segment in claim[1:].split("/"):
        if not isinstance(value, Mapping):
            raise bad("A claim on the path to the tenant or the roles is not an object.")
        value = value.get(segment, _ABSENT)
        if value is _ABSENT:
            break
    return value


_ABSENT: Final = object()
"""Tells a claim that is not there from one that is null."""
