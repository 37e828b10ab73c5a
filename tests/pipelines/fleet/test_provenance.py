"""Where members' images come from is what their engine runs and their layers show, not what an image says of itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from hardening.foundation.errors import MalformedError, RefusedError
from images.context import Context
from images.registry.client import RegistryClient
from images.store.oci import MANIFEST
from images.trust.channel_document import UnreadChannelsError
from images.trust.verification import Fault, UntrustedError
from pipelines.fleet.docker.provenance import ProvenanceReader
from pipelines.fleet.members import Member, Seen
from pipelines.fleet.model import Fleet
from pipelines.rollout.session import UNREAD, FleetSession, check
from tests.images.registry.test_hostile_registry import DATES, OCI_CONFIG, Stage, sign
from tests.support.fleets import fleet
from tests.support.hostile import hostile
from tests.support.publishing import DAY, NOW
from tests.support.signing import KeyInMemory

pytestmark = pytest.mark.needs("skopeo")
BASE, MORE, OTHER = (f"sha256:{number:064x}" for number in (11, 12, 13))
ANNOTATION = "org.opencontainers.image.base.digest"


@dataclass
class Place:
    """A registry under our hands, and a fleet whose images are in it."""

    stage: Stage
    context: Context

    @property
    def fleet(self) -> Fleet:
        return fleet(replacement={"definition": "web"}).model_copy(update={"policy": "default"})

    def origins(self, fleet: Fleet | None = None) -> ProvenanceReader:
        return ProvenanceReader(fleet or self.fleet, self.context, (), NOW, self.stage.registry)

    def image(self, name: str, layers: tuple[str, ...], user: str = "", **annotations: str) -> str:
        """Serve an image whose unpacked layers are these, and which sets this user; its digest."""
        told: dict[str, Any] = {"rootfs": {"type": "layers", "diff_ids": layers}, "name": name}
        config = json.dumps(told | ({"config": {"User": user}} if user else {})).encode()
        described = {**self.stage.blob(config), "mediaType": OCI_CONFIG}
        return self.stage.manifest(name, {"schemaVersion": 2, "mediaType": MANIFEST, "config": described, "layers": [],
                                          "annotations": annotations})  # fmt: skip

    def golden(self) -> str:
        """Serve a release of the golden image `web` over one layer; the digest of its content."""
        content = self.image("golden", (BASE,))
        self.release = self.stage.release(self.stage.child(content))
        sign(self.stage, self.release)
        self.stage.server["/v2/web/manifests/stable"] = self.stage.server.routes["/v2/web/manifests/candidate"]
        self.stage.channels(**dict.fromkeys(("candidate", "stable"), self.release.partition("@")[2]))
        found = self.stage.registry.get(self.release)
        made = replace(self.origins()._published(self.stage.repository, found.digest) or pytest.fail("no release"))
        self.context.ledger.record_release(made)
        return content

    def member(self, name: str, digest: str, *layers: str) -> Member:
        return Member(f"host/local/docker/{name}", name, name, f"{self.stage.repository}@{digest}", (digest,), layers)

    def session(self, *members: Member) -> FleetSession:
        return FleetSession(self.fleet, self.context, None, lambda: NOW, self.stage.registry.address,  # type: ignore[arg-type]
                    lambda _waivers, _now: self.origins(), lambda: Seen(members))  # fmt: skip


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with hostile() as server:
        stage = Stage(server, tmp_path)
        context = Context(stage.settings, NOW, lambda: "", lambda: server.authority)
        with closing(context.ledger):
            yield Place(stage, context)


def test_a_golden_base_is_known_by_its_layers_and_not_by_its_name_alone(place: Place) -> None:
    """An image that claims a golden base, and holds none of it, comes from nowhere; the one that holds it is known."""
    content = place.golden()
    honest = place.image("app", (BASE, MORE), **{ANNOTATION: content})
    for layers in ((OTHER, MORE), (MORE, BASE), (), (OTHER,)):
        liar = place.image("liar", layers, **{ANNOTATION: content})
        assert place.origins().of(place.member("liar", liar, *layers)).golden is None
    base = place.origins().of(place.member("app", honest, BASE, MORE)).base
    assert base
    assert base.content == content


def test_what_is_known_of_an_image_is_asked_once_for_all_its_members(place: Place) -> None:
    """However many run it; of a release as of an image that only stands on one."""
    content, asked = place.golden(), list[int]()
    event.listen(place.context.ledger._engine, "begin", lambda _: asked.append(1))
    app = place.image("app", (BASE, MORE), **{ANNOTATION: content})
    for digest, layers in ((content, (BASE,)), (app, (BASE, MORE))):
        origins = place.origins()
        first = origins.of(place.member("web-1", digest, *layers))
        assert first.golden
        assert asked
        asked.clear()
        assert origins.of(place.member("web-2", digest, *layers)) is first
        assert asked == []


def test_a_replacement_by_tag_is_known_by_its_layers_too(place: Place) -> None:
    """What a fleet's own tag names is asked for its layers before it may replace anything."""
    content = place.golden()
    for layers, known in (((BASE, MORE), True), ((OTHER, MORE), False)):
        place.image("shop", layers, **{ANNOTATION: content})
        by_tag = place.fleet.model_copy(
            update={"replacement": place.fleet.replacement.model_copy(
                update={"definition": None, "tag": f"{place.stage.repository}:shop"})}
        )  # fmt: skip
        assert (place.origins(by_tag).target().golden is not None) is known


