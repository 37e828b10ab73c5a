"""What is decided about machine images at AWS without asking anybody: blocks, requests, tags, ends, statements."""

from __future__ import annotations

import json
from base64 import b64decode
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from hardening.foundation.errors import ContentError
from hardening.foundation.hashing import canonical, digest
from hardening.foundation.settings import Aws, load_settings
from images.artifact import Release
from images.aws import tags
from images.aws.call_arguments import (
    LARGEST_PARAMETER,
    complete_snapshot,
    copy_image,
    put_parameter,
    register_image,
    shared_with,
    start_snapshot,
)
from images.aws.model import GIB, Ami, MachineImage, Parent, best_parent, blocks_on, digests_at
from images.aws.reaping import TaggedResource, decide_leftover
from images.aws.retire import _holding, decide_over
from images.aws.signed_statement import prove, statement
from images.catalog import ANY, KeepRule
from images.machine.blocks import ZERO, digest_of
from images.release.retention import RetirementAction as Action
from images.trust.envelope import enveloped
from tests.images.ledger.test_ledger import ARTIFACT
from tests.support.publishing import DAY, NOW, judged
from tests.support.signing import KeyInMemory

PREFIX = "dev.goldsmith."
RELEASE = Release(
    "web", "aws/1/goldsmith/web", "sha256:" + "ab" * 32, "sha256:c1", "sha256:in", "cis-level1", "default",
    NOW, NOW + 23 * DAY, NOW + 30 * DAY, "aws/1/goldsmith/base", "sha256:b1",
)  # fmt: skip
GRACE = Aws(disable_after=14 * DAY, deregister_after=30 * DAY)
DISK = some.lists(some.integers(0, 3), min_size=1, max_size=12)  # blocks by their first byte; 0 is a block of zeros


def block(byte: int) -> bytes:
    return bytes([byte]) * 8 if byte else b""


def digests(disk: list[int]) -> bytes:
    return b"".join(digest_of(block(byte)) for byte in disk)


def machine(disk: list[int], gib: int = 1) -> MachineImage:
    made = digests(disk)
    return MachineImage("web", "sha256:c1", "amd64", digest(made), made, gib * GIB, Path("disk.raw"))


def parent(disk: list[int], name: str = "snap-1", gib: int = 1) -> Parent:
    return Parent(name, digest(digests(disk)), digests(disk), gib)


def ami(**more: object) -> Ami:
    made = Ami("eu-west-1", "ami-1", "goldsmith/web/x", "available", ("snap-1",), release=RELEASE,
               deprecated_at=RELEASE.expires_at)  # fmt: skip
    return replace(made, **more)  # type: ignore[arg-type]


# --- blocks -----------------------------------------------------------------------------------------------------------


@given(DISK, some.lists(DISK, max_size=3))
def test_what_is_written_on_its_parent_is_the_disk_whatever_both_were(
    disk: list[int], parents: list[list[int]]
) -> None:
    """And nothing is left unwritten: every block of the disk was put now, or by the parent."""
    known = [parent(old, f"snap-{number}") for number, old in enumerate(parents)]
    best = best_parent(machine(disk), known)
    indexes = blocks_on(machine(disk), best)
    below = parents[known.index(best)] if best else []
    longer = [*disk, *[0] * (len(below) - len(disk))]
    written = dict(enumerate(below)) | {index: longer[index] for index in indexes}
    assert written == dict(enumerate(longer))
    assert list(indexes) == sorted(set(indexes))


def test_the_parent_that_saves_most_is_taken() -> None:
    """None where none saves anything worth while, nor one whose volume is larger."""
    disk = [1, 2, 3, 0, 1, 2]
    near, far = parent([1, 2, 3, 0, 1, 3], "near"), parent([3, 3, 3, 3, 1, 3], "far")
    assert best_parent(machine(disk), [far, near]) == near
    assert blocks_on(machine(disk), near) == (5,)
    assert best_parent(machine(disk), []) is None
    assert blocks_on(machine(disk), None) == tuple(range(6))
    assert best_parent(machine(disk), [parent([2, 3, 1, 1, 2, 3])]) is None
    assert best_parent(machine(disk), [parent(near_to(disk), gib=2)]) is None


