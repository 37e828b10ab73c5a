"""The boot gate: a machine's disk is started exactly as it ships, and asked."""

from images.boot.gate import boot
from images.boot.merge import merge_live
from images.boot.model import BootReport, Level

__all__ = ["BootReport", "Level", "boot", "merge_live"]
