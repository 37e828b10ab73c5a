"""`policy.preview`: whom a changed policy would refuse or free, of the images here and the members of every fleet."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from hardening.catalog import load_waivers
from hardening.findings import Reason
from hardening.foundation.console import print_json, print_text, say
from hardening.foundation.content import find_content, load_toml, parse
from hardening.foundation.errors import ContentError, GoldsmithError, OutsideError, nearest
from hardening.foundation.process import run
from hardening.foundation.text import one_line
from hardening.gate import judge_image
from hardening.policy import Policy, weaknesses
from images.context import Context
from images.documents import to_json
from images.plan.planner import Planner
from images.scan.verify import enforced_by
from pipelines.cli.image_output import finish
from pipelines.contract import Line
from pipelines.fleet.catalog import load_fleets
from pipelines.rollout.session import fleet_session
from pipelines.wiring import image_context

REFUSED = 3  # the exit code where somebody is newly refused
NAMED = 8
Refusals = Mapping[tuple[str, str], tuple[Reason, ...]]
"""By kind (image or member) and name, the reasons that refuse; empty where it is within the policy."""


class PreviewLine(Line):
    """`policy.preview`: one image or member that the changed policy treats otherwise; `gained` and `lost` are its
    reasons. `change` is `refused` or `freed`; `more` or `fewer` where it is refused before and after.
    """

    kind: Literal["image", "member"]
    name: str
    change: Literal["refused", "freed", "more", "fewer"]
    gained: tuple[Reason, ...]
    lost: tuple[Reason, ...]


class PreviewOutput(Line):
    """`policy.preview`: what the policy in `file` changes, as it would stand in the place of `instead_of`.

    `images` and `members` count who was judged by both; `unjudged` are images without a scan here. `weaker`: in
    what it asks for less than the present one.
    """

    file: str
    instead_of: str
    compared_with: str
    images: int
    members: int
    lines: tuple[PreviewLine, ...]
    unjudged: tuple[str, ...]
    weaker: tuple[str, ...]


def preview_policy(
    file: str, instead_of: str = "", context: Context | None = None
) -> tuple[PreviewOutput, list[GoldsmithError]]:
    """Judge every image's last scan and every fleet's members by the present policy and by the one in `file`.

    Nothing is scanned, and nothing written. A file that is itself the policy in force is compared with what git has
    committed. Raises ContentError; a fleet that cannot be read stops no other, and is among the errors.
    """
    context, path = context or image_context(looks=True), Path(file)
    roots = context.settings.roots
    name = instead_of or path.stem
    files = find_content(roots, "hardening/policies", "*.toml")
    changed = load_toml(path, Policy, name=name)
    if name not in files:
        hint = f"--instead-of names the policy whose place it takes; {nearest(name, files)}"
        raise ContentError(f"no policy is named {name}", file=path, hint=hint)
    in_force = path.resolve() == files[name].resolve()
    present = _committed(files[name], name) if in_force else load_toml(files[name], Policy, name=name)
    unjudged, errors = list[str](), list[GoldsmithError]()
    concerned = [one for one in sorted(context.definitions) if context.policy_of(one) == name]
    before, after = (_refusals(context.by_policy(one, name), concerned, unjudged, errors) for one in (present, changed))
    output = PreviewOutput(
        file=file, instead_of=name, compared_with="the last commit" if in_force else str(files[name]),
        images=sum(kind == "image" for kind, _ in before), members=sum(kind == "member" for kind, _ in before),
        lines=tuple(_compared(before, after)), unjudged=tuple(dict.fromkeys(unjudged)),
        weaker=tuple(line.replace("the floor", "the present one") for line in weaknesses(changed, present)),
    )  # fmt: skip
    return output, errors


def _committed(file: Path, name: str) -> Policy:
    """The policy in `file` as git has it in the last commit."""
    try:
        text = run(["git", "-C", str(file.parent), "show", f"HEAD:./{file.name}"]).stdout
    except OutsideError as error:
        raise ContentError(
            "it is the policy in force, and git has no committed version to compare it with", file=file,
            evidence=error.evidence, hint="give the changed policy as a file of its own",
        ) from None  # fmt: skip
    return parse(tomllib.loads(text), Policy, f"HEAD:{file}", name=name)


def _refusals(context: Context, images: Sequence[str], unjudged: list[str], errors: list[GoldsmithError]) -> Refusals:
    found: dict[tuple[str, str], tuple[Reason, ...]] = {}
    waivers, planner = load_waivers(context.settings.roots), Planner(context)
    for name in images:
        artifact = context.ledger.latest_artifact(name, context.settings.platform)
        scan = context.ledger.scan(artifact.digest) if artifact else None
        if artifact is None or scan is None:
            unjudged.append(name)
            continue
        policy = context.policy_named(context.policy_of(name))
        checks = enforced_by(context.ledger.checks(artifact.digest), planner.overlay(context.definitions[name]))
        bases = context.ledger.bases_of(artifact.digest)
        verdict = judge_image(policy, name, checks, scan.reports, scan.findings, waivers, context.now, bases)
        found["image", name] = verdict.refusals
    for fleet in sorted(load_fleets(context.settings.roots)):
        try:
            with fleet_session(fleet, context, now=lambda: context.now) as at:
                judged = at.judge(at.seen().members)
        except GoldsmithError as error:
            errors.append(error)
            continue
        found.update({("member", f"{fleet}/{one.member.name}"): one.violations for one in judged})
    return found


def _compared(before: Refusals, after: Refusals) -> Iterator[PreviewLine]:
    for subject in sorted(before.keys() & after.keys()):
        old, new = before[subject], after[subject]
        gained, lost = _without(new, old), _without(old, new)
        if not gained and not lost:
            continue
        change = "refused" if not old else "freed" if not new else "more" if gained else "fewer"
        kind, name = subject
        yield PreviewLine.model_validate({"kind": kind, "name": name, "change": change, "gained": gained, "lost": lost})


def _without(reasons: Iterable[Reason], others: Sequence[Reason]) -> tuple[Reason, ...]:
    """The reasons that are not among the others, or are there with a later deadline."""
    known = {_cause(reason): _at(reason) for reason in others}
    return tuple(r for r in reasons if _cause(r) not in known or _at(r) < known[_cause(r)])


def _cause(reason: Reason) -> tuple[str, str, str]:
    return reason.rule, reason.what, reason.enforcement


def _at(reason: Reason) -> datetime:
    """When it must be gone: one without a deadline holds at once."""
    return reason.deadline or datetime.min.replace(tzinfo=UTC)


HEADINGS = {
    "refused": "newly refused by",
    "freed": "freed, since no longer refused by",
    "more": "refused before, and now also by",
    "fewer": "still refused, though no longer by",
}


def show_preview(previewed: tuple[PreviewOutput, list[GoldsmithError]], *, as_json: bool) -> int:
    """Print who is refused and who is freed, by reason; exit code 3 where somebody is newly refused."""
    output, errors = previewed
    if as_json:
        print_json(to_json(output))
    else:
        print_text(_text(output))
        if output.unjudged:
            say(f"not judged, for lack of a scan here (./goldsmith image.scan NAME): {', '.join(output.unjudged)}")
    refused = any(line.change == "refused" for line in output.lines)
    return finish(errors) or (REFUSED if refused else 0)


def _text(output: PreviewOutput) -> list[str]:
    of = {change: [line for line in output.lines if line.change == change] for change in HEADINGS}
    counts = [f"{_many(of[change])} {what}" for change, what in (("refused", "newly refused"), ("freed", "freed"))]
    judged = f"{output.images} image(s) and {output.members} member(s) judged by both"
    lines = [f"{output.file} instead of {output.compared_with}: {', '.join(counts)} ({judged})"]
    for change, heading in HEADINGS.items():
        lost = change in ("freed", "fewer")
        for rule, reasons in _by_rule((line, line.lost if lost else line.gained) for line in of[change]):
            lines += ["", f"{heading} {rule}:"]
            for kind in ("image", "member"):
                names = [line.name for line, _ in reasons if line.kind == kind]
                more = f" and {len(names) - NAMED} more" if names[NAMED:] else ""
                lines += [f"  {kind}s: {', '.join(names[:NAMED])}{more}"] if names else []
            lines.append(f"  {'because' if len(reasons) == 1 else 'such as'}: {one_line(reasons[0][1].what)}")
    if output.weaker:
        lines += ["", "it asks for less than the present one:"]
        lines += [f"  {line}" for line in output.weaker]
    return lines


def _by_rule(
    found: Iterable[tuple[PreviewLine, tuple[Reason, ...]]],
) -> list[tuple[str, list[tuple[PreviewLine, Reason]]]]:
    """Each rule with the lines that it is about; what concerns most comes first."""
    rules: dict[str, dict[str, tuple[PreviewLine, Reason]]] = {}
    for line, reasons in found:
        for reason in reasons:
            rules.setdefault(reason.rule, {}).setdefault(line.name, (line, reason))
    ordered = sorted(rules.items(), key=lambda item: (-len(item[1]), item[0]))
    return [(rule, list(lines.values())) for rule, lines in ordered]


def _many(lines: Sequence[PreviewLine]) -> str:
    images = sum(line.kind == "image" for line in lines)
    return f"{images} image(s) and {len(lines) - images} member(s)" if lines else "none"
