"""Channels move forward by promotion and back by rollback, never onto a release that must not run."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

import images.registry.release_trust
from hardening.foundation.errors import ContentError, RefusedError, UsageError
from hardening.foundation.settings import Judging
from hardening.trust import PREDICATES, Trust
from images import documents
from images.artifact import Release
from images.context import Context
from images.documents import Document
from images.registry.answers import NotFoundError
from images.registry.attestations import bundles
from images.registry.client import Manifest, RegistryClient
from images.registry.referrers import attach, attached, detach_all, tag_of
from images.registry.release_store import RegistryStore
from images.registry.releases import channels_of, release_at
from images.release.channels import ChannelMove, point, promote, rebuild, revoke, rollback
from images.release.lifecycle import Status, before, below, trail
from images.release.publish import release
from images.release.stores import store_of
from images.trust.envelope import BUNDLE, read_bundle
from images.trust.verification import Fault, UntrustedError
from pipelines.cli.image import promote_images
from pipelines.cli.image_output import finish
from tests.support.publishing import (
    DAY,
    NOW,
    Begin,
    SharedRegistry,
    at,
    built,
    definition,
    gate,
    judged,
    publisher,
    settings_in,
)

needs_registry = pytest.mark.needs("docker-registry", "skopeo")
LIVES = {"lifecycle": {"expires_after": "100d"}}
THREE = (("one", 0), ("two", 1), ("three", 2))


def published(to: RegistryStore, text: str, day: int) -> Release:
    """A release of `web` on a day."""
    return release(at(to, NOW + day * DAY), built(to.store, text=text), definition(**LIVES), judged()).release


def promoted(to: RegistryStore, text: str, day: int) -> Release:
    """A release of `web` that became stable on its day."""
    made = published(to, text, day)
    promote(at(to, NOW + day * DAY), "web", "default", gate())
    return made


def trusting(to: RegistryStore, *policies: str) -> RegistryStore:
    """The same publisher where the settings let these policies publish, whatever their strictness."""
    judging = Judging(policies=policies, floor="")
    settings = to.registry.settings.model_copy(update={"judging": judging})
    return replace(to, registry=RegistryClient(to.registry.address, settings))


def pointing(to: RegistryStore) -> dict[str, str]:
    """Where the channels point."""
    return channels_of(to.registry, to.registry.repository("web"))


@needs_registry
def test_one_that_cannot_be_promoted_stops_no_other(shared_registry: SharedRegistry, tmp_path: Path) -> None:
    """Each that was never published is reported, and the one that was is moved."""
    shared_registry.clear()
    context = Context(settings_in(tmp_path), NOW, lambda: "", lambda: shared_registry.address)
    with closing(context.ledger):
        made = built(context.store, "python-runtime")
        verdict = replace(judged().verdict, subject="python-runtime")
        judgement = replace(judged(), verdict=verdict)
        release(store_of(context, "python-runtime"), made, definition("python-runtime", **LIVES), judgement)
        context.store.blob(made.digest).unlink()  # as after garbage was collected: what was said last counts
        context.ledger.record_verdict(made.digest, verdict)
        changes, errors = promote_images("all", context=context)
    assert [change.name for change in changes] == ["python-runtime"]
    containers = [loaded for loaded in context.definitions.values() if not loaded.definition.is_machine]
    assert len(errors) == len(containers) - 1
    assert all("nothing is published" in str(error) for error in errors)
    assert finish(errors) == 2


@needs_registry
def test_promotion_moves_stable_to_the_candidate_and_once_is_enough(begin: Begin) -> None:
    """Asked again there is nothing to do, and it says so."""
    to, (one,) = begin(published, ("one", 0))
    assert promote(to, "web", "default", gate()) == ChannelMove("web", "stable", "", one.digest, applied=True)
    assert promote(to, "web", "default", gate()).note == "already there"
    assert [line.action for line in to.ledger.audit_lines()].count("promote") == 1
    assert at(to, NOW).show("web").channels == ("candidate", "stable")


@needs_registry
def test_a_promotion_asks_nothing_twice(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for the signed document of the channels, which may be another by then."""
    to, (one,) = begin(published, ("one", 0))
    asked: list[str] = []
    find = RegistryClient.find

    def counted(registry: RegistryClient, reference: str) -> Manifest | None:
        asked.append(reference)
        return find(registry, reference)

    monkeypatch.setattr(RegistryClient, "find", counted)
    promote(to, "web", "default", gate())
    channels = [f"{one.repository}:{channel}" for channel in ("candidate", "stable")]
    documents = [f"{one.repository}:channels"] * 4  # for the candidate, revocations, before the next one, and its push
    assert sorted(asked) == sorted([*channels, *documents, f"{one.repository}:{tag_of(one.digest)}"])


