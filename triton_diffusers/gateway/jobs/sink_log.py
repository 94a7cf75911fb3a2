"""The log of a sink: appending, reading and deleting entries."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping

from triton_diffusers.gateway.jobs.database import Row, Session
from triton_diffusers.gateway.jobs.job import JobState

# A cancelled job has no answer that somebody waits for.
_ANSWERED = (JobState.SUCCEEDED, JobState.FAILED, JobState.DEAD, JobState.EXPIRED)
_CHUNK = 200


def append(session: Session, job: Row, state: JobState, now: float) -> None:
    """Append a job that has ended to its sink, if it has one."""
    if not job["sink"] or state not in _ANSWERED:
        return
    (row,) = session.rows(
        "INSERT INTO counters VALUES (:name, 1) ON CONFLICT (name) DO UPDATE SET value = counters.value + 1"
        " RETURNING value",
        name=_counter(job["sink"]),
    )
    session.execute(
        "INSERT INTO sink_entries VALUES (:sink, :number, :job, :job_id, :tags, :now)",
        sink=job["sink"],
        number=row["value"],
        job=job["number"],
        job_id=job["id"],
        tags=job["tags"],
        now=now,
    )


def lock(session: Session, sink: str) -> None:
    """Wait for other changes of a sink."""
    session.execute("INSERT INTO counters VALUES (:name, 0) ON CONFLICT DO NOTHING", name=_counter(sink))
    session.rows("SELECT value FROM counters WHERE name = :name $for_update", name=_counter(sink))


def matching(
    session: Session, sink: str, first: int, tags: Mapping[str, str], condition: str = "", **parameters: object
) -> Iterator[Row]:
    """Yield entries from a number on that have all ``tags``, in order; ``condition`` is one more in SQL."""
    statement = (
        f"SELECT * FROM sink_entries WHERE sink = :sink AND number >= :first {condition} ORDER BY number LIMIT :n"  # noqa: S608
    )
    while rows := session.rows(statement, sink=sink, first=first, n=_CHUNK, **parameters):
        for row in rows:
            own = json.loads(row["tags"])
            if all(own.get(name) == value for name, value in tags.items()):
                yield row
        first = rows[-1]["number"] + 1


def delete(session: Session, sink: str, numbers: Collection[int]) -> int:
    """Delete entries and their deliveries; return how many there were."""
    session.execute("DELETE FROM sink_deliveries WHERE sink = :sink AND number $in_numbers", sink=sink, numbers=numbers)
    return session.execute(
        "DELETE FROM sink_entries WHERE sink = :sink AND number $in_numbers", sink=sink, numbers=numbers
    )


def delete_of_jobs(session: Session, jobs: Collection[int]) -> None:
    """Delete the entries of jobs that are deleted."""
    rows = session.rows("SELECT sink, number FROM sink_entries WHERE job $in_jobs", jobs=jobs)
    for sink in sorted({row["sink"] for row in rows}):
        delete(session, sink, [row["number"] for row in rows if row["sink"] == sink])


def _counter(sink: str) -> str:
    return f"sink {sink}"
