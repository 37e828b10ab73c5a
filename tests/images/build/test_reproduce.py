"""A release is rebuilt from its signed provenance by a stranger, or the first file that differs is named."""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from hardening.foundation.errors import ContentError, MalformedError, OutsideError
from hardening.foundation.hashing import digest, digest_of
from hardening.foundation.settings import Packages, Settings
from images.artifact import Artifact, Release
from images.build import build as build_image
from images.build import reproduce as reproducing
from images.build.build_steps import BuildJob, Built
from images.build.flow import job_for
from images.build.reproduce import Reproduction, reproduce, snapshot_settings
from images.context import Context
from images.ledger import Ledger
from images.plan.planner import Planner
from images.registry.client import RegistryClient
from images.registry.release_store import RegistryStore
from images.release.publish import release
from images.store.differences import Difference, first_difference, first_key, first_of
from images.store.layers import Entry
from images.store.oci import Store
from images.trust.keys import own_keys
from images.trust.slsa import provenance
from images.trust.verification import Attested, Fault, UntrustedError, Verified
from tests.support.archive import Archive
from tests.support.loop import TOMORROW, Goldsmith, kill_when
from tests.support.publishing import NOW, judged, running_registry

DEFINITION = """
title = "Of a test"
owner = "tests"
kind = "container"
profile = "plain"
packages = ["base-files", "tool"]
[base]
bootstrap = { family = "debian", suite = "trixie", variant = "static" }
[[files]]
source = "motd"
path = "/etc/motd"
mode = "0640"
[healthcheck]
none_because = "a test runs nothing by itself"
"""
PROFILE = """
title = "Of a test"
owner = "tests"
controls = [{ control = "no-login-accounts" }, { control = "login-defaults" }]
"""
POLICY = """
title = "Of strangers"
owner = "security"
rationale = "Whose word strangers take."
review_by = 2027-05-31
exception_contact = "security@example.com"
[trust]
predicates = ["provenance"]
[[trust.keys]]
name = "theirs"
public = '''
{public}'''
"""


@dataclass(frozen=True)
class Published:
    """A release in a registry, and the archives that it was built from: of today, and of then."""

    address: str
    made: Release
    artifact: Artifact
    content: Path
    archive: Archive
    then: Path

    def stranger(self, folder: Path, *, content: Path | None = None, **packages: Any) -> Context:
        """Who never saw the ledger that published: an empty state directory, and the public key in a policy."""
        root = content or self.content
        mirror = {"mirror": self.archive.uri, "suites": ("./",), "keyring": self.archive.keyring}
        return context_in(folder, self.address, root, Packages(**{**mirror, **packages}))


def context_in(state: Path, address: str, content: Path, packages: Packages) -> Context:
    settings = Settings(state=state, retry_for=timedelta(seconds=1), content=(content,), packages=packages)
    return Context(settings, NOW, lambda: pytest.fail("no engine is needed"), lambda: address, actor="ann")


def content_in(root: Path) -> Path:
    """A content root with a definition, its file and a profile."""
    folder = root / "images/definitions/small"
    folder.mkdir(parents=True)
    (folder / "image.toml").write_text(DEFINITION)
    (folder / "motd").write_text("one\n")
    (root / "hardening/profiles").mkdir(parents=True)
    (root / "hardening/profiles/plain.toml").write_text(PROFILE)
    return root


def publish(context: Context, address: str) -> tuple[Release, Artifact]:
    """Build `small` as the flow does, without its controls and scanners, and release it."""
    planner, work = Planner(context), context.settings.state_dir / "by-hand"
    plan = planner.plan("small")
    work.mkdir()
    built = build_image(job_for(context, planner, plan, work=work, store=context.store))
    artifact = Artifact(
        plan.name, plan.platform, plan.input_digest, built.digest, plan.inputs, built.packages, built.created, NOW
    )
    return released(context, address, artifact), artifact


