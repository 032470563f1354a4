"""What tools/list taught us: for whom, and how much of it is kept."""

import pytest

from proxy.model import Principal, Refused
from proxy.protocol.revisions import NEWEST, UNNAMED
from proxy.upstream import catalog as module
from proxy.upstream.catalog import Catalog
from tests.fakes import make_call

ALICE = Principal(issuer="i", subject="alice", tenant="a")
BOB = Principal(issuer="i", subject="bob", tenant="a")
SQL = {
    "name": "sql",
    "inputSchema": {"properties": {"region": {"type": "string", "x-mcp-header": "Region"}}},
}


def taught(*tools: object) -> Catalog:
    catalog = Catalog()
    catalog.heard(ALICE, make_call(method="tools/list", revision=NEWEST), {"tools": list(tools)})
    return catalog


def test_a_call_is_compared_with_what_its_caller_was_told() -> None:
    """Whoever processes the body MUST validate mirrored headers (streamable-http)."""
    catalog = taught(SQL)
    with pytest.raises(Refused):
        catalog.check(
            ALICE,
            make_call(target="sql", params={"name": "sql", "arguments": {"region": "eu"}}, revision=NEWEST),
        )


def test_what_one_identity_was_told_decides_nothing_for_another() -> None:
    """Lists may vary by caller (own promise: nobody is judged by another's data)."""
    taught(SQL).check(
        BOB, make_call(target="sql", params={"name": "sql", "arguments": {"region": "eu"}}, revision=NEWEST)
    )


def test_a_tool_that_no_longer_declares_a_mirror_is_no_longer_compared() -> None:
    """A later list replaces what was learnt (own promise)."""
    catalog = taught(SQL)
    catalog.heard(
        ALICE,
        make_call(method="tools/list", revision=NEWEST),
        {"tools": [{"name": "sql", "inputSchema": {}}]},
    )
    catalog.check(
        ALICE, make_call(target="sql", params={"name": "sql", "arguments": {"region": "eu"}}, revision=NEWEST)
    )


def test_a_legacy_call_is_not_compared() -> None:
    """Mirrors exist from 2026-07-28 on."""
    taught(SQL).check(
        ALICE,
        make_call(target="sql", params={"name": "sql", "arguments": {"region": "eu"}}, revision=UNNAMED),
    )


@pytest.mark.parametrize("result", [None, [], {}, {"tools": 7}, {"tools": [None, {"name": 1}, {}]}])
def test_a_list_of_another_shape_teaches_nothing(result: object) -> None:
    """The server's data is hostile too (own promise)."""
    Catalog().heard(ALICE, make_call(method="tools/list", revision=NEWEST), result)


def test_the_table_is_bounded() -> None:
    """Every table that a client can grow is bounded (own promise)."""
    catalog = Catalog()
    for number in range(module.MAX_IDENTITIES + 5):
        who = Principal(issuer="i", subject=str(number), tenant="a")
        catalog.heard(who, make_call(method="tools/list", revision=NEWEST), {"tools": [SQL]})
    assert len(catalog._mirrors) == module.MAX_IDENTITIES
