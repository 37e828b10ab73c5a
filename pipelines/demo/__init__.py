"""The demo: the whole loop on this machine, in one command, leaving nothing behind."""
