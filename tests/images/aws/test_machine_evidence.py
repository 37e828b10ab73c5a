"""The evidence of a machine's release: complete, read by strangers, and asked wherever the release is used."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

import images.aws.publish
from hardening.foundation.errors import ContentError, OutsideError, UsageError
from hardening.foundation.process import run
from hardening.trust import PREDICATES
from images.artifact import Release
from images.aws.cloud import Cloud
from images.aws.machine_evidence import evidence_at, in_registry
from images.aws.release_store import AwsStore, channel_name
from images.context import Context
from images.registry.attestations import bundles
from images.registry.channel_documents import ChannelDocuments
from images.registry.client import RegistryClient
from images.registry.referrers import attached, detach_all
from images.registry.release_store import RegistryStore
from images.registry.releases import MACHINE_RELEASE, release_at
from images.release import lifecycle
from images.release.channels import point, promote, rebuild, revoke, rollback, sign_all
from images.release.stores import evidence_reference
from images.trust.channel_document import UnreadChannelsError
from images.trust.envelope import BUNDLE
from images.trust.verification import Fault, UntrustedError
from pipelines.cli import signing
from pipelines.fleet.ec2.provenance import AmiProvenance
from pipelines.rollout.session import fleet_session
from tests.strict_aws import StrictAws
from tests.support.cloud import DAY, HOME, at, cloud_for, disk, publish, settings_at
from tests.support.ec2 import FLEET_FILE
from tests.support.publishing import gate, running_registry

pytestmark = [pytest.mark.slow, pytest.mark.needs("docker-registry", "skopeo")]
NAME = "debian-server"


@pytest.fixture
def cloud(aws: StrictAws, tmp_path: Path) -> Iterator[Cloud]:
    """A cloud of one region whose evidence stands in a registry."""
    with running_registry(tmp_path / "registry") as address:
        made = cloud_for(settings_at(aws, tmp_path, regions=()))
        yield replace(made, open_registry=lambda: RegistryClient(address, made.settings))
        made.ledger.close()


def registry_of(cloud: Cloud) -> RegistryClient:
    assert cloud.registry
    return cloud.registry


def context_of(cloud: Cloud, root: Path) -> Context:
    """A context over this cloud and a content root with the fleet of `FLEET_FILE`."""
    (folder := root / "pipelines" / "fleets").mkdir(parents=True)
    (folder / "shop.toml").write_text(FLEET_FILE)
    settings = cloud.settings.model_copy(update={"content": (root,)})
    context = Context(settings, cloud.now, lambda: "", lambda: registry_of(cloud).address, actor="ann")
    context.__dict__.update(ledger=cloud.ledger, cloud=cloud)
    return context


@pytest.mark.needs("cosign", "oras")
def test_a_release_carries_what_a_containers_does(cloud: Cloud, tmp_path: Path) -> None:
    """Every kind of evidence by one key, under the release's own digest, and others list and pull it."""
    release, registry = publish(cloud, disk()).release, registry_of(cloud)
    shown = AwsStore(cloud).show(NAME)
    assert (shown.proven, shown.untrusted) == (True, "")
    assert {one.predicate_type for one in shown.attestations} >= set(PREDICATES.values())
    assert len({one.key for one in shown.attestations}) == 1
    where = in_registry(registry, release)
    reference = f"{where.repository}@{release.digest}"
    manifest = registry.get(reference)
    assert manifest.data["artifactType"] == MACHINE_RELEASE
    told = release_at(registry, reference)
    assert told == where  # as whoever has the registry alone reads it
    plain = ["--plain-http", "--distribution-spec", "v1.1-referrers-tag"]
    found = json.loads(run(["oras", "discover", *plain, "--format", "json", reference]).stdout)
    listed = found.get("referrers") or found["manifests"]
    assert len([one for one in listed if one["artifactType"] == BUNDLE]) == len(shown.attestations)
    public = next((cloud.settings.state_dir / "keys").glob("*.pub"))
    run(["cosign", "trusted-root", "create", "--out", str(tmp_path / "root.json")])
    options = ["--new-bundle-format", "--insecure-ignore-tlog=true", "--trusted-root", str(tmp_path / "root.json"),
               "--allow-insecure-registry", "--allow-http-registry", "--type", PREDICATES["provenance"]]  # fmt: skip
    argv = ["cosign", "verify-attestation", "--key", str(public), *options, reference]
    assert run(argv, env={"COSIGN_EXPERIMENTAL": "1", "HOME": str(tmp_path)}).status == 0