def near_to(disk: list[int]) -> list[int]:
    return [*disk[:-1], 3]


def test_blocks_that_became_zero_are_written() -> None:
    """Left out, they would be the parent's."""
    disk, old = machine([1, 0, 3, 1]), parent([1, 2, 3, 1])
    assert best_parent(disk, [old]) == old
    assert blocks_on(disk, old) == (1,)


# --- requests ---------------------------------------------------------------------------------------------------------


def test_a_first_snapshot_names_its_key_and_a_delta_names_its_parent() -> None:
    """Never both: the service refuses encryption beside a parent."""
    first = start_snapshot(machine([1]), "t", {"a": "b"}, parent=None, key="arn:key")
    assert (first["Encrypted"], first["KmsKeyArn"], "ParentSnapshotId" in first) == (True, "arn:key", False)
    delta = start_snapshot(machine([1]), "t", {}, parent=parent([2]), key="arn:key")
    assert delta["ParentSnapshotId"] == "snap-1"
    assert not {"Encrypted", "KmsKeyArn"} & delta.keys()
    plain = start_snapshot(machine([1]), "t", {}, parent=None, key="")
    assert not {"Encrypted", "KmsKeyArn", "ParentSnapshotId"} & plain.keys()
    assert first["Tags"] == [{"Key": "a", "Value": "b"}]


def test_a_snapshot_is_completed_by_the_digest_of_what_was_written() -> None:
    """Of a first upload that is the disk's linear digest; of a delta only its own blocks count."""
    whole = machine([1, 0, 2])
    asked = complete_snapshot("snap-1", range(3), whole.digests)
    assert b64decode(asked["Checksum"]).hex() == whole.linear.removeprefix("sha256:")
    some_ = complete_snapshot("snap-1", (0, 2), whole.digests)
    assert b64decode(some_["Checksum"]) == sha256(digests_at(whole.digests, (0, 2))).digest()
    assert (some_["ChangedBlocksCount"], some_["ChecksumAggregationMethod"]) == (2, "LINEAR")


def test_a_volume_holds_the_whole_disk() -> None:
    """In GiB, rounded up."""
    assert replace(machine([1]), size_bytes=GIB).volume_gib == 1
    assert replace(machine([1]), size_bytes=GIB + 1).volume_gib == 2


def test_requests_that_lead_out_of_bounds_cannot_be_made() -> None:
    """Sharing knows accounts, organisations and units, no group; a copy without a key asks for no encryption."""
    shared = shared_with(("1",), ("arn:aws:organizations::1:organization/o-1", "arn:aws:organizations::1:ou/o-1/ou-1"))
    assert [set(each) for each in shared] == [{"UserId"}, {"OrganizationArn"}, {"OrganizationalUnitArn"}]
    assert "Encrypted" not in copy_image(ami(), "t", key="", image={}, snapshot={})
    assert "Encrypted" not in json.dumps(register_image(machine([1]), "n", "snap-1", {}))
    assert put_parameter("n", "x" * 4096, "", image=False)["Tier"] == "Standard"
    assert put_parameter("n", "x" * 4097, "", image=False)["Tier"] == "Advanced"


# --- tags -------------------------------------------------------------------------------------------------------------


def test_tags_say_of_a_release_what_is_read_back() -> None:
    """By the codec of containers' annotations; a revocation too."""
    said = tags.of_image(RELEASE, "sha256:l", PREFIX, NOW + DAY)
    assert tags.release_of(said, PREFIX, RELEASE.repository) == RELEASE
    assert tags.as_dict(tags.as_list(said)) == said
    revoked = tags.release_of({**said, **tags.of_revocation("bad " * 200, PREFIX, NOW)}, PREFIX, RELEASE.repository)
    assert revoked is not None
    assert (revoked.revoked_at, len(revoked.revoked_reason)) == (NOW, 256)
    assert tags.moment_in(said, f"{PREFIX}reap-after") == NOW + DAY
    assert max(map(len, said.values())) <= 256


