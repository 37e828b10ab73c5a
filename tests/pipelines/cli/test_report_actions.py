"""Who must act: also for what a night refused or failed with, and for definitions that do not load."""

from __future__ import annotations

import json
from copy import copy
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from hardening.findings import FindingKind, Outcome, Reason, ScanReport, Verdict
from hardening.foundation.errors import ContentError, GoldsmithError, OutsideError, RefusedError, UsageError
from hardening.foundation.settings import Nightly, Settings
from hardening.model import Enforcement, Severity
from images.context import Context
from images.ledger import FleetCheck, ScanRecord
from pipelines.cli.open_points import OpenPoint, open_points
from pipelines.cli.page import render_html
from pipelines.cli.report import gather, write_report
from pipelines.cli.report_actions import actions_of, ending_of
from pipelines.cli.report_output import FleetReport, NightFailure, ReportOutput
from pipelines.contract import NightlyLine, NightlyOutput
from pipelines.fleet.judged_state import JudgedState
from pipelines.nightly.model import ImageJob, NightOrder, NightRecord, ended_with, image_failed, stopped_by
from pipelines.nightly.summary import output
from tests.pipelines.cli.test_page_data import fix
from tests.pipelines.cli.test_report import Page, image, member, report, scanner
from tests.support.fleets import release
from tests.support.loop import Goldsmith
from tests.support.publishing import built

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
IMAGE = """title = "t"
owner = "shop"
kind = "{kind}"
profile = "container-base"
smoke = ["true"]
base = {{ golden = "debian-base" }}
healthcheck = {{ none_because = "of a test" }}
"""


CODES = {"refused": 3, "failed": 4, "kept": 4}


def night(*lines: tuple[str, ...], at: datetime = NOW - HOUR) -> NightlyOutput:
    """A night with lines of kind, name, status, detail, and what stopped them; what failed is of the outside."""
    told = tuple(
        NightlyLine(
            kind=kind, name=name, status=status, detail=detail, seconds=0, stopped_by=(*rest, "")[0],
            exit_code=CODES.get(status, 0),
        )
        for kind, name, status, detail, *rest in lines
    )  # fmt: skip
    return NightlyOutput(
        started_at=at, ended_at=at, built=(), published=(), promoted=(), lines=told, summary="s", exit_code=3, report=""
    )


def context_of(folder: Path, now: datetime = NOW, **more: Any) -> Context:
    """A context over a ledger of its own, and its content root."""
    content = folder / "content"
    content.mkdir(exist_ok=True)
    settings = Settings(state=folder / "state", content=(content,), kinds=("container",))
    return Context(settings, now, lambda: "", lambda: "", lenient=True, **more)


def said(found: ReportOutput) -> list[tuple[str, str]]:
    """Who acts and why, without what fleets have to do."""
    return [(one.owner, one.what) for one in found.actions]


REFUSED = (
    ("image", "debian-base", "refused", "no control holds"),
    ("image", "nginx-unprivileged", "failed", "its base debian-base was refused", "debian-base"),
    ("image", "python-runtime", "failed", "its base debian-base was refused", "debian-base"),
    ("image", "debian-static", "failed", "the registry does not answer"),
    ("index", "trixie", "failed", "the mirror does not answer"),
    ("feeds", "trixie", "kept", "no newer data: kev"),
)


def test_what_a_night_refused_or_failed_with_is_somebodys_to_mend(tmp_path: Path) -> None:
    """An image that was never judged, since it was refused while it was verified, is not forgotten; nor is a mirror."""
    found = gather(context_of(tmp_path), night(*REFUSED))
    at = "in the night of 2026-11-25 11:00 UTC"
    assert said(found) == [
        ("platform", f"debian-base refused {at}: no control holds; nothing was done for images based on it: "
         "nginx-unprivileged, python-runtime"),
        ("the operator", f"debian-static failed {at}: the registry does not answer"),
        ("the operator", f"index trixie failed {at}: the mirror does not answer"),
        ("the operator", f"feeds trixie kept old data {at}: no newer data: kev"),
    ]  # fmt: skip
    text = " ".join(Page(render_html(found)).text.split())
    assert "Nothing to do" not in text
    assert "not judged refused in the night of 2026-11-25" in text
    assert "4refused or failed" in text


