"""Publication, against a real registry: dated, with its documents, the moving tag last, and the same after any kill."""

from __future__ import annotations

import json
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from datetime import date
from pathlib import Path
from types import SimpleNamespace

import pytest

import images.registry.publication
import images.registry.referrers
import images.registry.release_trust
import images.release.publish
from hardening.foundation.errors import ContentError, RefusedError
from hardening.foundation.settings import Settings
from hardening.trust import PREDICATES
from images import documents
from images.artifact import Release
from images.documents import Document
from images.registry.answers import Listed, NotFoundError
from images.registry.client import RegistryClient
from images.registry.referrers import attach, attached
from images.registry.release_store import RegistryStore
from images.registry.release_trust import proved
from images.registry.releases import channels_of, release_at, releases_in
from images.release.channels import rebuild, revoke
from images.release.lifecycle import Status
from images.release.publish import LACKING, release, stands
from images.trust.channel_document import UnreadChannelsError
from images.trust.envelope import BUNDLE
from images.trust.keys import rotate, signer
from images.trust.verification import Fault, UntrustedError
from tests.support.forked import call_forked
from tests.support.publishing import (
    DAY,
    NOW,
    PACKAGES,
    Begin,
    SharedRegistry,
    at,
    built,
    definition,
    dump,
    judged,
    published,
    publisher,
    released_and_killed,
    running_registry,
    settings_in,
    stored,
)

pytestmark = pytest.mark.needs("docker-registry", "skopeo")
WHOLE = {"manifests": 14, "tags": 4}  # content, index, 10 documents, their list, channels; candidate, dated, both


ONE = ("one", 0)


@pytest.fixture
def to(begin: Begin) -> RegistryStore:
    """A publisher to an empty registry."""
    return begin()[0]


def test_a_release_is_an_index_that_carries_the_dates(to: RegistryStore) -> None:
    """The content says nothing of the day; no label carries it; the index does, under candidate and a dated tag."""
    artifact = built(to.store)
    done = release(to, artifact, definition(), judged())
    assert done.action == "published"
    repository = to.registry.repository("web")
    index = to.registry.get(f"{repository}:candidate")
    assert index.digest == done.release.digest
    assert index.annotations["dev.goldsmith.expires-at"] == "2026-12-25T12:00:00Z"
    assert [child["digest"] for child in index.data["manifests"]] == [artifact.digest]
    assert "2026" not in dump(to.store.read_json(artifact.digest)) + dump(to.store.config(artifact.digest))
    dated = f"20261125-{index.digest[7:13]}"
    tags = {tag for tag in to.registry.tags(repository) if not tag.startswith("sha256-")}
    assert tags == {"candidate", "channels", dated}
    assert release_at(to.registry, f"{repository}:{dated}") == done.release
    assert to.ledger.release(index.digest) == done.release
    assert to.ledger.open_publications(repository) == ()


def test_what_was_said_hangs_on_the_release(begin: Begin) -> None:
    """Attestations on the release, each found by its kind, and the end of life where other tools look for it."""
    to, (done,) = begin(published, ONE)
    assert attached(to.registry, done.repository, done.content) == ()
    *signed, ended = attached(to.registry, done.repository, done.digest)
    assert {one.artifact_type for one in signed} == {BUNDLE}
    kinds = [one.annotations["in-toto.io/predicate-type"] for one in signed]
    assert set(kinds) >= set(PREDICATES.values())
    assert kinds == [one.annotations["dev.sigstore.bundle.predicateType"] for one in signed]
    assert ended.artifact_type == documents.LIFECYCLE
    assert ended.annotations == {"vnd.microsoft.artifact.lifecycle.end-of-life.date": "2026-12-25"}