@pytest.mark.parametrize("key", ["release", "content", "expires-at", "warn-at"])
def test_tags_that_lack_something_are_no_release_of_ours(key: str) -> None:
    """Nor where it cannot be read."""
    said = tags.of_image(RELEASE, "sha256:l", PREFIX, NOW)
    lacking = {name: value for name, value in said.items() if name != f"{PREFIX}{key}"}
    assert tags.release_of(lacking, PREFIX, "r") is None
    if key.endswith("at"):
        assert tags.release_of({**said, f"{PREFIX}{key}": "soon"}, PREFIX, "r") is None
    assert tags.moment_in({"x": "soon"}, "x") is None


# --- the end of an image ----------------------------------------------------------------------------------------------


@given(
    some.integers(0, 120), some.sampled_from(["available", "disabled"]), some.booleans(), some.booleans(),
    some.none() | some.integers(0, 120),
)  # fmt: skip
def test_nothing_is_disabled_or_removed_too_early_or_under_anybody(
    day: int, state: str, used: bool, revoked: bool, disabled_on: int | None
) -> None:
    """For any image on any day: never before its grace, never while something names it; always a reason."""
    now, users = NOW + day * DAY, ("the instance i-1",) if used else ()
    release = replace(RELEASE, revoked_at=NOW + 3 * DAY, revoked_reason="bad") if revoked else RELEASE
    disabled_at = None if disabled_on is None else NOW + disabled_on * DAY
    decision = decide_over(ami(release=release, state=state), users, GRACE, now, disabled_at=disabled_at, unseen=())
    end = release.revoked_at or release.expires_at
    assert decision.why
    if decision.action is Action.DISABLE:
        assert not used
        assert now >= end + GRACE.disable_after
    if decision.action is Action.REMOVE:
        assert not used
        assert disabled_at is not None
        assert state == "disabled"
        assert now >= disabled_at + GRACE.deregister_after
    if decision.held:
        assert used
        assert "the instance i-1" in decision.why


def test_an_image_that_the_ledger_does_not_know_is_kept() -> None:
    """Nothing but the ledger says when one of ours ends."""
    decision = decide_over(ami(release=None), (), GRACE, NOW + 999 * DAY, disabled_at=None, unseen=())
    assert (decision.action, decision.held, "image.rebuild" in decision.why) == (Action.KEEP, True, True)


def test_an_image_that_others_launched_lately_is_kept_where_nobody_can_look() -> None:
    """Within the grace; longer ago, or where everybody can be asked, it goes."""
    now = RELEASE.expires_at + 20 * DAY
    lately = ami(launched_at=now - 2 * DAY)
    decision = decide_over(lately, (), GRACE, now, disabled_at=None, unseen=("210987654321",))
    assert (decision.held, "210987654321" in decision.why) == (True, True)
    assert decide_over(lately, (), GRACE, now, disabled_at=None, unseen=()).action is Action.DISABLE
    long_ago = replace(lately, launched_at=now - 20 * DAY)
    assert decide_over(long_ago, (), GRACE, now, disabled_at=None, unseen=("2",)).action is Action.DISABLE


def test_many_users_are_counted_and_some_named() -> None:
    """The line stays readable."""
    users = tuple(f"the instance i-{number}" for number in range(5))
    decision = decide_over(ami(), users, GRACE, RELEASE.expires_at + 20 * DAY, disabled_at=None, unseen=())
    assert "i-0, the instance i-1, the instance i-2 and 2 more still name it" in decision.why


@pytest.mark.parametrize(
    ("users", "said"),
    [
        (("a",), "a still names it"),
        (("a", "b"), "a, b still name it"),
        (("a", "b", "c"), "a, b, c still name it"),
        (("a", "b", "c", "d"), "a, b, c and 1 more still name it"),
    ],
)
def test_who_holds_an_image_back_is_told_as_a_sentence(users: tuple[str, ...], said: str) -> None:
    """One that names it, two that name it, and a count where there are more than three."""
    decision = decide_over(ami(), users, GRACE, RELEASE.expires_at + 20 * DAY, disabled_at=None, unseen=())
    assert (decision.held, decision.why) == (True, f"expired on 2026-12-25; not disabled: {said}")


