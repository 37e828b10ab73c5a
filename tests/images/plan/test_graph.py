"""The graph of definitions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardening.foundation.errors import ContentError
from images.plan.build_plan import order, with_ancestors

FAMILY = {"base": None, "python": "base", "app": "python", "static": None}


@st.composite
def forests(draw: st.DrawFn) -> dict[str, str | None]:
    """Definitions of which each may stand on an earlier one."""
    size = draw(st.integers(1, 12))
    parents: dict[str, str | None] = {}
    for number in range(size):
        earlier = [None, *parents]
        parents[f"d{number}"] = draw(st.sampled_from(earlier))
    return parents


@given(forests())
def test_every_parent_comes_before_its_children(parents: dict[str, str | None]) -> None:
    """Whatever the forest, the order holds everything once, parents first."""
    found = order(parents)
    assert sorted(found) == sorted(parents)
    assert all(found.index(parent) < found.index(name) for name, parent in parents.items() if parent)


@given(forests())
def test_ancestors_are_what_parents_lead_to(parents: dict[str, str | None]) -> None:
    """A definition's ancestors are itself and its parent's ancestors."""
    for name, parent in parents.items():
        above = with_ancestors([parent], parents) if parent else set()
        assert with_ancestors([name], parents) == {name} | above


def test_a_circle_is_shown_whole() -> None:
    """The error names every definition of the circle, in order, and where to cut it."""
    with pytest.raises(ContentError) as caught:
        order({"a": "c", "b": "a", "c": "b", "free": None})
    shown = str(caught.value)
    assert any(circle in shown for circle in ("a → c → b → a", "c → b → a → c", "b → a → c → b"))
    assert "base.golden" in shown


def test_a_definition_that_stands_on_itself_is_a_circle() -> None:
    """The smallest circle."""
    with pytest.raises(ContentError, match="a → a"):
        order({"a": "a"})


def test_an_unknown_parent_is_named_with_what_was_meant() -> None:
    """The hint names the nearest definition."""
    with pytest.raises(ContentError, match="did you mean base") as caught:
        order({"base": None, "python": "bsae"})
    assert caught.value.exit_code == 2
    assert "images/definitions/python/image.toml: base.golden" in str(caught.value)


def test_ancestors_of_a_leaf_are_its_line_only() -> None:
    """What one stands on, and not its cousins."""
    assert with_ancestors(["app"], FAMILY) == {"app", "python", "base"}
