"""Checks a definition before anything is fetched or built for it. Edge: reads the content roots."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from functools import cached_property, partial
from pathlib import Path

from hardening.catalog import (
    ControlsOnDemand,
    load_controls,
    load_policies,
    load_profile,
    load_waivers,
    required_profile,
)
from hardening.foundation.errors import ContentError, Problems, nearest, raise_all
from hardening.foundation.hashing import canonical
from hardening.model import Enforcement, LoadedControl, Waiver
from hardening.policy import Policy
from hardening.render import Overlay, render
from hardening.waivers import about_check, waived_by
from images.build import build_steps, builder_of
from images.build.buildkit import dockerfile_of
from images.catalog import LoadedDefinition, files_of

MKOSI = "mkosi.conf"
UNBUILT = "sha256:" + "0" * 64  # stands for a base's digest, which no content depends on


class DefinitionValidator:
    """Cross-checks definitions against everything that they name; shared parts are loaded and rendered once."""

    def __init__(
        self, roots: Sequence[Path], today: date, definitions: Mapping[str, LoadedDefinition],
        controls: Callable[[], Mapping[str, LoadedControl]] | None = None, judging: Sequence[Path] = (),
    ) -> None:  # fmt: skip
        self.roots, self.judging = roots, judging
        self.today = today
        self.definitions = definitions
        self._load_controls = controls or partial(load_controls, roots)
        self._overlays: dict[bytes, Overlay] = {}
        self._judged: dict[tuple[int, int, bool], Overlay] = {}  # by two of these, which stay
        self._may_judge: dict[str, bool] = {}  # by profile

    def require(self, loaded: LoadedDefinition) -> None:
        """Raises ContentError, with file and key, for all that a build or the gate would stumble over."""
        problems = Problems()
        overlay = problems.of(self.overlay, loaded)
        problems.of(self._require_policy, loaded)
        problems.of(self._require_base, loaded)
        for copied in loaded.definition.files:
            problems.of(build_steps.require_file, loaded.definition, loaded.folder, copied.source)
        problems.of(self._require_steps, loaded)
        if overlay:
            problems.of(self._require_smoke, loaded, overlay)
        own = [error for error in problems.found if Path(error.file).is_relative_to(loaded.folder)]
        raise_all(own or problems.found)

    def overlay(self, loaded: LoadedDefinition) -> Overlay:
        """The rendered hardening of a definition; rendered once for each profile and parameters."""
        definition = loaded.definition
        key = canonical([definition.kind, definition.profile, definition.profile_params])
        if key not in self._overlays:
            with _named_in(loaded, "profile"):
                profile = load_profile(self.roots, definition.profile)
            with _named_in(loaded, "profile_params"):
                facts = {"kind": definition.kind}
                self._overlays[key] = render(profile, self._controls, definition.profile_params, facts, self.today)
        return self._overlays[key]

    def judged(self, loaded: LoadedDefinition, policy: Policy) -> Overlay:
        """The rendered hardening of a definition, with the checks of the profile that `policy` requires.

        Of that only what stands in the content roots that may judge counts. Params of a definition there were reviewed.
        """
        own, kind = self.overlay(loaded), loaded.definition.required_as
        key = canonical([policy.name, policy.image.controls.model_dump(), kind])
        if key not in self._overlays and (profile := required_profile(self.judging, policy, kind)):
            facts = {"kind": loaded.definition.kind}
            self._overlays[key] = render(profile, ControlsOnDemand(self.judging), {}, facts, self.today)
        if not (required := self._overlays.get(key)):
            return own
        both = id(own), id(required), self._reviewed(loaded)
        if both not in self._judged:
            self._judged[both] = own.with_required(required.checks, reviewed=both[-1])
        return self._judged[both]

    def _reviewed(self, loaded: LoadedDefinition) -> bool:
        """Whether a definition, and its profile with all that it extends, stand in content roots that may judge."""
        profile, known = loaded.definition.profile, self._may_judge
        if not self._in_judging(loaded):
            return False
        if profile not in known:
            try:
                known[profile] = bool(load_profile(self.judging, profile))
            except ContentError:
                known[profile] = False
        return known[profile]

    def _in_judging(self, loaded: LoadedDefinition) -> bool:
        return any(loaded.folder == root / "images/definitions" / loaded.name for root in self.judging)

    def _require_policy(self, loaded: LoadedDefinition) -> None:
        wanted = loaded.definition.policy
        if wanted not in self._policies:
            raise _wrong(loaded, "policy", f"unknown policy: {wanted}", nearest(wanted, self._policies))

    def _require_base(self, loaded: LoadedDefinition) -> None:
        golden = loaded.definition.base.golden
        if golden is None:
            return
        if golden not in self.definitions:
            hint = nearest(golden, self.definitions)
            raise _wrong(loaded, "base.golden", f"{golden} is not a definition", hint)
        kinds = loaded.definition.kind, self.definitions[golden].definition.kind
        if kinds[0] is not kinds[1]:
            raise _wrong(
                loaded, "base.golden", f"{golden} is a {kinds[1]}, and this a {kinds[0]}",
                f"a {kinds[0]} stands on a bootstrap or on another {kinds[0]}",
            )  # fmt: skip
        if self.definitions[golden].definition.is_mkosi:
            hint = 'give it an mkosi.conf of its own, or let the base be of builder = "packages"'
            raise _wrong(loaded, "base.golden", f"mkosi builds {golden}: nobody knows beforehand what is in it", hint)
        if builder_of(self.definitions[golden].definition) == "static":
            hint = "use another base, or give it its own bootstrap of variant static, with its own packages"
            raise _wrong(loaded, "base.golden", f"{golden} is static: it has no shell to run any step", hint)

    def _require_steps(self, loaded: LoadedDefinition) -> None:
        """What mkosi or a Dockerfile does holds nothing it may not, and is read by something."""
        definition, folder = loaded.definition, loaded.folder
        files = files_of(folder)
        self._require_mkosi(loaded, there=MKOSI in files)
        own = folder / "Dockerfile.j2"
        if own.name not in files:
            return
        if definition.is_machine:
            raise ContentError("nothing runs it: a machine is made of packages, files and controls", file=own)
        if builder_of(definition) != "buildkit":
            hint = "make another definition for these steps, with this one as its base.golden"
            raise ContentError("nothing runs it: a bootstrap is made of packages and files alone", file=own, hint=hint)
        dockerfile_of(definition, folder, definition.packages, UNBUILT, 0)

    def _require_mkosi(self, loaded: LoadedDefinition, *, there: bool) -> None:
        """Require of what mkosi is to build that it may be and has its configuration; of all else, that it has none."""
        if loaded.definition.is_mkosi and not self._in_judging(loaded):
            root = loaded.folder.parents[2]
            raise _wrong(
                loaded, "machine.builder", "mkosi.conf runs as root, with network, and the settings do not let it",
                f'if {root} may do that, name it: [judging] roots = ["{root}"]',
            )  # fmt: skip
        if loaded.definition.is_mkosi and not there:
            raise ContentError(
                "no such file", file=loaded.folder / MKOSI, hint="write it, or take machine.builder out of image.toml"
            )
        if there and not loaded.definition.is_mkosi:
            hint = 'say builder = "mkosi" in [machine] of image.toml, or take it away'
            raise ContentError("unused", file=loaded.folder / MKOSI, hint=hint)

    def _require_smoke(self, loaded: LoadedDefinition, overlay: Overlay) -> None:
        """Require `smoke` before the build where a control checks how the image ran."""
        if loaded.definition.smoke:
            return
        for check in overlay.checks:
            waived = waived_by(self._waivers, about_check(check.control), loaded.name, self.today)
            if "RUN_STATUS" in check.text and check.enforcement is Enforcement.ENFORCE and not waived:
                raise _wrong(
                    loaded, "smoke", f"required by the control {check.control}, but missing",
                    'a command that ends with 0 on a read-only root, such as smoke = ["myprogram", "--version"]',
                )  # fmt: skip

    @cached_property
    def _controls(self) -> Mapping[str, LoadedControl]:
        return self._load_controls()

    @cached_property
    def _policies(self) -> dict[str, Policy]:
        return load_policies(self.roots)

    @cached_property
    def _waivers(self) -> tuple[Waiver, ...]:
        return load_waivers(self.roots)


def _wrong(loaded: LoadedDefinition, key: str, message: str, hint: str) -> ContentError:
    return ContentError(message, file=loaded.folder / "image.toml", key=key, hint=hint)


@contextmanager
def _named_in(loaded: LoadedDefinition, key: str) -> Iterator[None]:
    """Errors that no file is to blame for yet are the definition's, which names what is wrong under `key`."""
    try:
        yield
    except ContentError as error:
        if error.file:
            raise
        where = key if error.key in ("", key) else f"{key}.{error.key}"
        raise ContentError(
            error.message.removeprefix(f"{error.key}: "), file=loaded.folder / "image.toml", key=where,
            hint=error.hint, evidence=error.evidence,
        ) from None  # fmt: skip