@pytest.mark.parametrize(
    ("change", "after", "disabled_after", "action", "why"),
    [
        ({"deprecated_at": None}, 0, None, Action.DEPRECATE, "expired on 2026-12-25"),
        ({"deprecated_at": None}, 99, None, Action.DEPRECATE, "expired on 2026-12-25"),
        ({"deprecated_at": None}, -1, None, Action.WARN, "expires on 2026-12-25"),
        ({"deprecated_at": None}, -8, None, Action.KEEP, "expires on 2026-12-25"),
        ({}, 13, None, Action.KEEP, "expired on 2026-12-25; to be disabled from 2027-01-08"),
        ({}, 14, None, Action.DISABLE, "expired on 2026-12-25"),
        ({"state": "disabled"}, 31, 1, Action.REMOVE, "disabled on 2026-12-26"),
        ({"state": "disabled"}, 30, 1, Action.KEEP, "disabled on 2026-12-26; to be removed from 2027-01-25"),
        ({"state": "disabled", "deprecated_at": None}, 31, 1, Action.REMOVE, "disabled on 2026-12-26"),
        ({"state": "disabled"}, 99, None, Action.DISABLE, "expired on 2026-12-25"),
        ({"state": "disabled", "deprecated_at": None}, 99, None, Action.DISABLE, "expired on 2026-12-25"),
        ({"state": "available"}, 99, 1, Action.DISABLE, "expired on 2026-12-25"),
    ],
)
def test_an_image_is_deprecated_then_disabled_then_removed_each_on_the_day_after_its_grace(
    change: dict[str, object], after: int, disabled_after: int | None, action: Action, why: str
) -> None:
    """Days count from the release's end, and those of the removal from the day on which we disabled it."""
    subject, end = ami(**change), RELEASE.expires_at
    disabled_at = None if disabled_after is None else end + disabled_after * DAY
    decision = decide_over(subject, (), GRACE, end + after * DAY, disabled_at=disabled_at, unseen=())
    assert (decision.subject, decision.action, decision.why, decision.held) == (subject, action, why, False)


def test_deprecation_is_done_whoever_names_the_image_and_not_a_second_time() -> None:
    """It takes nothing away from anybody; a day that is asked for a little ahead counts as done."""
    now = RELEASE.expires_at + DAY
    soon = now + timedelta(minutes=5)
    users = ("the instance i-1",)
    for deprecated_at in (None, soon + timedelta(seconds=1)):
        decision = decide_over(ami(deprecated_at=deprecated_at), users, GRACE, now, disabled_at=None, unseen=("2",))
        assert (decision.action, decision.held) == (Action.DEPRECATE, False)
        assert decision.why == "expired on 2026-12-25; the instance i-1 still names it"
    for deprecated_at in (soon, now):
        decision = decide_over(ami(deprecated_at=deprecated_at), (), GRACE, now, disabled_at=None, unseen=())
        assert decision.why == "expired on 2026-12-25; to be disabled from 2027-01-08"


def test_a_launch_holds_an_image_for_just_the_grace() -> None:
    """To the second; and it is told who may have launched it."""
    now = RELEASE.expires_at + 20 * DAY
    at_the_end, within = now - GRACE.disable_after, now - GRACE.disable_after + timedelta(seconds=1)
    assert decide_over(ami(launched_at=at_the_end), (), GRACE, now, disabled_at=None, unseen=("2", "3")) == (
        decide_over(ami(launched_at=at_the_end), (), GRACE, now, disabled_at=None, unseen=())
    )
    held = decide_over(ami(launched_at=within), (), GRACE, now, disabled_at=None, unseen=("2", "3"))
    assert (held.action, held.held) == (Action.KEEP, True)
    assert held.why == (
        "expired on 2026-12-25; not disabled: launched on 2026-12-31, perhaps by 2, where nobody could look"
    )


