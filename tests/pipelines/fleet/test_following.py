"""A fleet on an image of others: what its tag names is taken once it was seen for long enough, and never before."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest

from hardening.foundation.errors import ContentError, OutsideError, RefusedError
from hardening.foundation.settings import ROOT
from hardening.policy import Policy, RunningRules
from hardening.runtime import ContainerFacts, Observed
from images.documents import to_json
from images.ledger import CommandRow
from images.plan.cooldown import Sight, Sights, take
from images.registry.client import Manifest, RegistryClient
from images.registry.references import one_repository, qualified
from images.registry.release_trust import require_upstream_trusted
from images.trust.keys import pem_of, signer
from images.trust.verification import UntrustedError
from pipelines.cli.check_output import member_lines
from pipelines.cli.rollout import _seen, exit_code, scan_exit_code
from pipelines.cli.rollout_output import heading, roll_output
from pipelines.fleet.docker import following
from pipelines.fleet.docker.provenance import ProvenanceReader
from pipelines.fleet.members import Changes, Followed, Member, Provenance, ReplacementImage, Seen
from pipelines.fleet.model import Fleet
from pipelines.fleet.violations import Judged, facts
from pipelines.rollout import rollout_store
from pipelines.rollout.plan import plan, refuse_target
from pipelines.rollout.session import FleetSession, check
from pipelines.rollout.state import Command, RolloutStage, RolloutState
from tests.images.plan.test_locking import CVE, distribution
from tests.images.plan.test_upstream import STATUS, debian, publish
from tests.support.archive import Archive
from tests.support.catalogs import NOW, Catalog, entry
from tests.support.fleets import fleet as fleet_of
from tests.support.fleets import judge, reason, release
from tests.support.signing import sign_release

DAY, HOUR = timedelta(days=1), timedelta(hours=1)
POLICY = Policy.model_validate(
    {
        "name": "p", "title": "t", "owner": "o", "review_by": "2027-01-01", "rationale": "r", "exception_contact": "c",
        "running": {"superseded": {"enforcement": "enforce"}},
    }
)  # fmt: skip
DRIFT = POLICY.model_copy(
    update={"running": RunningRules.model_validate({"changed_files": {"enforcement": "enforce"}})}
)
needs_registry = pytest.mark.needs("docker-registry", "skopeo", "apt-get", "gpg")


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    return distribution(tmp_path_factory.mktemp("distribution"))


class Town:
    """A tag of others that moves, and a fleet that follows it."""

    def __init__(self, folder: Path, address: str, archive: Archive) -> None:
        self.folder, self.repository, self.pushed = folder, f"{address}/{folder.name}", 0
        self.tag = f"{self.repository}:1.27"
        self.catalog, self.one_run = Catalog(folder / "catalog", archive), False
        self.context = self.catalog.context()
        assert not self.context.tag_looks

    def push(self, status: str = STATUS) -> str:
        """Let the tag name another image; its digest."""
        self.pushed += 1
        files = debian(number=str(self.pushed)) | {"var/lib/dpkg/status": status}
        return publish(self.folder / str(self.pushed), self.tag, files, created="2001-01-01T00:00:00Z")

    def fleet(self, **more: Any) -> Fleet:
        return fleet_of(replacement={"follow": self.tag, **more})

    def reader(self, after: timedelta = timedelta(0), **more: Any) -> ProvenanceReader:
        context = self.context.moved(NOW + after) if self.one_run else self.catalog.context(NOW + after)
        registry = RegistryClient(self.repository.partition("/")[0], context.settings)
        return ProvenanceReader(self.fleet(**more), context, (), NOW + after, registry)

    def runs(self, digest: str, image: str = "") -> Member:
        return Member("host/local/docker/web-1", "web-1", "one", image or self.tag, (digest,), since=NOW - 30 * DAY)

    def violations(self, digest: str, after: timedelta, **more: Any) -> list[str]:
        """What a member that runs a digest violates by then: the rule, and what it says."""
        member = self.runs(digest, more.pop("image", ""))
        found = judge("web", POLICY, member, self.reader(after, **more).of(member), (), NOW + after)
        return [reason.rule for reason in found.reasons]

    def require_signed(self, prefix: str, *signed: str) -> None:
        """Let the policy require a signer who has signed these digests, and nothing else that is there."""
        public = Path(ROOT, "docs/trust.md").read_text().partition('public = """')[2].partition('"""')[0]
        registry = RegistryClient(self.repository.partition("/")[0], self.catalog.settings)
        for digest in signed:
            sign_release(registry, self.repository, digest)
            public = pem_of(signer(registry.settings, datetime.now(UTC).date()).public)
        rule = f'\n[[trust.upstream]]\nprefix = "{prefix}"\n[[trust.upstream.keys]]\nname = "k"\n'
        policy = self.catalog.root / "hardening/policies/default.toml"
        policy.write_text(policy.read_text() + rule + f'public = """{public}"""\n')

    def target(self, after: timedelta, **more: Any) -> ReplacementImage:
        return self.reader(after, **more).target()

    def session(self, after: timedelta, *digests: str) -> FleetSession:
        """The fleet as another process opens it then, with a member for each digest."""
        members = tuple(
            replace(self.runs(one), id=f"host/local/docker/web-{number}", name=f"web-{number}")
            for number, one in enumerate(digests)
        )
        context, fleet = self.catalog.context(NOW + after).by_policy(POLICY, "default"), self.fleet()
        registry = RegistryClient(self.repository.partition("/")[0], context.settings)
        port: Any = SimpleNamespace(describe=lambda: members, changes=lambda *_: Changes())
        return FleetSession(
            fleet, context, port, lambda: NOW + after, "",
            lambda waivers, at: ProvenanceReader(fleet, context, waivers, at, registry), lambda: Seen(members),
        )  # fmt: skip


@pytest.fixture
def town(tmp_path: Path, registry: str, archive: Archive) -> Town:
    return Town(tmp_path, registry, archive)


@needs_registry
def test_a_newer_digest_is_taken_once_its_cooldown_is_over(town: Town) -> None:
    """From our own first sight of it; until then the older one is within policy, and nothing is rolled."""
    first = town.push()
    assert (town.violations(first, timedelta(0)), town.target(HOUR).digest) == ([], first)
    second = town.push()
    assert (town.violations(first, DAY), town.violations(second, DAY)) == ([], [])
    waits = town.target(DAY + HOUR)
    assert (waits.digest, waits.followed) == (second, True)
    with pytest.raises(RefusedError, match=r"is not taken: it waits out its cooldown until 2026-11-29 12:00 UTC"):
        refuse_target(town.fleet(), waits, NOW + DAY + HOUR)
    assert (town.violations(first, 4 * DAY), town.violations(second, 4 * DAY)) == (["superseded"], [])
    taken = town.target(4 * DAY)
    assert taken == ReplacementImage(f"{town.repository}@{second}", second, None, followed=True)
    refuse_target(town.fleet(), taken, NOW + 4 * DAY)
    member = town.runs(first)
    found = judge("web", POLICY, member, town.reader(4 * DAY).of(member), (), NOW + 5 * DAY)
    (reason,) = found.reasons
    assert reason.since == NOW + 4 * DAY, "when it could be taken, not when it was pushed"
    made = plan(town.fleet(), [found], taken, NOW + 5 * DAY)
    assert [step.member.name for step in made.steps] == ["web-1"]


@needs_registry
def test_an_older_one_is_taken_where_it_stood_and_nobody_goes_back(town: Town) -> None:
    """While the newest waits, what the tag named for long enough before is what members become."""
    first = town.push()
    town.target(timedelta(0))
    second = town.push()
    town.target(DAY)
    town.target(3 * DAY)  # it stood for two days
    third = town.push()
    assert town.target(4 * DAY).digest == second
    assert town.violations(first, 4 * DAY + HOUR) == ["superseded"]
    assert town.violations(third, 4 * DAY + HOUR) == [], "who runs the newest already is not taken back"


@needs_registry
def test_a_fix_of_an_exploited_hole_does_not_wait(town: Town) -> None:
    """By what the fleet was last seen running, and by versions of the distribution's own archive."""
    first = town.push()
    town.target(timedelta(0))
    town.catalog.tell({"glibc": {CVE: entry("2.41-13")}}, [CVE])
    context = town.catalog.context(NOW)
    context.ledger.seen_fleet("web", {"web-1": first}, NOW)
    second = town.push()
    assert town.target(DAY).refused_because, "it leaves the hole open"
    fixed = town.push(STATUS.replace("2.41-12", "2.41-13"))
    assert town.violations(first, 2 * DAY) == ["superseded"]
    assert (town.target(2 * DAY).digest, fixed != second) == (fixed, True)


