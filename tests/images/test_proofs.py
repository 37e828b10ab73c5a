"""`control.test`: a control of any content root is proved on what packages make, before any profile lists it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from hardening.catalog import load_controls, load_profile
from hardening.foundation.errors import ContentError
from hardening.foundation.settings import ROOT, Settings
from images.context import Context
from images.proofs import _stand_in
from tests.support.loop import CHILD, Goldsmith, definition
from tests.support.trees import NO_ENGINE, SHOWN, Layers, control_shown


@pytest.fixture
def inv(tmp_path: Path) -> Goldsmith:
    """A state of its own, and a content root with the control that CONTRIBUTING.md shows and no profile lists."""
    return Goldsmith(tmp_path / "state", NO_ENGINE, (control_shown(tmp_path / "root"),))


@pytest.mark.slow
@pytest.mark.needs("root", "mmdebstrap", "mirror")
def test_a_control_is_proved_without_an_image_and_the_second_time_without_a_bootstrap(
    inv: Goldsmith, layers: Layers
) -> None:
    """Its own proof holds; one that proves nothing is told with file and key, and ends with 2."""
    first = layers.first
    assert first.code == 0, first.err
    assert [(line["profile"], line["passed"]) for line in first.json] == [("container-base", True)] * 2
    assert "no profile uses it" in first.err
    layers.link_to(inv.state, layers.container)
    cases = inv.content[0] / f"hardening/controls/{SHOWN}/cases.toml"
    cases.write_text(cases.read_text() + '[[proof]]\ntitle = "of nothing"\nevidence = "/x"\n')
    second = inv("control.test", f"{SHOWN[:-1]}*")
    assert second.code == 2
    assert f"{cases}: proof[1]: of nothing: its check must fail where it is broken, and says pass" in second.err
    assert "installing" in first.err
    assert "installing" not in second.err
    assert max(map(len, second.out.splitlines())) <= 80
    for state in (layers.state, inv.state):
        assert [path for path in (state / "work").iterdir() if path.suffix != ".lock"] == []


def test_an_unknown_control_is_answered_with_the_nearest(inv: Goldsmith) -> None:
    """Before anything is made."""
    answer = inv.here("control.test", SHOWN[:-1])
    assert answer.code == 2
    assert f"hint: did you mean {SHOWN} or" in answer.err


def context(folder: Path, *roots: Path) -> Context:
    return Context(Settings(state=folder / "state", content=roots), datetime(2026, 6, 1, tzinfo=UTC), str, str)


@pytest.mark.parametrize(
    ("profile", "stands_for_it"),
    [
        ("container-base", "debian-base"), ("container-static", "debian-static"), ("machine-base", "debian-server"),
        ("cis-level1", "debian-server"), ("cis-level2", "debian-server"), ("container-host", "container-host"),
        ("l-shop", "debian-base"),
    ],
)  # fmt: skip
def test_a_profile_is_proved_on_the_nearest_definitions_packages(
    tmp_path: Path, profile: str, stands_for_it: str
) -> None:
    """Its own, else that of what extends it or of what it extends; of several, the one that stands on the fewest."""
    file = tmp_path / "root/hardening/profiles/l-shop.toml"
    file.parent.mkdir(parents=True)
    file.write_text('title = "t"\nowner = "o"\nextends = "container-base"\n')
    definition(tmp_path / "root", "a-child", CHILD)
    ours = context(tmp_path, tmp_path / "root")
    roots = ours.settings.roots
    assert _stand_in(ours, load_profile(roots, profile), load_controls(roots)).name == stands_for_it


def test_where_no_definition_is_made_of_packages_nothing_can_be_proved(tmp_path: Path) -> None:
    """It says what is lacking."""
    ours = context(tmp_path)
    ours.__dict__["definitions"] = {}
    with pytest.raises(ContentError, match="no container is made of a distribution's packages"):
        _stand_in(ours, load_profile([ROOT], "container-base"), load_controls([ROOT]))
