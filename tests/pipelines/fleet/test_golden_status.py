"""How golden images stand today, by a ledger and the policies of a content root."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from hardening.findings import Actor, CheckResult, Finding, FindingKind, Outcome, ScanReport
from hardening.foundation.errors import ContentError, RefusedError
from hardening.foundation.settings import Settings
from hardening.gate import about_fix
from hardening.model import Enforcement, Severity, Waiver
from hardening.running import SHOWN
from images.artifact import Artifact, Package, Release
from images.context import Context
from images.ledger import Move, ScanRecord
from images.trust.channel_document import unread
from pipelines.fleet import golden_status
from pipelines.fleet.golden_status import GoldenStatus
from pipelines.fleet.members import Provenance
from pipelines.fleet.model import Replacement
from tests.support.fleets import NOW, fleet, judge, member, release

DAY = timedelta(days=1)
HOLE = Finding(
    FindingKind.VULNERABILITY, "CVE-2026-0001", "openssl", "3.5", "3.6", Severity.HIGH, (("trivy", Severity.HIGH),),
    fix_known_since=NOW - 5 * DAY,
)  # fmt: skip
REPORT = ScanReport("trivy", FindingKind.VULNERABILITY, Outcome.PASS, 90, NOW, "feed", "", (HOLE,))
PASSED = CheckResult("no-setuid", "No setuid", Severity.HIGH, Enforcement.ENFORCE, Outcome.PASS, "none")
FAILED = replace(PASSED, control="no-shell", outcome=Outcome.FAIL)
POLICY = """
title = "t"
owner = "o"
rationale = "r"
review_by = 2020-01-01
exception_contact = "security"
[[image.vulnerabilities]]
severity = "{severity}"
within = "1d"
[running.refused]
enforcement = "{enforcement}"
"""


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    """Three policies: `strict` covers the hole, `mild` does not, `warns` does and lets a replacement pass."""
    folder = tmp_path / "hardening" / "policies"
    folder.mkdir(parents=True)
    for name, severity, enforcement in (
        ("strict", "high", "enforce"),
        ("mild", "critical", "enforce"),
        ("warns", "high", "warn"),
    ):
        (folder / f"{name}.toml").write_text(POLICY.format(severity=severity, enforcement=enforcement))
    settings = Settings(state=tmp_path, content=[tmp_path], retry_for=timedelta(seconds=1))
    made = Context(settings, NOW, lambda: "", lambda: "")
    with closing(made.ledger):
        yield made


def status(context: Context, policy: str = "strict", *waivers: Waiver) -> GoldenStatus:
    """Of a fleet that follows this policy."""
    return GoldenStatus(fleet().model_copy(update={"policy": policy}), context, waivers, NOW)


def scanned(context: Context, golden: Release, *findings: Finding, checks: tuple[CheckResult, ...] = (PASSED,)) -> None:
    """Write down what was last said of the image's content."""
    context.ledger.record_scan(golden.content, ScanRecord((REPORT,), findings), NOW)
    context.ledger.record_checks(golden.content, checks, NOW)


def test_a_list_of_rebuilt_packages_that_grew_old_refuses_no_member(context: Context) -> None:
    """It says nothing of the image; too few of its packages that were reproduced do."""
    file = context.settings.roots[-1] / "hardening/policies/strict.toml"
    file.write_text(file.read_text() + '[image.reproduced]\nenforcement = "enforce"\nminimum_percent = 90\n')
    golden = replace(release(1, content="sha256:c"), policy="strict")
    rebuilt = replace(REPORT, scanner="reproduced", kind=FindingKind.REPRODUCTION, findings=(), reproduced=1)
    for date, refused in ((NOW - 99 * DAY, False), (NOW, True)):
        reports = (replace(REPORT, findings=()), replace(rebuilt, data_date=date))
        context.ledger.record_scan(golden.content, ScanRecord(reports, ()), NOW)
        context.ledger.record_checks(golden.content, (PASSED,), NOW)
        assert bool(status(context).refused(golden)[0]) is refused