@needs_registry
def test_a_plan_that_was_approved_yesterday_is_carried_out_and_nothing_seen_is_forgotten(town: Town) -> None:
    """It is planned again as of the moment at which it was made. A look that was dated so would be that of a clock
    which went back.
    """
    first = town.push()
    town.target(timedelta(0))
    second = town.push()
    town.target(DAY)
    made = town.session(5 * DAY, first).plan(())
    assert (made.plan.target.digest, [step.member.name for step in made.plan.steps]) == (second, ["web-0"])
    assert [step.member.name for step in town.session(6 * DAY, first).same(made).plan.steps] == ["web-0"]
    assert town.target(6 * DAY + HOUR).waits == ""
    town.push()
    town.target(6 * DAY + 2 * HOUR)
    again = town.session(6 * DAY + 3 * HOUR, first).same(made)
    assert (again.plan.target.digest, len(again.plan.steps)) == (second, 1), "the newest one waits"


@needs_registry
def test_who_runs_the_newest_is_not_taken_back_for_another_reason(town: Town) -> None:
    """As one that has drifted: what may be taken is older, and may have the hole that the newest one closes."""
    town.push()
    town.target(timedelta(0))
    second = town.push()
    town.target(DAY)
    town.target(3 * DAY)
    third, now = town.push(), NOW + 5 * DAY
    target = town.target(5 * DAY)
    assert target.digest == second
    member = town.runs(third)
    found = town.reader(5 * DAY).of(member)
    made = plan(town.fleet(), [Judged(member, found, (reason("revoked"), reason("changed_files")))], target, now)
    assert (made.steps, [one.why for one in made.skipped]) == (
        (), [f"{target.reference} is older than what it runs, which the tag named later"],
    )  # fmt: skip
    made = plan(town.fleet(), [Judged(member, found, (reason("changed_files"),))], target, now)
    assert [step.target and step.target.digest for step in made.steps] == [third]


