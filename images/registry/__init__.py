"""The registry: images and documents in it, read and written; its answers are untrusted until verified."""
