"""Channel documents in a registry: killed moves are completed, two writers lose nothing, no writer hides anything."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

import images.registry.channel_documents
import images.release.channels
from hardening.foundation.errors import OutsideError, RefusedError
from hardening.trust import Trust
from images.artifact import Release
from images.ledger import Ledger
from images.registry.answers import NotFoundError
from images.registry.channel_documents import ChannelDocuments
from images.registry.client import Manifest, RegistryClient
from images.registry.release_store import RegistryStore
from images.release.channels import point, promote, rebuild, revoke, rollback, sign_all
from images.store.oci import Store
from images.trust.channel_document import UnreadChannelsError
from images.trust.keys import own_keys, signer
from tests.images.release.test_channels import promoted, published
from tests.support.publishing import DAY, NOW, Begin, at, gate, publisher, settings_in
from tests.support.signing import KeyInMemory

OLD, NEW, THIRD = (f"sha256:{number:064x}" for number in (1, 2, 3))
WHERE = "127.0.0.1:1/web"
REGISTRY = pytest.mark.needs("docker-registry", "skopeo")


class KilledError(BaseException):
    """The process is gone."""


class InMemory(RegistryClient):
    """A registry in memory: manifests by digest and tags. It dies before or after the write with a number."""

    def __init__(self, settings: Any) -> None:
        super().__init__("127.0.0.1:1", settings, own=True)
        self.manifests: dict[str, Manifest] = {}
        self.tags_by_name: dict[str, str] = {}
        self.dies_at, self.writes, self.before = 0, 0, False
        self.asked, self.heads, self.silent = 0, 0, False

    def find(self, reference: str) -> Manifest | None:
        self.asked += 1
        digest = reference.partition("@")[2] or self.tags_by_name.get(reference, "")
        return self.manifests.get(digest)

    def named_by(self, tag: str) -> str:
        self.heads += 1
        if self.silent:
            raise OutsideError("no answer")
        return self.tags_by_name.get(tag, "")

    def tag(self, repository: str, index_digest: str, tag: str) -> None:
        if index_digest not in self.manifests:
            raise NotFoundError("not there")
        self._write(lambda: self.tags_by_name.update({f"{repository}:{tag}": index_digest}))

    def push_root(self, directory: Path, root: Any, destination: str, *, index_only: bool) -> None:
        data = Store(directory).read_json(root.digest)
        made = Manifest(root.digest, root.media_type, root.size, data)
        self._write(lambda: (self.manifests.update({root.digest: made}),
                             self.tags_by_name.update({destination: root.digest})))  # fmt: skip

    def delete(self, repository: str, manifest_digest: str) -> None:
        self._write(lambda: self.manifests.pop(manifest_digest, None))

    def _write(self, act: Callable[[], object]) -> None:
        self.writes += 1
        dies = self.writes == self.dies_at
        if not (dies and self.before):
            act()
        if dies:
            raise KilledError


def release(digest: str) -> Release:
    return Release("web", WHERE, digest, digest, "", "", "default", NOW, NOW, NOW + 30 * DAY)


@pytest.fixture
def to(tmp_path: Path) -> Iterator[RegistryStore]:
    """A store over a registry in memory with two releases, of which `stable` points to the old one."""
    settings = settings_in(tmp_path)
    registry = InMemory(settings)
    for digest in (OLD, NEW):
        registry.manifests[digest] = Manifest(digest, "", 1, {"schemaVersion": 2})
    with closing(Ledger.open(settings.database_url)) as ledger:
        made = RegistryStore(registry, ledger, Store(tmp_path / "store"), NOW, "ann", ("web",))
        point(made, release(OLD), "stable", "promote")
        yield made


def memory(to: RegistryStore) -> InMemory:
    assert isinstance(to.registry, InMemory)
    return to.registry


def tags(to: RegistryStore) -> Mapping[str, str]:
    return {tag.rpartition(":")[2]: digest for tag, digest in memory(to).tags_by_name.items() if "channels" not in tag}


WRITES = 4
"""The writes of a move: the document, its predecessor's removal, the tag to roll back to, and the channel's."""


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("write", range(1, WRITES + 1))
def test_a_move_that_was_killed_is_consistent_and_completed_by_its_repetition(
    to: RegistryStore, write: int, before: bool
) -> None:
    """In between a reader goes by the document: the old release before it was written, the new one afterwards. Later
    than a tag may take, and after the next signing, it is the same.
    """
    registry = memory(to)
    registry.dies_at, registry.before = registry.writes + write, before
    with pytest.raises(KilledError):
        point(to, release(NEW), "stable", "promote")
    registry.dies_at = 0
    written = write > 1 or not before
    assert to.pointed(WHERE, "stable")[0] == (NEW if written else OLD)
    hour = at(to, NOW + DAY / 24)
    assert hour.sign(WHERE, recover=True)[0] == f"stable → {(NEW if written else OLD)[:19]}"
    assert hour.pointed(WHERE, "stable")[0] == tags(to)["stable"] == (NEW if written else OLD)
    point(hour, release(NEW), "stable", "promote")
    assert hour.pointed(WHERE, "stable")[0] == tags(to)["stable"] == NEW
    assert hour.pointed(WHERE, "stable-previous")[0] == tags(to)["stable-previous"] == OLD
    assert [move.digest for move in to.ledger.moves(WHERE, "stable")] == [OLD, NEW]
    writes = registry.writes
    point(hour, release(NEW), "stable", "promote")
    assert registry.writes == writes, "repeated, it writes nothing"


def test_what_both_channels_point_to_is_asked_for_once(to: RegistryStore) -> None:
    """By one tag and one document; a channel that points elsewhere is compared with its own tag."""
    point(to, release(NEW), "candidate", "publish")
    point(to, release(NEW), "stable", "promote")
    asked, both = memory(to).asked, to.pointing(WHERE, ("candidate", "stable"))
    assert memory(to).asked == asked + 2
    assert both == {channel: to.pointed(WHERE, channel) for channel in both}
    point(to, release(OLD), "stable", "roll back")
    both = to.pointing(WHERE, ("candidate", "stable"))
    assert (both["candidate"][0], both["stable"][0]) == (NEW, OLD)


def test_a_move_makes_as_many_writes_as_are_killed_above(to: RegistryStore) -> None:
    """So that none is left out."""
    before = memory(to).writes
    point(to, release(NEW), "stable", "promote")
    assert memory(to).writes == before + WRITES


def test_of_two_writers_at_once_none_takes_the_others_change_away(
    to: RegistryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both read the same document, and the other one writes last: what it wrote is found, and ours is added to it."""
    before = to.documents.read(WHERE)
    assert before
    theirs = before.moved("candidate", NEW).signed(NOW, 7 * DAY, before.version)
    writes = iter([lambda: to.documents._push(theirs)])

    def settle(_: RegistryClient) -> bool:
        next(writes, lambda: None)()
        return True

    monkeypatch.setattr(images.registry.channel_documents, "settle", settle)
    with to.moving(WHERE):
        to.documents.write(WHERE, lambda one: one.revoking([OLD], NOW, "a hole"), pytest.fail)
    found = to.documents.read(WHERE)
    assert found
    assert (set(found.channels), set(found.revoked)) == ({"candidate", "stable"}, {OLD})