@needs_registry
def test_who_has_drifted_is_rolled_onto_what_it_runs_while_the_newer_one_waits(town: Town) -> None:
    """Each onto its own image. Who is merely to be given a newer one waits for that."""
    first = town.push()
    town.target(timedelta(0))
    second = town.push()
    town.target(DAY)
    at = town.session(DAY + HOUR, first, second, second)
    target, origins = at.world().target, at.origins()
    members = at.members.describe()
    whys = (reason("foreign_processes"), reason("changed_files"), reason("refused"))
    judged = [Judged(one, origins.of(one), (why,)) for one, why in zip(members, whys, strict=True)]
    made = plan(town.fleet(), judged, target, at.now())
    own = {
        digest: ReplacementImage(f"{town.repository}@{digest}", digest, None, followed=True)
        for digest in (first, second)
    }
    assert target.waits
    assert {step.member.name: step.target for step in made.steps} == {"web-0": own[first], "web-1": own[second]}
    assert set(made.targets) == set(own.values())
    assert [(one.member.rpartition("/")[2], one.why) for one in made.skipped] == [
        ("web-2", f"{target.reference} is not taken: {target.waits}")
    ]
    at.refuse(own[first])
    seen = roll_output(made)
    assert any(line.startswith("web-0: onto the image that it runs, ") for line in heading(seen))
    assert seen.replacement in {one.reference for one in own.values()}, "nothing becomes what waits"