def test_what_only_the_registry_calls_a_release_becomes_nobodys_replacement(place: Place) -> None:
    """Whoever may push can write dates and move a tag; a key of ours signed what is ours, which no ledger must know."""
    content = place.image("golden", (BASE,))
    reference = place.stage.release(place.stage.child(content))
    place.stage.server["/v2/web/manifests/stable"] = place.stage.server.routes["/v2/web/manifests/candidate"]
    with pytest.raises(UnreadChannelsError, match="there is no signed document of them"):
        place.origins().target()
    place.stage.channels(**dict.fromkeys(("candidate", "stable"), reference.partition("@")[2]))
    with pytest.raises(UntrustedError) as caught:
        place.origins().target()
    assert caught.value.fault is Fault.UNSIGNED
    seen = place.member("web-1", reference.partition("@")[2], BASE)
    assert place.origins().of(seen).golden is None, "of unknown origin"
    sign(place.stage, reference)
    assert place.origins().target().golden
    assert place.origins().of(seen).golden


def test_a_release_that_the_ledger_knows_proves_itself_before_it_replaces_anything(place: Place) -> None:
    """Its attestations are asked before each wave, by whoever asks then; once for each who does."""
    place.golden()
    target = place.origins().target()
    place.stage.index(place.release.partition("@")[2].replace(":", "-"))
    with pytest.raises(UntrustedError) as caught:
        place.origins().again(target)
    assert caught.value.fault is Fault.UNSIGNED


def newer(place: Place, **more: str) -> str:
    """Serve a release of the day after the golden one, over another layer, signed, to which `stable` points."""
    child = place.stage.child(place.image("newer", (MORE,)))
    dates = DATES | {"org.opencontainers.image.created": "2026-11-26T12:00:00Z"} | more
    digest = place.stage.index("stable", child, annotations=dates)
    sign(place.stage, f"{place.stage.repository}@{digest}")
    return digest


def retag(place: Place, digest: str) -> None:
    """Move the tag `stable` as whoever may push can."""
    place.stage.server["/v2/web/manifests/stable"] = place.stage.server.routes[f"/v2/web/manifests/{digest}"]


def replay(place: Place, document: Any) -> None:
    """Serve a channel document again that was served before."""
    place.stage.server["/v2/web/manifests/channels"] = document


@dataclass
class Attack:
    """What whoever may push does to `stable`, which points to `new`, since it left `old`; what is read of it then."""

    act: Callable[[Place, str, str], None]
    why: str


def candidate_forward(place: Place, old: str, new: str) -> None:
    """Move `stable` to a release that was never promoted."""
    dates = DATES | {"org.opencontainers.image.created": "2026-11-27T12:00:00Z"}
    unpromoted = place.stage.index("evil", place.stage.child(place.image("more", (OTHER,))), annotations=dates)
    sign(place.stage, f"{place.stage.repository}@{unpromoted}")
    retag(place, unpromoted)


def document_back(place: Place, old: str, new: str) -> None:
    """Bring back both the document of yesterday and the tag."""
    place.stage.channels(stable=old, issued=NOW - DAY)
    retag(place, old)
    assert new


def other_repository(place: Place, old: str, new: str) -> None:
    """Serve the document of another repository, which the same key signed."""
    place.stage.channels(stable=old, issued=NOW, repository=f"{place.stage.registry.address}/other")
    retag(place, old)
    assert new


