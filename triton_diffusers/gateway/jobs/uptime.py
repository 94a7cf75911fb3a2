"""The table's own clock, by which leases, waits and retention are measured.

It counts the seconds in which some process swept the table: steps of the database's clock, and times in which the
database or all its users were down, hardly move it. So they neither expire leases nor delete anything.
"""

from __future__ import annotations

from triton_diffusers.gateway.jobs.database import Session

# Much longer than the pauses between sweeps, much shorter than a lease.
_MAX_TICK_SECONDS = 5.0
_MIN_TICK_SECONDS = 0.5


def uptime(session: Session) -> float:
    """Return the table's clock."""
    (row,) = session.rows("SELECT uptime, ticked_at FROM clock")
    return float(row["uptime"]) + _elapsed(row["ticked_at"], session.now())


def is_due(session: Session) -> bool:
    """Return True if it is time for a tick."""
    (row,) = session.rows("SELECT ticked_at FROM clock")
    return not 0.0 <= session.now() - row["ticked_at"] < _MIN_TICK_SECONDS


def tick(session: Session) -> None:
    """Move the clock on."""
    (row,) = session.rows("SELECT uptime, ticked_at FROM clock $for_update")
    now = session.now()
    session.execute(
        "UPDATE clock SET uptime = :uptime, ticked_at = :now",
        uptime=row["uptime"] + _elapsed(row["ticked_at"], now),
        now=now,
    )


def _elapsed(ticked_at: float, now: float) -> float:
    return min(max(0.0, now - ticked_at), _MAX_TICK_SECONDS)
