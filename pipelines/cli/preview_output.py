"""What `policy.preview` and `waiver.new` print: what is refused or allowed, as text, JSON and markdown. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from itertools import accumulate
from typing import Literal

from hardening.findings import Reason
from hardening.foundation import text
from hardening.foundation.grouping import by_key
from hardening.foundation.text import one_line
from pipelines.contract import Line

NAMED = 8
# Of markdown a forge takes some 60,000 characters: of one reason, of each list, and of the table.
MOST_LETTERS, MOST_OF_LIST, MOST_OF_TABLE = 240, 4000, 25_000

Kind = Literal["image", "member"]
KINDS: tuple[Kind, Kind] = ("image", "member")
Subject = tuple[Kind, str]
Refusals = Mapping[Subject, tuple[Reason, ...]]
"""By kind and name, the reasons that refuse; empty where it is within the policy."""


class PreviewLine(Line):
    """`policy.preview`: one image or member that the changed content treats differently; `gained` and `lost` are its
    reasons. `change` is `refused` or `freed`; `more` or `fewer` if it is refused before and after.
    """

    kind: Kind
    name: str
    change: Literal["refused", "freed", "more", "fewer"]
    gained: tuple[Reason, ...]
    lost: tuple[Reason, ...]


class UnknownLine(Line):
    """`policy.preview`: an image or member of which some `controls` have no result: none is recorded by their present
    check, and it cannot run here, such as where the image is not stored. An earlier result counts until then.
    """

    kind: Kind
    name: str
    controls: tuple[str, ...]


class PreviewOutput(Line):
    """`policy.preview`: what the policy in `file` changes, instead of `instead_of`; both are empty if all content is
    compared; `changed` then names what differs. Judged as of `at`.

    `images` and `members` count who was judged by both; `unjudged` are images without a scan here. `weaker`: in
    what it asks for less than the present one. `aged`: images whose scan will be too old on that day, unless they are
    scanned again; that reason is left out of the comparison. `begins`: the days after it on which changed rules begin.
    """

    file: str
    instead_of: str
    compared_with: str
    images: int
    members: int
    lines: tuple[PreviewLine, ...]
    unjudged: tuple[str, ...]
    weaker: tuple[str, ...]
    at: datetime | None = None
    changed: tuple[str, ...] = ()
    unknown: tuple[UnknownLine, ...] = ()
    aged: tuple[str, ...] = ()
    begins: tuple[date, ...] = ()

    @property
    def refuses(self) -> bool:
        """Whether somebody is newly refused."""
        return any(line.change == "refused" for line in self.lines)

    @property
    def head(self) -> str:
        """What is compared with what, as of when."""
        what = f"{self.file} instead of {self.compared_with}" if self.file else f"compared with {self.compared_with}"
        return f"{what}, as of {self.at:%Y-%m-%d %H:%M} UTC" if self.at else what


# -- comparing ---------------------------------------------------------------------------------------------------------


def compared(before: Refusals, after: Refusals) -> Iterator[PreviewLine]:
    """A line for each subject of both that is not refused for the same reasons."""
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


# -- for a terminal ----------------------------------------------------------------------------------------------------

HEADINGS = {
    "refused": "newly refused by",
    "freed": "freed, since no longer refused by",
    "more": "refused before, and now also by",
    "fewer": "still refused, though no longer by",
}


def terminal(output: PreviewOutput) -> list[str]:
    """The preview in lines of text: by reason, how many, whom, and one reason in full."""
    counts = [
        f"{many(output.lines, change)} {what}" for change, what in (("refused", "newly refused"), ("freed", "freed"))
    ]
    judged = f"{output.images} image(s) and {output.members} member(s) judged by both"
    lines = [f"{output.head}: {', '.join(counts)} ({judged})"]
    lines += [f"changed: {', '.join(output.changed)}"] if output.changed else []
    for change, heading in HEADINGS.items():
        for rule, found in _by_rule(output.lines, change):
            lines += ["", f"{heading} {rule}:", *_names(line for line, _ in found)]
            lines.append(f"  {'because' if len(found) == 1 else 'such as'}: {one_line(found[0][1].what)}")
    for controls, unknown in _by_controls(output.unknown).items():
        lines += ["", f"unknown, since checks must run again of {few(controls)}:", *_names(unknown)]
        lines.append(
            "  ./goldsmith image.verify NAME runs them; a preview cannot boot or start an image, nor fetch one"
        )
    if output.weaker:
        lines += ["", "it requires less than the present one:"]
        lines += [f"  {line}" for line in output.weaker]
    return lines


def rows(output: PreviewOutput) -> list[list[str]]:
    """A row for each image and member: what it is, its name, what changes for it, and by which rules."""
    changes = [[line.kind, line.name, line.change, _rules(line)] for line in output.lines]
    return [*changes, *([line.kind, line.name, "unknown", few(line.controls)] for line in output.unknown)]


def many(lines: Sequence[PreviewLine], change: str) -> str:
    """How many images and members change in that way."""
    kinds = [line.kind for line in lines if line.change == change]
    counted = ((kinds.count(kind), kind) for kind in KINDS)
    return " and ".join(text.many(number, kind) for number, kind in counted if number) or "none"


def told_reasons(line: PreviewLine) -> tuple[Reason, ...]:
    """The reasons that make the change: those that are gone, or those that came."""
    return line.lost if line.change in ("freed", "fewer") else line.gained


def _rules(line: PreviewLine) -> str:
    return few(list(dict.fromkeys(reason.rule for reason in told_reasons(line))))


def few(names: Sequence[str], shown: Callable[[str], str] = str) -> str:
    """The first names, and how many more there are."""
    return text.listed([*map(shown, names[:NAMED]), *names[NAMED:]], NAMED)


def _names(lines: Iterable[PreviewLine | UnknownLine]) -> Iterator[str]:
    found = list(lines)
    for kind in ("image", "member"):
        if names := [line.name for line in found if line.kind == kind]:
            yield f"  {kind}s: {few(names)}"


def _by_rule(lines: Iterable[PreviewLine], change: str) -> list[tuple[str, list[tuple[PreviewLine, Reason]]]]:
    """Each rule with the lines that it changes in that way; what concerns most comes first."""
    rules: dict[str, dict[Subject, tuple[PreviewLine, Reason]]] = {}
    for line in lines:
        for reason in told_reasons(line) if line.change == change else ():
            rules.setdefault(reason.rule, {}).setdefault((line.kind, line.name), (line, reason))
    ordered = sorted(rules.items(), key=lambda item: (-len(item[1]), item[0]))
    return [(rule, list(found.values())) for rule, found in ordered]


def _by_controls(lines: Iterable[UnknownLine]) -> dict[tuple[str, ...], list[UnknownLine]]:
    return by_key((line.controls, line) for line in lines)


# -- for a pull request ------------------------------------------------------------------------------------------------


def markdown(output: PreviewOutput) -> str:
    """The preview as a comment on a pull request: in numbers, by reason, then each image and member in a folded table.

    Everything in it that others wrote is escaped.
    """
    refused, freed = (many(output.lines, change) for change in ("refused", "freed"))
    numbers = [[kind, *(str(_count(output, kind, change)) for change in (*HEADINGS, "unknown"))] for kind in KINDS]
    every = _in_full(output)
    each = _fitting(every, MOST_OF_TABLE)
    parts = [
        f"## Policy preview: {refused} newly refused, {freed} freed",
        f"{text.markdown(output.head[:1].upper() + output.head[1:])}. {output.images} image(s) and "
        f"{output.members} member(s) were judged by both.",
        _named("Changed", output.changed),
        text.markdown_table(["", *MARKDOWN_HEADINGS], numbers) if every else "Nothing changes for any image or member.",
        *(_list(heading, lines) for heading, lines in _told_by_rule(output)),
        _list("It requires less than the present one", map(text.markdown, output.weaker)),
        text.markdown_folded("Image by image and member by member", text.markdown_table(EACH, each)),
        f"And {len(every) - len(each)} more, in the JSON." if every[len(each) :] else "",
        f"Rules begin on {', '.join(map(str, output.begins))}." if output.begins else "",
        _named("Not judged, for lack of a scan", output.unjudged),
        _named("Left out: on that day their scans would be too old, unless they are scanned again", output.aged),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


MARKDOWN_HEADINGS = ("newly refused", "freed", "refused for more", "refused for less", "unknown")
EACH = ["kind", "name", "change", "because"]


def _count(output: PreviewOutput, kind: Kind, change: str) -> int:
    if change == "unknown":
        return sum(line.kind == kind for line in output.unknown)
    return sum(line.kind == kind and line.change == change for line in output.lines)


def _in_full(output: PreviewOutput) -> list[list[str]]:
    each = [
        [line.kind, line.name, line.change, "; ".join(_short(reason.what) for reason in told_reasons(line)[:NAMED])]
        for line in output.lines
    ]
    again = ((one, f"checks must run again: {few(one.controls)}") for one in output.unknown)
    return [*each, *([one.kind, one.name, "unknown", _short(what)] for one, what in again)]


def _told_by_rule(output: PreviewOutput) -> Iterator[tuple[str, list[str]]]:
    for change, heading in HEADINGS.items():
        yield heading.capitalize(), [
            f"{text.markdown_code(rule)} ({few([line.name for line, _ in found], text.markdown)}): "
            f"{text.markdown(_short(found[0][1].what))}"
            for rule, found in _by_rule(output.lines, change)
        ]  # fmt: skip
    yield (
        "Unknown, since these checks must run again",
        [
            f"{few(controls, text.markdown_code)} ({few([line.name for line in found], text.markdown)})"
            for controls, found in _by_controls(output.unknown).items()
        ],
    )


def _list(heading: str, lines: Iterable[str]) -> str:
    found = [[f"- {line}"] for line in lines]
    shown = _fitting(found, MOST_OF_LIST)
    more = [f"- and {len(found) - len(shown)} more"] if found[len(shown) :] else []
    return "\n".join([f"### {heading}", "", *(line for [line] in shown), *more]) if found else ""


def _fitting(rows: Sequence[list[str]], most: int) -> Sequence[list[str]]:
    """As many of the first rows as have no more letters than `most` once they are escaped."""
    ends = accumulate(8 + sum(len(text.markdown(cell)) for cell in row) for row in rows)
    return rows[: sum(end <= most for end in ends)]


def _named(heading: str, names: Sequence[str]) -> str:
    shown = _fitting([[name] for name in names], MOST_OF_LIST)
    more = [f"and {len(names) - len(shown)} more"] if names[len(shown) :] else []
    return f"{heading}: {', '.join([*(text.markdown_code(name) for [name] in shown), *more])}." if names else ""


def _short(what: str) -> str:
    return what if len(what) <= MOST_LETTERS else f"{what[:MOST_LETTERS]}…"
