"""A revocation reaches all that holds what was revoked, whoever knows of it; and nothing moves without today's yes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest

import images.registry.release_store
import images.release.flow
from hardening.findings import Finding, FindingKind, Verdict
from hardening.foundation.errors import ContentError, OutsideError, RefusedError
from hardening.model import Severity
from images.artifact import Release
from images.build.flow import BuildOutcome, revoked_parent
from images.context import Context
from images.documents import Document
from images.ledger import ScanRecord
from images.plan.build_plan import Action
from images.registry.attestations import bundles, signed_document
from images.registry.client import RegistryClient
from images.registry.referrers import attach, attached, detach_all
from images.registry.release_store import RegistryStore
from images.registry.release_trust import proved
from images.registry.releases import channels_of, release_at
from images.release.channels import promote, rebuild, revoke, rollback
from images.release.flow import gate as gate_of
from images.release.lifecycle import END_OF_LIFE
from images.release.publish import release
from images.release.stores import full_reference, store_of
from images.trust.channel_document import UnreadChannelsError
from images.trust.envelope import BUNDLE, read_bundle, statement
from images.trust.keys import signer
from images.trust.results import verdict_attestation
from images.trust.slsa import provenance
from images.trust.statement import VERDICT, Attestation
from images.trust.verification import Attested, Fault, UntrustedError
from pipelines.cli import image
from pipelines.nightly import image_stages
from pipelines.nightly.summary import image_line
from tests.support.nights import images_of_a_night
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

pytestmark = pytest.mark.needs("docker-registry", "skopeo")
LIVES = {"lifecycle": {"expires_after": "100d"}}
BASED = {**LIVES, "base": {"golden": "base"}}
WEB, BASE, BASES = ("web", 0), ("base", 0), (("base", 0), ("base", 1))
Other = Callable[[], RegistryStore]


@pytest.fixture
def elsewhere(shared_registry: SharedRegistry, tmp_path: Path) -> Iterator[Other]:
    """Makes another machine: a ledger and store of its own, at the same registry, with the same key."""
    with ExitStack() as made:

        def machine() -> RegistryStore:
            other = publisher(shared_registry.address, tmp_path / "other", keys_of=tmp_path)
            made.callback(other.ledger.close)
            return other

        yield machine


def put(to: RegistryStore, name: str, day: int, text: str = "", base: str = "", **more: Any) -> Release:
    """A release of `name` on a day."""
    verdict = replace(judged().verdict, subject=name)
    artifact = built(to.store, name, text or f"{name}{day}", parent=base)
    given = definition(name, **(BASED if base else LIVES))
    return release(at(to, NOW + day * DAY), artifact, given, replace(judged(), verdict=verdict), **more).release


def stable(to: RegistryStore, name: str, day: int, **more: Any) -> Release:
    """The same, that became stable."""
    made = put(to, name, day, **more)
    promote(at(to, NOW + day * DAY), name, "default", gate())
    return made


def channels(to: RegistryStore, name: str) -> dict[str, str]:
    return channels_of(to.registry, to.registry.repository(name))


def test_children_of_a_revoked_base_go_with_it(begin: Begin) -> None:
    """In registry and ledger, off their channels, to the child on the good base; grandchildren too."""
    to, (good, bad) = begin(put, *BASES)
    old, child = stable(to, "child", 0, base=good.content), stable(to, "child", 1, base=bad.content)
    grandchild = put(to, "leaf", 1, base=child.content)
    changes = revoke(at(to, NOW + 2 * DAY), f"{bad.repository}@{bad.digest}", "a back door")
    assert {change.name for change in changes} == {"base", "child", "leaf"}
    assert channels(to, "child")["stable"] == old.digest
    for one in (child, grandchild):
        seen = to.revoked(release_at(to.registry, f"{one.repository}@{one.digest}"))
        assert seen.revoked_reason == "its base base was revoked: a back door"
        assert to.ledger.release(one.digest) == seen
    with pytest.raises(RefusedError, match="its base base was revoked: a back door"):
        promote(to, "leaf", "default", gate())
    with pytest.raises(RefusedError, match="its base base was revoked: a back door; nothing was published"):
        put(to, "child", 3, text="more", base=bad.content)


def test_a_repeated_revocation_keeps_its_day(begin: Begin) -> None:
    """Other tools then read one end of life, as the signed document has it."""
    to, (one,) = begin(put, WEB)
    ends = list[list[str]]()
    for day in (1, 2):
        revoke(at(to, NOW + day * DAY), f"{one.repository}@{one.digest}", "a back door")
        listed = attached(to.registry, one.repository, one.digest)
        ends.append([line.annotations[END_OF_LIFE] for line in listed if END_OF_LIFE in line.annotations])
    assert f"{NOW + DAY:%Y-%m-%d}" in ends[0]
    assert ends[0] == ends[1]


def test_who_revokes_reads_what_goes_with_it(
    begin: Begin, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each release by its name, before its channels are moved."""
    to, (_, bad) = begin(put, *BASES)
    child = put(to, "child", 1, base=bad.content)
    monkeypatch.setattr(image, "image_context", lambda: None)
    monkeypatch.setattr(image, "meant", lambda _, ref: (to, ref))
    image.revoke_release(f"{bad.repository}@{bad.digest}", "a back door")
    said = capsys.readouterr().err
    assert f"revoking base of {bad.published_at:%Y-%m-%d} ({bad.digest}): a back door" in said
    assert f"and child of {child.published_at:%Y-%m-%d} ({child.digest}), built on it" in said


