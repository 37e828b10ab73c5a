"""The host that all of it runs on: what it must have, and our own engine and registry if it has none."""
