"""The text of a file that is drafted for people to read and to change. Pure."""

from __future__ import annotations

import json
import re
import textwrap
from dataclasses import dataclass, field
from typing import Any

from hardening.foundation.text import one_line
from images.model import Definition

FILL_IN = "FILL IN"
USUAL_LABELS = ("app", "service", "name")  # by which people tell services apart, before all others
_WIDTH = 118


@dataclass
class Draft:
    """The text of a file as it is written, and what a person has to do about it."""

    lines: list[str] = field(default_factory=list)
    todo: list[str] = field(default_factory=list)

    def say(self, comment: str) -> None:
        """A comment, folded. What it quotes cannot end it: a newline is written as its escape."""
        self.lines += textwrap.wrap(
            one_line(comment), _WIDTH, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False
        )

    def set(self, key: str, value: Any, because: str = "") -> None:
        """A key with its value, below the reason for it."""
        if because:
            self._apart()
            self.say(because)
        self.lines.append(f"{key} = {toml(value)}")

    def _apart(self) -> None:
        """An empty line, but for right below the head of a table."""
        self.lines += [] if self.lines[-1:] and self.lines[-1].startswith("[") else [""]

    def table(self, name: str) -> None:
        """The beginning of a table."""
        self.lines += ["", f"[{name}]"]

    def ask(self, comment: str) -> None:
        """Something that a person has to fill in, here and in what is told."""
        self._apart()
        self.say(f"{FILL_IN}: {comment}")
        self.todo.append(comment)

    def begin_fleet(self, source: str, name: str, kind: str, owner: str, because: str = "") -> None:
        """The head of a fleet's file; `owner` is who ran adopt, unless `because` says otherwise."""
        self.say(f"Drafted by ./goldsmith adopt from {source}. Change what is not right.")
        self.set("title", f"The service {name}")
        self.set("owner", owner, because or "Who ran adopt. Put the team that answers for the service.")
        self.set("kind", kind)

    def set_replacement(
        self, becomes: str, because: str, definition: Definition | None, *, lacks: str = "", follow: bool = False
    ) -> None:
        """What members become, chosen `because`, and who approves that. Without a definition it is a tag, which is
        one of others to `follow`, unless `lacks` says what a person has to write.
        """
        if definition:
            self.set("policy", definition.policy, f"The policy of {becomes}.")
        tag = definition is None and not lacks
        named = {"follow" if follow else "tag": becomes}
        self.set("replacement", named if tag else {"definition": becomes, "channel": "stable"}, because)
        if lacks:
            self.ask(f"{lacks}: write it, or name another in `replacement`")
        self.set(
            "approval", "required",
            'The default: another person approves each plan. "none": anybody begins, the night too.',
        )  # fmt: skip

    def set_method(self, forced: str, swapped: str) -> None:
        """The way of replacing, in the table of limits: in place, so that each is down while it is `swapped`, where
        things are `forced` to it that cannot exist twice.
        """
        self.table("limits")
        if forced:
            self.say(f"Old and new cannot run side by side: {forced}.")
            self.set("method", "in_place")
            self.set("max_unavailable", 1, f"So each is down while it is {swapped}, one at a time.")
        else:
            self.say("Nothing of it cannot exist twice: the new one serves before the old one stops.")
            self.set("method", "surge")

    @property
    def text(self) -> str:
        """The whole file."""
        return "\n".join(self.lines) + "\n"


def toml(value: Any) -> str:
    """Text, a number, or lists and tables of them, as TOML."""
    match value:
        case dict():
            return "{ " + ", ".join(f"{_bare(key)} = {toml(one)}" for key, one in value.items()) + " }"
        case list() | tuple():
            return f"[{', '.join(map(toml, value))}]"
        case int():
            return str(value)
        case _:
            return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def _bare(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else toml(key)


def lacking(becomes: str, definition: Definition | None) -> str:
    """What is missing where members become what is neither a definition nor a tag."""
    return "" if definition or is_tag(becomes) else f"unknown definition: {becomes}"


def lacking_machine(becomes: str, definition: Definition | None) -> str:
    """What is missing where members become what is defined as no machine."""
    return "" if definition and definition.is_machine else f"no machine is defined as {becomes}"


def is_tag(becomes: str) -> bool:
    """Whether what members become is an image in a registry, and no definition's name."""
    return bool(re.search(r"[/:]", becomes))


def slug(text: str) -> str:
    """The name of a fleet or definition from any text; empty where nothing of it may stand in one."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