def test_a_child_that_another_machine_published_is_reached_too(begin: Begin, elsewhere: Other) -> None:
    """The machine that revokes the base has never heard of it; whoever moves the child asks for the base."""
    one, (base,) = begin(put, BASE)
    two = elsewhere()
    child = put(two, "child", 0, base=base.content)
    revoke(one, f"{base.repository}@{base.digest}", "a back door")
    assert child.revoked_at is None
    for act in (lambda: promote(two, "child", "default", gate()),
                lambda: put(two, "child", 1, base=base.content, redate=True)):  # fmt: skip
        with pytest.raises(RefusedError, match="its base base was revoked: a back door"):
            act()


def test_what_is_inside_is_revoked_under_every_date_and_name(begin: Begin, elsewhere: Other) -> None:
    """Another machine re-dated the content, and published it under another name; neither stands, nor comes again."""
    one, (first,) = begin(put, WEB)
    two = elsewhere()
    redated = put(two, "web", 1, text="web0", redate=True)
    alias = put(one, "alias", 0, text="web0")
    assert redated.digest != first.digest
    revoke(at(one, NOW + 2 * DAY), f"{first.repository}@{first.digest}", "leaked key")
    assert at(two, NOW + 2 * DAY).revoked(redated).revoked_reason == "leaked key"
    assert one.revoked(alias).revoked_reason == "leaked key"
    with pytest.raises(RefusedError, match="was revoked: leaked key"):
        promote(at(two, NOW + 2 * DAY), "web", "default", gate())
    with pytest.raises(RefusedError, match="was revoked: leaked key; nothing was published"):
        put(two, "web", 3, text="web0", redate=True)


def test_the_one_that_says_revoked_wins(begin: Begin) -> None:
    """The registry forgot it, and the ledger knows; then a rebuild takes nothing back."""
    to, (one,) = begin(put, WEB)
    revoke(to, f"{one.repository}@{one.digest}", "bad")
    for subject in (one.digest, one.content):
        detach_all(to.registry, one.repository, subject)
    with pytest.raises(RefusedError, match="was revoked: bad"):
        promote(to, "web", "default", gate())
    rebuild(to)
    known = to.ledger.release(one.digest)
    assert known
    assert known.revoked_reason == "bad"