def test_a_night_is_told_why_a_release_does_not_stand(
    shared_registry: SharedRegistry, begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a push it knows what publishing would change; where nothing, the release itself is the answer."""
    to, (done,) = begin(published, ONE)
    artifact, policy = built(to.store), done.policy

    def said(day: int = 10, profile: str = "container-base") -> object:
        wanted = definition().model_copy(update={"profile": profile})
        return stands(at(to, NOW + day * DAY), artifact, wanted, policy, thorough=True)

    assert said() == done
    assert said(24) == "it expires on 2026-12-25 and gets new dates"
    assert said(profile="other") == "its release says what its definition no longer does"
    assert stands(to, built(to.store, "web", "two"), definition(), policy, thorough=False) == "it is not published yet"
    with monkeypatch.context() as lost:
        lost.setattr(images.registry.publication, "is_proved", lambda *_: False)
        assert said() == "what proves its release is missing"
        assert stands(to, artifact, definition(), policy, thorough=False) == done, "it is not asked every night"
    tags = shared_registry.folder / "data/docker/registry/v2/repositories" / done.name / "_manifests/tags"
    for lose in (
        lambda: to.registry.delete(done.repository, done.content),
        lambda: shutil.rmtree(tags / f"20261125-{done.digest[7:13]}"),
    ):
        lose()
        assert said() == LACKING
        assert stands(to, artifact, definition(), policy, thorough=False) == done
        assert release(to, artifact, definition(), judged()).release == done, "publishing makes it whole"
        assert said() == done
    revoke(to, done.digest, "a hole")
    assert said() == "it was revoked"


def test_publishing_again_changes_nothing(shared_registry: SharedRegistry, begin: Begin, tmp_path: Path) -> None:
    """Days later, judged again, by a ledger that was lost: the same release while its dates hold."""
    to, (first,) = begin(published, ONE)
    artifact = built(to.store)
    assert stored(shared_registry.folder) == WHOLE
    later = at(to, NOW + 10 * DAY)
    second = release(later, artifact, definition(), judged(NOW + 10 * DAY))
    lost = publisher(to.registry.address, tmp_path / "lost", NOW + 10 * DAY, keys_of=tmp_path)
    third = release(replace(lost, store=to.store), artifact, definition(), judged())
    lost.ledger.close()
    assert [second.release, third.release] == [first] * 2
    assert [second.action, third.action] == ["unchanged"] * 2
    assert stored(shared_registry.folder) == WHOLE
    assert len(to.ledger.moves(first.repository, "candidate")) == 1


def test_near_its_end_a_release_is_dated_anew_over_the_same_content(begin: Begin) -> None:
    """A new index over the same content, signed anew, even where the store no longer holds the content."""
    to, (first,) = begin(published, ONE)
    artifact = built(to.store)
    to.store.blob(artifact.digest).unlink()
    later = at(to, NOW + 24 * DAY)
    second = release(later, artifact, definition(), judged(NOW + 24 * DAY))
    assert second.action == "re-dated"
    assert (second.release.content, second.release.expires_at) == (first.content, NOW + 54 * DAY)
    assert channels_of(to.registry, first.repository)["candidate"] == second.release.digest
    was, now = (attached(to.registry, first.repository, one.digest) for one in (first, second.release))
    assert len(was) == len(now)
    asked = release(at(to, NOW + 25 * DAY), artifact, definition(), judged(), redate=True)
    assert asked.release.expires_at == NOW + 55 * DAY


def test_other_dates_or_another_policy_make_another_release(begin: Begin) -> None:
    """What the annotations would say differently is published, whatever the day."""
    to, (first,) = begin(published, ONE)
    artifact = built(to.store)
    shorter = release(to, artifact, definition(lifecycle={"expires_after": "5d"}), judged()).release
    strictly = replace(judged(), verdict=replace(judged().verdict, policy="machine"))
    stricter = release(to, artifact, definition(), strictly).release
    assert stricter.policy == "machine"
    assert len({first.digest, shorter.digest, stricter.digest}) == 3


def test_a_refused_image_is_not_pushed(to: RegistryStore, shared_registry: SharedRegistry) -> None:
    """Refused by the gate, or past its support: nothing reaches the registry or the ledger."""
    artifact = built(to.store)
    with pytest.raises(RefusedError, match="nothing was published"):
        release(to, artifact, definition(), judged(allowed=False))
    ended = definition(lifecycle={"support_until": date(2026, 11, 1)})
    with pytest.raises(RefusedError, match="supported until 2026-11-01"):
        release(to, artifact, ended, judged())
    assert stored(shared_registry.folder) == {"manifests": 0, "tags": 0}
    assert to.ledger.releases() == ()


def test_a_revoked_content_does_not_come_back_under_a_new_date(begin: Begin) -> None:
    """The nightly run would otherwise publish tomorrow what was revoked today."""
    to, (first,) = begin(published, ONE)
    artifact = built(to.store)
    revoke(to, f"{first.repository}@{first.digest}", "leaked key")
    with pytest.raises(RefusedError, match="revoked: leaked key"):
        release(at(to, NOW + DAY), artifact, definition(), judged())
    assert release(at(to, NOW + DAY), built(to.store, text="fixed"), definition(), judged()).action == "published"


def cut_short(to: RegistryStore, monkeypatch: pytest.MonkeyPatch) -> Release:
    """A release whose publication ended before any channel pointed to it."""
    with monkeypatch.context() as patched:
        patched.setattr(images.release.publish, "_record", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            release(to, built(to.store), definition(), judged())
    [begun] = to.ledger.open_publications(to.registry.repository("web"))
    return begun.release


def test_what_the_key_before_a_rotation_signed_is_not_signed_again(
    to: RegistryStore, shared_registry: SharedRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A publication that was cut short is taken up by the new key, which finds all signed."""
    begun = cut_short(to, monkeypatch)
    rotate(to.settings, NOW.date() + DAY)
    done = release(at(to, NOW + 13 * DAY / 24), built(to.store), definition(), judged())
    assert done.release == begun
    assert stored(shared_registry.folder) == WHOLE


def test_what_a_wrong_key_signed_reaches_no_registry(to: RegistryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program or a cloud that signs by another key than it says: no channel moves, and the next run is right."""
    right = signer(to.settings, NOW.date())
    wrong = signer(settings_in(to.settings.state_dir / "wrong"), NOW.date())
    with monkeypatch.context() as patched:
        liar = SimpleNamespace(public=right.public, sign=wrong.sign)
        patched.setattr(images.registry.release_trust, "signer", lambda *_: liar)
        with pytest.raises(UntrustedError) as caught:
            release(to, built(to.store), definition(), judged())
    assert caught.value.fault is Fault.BAD_SIGNATURE
    assert (channels_of(to.registry, to.registry.repository("web")), to.ledger.releases()) == ({}, ())
    assert release(to, built(to.store), definition(), judged()).action == "published"


def test_another_writer_of_the_same_document_lists_it_once(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    """It came between the reading that says what is missing and the one right before the writing."""
    to, (done,) = begin(published, ONE)
    index = to.registry.get(f"{done.repository}@{done.digest}").descriptor
    document, reads = Document("a/x", b"{}"), 0

    def read(registry: RegistryClient, repository: str, subject: str) -> tuple[Listed, ...]:
        nonlocal reads
        reads += 1
        if reads == 3:
            with monkeypatch.context() as patched:
                patched.setattr(images.registry.referrers, "attached", attached)
                patched.setattr(images.registry.referrers, "only_one", lambda *_, **__: nullcontext())
                attach(registry, repository, index, [document])
        return attached(registry, repository, subject)

    monkeypatch.setattr(images.registry.referrers, "attached", read)
    attach(to.registry, done.repository, index, [document])
    listed = [one for one in attached(to.registry, done.repository, done.digest) if one.artifact_type == "a/x"]
    assert len(listed) == 1


def test_what_an_older_version_began_without_statements_is_put_away(
    to: RegistryStore, shared_registry: SharedRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Taken up, it would become a candidate that nobody signed."""
    with monkeypatch.context() as patched:
        patched.setattr(images.release.publish, "release_documents", lambda *_: (Document("a/x", b"{}"),))
        begun = cut_short(to, monkeypatch)
    done = release(at(to, NOW + DAY / 24), built(to.store), definition(), judged()).release
    assert done.digest != begun.digest
    assert proved(to.registry, done, NOW).said
    assert stored(shared_registry.folder) == WHOLE


def killed(address: str, folder: Path, call: int, before: bool) -> bool:
    """Whether a release was ended by kill -9 at this write; False where it came to its end without."""
    return call_forked(released_and_killed, address, folder, call, before) == -signal.SIGKILL


@pytest.mark.slow
def test_killed_at_any_write_the_next_run_completes_the_same_release(
    shared_registry: SharedRegistry, tmp_path: Path
) -> None:
    """kill -9 after each write, an hour later run again: as if nothing had happened, and nothing doubled."""
    shared_registry.clear()
    calls = 0
    while killed(f"{shared_registry.address}/k{calls}", tmp_path / f"k{calls}", calls + 1, False):
        to = publisher(f"{shared_registry.address}/k{calls}", tmp_path / f"k{calls}", NOW + DAY / 24)
        artifact = built(to.store)
        done = release(to, artifact, definition(), judged(NOW + DAY / 24)).release
        assert done.published_at == NOW, f"killed after write {calls + 1}"
        assert stored(shared_registry.folder, f"k{calls}/web") == WHOLE
        assert channels_of(to.registry, done.repository) == {"candidate": done.digest}
        assert to.ledger.open_publications(done.repository) == ()
        assert len(to.ledger.moves(done.repository, "candidate")) == 1
        assert not [p for p in (tmp_path / f"k{calls}" / "partial").glob("*") if p.is_dir()]
        to.ledger.close()
        calls += 1
    assert calls == 6  # content, index, documents with their list, dated tag, channels, candidate


@pytest.mark.slow
@pytest.mark.parametrize("call", [1, 3, 5])
def test_a_killed_publication_of_something_else_is_put_away(
    shared_registry: SharedRegistry, tmp_path: Path, call: int
) -> None:
    """The image changed before the next run: what the killed one pushed and nobody was shown is removed."""
    shared_registry.clear()
    assert killed(shared_registry.address, tmp_path, call, True)
    to = publisher(shared_registry.address, tmp_path, NOW + DAY / 24)
    done = release(to, built(to.store, text="two"), definition(), judged()).release
    shown = {r.digest for r in releases_in(to.registry, "web")}
    assert done.digest in shown
    assert to.ledger.open_publications(done.repository) == ()
    whole = {"manifests": 27, "tags": 6} if call == 5 else WHOLE  # the fifth write is the channel: all was there
    assert stored(shared_registry.folder) == whole
    to.ledger.close()


@pytest.mark.slow
def test_publications_side_by_side_lose_no_attestation(tmp_path: Path) -> None:
    """Four of different images, and of one image two by machines that share the key and the registry alone.

    They try for the time that the product does: Debian's registry writes its links in place, and answers with 500 who
    reads one that another is writing (165 of 1,200 reads of a tag that six wrote to).
    """
    tries = Settings.model_fields["retry_for"].default
    signer(settings_in(tmp_path / "keys"), NOW.date())
    with running_registry(tmp_path / "registry") as address:

        def published(name: str, state: str) -> tuple[RegistryStore, Release]:
            shared = settings_in(tmp_path / state, registry={"address": address}, retry_for=tries)
            own = publisher(address, tmp_path / state, keys_of=tmp_path / "keys")
            to = replace(own, registry=RegistryClient(address, shared), names=(name,))
            verdict = replace(judged().verdict, subject=name)
            made = release(to, built(to.store, name), definition(name), replace(judged(), verdict=verdict))
            return to, made.release

        with ThreadPoolExecutor(6) as pool:
            asked = [("web", "a"), ("web", "b"), *((f"app{number}", f"own{number}") for number in range(4))]
            done = list(pool.map(lambda one: published(*one), asked))
        assert done[0][1] == done[1][1]
        for to, made in done:
            assert {one.predicate_type for one in proved(to.registry, made, NOW).said} >= set(PREDICATES.values())
            to.ledger.close()


def test_show_tells_everything_from_the_registry_alone(to: RegistryStore) -> None:
    """Dates, status, verdict, findings, packages, base and channels, by name, tag or digest, with JSON types."""
    base = definition(base={"golden": "debian-base"})
    parent = f"sha256:{1:064x}"
    done = release(to, built(to.store, parent=parent), base, judged()).release
    found = at(to, NOW + 24 * DAY).show("web")
    assert found == at(to, NOW + 24 * DAY).show(f"{done.repository}:candidate")
    assert (found.digest, found.content, found.expires_at) == (done.digest, done.content, done.expires_at)
    assert (found.status, found.days_left, found.channels) == (Status.WARN, 6, ("candidate",))
    assert (found.base_name, found.base_digest) == (to.registry.repository("debian-base"), parent)
    assert (found.verdict, found.policy, found.profile) == ("allowed", "default", "container-base")
    assert (found.findings, found.packages_count, found.checks) == ({"low": 1}, len(PACKAGES), {"pass": 1})
    assert {one.predicate_type for one in found.attestations} >= set(PREDICATES.values())
    assert found.untrusted == ""
    by_digest = at(to, NOW).show(f"web@{done.digest}")
    assert json.loads(by_digest.model_dump_json())["days_left"] == 30


def test_show_names_what_is_near_and_refuses_strangers(begin: Begin) -> None:
    """A typing error, a repository that is not there, and an image that is none of ours."""
    to, _ = begin(published, ONE)
    with pytest.raises(NotFoundError, match="did you mean candidate"):
        at(to, NOW).show("web:candidat")
    with pytest.raises(NotFoundError, match="nothing is published"):
        at(to, NOW).show("webb")
    with pytest.raises(NotFoundError, match="did you mean web"):
        replace(to, names=("web", "app")).show("webb")
    content = built(to.store).digest
    with pytest.raises(ContentError, match="not a release of ours"):
        at(to, NOW).show(f"web@{content}")


def test_a_lost_ledger_comes_back_from_the_registry(begin: Begin, tmp_path: Path) -> None:
    """Releases, revocations, channels, artifacts and judgements; twice is once."""
    to, (first, second) = begin(published, ONE, ("two", 1))
    artifact = built(to.store)
    revoke(to, f"{second.repository}@{second.digest}", "bad")
    other = publisher(to.registry.address, tmp_path / "other", NOW + DAY, keys_of=tmp_path)
    for _ in range(2):
        assert rebuild(replace(other, names=("web", "never-published")))[1] == ()
    assert other.ledger.releases() == to.ledger.releases()
    assert other.ledger.artifact_by_input("web", "linux/amd64", artifact.input_digest) == artifact
    assert (other.ledger.checks(first.content), other.ledger.verdict(first.content)) == ((), None), "told, not judged"
    assert other.ledger.verdict(first.content, told=True) == replace(judged().verdict, content=first.content)
    assert [move.digest for move in other.ledger.moves(first.repository, "candidate")] == [first.digest]
    other.ledger.close()


def test_what_nobody_signed_comes_into_no_ledger(begin: Begin, tmp_path: Path) -> None:
    """With other keys a ledger takes nothing from the registry, and says of each release why."""
    to, (made,) = begin(published, ONE)
    other = publisher(to.registry.address, tmp_path / "other", NOW + DAY)
    signer(other.settings, NOW.date())
    _, [error] = rebuild(other)
    assert "is not trusted (unknown-key)" in error.message
    assert (other.ledger.releases(), other.ledger.artifact_over(made.content)) == ((), None)
    shown = at(other, NOW).show("web")
    assert "is not trusted (unknown-key)" in shown.untrusted
    assert (shown.channels, shown.channels_unread) == ((), f"{error.message}; {error.hint}")
    other.ledger.close()


def test_a_release_that_another_key_signed_is_signed_anew(begin: Begin, tmp_path: Path) -> None:
    """Its dates hold, and yet it proves nothing here, nor do its channels, which a person has to sign by hand; the same
    index then carries what both said.
    """
    to, (first,) = begin(published, ONE)
    artifact = built(to.store)
    other = replace(publisher(to.registry.address, tmp_path / "other"), store=to.store)
    with pytest.raises(UnreadChannelsError, match=r"unknown-key.*"):
        release(other, artifact, definition(), judged())
    assert other.sign(first.repository, recover=True)[0] == "0 revoked"
    second = release(other, artifact, definition(), judged()).release
    assert second == first
    for one in (to, other):
        assert at(one, NOW).show("web").untrusted == ""
    other.ledger.close()
