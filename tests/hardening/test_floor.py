"""Who may judge: a policy that may publish is named by the settings, and is at least as strict as the floor."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardening.catalog import load_policy, require_may_publish
from hardening.foundation.errors import ContentError, RefusedError
from hardening.foundation.settings import ROOT, Judging, Settings, load_settings
from hardening.gate import judge_image, windows
from hardening.model import Enforcement, Severity
from hardening.policy import FixWindow, Policy, weaknesses
from tests.hardening.test_gate import NOW, finding, judged, policy, report

MACHINE = load_policy((ROOT,), "machine")
DEFAULT = load_policy((ROOT,), "default")


def changed(where: str, **values: Any) -> Policy:
    """The machines' policy with other values in one of its tables."""
    data = MACHINE.model_dump()
    table = data
    for part in where.split("."):
        table = table[part]
    table.update(values)
    return Policy.model_validate(data)


WEAKER = [
    ("image.judges", {"minimum": 1, "data_max_age": "8d"}, "image.judges.data_max_age: 8d"),
    ("image.judges", {"accept_sample": True}, "image.judges.accept_sample"),
    ("image.judges", {"enforcement": "warn"}, "image.judges.enforcement: warn"),
    ("image.unfixed", {"grace": "1d"}, "image.unfixed.grace"),
    ("image.secrets", {"enforcement": "warn"}, "image.secrets.enforcement: warn"),
    ("image.misconfigurations", {"enforcement": "audit"}, "image.misconfigurations.enforcement: audit"),
    ("image.benchmark", {"minimum_score": 94}, "image.benchmark.minimum_score: 94"),
    ("image.benchmark", {"minimum_rules": 299}, "image.benchmark.minimum_rules: 299"),
    ("image.benchmark", {"profile": "cis_level2_server"}, "image.benchmark.profile: cis_level2_server"),
    ("image.benchmark", {"enforcement": "warn"}, "image.benchmark.enforcement: warn"),
    ("image", {"benchmark": None}, "image.benchmark.profile: none"),
    (
        "image.benchmark.explained", {"sshd_limit_user_access": {"reason": "r", "owner": "o"}},
        "image.benchmark.explained.sshd_limit_user_access",
    ),
    (
        "image.benchmark.explained.sysctl_net_ipv4_conf_all_forwarding", {"subjects": ["container-host", "bastion"]},
        "image.benchmark.explained.sysctl_net_ipv4_conf_all_forwarding",
    ),
    ("image", {"vulnerabilities": ()}, "image.vulnerabilities: no window is enforced"),
    ("running.expired", {"grace": "2d"}, "running.expired.grace: 2d"),
    ("running.revoked", {"enforcement": "warn"}, "running.revoked.enforcement: warn"),
    ("running.max_age", {"limit": "61d"}, "running.max_age.limit: 61d"),
    ("running", {"max_age": None}, "running.max_age: not asked"),
    ("running.approved_source", {"prefixes": ["evil.example.com/"]}, "running.approved_source.prefixes"),
]  # fmt: skip


@pytest.mark.parametrize(("where", "values", "said"), WEAKER, ids=[said for *_, said in WEAKER])
def test_each_field_that_is_weaker_is_named(where: str, values: dict[str, Any], said: str) -> None:
    """By its place in the file; the policy itself, and what is stricter, is no weaker."""
    assert any(line.startswith(said) for line in weaknesses(changed(where, **values), MACHINE))
    assert weaknesses(MACHINE, changed(where, **values)) == () or "profile" in values or "vulnerabilities" in values


def test_what_ships_is_no_weaker_than_the_floor_and_the_demo_is() -> None:
    """The policy for machines asks for more than the default."""
    assert weaknesses(MACHINE, DEFAULT) == weaknesses(DEFAULT, DEFAULT) == ()
    assert "image.judges.accept_sample: true, and the floor does not accept the sample" in weaknesses(
        load_policy((ROOT,), "demo"), DEFAULT
    )
    assert any(line.startswith("image.benchmark.profile: none") for line in weaknesses(DEFAULT, MACHINE))


windows_ = st.lists(
    st.builds(
        FixWindow,
        severity=st.sampled_from(Severity),
        exploited=st.booleans(),
        enforcement=st.sampled_from(Enforcement),
        within=st.sampled_from([timedelta(), timedelta(days=2), timedelta(days=7)]),
        grace=st.sampled_from([timedelta(), timedelta(days=1)]),
    ),
    max_size=4,
)


