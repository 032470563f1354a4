"""Packs: shared rules by name or path, their mistakes with positions, and what the shipped ones deny."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from proxy.configuration.mistakes import SettingsError
from proxy.model import Call, Principal
from proxy.policy.packs import located, read_packs
from proxy.policy.rules import Allow, Deny, Rules
from proxy.policy.settings import PolicySettings
from proxy.policy.shipped import packs as shipped
from tests.fakes import make_call
from tests.unit.configuration.reading import mistakes, read


def words(text: str) -> list[str]:
    return text.split()


UPSTREAM = "version: 1\nupstream: {url: http://127.0.0.1:1/mcp}\n"
ANN = Principal(issuer="i", subject="ann", tenant="t", roles=frozenset({"viewer"}))
DESTRUCTIVE = words(
    "apply_kubernetes_manifest delete_kubernetes_resource kubectl_apply kubectl_create kubectl_delete kubectl_patch "
    "kubectl_rollout kubectl_scale capi_create_cluster capi_delete_cluster capi_move_cluster capi_pause_cluster "
    "capi_resume_cluster capi_scale_cluster capi_update_cluster capi_upgrade_cluster "
    "capi_create_machinedeployment capi_scale_machinedeployment capi_delete_machine capi_remediate_machine "
    "install_helm_chart uninstall_helm_chart upgrade_helm_chart reconcile_flux_helmrelease "
    "reconcile_flux_kustomization reconcile_flux_resourceset reconcile_flux_source resume_flux_reconciliation "
    "suspend_flux_reconciliation cleanup create_incident update_dashboard"
)


def tool(name: str) -> Call:
    return make_call(method="tools/call", target=name, params={"name": name})


def rules(*packs: str, **sections: object) -> Rules:
    settings = msgspec.convert({"packs": packs, **sections}, PolicySettings)
    return Rules(settings, read_packs(settings))


def allowed(by: Rules, names: Sequence[str]) -> list[str]:
    return [name for name in names if isinstance(by.decide(tool(name), ANN), Allow)]


def pack(folder: Path, text: str, name: str = "own.yaml") -> Path:
    file = folder / name
    file.write_text(f"version: 1\n{text}", encoding="utf-8")
    return file


def test_the_shipped_packs_are_these() -> None:
    """Issue 4: read-only, destructive, strict."""
    assert sorted(shipped()) == ["destructive", "read-only", "strict"]


def test_a_name_is_a_shipped_pack_and_a_path_counts_from_the_settings_file(tmp_path: Path) -> None:
    """design section 3: packs are paths relative to this file, or names of shipped packs."""
    pack(tmp_path, "tools: [{match: a, deny: ['*']}]")
    pack(tmp_path, "tools: [{match: b, deny: ['*']}]", "destructive")
    settings = read(tmp_path, UPSTREAM + "policy: {packs: [destructive, own.yaml, ./destructive]}\n")
    assert settings.policy is not None
    # Whoever reads them later may be told of another folder, or of none.
    one, two, three = read_packs(settings.policy, Path("/elsewhere"))
    assert sorted(each.match for each in one.tools) == sorted(DESTRUCTIVE)
    assert [each.match for each in (*two.tools, *three.tools)] == ["a", "b"]


def test_without_a_policy_there_are_no_packs() -> None:
    assert read_packs(None) == ()


def test_mistakes_in_packs_are_told_at_once_with_those_of_the_file(tmp_path: Path) -> None:
    """design section 2: all mistakes at once, each where it was written."""
    own = pack(tmp_path, "tools:\n  - {match: a, deny: [edtor]}\n  - {match: b, dney: []}\n")
    other = pack(
        tmp_path,
        "tools:\n  - {match: a, allow: [admn], overrides_packs: true}\n"
        "methods:\n  prompts/get: {allow: [nobdy, '*'], deny: [viewer, edtor]}\n",
        "other.yaml",
    )
    text = (
        f"{UPSTREAM}drain_s: soon\npolicy:\n  roles: {{viewer: {{}}, editor: {{}}, admin: {{}}}}\n"
        "  packs: [own.yaml, destructiv, none.yaml, other.yaml]\n"
    )
    found = [line.replace(str(own), "OWN").replace(str(other), "OTHER") for line in mistakes(tmp_path, text)]
    assert [line.partition(", ")[0] for line in found] == [
        "F:3:10: drain_s: is a text",
        "F:6:21: policy.packs[1]: is no shipped pack",
        "F:6:33: policy.packs[2]: cannot be read",
        "OWN:3:23: tools[0].deny[0]: names no role",
        "OWN:4:16: tools[1].dney: is not known",
        "OTHER:3:24: tools[0].allow[0]: names no role",
        "OTHER:3:48: tools[0].overrides_packs: stands in a pack",
        'OTHER:5:25: methods."prompts/get".allow[0]: names no role',
        'OTHER:5:53: methods."prompts/get".deny[1]: names no role',
    ]
    assert 'did you mean "destructive"?' in found[1]
    assert 'did you mean "admin"?' in found[5]


def test_a_pack_may_name_any_role_where_there_are_none(tmp_path: Path) -> None:
    """policy.roles: empty: any name in `allow` and `deny` is one."""
    pack(tmp_path, "tools: [{match: a, deny: [anything]}]")
    assert mistakes(tmp_path, UPSTREAM + "policy: {packs: [own.yaml]}\n") == []


def test_what_became_wrong_since_the_check_is_told_by_whoever_reads_it(tmp_path: Path) -> None:
    """A start must not go on with fewer denies than were asked for."""
    own = pack(tmp_path, "tools: [{match: a, deny: ['*']}]")
    settings = read(tmp_path, UPSTREAM + "policy: {packs: [own.yaml]}\n").policy
    assert settings is not None
    own.write_text("version: 2\n", encoding="utf-8")
    with pytest.raises(SettingsError, match="version"):
        read_packs(settings)
    own.unlink()
    with pytest.raises(SettingsError, match="cannot be read"):
        read_packs(settings)


def test_a_path_that_looks_like_a_name_stays_a_path(tmp_path: Path) -> None:
    """./strict is a file beside the settings, strict is shipped."""
    assert located("./strict", tmp_path) == str(tmp_path / "strict")
    # Also where there is no folder before it: read again, it must not become the shipped one.
    assert located(located("./strict")) == str(Path("strict").absolute())
    assert located("strict", tmp_path) == str(shipped()["strict"])


def test_destructive_denies_its_32_names_to_everybody() -> None:
    """Issue 4, item 11: also where a rule of one's own allows them to everybody."""
    assert len(DESTRUCTIVE) == len(set(DESTRUCTIVE)) == 32
    open_to_all = rules("destructive", tools=[{"match": "*", "allow": ["*"]}])
    others = ["kubectl_get", "kubectl_apply_", "Kubectl_apply", "x_kubectl_apply", "cleanup2", "CLEANUP"]
    assert allowed(open_to_all, [*DESTRUCTIVE, *others]) == others


