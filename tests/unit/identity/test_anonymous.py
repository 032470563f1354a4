"""Everybody is one named principal, by default or because the operator says so."""

from proxy.identity.building import Identification
from proxy.identity.settings import AnonymousSettings, IdentitySettings
from proxy.model import Headers, Identify, Principal
from tests.fakes import awaited, make_call


def identified(settings: IdentitySettings) -> Identify:
    return Identification(settings, watch=lambda paths, changed: None, wall=lambda: 0.0).identify


async def test_without_settings_everybody_is_local() -> None:
    """design section 2: `run --upstream …` with nothing else is the anonymous single tenant `local`."""
    principal = await awaited(identified(IdentitySettings())(make_call()))
    assert principal == Principal(issuer="anonymous", subject="anonymous", tenant="local")


async def test_the_settings_name_tenant_subject_and_roles() -> None:
    """design section 3: `{kind: anonymous, tenant: …, roles: […]}` is a real authenticator."""
    named = AnonymousSettings(tenant="acme", subject="ci", roles=("viewer", "editor"))
    principal = await awaited(identified(IdentitySettings(authenticators=(named,)))(make_call()))
    assert (principal.tenant, principal.subject) == ("acme", "ci")
    assert principal.roles == frozenset({"viewer", "editor"})


async def test_no_header_of_the_client_says_who_it_is() -> None:
    """design section 1 (3): keyed by verified identity, never by a client header."""
    claims = Headers([(b"X-Tenant", b"evil"), (b"X-Principal", b"root"), (b"Authorization", b"Bearer x")])
    principal = await awaited(identified(IdentitySettings())(make_call(headers=claims)))
    assert (principal.tenant, principal.subject) == ("local", "anonymous")
