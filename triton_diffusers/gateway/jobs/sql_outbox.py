"""The outbox of a job table on a database of SQL."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from triton_diffusers.gateway.jobs.database import Database, Session
from triton_diffusers.gateway.jobs.errors import NoMessage
from triton_diffusers.gateway.jobs.rows import lock_job, storable
from triton_diffusers.gateway.jobs.uptime import uptime
from triton_diffusers.gateway.jobs.webhook import Delivery

_MAX_ERROR = 300
_NEXT = """SELECT * FROM webhooks WHERE state = 'waiting' AND due <= :time
    AND NOT (host $in_hosts) AND NOT (owner $in_owners) ORDER BY due LIMIT 1"""
_CLAIM = """UPDATE webhooks SET due = :until, attempts = attempts + 1, epoch = epoch + 1
    WHERE job = :number RETURNING attempts, epoch"""
_CLAIMED = "WHERE job_id = :job_id AND epoch = :epoch AND state = 'waiting'"
_SETTLE = f"UPDATE webhooks SET state = :state, status = :status, error = :error, settled = :now {_CLAIMED}"  # noqa: S608
_RETRY = f"UPDATE webhooks SET due = :due, status = :status, error = :error {_CLAIMED}"  # noqa: S608
_REDELIVER = """UPDATE webhooks SET state = 'waiting', made = :uptime, due = :uptime, attempts = 0, epoch = epoch + 1,
    settled = NULL WHERE job = :number AND message_id != ''"""


class SqlOutbox:
    """An ``Outbox`` on the database of a job table."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def claim(
        self, room: int, lease_seconds: float, busy_hosts: Collection[str] = (), busy_owners: Collection[str] = ()
    ) -> Sequence[Delivery]:
        hosts, owners = list(busy_hosts), list(busy_owners)
        # Gateways ask often; they need not wait for the writers.
        if not self._database.read(
            lambda session: session.rows(_NEXT, time=uptime(session), hosts=hosts, owners=owners)
        ):
            return []
        return self._database.write(lambda session: _claim(session, room, lease_seconds, hosts, owners), durable=False)

    def delivered(self, delivery: Delivery, status: int) -> None:
        self._settle(delivery, "delivered", status, "")

    def retry(self, delivery: Delivery, seconds: float, status: int, error: str) -> None:
        self._database.write(
            lambda session: session.execute(_RETRY, **_result(delivery, status, error), due=uptime(session) + seconds)
        )

    def give_up(self, delivery: Delivery, status: int, error: str) -> None:
        self._settle(delivery, "failed", status, error)

    def redeliver(self, owner: str | None, job_id: str) -> None:
        self._database.write(lambda session: _redeliver(session, owner, job_id))

    def _settle(self, delivery: Delivery, state: str, status: int, error: str) -> None:
        self._database.write(
            lambda session: session.execute(_SETTLE, **_result(delivery, status, error), state=state, now=session.now())
        )


def _result(delivery: Delivery, status: int, error: str) -> dict[str, Any]:
    return {
        "job_id": delivery.job_id,
        "epoch": delivery.epoch,
        "status": status,
        "error": storable(error, _MAX_ERROR),
    }


def _claim(
    session: Session, room: int, lease_seconds: float, hosts: list[str], owners: list[str]
) -> Sequence[Delivery]:
    claimed: list[Delivery] = []
    time = uptime(session)
    while len(claimed) < room:
        rows = session.rows(f"{_NEXT} $skip_locked", time=time, hosts=hosts, owners=owners)
        if not rows:
            break
        row = rows[0]
        (new,) = session.rows(_CLAIM, number=row["job"], until=time + lease_seconds)
        claimed.append(
            Delivery(
                **{name: row[name] for name in ("job_id", "owner", "host")},
                epoch=new["epoch"],
                attempt=new["attempts"],
                age_seconds=max(0.0, time - row["made"]),
            )
        )
        hosts, owners = [*hosts, row["host"]], [*owners, row["owner"]]
    return claimed


def _redeliver(session: Session, owner: str | None, job_id: str) -> None:
    job = lock_job(session, owner, job_id)
    if not session.execute(_REDELIVER, number=job["number"], uptime=uptime(session)):
        raise NoMessage(job_id)
