"""The demo: the whole loop on this machine, in one command, and nothing of it left behind."""