def own_key(place: Place, old: str, new: str) -> None:
    """Sign the document with a key of one's own."""
    place.stage.channels(stable=old, issued=NOW, key=KeyInMemory())
    retag(place, old)
    assert new


def withheld(place: Place, old: str, new: str) -> None:
    """Remove the document."""
    replay(place, place.stage.server.fallback)
    assert old != new


ATTACKS = {
    "forward to a candidate": Attack(candidate_forward, "stable points to .* its signed document names"),
    "back by its tag": Attack(lambda place, old, _: retag(place, old), "stable points to .* its signed document names"),
    "back by its document": Attack(document_back, "its document is older than one that was seen"),
    "another repository's document": Attack(other_repository, "is that of .*/other"),
    "another key": Attack(own_key, "unknown-key"),
    "no document": Attack(withheld, "there is no signed document of them"),
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_a_channel_that_a_registry_writer_changed_is_unread(place: Place, attack: Attack) -> None:
    """Members are not superseded by what it names then, nothing is rolled to it, and the hint says what to do."""
    place.golden()
    old, new = place.release.partition("@")[2], newer(place)
    place.stage.channels(stable=new, left=old, issued=NOW - DAY / 2)
    session = place.session(place.member("web-1", new, MORE))
    assert place.origins().target().digest == new
    assert [UNREAD in one.rules for one in check(session)] == [False]
    attack.act(place, old, new)
    with pytest.raises(UnreadChannelsError, match=attack.why) as no:
        place.origins().target()
    assert "./goldsmith image.sign-channels web" in no.value.hint
    (one,) = check(session)
    assert one.origin.latest is None
    assert one.rules == {UNREAD}
    assert "the channels of" in one.member.cannot_roll


def test_a_tag_that_has_not_followed_its_document_yet_is_no_attack(place: Place) -> None:
    """The document goes first: what it names counts while the tag is on its way, and when the tag is gone."""
    place.golden()
    old, new = place.release.partition("@")[2], newer(place)
    retag(place, old)
    place.stage.channels(stable=new, left=old, issued=NOW)
    assert place.origins().target().digest == new
    place.stage.server["/v2/web/manifests/stable"] = place.stage.server.fallback
    assert place.origins().target().digest == new


def test_a_ledger_that_saw_nothing_yet_learns_of_a_revocation_and_takes_no_expired_document(place: Place) -> None:
    """What it does not know is bounded by the expiry."""
    content = place.golden()
    new = place.release.partition("@")[2]
    place.stage.channels([content], stable=new, issued=NOW)
    (one,) = check(place.session(place.member("web-1", new, BASE)))
    assert "revoked" in one.rules
    place.stage.channels(stable=new, issued=NOW + DAY / 4, expires=NOW + DAY / 2)
    later = place.origins()
    with pytest.raises(UnreadChannelsError, match=r"its document expired on 2026-11-26 00:00 UTC"):
        replace(later, now=NOW + DAY / 2).target()


def test_a_channel_that_names_another_definitions_release_is_not_believed(place: Place) -> None:
    """That is signed too, and is no replacement for this one."""
    place.golden()
    other = newer(place, **{"org.opencontainers.image.title": "shell"})
    place.stage.channels(stable=other)
    with pytest.raises(RefusedError, match=r"what .*/web:stable points to calls itself shell"):
        place.origins().target()
    (one,) = check(place.session(place.member("web-1", place.release.partition("@")[2], BASE)))
    assert one.rules == {UNREAD}


def by_tag(place: Place) -> ProvenanceReader:
    """Who answers for a fleet whose replacement is the golden repository's own tag."""
    tag = {"definition": None, "tag": f"{place.stage.repository}:candidate"}
    replacement = place.fleet.replacement.model_copy(update=tag)
    return place.origins(place.fleet.model_copy(update={"replacement": replacement}))


def test_a_release_by_its_tag_proves_itself_also_where_its_content_was_dated_anew(place: Place) -> None:
    """What is told of it is the newest date over its content; what is pulled is itself."""
    place.golden()
    digest = place.release.partition("@")[2]
    known: Any = place.context.ledger.release(digest)
    later = {"published_at": known.published_at + DAY, "expires_at": known.expires_at + DAY}
    place.context.ledger.record_release(replace(known, digest=f"sha256:{5:064x}", **later))
    target = by_tag(place).target()
    assert target.golden
    assert target.golden.digest != digest == target.digest
    place.stage.index(digest.replace(":", "-"))
    for act in (by_tag(place).target, lambda: by_tag(place).again(target)):
        with pytest.raises(UntrustedError) as caught:
            act()
        assert caught.value.fault is Fault.UNSIGNED


def test_a_tag_that_names_an_unsigned_release_on_a_golden_one_is_refused(place: Place) -> None:
    """It calls itself a release, and would else pass for an application on the golden base."""
    content = place.golden()
    mine = place.image("mine", (BASE, MORE), **{ANNOTATION: content})
    place.stage.release(place.stage.child(mine))
    with pytest.raises(UntrustedError) as caught:
        by_tag(place).target()
    assert caught.value.fault is Fault.UNSIGNED


def test_what_is_judged_is_what_the_engine_runs(place: Place) -> None:
    """A release whose first child is for another platform is judged by ours; with a choice of two it is refused."""
    good, evil = place.image("good", (BASE,)), place.image("evil", (OTHER,))
    reference = place.stage.release(place.stage.child(good, "linux/arm64"), place.stage.child(evil))
    sign(place.stage, reference)
    seen = place.origins().of(place.member("web-1", reference.partition("@")[2], OTHER))
    assert seen.release
    assert seen.release.content == evil
    choice = place.stage.release(place.stage.child(good), place.stage.child(evil))
    with pytest.raises(MalformedError, match="has 2 manifests for linux/amd64"):
        place.origins().of(place.member("web-1", choice.partition("@")[2], BASE))


def test_a_malformed_answer_costs_one_member_and_no_fleet(place: Place) -> None:
    """A list of referrers that is none, a base that is no digest, a name that is no repository: each its own member."""
    place.golden()
    digest = place.release.partition("@")[2]
    bad_base = place.image("bad-base", (OTHER,), **{ANNOTATION: "sha256:../../x"})
    name = {f"{ANNOTATION.removesuffix('digest')}name": f"{place.stage.server.authority}/../--x"}
    bad_name = place.image("bad-name", (OTHER,), **{ANNOTATION: f"sha256:{9:064x}"}, **name)
    twice = place.stage.release(place.stage.child(f"sha256:{1:064x}"), place.stage.child(f"sha256:{2:064x}"))
    members = [
        place.member("web-1", digest, BASE),
        place.member("web-2", bad_base, OTHER),
        place.member("web-3", bad_name, OTHER),
        place.member("web-4", twice.partition("@")[2], OTHER),
    ]
    place.context.ledger.seen_fleet("web", {"web-9": BASE}, NOW)
    judged = {one.member.name: one for one in check(place.session(*members))}
    assert [name for name, one in judged.items() if UNREAD in one.rules] == ["web-2", "web-3", "web-4"]
    assert UNREAD not in judged["web-1"].rules
    assert all(judged[name].member.cannot_roll for name in ("web-2", "web-3", "web-4"))
    assert place.context.ledger.running_digests() == {BASE: ("web/web-9",)}, "what it last saw whole"


@pytest.mark.parametrize("subject", ["release", "content"])
def test_a_member_whose_image_was_revoked_elsewhere_is_revoked(place: Place, subject: str) -> None:
    """The ledger of this machine knows the release as good; the registry is asked, by release and by content."""
    content = place.golden()
    digest = place.release.partition("@")[2]
    place.stage.channels([digest if subject == "release" else content], stable=digest)
    (one,) = check(place.session(place.member("web-1", digest, BASE)))
    assert "revoked" in one.rules


def test_a_member_on_a_revoked_base_is_revoked(place: Place) -> None:
    """The golden image that it runs stands on one that was revoked; by the ledger alone."""
    place.golden()
    digest = place.release.partition("@")[2]
    known: Any = place.context.ledger.release(digest)
    base = replace(known, name="base", repository="aws/base", digest=f"sha256:{1:064x}", content=f"sha256:{2:064x}")
    place.context.ledger.record_release(replace(known, base_name="base", base_digest=base.content))
    place.context.ledger.record_release(replace(base, revoked_at=NOW, revoked_reason="a hole"))
    (one,) = check(place.session(place.member("web-1", digest, BASE)))
    assert "its base base was revoked: a hole" in next(r.what for r in one.reasons if r.rule == "revoked")
    target = place.origins().target()
    assert target.golden
    assert target.golden.revoked_at


def test_the_registry_of_a_tag_is_asked_as_what_it_is(place: Place) -> None:
    """A fleet's tag in another registry is asked by HTTPS, though our own is on loopback."""
    assert RegistryClient(place.stage.server.authority, place.stage.settings)._access("other.example/web:one", "") == []
