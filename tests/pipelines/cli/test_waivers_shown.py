"""Waivers as people meet them: listed, announced before they end, exported; and the names that commands had before."""

from __future__ import annotations

import json
import stat
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from hardening.findings import Reason, Verdict
from hardening.model import Enforcement
from images.artifact import Artifact
from images.context import Context
from images.documents import to_json
from images.ledger import FleetCheck
from pipelines.cli.waiving import refused_now
from pipelines.contract import NightlyLine
from pipelines.fleet.violations import CheckedMember, MemberVerdict, PolicyState
from pipelines.nightly.stages import ending
from pipelines.nightly.summary import summary
from tests.support.loop import Goldsmith
from tests.support.publishing import settings_in
from tests.support.watched import FILE

WAIVER = """
vulnerabilities = ["CVE-2026-0001"]
packages = ["zlib1g"]
subjects = ["shop"]
reason = "not reached"
owner = "web"
approver = "security"
created = 2026-11-01
expires = %s
%s
"""
DEFINITION = """
title = "t"
owner = "web"
kind = "container"
profile = "container-base"
smoke = ["true"]
healthcheck = { none_because = "a test runs nothing" }
[base]
bootstrap = { family = "debian", suite = "trixie" }
"""


@pytest.fixture
def inv(tmp_path: Path) -> Goldsmith:
    """Two waivers on 2026-11-25: one ends in two weeks, the other a day later."""
    root = tmp_path / "root"
    for name, ends, more in (
        ("soon", "2026-12-09", ""), ("later", "2026-12-10", 'justification = "vulnerable_code_not_present"'),
    ):  # fmt: skip
        (root / "hardening/waivers").mkdir(parents=True, exist_ok=True)
        (root / f"hardening/waivers/{name}.toml").write_text(WAIVER % (ends, more))
    (root / "images/definitions/shop").mkdir(parents=True)
    (root / "images/definitions/shop/image.toml").write_text(DEFINITION)
    return Goldsmith(tmp_path / "state", "unix:///nowhere", (root,)).with_(now="2026-11-25T12:00Z")


@pytest.mark.parametrize("command", ["waiver.list", "image.list", "policy.waivers"])
def test_a_waiver_that_ends_within_two_weeks_is_announced(inv: Goldsmith, command: str) -> None:
    """Beside the table; a program that asks for JSON reads the days in `waiver.list`."""
    said = inv.here(command)
    assert (said.code, said.err) == (0, "waiver soon for CVE-2026-0001 in shop ends on 2026-12-09 (web)\n")
    told = inv.here(command, "--json")
    assert (told.code, told.err) == (0, "")
    if command == "waiver.list":
        assert {line["id"]: line["days_left"] for line in told.json} == {"soon": 14, "later": 15}


@pytest.mark.parametrize("command", ["waiver.list", "image.list"])
def test_a_waiver_that_has_ended_is_reported(inv: Goldsmith, command: str) -> None:
    """As long as its file stays; the table says it in words, JSON in days below 0."""
    said = inv.with_(now="2026-12-10T12:00Z").here(command)
    assert "waiver soon for CVE-2026-0001 in shop ended on 2026-12-09 (web): it has no effect, so remove" in said.err
    assert "later for CVE-2026-0001 in shop ends on 2026-12-10" in said.err
    if command == "waiver.list":
        assert ["2026-12-09", "ended"] in [line.split()[2:4] for line in said.out.splitlines()]
        assert [one["days_left"] for one in inv.with_(now="2026-12-10T12:00Z").here(command, "--json").json] == [0, -1]


def test_the_night_announces_it_too(inv: Goldsmith, tmp_path: Path) -> None:
    """As a line, and in the sentence that sums the night up."""
    settings = settings_in(tmp_path / "night", content=inv.content, judging={"roots": inv.content})
    [line] = ending(Context(settings, datetime(2026, 11, 25, 12, tzinfo=UTC), str, str)).lines
    assert line == NightlyLine(
        kind="waiver", name="soon", status="ends", seconds=0,
        detail="soon for CVE-2026-0001 in shop ends on 2026-12-09 (web)",
    )  # fmt: skip
    assert summary([], [line]) == "nothing built, nothing published; fleets: none; waivers that end: soon"


