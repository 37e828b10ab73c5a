"""A profile becomes an overlay: files, apply scripts and checks. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date
from functools import cache, cached_property
from shlex import quote
from typing import TYPE_CHECKING, Any

from hardening.foundation.errors import ContentError, closest, nearest, raise_all
from hardening.foundation.hashing import digest_of
from hardening.model import LENIENT_FIRST, Control, Enforcement, LoadedControl, Profile, ProfileEntry, Severity

if TYPE_CHECKING:
    from hardening.foundation.templating import Sandbox


@dataclass(frozen=True)
class RenderedFile:
    """A file to install: absolute path inside the image, text, permission bits and numeric owner.

    Where `only_with` names a directory that the image does not have, the file is left out.
    """

    path: str
    content: str
    mode: int
    uid: int
    gid: int
    only_with: str = ""


@dataclass(frozen=True)
class Script:
    """A control's apply script and the environment it runs in."""

    control: str
    text: str
    env: dict[str, str]


@dataclass(frozen=True)
class Check:
    """A control's check script, the environment it runs in, and how a failure is treated today."""

    control: str
    title: str
    severity: Severity
    enforcement: Enforcement
    text: str
    env: dict[str, str]


@dataclass(frozen=True)
class Overlay:
    """Everything a profile does to an image, in the profile's order.

    `parts` is a function of what is done and checked; enforcement and dates are no part of it, so that a stage that
    begins tomorrow rebuilds nothing.
    """

    files: tuple[RenderedFile, ...]
    applies: tuple[Script, ...]
    checks: tuple[Check, ...]

    @cached_property
    def parts(self) -> dict[str, Any]:
        """Each file, script and check by the digest of its content; worked out once for all images that share it."""
        return {
            "files": {
                file.path: digest_of([file.content, file.mode, file.uid, file.gid, file.only_with])
                for file in self.files
            },
            "applies": [[script.control, digest_of([script.text, script.env])] for script in self.applies],
            "checks": [[check.control, digest_of([check.text, check.env])] for check in self.checks],
        }

    def with_required(self, required: Iterable[Check], *, reviewed: bool) -> Overlay:
        """The same overlay where every one of the `required` checks counts too.

        A control that the profile has with other params is checked with both, unless the params are `reviewed`.
        """
        wanted, own = {check.control: check for check in required}, {check.control for check in self.checks}
        known = (_both(check, wanted.get(check.control, check), reviewed=reviewed) for check in self.checks)
        added = (
            replace(check, title=f"{check.title} (required by the policy)")
            for name, check in wanted.items()
            if name not in own
        )
        return replace(self, checks=(*known, *added))


_TWICE = """check={text}
ask() {{ # HEADING COMMAND...: what it says, which must be something
    heading=$1 status=0
    shift
    said=$("$@") || status=$?
    [ -n "$said" ] || {{ echo "$heading it says nothing" >&2; exit 3; }}
    printf '%s\\n%s\\n' "$heading" "$said"
    case $status in 0 | 2) ;; *) exit "$status" ;; esac
}}
ask 'with the params that the policy requires: '{shown} env {params} sh -c "$check" {name}
ask "with the image's own params:" sh -c "$check" {name}
exit "$status"
"""


def _both(own: Check, required: Check, *, reviewed: bool) -> Check:
    """One check in place of two of the same control: it passes where both do, and is treated as the stricter one."""
    check = replace(own, enforcement=max(own.enforcement, required.enforcement, key=LENIENT_FIRST.index))
    if reviewed or (own.text, own.env) == (required.text, required.env):
        return check
    params = [f"{name}={value}" for name, value in required.env.items()]
    text = _TWICE.format(
        text=quote(required.text), name=own.control, params=" ".join(map(quote, params)),
        shown=quote("; ".join(params).replace("\n", " ")),
    )  # fmt: skip
    return replace(check, text=text)


def _meant(name: str, profile: str, known: Collection[str], others: Collection[str]) -> str:
    """The control that `name` means: of those that the profile has, or of all others where these are nearer."""
    near = next(iter(closest(name, [*others])), "")
    if not near or near in known:
        return nearest(name, known)
    other = "" if near == name else f"did you mean {near}? "
    return f"{other}add {near} to {profile}, or choose a profile that has it"


def render(
    profile: Profile,
    controls: Mapping[str, LoadedControl],
    params_over: Mapping[str, Mapping[str, Any]],
    facts: Mapping[str, Any],
    today: date,
) -> Overlay:
    """The overlay of `profile`; `params_over` (control → params) is the definition's say over the profile's own params.

    Templates see `params` and `facts`; `facts["kind"]`, where given, must be one that every control applies to.
    Raises ContentError for unknown controls and params, wrong types, missing values and broken templates.
    """
    known = [entry.control for entry in profile.controls]
    raise_all(
        ContentError(
            f"{profile.name} has no control {name}", key=name, hint=_meant(name, profile.name, known, controls)
        )
        for name in params_over
        if name not in known
    )
    files: list[RenderedFile] = []
    applies: list[Script] = []
    checks: list[Check] = []
    for entry in profile.controls:
        loaded = _find(entry, controls, facts)
        control = loaded.control
        params = _params(entry, control, params_over.get(entry.control, {}))
        env = {f"PARAM_{name.upper().replace('-', '_')}": _shell_value(value) for name, value in params.items()}
        files += _files(loaded, params, facts)
        _refuse_twice(files, entry)
        if loaded.apply is not None:
            applies.append(Script(control.id, loaded.apply, env))
        checks.append(Check(control.id, control.title, control.severity, entry.enforced(today), loaded.check, env))
    return Overlay(tuple(files), tuple(applies), tuple(checks))