@pytest.mark.parametrize(
    ("error", "in_summary", "on_page", "todo"),
    [
        (UsageError("x"), "Goldsmith's maintainers", "Goldsmith's maintainers", "report this"),
        (ContentError("x"), "the author of the content", "platform", "./goldsmith image.publish debian-base"),
        (RefusedError("x"), "the owner", "platform", "./goldsmith image.publish debian-base"),
        (OutsideError("x"), "the operator", "the operator", "./goldsmith doctor"),
    ],
)
def test_the_night_and_the_page_name_the_same(
    error: GoldsmithError, in_summary: str, on_page: str, todo: str, tmp_path: Path
) -> None:
    """By the exit code; the page names the owner that the file of an image names. What a base stopped is not theirs."""
    order = NightOrder("night-1", NOW - HOUR)
    base = image_failed(ImageJob(order, "debian-base"), error)
    images = (base, stopped_by("debian-static", base))
    made = output(NightRecord(order, (), images, (ended_with("index", "trixie", error),), NOW))
    (duty,) = made.must_act
    assert (duty.who, duty.exit_code, duty.parts) == (in_summary, made.exit_code, ("image debian-base", "index trixie"))
    actions = {one.what.partition(" in the night")[0]: one for one in gather(context_of(tmp_path), made).actions}
    ended = base.action
    assert actions.keys() == {f"debian-base {ended}", f"index trixie {ended}"}
    assert actions[f"debian-base {ended}"].owner == on_page
    assert actions[f"debian-base {ended}"].todo.startswith(todo)
    assert actions[f"index trixie {ended}"].owner == in_summary


def test_many_images_with_one_reason_are_one_action(tmp_path: Path) -> None:
    """Such as a policy that may not publish."""
    names = ("debian-base", "debian-static", "node-runtime")
    found = gather(context_of(tmp_path), night(*(("image", name, "refused", "the policy may not") for name in names)))
    assert [what.partition(" refused")[0] for _, what in said(found)] == [", ".join(names)]


def test_a_report_by_hand_still_knows_the_last_night(tmp_path: Path) -> None:
    """Otherwise `report` would say in the morning that there is nothing to do."""
    write_report(context_of(tmp_path), night(*REFUSED))
    found = gather(context_of(tmp_path, NOW + HOUR))
    assert len(found.night_failures) == len(REFUSED)
    assert len(said(found)) == 4
    assert found.night is not None
    assert "The night of 2026-11-25 11:00 UTC" in render_html(found)


def test_a_night_about_some_images_says_nothing_of_the_others(tmp_path: Path) -> None:
    """What it was not about stays as it was; what it was about, and the whole machine's, is as it says."""
    write_report(context_of(tmp_path), night(*REFUSED))
    later = night(("image", "debian-static", "unchanged", ""), at=NOW + HOUR)
    found = gather(context_of(tmp_path, NOW + 2 * HOUR), later)
    assert [one.name for one in found.night_failures] == ["debian-base", "nginx-unprivileged", "python-runtime"]


def test_what_was_released_since_is_mended_and_what_is_gone_is_nobodys(tmp_path: Path) -> None:
    """A publication by hand after the night; a definition that was removed."""
    context = context_of(tmp_path)
    write_report(context, night(("image", "debian-base", "failed", "x"), ("image", "removed", "failed", "x")))
    assert [one.name for one in gather(context).night_failures] == ["debian-base"]
    context.ledger.record_release(release(1, name="debian-base", published_at=NOW - 2 * HOUR))
    assert [one.name for one in gather(context).night_failures] == ["debian-base"], "one of before mends nothing"
    context.ledger.record_release(release(2, name="debian-base", published_at=NOW))
    assert gather(context).night_failures == ()


def test_a_fleet_that_failed_is_its_owners_until_it_is_well(tmp_path: Path) -> None:
    """By the last check."""
    context = context_of(tmp_path)
    fleets = tmp_path / "content/pipelines/fleets"
    fleets.mkdir(parents=True)
    (fleets / "shop.toml").write_text(
        'title = "t"\nowner = "web"\nkind = "docker"\nselector = { a = "b" }\nreplacement = { tag = "r/app:1" }\n'
    )
    found = gather(context, night(("fleet", "shop", "refused", "no day is left")))
    assert ("web", "shop refused in the night of 2026-11-25 11:00 UTC: no day is left") in said(found)
    context.ledger.record_check(FleetCheck("shop", NOW, []))
    found = gather(context, night(("fleet", "shop", "failed", "the engine does not answer")))
    assert len(found.night_failures) == 1, "where no member runs nothing is known to be well"
    assert "no member" in " ".join(Page(render_html(found)).text.split("Members")[-1].split())


