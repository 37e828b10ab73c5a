"""The boot gate: a machine's disk is booted exactly as it ships, and checked."""

from images.boot.flow import boot
from images.boot.observations import BootReport, Level, merge_live

__all__ = ["BootReport", "Level", "boot", "merge_live"]
