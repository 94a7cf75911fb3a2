"""Start-time fair queuing of jobs over owners.

Each owner of a pool has a virtual time: the work that was started for it, divided by its weight. The next job is one of
the backlogged owner whose virtual time is lowest. The pool's own virtual time is that of its latest claim; an owner who
comes back to the queue starts there, so that idle time is not saved up.

Lock order: pool, job, account. Whoever changes several accounts holds their pools, so that no two wait for each other.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from triton_diffusers.gateway.jobs.database import Row, Session

# Owners with equal virtual times are compared by their jobs; more of them than this by their names.
_MAX_CANDIDATES = 32

_FIRST = "ORDER BY jobs.priority DESC, jobs.number LIMIT 1"
_HEAD = """SELECT {column} FROM jobs WHERE jobs.owner = accounts.owner AND jobs.pool = accounts.pool
    AND jobs.state = 'queued' AND jobs.model $in_models"""
_CANDIDATES = f"""SELECT accounts.virtual_time, accounts.owner, ({_HEAD.format(column="jobs.number")} {_FIRST}) AS head,
        ({_HEAD.format(column="jobs.priority")} {_FIRST}) AS priority
    FROM accounts WHERE accounts.pool = :pool AND accounts.queued > 0 AND EXISTS ({_HEAD.format(column="1")})
    ORDER BY accounts.virtual_time, accounts.owner LIMIT :max"""  # noqa: S608  # constants
_ENQUEUE = """INSERT INTO accounts (pool, owner, virtual_time, queued)
    VALUES (:pool, :owner, (SELECT virtual_time FROM pools WHERE pool = :pool), 1)
    ON CONFLICT (pool, owner) DO UPDATE SET queued = accounts.queued + 1, virtual_time = CASE
        WHEN accounts.queued > 0 THEN accounts.virtual_time
        ELSE $greatest(accounts.virtual_time, excluded.virtual_time) END"""


def enqueue(session: Session, pool: str, owner: str) -> None:
    """Count a job that has entered the queue."""
    session.execute("INSERT INTO pools VALUES (:pool, 0) ON CONFLICT DO NOTHING", pool=pool)
    session.execute(_ENQUEUE, pool=pool, owner=owner)


def dequeue(session: Session, pool: str, owner: str) -> None:
    """Count a job that has left the queue without being claimed."""
    session.execute(
        "UPDATE accounts SET queued = queued - 1 WHERE pool = :pool AND owner = :owner", pool=pool, owner=owner
    )


def lock_pool(session: Session, pool: str) -> bool:
    """Wait for the other claims of a pool; return False if it never had a job."""
    return bool(session.rows("SELECT pool FROM pools WHERE pool = :pool $for_update", pool=pool))


def lock_pools(session: Session) -> None:
    """Wait for the claims of all pools."""
    session.rows("SELECT pool FROM pools ORDER BY pool $for_update")


def has_candidates(session: Session, pool: str, models: Collection[str]) -> bool:
    """Return True if there is a job to be claimed."""
    return bool(session.rows(_CANDIDATES, pool=pool, models=list(models), max=1))


def next_jobs(session: Session, pool: str, models: Collection[str]) -> Iterator[Row]:
    """Yield jobs in fair order, one of each owner, locked; pass over those that another transaction has locked."""
    candidates = session.rows(_CANDIDATES, pool=pool, models=list(models), max=_MAX_CANDIDATES)
    for candidate in sorted(candidates, key=lambda row: (row["virtual_time"], -row["priority"], row["head"])):
        yield from session.rows(
            "SELECT * FROM jobs WHERE number = :number AND state = 'queued' $skip_locked", number=candidate["head"]
        )


def charge(session: Session, pool: str, owner: str, cost: float) -> None:
    """Charge an owner for a claimed job, and let the pool's virtual time follow."""
    session.execute(
        "UPDATE pools SET virtual_time = $greatest(virtual_time,"
        " (SELECT virtual_time FROM accounts WHERE pool = :pool AND owner = :owner)) WHERE pool = :pool",
        pool=pool,
        owner=owner,
    )
    session.execute(
        "UPDATE accounts SET queued = queued - 1, virtual_time = virtual_time + :cost"
        " WHERE pool = :pool AND owner = :owner",
        pool=pool,
        owner=owner,
        cost=cost,
    )


def refund(session: Session, pool: str, owner: str, cost: float) -> None:
    """Take back the charge for a job that was handed back; not below the pool, or old charges would be saved up."""
    session.execute(
        "UPDATE accounts SET virtual_time = $greatest(virtual_time - :cost,"
        " (SELECT virtual_time FROM pools WHERE pools.pool = :pool)) WHERE pool = :pool AND owner = :owner",
        pool=pool,
        owner=owner,
        cost=cost,
    )
