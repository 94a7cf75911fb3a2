"""The sinks of a job table on a database of SQL."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from itertools import islice

from triton_diffusers.gateway.jobs import sink_log
from triton_diffusers.gateway.jobs.database import Database, Row, Session
from triton_diffusers.gateway.jobs.rows import check_text
from triton_diffusers.gateway.jobs.sink import (
    CONSUMER_SECONDS,
    MAX_DELIVERIES,
    Consumer,
    ConsumerReplaced,
    ConsumerState,
    EntryPosition,
    SinkAttributes,
    SinkEntry,
)
from triton_diffusers.gateway.jobs.uptime import uptime

_MAX_PAGE = 1000
_FORGET_SECONDS = 600.0
_NO_TAGS: Mapping[str, str] = {}

_DELIVERY = "sink = :sink AND group_name = :group"
_RETURN = f"UPDATE sink_deliveries SET state = 'returned', consumer = '' WHERE {_DELIVERY} AND state = 'sent'"  # noqa: S608
_UNSENT = """AND NOT EXISTS (SELECT 1 FROM sink_deliveries AS others WHERE others.sink = sink_entries.sink
    AND others.group_name = :group AND others.number = sink_entries.number AND others.state != 'returned')"""
_RETURN_OF_SILENT = f"""{_RETURN} AND consumer IN (SELECT name FROM sink_consumers
    WHERE sink_consumers.sink = :sink AND sink_consumers.group_name = :group AND alive_until <= :time)"""  # noqa: S608
_SILENT = """SELECT 1 FROM sink_consumers WHERE sink = :sink AND group_name = :group AND alive_until <= :time
    AND EXISTS (SELECT 1 FROM sink_deliveries AS others WHERE others.sink = sink_consumers.sink
        AND others.group_name = sink_consumers.group_name AND others.consumer = sink_consumers.name
        AND others.state = 'sent') LIMIT 1"""
# Clients have a new name at each start. A connection that may still be in use keeps its row, which has its epoch.
_FORGET = """DELETE FROM sink_consumers WHERE sink = :sink AND group_name = :group AND alive_until <= :old
    AND NOT EXISTS (SELECT 1 FROM sink_deliveries AS others WHERE others.sink = sink_consumers.sink
        AND others.group_name = sink_consumers.group_name AND others.consumer = sink_consumers.name
        AND others.state = 'sent')"""
_COMMITTED_BY_ALL = """SELECT number FROM sink_entries WHERE sink = :sink AND number $in_numbers AND NOT EXISTS (
    SELECT 1 FROM sink_groups WHERE sink_groups.sink = sink_entries.sink AND NOT EXISTS (
        SELECT 1 FROM sink_deliveries AS others WHERE others.sink = sink_groups.sink
        AND others.group_name = sink_groups.name AND others.number = sink_entries.number
        AND others.state = 'committed'))"""


class SqlSinkStore:
    """A ``SinkStore`` on the database of a job table. Changes of one sink take turns."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def connect(self, sink: str, group: str, consumer: str, window: int) -> Consumer:
        for field, text in (("sink", sink), ("group", group), ("consumer", consumer)):
            check_text(field, text)
        return self._database.write(lambda session: _connect(session, sink, group, consumer, window))

    def disconnect(self, consumer: Consumer) -> None:
        self._database.write(lambda session: _disconnect(session, consumer))

    def take(
        self, consumer: Consumer, first: int = 0, tags: Mapping[str, str] = _NO_TAGS, *, commit: bool = False
    ) -> Sequence[SinkEntry]:
        # Consumers ask after each change of the table, and a write is one.
        if not self._database.read(lambda session: _has_work(session, consumer, first, tags)):
            return []
        return self._database.write(lambda session: _take(session, consumer, first, tags, commit), durable=commit)

    def commit(self, sink: str, group: str, numbers: Collection[int]) -> int:
        return self._database.write(lambda session: _commit(session, sink, group, list(numbers)))

    def reject(self, sink: str, group: str, numbers: Collection[int]) -> int:
        return self._database.write(lambda session: _reject(session, sink, group, list(numbers)))

    def read(
        self,
        sink: str,
        first: int = 0,
        limit: int = 1,
        tags: Mapping[str, str] = _NO_TAGS,
        job_id: str | None = None,
        *,
        delete: bool = False,
    ) -> Sequence[SinkEntry]:
        def find(session: Session) -> Sequence[SinkEntry]:
            condition = "" if job_id is None else "AND job_id = :job_id"
            rows = sink_log.matching(session, sink, first, tags, condition, job_id=job_id)
            return [_entry(row, 0) for row in islice(rows, max(1, min(limit, _MAX_PAGE)))]

        def take_out(session: Session) -> Sequence[SinkEntry]:
            sink_log.lock(session, sink)
            entries = find(session)
            sink_log.delete(session, sink, [entry.number for entry in entries])
            return entries

        found = self._database.read(find)
        return self._database.write(take_out) if delete and found else found

    def delete(self, sink: str, numbers: Collection[int]) -> int:
        def remove(session: Session) -> int:
            sink_log.lock(session, sink)
            return sink_log.delete(session, sink, list(numbers))

        return self._database.write(remove)

    def truncate(self, sink: str, below: int) -> int:
        def remove(session: Session) -> int:
            sink_log.lock(session, sink)
            session.execute(
                "DELETE FROM sink_deliveries WHERE sink = :sink AND number < :below", sink=sink, below=below
            )
            return session.execute(
                "DELETE FROM sink_entries WHERE sink = :sink AND number < :below", sink=sink, below=below
            )

        return self._database.write(remove)

    def search(self, sink: str, group: str, number: int) -> EntryPosition | None:
        return self._database.read(lambda session: _search(session, sink, group, number))

    def attributes(self, sink: str) -> SinkAttributes:
        return self._database.read(lambda session: _attributes(session, sink))