def test_where_the_registry_cannot_be_asked_nothing_moves(begin: Begin) -> None:
    """Unasked is not unrevoked, whatever the ledger says."""
    to, _ = begin(stable, WEB, ("web", 1))
    gone = replace(to, registry=RegistryClient("127.0.0.1:1/x", to.registry.settings))
    for act in (lambda: promote(gone, "web", "default", gate()), lambda: rollback(gone, "web"),
                lambda: put(gone, "web", 2)):  # fmt: skip
        with pytest.raises(OutsideError, match="cannot be reached"):
            act()


def test_a_rollback_to_what_is_over_needs_a_reason(begin: Begin) -> None:
    """Expired or revoked, it is refused with the reason; with one it goes, and the audit says why."""
    to, (one, two) = begin(stable, WEB, ("web", 1))
    late = at(to, NOW + 100 * DAY + DAY / 2)
    with pytest.raises(RefusedError, match=r"(?s)would return to .*which expired on .*--reason"):
        rollback(late, "web")
    revoke(at(to, NOW + 2 * DAY), f"{one.repository}@{one.digest}", "bad")
    assert channels(to, "web")["stable"] == two.digest
    with pytest.raises(RefusedError, match=r"(?s)which was revoked: bad.*--reason"):
        rollback(at(to, NOW + 2 * DAY), "web", reason=" ")
    assert channels(to, "web")["stable"] == two.digest
    change = rollback(at(to, NOW + 2 * DAY), "web", reason="two loses data")
    assert (change.after, change.note) == (one.digest, "this release was revoked: bad")
    assert "two loses data" in [line.detail for line in to.ledger.audit_lines() if line.action == "rollback"]


def test_a_newer_refusal_stops_the_promotion(begin: Begin) -> None:
    """The release carries an allowed verdict of its own day; today's is asked, and says no."""
    to, _ = begin(put, WEB)
    with pytest.raises(RefusedError, match="is refused by policy default"):
        promote(to, "web", "default", gate(allowed=False))
    assert "stable" not in channels(to, "web")


@pytest.mark.parametrize("about", [{"subject": "other"}, {"content": f"sha256:{0:064x}"}], ids=["name", "content"])
def test_a_verdict_about_something_else_lets_nothing_through(begin: Begin, about: dict[str, str]) -> None:
    """Neither one that was signed at its publication, nor one that the gate gives."""
    to, (made,) = begin(put, WEB)
    with pytest.raises(RefusedError, match="its verdict is about"):
        promote(to, "web", "default", lambda one: replace(gate()(one), **about))
    wrong = verdict_attestation(replace(judged().verdict, **({"content": made.content} | about)), "", ())
    instead(to, made, wrong)
    with pytest.raises(RefusedError, match="its verdict is about"):
        promote(to, "web", "default", gate())


def instead(to: RegistryStore, made: Release, other: Attestation) -> None:
    """Attach something else that our key signed in the place of what it said of a release in attestations of a type."""
    kept = bundles(to.registry, made.repository, made.digest)
    index = to.registry.get(f"{made.repository}@{made.digest}").descriptor
    said = [read_bundle(one, "it") for one in kept]
    payloads = [one.payload for one in said if one.predicate_type != other.predicate_type]
    payloads.append(statement(other.predicate_type, other.predicate, {made.digest: made.repository}))
    detach_all(to.registry, made.repository, made.digest)
    key = signer(to.settings, NOW.date())
    attach(to.registry, made.repository, index, [signed_document(payload, key) for payload in payloads])