def test_published_again_it_is_the_same_release(cloud: Cloud) -> None:
    """Nothing is attached twice; what is gone from the registry is attached again, with new dates."""
    first, registry = publish(cloud, disk()), registry_of(cloud)
    where = in_registry(registry, first.release)
    listed = attached(registry, where.repository, first.release.digest)
    assert publish(cloud, disk()).action == "unchanged"
    assert attached(registry, where.repository, first.release.digest) == listed
    detach_all(registry, where.repository, first.release.digest)
    again = publish(at(cloud, cloud.now + DAY), disk())
    assert again.action == "re-dated"
    assert bundles(registry, where.repository, again.release.digest)


def test_killed_before_its_images_are_made_it_is_taken_up(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """The evidence stands first; the next run makes the images of the same release and attaches nothing twice."""
    with monkeypatch.context() as patched:
        patched.setattr(images.aws.publish, "ensure_snapshot", lambda *_: (_ for _ in ()).throw(OutsideError("gone")))
        with pytest.raises(OutsideError, match="gone"):
            publish(cloud, disk())
    [begun] = cloud.ledger.open_publications(cloud.repository(NAME))
    registry = registry_of(cloud)
    before = attached(registry, registry.repository(NAME), begun.release.digest)
    assert before
    done = publish(cloud, disk()).release
    assert done == begun.release
    assert attached(registry, registry.repository(NAME), done.digest) == before


def strip(cloud: Cloud, release: Release) -> None:
    """Take the evidence of a release away, as whoever may write to the registry can."""
    registry = registry_of(cloud)
    detach_all(registry, registry.repository(NAME), release.digest)


def test_without_evidence_nothing_uses_it(cloud: Cloud, tmp_path: Path) -> None:
    """Promotion, rollback, rollouts, a lost ledger and `verify-trust` refuse a release that proves nothing."""
    one = publish(cloud, disk(seed=1)).release
    promote(AwsStore(cloud), NAME, "default", gate())
    later = at(cloud, cloud.now + DAY)
    two = publish(later, disk(seed=2)).release
    strip(cloud, two)
    with pytest.raises(UntrustedError, match="not trusted") as refused:
        promote(AwsStore(later), NAME, "default", gate())
    assert refused.value.fault is Fault.UNSIGNED
    context = context_of(later, tmp_path / "root")
    with (
        fleet_session("shop", context, now=lambda: later.now) as session,
        pytest.raises(UntrustedError, match="unsigned"),
    ):
        session.origins().target()
    shown = AwsStore(later).show(f"{NAME}:candidate")
    assert shown.proven
    assert "unsigned" in shown.untrusted
    assert shown.attestations == ()
    with closing(cloud_for(later.settings.model_copy(update={"state": tmp_path / "new"})).ledger) as empty:
        new = replace(later, ledger=empty)
        found, errors = rebuild(AwsStore(new))
        assert [release.digest for release in found] == [one.digest]
        assert [type(error) for error in errors] == [UntrustedError]
        assert empty.artifact_over(one.content)
        assert empty.release(two.digest) is None
    strip(cloud, one)
    with pytest.raises(UntrustedError):
        rollback(AwsStore(later), NAME, channel="candidate")


def test_retired_its_evidence_goes_with_its_last_image(cloud: Cloud) -> None:
    """Nothing of a release that is gone is left in the registry."""
    release, registry = publish(cloud, disk()).release, registry_of(cloud)
    [line] = cloud.made(kind="image", release=release.digest)
    cloud.client("ec2").call("DeregisterImage", ImageId=line.resource)
    AwsStore(cloud).retire(apply=True)
    assert registry.find(f"{registry.repository(NAME)}@{release.digest}") is None
    assert attached(registry, registry.repository(NAME), release.digest) == ()


def test_a_repeated_revocation_keeps_its_day(cloud: Cloud) -> None:
    """Other tools then read one end of life, as the signed document has it."""
    release, registry = publish(cloud, disk()).release, registry_of(cloud)
    ends = list[list[str]]()
    for day in (1, 2):
        revoke(AwsStore(at(cloud, cloud.now + day * DAY)), release.digest, "a back door")
        listed = attached(registry, registry.repository(NAME), release.digest)
        key = lifecycle.END_OF_LIFE
        ends.append([line.annotations[key] for line in listed if key in line.annotations])
    assert f"{cloud.now + DAY:%Y-%m-%d}" in ends[0]
    assert ends[0] == ends[1]


def test_a_rollout_takes_what_is_proved(cloud: Cloud, tmp_path: Path) -> None:
    """With its evidence the same release is a target."""
    release = publish(cloud, disk()).release
    with fleet_session("shop", context_of(cloud, tmp_path / "root"), now=lambda: cloud.now) as session:
        assert session.origins().target().digest == release.digest


def test_a_channel_that_somebody_moved_by_its_parameter_is_unread(cloud: Cloud, tmp_path: Path) -> None:
    """Nothing is rolled to what it names, nothing promoted and nothing verified, until it is put right by the document
    in the registry, which the parameter follows; as after a run that was killed before it moved it.
    """
    one = publish(cloud, disk(seed=1)).release
    later = at(cloud, cloud.now + DAY)
    two = publish(later, disk(seed=2)).release
    parameter = channel_name(cloud, NAME, "candidate")
    asked = {"Value": ami_of(cloud, one), "Type": "String", "DataType": "aws:ec2:image", "Overwrite": True}
    cloud.client("ssm").call("PutParameter", Name=parameter, **asked)
    context = context_of(at(later, later.now + DAY / 24), tmp_path / "root")
    store = AwsStore(context.cloud)
    with fleet_session("shop", context, now=lambda: context.now) as session:
        for act in (
            lambda: session.origins().target(), lambda: promote(store, NAME, "default", gate()),
            lambda: store.named(f"{NAME}:candidate"),
        ):  # fmt: skip
            with pytest.raises(UnreadChannelsError, match=r"candidate points to .* its signed document names"):
                act()
        assert f"candidate → {two.digest[:19]}" in store.sign(two.repository, recover=True)
        assert session.origins().target().digest == two.digest
    assert store.named(f"{NAME}:candidate").digest == two.digest


def test_a_parameter_that_was_put_back_is_put_right_by_the_next_night(cloud: Cloud) -> None:
    """Although the document is recent; nothing is signed for that."""
    one = publish(cloud, disk(seed=1)).release
    later = at(cloud, cloud.now + DAY)
    two, store = publish(later, disk(seed=2)).release, AwsStore(at(cloud, cloud.now + DAY + DAY / 24))
    assert sign_all([AwsStore(later)]) == {}
    seen = cloud.ledger.seen_channels(registry_of(cloud).repository(NAME))
    asked = {"Value": ami_of(cloud, one), "Type": "String", "DataType": "aws:ec2:image", "Overwrite": True}
    cloud.client("ssm").call("PutParameter", Name=channel_name(cloud, NAME, "candidate"), **asked)
    assert sign_all([store]) == {}
    assert store.pointed(two.repository, "candidate")[0] == store.tagged(two.repository, "candidate") == two.digest
    assert cloud.ledger.seen_channels(registry_of(cloud).repository(NAME)) == seen


@pytest.mark.parametrize("act", ["sign", "promote"])
def test_another_move_waits_until_parameters_and_ledger_follow(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    """Document, parameter and the ledger's last move then name the same release, also when a parameter has no time
    left.
    """
    _, two, three = (publish(at(cloud, cloud.now + day * DAY), disk(seed=day)).release for day in (1, 2, 3))
    store = AwsStore(at(cloud, cloud.now + 3 * DAY))
    other = Thread(target=lambda: point(store, three, "candidate", "promote"))
    lead = AwsStore._lead

    def interrupted(it: AwsStore, *rest: Any) -> None:
        if other.ident is None:
            other.start()
            other.join(3)
        lead(it, *rest)

    point(store, two, "candidate", "rollback")
    registry = registry_of(cloud)
    monkeypatch.setattr(AwsStore, "_lead", interrupted)
    if act == "sign":
        one_back = {"Value": ami_of(cloud, three), "Type": "String", "DataType": "aws:ec2:image", "Overwrite": True}
        cloud.client("ssm").call("PutParameter", Name=channel_name(cloud, NAME, "candidate"), **one_back)
        store.sign(two.repository, recover=True)
    else:
        point(store, two, "candidate", "promote")
    other.join()
    after = AwsStore(at(cloud, cloud.now + 3 * DAY + DAY / 24))
    document = ChannelDocuments(registry, cloud.ledger, after.now).read(registry.repository(NAME))
    assert document
    assert document.channels["candidate"].digest == three.digest
    assert after.pointed(two.repository, "candidate")[0] == after.tagged(two.repository, "candidate") == three.digest
    assert [move.digest for move in cloud.ledger.moves(two.repository, "candidate")][-1] == three.digest


def ami_of(cloud: Cloud, release: Release) -> str:
    """The image of a release at home."""
    [line] = cloud.made(kind="image", release=release.digest)
    return line.resource


def test_verify_trust_takes_a_machines_name(
    cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The channel at AWS names the release, the registry proves it; revoked, strangers are told too."""
    release = publish(cloud, disk()).release
    context = context_of(cloud, tmp_path / "root")
    context.__dict__["settings"] = cloud.settings
    monkeypatch.setattr(signing, "image_context", lambda: context)
    monkeypatch.setattr("images.release.stores.store_of", lambda *_: AwsStore(cloud))
    lines = signing.verify_trust(f"{NAME}:candidate", "")
    assert {line.digest for line in lines} == {release.digest}
    assert {line.attestation for line in lines} >= set(PREDICATES.values())
    assert f"{NAME}:candidate is trusted" in capsys.readouterr().err
    revoke(AwsStore(cloud), release.digest, "a back door")
    registry = registry_of(cloud)
    told = ChannelDocuments(registry, cloud.ledger, cloud.now).revocation()
    assert told(registry.repository(NAME), release.digest) == (cloud.now, "a back door")
    with pytest.raises(UntrustedError, match="a back door"):
        signing.verify_trust(f"{NAME}:candidate", "")


def without_registry(cloud: Cloud) -> Cloud:
    """The same cloud, whose registry does not answer."""
    at_once = cloud.settings.model_copy(update={"retry_for": timedelta(0)})
    return replace(cloud, open_registry=lambda: RegistryClient("127.0.0.1:1", at_once))


def test_without_the_registry_it_is_revoked_all_the_same(cloud: Cloud, capfd: pytest.CaptureFixture[str]) -> None:
    """Tags, ledger and channels do not wait for it; `show` says what could not be asked, and nothing is promoted."""
    one = publish(cloud, disk(seed=1)).release
    promote(AwsStore(cloud), NAME, "default", gate())
    later = without_registry(at(cloud, cloud.now + DAY))
    with pytest.raises(OutsideError, match="cannot be reached"):
        promote(AwsStore(later), NAME, "default", gate())
    shown = AwsStore(later).show(NAME)
    assert (shown.digest, shown.proven, shown.attestations) == (one.digest, True, ())
    assert "cannot be reached" in shown.untrusted
    revoke(AwsStore(later), one.digest, "a back door")
    assert "is revoked, but its evidence does not say so yet" in capfd.readouterr().err
    assert AwsStore(later).show(NAME).revoked_reason == "a back door"
    known = cloud.ledger.release(one.digest)
    assert known
    assert known.revoked_reason == "a back door"
    again = at(cloud, later.now)
    revoke(AwsStore(again), one.digest, "a back door")
    registry = registry_of(cloud)
    told = ChannelDocuments(registry, cloud.ledger, again.now).revocation()
    assert told(registry.repository(NAME), one.digest) == (again.now, "a back door")


def test_without_the_registry_the_evidence_stays_until_the_next_run(
    cloud: Cloud, capfd: pytest.CaptureFixture[str]
) -> None:
    """Pruning does all else, and takes the release up again."""
    release, registry = publish(cloud, disk()).release, registry_of(cloud)
    [line] = cloud.made(kind="image", release=release.digest)
    cloud.client("ec2").call("DeregisterImage", ImageId=line.resource)
    AwsStore(without_registry(cloud)).retire(apply=True)
    assert "stays until the next run" in capfd.readouterr().err
    known = cloud.ledger.release(release.digest)
    assert known
    assert known.pruned_at is None
    AwsStore(cloud).retire(apply=True)
    assert registry.find(f"{registry.repository(NAME)}@{release.digest}") is None


def test_the_registry_alone_revokes_no_machine(cloud: Cloud, tmp_path: Path) -> None:
    """What stands there is its evidence: the images at AWS would stay as they are."""
    release, registry = publish(cloud, disk()).release, registry_of(cloud)
    with closing(cloud_for(cloud.settings.model_copy(update={"state": tmp_path / "new"})).ledger) as empty:
        store = RegistryStore(registry, empty, cloud.store, cloud.now, "ann", [NAME])
        for ref in (release.digest, f"{registry.repository(NAME)}@{release.digest}"):
            with pytest.raises(ContentError, match="evidence of a machine's release, which is at AWS"):
                revoke(store, ref, "a back door")
        assert empty.release(release.digest) is None
        assert store.prune(apply=True) == ()
    assert bundles(registry, registry.repository(NAME), release.digest)


def test_a_tag_that_names_another_manifest_refuses_the_publication(cloud: Cloud) -> None:
    """Before a block is uploaded; nothing is attached to what we did not push."""
    first, registry = publish(cloud, disk(seed=1)).release, registry_of(cloud)
    second = at(cloud, cloud.now + DAY)
    wanted = replace(first, published_at=second.now)
    real = lifecycle.dated_tag
    taken = real(wanted)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(lifecycle, "dated_tag", lambda _: taken)
        registry.tag(registry.repository(NAME), first.digest, taken)
        with pytest.raises(UsageError, match="is another release"):
            publish(second, disk(seed=2))
    assert len(cloud.made(kind="image")) == 1


def test_whoever_has_no_ledger_finds_the_evidence(cloud: Cloud, tmp_path: Path) -> None:
    """By the tags of the image that a channel names; a registry of its own that is empty says what to set."""
    release, registry = publish(cloud, disk()).release, registry_of(cloud)
    context = context_of(cloud, tmp_path / "root")
    with closing(cloud_for(cloud.settings.model_copy(update={"state": tmp_path / "new"})).ledger) as empty:
        new = replace(cloud, ledger=empty)
        context.__dict__.update(ledger=empty, cloud=new, settings=cloud.settings)
        expected = f"{registry.repository(NAME)}@{release.digest}"
        assert evidence_reference(context, f"{NAME}:candidate") == expected
        with running_registry(tmp_path / "other") as address:
            other = replace(new, open_registry=lambda: RegistryClient(address, cloud.settings))
            with pytest.raises(UntrustedError) as refused:
                evidence_at(registry_of(other), release, cloud.now)
    assert "registry.address" in refused.value.hint


def test_an_unknown_members_image_is_believed_by_its_evidence(cloud: Cloud, tmp_path: Path) -> None:
    """Where the ledger has no line of it: a statement alone makes no golden image."""
    release = publish(cloud, disk()).release
    [line] = cloud.made(kind="image", release=release.digest)
    with closing(cloud_for(cloud.settings.model_copy(update={"state": tmp_path / "new"})).ledger) as empty:
        new = replace(cloud, ledger=empty)
        for stripped in (False, True):
            if stripped:
                strip(cloud, release)
            with fleet_session("shop", context_of(new, tmp_path / f"root{stripped}"), now=lambda: new.now) as session:
                provenance = session.origins()
                assert isinstance(provenance, AmiProvenance)
                assert (provenance._proven(HOME, line.resource) is None) is stripped
