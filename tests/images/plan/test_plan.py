"""Whether an image is built, and the reasons that are given for it."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from hardening.foundation.hashing import digest_of
from hardening.render import Overlay, RenderedFile
from images.artifact import Artifact, Package
from images.model import Base, Bootstrap, Definition
from images.plan.build_plan import Action, BuildPlan, Change, decide, inputs_of

OVERLAY = Overlay((), (), ())
OPENSSL = Package("openssl", "3.5.1-1", "amd64", "aa")
ZLIB = Package("zlib1g", "1.3", "amd64", "bb")
FILE = RenderedFile("/etc/x", "text", 0o644, 0, 0)
DEFINITION = Definition(
    name="base", title="A base", owner="us", kind="container", profile="container-base",
    base=Base(bootstrap=Bootstrap(family="debian", suite="trixie")),
)  # fmt: skip


def inputs(definition: Definition = DEFINITION, packages: tuple[Package, ...] = (OPENSSL, ZLIB), **over: Any) -> Any:
    """The inputs of the sample image, some of them changed."""
    given = {"parent": "", "files": {"Dockerfile.j2": "f1"}, "sources": "s", "builder": "1", "overlay": OVERLAY, **over}
    return inputs_of(definition, "linux/amd64", packages=packages, **given)


LAST = Artifact(
    "base", "linux/amd64", digest_of(inputs()), "sha256:c", inputs(), (OPENSSL, ZLIB),
    datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 3, tzinfo=UTC),
)  # fmt: skip


def plan(new: Any, packages: tuple[Package, ...] = (OPENSSL, ZLIB), **over: Any) -> BuildPlan:
    """The plan for the sample image after LAST was built."""
    given = {"known": None, "last": LAST, "parent_pending": False, "no_cache": False, **over}
    return decide("base", new, added=packages, packages=packages, overlay=OVERLAY, **given)


def test_unchanged_inputs_build_nothing_and_say_so() -> None:
    """The no-op names the input digest and the day on which it was built."""
    found = plan(inputs(), known=LAST)
    assert found.action is Action.UNCHANGED
    assert found.why == (f"input digest {LAST.input_digest[7:19]} was built on 2026-02-03",)


def test_a_newer_package_is_named_with_both_versions() -> None:
    """Old and new version stand in the reason and in the change."""
    newer = replace(OPENSSL, version="3.5.9-1", sha256="cc")
    found = plan(inputs(packages=(newer, ZLIB)), (newer, ZLIB))
    assert found.action is Action.BUILD
    assert found.changes == (Change("package", "openssl", "3.5.1-1", "3.5.9-1"),)
    assert found.why == ("package openssl 3.5.1-1 → 3.5.9-1",)


def test_the_same_version_with_other_bytes_is_another_input() -> None:
    """A .deb that changed under its version changes the input digest."""
    rebuilt = replace(OPENSSL, sha256="dd")
    assert digest_of(inputs(packages=(rebuilt, ZLIB))) != digest_of(inputs())


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"files": {"Dockerfile.j2": "f2"}}, "file Dockerfile.j2 changed"),
        ({"files": {"Dockerfile.j2": "f1", "x.conf": "f3"}}, "file x.conf is new"),
        ({"parent": "sha256:p"}, "its parent has new content"),
        ({"builder": "2"}, "builder changed"),
        ({"definition": DEFINITION.model_copy(update={"user": "65532"})}, "definition user changed"),
        ({"definition": DEFINITION.model_copy(update={"smoke": ("true",)})}, "verify smoke changed"),
        ({"definition": DEFINITION.model_copy(update={"tmpfs": ("/run",)})}, "verify tmpfs changed"),
        ({"overlay": replace(OVERLAY, files=(FILE,))}, "hardening file /etc/x is new"),
    ],
)
def test_every_other_input_gives_its_reason(changed: dict[str, Any], reason: str) -> None:
    """Files, parents, builders and definitions are told apart."""
    assert any(reason in why for why in plan(inputs(**changed)).why), plan(inputs(**changed)).why


def test_where_a_hardening_file_is_left_out_is_an_input() -> None:
    """A file that goes only where its directory is makes another image than one that always goes in."""
    parts = [replace(OVERLAY, files=(replace(FILE, only_with=where),)).parts for where in ("", "/etc/apt")]
    assert parts[0] != parts[1]


def test_what_changes_no_byte_changes_no_digest() -> None:
    """Dates and duties are not inputs: changing them rebuilds nothing."""
    other = DEFINITION.model_copy(update={"owner": "them", "title": "Another", "policy": "strict"})
    assert digest_of(inputs(other)) == digest_of(inputs())


def test_the_order_of_packages_is_no_input() -> None:
    """A solver that lists the same packages otherwise rebuilds nothing."""
    assert digest_of(inputs(packages=(ZLIB, OPENSSL))) == digest_of(inputs())


def test_a_pending_parent_leaves_the_digest_open() -> None:
    """What a child will be is known only when its parent is built; that it will be built is known now."""
    found = plan(inputs(parent="pending"), parent_pending=True, known=LAST)
    assert (found.action, found.input_digest) == (Action.BUILD, "")
    assert "its parent will be rebuilt" in found.why


def test_the_first_build_says_that_it_is_the_first() -> None:
    """Nothing to compare with is a reason of its own."""
    assert plan(inputs(), last=None).why == ("it has never been built here",)


def test_no_cache_builds_what_is_known() -> None:
    """--no-cache is a reason too."""
    found = plan(inputs(), known=LAST, no_cache=True)
    assert (found.action, found.why) == (Action.BUILD, ("--no-cache was given",))


def test_lost_content_is_built_again() -> None:
    """A ledger line whose content is gone is no reason to skip."""
    assert plan(inputs()).why == ("its content is not on this machine",)
