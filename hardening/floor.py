"""Is one policy at least as strict as another, field by field? Pure."""

from __future__ import annotations

from collections.abc import Iterator

from hardening.foundation.durations import shown
from hardening.model import Enforcement, Severity
from hardening.policy import AgeRule, Benchmark, FixWindow, ImageRules, Judges, Policy, Rule, RunningRules, SourceRule

STRICTNESS = tuple(Enforcement)
WORST_FIRST = tuple(Severity)


def weaknesses(policy: Policy, floor: Policy | None) -> tuple[str, ...]:
    """In what `policy` is weaker than `floor`, a line for each field; and that it has no window, where it has none.

    Equal or stricter everywhere: none.
    """
    found = [] if policy.image.has_window else ["image.vulnerabilities: no window is enforced"]
    if floor is not None:
        found += [*_image(policy.image, floor.image), *_running(policy.running, floor.running)]
    return tuple(found)


def _image(ours: ImageRules, floor: ImageRules) -> Iterator[str]:
    yield from _judges(ours.judges, floor.judges)
    yield from _windows(ours, floor)
    for name in ("unfixed", "secrets", "misconfigurations"):
        yield from _rule(f"image.{name}", getattr(ours, name), getattr(floor, name))
    yield from _benchmark(ours.benchmark, floor.benchmark)


def _judges(ours: Judges, floor: Judges) -> Iterator[str]:
    yield from _rule("image.judges", ours, floor)
    if ours.minimum < floor.minimum:
        yield f"image.judges.minimum: {ours.minimum}, and the floor asks for {floor.minimum}"
    if ours.data_max_age > floor.data_max_age:
        said = f"{shown(ours.data_max_age)}, and the floor accepts {shown(floor.data_max_age)}"
        yield f"image.judges.data_max_age: {said}"
    if ours.accept_sample and not floor.accept_sample:
        yield "image.judges.accept_sample: true, and the floor does not accept the sample"


def _windows(ours: ImageRules, floor: ImageRules) -> Iterator[str]:
    """Each window of the floor needs, for every severity that it covers, one here that ends no later."""
    for severity in WORST_FIRST:
        for exploited in (False, True):
            for wanted in covering(floor.vulnerabilities, severity, exploited=exploited):
                there = covering(ours.vulnerabilities, severity, exploited=exploited)
                if not any(_as_strict(window, wanted) for window in there):
                    which = f"{'exploited ones' if exploited else 'those'} of severity {severity}"
                    until = shown(wanted.within + wanted.grace)
                    yield f"image.vulnerabilities: {which}, and the floor says {wanted.enforcement} after {until}"


def covering(windows: tuple[FixWindow, ...], severity: Severity, *, exploited: bool) -> list[FixWindow]:
    """The windows over vulnerabilities of that severity, exploited or not, as the gate applies them."""
    named = any(w.severity is Severity.UNKNOWN and not w.exploited for w in windows)
    return [window for window in windows if _covers(window, severity, exploited=exploited, unknown_is_named=named)]


def _covers(window: FixWindow, severity: Severity, *, exploited: bool, unknown_is_named: bool) -> bool:
    """Whether a window covers vulnerabilities of that severity (see FixWindow)."""
    if window.exploited and not exploited:
        return False
    if Severity.UNKNOWN in (window.severity, severity):
        same = window.severity is severity
        return same or (severity is Severity.UNKNOWN and (window.exploited or not unknown_is_named))
    return WORST_FIRST.index(severity) <= WORST_FIRST.index(window.severity)


def _as_strict(ours: FixWindow, floor: FixWindow) -> bool:
    return not _milder(ours.enforcement, floor.enforcement) and ours.within + ours.grace <= floor.within + floor.grace


def _benchmark(ours: Benchmark | None, floor: Benchmark | None) -> Iterator[str]:
    if floor is None:
        return
    if ours is None or ours.profile != floor.profile:
        yield f"image.benchmark.profile: {ours.profile if ours else 'none'}, and the floor asks for {floor.profile}"
        return
    yield from _rule("image.benchmark", ours, floor)
    for name in ("minimum_score", "minimum_rules"):
        if getattr(ours, name) < getattr(floor, name):
            yield f"image.benchmark.{name}: {getattr(ours, name)}, and the floor asks for {getattr(floor, name)}"
    for rule, told in ours.explained.items():
        known = floor.explained.get(rule)
        if known is None or not ("*" in known.subjects or set(told.subjects) <= set(known.subjects)):
            yield f"image.benchmark.explained.{rule}: the floor does not explain it for {', '.join(told.subjects)}"


def _running(ours: RunningRules, floor: RunningRules) -> Iterator[str]:
    for name in RunningRules.model_fields:
        mine, wanted = getattr(ours, name), getattr(floor, name)
        if wanted is None:
            continue
        if mine is None:
            yield f"running.{name}: not asked, and the floor asks for it"
            continue
        yield from _rule(f"running.{name}", mine, wanted)
        if isinstance(mine, AgeRule) and mine.limit > wanted.limit:
            yield f"running.{name}.limit: {shown(mine.limit)}, and the floor says {shown(wanted.limit)}"
        if isinstance(mine, SourceRule) and not set(mine.prefixes) <= set(wanted.prefixes):
            yield f"running.{name}.prefixes: {', '.join(mine.prefixes)} are not all among the floor's"


def _rule(name: str, ours: Rule, floor: Rule) -> Iterator[str]:
    if _milder(ours.enforcement, floor.enforcement):
        yield f"{name}.enforcement: {ours.enforcement}, and the floor says {floor.enforcement}"
    if ours.grace > floor.grace:
        yield f"{name}.grace: {shown(ours.grace)}, and the floor says {shown(floor.grace)}"


def _milder(ours: Enforcement, floor: Enforcement) -> bool:
    return STRICTNESS.index(ours) < STRICTNESS.index(floor)
