"""The report's charts as SVG by pygal, and graphs as Graphviz drew them.

They carry no style, script or text of strangers: the page's style colours them. Pure but for pygal, which is imported
when the first chart is drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

SVG = "{http://www.w3.org/2000/svg}"
DROPPED = {"style", "script", "desc", "title"}
DOTS = 20  # points up to which each is drawn
SIZE = {"width": 440, "height": 240}
FONT = 13  # as the page's style says too
SHAPES = {"svg", "g", "polygon", "polyline", "path", "ellipse", "text"}
PLACED = {
    "viewBox", "width", "height", "transform", "points", "d", "x", "y", "cx", "cy", "rx", "ry", "text-anchor",
    "font-size", "stroke-dasharray", "stroke-width",
}  # fmt: skip
"""What is kept of Graphviz's drawing: shapes and where they are; colours become classes."""
Values = Sequence[float | None]


def over_time(title: str, labels: Sequence[str], lines: Mapping[str, Values], unit: str = "") -> Markup:
    """A line for each series of values, one for each label; None: there was none."""
    import pygal

    step = max(1, -(-len(labels) // 6))
    highest = max((value for values in lines.values() for value in values if value), default=1)
    chart = pygal.Line(
        **_options(), show_dots=len(labels) < DOTS, dots_size=3, interpolate=None, allow_interruptions=True,
        x_labels_major_every=step, show_minor_x_labels=False, truncate_label=-1,
        range=(0, 100 if unit == "%" else highest * 1.1),
    )  # fmt: skip
    return _drawn(chart, title, labels, lines, unit)


def bars(title: str, labels: Sequence[str], values: Values, unit: str = "", *, lying: bool = False) -> Markup:
    """A bar for each label."""
    import pygal

    height = {"height": max(96, 60 + 26 * len(labels))} if lying else {}
    kind = pygal.HorizontalBar if lying else pygal.Bar
    chart = kind(**_options() | height, truncate_label=-1, print_values=False)
    if not unit:  # what is counted is whole
        highest = int(max((value for value in values if value), default=1))
        chart.y_labels = range(0, highest + 1, max(1, -(-highest // 5)))
    return _drawn(chart, title, labels, {"": values}, unit)


def _options() -> dict[str, Any]:
    from pygal.style import Style

    style = Style(font_family="sans-serif", label_font_size=FONT, major_label_font_size=FONT)
    return {
        **SIZE, "css": (), "js": (), "no_prefix": True, "show_legend": False, "margin": 8,
        "margin_right": 24, "max_scale": 6, "classes": ("chart",),
        "style": style,
    }  # fmt: skip


def _drawn(chart: Any, title: str, labels: Sequence[str], lines: Mapping[str, Values], unit: str) -> Markup:
    chart.x_labels = list(labels)
    chart.value_formatter = lambda value: f"{value:g}{unit}"
    for name, values in lines.items():
        chart.add(name, list(values))
    chart.add_xml_filter(_bare)
    from pygal.etree import etree

    root = chart.render_tree()
    root.attrib.pop("id", None)
    root.attrib |= {"role": "img", "aria-label": title}
    return Markup(etree.tostring(root, encoding="unicode"))  # noqa: S704 - the library escapes what it is given


def _bare(root: Any) -> Any:
    """The drawing without styles, scripts, comments and what is for pygal's own script."""
    for parent in list(root.iter()):
        for child in list(parent):
            name = child.tag.removeprefix(SVG) if isinstance(child.tag, str) else ""
            if not name or name in DROPPED or "tooltip" in child.get("class", "").split():
                parent.remove(child)
        parent.attrib.pop("style", None)
    return root


def graph(svg: str, title: str, classes: Mapping[str, str]) -> Markup:
    """A drawing of Graphviz with shapes and text alone; `classes`: the page's names for its colours.

    Raises ValueError for what is not a drawing.
    """
    from xml.etree import ElementTree

    try:
        root = ElementTree.fromstring(svg)  # noqa: S314 - our own Graphviz wrote it; expat bounds what entities grow to
    except ElementTree.ParseError as error:
        raise ValueError(f"not a drawing: {error}") from None
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.removeprefix(SVG) not in SHAPES:
                parent.remove(child)
        colour = next((classes[one] for name in ("stroke", "fill") if (one := parent.get(name, "")) in classes), "")
        filled = parent.get("fill", "none") not in ("none", "transparent") and not parent.tag.endswith("text")
        for name in set(parent.attrib) - PLACED:
            del parent.attrib[name]
        if words := " ".join(word for word in (colour, "filled" if filled else "") if word):
            parent.set("class", words)
    if root.tag != f"{SVG}svg":
        raise ValueError(f"not a drawing: {root.tag}")
    root.attrib |= {"role": "img", "aria-label": title}
    ElementTree.register_namespace("", SVG[1:-1])
    return Markup(ElementTree.tostring(root, encoding="unicode"))  # noqa: S704 - the library escapes what it is given
