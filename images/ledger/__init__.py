"""The ledger: what was built, judged, published, seen running and done, in one SQL database.

The registry remains the truth about releases: `release.rebuild` fills a lost ledger from it. Threads and
processes may share a ledger. Plain SQLAlchemy Core: SQLite by default, PostgreSQL by URL.
"""

from __future__ import annotations

from images.ledger.artifacts import Artifacts, ScanRecord
from images.ledger.fleets import Fleets, Leases, Plans
from images.ledger.releases import Begun, Clouds, Releases
from images.ledger.tables import (
    BEGUN,
    GONE,
    STANDING,
    ApprovedPlanRow,
    AuditLine,
    CommandRow,
    FleetCheck,
    Holder,
    Lease,
    Made,
    Move,
    Rollout,
    Trigger,
)
from images.ledger.triggers import Triggers

__all__ = [
    "BEGUN", "GONE", "STANDING", "ApprovedPlanRow", "AuditLine", "Begun", "CommandRow", "FleetCheck", "Holder", "Lease",
    "Ledger", "Made", "Move", "Rollout", "ScanRecord", "Trigger",
]  # fmt: skip


class Ledger(Artifacts, Releases, Fleets, Leases, Plans, Clouds, Triggers):
    """Read and write the ledger: `Ledger.open(url)`. Every method is one transaction."""