def test_one_tool_is_lifted_by_its_exact_name_and_no_other() -> None:
    """Issue 4, item 11: an enforced denylist with one loud per-tool override."""
    lifted = {"match": "kubectl_scale", "allow": ["viewer"], "overrides_packs": True}
    one = rules("destructive", tools=[lifted, {"match": "*", "allow": ["*"]}])
    assert allowed(one, DESTRUCTIVE) == ["kubectl_scale"]


def test_strict_leaves_nothing_to_a_generous_default() -> None:
    """Nobody may call what one's own rules do not name."""
    generous = {
        "default": {"allow": ["*"]},
        "tools": [{"match": "search"}],
        "methods": {"prompts/get": {}, "*": {"allow": ["*"]}},
    }
    by = rules("strict", **generous)
    assert allowed(by, ["search", "search2", "anything"]) == ["search"]
    assert allowed(rules(**generous), ["search", "anything"]) == ["search", "anything"]
    calls = [
        make_call(method=method, target="x", params={"name": "x", "uri": "x"})
        for method in (
            "prompts/get",
            "resources/read",
            "nobody/knows",
            "tools/list",
            "tasks/get",
            "initialize",
        )
    ]
    passed = [each.method for each in calls if isinstance(by.decide(each, ANN), Allow)]
    assert passed == ["prompts/get", "tools/list", "tasks/get", "initialize"]


# Tools of servers that many use: filesystem and git of the reference servers, GitHub, Kubernetes, a wiki.
READS = words(
    "read_file read_text_file read_multiple_files list_directory directory_tree search_files get_file_info "
    "list_allowed_directories git_status git_diff git_diff_staged git_log git_show git_branch get_commit "
    "list_commits list_merge_requests get_pull_request get_workflow_run search_code list_issues pods_list pods_log "
    "kubectl_get kubectl_describe kubectl_logs explain_resource list_api_resources get_deployments ping fetch "
    "settings_get address_lookup list_posts get_output search_editors result_set notion-search getIssue"
)
WRITES = words(
    "write_file edit_file create_directory move_file git_add git_commit git_reset git_checkout git_create_branch "
    "create_issue update_issue add_issue_comment merge_pull_request push_files create_or_update_file delete_file "
    "pods_delete pods_exec pods_run resources_create_or_update resources_delete createIssue issueCreate CREATE_ISSUE "
    "GITHUB_DELETE_REPO notion-create-pages API-patch-page API-post-page deleteObject set_value put-object "
    "kubectl_apply kubectl_patch kubectl_scale kubectl_create install_helm_chart uninstall_helm_chart "
    "upgrade_helm_chart exec_in_pod sendMail send_mail execute_sql drop_table"
)
NOT_SEEN = ["sendMail", "API-post-page"]
"""Denied by names, so some pass: written down, because nobody should believe otherwise."""


def test_read_only_denies_names_that_say_they_change_something() -> None:
    by = rules("read-only", tools=[{"match": "*", "allow": ["*"]}])
    assert allowed(by, READS) == READS
    assert sorted(allowed(by, WRITES)) == sorted(NOT_SEEN)


def test_a_false_alarm_of_read_only_is_lifted_for_one_tool() -> None:
    named = {"match": "list_updates", "allow": ["viewer"], "overrides_packs": True}
    assert allowed(rules("read-only", tools=[{"match": "*", "allow": ["*"]}]), ["list_updates"]) == []
    assert allowed(rules("read-only", tools=[named]), ["list_updates", "get_updates"]) == ["list_updates"]


@pytest.mark.parametrize("name", ["destructive", "read-only", "strict"])
def test_every_rule_of_a_shipped_pack_refuses_what_it_names(name: str) -> None:
    """A rule that another one hides, or that refuses nobody, would be a promise nobody keeps."""
    settings = msgspec.convert({"packs": [name]}, PolicySettings)
    (read_one,) = read_packs(settings)
    for rule in read_one.tools:
        only = msgspec.structs.replace(read_one, tools=(rule,))
        decision = Rules(msgspec.convert({"default": {"allow": ["*"]}}, PolicySettings), (only,)).decide(
            tool(rule.match.replace("*", "x")), ANN
        )
        assert isinstance(decision, Deny), rule.match
        assert decision.rule.tool_class != "read"
    assert len({rule.match for rule in read_one.tools}) == len(read_one.tools)