def _connect(session: Session, sink: str, group: str, name: str, window: int) -> Consumer:
    sink_log.lock(session, sink)
    session.execute("INSERT INTO sink_groups VALUES (:sink, :group) ON CONFLICT DO NOTHING", sink=sink, group=group)
    session.execute(f"{_RETURN} AND consumer = :name", sink=sink, group=group, name=name)
    time = uptime(session)
    session.execute(_FORGET, sink=sink, group=group, old=time - _FORGET_SECONDS)
    (row,) = session.rows(
        "INSERT INTO sink_consumers VALUES (:sink, :group, :name, 1, :window, :until)"
        " ON CONFLICT (sink, group_name, name) DO UPDATE SET epoch = sink_consumers.epoch + 1,"
        " max_pending = excluded.max_pending, alive_until = excluded.alive_until RETURNING epoch",
        sink=sink,
        group=group,
        name=name,
        window=max(1, min(window, _MAX_PAGE)),
        until=time + CONSUMER_SECONDS,
    )
    return Consumer(sink=sink, group=group, name=name, epoch=row["epoch"])


def _disconnect(session: Session, consumer: Consumer) -> None:
    sink_log.lock(session, consumer.sink)
    if session.execute(
        "UPDATE sink_consumers SET alive_until = :time, epoch = epoch + 1"
        " WHERE sink = :sink AND group_name = :group AND name = :name AND epoch = :epoch",
        sink=consumer.sink,
        group=consumer.group,
        name=consumer.name,
        epoch=consumer.epoch,
        time=uptime(session),
    ):
        session.execute(f"{_RETURN} AND consumer = :name", sink=consumer.sink, group=consumer.group, name=consumer.name)


def _has_work(session: Session, consumer: Consumer, first: int, tags: Mapping[str, str]) -> bool:
    """Return True if ``_take`` may do something: send entries, give a sign of life, or find that it was replaced."""
    sink, group = consumer.sink, consumer.group
    time = uptime(session)
    rows = session.rows(
        "SELECT max_pending FROM sink_consumers WHERE sink = :sink AND group_name = :group AND name = :name"
        " AND epoch = :epoch AND alive_until > :soon",
        sink=sink,
        group=group,
        name=consumer.name,
        epoch=consumer.epoch,
        soon=time + CONSUMER_SECONDS / 2,
    )
    if not rows or session.rows(_SILENT, sink=sink, group=group, time=time):
        return True
    room = rows[0]["max_pending"] - len(_sent(session, sink, group, consumer.name))
    return room > 0 and any(True for _ in sink_log.matching(session, sink, first, tags, _UNSENT, group=group))


def _take(
    session: Session, consumer: Consumer, first: int, tags: Mapping[str, str], commit: bool
) -> Sequence[SinkEntry]:
    sink, group = consumer.sink, consumer.group
    sink_log.lock(session, sink)
    time = uptime(session)
    rows = session.rows(
        "UPDATE sink_consumers SET alive_until = :until WHERE sink = :sink AND group_name = :group AND name = :name"
        " AND epoch = :epoch AND alive_until > :time RETURNING max_pending",
        sink=sink,
        group=group,
        name=consumer.name,
        epoch=consumer.epoch,
        time=time,
        until=time + CONSUMER_SECONDS,
    )
    if not rows:
        raise ConsumerReplaced(consumer.name)
    session.execute(_RETURN_OF_SILENT, sink=sink, group=group, time=time)
    room = rows[0]["max_pending"] - len(_sent(session, sink, group, consumer.name))
    found = list(islice(sink_log.matching(session, sink, first, tags, _UNSENT, group=group), max(0, room)))
    entries = [_entry(row, _send(session, consumer, row["number"])) for row in found]
    if commit:
        _commit(session, sink, group, [entry.number for entry in entries])
    return entries