def test_what_was_said_of_another_release_promotes_nothing(begin: Begin) -> None:
    """Signed by our key, and hung on a release that was never judged."""
    to, (judged_one, made) = begin(put, WEB, ("web", 1))
    index = to.registry.get(f"{made.repository}@{made.digest}").descriptor
    verdicts = [
        one
        for one in bundles(to.registry, made.repository, judged_one.digest)
        if read_bundle(one, "it").predicate_type == VERDICT
    ]
    said = {"in-toto.io/predicate-type": VERDICT}
    attach(to.registry, made.repository, index, [Document(BUNDLE, one, said) for one in verdicts])
    for act in (lambda: promote(to, "web", "default", gate()), lambda: proved(to.registry, made, to.now)):
        with pytest.raises(UntrustedError) as caught:
            act()
        assert caught.value.fault is Fault.OTHER_SUBJECT


def test_a_verdict_says_what_it_is_about(begin: Begin) -> None:
    """The one that publication attaches names the content, so that it cannot be hung on another release."""
    to, (made,) = begin(put, WEB)
    rebuild(to)
    told = to.ledger.verdict(made.content, told=True)
    assert told
    assert told.content == made.content


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    """A machine with a ledger, and no registry."""
    made = Context(settings_in(tmp_path), NOW, lambda: "", lambda: "127.0.0.1:1")
    with closing(made.ledger):
        yield made


