"""The filesystems that controls are proved on: as packages leave them, and as each profile makes them.

`control.test` makes them, and so do these: from the packages of definitions, which stand in the shared `layers`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, time
from functools import cache
from pathlib import Path

from hardening import proof
from hardening.catalog import load_controls, load_profile, load_profiles
from hardening.foundation.settings import ROOT, Settings
from hardening.render import Overlay
from images import proofs
from images.context import Context
from images.machine.trees import overlay, private_mounts
from images.store.oci import TREES
from tests.support.loop import DONE, Answer, Goldsmith, hard_linked
from tests.support.scanning import NO_FEEDS

TODAY = date(2026, 1, 1)
CONTROLS = load_controls([ROOT])
PROFILES = {name: proof.kind_of(profile, CONTROLS) for name, profile in load_profiles([ROOT]).items()}
READY = "GOLDSMITH_TEST_LAYERS"
"""Names a state directory in which the layers are made already, for quick trials; it is not changed."""
NO_ENGINE = "unix:///nonexistent/docker.sock"  # trees need none
profile_of = cache(lambda name: load_profile([ROOT], name))


def overlay_of(profile: str, *, only: str = "", params: dict[str, object] | None = None) -> Overlay:
    """The profile's overlay, or that of one of its controls alone."""
    return proof.overlay_of(profile_of(profile), CONTROLS, TODAY, only=only, params=params)


@dataclass
class Trees:
    """The trees of profiles as `control.test` has them: `unhardened`, as packages leave them, or `hardened`."""

    made: proofs._Trees

    def of(self, profile: str, state: str) -> Path:
        """To be read only; mounted once."""
        at = self.made.work / f"{profile}-{state}"
        return at if at.exists() else overlay(self.made._of(profile_of(profile), state), at)

    def copy(self, profile: str, state: str) -> AbstractContextManager[Path]:
        """A copy to change, for the block."""
        return self.made._copy(profile_of(profile), state)


@contextmanager
def trees_on(state: Path, work: Path) -> Iterator[Trees]:
    """Trees on the layers of a state for the block, mounted where nobody else sees it."""
    settings, now = Settings(state=state, feeds=NO_FEEDS), datetime.combine(TODAY, time(), UTC)
    with private_mounts():
        yield Trees(proofs._Trees(Context(settings, now, str, str), CONTROLS, work))


@dataclass(frozen=True)
class Layers:
    """A state that holds the packages of definitions as installed, and what the command said that first needed one.

    `container` and `machine` are the keys of the two.
    """

    state: Path
    first: Answer
    container: str
    machine: str

    def link_to(self, state: Path, key: str) -> None:
        """Let a new state begin with a layer, and with the packages that it was made of."""
        (state / TREES).mkdir(parents=True, mode=0o700)
        (state / "apt").symlink_to(self.state / "apt")
        hard_linked(self.state / TREES / key, state / TREES / key)


SHOWN = "no-core-dumps" if not (ROOT / "hardening/controls/no-core-dumps").exists() else "no-core-dumps-again"
"""What the document's control is called here: whoever follows it to the letter has one of its name in the checkout."""


def files_shown(folder: Path) -> Path:
    """The files that the document shows, as somebody would copy them into a content root."""
    text = (ROOT / "CONTRIBUTING.md").read_text().replace("no-core-dumps", SHOWN)
    shown = re.findall(
        r"^( *)```(?:toml|sh)\n *# (hardening/(?:controls|profiles)/\S+)\n(.*?)```", text, re.DOTALL | re.MULTILINE
    )
    for indent, name, body in shown:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(re.sub(rf"^{indent}", "", body, flags=re.MULTILINE))
    return folder


def control_shown(folder: Path) -> Path:
    """A content root with the control that CONTRIBUTING.md shows and no profile lists."""
    (files_shown(folder) / "hardening/profiles/shop-base.toml").unlink()
    return folder


def make_layers(state: Path) -> Layers:
    """Both kinds' packages, unless they are there: a container's by `control.test` of what no profile lists."""
    state = Path(os.environ.get(READY, state))
    said = state / DONE
    if not said.exists():
        content = control_shown(state / "content")
        first = Goldsmith(state, NO_ENGINE, (content,))("control.test", SHOWN, "--json")
        [container] = (state / TREES).iterdir()
        work = state / "work/machine"
        work.mkdir()
        with trees_on(state, work) as trees:
            trees.made._of(profile_of("machine-base"), "unhardened")
        shutil.rmtree(work)
        [machine] = set((state / TREES).iterdir()) - {container}
        said.write_text(json.dumps([asdict(first), container.name, machine.name]))
    answer, *keys = json.loads(said.read_text())
    return Layers(state, Answer(**answer), *keys)