def test_a_fleet_that_failed_and_has_no_file_now_is_told_until_the_next_night(tmp_path: Path) -> None:
    """It may have been left half rolled; nothing else on the page names it."""
    context = context_of(tmp_path)
    gone = "fleet shop, whose file is gone refused in the night of 2026-11-25 11:00 UTC: no day is left"
    assert said(gather(context, night(("fleet", "shop", "refused", "no day is left")))) == [("the owner", gone)]
    write_report(context, night(("fleet", "shop", "refused", "no day is left")))
    assert said(gather(context)) == [("the owner", gone)]
    assert said(gather(context, night(("image", "debian-base", "unchanged", ""), at=NOW))) == []


def test_images_that_stop_each_other_are_both_told(tmp_path: Path) -> None:
    """Lines of two nights, between which a base and its child changed places."""
    bases = {"debian-base": "debian-static", "debian-static": "debian-base"}
    found = gather(context_of(tmp_path), night(*(("image", one, "failed", "x", base) for one, base in bases.items())))
    assert [what.partition(" failed")[0] for _, what in said(found)] == ["debian-base, debian-static"]


@pytest.mark.parametrize(
    ("status", "at", "once"), [("refused", NOW, True), ("refused", NOW + HOUR, False), ("failed", NOW, False)]
)
def test_the_gates_reasons_stand_once_with_what_they_stop(status: str, at: datetime, once: bool) -> None:
    """The line of the night that asked the gate says no more; one of a later night, or of another failure, does."""
    reason = Reason("r", "web", Enforcement.ENFORCE, "a hole", "why", "mend")
    failures = (
        NightFailure(at=at, kind="image", name="web", status=status, detail="no", exit_code=3),
        NightFailure(at=at, kind="image", name="app", status="failed", detail="-", stopped_by="web", exit_code=3),
    )
    made = report(
        image(owner="o", allowed=False, reasons=(reason,), judged_at=NOW), image("app", owner="p"),
        night_failures=failures,
    )  # fmt: skip
    below = "; nothing was done for images based on it: app"
    told = [(one.owner, one.what) for one in actions_of(made, {})]
    assert told[0] == ("o", f"web refused: a hole{below}")
    assert told[1:] == ([] if once else [("o", f"web {status} in the night of {at:%Y-%m-%d %H:%M} UTC: no{below}")])


@pytest.mark.parametrize("waits_for", ["publication", "rollout"])
@pytest.mark.parametrize("refused", [False, True])
def test_one_vulnerability_has_the_same_owners_in_both_lists(waits_for: str, *, refused: bool) -> None:
    """Of a fix that no image has, the image's; of one that members lack, their fleets'; a refusal says it already."""
    fleets = {"shop": "web team", "bank": "bank"}
    publish = {"acts": "platform", "todo": "./goldsmith image.publish nginx"} if waits_for == "publication" else {}
    fixes = [
        fix(name=name, **{"acts": owner, "todo": f"./goldsmith roll.start {name}", "waits_for": waits_for} | publish)
        for name, owner in fleets.items()
    ]
    hole = Reason("CVE-1", "nginx", Enforcement.ENFORCE, "openssl: CVE-1", "why", "rebuild")
    made = report(
        image("nginx", owner="platform", reasons=(hole,) if refused else ()),
        open_points=open_points(fixes, JudgedState(made_at=NOW, fleets=())),
        members=tuple(member(f"{name}/web-1", state="out of policy", rules=("vulnerable",)) for name in fleets),
        fleets=tuple(
            FleetReport(name=name, owner=owner, checked_at=NOW, said="1 of 1 member(s) vulnerable", reasons=())
            for name, owner in fleets.items()
        ),
    )
    steps = {(step.acts, step.todo) for point in made.open_points for step in point.steps}
    actions = actions_of(made, {})
    assert {owner for owner, _ in steps} == ({"platform"} if publish else {"web team", "bank"})
    lists = {(one.owner, one.todo) for one in actions if one.what == "open fixes of nginx: openssl: CVE-1"}
    refusals = {(one.owner, one.todo) for one in actions if one.what == "nginx refused: openssl: CVE-1"}
    assert lists == (set() if refused and publish else steps)
    assert refusals == ({("platform", "rebuild")} if refused else set())
    assert len(actions) == len(lists | refusals)


def broken(folder: Path) -> None:
    """A definition with a wrong value, and one that stands on it."""
    for name, text in {
        "shop-broken": IMAGE.format(kind="contaner"),
        "shop-web": IMAGE.format(kind="container").replace("debian-base", "shop-broken"),
    }.items():
        made = folder / "content/images/definitions" / name
        made.mkdir(parents=True)
        (made / "image.toml").write_text(text)


