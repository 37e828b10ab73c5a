"""Who may judge: a policy that may publish is named by the settings, and is at least as strict as the floor."""

from __future__ import annotations

import os
import re
import tomllib
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardening.catalog import load_policy, require_may_publish, required_profiles
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
    data = MACHINE.model_dump(by_alias=True)
    table = data
    for part in where.split("."):
        table = table[part]
    table.update(values)
    return Policy.model_validate(data)


WEAKER = [
    ("image.judges", {"minimum": 1, "data_max_age": "8d"}, "image.judges.data_max_age: 8d"),
    ("image.judges", {"accept_sample": True}, "image.judges.accept_sample"),
    ("image.judges", {"enforcement": "warn"}, "image.judges.enforcement: warn"),
    ("image.judges", {"uncovered": "warn"}, "image.judges.uncovered: warn"),
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


def test_what_the_floor_only_records_may_be_asked_for_in_any_way() -> None:
    """The policy of docs/runtime-rules.md, with its grace and what it allows, may publish; the other way round not."""
    (text,) = re.findall(r"```toml\n(.*?)```", (ROOT / "docs/runtime-rules.md").read_text(), re.DOTALL)
    own = tomllib.loads(text)["running"]
    assert own["privileged"]["grace"]
    assert own["host_mount"]["allowed"]
    data = DEFAULT.model_dump(by_alias=True, exclude_none=True)
    asked = Policy.model_validate({**data, "running": {**data["running"], **own}})
    assert weaknesses(asked, DEFAULT, NOW.date()) == ()
    said = " ".join(weaknesses(DEFAULT, asked, NOW.date()))
    assert "running.privileged.enforcement: audit" in said
    assert "running.host_mount.enforcement: audit" in said


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
    require_may_publish((ROOT,), Judging(), "default", NOW.date())
    require_may_publish((ROOT,), Judging(), "machine", NOW.date())
    with pytest.raises(RefusedError, match="the policy demo may not publish") as refused:
        require_may_publish((ROOT,), Judging(), "demo", NOW.date())
    assert 'policies = ["demo"] and floor = "" under [judging] in goldsmith.toml' in refused.value.hint
    with pytest.raises(RefusedError, match="weaker than the policy default, which is judging") as error:
        require_may_publish((ROOT,), Judging(policies=("demo",)), "demo", NOW.date())
    assert "accept_sample" in error.value.evidence
    assert error.value.hint.endswith('demo.toml; a trial with a registry of its own sets floor = "" under [judging]')
    require_may_publish((ROOT,), Judging(policies=("demo",), floor=""), "demo", NOW.date())
    with pytest.raises(RefusedError, match=r"hint: add --policy demo, or set `policy` under \[nightly\]$"):
        require_may_publish((ROOT,), Judging(policies=("demo",), floor=""), "default", NOW.date())
    with pytest.raises(ContentError, match="unknown policy: defualt"):
        require_may_publish((ROOT,), Judging(), "defualt", NOW.date())
    for wrong, key in ((Judging(floor="flor"), "floor"), (Judging(policies=("default", "flor")), r"policies\[1\]")):
        with pytest.raises(ContentError, match=rf"goldsmith\.toml: judging\.{key}: unknown policy: flor"):
            require_may_publish((ROOT,), wrong, "default", NOW.date())


OURS = 'title = "T"\nowner = "us"\nextends = "container-base"\n'


@pytest.mark.parametrize(
    ("named", "text", "weak"),
    [
        ("", OURS, "image.controls.container: none, but the floor requires container-base"),
        ("ours", OURS, ""),
        ("ours", OURS + 'controls = [{ control = "no-shell" }]', ""),
        ("ours", OURS + '[without]\nno-setuid = "?"', "ours demands less of no-setuid than the floor's container-base"),
        (
            "ours",
            OURS + 'controls = [{ control = "no-setuid", enforcement = "warn" }]',
            "demands less of no-setuid than",
        ),
        (
            "ours",
            OURS + 'controls = [{ control = "no-setuid", params = { allow = ["/x"] } }]',
            "image.controls.container: ours gives other params to no-setuid than the floor's container-base",
        ),
        (
            "ours",
            OURS + 'controls = [{ control = "no-setuid", stages = [{ enforcement = "warn", from = 2027-01-01 }] }]',
            "demands less of no-setuid than",
        ),
    ],
)
def test_a_policy_requires_a_profile_no_laxer_than_the_floors(tmp_path: Path, named: str, text: str, weak: str) -> None:
    """Every control of it, enforced as much, with the same params, on each day to come."""
    given = (ROOT / "hardening/policies/default.toml").read_text()
    assert 'container = "container-base"' in given
    for file, content in {
        "policies/ours.toml": given.replace('container = "container-base"', f'container = "{named}"'),
        "profiles/ours.toml": text,
    }.items():
        (tmp_path / "hardening" / file).parent.mkdir(parents=True)
        (tmp_path / "hardening" / file).write_text(content)
    roots, judging = (ROOT, tmp_path), Judging(policies=("ours",), roots=(tmp_path,))
    if not weak:
        require_may_publish(roots, judging, "ours", NOW.date())
        return
    with pytest.raises(RefusedError, match="weaker than the policy default") as refused:
        require_may_publish(roots, judging, "ours", NOW.date())
    assert weak in refused.value.evidence


def test_a_policy_requires_profiles_of_roots_that_may_judge(tmp_path: Path) -> None:
    """The policy's file and key are named."""
    profiles = tmp_path / "hardening/profiles"
    profiles.mkdir(parents=True)
    (profiles / "ours.toml").write_text(OURS)
    policy = load_policy((ROOT,), "default")
    changed = policy.image.controls.model_copy(update={"machine": "ours"})
    ours = policy.model_copy(update={"image": policy.image.model_copy(update={"controls": changed})})
    for judging in ((ROOT,), (ROOT, tmp_path)):
        if tmp_path in judging:
            assert "ours" in required_profiles(judging, ours)
            continue
        where = r"hardening/policies/default\.toml: image\.controls\.machine: unknown profile: ours"
        with pytest.raises(ContentError, match=where):
            required_profiles(judging, ours)


@pytest.mark.parametrize("room", ["hardening/policies", "hardening/waivers", "pipelines/fleets", "network"])
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


def two(image: dict[str, Any], running: dict[str, Any] | None = None) -> Policy:
    """A policy with one window, and with these values."""
    data = policy().model_dump()
    windows_given = [{"severity": "high", "within": "2d", "grace": "1d"}]
    return Policy.model_validate(
        {**data, "image": {"vulnerabilities": windows_given, **image}, "running": running or {}}
    )


BENCHMARK = {"profile": "cis", "minimum_score": 90, "minimum_rules": 10}


def explained(*subjects: str) -> dict[str, Any]:
    """A benchmark that explains one rule for these definitions."""
    return {"benchmark": {**BENCHMARK, "explained": {"r1": {"reason": "r", "owner": "o", "subjects": subjects}}}}


@pytest.mark.parametrize(
    ("ours", "floor", "said"),
    [
        (two({"judges": {"minimum": 1}}), two({"judges": {"minimum": 1}}), ()),
        (
            two({"judges": {"minimum": 1, "data_max_age": "8d", "enforcement": "audit", "grace": "1d"}}),
            two({"judges": {"minimum": 2, "enforcement": "warn"}}),
            (
                "image.judges.enforcement: audit, and the floor says warn",
                "image.judges.grace: 1d, and the floor says 0s",
                "image.judges.minimum: 1, but the floor requires 2",
                "image.judges.data_max_age: 8d, and the floor accepts 7d",
            ),
        ),
        (two({"judges": {"accept_sample": True}}), two({"judges": {"accept_sample": True}}), ()),
        (
            two({"unfixed": {"grace": "1d"}, "secrets": {"enforcement": "warn"}}),
            two({"unfixed": {"enforcement": "warn"}}),
            (
                "image.unfixed.grace: 1d, and the floor says 0s",
                "image.secrets.enforcement: warn, and the floor says enforce",
            ),
        ),
        (
            two({"misconfigurations": {"enforcement": "audit"}}),
            two({}),
            ("image.misconfigurations.enforcement: audit, and the floor says warn",),
        ),
        (two({}), two({"benchmark": BENCHMARK}), ("image.benchmark.profile: none, but the floor requires cis",)),
        (two({"benchmark": BENCHMARK}), two({}), ()),
        (
            two({"benchmark": {**BENCHMARK, "profile": "other", "minimum_score": 1}}),
            two({"benchmark": BENCHMARK}),
            ("image.benchmark.profile: other, but the floor requires cis",),
        ),
        (
            two({"benchmark": {"profile": "cis", "minimum_score": 89, "minimum_rules": 9, "enforcement": "warn"}}),
            two({"benchmark": BENCHMARK}),
            (
                "image.benchmark.enforcement: warn, and the floor says enforce",
                "image.benchmark.minimum_score: 89.0, but the floor requires 90.0",
                "image.benchmark.minimum_rules: 9, but the floor requires 10",
            ),
        ),
        (
            two(explained("a", "b")),
            two({"benchmark": BENCHMARK}),
            ("image.benchmark.explained.r1: the floor does not explain it for a, b",),
        ),
        (
            two(explained("a", "b")),
            two(explained("a")),
            ("image.benchmark.explained.r1: the floor does not explain it for a, b",),
        ),
        (two(explained("a")), two(explained("a", "b")), ()),
        (two(explained("a", "b")), two(explained("*")), ()),
        (
            two({}, {"expired": {"enforcement": "warn", "grace": "2d"}}),
            two({}, {"expired": {"grace": "1d"}}),
            (
                "running.expired.enforcement: warn, and the floor says enforce",
                "running.expired.grace: 2d, and the floor says 1d",
            ),
        ),
        (
            two({}),
            two({}, {"max_age": {"limit": "60d"}, "approved_source": {}}),
            (
                "running.max_age: not asked, but the floor requires it",
                "running.approved_source: not asked, but the floor requires it",
            ),
        ),
        (
            two({}, {"max_age": {"limit": "61d"}, "approved_source": {"prefixes": ["a/", "b/"]}}),
            two({}, {"max_age": {"limit": "60d"}, "approved_source": {"prefixes": ["a/"]}}),
            (
                "running.max_age.limit: 61d, and the floor says 60d",
                "running.approved_source.prefixes: a/, b/ are not all among the floor's",
            ),
        ),
        (
            two({}, {"max_age": {"limit": "60d"}, "approved_source": {"prefixes": ["a/"]}}),
            two({}, {"max_age": {"limit": "60d"}, "approved_source": {"prefixes": ["a/", "b/"]}}),
            (),
        ),
        (two({}, {"max_age": {"limit": "60d"}}), two({}), ()),
    ],
)
def test_in_what_a_policy_is_weaker_is_told_in_full(ours: Policy, floor: Policy, said: tuple[str, ...]) -> None:
    """A line a field, with its value and the floor's; what is equal or stricter is none."""
    assert weaknesses(ours, floor) == said


def windowed(*given: dict[str, Any]) -> Policy:
    """A policy with these windows."""
    return two({"vulnerabilities": list(given)})


HIGH = {"severity": "high", "within": "2d", "grace": "1d"}


def uncovered(*severities: str, until: str = "3d") -> tuple[str, ...]:
    """What is told of a window that is missing for these, in order; exploited ones have it too."""
    return tuple(
        f"image.vulnerabilities: {which} of severity {severity}, and the floor says enforce after {until}"
        for severity in severities
        for which in ("those", "exploited ones")
    )


@pytest.mark.parametrize(
    ("ours", "floor", "said"),
    [
        ([HIGH], [HIGH], ()),
        ([{"severity": "high", "within": "3d"}], [HIGH], ()),
        ([{"severity": "low", "within": "3d"}], [HIGH], ()),
        ([{"severity": "high", "within": "3d", "grace": "1s"}], [HIGH], uncovered("critical", "high", "unknown")),
        ([{"severity": "critical", "within": "0s"}], [HIGH], uncovered("high")),
        (
            [HIGH],
            [HIGH, {"severity": "low", "exploited": True, "within": "1d"}],
            tuple(
                f"image.vulnerabilities: exploited ones of severity {severity}, and the floor says enforce after 1d"
                for severity in ("critical", "high", "medium", "low", "unknown")
            ),
        ),
    ],
)
def test_each_severity_that_the_floor_covers_needs_a_window_that_ends_no_later(
    ours: list[dict[str, Any]], floor: list[dict[str, Any]], said: tuple[str, ...]
) -> None:
    """Its time and its grace together count; an unknown severity is covered as the gravest."""
    assert weaknesses(windowed(*ours), windowed(*floor)) == said


def test_a_policy_without_a_floor_is_weak_only_where_it_has_no_window() -> None:
    """One that is enforced."""
    none = "image.vulnerabilities: no window is enforced"
    assert weaknesses(windowed(HIGH), None) == ()
    assert weaknesses(windowed(), None) == (none,)
    assert weaknesses(windowed({**HIGH, "enforcement": "warn"}), None) == (none,)


@pytest.mark.parametrize(
    ("given_windows", "severity", "exploited", "covered"),
    [
        ([{"severity": "high"}], Severity.CRITICAL, False, True),
        ([{"severity": "high"}], Severity.HIGH, False, True),
        ([{"severity": "high"}], Severity.MEDIUM, False, False),
        ([{"severity": "high"}], Severity.UNKNOWN, False, True),
        ([{"severity": "high"}, {"severity": "unknown"}], Severity.UNKNOWN, False, True),
        ([{"severity": "unknown"}], Severity.LOW, False, False),
        ([{"severity": "low", "exploited": True}], Severity.CRITICAL, False, False),
        ([{"severity": "low", "exploited": True}], Severity.LOW, True, True),
        ([{"severity": "low", "exploited": True}], Severity.UNKNOWN, True, True),
        ([{"severity": "unknown", "exploited": True}], Severity.UNKNOWN, False, False),
        ([{"severity": "unknown", "exploited": True}, {"severity": "high"}], Severity.UNKNOWN, False, True),
    ],
)
def test_which_vulnerabilities_a_window_covers(
    given_windows: list[dict[str, Any]], severity: Severity, exploited: bool, covered: bool
) -> None:
    """Its severity and worse; unknown ones by the window of that name, or as the gravest where there is none."""
    of = windowed(*given_windows)
    assert bool(windows(of, finding(severity, exploited=exploited))) is covered


def test_where_unknown_severities_have_a_window_no_other_one_covers_them() -> None:
    """But that for exploited ones."""
    of = windowed({"severity": "high"}, {"severity": "unknown", "within": "2d"}, {"severity": "low", "exploited": True})
    found = windows(of, finding(Severity.UNKNOWN))
    assert [(one.severity, one.exploited) for one in found] == [(Severity.UNKNOWN, False)]
    found = windows(of, finding(Severity.UNKNOWN, exploited=True))
    assert [(one.severity, one.exploited) for one in found] == [(Severity.UNKNOWN, False), (Severity.LOW, True)]


def test_a_share_of_reproduced_packages_is_asked_for_as_strictly_as_the_floor() -> None:
    """In percent, in enforcement and in grace; a policy may ask where the floor does not."""
    floor = changed("image", reproduced={"minimum_percent": 80, "enforcement": "warn"})

    def weaker(**more: Any) -> tuple[str, ...]:
        asked = {"minimum_percent": 80, "enforcement": "warn"} | more
        return weaknesses(changed("image", reproduced=asked), floor)

    assert weaker() == weaker(minimum_percent=90, enforcement="enforce") == ()
    assert weaker(minimum_percent=79) == ("image.reproduced.minimum_percent: 79, but the floor requires 80",)
    assert weaker(enforcement="audit") == ("image.reproduced.enforcement: audit, and the floor says warn",)
    assert weaknesses(MACHINE, floor) == ("image.reproduced: not asked, but the floor requires it",)
    assert weaknesses(floor, MACHINE) == ()