def test_the_newest_release_over_a_content_gives_its_date(context: Context) -> None:
    """Its own where the ledger knows no other."""
    old, new = release(1, content="sha256:c"), release(5, content="sha256:c")
    assert status(context).dated(old) == old
    for one in (old, new, release(9)):
        context.ledger.record_release(one)
    assert status(context).dated(old) == new
    assert status(context).dated(None) is None


def test_a_hole_refuses_since_its_window_ended(context: Context) -> None:
    """By what was last found in the content; nothing found, or never scanned, refuses nothing."""
    golden = release(1, policy="strict")
    assert status(context).refused(golden) == ("", None)
    scanned(context, golden)
    assert status(context).refused(golden) == ("", None)
    scanned(context, golden, HOLE)
    because, since = status(context).refused(golden)
    assert because.startswith("CVE-2026-0001 in openssl 3.5: severity high (trivy)")
    assert since == NOW - 4 * DAY


def test_a_fix_that_the_policy_only_warns_of_lacks_beyond_its_deadline(context: Context) -> None:
    """For nothing refuses it then; an enforced window's end does. At no moment a known hole is nobody's."""
    folder = context.settings.roots[-1] / "hardening/policies"
    (folder / "soft.toml").write_text(
        (folder / "strict.toml").read_text().replace('within = "1d"', 'within = "1d"\nenforcement = "warn"')
    )
    for name in ("strict", "soft"):
        golden = release(1, policy=name)
        scanned(context, golden, HOLE)
        for days in (-5, -4.5, -4, 0, 400):
            at = replace(status(context), now=NOW + days * DAY)
            over = name == "strict" and days >= -4
            assert bool(at.refused(golden)[0]) is over
            assert len(at.lacking(golden)) == (0 if over else 1)


def test_of_many_fixes_a_sentence_names_the_first(context: Context) -> None:
    """And says how many more there are: it stands in the reasons of each member."""
    golden = release(1, policy="strict")
    many = [replace(HOLE, id=f"CVE-2026-{number:04}", fix_known_since=NOW) for number in range(50)]
    scanned(context, golden, *many)
    told = status(context).provenance(golden, None, None).lacks
    assert (told.count("CVE-2026-"), told[-13:]) == (SHOWN, "; and 44 more")


def test_what_has_no_moment_of_its_own_refuses_since_the_publication(context: Context) -> None:
    """Of several reasons the first moment counts, and all are told."""
    golden = release(1, policy="strict")
    scanned(context, golden, checks=(PASSED, FAILED))
    because, since = status(context).refused(golden)
    assert because.startswith("control no-shell (high) does not hold")
    assert since == golden.published_at
    later = replace(HOLE, id="CVE-2026-0002", fix_known_since=NOW - 2 * DAY)
    scanned(context, golden, HOLE, later, checks=(PASSED, FAILED))
    because, since = status(context).refused(golden)
    assert because.splitlines()[0].startswith(about_fix(HOLE.id, HOLE.package))
    assert [part.split()[0] for part in because.splitlines() if part.startswith(("CVE", "control"))] == [
        "CVE-2026-0001", "CVE-2026-0002", "control",
    ]  # fmt: skip
    assert since == NOW - 4 * DAY


