"""The ledger: what was built, judged, published, seen running and done, in one SQL database.

The registry remains the truth about releases: `release.rebuild` fills a lost ledger from it. Threads and
processes may share a ledger. Plain SQLAlchemy Core: SQLite by default, PostgreSQL by URL.
"""

from __future__ import annotations

from images.ledger.artifacts import Artifacts, ScanRecord
from images.ledger.fixes import Fixes
from images.ledger.fleets import Fleets, Leases, Nights, Plans
from images.ledger.releases import Begun, Clouds, Releases
from images.ledger.runtime_history import Snapshots
from images.ledger.sightings import Sightings
from images.ledger.tables import (
    BEGUN,
    GONE,
    STANDING,
    ApprovedPlanRow,
    AuditLine,
    BaseUptake,
    ClosedFix,
    CommandRow,
    Deployment,
    FleetCheck,
    FleetDay,
    Holder,
    Lease,
    Made,
    MemberRun,
    MemberSnapshot,
    Move,
    Night,
    Rollout,
    SeenChannels,
    ToldPoint,
    Trigger,
)
from images.ledger.told import Telling
from images.ledger.triggers import Triggers

__all__ = [
    "BEGUN", "GONE", "STANDING", "ApprovedPlanRow", "AuditLine", "BaseUptake", "Begun", "ClosedFix", "CommandRow",
    "Deployment", "FleetCheck", "FleetDay", "Holder", "Lease", "Ledger", "Made", "MemberRun", "MemberSnapshot", "Move",
    "Night", "Rollout", "ScanRecord", "SeenChannels", "ToldPoint", "Trigger",
]  # fmt: skip


class Ledger(
    Artifacts, Releases, Fleets, Fixes, Leases, Nights, Plans, Clouds, Sightings, Snapshots, Telling, Triggers
):  # fmt: skip
    """Read and write the ledger: `Ledger.open(url)`. Every method is one transaction."""