@needs_registry
def test_an_approved_plan_onto_the_same_image_is_refused_once_the_newer_one_may_be_taken(town: Town) -> None:
    """It is another image than the one that was approved; until then exactly that plan is carried out."""
    first = town.push()
    town.target(timedelta(0))
    town.push()
    town.target(DAY)
    drifted = ContainerFacts(changed=("changed /etc/passwd",))

    def session(after: timedelta) -> FleetSession:
        found = town.session(after, first)
        (member,) = found.members.describe()
        seen = {member.id: Observed("container", drifted)}
        return replace(found, context=found.context.by_policy(DRIFT, "default"), observe=lambda _: seen)

    made = session(2 * DAY).plan(())
    assert [step.target and step.target.digest for step in made.plan.steps] == [first]
    later = session(2 * DAY + HOUR)
    assert [step.target and step.target.digest for step in later.same(made).plan.steps] == [first]
    (member,) = later.members.describe()
    state: Any = SimpleNamespace(target=made.plan.steps[0].target, adopt=())
    assert later.left_alone(state, member) == ""
    with pytest.raises(RefusedError) as refused:
        session(4 * DAY + HOUR).same(made)
    assert "web-0 was to become" in refused.value.evidence
    town.require_signed(town.repository)
    with pytest.raises(UntrustedError):
        session(2 * DAY + HOUR).plan(())


@needs_registry
def test_who_would_run_an_image_again_that_is_not_signed_is_left_alone(town: Town) -> None:
    """With the reason; the others are rolled. An approved plan that would roll it is refused with that difference."""
    first = town.push()
    town.target(timedelta(0))
    second = town.push()
    town.target(DAY)
    drifted = Observed("container", ContainerFacts(changed=("changed /etc/passwd",)))

    def session() -> FleetSession:
        found = town.session(2 * DAY, first, second)
        seen = {one.id: drifted for one in found.members.describe()}
        return replace(found, context=found.context.by_policy(DRIFT, "default"), observe=lambda _: seen)

    approved = session().plan(())
    assert [step.member.name for step in approved.plan.steps] == ["web-0", "web-1"]
    town.require_signed(town.repository, second)
    made = session().plan(()).plan
    assert [step.member.name for step in made.steps] == ["web-1"]
    [left] = made.skipped
    assert left.member.endswith("/web-0")
    assert f"{town.tag} is not trusted (" in left.why
    with pytest.raises(RefusedError) as refused:
        session().same(approved)
    assert "web-0 is to be replaced by the plan, and not by the fleet's file" in refused.value.evidence


@needs_registry
def test_who_has_drifted_is_not_rolled_onto_its_image_once_that_must_not_run(town: Town) -> None:
    """Right before its turn as when it is planned: the policy may approve other registries by then."""
    first = town.push()
    town.target(timedelta(0))
    town.push()
    town.target(DAY)
    at = town.session(2 * DAY, first)
    (member,) = at.members.describe()
    drifted = {member.id: Observed("container", ContainerFacts(changed=("changed /etc/passwd",)))}

    def by(**running: Any) -> FleetSession:
        rules = RunningRules.model_validate({"changed_files": {"enforcement": "enforce"}, **running})
        policy = POLICY.model_copy(update={"running": rules})
        return replace(at, context=at.context.by_policy(policy, "default"), observe=lambda _: drifted)

    (step,) = by().plan(()).plan.steps
    order: Any = SimpleNamespace(target=step.target, adopt=())
    assert by().left_alone(order, member) == ""
    others = by(approved_source={"enforcement": "enforce", "prefixes": ["registry.example.com"]})
    assert "its own image must not run again: approved_source" in others.left_alone(order, member)
    assert others.plan(()).plan.steps == ()