def _send(session: Session, consumer: Consumer, number: int) -> int:
    (row,) = session.rows(
        "INSERT INTO sink_deliveries VALUES (:sink, :group, :number, :name, 1, 'sent')"
        " ON CONFLICT (sink, group_name, number) DO UPDATE SET consumer = excluded.consumer, state = 'sent',"
        " deliveries = sink_deliveries.deliveries + 1 RETURNING deliveries",
        sink=consumer.sink,
        group=consumer.group,
        number=number,
        name=consumer.name,
    )
    return int(row["deliveries"])


def _sent(session: Session, sink: str, group: str, consumer: str) -> Sequence[Row]:
    return session.rows(
        f"SELECT number FROM sink_deliveries WHERE {_DELIVERY} AND state = 'sent' AND consumer = :consumer",  # noqa: S608
        sink=sink,
        group=group,
        consumer=consumer,
    )


def _commit(session: Session, sink: str, group: str, numbers: Collection[int]) -> int:
    sink_log.lock(session, sink)
    session.execute("INSERT INTO sink_groups VALUES (:sink, :group) ON CONFLICT DO NOTHING", sink=sink, group=group)
    rows = session.rows(
        "SELECT number FROM sink_entries WHERE sink = :sink AND number $in_numbers", sink=sink, numbers=numbers
    )
    for row in rows:
        session.execute(
            "INSERT INTO sink_deliveries VALUES (:sink, :group, :number, '', 0, 'committed')"
            " ON CONFLICT (sink, group_name, number) DO UPDATE SET state = 'committed', consumer = ''",
            sink=sink,
            group=group,
            number=row["number"],
        )
    done = session.rows(_COMMITTED_BY_ALL, sink=sink, numbers=numbers)
    sink_log.delete(session, sink, [row["number"] for row in done])
    return len(rows)


def _reject(session: Session, sink: str, group: str, numbers: Collection[int]) -> int:
    sink_log.lock(session, sink)
    rows = session.rows(
        f"SELECT number, deliveries FROM sink_deliveries WHERE {_DELIVERY} AND state = 'sent' AND number $in_numbers",  # noqa: S608
        sink=sink,
        group=group,
        numbers=numbers,
    )
    _commit(session, sink, group, [row["number"] for row in rows if row["deliveries"] >= MAX_DELIVERIES])
    left = [row["number"] for row in rows if row["deliveries"] < MAX_DELIVERIES]
    session.execute(f"{_RETURN} AND number $in_numbers", sink=sink, group=group, numbers=left)
    return len(rows)


def _search(session: Session, sink: str, group: str, number: int) -> EntryPosition | None:
    sent = session.rows(
        f"SELECT consumer FROM sink_deliveries WHERE {_DELIVERY} AND number = :number AND state = 'sent'",  # noqa: S608
        sink=sink,
        group=group,
        number=number,
    )
    if sent:
        return EntryPosition(consumer=sent[0]["consumer"], waiting=0)
    unsent = f"SELECT COUNT(*) AS entries FROM sink_entries WHERE sink = :sink {_UNSENT}"  # noqa: S608
    (row,) = session.rows(f"{unsent} AND number = :number", sink=sink, group=group, number=number)
    if not row["entries"]:
        return None
    (row,) = session.rows(f"{unsent} AND number < :number", sink=sink, group=group, number=number)
    return EntryPosition(consumer=None, waiting=row["entries"])


def _attributes(session: Session, sink: str) -> SinkAttributes:
    (row,) = session.rows(
        "SELECT COUNT(*) AS length, MIN(number) AS low, MAX(number) AS high FROM sink_entries WHERE sink = :sink",
        sink=sink,
    )
    groups = session.rows("SELECT name FROM sink_groups WHERE sink = :sink ORDER BY name", sink=sink)
    consumers = session.rows("SELECT * FROM sink_consumers WHERE sink = :sink ORDER BY group_name, name", sink=sink)
    time = uptime(session)
    states = [
        ConsumerState(
            group=each["group_name"],
            name=each["name"],
            window=each["max_pending"],
            pending=len(_sent(session, sink, each["group_name"], each["name"])),
            connected=each["alive_until"] > time,
        )
        for each in consumers
    ]
    names = [group["name"] for group in groups]
    return SinkAttributes(length=row["length"], first=row["low"], last=row["high"], groups=names, consumers=states)


def _entry(row: Row, deliveries: int) -> SinkEntry:
    return SinkEntry(
        number=row["number"],
        job_id=row["job_id"],
        tags=json.loads(row["tags"]),
        created=row["created"],
        deliveries=deliveries,
    )