def released(context: Context, address: str, artifact: Artifact) -> Release:
    """Release what was built; what scanners say of it does not matter here."""
    to = RegistryStore(
        registry=RegistryClient(address, context.settings), ledger=Ledger.open(context.settings.database_url),
        store=context.store, now=NOW, actor="ann", names=(artifact.name,),
    )  # fmt: skip
    made = release(to, artifact, context.definitions[artifact.name].definition, judged())
    to.ledger.close()
    return made.release


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Published]:
    """A release made two refreshes of the index ago: the archive went on, and dropped what it was built from."""
    base = tmp_path_factory.mktemp("published")
    archive = Archive(base / "archive")
    login_defs = "UMASK 022\nENCRYPT_METHOD SHA512\n"
    archive.add("base-files", files={"/etc/os-release": "ID=debian\n", "/etc/login.defs": login_defs})
    archive.add("tool")
    archive.publish()
    content = content_in(base / "content")
    with running_registry(base / "registry") as address:
        packages = Packages(mirror=archive.uri, suites=("./",), keyring=archive.keyring)
        context = context_in(base / "state", address, content, packages)
        made, artifact = publish(context, address)
        policies = content / "hardening/policies"
        policies.mkdir()
        [key] = own_keys(context.settings)
        (policies / "strangers.toml").write_text(POLICY.format(public=key.public))
        archive.publish(valid_until="Fri, 02 Jan 2026 00:00:00 UTC")  # as in a snapshot, which nobody signs anew
        then = base / "past" / f"{NOW:%Y%m%dT%H%M%SZ}"
        shutil.copytree(archive.directory, then)
        for version in ("2.0", "3.0"):
            archive.add("tool", version)
            archive.publish()
        (archive.directory / "tool_1.0_all.deb").unlink()
        archive.publish()
        yield Published(address, made, artifact, content, archive, then)


def snapshot(published: Published) -> str:
    return f"{published.then.parent.as_uri()}/{{time}}"


NEEDS = pytest.mark.needs("root", "apt-get", "gpg", "docker-registry", "skopeo")


@NEEDS
def test_a_stranger_rebuilds_a_release_of_two_refreshes_ago(published: Published, tmp_path: Path) -> None:
    """From provenance, mirror and snapshot to the published digest; nothing is kept but a line of the audit.

    The workspace of a run that was killed is removed.
    """
    left = tmp_path / "state" / "work" / "0123456789ab"
    (left / "store").mkdir(parents=True)
    left.with_suffix(".lock").touch()
    context = published.stranger(tmp_path / "state", snapshot=snapshot(published))
    found = reproduce(context, "small:candidate", "strangers")
    assert (found.same, found.rebuilt, found.difference) == (True, published.made.content, None)
    assert not list((tmp_path / "state/work").iterdir())
    assert context.ledger.artifacts() == ()
    assert context.ledger.releases("small") == ()
    assert [line.action for line in context.ledger.audit_lines()] == ["reproduce"]
    assert not (tmp_path / "state/store").exists()


@NEEDS
def test_packages_that_nobody_has_are_named_all_at_once(published: Published, tmp_path: Path) -> None:
    """Each with its version, and the setting that would help."""
    empty = Archive(tmp_path / "empty")
    empty.publish()
    gone: dict[str, Any] = {"mirror": empty.uri, "keyring": empty.keyring}
    with pytest.raises(OutsideError, match="2 packages are no longer available") as error:
        reproduce(published.stranger(tmp_path / "state", **gone), "small:candidate", "strangers")
    assert error.value.evidence.splitlines() == ["base-files 1.0 all", "tool 1.0 all"]
    assert "packages.snapshot" in error.value.hint


@NEEDS
def test_a_package_of_the_same_version_and_other_bytes_is_none(published: Published, tmp_path: Path) -> None:
    """The hash of the provenance decides, not the archive's word."""
    other = Archive(tmp_path / "other")
    other.add("base-files", files={"/etc/os-release": "ID=debian\n"})
    other.add("tool", files={"/usr/bin/tool": "evil"})
    other.publish()
    lies: dict[str, Any] = {"mirror": other.uri, "keyring": other.keyring}
    with pytest.raises(OutsideError, match="are no longer available") as error:
        reproduce(published.stranger(tmp_path / "state", **lies), "small:candidate", "strangers")
    assert "tool 1.0 all" in error.value.evidence