def require_sound(entry: ProfileEntry, controls: Mapping[str, LoadedControl]) -> None:
    """Raises ContentError where a profile's entry names no control, or gives it params that it does not take.

    What is missing is no mistake yet: a definition may give it.
    """
    control = _find(entry, controls, {}).control
    _refuse_wrong(entry.params, control, entry.file, f"controls.{control.id}.params")


def _find(entry: ProfileEntry, controls: Mapping[str, LoadedControl], facts: Mapping[str, Any]) -> LoadedControl:
    if entry.control not in controls:
        hint = nearest(entry.control, controls)
        raise ContentError(f"unknown control: {entry.control}", file=entry.file, key="controls", hint=hint)
    loaded = controls[entry.control]
    kind = facts.get("kind")
    if kind is not None and kind not in loaded.control.applies_to:
        kinds = ", ".join(loaded.control.applies_to)
        hint = f"list it in a profile for {kinds}, or take another profile here"
        what = f"{entry.control} applies to {kinds}, not to {kind}"
        raise ContentError(what, file=entry.file, key="controls", hint=hint)
    return loaded


def _params(entry: ProfileEntry, control: Control, over: Mapping[str, Any]) -> dict[str, Any]:
    """Every param of the control with its value: the definition's, else the profile's, else the default."""
    where = f"controls.{control.id}.params"
    _refuse_wrong(entry.params, control, entry.file, where)
    _refuse_wrong(over, control, "", control.id)
    values = {name: param.default for name, param in control.params.items()} | entry.params | dict(over)
    for name, value in sorted(values.items()):
        if value is None:
            hint = control.params[name].help
            raise ContentError("required, but missing", file=entry.file, key=f"{where}.{name}", hint=hint)
    return dict(sorted(values.items()))


def _refuse_wrong(given: Mapping[str, Any], control: Control, file: str, where: str) -> None:
    raise_all(_wrong(given, control, file, where))


def _wrong(given: Mapping[str, Any], control: Control, file: str, where: str) -> Iterator[ContentError]:
    for name, value in given.items():
        key = f"{where}.{name}"
        if name not in control.params:
            yield ContentError("unknown param", file=file, key=key, hint=nearest(name, control.params))
        elif reason := control.params[name].wrong(value):
            yield ContentError(reason, file=file, key=key, hint=control.params[name].help)


def _files(loaded: LoadedControl, params: Mapping[str, Any], facts: Mapping[str, Any]) -> list[RenderedFile]:
    rendered = []
    for spec in loaded.control.files:
        uid, gid = (int(part) for part in spec.owner.split(":"))
        text = _template(loaded, spec.source, {"params": params, "facts": facts})
        rendered.append(RenderedFile(spec.path, text, int(spec.mode, 8), uid, gid, spec.only_with))
    return rendered


def require_templates(loaded: LoadedControl) -> None:
    """Raises ContentError where a file of the control is no Jinja2 template."""
    for source in loaded.templates:
        _template(loaded, source, None)


def _template(loaded: LoadedControl, source: str, values: Mapping[str, Any] | None) -> str:
    """The template with `values`; without any it is read only."""
    from jinja2 import TemplateError

    from hardening.foundation import templating

    text = loaded.templates[source]
    try:
        if values is None:
            templating.check(text, _sandbox())
            return ""
        return templating.render(text, values, _sandbox())
    except TemplateError as error:
        number = getattr(error, "lineno", None)
        line = f" (line {number})" if number else ""
        usable = ", ".join(f"params.{name}" for name in sorted(loaded.control.params))
        hint = f"it may use {usable}" if usable else "control.toml declares no params that it could use"
        file = loaded.folder / "files" / source
        raise ContentError(f"template: {error.message}{line}", file=file, hint=hint) from None


@cache
def _sandbox() -> Sandbox:
    from hardening.foundation.templating import Sandbox

    return Sandbox(trim_blocks=True)


def _shell_value(value: Any) -> str:
    """A param as scripts see it: true or false, a number, a text, or one item a line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "\n".join(value) if isinstance(value, list | tuple) else str(value)


def _refuse_twice(files: list[RenderedFile], entry: ProfileEntry) -> None:
    """Refuse a path that is there twice since the control of `entry` was added."""
    for path, times in Counter(file.path for file in files).items():
        if times > 1:
            what = f"two controls of one profile install {path}: {entry.control}, and one that is listed before it"
            raise ContentError(what, file=entry.file, key="controls", hint="leave one of them out")
