"""The registry: images and documents in it, read and written; whatever it answers is unverified until it was."""