@given(windows_, windows_, st.sampled_from(Severity), st.booleans(), st.integers(0, 10))
def test_what_the_floor_refuses_a_policy_that_is_no_weaker_refuses(
    ours: list[FixWindow], floor: list[FixWindow], severity: Severity, exploited: bool, days: int
) -> None:
    """For any windows, any finding and any age of its fix: so the comparison means what the gate does."""
    strict, loose = policy(vulnerabilities=ours), policy(vulnerabilities=floor).model_copy(update={"name": "floor"})
    if weaknesses(strict, loose):
        return
    found = finding(severity=severity, exploited=exploited, fix_known_since=NOW - timedelta(days=days))
    assert windows(strict, found) or not windows(loose, found)
    refused = {by.name: {r.rule for r in judged(found, by=by).refusals} for by in (strict, loose)}
    assert found.id in refused[strict.name] or found.id not in refused[loose.name]


def test_a_policy_without_a_window_lets_nothing_through() -> None:
    """Neither its own leniency nor a waiver changes that; one that only warns is none."""
    for windows_given in ([], [{"severity": "low", "enforcement": "warn"}]):
        verdict = judge_image(policy(vulnerabilities=windows_given), "web", None, [report()], (), (), NOW)
        assert not verdict.allowed
        assert [reason.rule for reason in verdict.refusals] == ["policy-window"]


def test_only_a_policy_that_the_settings_name_may_publish() -> None:
    """The demo's may judge; to publish by it, both its name and another floor must stand in the settings."""
    require_may_publish((ROOT,), Judging(), "default")
    require_may_publish((ROOT,), Judging(), "machine")
    with pytest.raises(RefusedError, match="the policy demo may judge, but not publish") as refused:
        require_may_publish((ROOT,), Judging(), "demo")
    assert 'policies = ["demo"] and floor = "" under [judging] in goldsmith.toml' in refused.value.hint
    with pytest.raises(RefusedError, match="weaker than the policy default, which is judging") as error:
        require_may_publish((ROOT,), Judging(policies=("demo",)), "demo")
    assert "accept_sample" in error.value.evidence
    require_may_publish((ROOT,), Judging(policies=("demo",), floor=""), "demo")


@pytest.mark.parametrize("room", ["hardening/policies", "hardening/waivers", "pipelines/fleets"])
def test_a_content_root_adds_rules_only_where_the_settings_name_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: str
) -> None:
    """The first file of it is named, with what to set; images and controls any root may add."""
    root, settings = tmp_path / "more", tmp_path / "goldsmith.toml"
    for name in [name for name in os.environ if name.startswith("GOLDSMITH_")]:
        monkeypatch.delenv(name)
    (root / "hardening/controls").mkdir(parents=True)
    settings.write_text(f'content = ["{root}"]\n')
    assert load_settings(settings).content == (root,)
    (root / room).mkdir(parents=True)
    (root / room / "x.toml").write_text("")
    with pytest.raises(ContentError, match=f"{room}/x.toml: the settings let this content root add none") as error:
        load_settings(settings)
    assert f'[judging] roots = ["{root}"]' in error.value.hint
    settings.write_text(f'content = ["{root}"]\n[judging]\nroots = ["{root}"]\n')
    assert load_settings(settings).judging.roots == (root,)
    settings.write_text(f'[judging]\nroots = ["{root}"]\n')
    with pytest.raises(ContentError, match=r"judging\.roots\[0\]: .* is not among `content`"):
        load_settings(settings)


def test_the_defaults_are_strict() -> None:
    """Two policies may publish, the floor is the default's, and no further root adds rules."""
    assert Settings().judging == Judging(policies=("default", "machine"), floor="default", roots=())


def test_of_two_windows_that_are_as_strict_the_one_that_ends_first_gives_the_deadline() -> None:
    """Whoever reads the later date would be refused before it."""
    given_windows = [
        {"severity": "high", "within": "7d"}, {"severity": "low", "exploited": True, "within": "1d"},
        {"severity": "medium", "within": "3d"},
    ]  # fmt: skip
    [reason] = judged(finding(exploited=True, fix_known_since=NOW), by=policy(vulnerabilities=given_windows)).reasons
    assert reason.deadline == NOW + timedelta(days=1)


def test_a_windows_grace_is_added_to_its_time() -> None:
    """Within both there is a warning, after both a refusal."""
    waits = policy(vulnerabilities=[{"severity": "high", "within": "1d", "grace": "2d"}])
    for days, allowed in ((2, True), (3, False)):
        verdict = judged(finding(fix_known_since=NOW - timedelta(days=days)), by=waits)
        assert verdict.allowed is allowed
        assert verdict.reasons[0].deadline == NOW + timedelta(days=3 - days)
