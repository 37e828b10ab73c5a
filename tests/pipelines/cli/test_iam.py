"""`iam.policy` renders the policies of one role as files, from settings and fleets."""

from __future__ import annotations

import json
import re
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from hardening.foundation.errors import UsageError
from hardening.foundation.settings import ROOT
from images.ledger import GONE, Made
from pipelines.cli.iam import render_policies
from pipelines.cli.rendering import show_rendered
from pipelines.role_policies import FORMS
from pipelines.wiring import image_context
from tests.test_docs import blocks

DOCUMENT = ROOT / "docs/iam.md"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The settings and the fleet of the document."""
    (_, aws), (path, text) = blocks(DOCUMENT)
    file = tmp_path / "content" / path
    file.parent.mkdir(parents=True)
    file.write_text(text)
    values = dict(re.findall(r'^(\w+) = "(.*)"$', aws, re.MULTILINE))
    content = json.dumps([str(tmp_path / "content")])
    monkeypatch.setenv("GOLDSMITH_AWS", json.dumps(values))
    monkeypatch.setenv("GOLDSMITH_CONTENT", content)
    monkeypatch.setenv("GOLDSMITH_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("GOLDSMITH_JUDGING", json.dumps({"roots": json.loads(content)}))
    return tmp_path


def render(role: str = "reaper", **how: Any) -> Any:
    given = {"form": "json", "account": "", "output": "", "force": False} | how
    return render_policies(role, **given)


def test_the_example_in_the_document_is_what_is_printed(installed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """To the letter."""
    show_rendered(render(), as_json=False)
    (shown,) = re.findall(r"```json\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert capsys.readouterr().out == shown


def test_the_reaper_reaches_regions_that_the_settings_name_no_longer(installed: Path) -> None:
    """Of which the ledger knows that something of ours is there; no other role."""
    with closing(image_context().ledger) as ledger:
        now, account = datetime.now(UTC), "123456789012"
        for region, state in (("eu-north-1", ""), ("eu-south-1", GONE)):
            ledger.record_made(Made(account, region, "image", region, "debian-server", "", "", now, state=state))
    (line,) = render()
    for one in json.loads(line.text)["Statement"]:
        assert one["Condition"]["StringEquals"]["aws:RequestedRegion"] == ["eu-central-1", "eu-north-1"]
    assert "eu-north-1" not in render("publisher")[0].text


def test_files_are_written_into_a_folder_and_never_over_others(installed: Path) -> None:
    """Unless with --force."""
    (line,) = render(form="terraform", output=str(installed / "infra"))
    assert Path(line.path) == installed / "infra/goldsmith-reaper.tf.json"
    assert json.loads(Path(line.path).read_text())["resource"]
    with pytest.raises(UsageError, match="exists already"):
        render(form="terraform", output=str(installed / "infra"))
    assert render(form="terraform", output=str(installed / "infra"), force=True)
    with pytest.raises(UsageError, match="is in a folder that does not exist"):
        render(output=str(installed / "slip/infra"))
    assert not (installed / "slip").exists()


def test_who_applies_a_network_may_change_the_groups_that_it_names(
    installed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """None without a network; then those of the document's example, in every form."""
    assert render("network") == []
    assert "the network asks nothing of AWS there" in capsys.readouterr().err
    (example,) = re.findall(r"```toml\n# (network/\S+)\n(.*?)```", (ROOT / "docs/network.md").read_text(), re.DOTALL)
    file = installed / "content" / example[0]
    file.parent.mkdir()
    file.write_text(example[1])
    for form in FORMS:
        (line,) = render("network", form=form)
        assert "arn:aws:ec2:eu-central-1:123456789012:security-group/sg-0123456789abcdef0" in line.text
        assert line.text.count("ecurityGroupIngress") == 2


def test_a_role_that_asks_nothing_of_aws_needs_no_policy(installed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is said, and nothing is printed."""
    assert render("builder") == []
    assert "the builder asks nothing of AWS there" in capsys.readouterr().err


def test_what_is_misspelt_is_told(installed: Path) -> None:
    """Roles, forms and accounts."""
    with pytest.raises(UsageError, match="rolle is not a role") as wrong:
        render("rolle")
    assert "roller" in str(wrong.value.hint)
    with pytest.raises(UsageError, match="--form: yaml is unknown"):
        render(form="yaml")
    with pytest.raises(UsageError, match="--account: 210987654321 is not an account of the settings"):
        render(account="210987654321")
