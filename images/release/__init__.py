"""Releases: dates, documents and channels in a registry, and the way back out of it."""
