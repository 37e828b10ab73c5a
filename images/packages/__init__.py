"""The package index: resolved by apt itself, in a root of its own; formats apart from it, pure."""
