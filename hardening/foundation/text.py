"""Untrusted text, made safe to show: strangers write titles, labels, tags, names and evidence. Pure.

A terminal obeys control characters: they clear lines, forge links and titles, and turn the order of letters around.
`visible` is applied where text is printed (`console`, and the HTML and markdown of reports), so that nothing is missed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

UNSEEN = re.compile(
    "["
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 but for tab and newline, DEL, C1: escape sequences, titles, links (OSC 8)
    "\xad\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\uffa0"  # what takes no room, or looks like a space
    "\u061c\u200b-\u200f\u202a-\u202e\u2060-\u206f"  # zero width, and marks that turn the direction of text
    "\u2028\u2029\ufeff\ufff0-\ufffb"  # other ends of lines, and what only annotates
    "\ud800-\udfff"  # bytes that were no text, which cannot be printed
    "\U000e0000-\U000e0fff"  # tags: whole hidden messages
    "]"
)


CHAT = str.maketrans({"<": "\u2039", ">": "\u203a", "[": "(", "]": ")", "`": "'", "|": "/"})


def visible(text: str) -> str:
    """`text` with each character that is not seen, or that changes how others are seen, written as its escape.

    Tabs and newlines stay; `one_line` is for where a newline would forge a line of ours.
    """
    return UNSEEN.sub(_escape, text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    """The same on one line: newlines and tabs are written as their escapes too."""
    return visible(text).replace("\n", "\\n").replace("\t", "\\t")


def hanging(text: str) -> str:
    """The same with further lines indented, so that none of them looks like a line of its own."""
    return visible(text).replace("\n", "\n  ")


LINE, FIRST_LINES, LAST_LINES = 300, 5, 15


def last_line(text: str) -> str:
    """The last line of what a program printed, which of a traceback is the error, and how many stand before it."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    before = f" ({many(len(lines) - 1, 'line')} before it)" if lines[1:] else ""
    return lines[-1][:LINE] + before if lines else ""


def bounded(text: str) -> str:
    """A note of strangers' words that a person still reads: its first lines and its last, none of them too long."""
    lines = [line if len(line) <= LINE else f"{line[:LINE]}…" for line in text.splitlines()]
    if (more := len(lines) - FIRST_LINES - LAST_LINES) > 0:
        lines[FIRST_LINES:-LAST_LINES] = [f"… {many(more, 'line')}"]
    return "\n".join(lines)


def many(number: int, what: str) -> str:
    """A number of things: `1 member`, `1,200 members`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def listed(names: Sequence[str], most: int = 3) -> str:
    """The first of some names, and how many more there are."""
    more = f" and {len(names) - most:,} more" if names[most:] else ""
    return f"{', '.join(names[:most])}{more}"


def short_digests(text: str) -> str:
    """`text` with every digest cut to the twelve digits by which people know it."""
    return re.sub(r"sha256:([0-9a-f]{12})[0-9a-f]{52}", r"\1", text)


def markdown(text: str) -> str:
    """`text` on one line as markdown shows it: nothing in it becomes a link, a heading, a cell, a mention or HTML."""
    plain = " ".join(visible(text).split())
    escaped = re.sub(r"([\\`*_\[\]<>|#~&@!])", r"\\\1", plain)
    return escaped.replace("://", "\\://").replace("www.", "www\\.")


def chat(text: str) -> str:
    """`text` as chat systems show it: nothing in it mentions people, or becomes a link or one with other words."""
    safe = visible(text).translate(CHAT)
    unlinked = re.sub(r"(?i)\bwww\.", "www\u2024", safe).replace("://", ":/ /")
    return re.sub(r"@(?!sha256:)", "\uff20", unlinked)


def markdown_code(text: str) -> str:
    """`text` on one line as code in markdown, which ends at no backtick of its own and in no cell."""
    return f"`{' '.join(visible(text).split()).replace('`', chr(39)).replace('|', '/')}`"


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A markdown table; empty without rows."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(map(markdown, line))} |" for line in lines) if rows else ""


def markdown_folded(title: str, table: str) -> str:
    """Markdown that a forge shows once somebody opens it; empty where there is nothing."""
    return f"<details><summary>{title}</summary>\n\n{table}\n\n</details>" if table else ""


def markdown_block(texts: Iterable[str]) -> str:
    """Texts as a block of code in markdown, which is indented, so that nothing in them ends it."""
    return "\n".join(f"    {visible(line)}" for text in texts for line in text.splitlines())


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"  # noqa: PLR2004
