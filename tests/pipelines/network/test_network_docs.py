"""What docs/network.md shows is what the commands print, of exactly the network that stands there."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from hardening.foundation.settings import ROOT, Settings
from images.context import Context
from pipelines.cli.network import apply_network, check_network, render_network
from pipelines.cli.network_moving import refactor, show_move
from pipelines.network.comparing import Openness
from tests.pipelines.network.test_network_refactor import SERVER

TEXT = (ROOT / "docs/network.md").read_text()
(EXAMPLE,) = re.findall(r"```toml\n(# network/shop\.toml\n.*?)```", TEXT, re.DOTALL)
PARAMS, RULES, MOVE = (textwrap.dedent(text) for text in re.findall(r"```text\n(.*?)```", TEXT, re.DOTALL))


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Context]:
    """A content root with the network of the document, and the definition that it names."""
    for name, text in (("network/shop.toml", EXAMPLE), ("images/definitions/db-server/image.toml", SERVER)):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(text)
    settings = Settings(state=tmp_path / "state", content=(tmp_path,))
    context = Context(settings, datetime.now(UTC), lambda: "", lambda: "")
    with closing(context.ledger):
        yield context


def test_the_definition_and_the_ruleset_are_as_shown(at: Context) -> None:
    """Both are made of the example."""
    (line,) = render_network("nftables", output="", force=False, context=at)
    assert line.file == "db-server.nft"
    assert textwrap.indent(RULES, " " * 8) in line.text
    apply_network("nftables", apply=True, context=at)
    (file,) = at.settings.roots[1].rglob("image.toml")
    assert PARAMS in file.read_text()


def test_the_preview_is_as_shown(at: Context, capsys: pytest.CaptureFixture[str]) -> None:
    """With the paths of the content root."""
    show_move(refactor("10.9.0.0/24", "10.12.0.0/24", apply=False, context=at), as_json=False)
    said = re.sub(r"\s+\S*/(network/shop\.toml:)\s+", r"\n  \1 ", capsys.readouterr().out)
    assert said == MOVE + "nothing was done: --apply writes the files\n"


def test_the_example_renders_to_every_kind(at: Context) -> None:
    """Without an account nothing is asked of EC2."""
    kinds = {line.target for kind in ("docker", "kubernetes") for line in render_network(
        kind, output="", force=False, context=at)}  # fmt: skip
    assert kinds == {"docker", "kubernetes"}


def test_every_verdict_is_described() -> None:
    """As `network.check` prints it."""
    assert all(f"- `{verdict}`:" in TEXT for verdict in Openness)


def test_what_the_example_says_of_its_definition(at: Context) -> None:
    """That it is not applied yet is a difference."""
    assert {line.verdict for line in check_network("nftables", context=at)} >= {Openness.TOO_CLOSED}
