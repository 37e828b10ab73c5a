"""What the server of `forked` loads before it forks."""

from tests.forked import load_all

load_all()
