"""A console of Rich's that never reads text of strangers as anything but text."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from hardening.foundation.text import visible


class Careful(Console):
    """A console that takes text as text. Rich makes every string, cells and titles too, printable by `render_str`."""

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """`text` with all that is not seen made visible."""
        return super().render_str(visible(text), **options)
