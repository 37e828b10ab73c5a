"""Proves controls on trees of definitions' packages: as packages leave them, and as profiles harden them. Edge."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path

from hardening.catalog import load_cases, load_controls, load_profile
from hardening.foundation.console import say
from hardening.foundation.errors import ContentError
from hardening.foundation.process import run
from hardening.model import LoadedControl, Profile
from hardening.overlay import apply_to
from hardening.proof import (
    ProofResult,
    kind_of,
    overlay_of,
    prove_broken,
    prove_hardened,
    prove_rendered,
    require_kind,
    with_control,
)
from hardening.render import Overlay
from images.artifact import Package
from images.build import bootstrap, build_steps, builder_of, static
from images.build.build_steps import BuildJob
from images.build.workspace import workspace
from images.catalog import LoadedDefinition
from images.context import Context
from images.machine import trees
from images.model import Bootstrap, Definition
from images.plan.planner import Planner
from images.store.files import image_modes, room_on

NOTHING = Overlay((), (), ())
DEVICES = {"null": (1, 3), "zero": (1, 5), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}


def prove_controls(context: Context, names: Sequence[str]) -> Iterator[tuple[LoadedControl, list[ProofResult]]]:
    """Each control with what became of the proofs in its cases.toml; it may stand in no profile yet. Needs root.

    Raises ContentError for content that does not load, and OutsideError where a tree cannot be made.
    """
    controls = load_controls(context.settings.roots)
    with workspace(context.settings) as work, trees.private_mounts():
        made = _Trees(context, controls, work)
        for name in names:
            yield controls[name], list(made.prove(controls[name]))


@dataclass
class _Trees:
    """The trees of one run: layers of packages, which the store keeps, and what is changed on them, in `work`."""

    context: Context
    controls: dict[str, LoadedControl]
    work: Path
    _numbers: Iterator[int] = field(default_factory=count)
    _layers: dict[tuple[str, ...], tuple[Path, ...]] = field(default_factory=dict)

    def prove(self, loaded: LoadedControl) -> Iterator[ProofResult]:
        """Render, then the hardened tree of each profile, then each way to break it, on a copy of its own."""
        name, cases, today = loaded.control.id, load_cases(loaded), self.context.now.date()
        yield from prove_rendered(loaded, cases, self._profile(cases.profile, loaded), self.controls, today)
        of_proofs = [proof.profile or cases.profile for proof in cases.proof]
        for profile in (self._profile(one, loaded) for one in dict.fromkeys([cases.profile, *of_proofs])):
            with self._copy(profile, "hardened") as tree:
                told = prove_hardened(overlay_of(profile, self.controls, today, only=name), tree)
            yield ProofResult(profile.name, "holds where the profile was applied", *told)
        for number, proof in enumerate(cases.proof):
            profile = self._profile(of_proofs[number], loaded)
            overlay = overlay_of(profile, self.controls, today, only=name, params=proof.params)
            with self._copy(profile, proof.on) as tree:
                told = prove_broken(proof, overlay, tree, self._new() / "apply")
            yield ProofResult(profile.name, proof.title, *told, key=f"proof[{number}]")

    def _profile(self, name: str, loaded: LoadedControl) -> Profile:
        profile = load_profile(self.context.settings.roots, name)
        require_kind(profile, loaded, self.controls)
        return with_control(profile, loaded)

    @contextmanager
    def _copy(self, profile: Profile, state: str) -> Iterator[Path]:
        """A throw-away copy of a profile's tree, `unhardened` or `hardened`."""
        with self._changing(self._of(profile, state), self._new()) as tree:
            yield tree

    def _of(self, profile: Profile, state: str) -> tuple[Path, ...]:
        key = (profile.name, state, profile.controls[-1].control if state == "hardened" else "")
        if key not in self._layers:
            self._layers[key] = self._hardened(profile) if state == "hardened" else self._unhardened(profile)
        return self._layers[key]

    def _hardened(self, profile: Profile) -> tuple[Path, ...]:
        below, room = self._of(profile, "unhardened"), self._new()
        with self._changing(below, room) as tree:
            apply_to(overlay_of(profile, self.controls, self.context.now.date()), tree, room / "overlay")
        return (room / "upper", *below)

    @contextmanager
    def _changing(self, below: Sequence[Path], room: Path) -> Iterator[Path]:
        tree = trees.overlay(below, room / "tree", upper=room / "upper", work=room / "work")
        try:
            yield tree
        finally:
            trees.unmount(tree)

    def _new(self) -> Path:
        return build_steps.fresh(self.work / f"room{next(self._numbers)}")

    def _unhardened(self, profile: Profile) -> tuple[Path, ...]:
        """The packages of the definition that stands for a profile, and of what it stands on, layer by layer."""
        line = _line(self.context, _stand_in(self.context, profile, self.controls))
        source = line[0].definition.base.bootstrap
        assert source is not None  # noqa: S101 - what `_stand_in` chose it by
        key, installed = "", tuple[Package, ...]()
        for loaded in line:
            added = self.context.index.resolve(source, loaded.definition.packages, installed)
            key = self._packages(loaded, source, added, key) if added else key
            installed = tuple(sorted((*installed, *added)))
        with self._changing(trees.stack(self.context.store, key), room := self._new()) as tree:
            _as_installed(tree, self.context.index.sources(source), line[0].definition)
        return (room / "upper", *trees.stack(self.context.store, key))

    def _packages(self, loaded: LoadedDefinition, source: Bootstrap, added: tuple[Package, ...], parent: str) -> str:
        """The key of the layer of packages that `loaded` adds to the layer `parent`; made once, and kept."""
        job = BuildJob(
            name=loaded.name, definition=loaded.definition, definition_folder=loaded.folder,
            platform=self.context.settings.platform, packages=added, debs={}, sources="", upstream=None,
            overlay=Planner(self.context).overlay(loaded) if loaded.definition.is_machine else NOTHING,
            stanzas=self.context.index.stanzas(added), parent=f"sha256:{parent}" if parent else None,
            work=self._new(), store=self.context.store,
        )  # fmt: skip

        def make(layer: Path) -> None:
            say(f"{loaded.name}: installing {len(added)} packages, as they are before they are hardened; once")
            ready = replace(job, debs=self.context.index.download(source, added))
            with room_on(job.work), image_modes():
                _install(ready, layer)

        return trees.made_once(job, trees.packages_key(job), make, parent)


