"""The package index: resolved by apt itself, in its own root; parsing of formats is separate and pure."""
