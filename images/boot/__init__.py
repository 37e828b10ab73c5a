"""The boot gate: a machine's disk is started exactly as it ships, and asked."""

from images.boot.flow import boot
from images.boot.observations import BootReport, Level, merge_live

__all__ = ["BootReport", "Level", "boot", "merge_live"]