@needs_registry
@pytest.mark.parametrize("how", ["rollback", "told", "failed"])
def test_what_went_back_is_not_taken_again_by_itself(town: Town, how: str) -> None:
    """Goldsmith cannot change what a tag of others names, so each night would roll it forward again. A person may, and
    once that went well it is as good as any. What failed once is tried once more.
    """
    first = town.push()
    town.target(timedelta(0))
    town.push()
    town.target(DAY)
    at = town.session(5 * DAY, first)
    ledger, target = at.context.ledger, at.world().target

    def ended(rollout: str, day: int, failure: str = "") -> None:
        state = RolloutState(rollout, "web", target.reference, NOW, 1, RolloutStage.ENDED, failure=failure)
        ledger.begin_rollout(rollout, "web", "me", {}, NOW + day * DAY)
        ledger.save_rollout(rollout, to_json(state), NOW + day * DAY, is_open=False)

    def planned() -> tuple[int, str]:
        made = at.plan((), automated=True).plan
        return len(made.steps), "".join(one.why for one in made.skipped)

    assert planned() == (1, "")
    if how == "rollback":
        ended("web-1", 1)
        ended("web-1-back", 2)
        said = "web-1-back took it back"
    elif how == "told":
        ended("web-1", 1, "rollback: asked by a person")
        ledger.give_command(CommandRow("web-1", Command.ROLLBACK, "ann", NOW + DAY))
        said = "web-1 took it back"
    else:
        ended("web-1", 1, "it answers 500")
        assert planned() == (1, "")
        ended("web-2", 2, "it answers 500")
        said = "web-1 and web-2 failed with it"
    said = f"{target.reference} is not taken: {said}; ./goldsmith roll.start web rolls to it anyway"
    assert planned() == (0, said)
    assert len(at.plan(()).plan.steps) == 1
    ended("web-3", 3)
    assert planned() == (1, "")
    ended("web-4", 4, "another one")
    newer = replace(target, reference=f"{town.repository}@sha256:{1:064x}", digest=f"sha256:{1:064x}")
    assert rollout_store.why_not_again(ledger, "web", newer) == ""


@needs_registry
def test_the_cooldown_is_the_fleets_own(town: Town) -> None:
    """Else the setting's."""
    first = town.push()
    town.target(timedelta(0))
    second = town.push()
    assert town.target(DAY, cooldown="0s").digest == second
    assert town.violations(first, DAY, cooldown="1d") == []
    assert town.violations(first, 2 * DAY, cooldown="1d") == ["superseded"]


@needs_registry
def test_an_image_of_another_repository_is_unknown(town: Town) -> None:
    """Following a tag says nothing of what else carries the fleet's labels."""
    digest = town.push()
    assert town.violations(digest, timedelta(0), image=f"{town.repository}-evil:1.27") == ["unknown"]