def test_a_revoked_image_is_nothing_to_go_back_to() -> None:
    """The channel's `-previous` holds any other one."""
    users = ("the channel stable", "the channel stable-previous")
    revoked = ami(release=replace(RELEASE, revoked_at=NOW))
    assert _holding(ami(), users) == _holding(ami(release=None), users) == users
    assert _holding(revoked, users) == ("the channel stable",)


# --- what was left behind ---------------------------------------------------------------------------------------------


@given(some.sampled_from(["standing", "begun", ""]), some.none() | some.integers(-3, 3), some.booleans())
def test_only_what_nobody_owns_needs_or_may_take_up_goes(state: str, due_in: int | None, used: bool) -> None:
    """After its day, and what has no day or no line in the ledger never."""
    due = None if due_in is None else NOW + timedelta(days=due_in)
    found = TaggedResource("eu-west-1", "snapshot", "snap-1", "web", due)
    decided = decide_leftover(found, state=state, users=("the instance i-1",) if used else (), now=NOW)
    goes = state == "begun" and due is not None and due <= NOW and not used
    assert (decided is not None and decided.remove) == goes
    assert decided is None or decided.why


# --- the signed statement ---------------------------------------------------------------------------------------------


def signed() -> tuple[str, bytes, Ami]:
    """An envelope, the public key, and an image that agrees with it."""
    key = KeyInMemory()
    mine = ami(tags=tags.of_image(RELEASE, machine([1]).linear, PREFIX, NOW))
    said = statement(RELEASE, machine([1]), [mine], ARTIFACT, judged().verdict, PREFIX)
    return json.dumps(enveloped(canonical(said), key, "arn:key")), key.public, mine


def test_an_image_that_is_what_was_signed_is_proven() -> None:
    """And the statement is an in-toto one, whose subjects are the images by the disk's digest."""
    kept, key, mine = signed()
    proof = prove(kept, key, mine, PREFIX)
    assert (proof.holds, proof.problems) == (True, ())
    assert proof.statement["_type"] == "https://in-toto.io/Statement/v1"
    (subject,) = proof.statement["subject"]
    assert subject == {
        "name": "arn:aws:ec2:eu-west-1::image/ami-1",
        "digest": {"sha256": machine([1]).linear.removeprefix("sha256:")},
    }
    predicate = proof.statement["predicate"]
    assert predicate["inputDigest"] == RELEASE.input_digest
    assert predicate["annotations"][f"{PREFIX}expires-at"] == "2026-12-25T12:00:00Z"
    assert predicate["packagesDigest"].startswith("sha256:")
    assert predicate["verdictDigest"].startswith("sha256:")


def test_every_tag_that_is_signed_is_compared() -> None:
    """Changed or taken away, each is a problem of its own; what we do not sign is nobody's business."""
    kept, key, mine = signed()
    unsigned = {f"{PREFIX}reap-after", f"{PREFIX}name"}
    for tag in mine.tags:
        for changed in ({**mine.tags, tag: "other"}, {name: value for name, value in mine.tags.items() if name != tag}):
            proof = prove(kept, key, replace(mine, tags=changed), PREFIX)
            assert proof.holds == (tag in unsigned), tag
            assert tag in unsigned or tag in proof.problems[0]


def test_a_statement_by_another_key_proves_nothing() -> None:
    """Nor one of which a byte is different."""
    kept, _, mine = signed()
    _, other, _ = signed()
    proof = prove(kept, other, mine, PREFIX)
    assert (proof.holds, proof.signed, proof.statement) == (False, False, {})
    assert not prove("{}", other, mine, PREFIX).holds
    assert not prove("", other, mine, PREFIX).holds


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (
            'kms_keys = {"eu-west-1" = "alias/aws/ebs"}',
            "the account's default key: data that it encrypts cannot be shared",
        ),
        ('kms_keys = {"eu-west-1" = "my-key"}', "is not an ARN"),
        ('share_accounts = ["all"]', "twelve digits"),
        ('share_organizations = ["all"]', "is not the ARN of an organisation"),
        ('region = "Frankfurt"', "a region such as eu-central-1"),
        ('account = "12"', "twelve digits"),
        ('name_prefix = "a b"', "without spaces"),
        ("paralel = 3", "parallel"),
    ],
)
def test_a_setting_that_cannot_be_meant_is_refused_with_its_reason(tmp_path: Path, line: str, words: str) -> None:
    """The account's default key among them, since data that it encrypts cannot be shared."""
    file = tmp_path / "goldsmith.toml"
    file.write_text(f"[aws]\n{line}\n")
    with pytest.raises(ContentError) as raised:
        load_settings(file)
    assert words in str(raised.value)
    assert "aws." in str(raised.value)


