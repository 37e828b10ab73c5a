"""The demo: the whole loop on this machine, in one command, and nothing of it left behind."""

from pipelines.demo.flow import demo

__all__ = ["demo"]