def test_two_writers_that_answer_each_other_come_to_an_end(to: RegistryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one writes after each of our writes, always with what it read a write before."""
    before = to.documents.read(WHERE)
    assert before
    read = [before]

    def settle(_: RegistryClient) -> bool:
        ours = to.documents._signed(WHERE)
        assert ours
        to.documents._push(read[-1].moved("candidate", NEW).signed(NOW, 7 * DAY, ours.version))
        read.append(ours)
        return True

    monkeypatch.setattr(images.registry.channel_documents, "settle", settle)
    with to.moving(WHERE):
        _, ours = to.documents.write(WHERE, lambda one: one.revoking([OLD], NOW, "a hole"), pytest.fail)
    assert len(read) == 3
    assert ours == to.documents.read(WHERE) == to.documents._seen(WHERE)
    assert (set(ours.channels), set(ours.revoked)) == ({"candidate", "stable"}, {OLD})


@pytest.mark.parametrize("act", ["sign", "promote"])
def test_another_move_waits_until_tags_and_ledger_follow(
    to: RegistryStore, monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    """Document, tag and the ledger's last move then name the same release, also when a tag has no time left."""
    memory(to).manifests[THIRD] = Manifest(THIRD, "", 1, {"schemaVersion": 2})
    other = Thread(target=lambda: point(to, release(THIRD), "stable", "promote"))
    lead = RegistryStore._lead

    def interrupted(store: RegistryStore, *rest: Any) -> None:
        if other.ident is None:
            other.start()
            other.join(1)
        lead(store, *rest)

    monkeypatch.setattr(RegistryStore, "_lead", interrupted)
    if act == "sign":
        to.sign(WHERE, recover=True)
    else:
        point(to, release(NEW), "stable", "promote")
    other.join()
    assert at(to, NOW + DAY / 24).pointed(WHERE, "stable")[0] == tags(to)["stable"] == THIRD
    assert [move.digest for move in to.ledger.moves(WHERE, "stable")][-1] == THIRD


def test_a_tag_follows_what_another_installation_signed_meanwhile(
    to: RegistryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It shares no lock with this one: the tag that a signing puts back is put right by what it signs."""
    before, lead = to.documents.read(WHERE), RegistryStore._lead
    assert before
    theirs = [before.moved("stable", NEW).signed(NOW, 7 * DAY, before.version)]

    def interrupted(store: RegistryStore, *rest: Any) -> None:
        if theirs:
            store.documents._push(theirs.pop())
            store.registry.tag(WHERE, NEW, "stable")
        lead(store, *rest)

    monkeypatch.setattr(RegistryStore, "_lead", interrupted)
    to.sign(WHERE, recover=True)
    assert at(to, NOW + DAY / 24).pointed(WHERE, "stable")[0] == tags(to)["stable"] == NEW


def test_a_channel_whose_release_is_gone_is_not_read_from_its_tag(to: RegistryStore) -> None:
    """The tag may still name what the channel left; a ledger that has seen nothing may be shown anything."""
    registry = memory(to)
    point(to, release(NEW), "stable", "promote")
    registry.tags_by_name[f"{WHERE}:stable"] = OLD
    present = registry.manifests.pop(NEW)
    for act in (lambda: to.meant("web:stable"), lambda: to.documents.known(f"{WHERE}:stable")):
        with pytest.raises(NotFoundError, match="nothing is published as"):
            act()
    registry.manifests[NEW] = present
    assert to.documents.known(f"{WHERE}:stable") == present
    assert to.documents.known("127.0.0.1:1/other:stable") is None
    registry.tags_by_name.clear()
    with pytest.raises(NotFoundError, match="nothing is published as"):
        replace(to, ledger=Legacy(to.ledger), registry=Late(registry)).meant("web:stable")  # type: ignore[arg-type]


class Late(InMemory):
    """A registry that says that nothing is there, and then answers with something that nobody signed."""

    def __init__(self, registry: InMemory) -> None:
        super().__init__(registry.settings)
        self.manifests = registry.manifests

    def get(self, reference: str) -> Manifest:
        return self.manifests[NEW]


@pytest.mark.parametrize("trusts", [("a", "b"), ("a",), ("b",)])
def test_floor_and_fleet_policy_must_both_accept_the_key(
    to: RegistryStore, monkeypatch: pytest.MonkeyPatch, trusts: tuple[str, ...]
) -> None:
    """`a` is the policy that trusts our key."""
    keys = {"a": own_keys(to.settings), "b": (KeyInMemory().trusted(),)}
    monkeypatch.setattr(
        images.registry.channel_documents, "trust_of", lambda _, policy="": Trust(keys=keys[policy or "a"])
    )
    documents = replace(to.documents, policies=trusts)
    if trusts == ("a",):
        assert documents.read(WHERE)
        return
    with pytest.raises(UnreadChannelsError, match="unknown-key"):
        documents.read(WHERE)


def test_nothing_is_pushed_that_a_key_which_does_not_count_signed(
    to: RegistryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The document that is there stays."""
    present = memory(to).tags_by_name[f"{WHERE}:channels"]
    foreign = Trust(keys=(KeyInMemory().trusted(),))
    monkeypatch.setattr(images.registry.channel_documents, "trust_of", lambda *_: foreign)
    with to.moving(WHERE), pytest.raises(UnreadChannelsError, match="unknown-key"):
        to.documents.write(WHERE, lambda one: one.revoking([OLD], NOW, "a hole"), pytest.fail)
    assert memory(to).tags_by_name[f"{WHERE}:channels"] == present


def test_channels_that_were_moved_before_they_were_signed_are_signed_by_the_night(to: RegistryStore) -> None:
    """As this ledger moved them last, with what it knows to be revoked; a tag that names something else is left out."""
    registry = memory(to)
    to.ledger.record_release(replace(release(NEW), revoked_at=NOW, revoked_reason="a hole"))
    fresh = replace(to, ledger=Legacy(to.ledger))  # type: ignore[arg-type]
    del registry.tags_by_name[f"{WHERE}:channels"]
    with pytest.raises(UnreadChannelsError, match="there is no signed document of them"):
        fresh.pointed(WHERE, "stable")
    registry.tags_by_name[f"{WHERE}:candidate"] = NEW
    assert sign_all([fresh]) == {}
    found = fresh.documents.read(WHERE)
    assert found
    assert ({name: one.digest for name, one in found.channels.items()}, set(found.revoked)) == ({"stable": OLD}, {NEW})
    with pytest.raises(UnreadChannelsError, match=r"candidate points to .* has no such channel"):
        fresh.pointed(WHERE, "candidate")


class Legacy:
    """A ledger that has not seen the document that was there before it."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger, self._seen = ledger, dict[str, Any]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ledger, name)

    def seen_channels(self, repository: str) -> Any:
        return self._seen.get(repository)

    def see_channels(self, seen: Any) -> None:
        self._seen[seen.repository] = seen


def test_each_night_signs_again_and_one_that_was_signed_just_now_stays(to: RegistryStore) -> None:
    """The expiry moves with it, the version grows, and what the channel left no longer counts as its tag."""
    point(to, release(NEW), "stable", "promote")
    first = to.documents.read(WHERE)
    assert first
    assert sign_all([at(to, NOW + DAY)]) == {}
    second = at(to, NOW + DAY).documents.read(WHERE)
    assert second
    assert (second.expires, second.channels["stable"].left) == (NOW + 8 * DAY, "")
    assert second.version > first.version
    asked, heads = memory(to).asked, memory(to).heads
    assert sign_all([at(to, NOW + DAY + DAY / 24)]) == {}
    assert (memory(to).asked, memory(to).heads) == (asked, heads + 1), "by the ledger and one HEAD alone"


@pytest.mark.parametrize("present", [OLD, ""])
def test_a_tag_that_was_put_back_is_put_right_by_the_next_night(to: RegistryStore, present: str) -> None:
    """Although the document is recent; without an answer it stays until then."""
    registry, hour = memory(to), at(to, NOW + DAY / 24)
    point(to, release(NEW), "candidate", "publish")
    point(to, release(NEW), "stable", "promote")
    to.sign(WHERE, recover=True)
    version = to.ledger.seen_channels(WHERE)
    registry.tags_by_name[f"{WHERE}:stable"] = present
    registry.silent = True
    assert sign_all([hour]) == {}
    assert tags(to)["stable"] == present
    registry.silent = False
    assert sign_all([hour]) == {}
    assert hour.pointed(WHERE, "stable")[0] == tags(to)["stable"] == NEW
    assert to.ledger.seen_channels(WHERE) == version, "nothing is signed for that"
    registry.tags_by_name[f"{WHERE}:candidate"] = OLD
    with pytest.raises(UnreadChannelsError):  # for which a night publishes it again
        hour.pointed(WHERE, "candidate")
    point(hour, release(NEW), "candidate", "publish")
    assert hour.pointed(WHERE, "candidate")[0] == tags(to)["candidate"] == NEW


def test_nothing_is_signed_where_nothing_is_published(to: RegistryStore) -> None:
    """But where somebody put a document there, which would keep the first publication from it."""
    where = "127.0.0.1:1/app"
    writes = memory(to).writes
    assert to.sign(where, recover=True) == ("nothing is published",)
    assert memory(to).writes == writes
    memory(to).tags_by_name[f"{where}:channels"] = NEW
    with pytest.raises(UnreadChannelsError, match="malformed"):
        point(to, replace(release(OLD), repository=where), "candidate", "publish")
    assert to.sign(where, recover=True)[0] == "0 revoked"
    point(to, replace(release(OLD), repository=where), "candidate", "publish")


def test_what_cannot_be_signed_stops_no_other(to: RegistryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is named by its repository; the next one of the same worker is signed all the same."""
    first, signed = "127.0.0.1:1/app", list[str]()
    point(to, replace(release(OLD), repository=first), "candidate", "publish")

    def sign(_: RegistryStore, repository: str) -> None:
        if repository == first:
            raise RefusedError("no")
        signed.append(repository)

    monkeypatch.setattr(RegistryStore, "sign", sign)
    monkeypatch.setattr("images.release.channels.SIGNERS", 1)
    assert {repository: str(error) for repository, error in sign_all([to]).items()} == {first: "no"}
    assert signed == [WHERE]


def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The repositories whose documents are read from now on."""
    reads, read = list[str](), ChannelDocuments.read

    def reading(documents: ChannelDocuments, repository: str) -> Any:
        reads.append(repository)
        return read(documents, repository)

    monkeypatch.setattr(ChannelDocuments, "read", reading)
    return reads


def test_earlier_releases_are_looked_up_in_one_document(to: RegistryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are."""
    memory(to).manifests[THIRD] = Manifest(THIRD, "", 1, {"schemaVersion": 2})
    for digest in (NEW, THIRD):
        point(to, release(digest), "stable", "promote")
    with to.moving(WHERE):
        to.documents.write(WHERE, lambda one: one.revoking([NEW], NOW, "a hole"), pytest.fail)
    monkeypatch.setattr(RegistryStore, "find", lambda _, __, digest: release(digest))
    reads = counted(monkeypatch)
    earlier = images.release.channels._earlier(to, WHERE, "stable", THIRD)
    assert [(one.digest, one.revoked_reason) for one in earlier] == [(NEW, "a hole"), (OLD, "")]
    assert reads == [WHERE]


@REGISTRY
def test_a_release_is_shown_by_one_document(begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its revocation and all of its channels."""
    to, (one, two) = begin(promoted, ("one", 0), ("two", 1))
    reads = counted(monkeypatch)
    shown = [at(to, NOW + DAY).show(f"{release.repository}@{release.digest}").channels for release in (one, two)]
    assert shown == [("candidate-previous", "stable-previous"), ("candidate", "stable")]
    assert reads == [one.repository] * 2


@REGISTRY
def test_a_registry_writer_moves_no_channel_and_hides_no_revocation(begin: Begin, tmp_path: Path) -> None:
    """In a real registry: forward to an unpromoted candidate, back to what was rolled back from, back with an older
    document, and without any. Nothing is promoted or rolled back by that, and one command puts the tags right.
    """
    to, (one, two) = begin(promoted, ("one", 0), ("two", 1))
    to, where = at(to, NOW + DAY), one.repository
    old = to.registry.get(f"{where}:channels")
    rollback(to, "web", reason="two loses data")
    later = at(to, NOW + 2 * DAY)
    third = published(to, "three", 2)
    assert later.pointed(where, "stable")[0] == one.digest
    for evil in (third.digest, two.digest):
        to.registry.tag(where, evil, "stable")
        moves: tuple[Callable[[], object], ...] = (
            lambda: rollback(later, "web"), lambda: later.pointed(where, "stable"),
        )  # fmt: skip
        for act in moves:
            with pytest.raises(UnreadChannelsError, match=r"stable points to .* its signed document names"):
                act()
        assert "stable points to" in later.show("web").channels_unread
        assert f"stable → {one.digest[:19]}" in later.sign(where, recover=True)
        assert to.registry.get(f"{where}:stable").digest == to.registry.named_by(f"{where}:stable") == one.digest
        assert to.registry.named_by(f"{where}:nothing") == ""
        assert "stable" in later.show("web").channels
    revoke(later, f"{where}@{third.digest}", "a hole")
    with closing(publisher(to.registry.address, tmp_path / "new", NOW + 2 * DAY, keys_of=tmp_path).ledger) as ledger:
        new = replace(later, ledger=ledger)
        assert new.revoked(third).revoked_reason == "a hole"
        assert rebuild(new)[1] == ()
        assert [move.digest for move in ledger.moves(where, "stable")] == [one.digest]
        present = to.registry.get(f"{where}:channels").digest
        to.registry.delete(where, present)
        refused: tuple[Callable[[], object], ...] = (
            lambda: new.revoked(one), lambda: promote(new, "web", "default", gate()),
        )  # fmt: skip
        for act in refused:
            with pytest.raises(UnreadChannelsError, match="there is no signed document of them"):
                act()
        assert f"stable → {one.digest[:19]}" in at(new, NOW + 3 * DAY).sign(where)
    assert old.digest != present


@REGISTRY
def test_a_lost_ledger_takes_no_expired_document_unless_a_person_signs_it_again(begin: Begin, tmp_path: Path) -> None:
    """Freshness is bounded by the expiry; by hand what it says counts, and then the ledger is filled."""
    to, (one,) = begin(promoted, ("one", 0))
    late = publisher(to.registry.address, tmp_path / "new", NOW + 8 * DAY, keys_of=tmp_path)
    with closing(late.ledger):
        _, [error] = rebuild(late)
        assert "its document expired on 2026-12-02 12:00 UTC" in error.message
        with pytest.raises(UnreadChannelsError, match="expired"):
            late.sign(one.repository)
        assert f"stable → {one.digest[:19]}" in late.sign(one.repository, recover=True)
        assert rebuild(late)[1] == ()
        assert late.pointed(one.repository, "stable")[0] == one.digest


@REGISTRY
def test_channels_of_an_older_version_are_signed_by_hand_as_their_tags_say(begin: Begin, tmp_path: Path) -> None:
    """With a ledger that knows nothing of them: what proves itself is taken, and what does not is left out."""
    to, (one,) = begin(promoted, ("one", 0))
    to.registry.delete(one.repository, to.registry.get(f"{one.repository}:channels").digest)
    for keys, says in ((tmp_path, 2), (None, 0)):
        new = publisher(to.registry.address, tmp_path / f"new{says}", NOW + DAY, keys_of=keys)
        signer(new.settings, NOW.date())
        with closing(new.ledger):
            with pytest.raises(UnreadChannelsError, match=r"nor this ledger says|unknown-key"):
                new.sign(one.repository)
            assert len([line for line in new.sign(one.repository, recover=True) if "→" in line]) == says