def test_every_region_is_named_once_and_home_first(tmp_path: Path) -> None:
    """However often the settings name it."""
    file = tmp_path / "goldsmith.toml"
    file.write_text('[aws]\nregion = "eu-west-1"\nregions = ["us-east-1", "eu-west-1", "us-east-1"]\n')
    assert load_settings(file).aws.all_regions == ("eu-west-1", "us-east-1")


def test_zeros_beyond_the_end_are_blocks_like_others() -> None:
    """A disk that shrank is written as if it went on with zeros."""
    assert digests_at(digests([1]), (0, 1, 2)) == digests([1]) + ZERO * 2
    assert blocks_on(machine([1]), parent([1, 2, 0])) == (1,)


def test_the_statement_of_as_many_regions_as_the_settings_allow_fits_into_a_parameter(tmp_path: Path) -> None:
    """Told when the settings are read, not after the last copy."""
    regions = [f"ap-southeast-{number % 10}" for number in range(20)]
    amis = [ami(region=f"{name}{number}", id="ami-0123456789abcdef0", snapshots=("snap-0123456789abcdef0",))
            for number, name in enumerate(regions)]  # fmt: skip
    long = replace(RELEASE, name="a" * 40, repository="r" * 90, base_name="b" * 90, base_digest="sha256:" + "c" * 64,
                   content="sha256:" + "d" * 64, input_digest="sha256:" + "e" * 64)  # fmt: skip
    said = canonical(statement(long, machine([1]), amis, ARTIFACT, judged().verdict, PREFIX))
    key = "arn:aws:kms:ap-southeast-1:123456789012:key/7a597c37-5d74-4c4d-a334-52ac982cd9e5"
    kept = canonical(enveloped(said, KeyInMemory(), key))
    assert len(kept) <= LARGEST_PARAMETER
    file = tmp_path / "goldsmith.toml"
    file.write_text(f"[aws]\nregions = {json.dumps([f'eu-west-{n % 10}' for n in range(20)])}\n")
    with pytest.raises(ContentError, match=r"aws\.regions: must have at most 19 values"):
        load_settings(file)


def test_the_last_images_stay_and_each_for_as_long_as_the_rule_says() -> None:
    """The longer of the grace and the rule counts; neither stays where it is revoked, and all are deprecated."""

    def what(days: int, last: str = "", **rule: timedelta) -> str:
        decision = decide_over(
            ami(), (), GRACE, RELEASE.expires_at + days * DAY, disabled_at=None, unseen=(),
            rules={ANY: KeepRule(**rule)}, kept=last,
        )  # fmt: skip
        return f"{decision.action}: {decision.why}"

    assert what(14).startswith("disable: ")
    assert what(14, for_=20 * DAY) == "keep: expired on 2026-12-25; to be disabled from 2027-01-14"
    assert what(20, for_=20 * DAY).startswith("disable: ")
    assert what(14, for_=2 * DAY).startswith("disable: ")
    assert what(90, "the last 2 are kept") == "keep: expired on 2026-12-25; not disabled: the last 2 are kept"
    new, end = ami(deprecated_at=None), RELEASE.expires_at
    kept = decide_over(new, (), GRACE, end, disabled_at=None, unseen=(), kept="the last one is kept")
    assert kept.action is Action.DEPRECATE
    bad = ami(release=replace(RELEASE, revoked_at=NOW, revoked_reason="bad"), deprecated_at=NOW)
    rules = {ANY: KeepRule(for_=90 * DAY)}
    assert (
        decide_over(bad, (), GRACE, NOW + 14 * DAY, disabled_at=None, unseen=(), rules=rules).action is Action.DISABLE
    )
