"""`policy.preview`: who is newly refused or freed, by reason, before anybody merges the policy."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hardening.findings import Finding, FindingKind, Reason, ScanReport
from hardening.foundation.errors import ContentError
from hardening.foundation.process import run
from hardening.foundation.settings import ROOT, Settings
from hardening.model import Enforcement, Severity
from images.context import Context
from images.ledger import ScanRecord
from pipelines.cli.preview import judge_all, preview, show_preview
from pipelines.cli.preview_output import PreviewLine, PreviewOutput, compared
from tests.support.publishing import CHECK, REPORT, built

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
DEFAULT = (ROOT / "hardening/policies/default.toml").read_text()
STRICTER = DEFAULT.replace('severity = "medium"\nwithin = "7d"', 'severity = "medium"\nwithin = "0s"')
MILDER = DEFAULT.replace('severity = "high"\nwithin = "0s"', 'severity = "high"\nwithin = "90d"')


def hole(name: str, severity: Severity) -> Finding:
    return Finding(
        FindingKind.VULNERABILITY, name, "openssl", "3.5", "3.6", severity, (("trivy", severity),),
        fix_known_since=NOW - timedelta(days=2),
    )  # fmt: skip


@pytest.fixture
def context(tmp_path: Path) -> Context:
    """The shipped catalog; debian-base has a medium hole, debian-static a high one, and nginx was never scanned."""
    settings = Settings(state=tmp_path / "state", kinds=("container",))
    made = Context(settings, NOW, str, str)
    report: ScanReport = replace(REPORT, findings=(), data_date=NOW)
    for name, severity in (("debian-base", Severity.MEDIUM), ("debian-static", Severity.HIGH)):
        artifact = built(made.store, name, name)
        made.ledger.record_artifact(artifact)
        made.ledger.record_checks(artifact.digest, (CHECK,), NOW)
        found = (hole(f"CVE-2026-{len(name):04}", severity),)
        made.ledger.record_scan(artifact.digest, ScanRecord((report,), found), NOW)
    artifact = built(made.store, "nginx-unprivileged", "nginx")
    made.ledger.record_artifact(artifact)
    return made


def previewed(context: Context, folder: Path, text: str, name: str = "default.toml", **more: str) -> PreviewOutput:
    (folder / name).write_text(text)
    output, errors = preview(str(folder / name), context=context, **more)
    assert errors == []
    return output


def test_an_unchanged_policy_changes_nothing(context: Context, tmp_path: Path) -> None:
    """What was judged, and what was not and how it could be."""
    output = previewed(context, tmp_path, DEFAULT)
    assert output.lines == ()
    assert (output.images, output.members) == (2, 0)
    assert {"nginx-unprivileged", "node-runtime"} <= {*output.unjudged}
    assert "debian-server" not in output.unjudged, "another policy judges it"
    assert show_preview((output, []), as_json=False) == 0


def test_it_says_who_is_newly_refused_and_why(
    context: Context, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By reason; and the exit code is that of a refusal."""
    output = previewed(context, tmp_path, STRICTER)
    assert [(line.name, line.change, [one.rule for one in line.gained]) for line in output.lines] == [
        ("debian-base", "refused", ["CVE-2026-0011"])
    ]
    assert show_preview((output, []), as_json=False) == 3
    said = " ".join(capsys.readouterr().out.split())
    assert "1 image newly refused, none freed" in said
    assert "newly refused by CVE-2026-0011: images: debian-base because: CVE-2026-0011 in openssl 3.5" in said


