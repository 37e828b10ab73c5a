"""The image tasks on the command line, where the image is a machine's: the same words, the same exit codes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hardening.foundation.settings import Settings
from hardening.trust import PREDICATES
from images.aws.cloud import Cloud
from images.aws.release_store import AwsStore
from images.registry.client import RegistryClient
from images.release.channels import promote
from pipelines.host import embedded_registry
from tests.pipelines.cli.test_contract import printed_schema, validator
from tests.strict_aws import Fault, StrictAws
from tests.support.cloud import DAY, OTHER, at, cloud_for, disk, publish, settings_at
from tests.support.loop import Answer, Goldsmith
from tests.support.publishing import gate

NAME = "debian-server"


@pytest.fixture
def cloud(aws: StrictAws, tmp_path: Path) -> Iterator[Cloud]:
    """Two releases of debian-server, both of which were stable once."""
    settings = settings_at(aws, tmp_path, regions=(OTHER,))
    registry = RegistryClient(embedded_registry.registry_address(settings), settings)
    made = replace(cloud_for(settings), open_registry=lambda: registry)
    for day in (-2, -1):
        then = at(made, made.now + day * DAY)
        publish(then, disk(seed=day))
        promote(AwsStore(then), NAME, "default", gate())
    yield made
    made.ledger.close()


@pytest.fixture
def inv(cloud: Cloud) -> Iterator[Goldsmith]:
    """The command line on that state, with those settings."""
    settings = {"GOLDSMITH_AWS": json.dumps(cloud.aws.model_dump(mode="json") | {"attempts": 2})}
    yield Goldsmith(cloud.settings.state_dir, f"unix://{cloud.settings.state_dir}/no.sock", settings=settings)
    embedded_registry.stop(Settings(state=cloud.settings.state_dir))


def valid(command: str, answer: Answer) -> Answer:
    """The answer of a command that went well, as its schema says."""
    assert answer.code == 0, answer.err
    validator(printed_schema(command)).validate(answer.json)
    return answer


@pytest.mark.slow
def test_a_machines_release_is_shown_moved_back_revoked_and_read_in_again(
    aws: StrictAws, cloud: Cloud, inv: Goldsmith
) -> None:
    """Each by the task that containers have, with an answer by the same contract."""
    newer, older = cloud.ledger.releases(NAME)
    shown = valid("image.show", inv("image.show", NAME, "--json")).json
    assert (shown["digest"], shown["proven"], len(shown["images"])) == (newer.digest, True, 2)
    assert {one["predicate_type"] for one in shown["attestations"]} >= set(PREDICATES.values())
    assert "proven" in inv("image.show", NAME).out
    assert len(inv("image.verify-trust", f"{NAME}:stable", "--json").json) == len(shown["attestations"])
    assert inv("image.show", f"{NAME}:nothing").code == 2
    (back,) = valid("image.rollback", inv("image.rollback", NAME, "--json")).json
    assert (back["after"], back["channel"]) == (older.digest, "stable")
    again = valid("image.promote", inv("image.promote", NAME, "--policy", "default", "--json")).json
    assert again[0]["after"] == newer.digest
    revoked = valid("image.revoke", inv("image.revoke", newer.digest, "--reason", "a back door", "--json")).json
    assert {change["after"] for change in revoked} == {older.digest}
    assert inv("image.show", f"{NAME}:stable", "--json").json["digest"] == older.digest
    assert valid("image.reap", inv("image.reap", "--json")).json == []
    lines = valid("image.prune", inv("image.prune", "--json")).json
    of_machine = {line["release"]: line for line in lines if line["name"] == NAME}
    assert len(of_machine) == 4
    assert {line["action"] for line in of_machine.values()} == {"keep"}
    (cloud.settings.state_dir / "ledger.sqlite").unlink()
    read = valid("image.rebuild", inv("image.rebuild", "--json")).json
    assert {line["release"] for line in read} == {newer.digest, older.digest}


@pytest.mark.slow
def test_what_cannot_be_published_is_told_before_anything_is_built(
    aws: StrictAws, cloud: Cloud, inv: Goldsmith
) -> None:
    """An unreachable region, a permission that is missing, AWS that is not set: by the exit code of their family."""
    for fault, code, words in (
        (Fault("unreachable", region=OTHER), 4, f"in {OTHER} cannot be reached"),
        (Fault("denied", operation="RegisterImage"), 3, "AWS denies ec2:RegisterImage in"),
    ):
        with aws.faulty(fault):
            answer = inv("image.publish", NAME)
        assert (answer.code, words in answer.err) == (code, True), answer.err
        assert "building" not in answer.err
    answer = inv.with_(aws='{"region": ""}')("image.publish", NAME)
    assert (answer.code, "goldsmith.toml: aws.region: it is not set" in answer.err) == (2, True), answer.err


@pytest.mark.parametrize("words", [["image.reap"], ["adopt", "asg:shop"], ["adopt", "ec2:app=shop"]])
def test_without_aws_in_the_settings_the_error_says_what_to_write_and_where(tmp_path: Path, words: list[str]) -> None:
    """Before anything is asked; with one of the two there, only the other is missing."""
    bare = Goldsmith(tmp_path, "unix:///nowhere")
    for given, missing in (({}, 'account = "123456789012", region = "eu-central-1"'),
                           ({"account": "210987654321"}, 'region = "eu-central-1"')):  # fmt: skip
        answer = bare.with_(aws=json.dumps(given)).here(*words)
        assert answer.code == 2
        said = " ".join(answer.err.split())
        assert "goldsmith.toml: aws.region: it is not set, and nothing at AWS is read or made without it" in said
        assert f"write below [aws] in goldsmith.toml, with your own values: {missing}; docs/aws.md" in said
