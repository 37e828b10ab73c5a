"""What all packages share: the error tree, settings, the process runner, strict content loading, console, locks."""
