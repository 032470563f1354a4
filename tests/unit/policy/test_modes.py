"""What is switched off at the moment: tables of modes and messages, and who can set what for whom."""

import math

import pytest

from proxy.model import Call, Kind, Reason, Refused
from proxy.policy.guard_settings import Mode, ModeSettings
from proxy.policy.modes import STRICTNESS, InForce, Modes, passes
from proxy.refusals import explain
from tests.fakes import make_call

TOOL = make_call(target="t")
HINTS = {
    "normal": "",
    "no-delete": "may destroy",
    "read-only": "Only what reads",
    "maintenance": "under maintenance",
}


@pytest.mark.parametrize(
    ("tool_class", "let_through"),
    [
        ("read", ["normal", "no-delete", "read-only"]),
        ("write", ["normal", "no-delete"]),
        ("dangerous", ["normal"]),
        ("", ["normal"]),
    ],
)
@pytest.mark.parametrize("kind", [Kind.REQUEST, Kind.NOTIFICATION])
def test_tools_count_by_their_class(tool_class: str, let_through: list[Mode], kind: Kind) -> None:
    """Issue 4: normal, read-only, no-delete, maintenance. A class nobody knows is dangerous, and a call without an
    id runs like one with."""
    call = make_call(target="t", kind=kind)
    assert [mode for mode in STRICTNESS if passes(mode, call, tool_class)] == let_through


@pytest.mark.parametrize(
    ("call", "let_through"),
    [
        *((make_call(method=each), 4) for each in ("initialize", "ping", "server/discover", "tools/list")),
        *((make_call(method=each), 4) for each in ("prompts/list", "resources/list", "tasks/list")),
        (make_call(method="resources/templates/list"), 4),
        *((make_call(method=each), 3) for each in ("resources/read", "prompts/get", "completion/complete")),
        *((make_call(method=each), 3) for each in ("tasks/get", "tasks/cancel", "subscriptions/listen")),
        # A method that nobody knows may do anything, and no name makes it harmless.
        *((make_call(method=each), 1) for each in ("nobody/knows", "x/list", "tools/call/x", "Tools/list")),
        (make_call(method="notifications/x"), 1),
        (make_call(method="notifications/cancelled", kind=Kind.NOTIFICATION, id=None), 4),
        (make_call(method="nobody/knows", kind=Kind.NOTIFICATION, id=None), 1),
        *((make_call(method="", kind=each), 4) for each in (Kind.ANSWER, Kind.LISTEN, Kind.END)),
    ],
    ids=lambda each: f"{each.kind.value} {each.method}" if isinstance(each, Call) else "",
)
def test_other_messages_count_by_what_they_can_do(call: Call, let_through: int) -> None:
    """Own promise: sessions survive a maintenance, and what only reads passes until then. The modes are ordered."""
    assert [passes(mode, call, "read") for mode in STRICTNESS] == [n < let_through for n in range(4)]


@pytest.mark.parametrize("process", STRICTNESS)
@pytest.mark.parametrize("tenant", STRICTNESS)
@pytest.mark.parametrize("settings", ["process", "tenants", "levers"])
def test_the_strictest_of_process_and_tenant_wins(process: Mode, tenant: Mode, settings: str) -> None:
    """Issue 4; from the settings, from operators, or one of each."""
    modes = Modes(
        ModeSettings(
            process=process if settings == "process" else "normal",
            tenants={"acme": tenant} if settings == "tenants" else {},
        )
    )
    if settings != "process":
        modes.set(process, 0.0)
    if settings != "tenants":
        modes.set(tenant, 0.0, tenant="acme")
    assert modes.in_force("acme", 1.0).mode == max(process, tenant, key=STRICTNESS.__getitem__)
    assert modes.in_force("other", 1.0).mode == process


def test_one_tenants_mode_is_invisible_to_another() -> None:
    """Issue 4."""
    modes = Modes()
    modes.set("maintenance", 0.0, tenant="acme")
    assert modes.refusal(TOOL, "dangerous", "acme", 1.0) is not None
    assert modes.refusal(TOOL, "dangerous", "acme2", 1.0) is None


def test_a_mode_ends_when_it_says() -> None:
    """An optional end, for the process and for a tenant; the next strict one follows."""
    modes = Modes()
    modes.set("maintenance", 0.0, until=10.0)
    modes.set("read-only", 0.0, tenant="acme", until=20.0)
    seen = [modes.in_force("acme", now) for now in (0.0, 9.9, 10.0, 19.9, 20.0)]
    first, second = InForce("maintenance", 10.0), InForce("read-only", 20.0)
    assert seen == [first, first, second, second, InForce()]
    assert modes.levers(15.0) == (InForce(), {"acme": second})
    assert modes.levers(25.0) == (InForce(), {})


