"""All readers that are fuzzed."""

from __future__ import annotations

from tests.fuzz import of_content, of_fleets, of_images

TARGETS = (*of_images.TARGETS, *of_fleets.TARGETS, *of_content.TARGETS)
