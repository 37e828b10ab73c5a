"""What the server of `forked` loads before it forks."""

from tests.support.forked import load_all

load_all()