@needs_registry
def test_rollback_goes_back_step_by_step_and_not_forth(begin: Begin) -> None:
    """From three to two to one, and then there is nothing earlier, also for a ledger rebuilt in between."""
    to, (one, two, three) = begin(promoted, *THREE)
    assert pointing(to)["stable-previous"] == two.digest
    assert rollback(to, "web").after == two.digest
    assert pointing(to)["stable"] == two.digest
    assert pointing(to)["stable-previous"] == one.digest
    assert rollback(to, "web").after == one.digest
    with pytest.raises(RefusedError, match="no earlier release"):
        rollback(to, "web")
    assert pointing(to)["candidate"] == three.digest


@needs_registry
def test_after_a_rollback_a_rebuilt_ledger_does_not_go_forth(begin: Begin, tmp_path: Path) -> None:
    """The registry remembers where a rollback would go, so a lost ledger cannot send it to the bad release."""
    to, _ = begin(promoted, *THREE[:2])
    rollback(to, "web")
    other = publisher(to.registry.address, tmp_path / "other", NOW, keys_of=tmp_path)
    assert rebuild(other)[1] == ()
    with pytest.raises(RefusedError, match="no earlier release"):
        rollback(other, "web")
    other.ledger.close()


@needs_registry
def test_revoking_moves_every_channel_back_and_all_dates_of_the_content_go(begin: Begin) -> None:
    """The re-dated release over the same content is just as bad; other tools read an end of life of today."""
    to, (one, _) = begin(promoted, *THREE[:2])
    redated = release(
        at(to, NOW + 2 * DAY), built(to.store, text="two"), definition(**LIVES), judged(), redate=True
    ).release
    first = pointing(to)["stable"]
    changes = revoke(at(to, NOW + 3 * DAY), first, "leaked key")
    assert {change.channel: change.applied for change in changes} == {"candidate": True, "stable": True}
    assert pointing(to)["stable"] == pointing(to)["candidate"] == one.digest
    again = to.revoked(release_at(to.registry, f"{redated.repository}@{redated.digest}"))
    assert (again.revoked_reason, again.revoked_at) == ("leaked key", NOW + 3 * DAY)
    assert to.ledger.release(redated.digest) == again
    assert at(to, NOW).show(f"web@{redated.digest}").status is Status.REVOKED
    ends = [
        r for r in attached(to.registry, redated.repository, redated.digest) if r.artifact_type == documents.LIFECYCLE
    ]
    assert ends[-1].annotations == {"vnd.microsoft.artifact.lifecycle.end-of-life.date": "2026-11-28"}
    assert revoke(to, first, "twice") == ()
    assert to.ledger.release(redated.digest) == again


@needs_registry
def test_a_revoked_release_with_nothing_before_it_is_reported(begin: Begin) -> None:
    """A registry cannot take a tag away; the person is told that the channel still points there."""
    to, _ = begin(promoted, *THREE[:1])
    changes = revoke(to, pointing(to)["stable"], "bad")
    assert [change.applied for change in changes] == [False, False]
    assert "still points to the revoked one" in changes[0].note
    assert "./goldsmith image.publish web" in changes[0].note
    with pytest.raises(RefusedError, match="was revoked: bad"):
        promote(to, "web", "default", gate())


@needs_registry
def test_rollback_passes_over_a_revoked_release(begin: Begin) -> None:
    """Two was revoked while three was stable: from three it goes to one."""
    to, (one, two, three) = begin(promoted, *THREE)
    assert revoke(to, f"{two.repository}@{two.digest}", "bad") == ()
    assert rollback(to, "web").after == one.digest
    assert three.digest == pointing(to)["candidate"]


@needs_registry
def test_nothing_goes_back_to_what_proves_nothing(begin: Begin, tmp_path: Path) -> None:
    """Passed over where there is another one, and else said; a revocation leaves the channel, and says why."""
    to, (one, two, three) = begin(promoted, *THREE)
    detach_all(to.registry, two.repository, two.digest)
    lost = publisher(to.registry.address, tmp_path / "lost", NOW + 2 * DAY, keys_of=tmp_path)
    rebuild(lost)
    assert [move.digest for move in lost.ledger.moves(one.repository, "stable")] == [three.digest]
    lost.ledger.close()
    assert rollback(to, "web").after == one.digest
    point(to, three, "stable", "promote")
    detach_all(to.registry, one.repository, one.digest)
    with pytest.raises(UntrustedError) as caught:
        rollback(to, "web", reason="three loses data")
    assert caught.value.fault is Fault.UNSIGNED
    changes = revoke(to, f"{three.repository}@{three.digest}", "bad")
    assert [change.applied for change in changes] == [False, False]
    assert "is not trusted (unsigned)" in changes[0].note
    assert pointing(to)["stable"] == three.digest