def test_normal_takes_back_what_was_set() -> None:
    """A lever goes both ways, and what it costs is gone with it."""
    modes = Modes()
    modes.set("read-only", 0.0)
    modes.set("read-only", 0.0, tenant="acme")
    modes.set("normal", 1.0)
    assert modes.in_force("other", 2.0).mode == "normal"
    assert modes.in_force("acme", 2.0).mode == "read-only"
    modes.set("normal", 3.0, tenant="acme")
    assert modes.levers(4.0) == (InForce(), {})
    assert modes.refusal(TOOL, "dangerous", "acme", 4.0) is None


def test_a_lever_cannot_loosen_the_settings() -> None:
    """Own promise: what a pod was configured to refuse it refuses after a restart and before."""
    modes = Modes(ModeSettings(process="read-only", tenants={"acme": "maintenance"}))
    modes.set("normal", 0.0)
    modes.set("no-delete", 0.0, tenant="acme")
    assert modes.in_force("acme", 1.0).mode == "maintenance"
    assert modes.in_force("other", 1.0).mode == "read-only"


def test_levers_outlive_a_reload() -> None:
    """Style guide 6: what must survive is kept; the settings themselves are the new ones."""
    modes = Modes(ModeSettings(process="maintenance"))
    modes.set("no-delete", 0.0, tenant="acme")
    modes.begin(ModeSettings())
    assert modes.in_force("acme", 1.0).mode == "no-delete"
    assert modes.in_force("other", 1.0).mode == "normal"
    modes.begin(ModeSettings(tenants={"other": "read-only"}))
    assert modes.in_force("other", 1.0).mode == "read-only"


def no(modes: Modes, call: Call = TOOL) -> Refused:
    refusal = modes.refusal(call, "dangerous", "acme", 5.0)
    assert refusal is not None
    return refusal


@pytest.mark.parametrize("mode", ["no-delete", "read-only", "maintenance"])
def test_the_refusal_says_what_is_off(mode: Mode) -> None:
    """Issue 4: words a model can act on, and the mode for machines."""
    modes = Modes()
    modes.set(mode, 0.0)
    refusal = no(modes)
    assert refusal.reason is Reason.MODE
    assert HINTS[mode] in refusal.why
    assert "Nothing was done" in refusal.why
    assert refusal.data == {"mode": mode}


@pytest.mark.parametrize(
    ("mode", "until", "retry_after_s"),
    [
        ("maintenance", math.inf, 7.0),
        ("maintenance", 105.0, 100.0),
        ("read-only", math.inf, None),
        ("no-delete", 105.0, 100.0),
    ],
)
def test_whoever_is_told_when_to_come_back_can(mode: Mode, until: float, retry_after_s: float | None) -> None:
    """Issue 4: maintenance with Retry-After; exact where the end is known."""
    modes = Modes(ModeSettings(retry_after_s=7.0))
    modes.set(mode, 0.0, until=until)
    refusal = no(modes)
    assert refusal.retry_after_s == retry_after_s
    if until != math.inf:
        assert modes.refusal(TOOL, "dangerous", "acme", 5.0 + 100.0) is None


def test_maintenance_is_503_for_those_who_wait() -> None:
    """RFC 9110, 15.6.4; notifications are dropped with 202, or Python 1.x clients lose their sessions."""
    modes = Modes(ModeSettings(process="maintenance"))
    reply = explain(no(modes), TOOL, "http")
    assert (reply.status, reply.headers.get("retry-after")) == (503, "60")
    dropped = make_call(target="t", kind=Kind.NOTIFICATION, id=None)
    assert explain(no(modes, dropped), dropped, "http").status == 202
    assert explain(no(modes), TOOL, "result").status == 200
    assert explain(no(Modes(ModeSettings(process="read-only"))), TOOL, "http").status == 403


def test_tenants_with_a_mode_are_bounded() -> None:
    """Style guide 8. Those whose mode has ended make room."""
    modes = Modes(most_tenants=2)
    for name in ("t1", "t2"):
        modes.set("read-only", 0.0, tenant=name, until=10.0)
    with pytest.raises(ValueError, match="at most"):
        modes.set("read-only", 5.0, tenant="one-more")
    modes.set("maintenance", 5.0, tenant="t1")
    assert modes.levers(5.0)[1]["t1"] == InForce("maintenance")
    modes.set("read-only", 11.0, tenant="one-more")
    assert set(modes.levers(11.0)[1]) == {"one-more", "t1"}