@needs_registry
def test_one_look_serves_a_minute_of_a_rollout(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each member is judged again before its step: the registry is not asked for each."""
    asked = list[str]()
    heads = following.Heads.digest
    monkeypatch.setattr(following.Heads, "digest", lambda self, tag: asked.append(tag) or heads(self, tag))
    digest, town.one_run = town.push(), True
    for seconds in (0, 20, 59):
        assert town.target(timedelta(seconds=seconds)).digest == digest
    assert asked == [town.tag]
    town.target(timedelta(seconds=60))
    assert asked == [town.tag] * 2
    town.one_run = False
    town.target(timedelta(seconds=61))
    assert asked == [town.tag] * 3, "a command looks for itself"


@needs_registry
def test_an_image_of_others_is_asked_for_once_however_many_members_are_judged_again(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Public registries count each manifest that they give, and a rollout judges each member again."""
    asked, find = list[str](), RegistryClient.find

    def counted(self: RegistryClient, reference: str) -> Manifest | None:
        asked.append(reference)
        return find(self, reference)

    monkeypatch.setattr(RegistryClient, "find", counted)
    digest = town.push()
    fleet, context = town.fleet(), town.context
    for number in range(3):
        ours = RegistryClient("registry.invalid", context.settings)
        seen = ProvenanceReader(fleet, context, (), NOW, ours).of(town.runs(digest))
        assert seen.followed
        assert (len(asked), set(asked)) == (1, {f"{town.repository}@{digest}"}), number


@needs_registry
def test_what_the_newest_closes_is_asked_once_in_a_look(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may fetch images and an index."""
    first, asked = town.push(), list[str]()
    town.target(timedelta(0))
    town.catalog.context(NOW).ledger.seen_fleet("web", {"web-1": first}, NOW)
    town.push()
    monkeypatch.setattr(following, "closed_by", lambda *_: asked.append("") or ("CVE-1",))
    town.one_run = True
    for seconds in (0, 20, 40):
        assert town.target(DAY + timedelta(seconds=seconds)).waits == ""
        assert town.violations(first, DAY + timedelta(seconds=seconds)) == ["superseded"]
    assert len(asked) == 1


@needs_registry
def test_what_runs_is_kept_by_the_digest_that_its_registry_knows(town: Town) -> None:
    """Many engines call it by an id of their own first, by which no hole in it could be looked for."""
    first = town.push()
    town.target(timedelta(0))
    own = f"sha256:{9:064x}"
    for digests, kept in (((own, first), first), ((own, f"sha256:{8:064x}"), f"sha256:{8:064x}"), ((own,), own)):
        at = town.session(HOUR, first)
        members = (replace(town.runs(first), digests=digests),)
        check(replace(at, seen=lambda members=members: Seen(members)))  # type: ignore[misc]
        assert at.context.ledger.running_digests() == {kept: ("web/web-1",)}


@needs_registry
def test_what_a_base_was_first_pinned_to_waits_all_the_same(town: Town) -> None:
    """The first pin of a base waits for nothing, for nothing was there before; what runs already can wait."""
    digest = town.push()
    town.context.ledger.look_at_tag(town.tag, [digest], NOW, settled={digest})
    assert "waits out its cooldown" in town.target(HOUR).waits


@needs_registry
def test_a_member_is_known_by_the_digest_that_it_was_started_by(town: Town) -> None:
    """Some runtimes tell the digest of the part for their platform: it would be rolled to the same image for ever."""
    digest, part = town.push(), f"sha256:{7:064x}"
    town.target(timedelta(0))
    assert town.violations(part, 4 * DAY, image=f"{town.repository}@{digest}") == []
    member = town.runs(part, f"{town.repository}@{digest}")
    made = plan(town.fleet(), [Judged(member, Provenance(), (reason("max_age"),))], town.target(4 * DAY), NOW + 4 * DAY)
    assert ["has no newer digest yet" in one.why for one in made.skipped] == [True]


@needs_registry
def test_a_registry_that_cannot_be_asked_again_breaks_off_no_rollout(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was seen in this run serves for hours, and for no other run."""
    digest, town.one_run = town.push(), True
    town.target(timedelta(0))

    def refused(*_: object) -> str:
        raise OutsideError("it asks to be left alone")

    monkeypatch.setattr(following.Heads, "digest", refused)
    assert town.target(5 * HOUR).digest == digest
    with pytest.raises(OutsideError):
        town.target(6 * HOUR)
    town.one_run = False
    with pytest.raises(OutsideError):
        town.target(HOUR)


@needs_registry
def test_a_tag_that_is_gone_or_cannot_be_asked_is_an_error(town: Town) -> None:
    """Never "within policy"."""
    with pytest.raises((ContentError, OutsideError)):
        town.target(timedelta(0))
    with pytest.raises((ContentError, OutsideError)):
        town.violations(f"sha256:{1:064x}", timedelta(0))


@needs_registry
def test_a_registry_that_does_not_answer_leaves_the_rest_judged(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    """Age by our own earlier looks, and how it runs; the image is unread, which is never compliant. Nothing is rolled
    by that, nothing pruned, and the registry is asked once for all members of a repository.
    """
    first = town.push()
    town.target(timedelta(0))
    asked = list[str]()

    def silent(_: object, tag: str) -> str:
        asked.append(tag)
        raise OutsideError(f"{tag} does not answer")

    monkeypatch.setattr(following.Heads, "digest", silent)
    at = town.session(200 * DAY, first, first, f"sha256:{5:064x}")
    policy = town.catalog.root / "hardening/policies/default.toml"
    policy.write_text(policy.read_text() + '\n[running.changed_files]\nenforcement = "enforce"\n')
    drifted = Observed("container", ContainerFacts(changed=("changed /etc/passwd",)))
    members = at.members.describe()
    at = replace(at, context=town.catalog.context(NOW + 200 * DAY), observe=lambda _: {members[0].id: drifted})
    found = check(at)
    assert [(one.member.name, sorted(one.rules - {"approved_source"})) for one in found] == [
        ("web-0", ["changed_files", "max_age", "unread"]), ("web-1", ["max_age", "unread"]), ("web-2", ["unread"]),
    ]  # fmt: skip
    assert all("approved_source" in one.rules for one in found), "where it was pulled from is known"
    assert asked == [town.tag]
    lines = member_lines(found)
    assert (exit_code(lines), scan_exit_code([_seen("web", found[0])])) == (4, 4)
    assert lines[0].reasons[0].what == f"its image could not be read: {town.tag} does not answer"
    assert _seen("web", found[1]).why == f"{town.tag} does not answer"
    assert at.context.ledger.fleet_checks()["web"].at == at.now()
    assert not at.context.ledger.running_digests()
    for strict in (lambda: check(at, strict=True), lambda: at.plan(())):
        with pytest.raises(OutsideError):
            strict()


@needs_registry
def test_an_image_that_a_rule_wants_signed_must_be(town: Town) -> None:
    """Before the plan, and again before each act."""
    digest = town.push()
    taken = town.target(timedelta(0))
    town.require_signed(town.repository)
    with pytest.raises(UntrustedError):
        town.target(HOUR)
    with pytest.raises(UntrustedError):
        town.reader(HOUR).again(replace(taken, digest=digest))


def test_a_rule_is_about_an_image_however_it_is_written() -> None:
    """Who leaves out Docker Hub's name does not get around who signs its images."""
    assert qualified("nginx:1.27") == "docker.io/library/nginx:1.27"
    assert qualified("team/app@sha256:1") == "docker.io/team/app@sha256:1"
    assert qualified("registry.example.com:5000/app:1") == "registry.example.com:5000/app:1"
    assert qualified("index.docker.io/nginx:1.27") == "docker.io/library/nginx:1.27"
    assert qualified("Registry.Example.com:443/app:1") == "registry.example.com/app:1"


@needs_registry
@pytest.mark.parametrize(
    "written",
    ["nginx:1", "library/nginx:1", "docker.io/library/nginx:1", "index.docker.io/nginx", "docker.io./library/nginx"],
)
def test_a_rule_for_docker_hub_is_about_its_short_names(town: Town, written: str) -> None:
    """Nothing is asked of Docker Hub: the rule alone refuses what has no signature here."""
    town.require_signed("docker.io/library/nginx")
    registry = RegistryClient(town.repository.partition("/")[0], town.catalog.settings)
    with patch("images.registry.release_trust.bundles", return_value=()), pytest.raises(UntrustedError):
        require_upstream_trusted(registry, written, f"sha256:{1:064x}", NOW)


@needs_registry
@pytest.mark.parametrize("prefix", ["nginx", "library/nginx", "docker.io/library/nginx"])
@pytest.mark.parametrize("written", ["nginx:1.27", "docker.io/library/nginx:1.27"])
def test_a_rule_by_a_short_name_is_about_the_whole_one_too(town: Town, prefix: str, written: str) -> None:
    """However either is written."""
    town.require_signed(prefix)
    registry = RegistryClient(town.repository.partition("/")[0], town.catalog.settings)
    with patch("images.registry.release_trust.bundles", return_value=()), pytest.raises(UntrustedError):
        require_upstream_trusted(registry, written, f"sha256:{1:064x}", NOW)
    assert not require_upstream_trusted(registry, "registry.example.com/nginx:1.27", f"sha256:{1:064x}", NOW)


@needs_registry
@pytest.mark.parametrize("image", ["{digest}", "{number}"])
def test_a_member_made_from_a_bare_image_id_is_superseded_by_the_tag_too(town: Town, image: str) -> None:
    """It was within policy for ever: an id names no repository. Its digest is one that the tag has named."""
    first = town.push()
    image = image.format(digest=first, number=first.removeprefix("sha256:")[:12])
    assert town.violations(first, timedelta(0), image=image) == []
    second = town.push()
    assert town.violations(first, DAY, image=image) == [], "the newer one waits out its cooldown"
    after = DAY + town.context.settings.cooldown
    assert town.violations(first, after, image=image) == ["superseded"]
    member = town.runs(first, image)
    one = judge("web", POLICY, member, town.reader(after).of(member), (), NOW + after)
    made = plan(town.fleet(), [one], town.target(after), NOW + after)
    assert [(step.member.image, made.target.digest) for step in made.steps] == [(image, second)], made.skipped
    stranger = town.runs("sha256:" + "7" * 64, "7" * 64)
    assert town.reader(after).of(stranger).followed is None, "nothing says what it is, so it is unknown"


SHORT = (
    "nginx:1.27", f"nginx:1.27@sha256:{1:064x}", f"nginx@sha256:{1:064x}", "docker.io/nginx:1.27",
    "index.docker.io/library/nginx:1.27",
)  # fmt: skip


@pytest.mark.parametrize("image", SHORT)
def test_who_was_started_by_a_short_name_runs_the_image_that_is_followed(image: str) -> None:
    """`docker run nginx:1.27` runs docker.io/library/nginx: it is judged, rolled, and of the source that it has."""
    whole = "docker.io/library/nginx"
    assert one_repository(image, f"{whole}:1.27")
    assert not one_repository(image, "docker.io/team/nginx:1.27")
    member = Member("host/local/docker/web-1", "web-1", "one", image, (f"sha256:{1:064x}",))
    seen = Provenance(followed=Followed(f"{whole}:1.27", NOW, f"sha256:{2:064x}", NOW))
    found = facts(member, seen)
    assert (found.source.partition("@")[0].removesuffix(":1.27"), found.superseded_since) == (whole, NOW)
    target = ReplacementImage(f"{whole}@sha256:{2:064x}", f"sha256:{2:064x}", None, followed=True)
    follows = fleet_of(replacement={"follow": f"{whole}:1.27"})
    made = plan(follows, [Judged(member, seen, (reason("superseded"),))], target, NOW)
    assert [step.member.name for step in made.steps] == ["web-1"], made.skipped


def test_an_image_of_others_on_our_base_is_superseded_by_its_tag_too() -> None:
    """And by the newer release of its base, where one is out."""
    newer = Followed("r.example/app:1", NOW, f"sha256:{2:064x}", NOW + DAY)
    member = Member("host/local/docker/web-1", "web-1", "one", "r.example/app:1", (f"sha256:{1:064x}",))
    base = release()
    found = facts(member, Provenance(base=base, latest=base, followed=newer))
    assert (found.superseded_since, found.application) == (NOW + DAY, True)
    assert "r.example/app:1" in found.superseded_by
    left = facts(member, Provenance(base=base, latest=release(2), latest_since=NOW, followed=newer))
    assert (left.superseded_since, "r.example/app:1" in left.superseded_by) == (NOW, False)


def test_a_tag_that_moves_too_often_says_so() -> None:
    """Nothing of it ever stands: without a message it would not be noticed that what runs grows old."""
    cooldown = 3 * DAY
    seen = Sights(tuple(Sight(str(day), NOW + day * DAY, NOW + day * DAY) for day in range(9)), NOW + 8 * DAY)
    choice = take(seen, "8", cooldown, NOW + 8 * DAY)
    assert (choice.digest, choice.restless, "moves so often" in choice.because) == ("", True, True)
    assert not take(Sights(seen.seen[:2], NOW + DAY), "1", cooldown, NOW + DAY).restless


def test_what_stood_too_briefly_is_never_taken() -> None:
    """A poisoned release is withdrawn within hours."""
    at = [NOW + hours * HOUR for hours in range(200)]
    seen = Sights((Sight("a", at[0], at[100]), Sight("bad", at[101], at[103]), Sight("c", at[104], at[180])), at[180])
    assert take(seen, "c", timedelta(days=3), at[180]).digest == "c"
    assert take(seen, "c", timedelta(days=4), at[190]).digest == "a"
    assert take(seen, "d", timedelta(days=3), at[190]).digest == "c"


@pytest.mark.parametrize(
    ("replacement", "said"),
    [
        ({"follow": "nginx"}, "replacement.follow"),
        ({"follow": f"nginx@sha256:{1:064x}"}, "replacement.follow"),
        ({"follow": "--nginx:1"}, "replacement.follow"),
        ({"follow": "nginx:1", "tag": "nginx:1"}, "exactly one"),
        ({"follow": "nginx:1", "channel": "stable"}, "belongs to a definition"),
        ({"tag": "nginx:1", "cooldown": "1d"}, "a cooldown belongs to follow"),
    ],
)
def test_what_cannot_be_followed_is_said(replacement: dict[str, str], said: str) -> None:
    """By key, before anything is asked."""
    with pytest.raises(ValueError, match=said):
        fleet_of(replacement=replacement)