def test_it_says_who_is_freed_and_what_is_weaker(
    context: Context, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A policy of another name is previewed in the place of one that there is."""
    output = previewed(context, tmp_path, MILDER, "draft.toml", instead_of="default")
    assert [(line.name, line.change) for line in output.lines] == [("debian-static", "freed")]
    assert any("those of severity high" in line for line in output.weaker)
    assert show_preview((output, []), as_json=False) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "freed, since no longer refused by CVE-2026-0013: images: debian-static" in said
    assert "it requires less than the present one" in said


def test_a_policy_of_no_known_name_is_an_error(context: Context, tmp_path: Path) -> None:
    """With what to type."""
    (tmp_path / "defualt.toml").write_text(DEFAULT)
    with pytest.raises(ContentError, match=r"unknown policy: defualt\n.*--instead-of .* did you mean default"):
        preview(str(tmp_path / "defualt.toml"), context=context)
    with pytest.raises(ContentError, match=r"draft.toml: image.vulnerabilties: unknown key"):
        previewed(context, tmp_path, DEFAULT.replace("image.vulnerabilities", "image.vulnerabilties"), "draft.toml",
                  instead_of="default")  # fmt: skip


def test_the_policy_in_force_is_compared_with_the_last_commit(context: Context, tmp_path: Path) -> None:
    """Whoever edits it in place sees what the pull request would do."""
    root = tmp_path / "root"
    (root / "hardening/policies").mkdir(parents=True)
    file = root / "hardening/policies/own.toml"
    file.write_text(DEFAULT)
    settings = context.settings.model_copy(update={"content": (root,)})
    settings = Settings.model_validate({**settings.model_dump(), "judging": {"roots": [root]}})
    ours = replace(context, settings=settings)
    with pytest.raises(ContentError, match="no committed version"):
        preview(str(file), context=ours)
    run(["git", "init", "-q", str(root)])
    author = ["-c", "user.name=ann", "-c", "user.email=ann@example.com"]
    run(["git", "-C", str(root), "add", "."])
    run(["git", "-C", str(root), *author, "commit", "-qm", "one"])
    file.write_text(STRICTER)
    judged_by_it = replace(ours, policy="own")
    output, errors = preview(str(file), context=judged_by_it)
    assert (output.compared_with, errors) == ("the last commit", [])
    assert [line.name for line in output.lines] == ["debian-base"]


def test_a_fleet_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """Of many fleets, on one engine, the error alone tells nobody which."""
    file = tmp_path / "content/pipelines/fleets/shop.toml"
    file.parent.mkdir(parents=True)
    replacement = 'replacement = { definition = "debian-base" }'
    file.write_text(f'title = "t"\nowner = "o"\nkind = "docker"\n{replacement}\nselector = {{ app = "shop" }}\n')
    settings = Settings(
        state=tmp_path / "state", content=(tmp_path / "content",), docker={"host": "unix:///nowhere"},
        retry_for="0s", judging={"roots": [tmp_path / "content"]},
    )  # fmt: skip
    context = Context(settings, NOW, lambda: "", lambda: "127.0.0.1:9/golden")
    (error,) = judge_all(context, (), NOW).errors
    assert error.message.startswith("shop: ")
    hosts = 'docker = { hosts = ["unix:///nowhere"] }\n'
    file.write_text(file.read_text() + hosts)
    (error,) = judge_all(context, (), NOW).errors
    assert error.message.startswith("shop: ")
    assert "could not be read" in error.message, "a host that is unread is told, too"
    assert error.message.endswith("failed: No such file or directory"), "in plain words"
    context.ledger.close()


def test_members_are_compared_as_images_are() -> None:
    """Newly refused, freed, and refused before and after for more or for fewer reasons."""

    def why(*rules: str) -> tuple[Reason, ...]:
        return tuple(Reason(rule, "web/x", Enforcement.ENFORCE, rule, "", "") for rule in rules)

    before = {"same": why("a"), "new": (), "free": why("a", "b"), "more": why("a"), "fewer": why("a", "b"), "gone": ()}
    after = {"same": why("a"), "new": why("b"), "free": (), "more": why("a", "b"), "fewer": why("b")}
    of = [{("member", f"web/{name}"): reasons for name, reasons in one.items()} for one in (before, after)]
    lines: list[PreviewLine] = list(compared(*of))
    assert {line.name: line.change for line in lines} == {
        "web/new": "refused", "web/free": "freed", "web/more": "more", "web/fewer": "fewer",
    }  # fmt: skip


def test_a_reason_that_must_be_gone_sooner_or_is_enforced_now_is_one_more() -> None:
    """And the other way round one less: the rule alone says nothing of how strict it is."""
    later = Reason("expired", "shop/web-1", Enforcement.ENFORCE, "it is expired", "because", "do", deadline=NOW)
    sooner, warned = replace(later, deadline=NOW - timedelta(days=1)), replace(later, enforcement=Enforcement.WARN)
    at_once = replace(later, deadline=None)
    cases = {
        "sooner": (later, sooner), "later": (sooner, later), "at once": (sooner, at_once), "enforced": (warned, later),
        "same": (later, later),
    }  # fmt: skip
    changes = {
        name: [line.change for line in compared({("member", "w"): (old,)}, {("member", "w"): (new,)})]
        for name, (old, new) in cases.items()
    }
    assert changes == {"sooner": ["more"], "later": ["fewer"], "at once": ["more"], "enforced": ["more"], "same": []}
