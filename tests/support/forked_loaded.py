"""What the server of `forked` loads before it forks."""

import gc

from tests.support.forked import load_all
from tests.support.ledgers import unsynced

load_all()
unsynced()
gc.collect()
gc.freeze()  # else each child's collector writes to all that it shares with the server: half of what a short one costs