def test_what_comes_from_a_base_is_told_so_and_accepted_by_the_bases_waiver(context: Context) -> None:
    """One waiver that is inherited spares every member on every child, and nothing that a child brings itself."""
    golden = release(1, policy="strict", name="shop")
    scanned(context, golden, HOLE)
    for name, digest, parent in (("shop", golden.content, "sha256:base"), ("debian-base", "sha256:base", "")):
        packages = (Package("openssl", "3.5", "amd64", "ab"),)
        artifact = Artifact(name, "linux/amd64", digest, digest, {"parent": parent}, packages, NOW, NOW)
        context.ledger.record_artifact(artifact)
    waiver = Waiver.model_validate(
        {
            "id": "w", "vulnerabilities": ["CVE-2026-0001"], "packages": ["openssl"], "subjects": ["debian-base"],
            "inherited": True, "reason": "r", "owner": "a", "approver": "b", "created": (NOW - DAY).date(),
            "expires": (NOW + DAY).date(),
        }
    )  # fmt: skip
    assert status(context).refused(golden)[0].endswith("; it comes from debian-base")
    assert status(context, "strict", waiver).refused(golden) == ("", None)
    scanned(context, golden, replace(HOLE, installed="3.6"))
    assert status(context, "strict", waiver).refused(golden)[0]


def test_a_changed_policy_stands_in_the_place_of_its_name(context: Context) -> None:
    """For a look at what it would change; the content root has what it had."""
    golden = release(1, policy="strict")
    scanned(context, golden, HOLE)
    milder = context.by_policy(context.policy_named("mild"), "strict")
    assert status(milder).refused(golden) == ("", None)
    assert status(milder).forbidden(golden) == ""
    assert status(context).forbidden(golden)
    warning = context.by_policy(context.policy_named("warns"), "strict")
    assert (status(warning).forbidden(golden), bool(status(warning).refused(golden)[0])) == ("", True)


def test_what_is_not_the_images_fault_refuses_no_member(context: Context) -> None:
    """That nobody looked lately, at all, or at the policy: it is for those who scan, not for those who run."""
    golden = release(1, policy="strict")
    context.ledger.record_scan(golden.content, ScanRecord((replace(REPORT, data_date=NOW - 99 * DAY),), ()), NOW)
    context.ledger.record_checks(golden.content, (), NOW)
    assert status(context).refused(golden) == ("", None)


def test_a_waived_hole_does_not_refuse(context: Context) -> None:
    """The fleet's waivers are asked for the image by its name."""
    golden = release(1, policy="strict")
    scanned(context, golden, HOLE)
    waiver = Waiver.model_validate(
        {
            "id": "w",
            "vulnerabilities": (HOLE.id,),
            "packages": (HOLE.package,),
            "subjects": (golden.name,),
            "reason": "r",
            "owner": "a",
            "approver": "b",
            "created": NOW.date(),
            "expires": NOW.date() + DAY,
        }
    )
    assert status(context, "strict", waiver).refused(golden) == ("", None)
    other = waiver.model_copy(update={"subjects": ("httpd",)})
    assert status(context, "strict", other).refused(golden)[1] is not None


def test_an_image_is_judged_by_the_policy_that_it_was_published_by(context: Context) -> None:
    """By the one that was asked for instead, and by the fleet's where its own is no more."""
    golden = release(1, policy="mild")
    scanned(context, golden, HOLE)
    assert status(context).refused(golden) == ("", None)
    asked = replace(context, policy="strict")
    with closing(asked.ledger):
        assert status(asked, "mild").refused(golden)[0] != ""
    gone = replace(golden, policy="gone")
    assert status(context, "strict").refused(gone)[0] != ""
    assert status(context, "mild").refused(gone) == ("", None)


def test_a_replacement_is_forbidden_where_the_fleets_policy_enforces_it(context: Context) -> None:
    """Where it only warns, also until the day from which it enforces, it may become a member."""
    folder = context.settings.roots[-1] / "hardening/policies"
    for name, days in (("begun", 0), ("coming", 1)):
        from_then = f"{(folder / 'strict.toml').read_text()}from = {(NOW + days * DAY).date()}\n"
        (folder / f"{name}.toml").write_text(from_then)
    golden = release(1, policy="strict")
    scanned(context, golden, HOLE)
    assert status(context, "strict").forbidden(golden) == status(context, "strict").refused(golden)[0] != ""
    forbidden = [name for name in ("warns", "begun", "coming") if status(context, name).forbidden(golden)]
    assert forbidden == ["begun"]


