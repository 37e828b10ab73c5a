"""Releases: dates, documents and channels, decided once over the port to the stores that hold them."""