@needs_registry
def test_a_release_does_not_choose_who_is_asked_about_it(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever pushes writes the policy's name onto an index; the floor is asked, and the policy that decides."""
    to, (made,) = begin(published, ("one", 0))
    trust = {"lax": Trust(predicates=("provenance",)), "strict": Trust(predicates=("https://example.com/more",))}
    monkeypatch.setattr(images.registry.release_trust, "trust_of", lambda _, name="": trust.get(name, Trust()))
    assert to.evidence(made).allowed
    with pytest.raises(UntrustedError, match=r"example\.com/more"):
        to.evidence(made, "strict")
    kept = bundles(to.registry, made.repository, made.digest)
    detach_all(to.registry, made.repository, made.digest)
    with pytest.raises(UntrustedError, match="unsigned"):
        to.evidence(replace(made, policy="lax"), "lax")
    some = [one for one in kept if read_bundle(one, "it").predicate_type != PREDICATES["spdx"]]
    index = to.registry.get(f"{made.repository}@{made.digest}").descriptor
    attach(to.registry, made.repository, index, [Document(BUNDLE, one) for one in some])
    with pytest.raises(UntrustedError, match=r"missing-predicate.*spdx"):  # which "lax" does not ask for
        to.evidence(made, "lax")


@needs_registry
def test_what_has_expired_is_not_promoted(begin: Begin) -> None:
    """The hint says how to get a fresh date."""
    to, _ = begin(published, ("one", 0))
    with pytest.raises(RefusedError, match=r"expired on 2027-03-05"):
        promote(at(to, NOW + 101 * DAY), "web", "default", gate())


@needs_registry
def test_what_another_policy_let_through_becomes_stable_only_by_name(begin: Begin) -> None:
    """The demo's policy accepts the sample of advisories; nobody promotes that by the way."""
    to, _ = begin()
    lenient = replace(judged(), verdict=replace(judged().verdict, policy="demo"))
    with pytest.raises(RefusedError, match="the policy demo may not publish"):
        release(to, built(to.store, text="one"), definition(**LIVES), lenient)
    assert to.ledger.releases() == ()
    strict, to = to, trusting(to, "default", "demo")
    one = release(to, built(to.store, text="one"), definition(**LIVES), lenient).release
    with pytest.raises(RefusedError, match=r"(?s)judged by the policy demo.*image.promote web --policy demo"):
        promote(to, "web", "default", gate())
    assert "stable" not in pointing(to)
    with pytest.raises(RefusedError, match="the policy demo may not publish"):
        promote(strict, "web", "demo", gate(policy="demo"))
    assert promote(to, "web", "demo", gate(policy="demo")).after == one.digest


@needs_registry
def test_what_is_not_there_is_said(begin: Begin) -> None:
    """No candidate, no such digest, no reason."""
    to, _ = begin()
    with pytest.raises(NotFoundError, match="nothing is published"):
        promote(to, "web", "default", gate())
    with pytest.raises(ContentError, match="no release has the digest"):
        to.meant("sha256:" + "0" * 64)
    one = published(to, "one", 0)
    for reason in (" ", "…"):
        with pytest.raises(UsageError, match="needs a reason"):
            revoke(to, f"{one.repository}@{one.digest}", reason)


@pytest.mark.parametrize(
    ("moves", "stack"),
    [("", ""), ("a", "a"), ("ab", "ab"), ("aba", "a"), ("abcb", "ab"), ("abac", "ac"), ("aab", "ab")],
)
def test_going_back_forgets_what_came_after(moves: str, stack: str) -> None:
    """A channel's history is a stack."""
    assert trail(moves) == tuple(stack)


@pytest.mark.parametrize(
    ("moves", "present", "nearest_first", "further_back"),
    [("", "", "", ""), ("a", "a", "", "a"), ("abc", "c", "ba", "b"), ("abcb", "b", "a", "a"), ("ab", "x", "ba", "x")],
)
def test_a_rollback_goes_back_along_the_history(
    moves: str, present: str, nearest_first: str, further_back: str
) -> None:
    """Before what the channel points to; before everything where somebody else moved it to what was never recorded."""
    assert before(moves, present) == tuple(nearest_first)
    assert below(moves, present) == further_back