def test_a_channel_left_a_content_when_it_first_moved_on_from_it(context: Context) -> None:
    """Later moves, and moves to a release of the same content, change nothing."""
    old, redated, new, newest = (
        release(1, content="sha256:c"), release(2, content="sha256:c"), release(3), release(4),
    )  # fmt: skip
    for one in (old, redated, new, newest):
        context.ledger.record_release(one)

    def left() -> datetime | None:
        return status(context).left_at(old, newest)

    def move(to: Release, at: datetime, channel: str = "stable") -> None:
        context.ledger.record_move(Move(newest.repository, channel, to.digest, at, ""))

    assert left() is None
    assert status(context).left_at(old, None) is None
    move(old, NOW - 9 * DAY)
    move(redated, NOW - 8 * DAY)
    move(new, NOW - 7 * DAY)
    move(newest, NOW - 6 * DAY)
    move(old, NOW - 5 * DAY, "edge")
    assert left() == NOW - 7 * DAY
    move(redated, NOW - 4 * DAY)
    assert left() is None
    context.ledger.record_move(Move(newest.repository, "stable", "sha256:unknown", NOW - 3 * DAY, ""))
    assert left() == NOW - 3 * DAY


@dataclass(frozen=True)
class Kept(GoldenStatus):
    """A status whose channel names one release, or is unread."""

    named: Release | None = None

    def pointed(self, name: str) -> Release | None:
        if self.named is None:
            raise unread(f"r.example/{name}", "there is no signed document of them")
        return self.named


def kept(context: Context, named: Release | None) -> Kept:
    of = fleet(replacement={"definition": "nginx"}).model_copy(update={"policy": "strict"})
    return Kept(of, context, (), NOW, named)


WHERE = "r.example/nginx"


def test_a_channel_that_names_another_definitions_release_is_refused(context: Context) -> None:
    """With what does: whoever may write there could let a fleet run anything of ours."""
    with pytest.raises(RefusedError, match=f"what {WHERE}:stable points to calls itself httpd"):
        kept(context, release(2, name="httpd")).channel("nginx", WHERE)


def test_a_channel_that_is_unread_costs_its_members_alone(context: Context) -> None:
    """Their image is unread, with the reason and what to do; a base's channel is asked as an own one's is."""
    old, new = release(1, policy="strict"), release(2)
    for one in (old, new):
        context.ledger.record_release(one)
    context.ledger.record_move(Move(WHERE, "stable", new.digest, NOW - DAY, ""))
    for ours in ((old, None), (None, old)):
        assert kept(context, new).by_channel(*ours, WHERE) == Provenance(*ours, new, NOW - DAY)
        found = kept(context, None).by_channel(*ours, WHERE)
        assert (found.release, found.base, found.latest) == (*ours, None)
        assert found.unread.startswith(f"the channels of {WHERE} are unread: there is no signed document of them; ")
        assert "./goldsmith image.sign-channels nginx" in found.unread
    assert kept(context, None).by_channel(None, None, WHERE) == Provenance()


def test_who_asks_nobody_knows_nothing(context: Context) -> None:
    """A registry or a cloud tells where an image comes from, and what a channel names."""
    assert status(context).unasked(member()) == Provenance()
    assert status(context).channel("nginx", WHERE) is None


def test_what_it_stands_on_revokes_a_golden_image(context: Context) -> None:
    """As a revocation of itself, or of its content, does."""
    base, golden = release(1, name="debian-base"), release(2)
    for one in (base, golden):
        context.ledger.record_release(one)
    on_it = replace(golden, base_name=base.repository, base_digest=base.digest)
    assert status(context).told(on_it) == on_it
    context.ledger.record_release(replace(base, revoked_at=NOW, revoked_reason="a hole"))
    assert status(context).told(on_it).revoked_reason == "its base debian-base was revoked: a hole"
    assert status(context).told(golden) == golden


