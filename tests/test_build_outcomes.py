"""One image's trouble, foreseen or not, is that image's outcome."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from hardening.foundation.errors import ContentError
from hardening.foundation.settings import Settings
from images.build import build
from images.context import Context
from images.planning.plan import Action
from images.planning.planner import Planner

HEAD = 'title = "t"\nowner = "us"\nkind = "container"\nprofile = "container-base"\nsmoke = ["true"]\n'


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('policy = "defualt"', "image.toml: policy: no policy is named defualt\n  hint: did you mean default?"),
        ('profile = "container-bas"', "image.toml: profile: no profile is named container-bas"),
    ],
)
def test_names_that_lead_nowhere_are_found_when_it_is_planned(tmp_path: Path, line: str, said: str) -> None:
    """Before a package index is asked, and long before the gate would look for its policy."""
    folder = tmp_path / "content/images/definitions/o-one"
    folder.mkdir(parents=True)
    head = HEAD.replace('profile = "container-base"\n', "") if line.startswith("profile") else HEAD
    (folder / "image.toml").write_text(
        f'{head}{line}\nbase = {{ bootstrap = {{ family = "debian", suite = "none" }} }}\n'
    )
    settings = Settings(state=tmp_path / "state", content=(tmp_path / "content",))
    planner = Planner(Context(settings, datetime.now(UTC), lambda: "", lambda: ""))
    with pytest.raises(ContentError) as error:
        planner.plan("o-one")
    assert said in str(error.value)


def test_what_nobody_foresaw_stops_one_image_and_its_children_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mistake of ours ends with 1 and its type, the world's with 4; every image has its outcome."""
    bases = dict.fromkeys(("o-bug", "o-disk", "o-memory"), '{ bootstrap = { family = "debian", suite = "trixie" } }')
    for name, base in {**bases, "o-child": '{ golden = "o-bug" }'}.items():
        folder = tmp_path / "content/images/definitions" / name
        folder.mkdir(parents=True)
        (folder / "image.toml").write_text(f"{HEAD}base = {base}\n")
    errors = {"o-bug": KeyError("surprise"), "o-disk": PermissionError(13, "not yours"), "o-memory": MemoryError()}

    def fail(_: Planner, name: str) -> Any:
        raise errors[name]

    monkeypatch.setattr(Planner, "plan", fail)
    settings = Settings(state=tmp_path / "state", content=(tmp_path / "content",))
    context = Context(settings, datetime.now(UTC), lambda: "", lambda: "")
    found = {outcome.name: outcome for outcome in build(context, [*bases, "o-child"])}
    assert {outcome.action for outcome in found.values()} == {Action.FAILED}
    codes = {name: outcome.error.exit_code for name, outcome in found.items() if outcome.error}
    assert codes == {"o-bug": 1, "o-disk": 4, "o-memory": 1, "o-child": 1}
    assert "KeyError: 'surprise'" in str(found["o-bug"].error)
    assert "not yours" in found["o-disk"].reasons[0]
    assert found["o-child"].reasons == ("its parent o-bug failed",)
