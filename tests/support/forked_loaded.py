"""What the server of `forked` loads before it forks."""

import gc

from tests.support.forked import load_all

load_all()
gc.collect()
gc.freeze()  # else each child's collector writes to all that it shares with the server: half of what a short one costs