def test_many_members_of_one_image_cost_one_look(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fleet of thousands runs a few images: one look at what runs, one at what replaces it."""
    golden, looks = release(1, policy="strict", name="shop"), list[str]()
    scanned(context, golden, HOLE)
    for name in ("scan", "checks", "moves"):
        asks = getattr(context.ledger, name)
        monkeypatch.setattr(context.ledger, name, lambda *of, asks=asks, name=name: looks.append(name) or asks(*of))
    monkeypatch.setattr(golden_status, "find_content", lambda *_: looks.append("profile") or {})
    at = status(context)
    first = at.provenance(golden, None, release(2))
    assert at.provenance(golden, None, release(2)) is first
    assert sorted(looks) == ["checks", "moves", "profile", "scan", "scan"]
    at.provenance(golden, None, None)
    assert sorted(looks) == ["checks", "moves", "profile", "scan", "scan"], "of the same image nothing is judged again"
    other = replace(golden, content="sha256:other")
    scanned(context, other, HOLE)
    assert at.refused(other)[0]
    assert looks.count("profile") == 1
    assert at.refused(replace(golden, policy="mild")) == ("", None)
    assert at.refused(golden)[0]


def test_of_the_fixes_that_are_not_in_it_the_first_due_is_first(context: Context) -> None:
    """They have been known since the first was; what is accepted, or refused already, is not among them."""
    golden = release(1, policy="strict")
    ids = {"CVE-2026-0004": 0.5, "CVE-2026-0002": 0.25, "CVE-2026-0003": 0.25, "CVE-2026-0001": 9}
    scanned(context, golden, *(replace(HOLE, id=one, fix_known_since=NOW - days * DAY) for one, days in ids.items()))
    at = status(context)
    assert [one.what[:13] for one in at.lacking(golden)] == ["CVE-2026-0004", "CVE-2026-0002", "CVE-2026-0003"]
    found = at.provenance(golden, None, None)
    assert [part[:13] for part in found.lacks.split("; ") if part.startswith("CVE")] == [
        "CVE-2026-0004", "CVE-2026-0002", "CVE-2026-0003",
    ]  # fmt: skip
    assert (found.lacks_since, found.lacks_until) == (NOW - DAY / 2, NOW + DAY / 2)
    assert found.refused_because.startswith("CVE-2026-0001")


def test_where_an_image_comes_from_is_told_with_what_is_known_of_its_golden_image(context: Context) -> None:
    """Of a base as of a release of its own; without either nothing is known."""
    old, new = release(1, policy="strict"), release(2)
    scanned(context, old, HOLE)
    for one in (old, new):
        context.ledger.record_release(one)
    context.ledger.record_move(Move(new.repository, "stable", new.digest, NOW - DAY, ""))
    at = status(context)
    because, since = at.refused(old)
    assert because
    assert at.provenance(old, None, new) == Provenance(old, None, new, NOW - DAY, because, since)
    assert at.provenance(None, old, new) == Provenance(None, old, new, NOW - DAY, because, since)
    assert at.provenance(None, None, new) == Provenance()


@pytest.mark.parametrize("better", [True, False])
def test_a_replacement_with_the_same_hole_is_not_offered(context: Context, *, better: bool) -> None:
    """The image is built again first, by its owner; where the newer release lacks the hole, the member is replaced."""
    old, new = release(1, policy="strict"), release(2, policy="strict")
    scanned(context, old, HOLE)
    scanned(context, new, *() if better else (HOLE,))
    origin = status(context).provenance(old, None, new)
    policy = context.policy_named("strict")
    [reason] = [one for one in judge("web", policy, member(), origin, (), NOW).reasons if one.rule == "refused"]
    assert reason.remedy is not None
    assert reason.remedy.actor is (Actor.FLEET if better else Actor.IMAGE)
    assert reason.todo == (
        "replace it: `./goldsmith roll.plan web` shows how, and what to type next"
        if better
        else "no release that replaces it is better: `./goldsmith image.publish nginx` builds it again, and "
        "image.promote moves its channel; then `./goldsmith roll.plan web`"
    )
    on_base = judge("web", policy, member(), replace(origin, release=None, base=old), (), NOW).reasons
    [again] = [one for one in on_base if one.rule == "refused"]
    build = "build its image on the newest nginx if it is not yet, then `./goldsmith roll.plan web`"
    assert again.todo == (build if better else reason.todo)


def test_a_channel_without_a_release_is_told_with_what_would_fill_it(context: Context) -> None:
    """In the fleet's file the key is named."""
    at, golden = status(context), release(1)
    at = replace(at, fleet=at.fleet.model_copy(update={"replacement": Replacement(definition="debian-base")}))
    assert at.required(golden) is golden
    with pytest.raises(ContentError) as refused:
        at.required(None)
    assert str(refused.value) == (
        f"pipelines/fleets/{at.fleet.name}.toml: replacement: debian-base has no release in the channel stable\n"
        "  hint: first ./goldsmith image.publish debian-base, then ./goldsmith image.promote debian-base"
    )
    at = replace(at, fleet=at.fleet.model_copy(update={"replacement": Replacement(definition="debian-bsae")}))
    with pytest.raises(ContentError, match=r"replacement\.definition: debian-bsae is not a definition") as refused:
        at.required(None)
    assert "debian-base" in refused.value.hint
    assert str(refused.value).startswith(f"pipelines/fleets/{at.fleet.name}.toml: ")


STAGED = """
title = "t"
owner = "o"
controls = [
    { control = "no-setuid" },
    { control = "no-shell", enforcement = "warn", stages = [{ enforcement = "enforce", from = %s }] },
]
"""
OWN = 'title = "t"\nowner = "o"\nkind = "container"\nprofile = "own"\nhealthcheck = { none_because = "of a test" }\n'


def test_a_control_counts_as_the_profile_of_the_definition_asks_for_it_today(context: Context, tmp_path: Path) -> None:
    """From the day on which its stage begins a member is refused, as its image is, whatever held when it was built."""
    golden = release(1, policy="strict", name="shop")
    scanned(context, golden, checks=(PASSED, FAILED))
    profile, image = tmp_path / "hardening/profiles/own.toml", tmp_path / "images/definitions/shop/image.toml"
    for file in (profile, image):
        file.parent.mkdir(parents=True)
    image.write_text(OWN + '[base]\nbootstrap = { family = "debian", suite = "trixie" }\n')
    for days, refused in ((1, False), (0, True)):
        profile.write_text(STAGED % (NOW + days * DAY).date())
        because, _ = status(context).refused(golden)
        assert ("no-shell" in because) is refused
    profile.write_text('title = "t"\nowner = "o"\ncontrols = [{ control = "no-setuid" }]\n')
    assert status(context).refused(golden) == ("", None), "what is asked for no longer does not count"
    image.write_text("nonsense = 1\n")
    assert "no-shell" in status(context).refused(golden)[0], "as it was asked for when it was checked"


def test_a_control_that_only_the_policy_requires_refuses_a_member(context: Context, tmp_path: Path) -> None:
    """Whatever the profile of the definition leaves out, or enforces less."""
    golden = release(1, policy="strict", name="shop")
    scanned(context, golden, checks=(PASSED, replace(FAILED, control="no-world-writable")))
    profile, image = tmp_path / "hardening/profiles/own.toml", tmp_path / "images/definitions/shop/image.toml"
    for file in (profile, image):
        file.parent.mkdir(parents=True)
    image.write_text(OWN + '[base]\nbootstrap = { family = "debian", suite = "trixie" }\n')
    for entry in ('"no-setuid" }', '"no-setuid" }, { control = "no-world-writable", enforcement = "audit" }'):
        profile.write_text(f'title = "t"\nowner = "o"\ncontrols = [{{ control = {entry}]\n')
        assert "no-world-writable" in status(context).refused(golden)[0]