def _install(job: BuildJob, layer: Path) -> None:
    epoch = build_steps.epoch_of(replace(job, parent=None))
    if job.parent:
        trees.install_layer(job, layer, epoch)
    elif job.definition.is_machine:
        trees.bootstrap_layer(job, layer, epoch)
    elif builder_of(job.definition) == "static":
        static.unpack(job, build_steps.fresh(layer / "tree"))
    else:
        bootstrap.make_tree(job, layer / "tree", epoch)


def _as_installed(tree: Path, sources: str, definition: Definition) -> None:
    """Put back what the builder leaves out of the layer: package sources; of a machine devices, and host keys too."""
    if (tree / "etc/apt").is_dir():
        (tree / "etc/apt/sources.list.d/debian.sources").write_text(sources)
    if definition.is_machine:
        for name, (major, minor) in DEVICES.items():
            if not (device := tree / "dev" / name).exists():
                os.mknod(device, 0o666 | stat.S_IFCHR, os.makedev(major, minor))
                device.chmod(0o666)
        if (tree / "usr/bin/ssh-keygen").exists():
            run(["chroot", str(tree), "ssh-keygen", "-A"])


def _stand_in(context: Context, profile: Profile, controls: dict[str, LoadedControl]) -> LoadedDefinition:
    """The definition whose packages a profile is proved on: one of that profile, else the nearest by `extends`.

    Of several, the one that stands on the fewest. Raises ContentError where none is made of packages from the ground.
    """
    kind, above = kind_of(profile, controls), _extended(context, profile.name)

    def distance(loaded: LoadedDefinition) -> int:
        theirs = _extended(context, loaded.definition.profile)
        if profile.name in theirs:
            return theirs.index(profile.name)
        own = loaded.definition.profile
        return 100 + above.index(own) if own in above else 1000

    lines = {name: _line(context, loaded) for name, loaded in context.definitions.items()}
    fitting = [
        loaded
        for name, loaded in context.definitions.items()
        if loaded.definition.kind is kind
        and lines[name][0].definition.base.bootstrap
        and not any(one.definition.is_mkosi for one in lines[name])
    ]
    if not fitting:
        raise ContentError(
            f"no {kind} is made of a distribution's packages, to prove the profile {profile.name} on",
            hint="define one with base.bootstrap; CONTRIBUTING.md shows how",
        )
    return min(fitting, key=lambda one: (distance(one), len(lines[one.name]), one.name))


def _line(context: Context, loaded: LoadedDefinition) -> list[LoadedDefinition]:
    """A definition after those that it stands on."""
    parent = loaded.definition.parent
    return [*(_line(context, context.definitions[parent]) if parent else ()), loaded]


def _extended(context: Context, profile: str) -> list[str]:
    """A profile and those that it extends, the nearest first."""
    base = load_profile(context.settings.roots, profile).extends
    return [profile, *(_extended(context, base) if base else ())]