def test_the_night_names_a_waiver_that_has_ended_and_what_refuses_since(inv: Goldsmith, tmp_path: Path) -> None:
    """For two weeks, by the last verdicts on images and checks of fleets, and only where something refuses."""
    settings = settings_in(tmp_path / "night", content=inv.content, judging={"roots": inv.content})
    begun = Context(settings, datetime(2026, 12, 10, 12, tzinfo=UTC), str, str)
    made = Artifact("shop", settings.platform, "in", f"sha256:{5:064x}", {}, (), begun.now, begun.now)

    def names(day: int) -> list[tuple[str, str]]:
        return [(line.name, line.status) for line in ending(begun.moved(begun.now.replace(day=day))).lines]

    with closing(begun.ledger) as ledger:
        ledger.record_artifact(made)
        assert names(10) == [("later", "ends")]
        refused = Reason("CVE-2026-0001", "shop", Enforcement.ENFORCE, "w", "y", "t")
        for reason, told in (
            (replace(refused, waived_by="x"), []),
            (replace(refused, rule="CVE-2026-0002"), []),
            (refused, [("soon", "ended")]),
        ):
            ledger.record_verdict(made.digest, Verdict("shop", "default", begun.now, False, (reason,)))
            assert names(10) == [("later", "ends"), *told]
        ended = ending(begun).lines[-1]
        assert (ended.name, ended.status) == ("soon", "ended")
        assert ended.detail.endswith("ended on 2026-12-09 (web), which refuses shop now")
        assert summary([], [ended]).endswith("; waivers that ended: soon")
        assert (names(23), names(24)) == ([("later", "ended"), ("soon", "ended")], [("later", "ended")])
        assert names(25) == []
        (root := inv.content[0] / "pipelines/fleets").mkdir(parents=True)
        (root / "web.toml").write_text(FILE.format(name="web", owner="web"))
        one = replace(refused, rule="expired", subject="web/web-1", enforcement=Enforcement.WARN)
        reasons = (one, replace(one, rule="unread", waived_by="x"), replace(one, enforcement=Enforcement.ENFORCE))
        verdict = MemberVerdict(PolicyState.OUT, ("expired",))
        ledger.record_check(
            FleetCheck("web", begun.now, to_json((CheckedMember("web-1", "i", "", "", "", verdict, reasons),)))
        )
        assert list(refused_now(begun)) == [refused, reasons[-1]]
        (root / "web.toml").unlink()
        assert list(refused_now(begun)) == [refused], "nobody checks a fleet without a file"


def test_what_is_exported_says_affected_unless_a_waiver_says_why_it_is_not(inv: Goldsmith) -> None:
    """By the new name of the command, and by the one that it had."""
    for command in ("waiver.export", "policy.export"):
        first, second = json.loads(inv.here(command, "shop").out)["statements"]
        assert (first["status"], first["justification"]) == ("not_affected", "vulnerable_code_not_present")
        assert (first["impact_statement"], "action_statement" in first) == ("not reached", False)
        assert first["status_notes"] == "claimed until 2026-12-10 by security"
        assert (second["status"], "justification" in second) == ("affected", False)
    assert inv.here("waiver.export", "shop", "--form", "nothing").code == 1
    wrong = inv.here("waiver.export", "shpo")
    assert wrong.code
    assert "unknown definition: shpo" in wrong.err
    assert "did you mean shop" in wrong.err


def test_a_new_waiver_is_one_command(inv: Goldsmith) -> None:
    """With what to type where something is missing, and JSON for programs."""
    root = str(inv.content[0])
    asked = ("waiver.new", "shop", "no-setuid", "--content", root)
    assert "--reason and --approver must be given" in inv.here(*asked).err
    made = inv.here(*asked, "--reason", "r", "--approver", "security", "--expires", "2026-12-01", "--json")
    assert made.code == 0, made.err
    assert made.json["file"] == f"{root}/hardening/waivers/shop-no-setuid.toml"
    assert stat.filemode(Path(made.json["file"]).stat().st_mode) == "-rw-r--r--", "content is no state: others read it"
    assert made.json["waiver"]["controls"] == ["no-setuid"]
    assert "shop-no-setuid for no-setuid in shop ends on 2026-12-01 (web)" in inv.here("waiver.list").err


def test_a_preview_takes_a_file_or_none(inv: Goldsmith) -> None:
    """A second one is a slip."""
    policy = "hardening/policies/default.toml"
    assert inv.here("policy.preview", policy, "--instead-of", "machine", "--json").json["instead_of"] == "machine"
    assert inv.here("policy.preview", "--json", policy, "--instead-of", "machine").code == 0
    assert "No idea what" in inv.here("policy.preview", policy, "more.toml").err
    assert "--at: invalid date: soon" in inv.here("policy.preview", policy, "--at", "soon").err