def test_a_definition_that_does_not_load_is_named_beside_all_others(tmp_path: Path) -> None:
    """With its owner, as far as that can be read."""
    broken(tmp_path)
    found = gather(context_of(tmp_path))
    file = tmp_path / "content/images/definitions/shop-broken/image.toml"
    problem = f"{file}: kind: must be 'container' or 'machine', not 'contaner'"
    assert said(found) == [("shop", f"shop-broken, shop-web cannot be built: {problem}")]
    assert {one.name: one.problem for one in found.images if one.problem} == {
        "shop-broken": problem,
        "shop-web": problem,
    }
    assert "debian-base" in {one.name for one in found.images}
    assert Page(render_html(found)).text.count("does not load") == 2


@pytest.mark.parametrize("form", ["", "--json", "--form=csv"])
def test_report_reports_the_rest_and_ends_with_2(form: str, tmp_path: Path) -> None:
    """One slip in one file must not hide what all others need; nor may it pass."""
    broken(tmp_path)
    goldsmith = Goldsmith(tmp_path / "state", "unix:///nonexistent/docker.sock", (tmp_path / "content",))
    done = goldsmith.here("report", *([form] if form else []))
    assert done.code == 2
    assert "shop-broken/image.toml: kind: must be" in done.err
    match form:
        case "--json":
            assert "debian-base" in {one["name"] for one in json.loads(done.out)["images"]}
        case "":
            assert "shop-broken" in Path(done.out.strip()).read_text()
        case _:
            assert done.out.startswith("fleet,owner,member")


def test_a_trial_is_told_from_what_the_definition_asks_for(tmp_path: Path) -> None:
    """By page, release and JSON: a verdict of another policy, and scanners that knew the sample alone."""
    context = context_of(tmp_path)
    artifact = built(context.store, "debian-base")
    context.ledger.record_artifact(artifact)
    context.ledger.record_release(release(1, name="debian-base", content=artifact.digest))
    for policy, sample in (("default", False), ("demo", True)):
        context.ledger.record_verdict(artifact.digest, Verdict("debian-base", policy, NOW, True, ()))
        context.ledger.record_scan(artifact.digest, ScanRecord((scanner("debsecan", sample=sample),), ()), NOW)
        found = gather(context)
        base = next(one for one in found.images if one.name == "debian-base")
        text = " ".join(Page(render_html(found)).text.split())
        evidence = " ".join(found.releases[0].evidence)
        assert base.trial == ("allowed by demo trial sample" in text) == ("a trial" in evidence) == sample
        by_nights = copy(context)
        by_nights.__dict__["settings"] = context.settings.model_copy(update={"nightly": Nightly(policy="demo")})
        assert not next(one for one in gather(by_nights).images if one.name == "debian-base").trial
        assert base.by_sample == ("not known to be good: debian-base" in text) == ("by a sample" in evidence) == sample


@pytest.mark.parametrize(
    ("scanners", "unknown"),
    [
        ((), True),
        ((scanner("a", sample=True),), True),
        ((scanner("a", Outcome.NOT_EVALUATED),), True),
        ((scanner("a", sample=True), scanner("b")), False),
        ((ScanReport("s", FindingKind.SECRET, Outcome.PASS, 1, None, "", ""),), True),
    ],
)
def test_what_no_scanner_looked_for_is_not_nothing(scanners: tuple[ScanReport, ...], unknown: bool) -> None:
    """The first of the four questions says so, and is not green."""
    html = render_html(report(image(scanners=scanners)))
    assert ('<b class="warn">nothing known</b>' in html) == ("What web lacks is not known" in html) == unknown
    assert ('<b class="good">nothing</b>' in html) == (not unknown)


def test_an_open_fix_ends_once() -> None:
    """Newer data brings it before a verdict has a reason for it; then there is a reason for each package."""
    due = NOW + 24 * HOUR
    point = OpenPoint(
        kind="image", name="web", rule="fix", lacks="curl, libcurl4t64: CVE-1", members=3, since=NOW, due=due,
        acts="web team", todo="./goldsmith image.publish web", vulnerability="CVE-1", severity=Severity.HIGH,
    )  # fmt: skip
    reasons = tuple(
        Reason("CVE-1", "web", Enforcement.WARN, f"CVE-1 in {package} 8.14", "", "", deadline=due)
        for package in ("curl", "libcurl4t64")
    )
    for judged in ((), reasons):
        found = report(image(owner="shop", reasons=judged), open_points=(point,))
        ends = [(one.at, one.what, one.owner) for one in ending_of(found, {})]
        assert ends == [(due, "the deadline to fix it in web: curl, libcurl4t64: CVE-1", "shop")]