def test_today_counts_and_what_a_registry_told_does_not(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here the content is judged again; where it is gone, what was said here counts for as long as the policy says."""
    ask = gate_of(context, "default")
    artifact = built(context.store, "debian-base")
    made = Release("debian-base", "r/debian-base", f"sha256:{1:064x}", artifact.digest, "", "", "", NOW, NOW, NOW)
    context.ledger.record_artifact(artifact)
    yes = Verdict("debian-base", "default", NOW, True, ())
    context.ledger.record_verdict(artifact.digest, yes)
    no = replace(judged(), verdict=replace(yes, allowed=False))
    monkeypatch.setattr(images.release.flow, "judge", lambda *_: no)
    assert ask(made) == no.verdict
    context.store.blob(artifact.digest).unlink()
    assert ask(made) == yes
    context.ledger.record_verdict(artifact.digest, replace(yes, judged_at=NOW - 8 * DAY))
    with pytest.raises(RefusedError, match="was last judged on 2026-11-17, longer ago than the 7d of the policy"):
        ask(made)
    unjudged = replace(made, content=f"sha256:{2:064x}")
    context.ledger.record_verdict(unjudged.content, yes, told=True)
    with pytest.raises(RefusedError, match="was never judged on this machine"):
        ask(unjudged)


def test_nothing_is_built_on_a_revoked_base(context: Context) -> None:
    """Of a child, and of its child; what stands on a good one is built."""
    base = Release("base", "base", f"sha256:{1:064x}", f"sha256:{2:064x}", "", "", "", NOW, NOW, NOW + DAY)
    child = replace(base, name="child", repository="child", digest=f"sha256:{3:064x}", content=f"sha256:{4:064x}",
                    base_name="base", base_digest=base.content)  # fmt: skip
    for one in (base, child):
        context.ledger.record_release(one)
    assert revoked_parent(context, "child", child.content) is None
    context.ledger.revoke(base.digest, "a back door", NOW)
    for parent in (base, child):
        assert "its base base was revoked: a back door" in str(revoked_parent(context, parent.name, parent.content))


def test_what_was_revoked_elsewhere_is_asked_before_a_build(begin: Begin, context: Context) -> None:
    """At a registry that others write to. One that does not answer stops no build, for that moves nothing. Nothing
    is built on unread channels; where nothing was ever published, a first build goes on.
    """
    to, (base,) = begin(put, BASE)
    revoke(to, f"{base.repository}@{base.digest}", "a back door")
    shared = settings_in(context.settings.state_dir / "b", registry={"address": to.registry.address})
    copytree(to.settings.state_dir / "keys", shared.state_dir / "keys")
    with closing((at_shared := replace(context, settings=shared, registry_address=lambda: to.registry.address)).ledger):
        assert "was revoked: a back door" in str(revoked_parent(at_shared, "base", base.content))
        assert revoked_parent(at_shared, "first", base.content) is None
        to.registry.delete(base.repository, to.registry.get(f"{base.repository}:channels").digest)
        assert isinstance(revoked_parent(at_shared, "base", base.content), UnreadChannelsError)
    away = settings_in(context.settings.state_dir / "c", registry={"address": "127.0.0.1:1/x"})
    with closing((at_away := replace(context, settings=away, registry_address=lambda: "127.0.0.1:1/x")).ledger):
        assert revoked_parent(at_away, "base", base.content) is None


def test_one_malformed_image_costs_a_rebuild_one_image(
    begin: Begin, elsewhere: Other, capsys: pytest.CaptureFixture[str]
) -> None:
    """The others come back, and it is said; what they were judged is told, and counts for nothing."""
    to, (good,) = begin(put, WEB)
    bad, other = put(to, "bad", 0), elsewhere()
    to.registry.tag(bad.repository, bad.digest, "channels")  # which says nothing of channels
    releases, errors = rebuild(replace(other, names=("bad", "web")))
    assert [one.digest for one in releases] == [good.digest]
    assert [type(error) for error in errors] == [UnreadChannelsError]
    assert "bad is passed over: the channels of" in capsys.readouterr().err
    assert other.ledger.verdict(good.content) is None
    assert other.ledger.checks(good.content) == ()
    told = other.ledger.verdict(good.content, told=True)
    assert told
    assert told.allowed
    assert [move.reason for move in other.ledger.moves(good.repository, "candidate")] == ["rebuild"]
    assert not other.ledger.moves(bad.repository, "candidate")


def test_one_release_that_cannot_be_read_stops_no_other(
    begin: Begin, elsewhere: Other, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever of ours goes wrong over it, such as more documents than are read."""
    _, (bad, good) = begin(put, WEB, ("web", 1))
    other = elsewhere()

    def asked(registry: RegistryClient, one: Release, now: datetime) -> Attested:
        if one.digest == bad.digest:
            raise OutsideError("too large")
        return proved(registry, one, now)

    monkeypatch.setattr(images.registry.release_store, "proved", asked)
    releases, errors = rebuild(replace(other, names=("web",)))
    assert [one.digest for one in releases] == [good.digest]
    assert [str(error) for error in errors] == ["too large"]


def test_provenance_of_another_content_is_not_taken_for_a_build(begin: Begin) -> None:
    """Else whoever can push could make the next plan say `unchanged` over what they like."""
    to, (made,) = begin(put, WEB)
    other = replace(built(to.store, "web", "evil"), input_digest=made.input_digest)
    instead(to, made, provenance(made, other))
    _, (error,) = rebuild(to)
    assert "the provenance of" in str(error)
    assert to.ledger.artifact_by_input("web", "linux/amd64", made.input_digest) is None


def test_what_a_registry_tells_replaces_nothing_that_was_found_here(begin: Begin) -> None:
    """Whoever may push could else empty a scan, or call another content of this store what these inputs give."""
    to, (made,) = begin(put, WEB)
    found = Finding(FindingKind.VULNERABILITY, "CVE-2026-0666", "openssl", "3.5", "3.6", Severity.CRITICAL, ())
    own = ScanRecord((), (found,), inputs={"trivy": "sha256:in"})
    to.ledger.record_scan(made.content, own, NOW)
    mine = replace(built(to.store, "web", "mine"), input_digest=made.input_digest)
    to.ledger.record_artifact(mine)
    rebuild(to)
    assert to.ledger.scan(made.content) == own
    assert to.ledger.artifact_by_input("web", "linux/amd64", made.input_digest) == mine


def test_one_malformed_image_costs_the_night_one_image(
    begin: Begin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its line says what is wrong; the other is published and becomes stable."""
    to, names = begin()[0], ["debian-base", "python-runtime"]
    context = Context(settings_in(tmp_path / "night"), NOW, lambda: "", lambda: to.registry.address, lenient=True)
    with closing(context.ledger):
        made = {name: built(context.store, name, name) for name in names}
        for name in names:
            loaded = context.definitions[name]
            at_once = loaded.definition.lifecycle.model_copy(update={"soak": timedelta(0)})
            automatic = loaded.definition.model_copy(update={"promote": "auto", "lifecycle": at_once})
            context.definitions[name] = replace(loaded, definition=automatic)
        first = release(
            store_of(context, "debian-base"), made["debian-base"], definition("debian-base", **LIVES), judged()
        ).release
        to.registry.tag(first.repository, first.digest, "channels")  # which says nothing of channels
        monkeypatch.setattr(image_stages, "build", lambda _, one: [BuildOutcome(one[0], Action.BUILT, "")])
        monkeypatch.setattr(images.release.flow, "latest", lambda _, name: made[name])
        verdicts = {name: replace(judged().verdict, subject=name) for name in names}
        monkeypatch.setattr(
            images.release.flow, "judge", lambda _, one, __: replace(judged(), verdict=verdicts[one.name])
        )
        for name, one in made.items():
            context.ledger.record_verdict(one.digest, verdicts[name])
        monkeypatch.setitem(context.__dict__, "parents", dict.fromkeys(names))
        base, runtime = images_of_a_night(context, names)
    assert base.action == "refused"
    assert "the channels of" in image_line(base).detail
    assert base.failure
    assert type(base.failure.error) is UnreadChannelsError
    assert (runtime.action, runtime.failure) == ("published", None)
    assert [part.promoted for part in runtime.parts] == ["python-runtime"]


def test_whoever_revokes_in_a_hurry_may_give_what_is_on_the_screen(begin: Begin) -> None:
    """The beginning of a digest, of the release or of its content, with and without a name; or a tag."""
    to, (one, two) = begin(put, *BASES)
    whole = f"{one.repository}@{one.digest}"
    head, content = one.digest.removeprefix("sha256:")[:12], one.content[7:19]
    on_screen = (
        one.digest, head, f"sha256:{head}", content, one.content, f"base@sha256:{head}", whole, whole[:-40],
        f"{one.repository}:stable@{one.digest}", f"base of 2026-11-25 (sha256:{head})", f" {head}\n",
    )  # fmt: skip
    assert [full_reference(to.ledger, typed, ["base"]) for typed in on_screen] == [whole] * len(on_screen)
    for typed in ("base", "base:stable", f"{one.repository}:stable", "ami-0123456789abcdef0", "abc"):
        assert full_reference(to.ledger, typed, ["base"]) == typed
    assert full_reference(to.ledger, head, [head]) == head  # a definition of that name comes first
    other = replace(two, digest=f"sha256:{head}{'0' * 52}")
    to.ledger.record_release(other)
    with pytest.raises(ContentError, match="may be several releases") as caught:
        full_reference(to.ledger, head, [])
    assert one.digest in caught.value.evidence
    assert other.digest in caught.value.evidence
    assert full_reference(to.ledger, one.digest, []) == whole
    assert full_reference(to.ledger, f"base@{one.digest[:40]}", []).endswith(one.digest)
    unknown = "f" * 64
    assert full_reference(to.ledger, unknown, []) == f"sha256:{unknown}"  # the registry may know it
    with pytest.raises(ContentError, match="no release in this ledger has a digest that begins with fffffff"):
        full_reference(to.ledger, "fffffff", [])
    assert full_reference(to.ledger, "2026", []) == "2026"  # rather a slip than a digest


def test_releases_over_one_content_are_no_two_answers(begin: Begin) -> None:
    """They are revoked together; the newest is shown."""
    to, (first,) = begin(put, BASE)
    second = put(to, "base", 1, text="base0", redate=True)
    assert first.content == second.content
    assert full_reference(to.ledger, first.content[:20], []) == f"{second.repository}@{second.digest}"
    assert full_reference(to.ledger, first.digest[:20], []) == f"{first.repository}@{first.digest}"
