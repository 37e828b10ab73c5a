"""What every room stands on: the error tree, settings, the process runner, strict content loading, console, locks."""