@NEEDS
@pytest.mark.parametrize(
    ("planted", "expected"),
    [
        (lambda folder: (folder / "motd").write_text("two\n"), ("etc/motd", "content")),
        ({"path": "/etc/motd2"}, ("etc/motd", "missing")),
    ],
    ids=["content", "missing"],
)
def test_the_first_file_that_differs_is_named(
    published: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, planted: Any, expected: tuple[str, str]
) -> None:
    """Whatever of it is otherwise: by an input that is patched behind the back of the provenance."""

    def build(job: BuildJob) -> Built:
        if callable(planted):
            planted(job.definition_folder)
            return build_image(job)
        changed = tuple(file.model_copy(update=planted) for file in job.definition.files)
        return build_image(replace(job, definition=job.definition.model_copy(update={"files": changed})))

    monkeypatch.setattr(reproducing, "build", build)
    context = published.stranger(tmp_path / "state", snapshot=snapshot(published))
    found = reproduce(context, "small:candidate", "strangers")
    assert not found.same
    assert found.difference
    assert (found.difference.layer, found.difference.path, found.difference.what) == (1, *expected)
    assert not list((tmp_path / "state/work").iterdir())


@NEEDS
def test_a_configuration_that_differs_is_named_by_its_key(
    published: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where all layers are the same."""

    def build(job: BuildJob) -> Built:
        return build_image(replace(job, definition=job.definition.model_copy(update={"user": "7"})))

    monkeypatch.setattr(reproducing, "build", build)
    context = published.stranger(tmp_path / "state", snapshot=snapshot(published))
    found = reproduce(context, "small:candidate", "strangers")
    assert found.difference == Difference(0, "config.User", "value", "None", "7")


@NEEDS
@pytest.mark.parametrize("patch", ["file", "control"])
def test_files_that_are_not_as_they_were_are_named(published: Published, tmp_path: Path, patch: str) -> None:
    """What the provenance holds only by digest is taken from the content roots, and from nowhere else."""
    content = shutil.copytree(published.content, tmp_path / "content")
    if patch == "file":
        (content / "images/definitions/small/motd").write_text("two\n")
        named = "images/definitions/small/motd"
    else:
        (content / "hardening/profiles/plain.toml").write_text(PROFILE.replace(', { control = "login-defaults" }', ""))
        named = "hardening/controls/login-defaults"
    context = published.stranger(tmp_path / "state", content=content, snapshot=snapshot(published))
    with pytest.raises(ContentError, match="files that differ from the content roots") as error:
        reproduce(context, "small:candidate", "strangers")
    assert named in error.value.evidence
    assert f"{NOW:%Y-%m-%d}" in error.value.hint


@NEEDS
def test_todays_definition_has_no_say(published: Published, tmp_path: Path) -> None:
    """Nor have files that were put beside it, nor other controls of the profile."""
    content = shutil.copytree(published.content, tmp_path / "content")
    folder = content / "images/definitions/small"
    (folder / "image.toml").write_text(DEFINITION.replace('"tool"]', '"tool", "other"]').replace("/etc/motd", "/etc/x"))
    (folder / "more").write_text("more")
    profile = PROFILE.replace("controls = [", 'controls = [{ control = "no-setuid" }, ')
    (content / "hardening/profiles/plain.toml").write_text(profile)
    context = published.stranger(tmp_path / "state", content=content, snapshot=snapshot(published))
    assert reproduce(context, "small:candidate", "strangers").same


@NEEDS
def test_nothing_is_rebuilt_that_no_trusted_key_signed(published: Published, tmp_path: Path) -> None:
    """By the default policy a stranger trusts no key of others."""
    context = published.stranger(tmp_path / "state", snapshot=snapshot(published))
    with pytest.raises(UntrustedError) as error:
        reproduce(context, "small:candidate")
    assert error.value.fault is Fault.UNKNOWN_KEY


TOLD = Reproduction("small", f"sha256:{'1' * 64}", f"sha256:{'2' * 64}", f"sha256:{'2' * 64}", "a 1", "a 1", None)
MODE = Difference(2, "etc/x", "mode", "0644", "0600")
OTHER = replace(TOLD, rebuilt=f"sha256:{'3' * 64}", rebuilt_with="a 2", difference=MODE)


@pytest.mark.parametrize(
    ("found", "code", "text"),
    [
        (TOLD, 0, f"small: the same, rebuilt from its provenance\n  {TOLD.content}\n"),
        (
            OTHER, 1,
            f"small: not the same\n  was {TOLD.content}\n  now {OTHER.rebuilt}\n"
            "first difference, layer 2: etc/x: mode\n  was 0644\n  now 0600\n"
            "the builders differ\n  was a 1\n  now a 2\n",
        ),
    ],
    ids=["same", "different"],
)  # fmt: skip
def test_the_command_tells_what_became_of_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, found: Reproduction, code: int, text: str
) -> None:
    """Exit code 1 for another digest, as text and as JSON."""
    monkeypatch.setattr("pipelines.cli.reproduction.reproduce", lambda *_: found)
    inv = Goldsmith(tmp_path, "unix:///nowhere")
    assert (inv.here("image.reproduce", "small").code, inv.here("image.reproduce", "small").out) == (code, text)
    told = inv.here("image.reproduce", "small", "--json")
    assert (told.code, told.json["same"], told.json["ref"]) == (code, code == 0, "small")


def test_a_machine_needs_aws_to_be_named(tmp_path: Path) -> None:
    """Its channels stand there; before any registry is asked, one clear error."""
    answer = Goldsmith(tmp_path, "unix:///nowhere").here("image.reproduce", "debian-server")
    assert answer.code == 2
    assert "goldsmith.toml: aws.region: it is not set, and nothing at AWS is read or made without it" in answer.err


def built_last(house: Goldsmith, name: str) -> Artifact:
    found = house.ledger.latest_artifact(name, "linux/amd64")
    assert found
    return found


@pytest.mark.slow
@pytest.mark.needs("root", "docker", "mmdebstrap", "mirror", "docker-registry", "skopeo", "faketime")
def test_a_clone_that_never_saw_the_ledger_rebuilds_the_catalog(house: Goldsmith, tmp_path: Path) -> None:
    """By the command line, with the clock a day on: a base, a static one, and a child with files and steps of its own;
    killed first. `test_build_flow.py` builds the others on another day.
    """
    names = ("debian-static", "debian-base", "nginx-unprivileged")
    ours = house.fork(tmp_path / "ours")
    (tmp_path / "content").mkdir()
    context = context_in(ours.state, "", tmp_path / "content", Packages())
    with running_registry(tmp_path / "registry") as host:
        address = f"{host}/golden"
        made = {name: released(context, address, built_last(ours, name)) for name in names}
        policies = tmp_path / "content/hardening/policies"
        policies.mkdir(parents=True)
        [key] = own_keys(context.settings)
        (policies / "strangers.toml").write_text(POLICY.format(public=key.public))
        clone = Goldsmith(tmp_path / "clone", house.docker_host).with_(tmp_path / "content", registry__address=address)
        (clone.state / "apt").mkdir(parents=True)
        (clone.state / "apt/pool").symlink_to(house.state / "apt/pool")  # files by their hashes; its index is its own
        killed = clone.start("image.reproduce", names[0], "--policy", "strangers")
        kill_when(killed, lambda: any(clone.state.glob("work/*/build/tree")), "a tree is made")
        for name in names:
            found = clone("image.reproduce", name, "--policy", "strangers", "--json", prefix=TOMORROW)
            assert found.code == 0, found.err
            assert found.json["same"]
            assert found.json["rebuilt"] == made[name].content
        tomorrow = datetime.now(UTC) + timedelta(hours=23)
        assert min(line.at for line in clone.ledger.audit_lines()) > tomorrow, "the clock was not moved"
        assert clone.leftovers() == []
        assert clone.ledger.artifacts() == ()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (lambda artifact: replace(artifact, digest="sha256:" + "0" * 64), "other content or other inputs"),
        (lambda artifact: replace(artifact, input_digest="sha256:" + "0" * 64), "other content or other inputs"),
        (lambda artifact: replace(artifact, platform="linux/arm64"), "a build for 'linux/arm64'"),
    ],
)
def test_a_provenance_that_contradicts_itself_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, changed: Callable[[Artifact], Artifact], message: str
) -> None:
    """Signed or not."""
    inputs: dict[str, Any] = {"packages": []}
    content = "sha256:" + "1" * 64
    artifact = Artifact("small", "linux/amd64", digest_of(inputs), content, inputs, (), NOW, NOW)
    made = Release("small", "r/small", content, content, artifact.input_digest, "p", "p", NOW, NOW, NOW)
    said = Attested((Verified("key", provenance(made, changed(artifact))),))
    monkeypatch.setattr(reproducing, "proved", lambda *_: said)
    monkeypatch.setattr(reproducing, "release_at", lambda *_: made)
    monkeypatch.setattr(reproducing, "evidence_reference", lambda *_: "r/small:candidate")
    with pytest.raises(MalformedError, match=message):
        reproduce(context_in(tmp_path, "127.0.0.1:9", tmp_path, Packages()), "small")


def layer(store: Store, *, text: bytes = b"one", reverse: bool = False, more: str = "", **facts: Any) -> str:
    """An image whose layer holds a directory, and in it a file with these facts."""
    folder, file = tarfile.TarInfo("srv"), tarfile.TarInfo("srv/file")
    folder.type, folder.mode, file.size = tarfile.DIRTYPE, 0o755, len(text)
    for key, value in facts.items():
        setattr(file, key, value)
    entries: list[Entry] = [(folder, None), (file, lambda: BytesIO(text))]
    if more:
        entries.append((tarfile.TarInfo(more), lambda: BytesIO(b"")))
    described, diff_id = store.write_layer(reversed(entries) if reverse else entries, 100)
    return store.write_image({"rootfs": {"diff_ids": [diff_id]}}, [described]).digest


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({}, None),
        ({"text": b"two"}, ("srv/file", "content", digest(b"one"), digest(b"two"))),
        ({"mode": 0o4755}, ("srv/file", "mode", "0644", "4755")),
        ({"uid": 5}, ("srv/file", "owner", "0:0", "5:0")),
        ({"mtime": 7}, ("srv/file", "mtime", "0", "7")),
        ({"pax_headers": {"SCHILY.xattr.user.a": "b"}}, ("srv/file", "attributes", "none", "SCHILY.xattr.user.a='b'")),
        ({"more": "srv/zero"}, ("srv/zero", "missing", "none", "file")),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
def test_real_layers_are_compared_file_by_file(tmp_path: Path, facts: Any, expected: Any) -> None:
    """Content, mode, owner, time, attributes, and what one of them lacks."""
    published, rebuilt = Store(tmp_path / "published"), Store(tmp_path / "rebuilt")
    found = first_difference(published, layer(published), rebuilt, layer(rebuilt, **facts))
    assert found == (Difference(1, *expected) if expected else None)


def test_the_same_files_packed_otherwise_are_said_to_be_so(tmp_path: Path) -> None:
    """In another order, or by another version of the library: no file is to blame."""
    store = Store(tmp_path)
    found = first_difference(store, layer(store), store, layer(store, reverse=True))
    assert found
    assert (found.layer, found.path, found.what) == (1, "", "packing")


FILE = {"type": "file", "content": "a", "mode": "0644", "owner": "0:0", "mtime": "1"}


@pytest.mark.parametrize(
    ("ours", "expected"),
    [
        ({"a": FILE, "b/c": FILE}, None),
        ({"a": FILE, "b/c": {**FILE, "mtime": "2"}}, ("b/c", "mtime", "1", "2")),
        ({"a": {**FILE, "content": "x"}, "b/c": {**FILE, "mode": "0600"}}, ("a", "content", "a", "x")),
        ({"a": {**FILE, "attributes": "x"}, "b/c": FILE}, ("a", "attributes", "none", "x")),
        ({"a": {"type": "link", "link": "b"}, "b/c": FILE}, ("a", "type", "file", "link")),
        ({"b/c": FILE}, ("a", "missing", "file", "none")),
        ({"a": FILE, "a/b": FILE, "b/c": FILE}, ("a/b", "missing", "none", "file")),
    ],
)
def test_the_first_difference_is_that_of_the_first_path(ours: Any, expected: Any) -> None:
    """Type, content, then what else a layer says of a file."""
    assert first_of({"a": FILE, "b/c": FILE}, ours) == expected


def test_the_first_key_that_differs_is_told_with_its_place() -> None:
    """Also where one side lacks it."""
    assert first_key({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 2}}) is None
    assert first_key({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}}) == ("a.c", "value", "2", "3")
    assert first_key({"a": 1}, {}) == ("a", "value", "1", "None")


def test_a_snapshot_is_asked_for_the_time_of_the_build() -> None:
    """In the form of Debian's own, for both of its archives; extra sources know no time and are left out."""
    packages = Packages(snapshot="https://snap.example.com/{archive}/{time}", extra_sources=(Path("/x"),))
    past = snapshot_settings(Settings(packages=packages), NOW)
    assert past
    assert past.packages.mirror == "https://snap.example.com/debian/20261125T120000Z"
    assert past.packages.security_mirror == "https://snap.example.com/debian-security/20261125T120000Z"
    assert past.packages.extra_sources == ()
    assert snapshot_settings(Settings(), NOW) is None
