"""The host that all of it runs on: what it must offer, and the engine and registry of our own where it has none."""
