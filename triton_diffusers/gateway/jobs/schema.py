"""Schema of the job table, as a list of migrations that is only ever appended to."""

from __future__ import annotations

from collections.abc import Sequence

from triton_diffusers.gateway.jobs.database import Session

_TABLES = (
    # The rows that change while a job runs are kept small: SQLite writes a changed row whole.
    """CREATE TABLE jobs (
        number $serial,
        id TEXT NOT NULL UNIQUE,
        owner TEXT NOT NULL, pool TEXT NOT NULL, model TEXT NOT NULL,
        priority INTEGER NOT NULL, label TEXT NOT NULL, dialect TEXT NOT NULL, tags TEXT NOT NULL,
        traceparent TEXT NOT NULL, fingerprint TEXT NOT NULL,
        work DOUBLE PRECISION NOT NULL, cost DOUBLE PRECISION NOT NULL, images INTEGER NOT NULL,
        state TEXT NOT NULL, attempts INTEGER NOT NULL DEFAULT 0, epoch INTEGER NOT NULL DEFAULT 0,
        runner TEXT NOT NULL DEFAULT '', lease_until DOUBLE PRECISION, waits_until DOUBLE PRECISION,
        callers INTEGER NOT NULL, abandoned_at DOUBLE PRECISION,
        cancel_requested INTEGER NOT NULL DEFAULT 0, preview_until DOUBLE PRECISION NOT NULL DEFAULT 0,
        created DOUBLE PRECISION NOT NULL, started DOUBLE PRECISION, ended DOUBLE PRECISION,
        ended_uptime DOUBLE PRECISION, has_inputs INTEGER NOT NULL, has_results INTEGER NOT NULL DEFAULT 0,
        step INTEGER NOT NULL DEFAULT 0, steps INTEGER NOT NULL DEFAULT 0, images_done INTEGER NOT NULL DEFAULT 0,
        event INTEGER NOT NULL DEFAULT 0, progress_event INTEGER NOT NULL DEFAULT 0,
        progress_at DOUBLE PRECISION NOT NULL DEFAULT 0,
        error TEXT, error_code INTEGER NOT NULL DEFAULT 0
    )""",
    "CREATE TABLE requests (job BIGINT PRIMARY KEY, body TEXT NOT NULL)",
    "CREATE TABLE results (job BIGINT PRIMARY KEY, body TEXT NOT NULL)",
    """CREATE TABLE inputs (
        job BIGINT NOT NULL, name TEXT NOT NULL, media_type TEXT NOT NULL, data $bytes NOT NULL, PRIMARY KEY (job, name)
    )""",
    "CREATE TABLE previews (job BIGINT PRIMARY KEY, media_type TEXT NOT NULL, data $bytes NOT NULL)",
    """CREATE TABLE events (
        job BIGINT NOT NULL, number INTEGER NOT NULL, kind TEXT NOT NULL, at DOUBLE PRECISION NOT NULL,
        data TEXT NOT NULL, PRIMARY KEY (job, number)
    )""",
    # Locked by submissions, so that limits and idempotency keys are exact.
    "CREATE TABLE owners (owner TEXT PRIMARY KEY)",
    """CREATE TABLE idempotency_keys (
        owner TEXT NOT NULL, idempotency_key TEXT NOT NULL, fingerprint TEXT NOT NULL, job_id TEXT NOT NULL,
        kept_until DOUBLE PRECISION NOT NULL, PRIMARY KEY (owner, idempotency_key)
    )""",
    # Fair queuing: an owner's virtual time is the service that it was given, a pool's is where the queue stands.
    "CREATE TABLE pools (pool TEXT PRIMARY KEY, virtual_time DOUBLE PRECISION NOT NULL)",
    """CREATE TABLE accounts (
        pool TEXT NOT NULL, owner TEXT NOT NULL, virtual_time DOUBLE PRECISION NOT NULL, queued INTEGER NOT NULL,
        PRIMARY KEY (pool, owner)
    )""",
    """CREATE TABLE ledger (
        number BIGINT PRIMARY KEY, job_id TEXT NOT NULL UNIQUE,
        owner TEXT NOT NULL, model TEXT NOT NULL, pool TEXT NOT NULL, tags TEXT NOT NULL, state TEXT NOT NULL,
        at DOUBLE PRECISION NOT NULL, run_seconds DOUBLE PRECISION NOT NULL, work DOUBLE PRECISION NOT NULL,
        megapixel_steps DOUBLE PRECISION NOT NULL, image_steps INTEGER NOT NULL,
        engine_seconds DOUBLE PRECISION NOT NULL
    )""",
    # Numbers without gaps, which become visible in their order: a sequence of PostgreSQL has neither property.
    "CREATE TABLE counters (name TEXT PRIMARY KEY, value BIGINT NOT NULL)",
    "INSERT INTO counters VALUES ('ledger', 0)",
    "CREATE TABLE clock (uptime DOUBLE PRECISION NOT NULL, ticked_at DOUBLE PRECISION NOT NULL)",
    "INSERT INTO clock VALUES (0, 0)",
    "CREATE INDEX jobs_queued ON jobs (owner, pool, priority DESC, number, model) WHERE state = 'queued'",
    "CREATE INDEX jobs_queued_pool ON jobs (pool, created, work) WHERE state = 'queued'",
    "CREATE INDEX jobs_waits ON jobs (waits_until) WHERE state = 'queued' AND waits_until IS NOT NULL",
    "CREATE INDEX jobs_leases ON jobs (lease_until) WHERE state = 'running'",
    "CREATE INDEX jobs_runner ON jobs (runner) WHERE state = 'running'",
    "CREATE INDEX jobs_running_pool ON jobs (pool) WHERE state = 'running'",
    "CREATE INDEX jobs_in_flight ON jobs (owner, fingerprint, number) WHERE ended_uptime IS NULL",
    "CREATE INDEX jobs_abandoned ON jobs (abandoned_at) WHERE abandoned_at IS NOT NULL",
    "CREATE INDEX jobs_owner ON jobs (owner, number)",
    "CREATE INDEX jobs_label ON jobs (owner, label, number)",
    "CREATE INDEX jobs_inputs ON jobs (ended_uptime) WHERE has_inputs = 1 AND state != 'dead'",
    "CREATE INDEX jobs_results ON jobs (ended_uptime) WHERE has_results = 1",
    "CREATE INDEX jobs_ended ON jobs (ended_uptime) WHERE has_results = 0",
    "CREATE INDEX idempotency_keys_kept ON idempotency_keys (kept_until)",
    "CREATE INDEX accounts_backlogged ON accounts (pool, virtual_time, owner) WHERE queued > 0",
    "CREATE INDEX ledger_owner ON ledger (owner, number)",
    "CREATE INDEX ledger_pool ON ledger (pool, number)",
    "$forbid_ledger_updates",
    "$forbid_ledger_deletes",
)

_SINKS = (
    "ALTER TABLE jobs ADD COLUMN sink TEXT NOT NULL DEFAULT ''",
    """CREATE TABLE sink_entries (
        sink TEXT NOT NULL, number BIGINT NOT NULL, job BIGINT NOT NULL, job_id TEXT NOT NULL, tags TEXT NOT NULL,
        created DOUBLE PRECISION NOT NULL, PRIMARY KEY (sink, number)
    )""",
    "CREATE INDEX sink_entries_job ON sink_entries (job)",
    "CREATE INDEX sink_entries_id ON sink_entries (sink, job_id, number)",
    "CREATE TABLE sink_groups (sink TEXT NOT NULL, name TEXT NOT NULL, PRIMARY KEY (sink, name))",
    """CREATE TABLE sink_consumers (
        sink TEXT NOT NULL, group_name TEXT NOT NULL, name TEXT NOT NULL, epoch INTEGER NOT NULL,
        max_pending INTEGER NOT NULL, alive_until DOUBLE PRECISION NOT NULL, PRIMARY KEY (sink, group_name, name)
    )""",
    """CREATE TABLE sink_deliveries (
        sink TEXT NOT NULL, group_name TEXT NOT NULL, number BIGINT NOT NULL, consumer TEXT NOT NULL,
        deliveries INTEGER NOT NULL, state TEXT NOT NULL, PRIMARY KEY (sink, group_name, number)
    )""",
    "CREATE INDEX sink_deliveries_number ON sink_deliveries (sink, number)",
    "CREATE INDEX sink_deliveries_sent ON sink_deliveries (sink, group_name, consumer) WHERE state = 'sent'",
)

_DIRECTORY = (
    """CREATE TABLE runners (
        name TEXT PRIMARY KEY, pool TEXT NOT NULL, models TEXT NOT NULL, description TEXT NOT NULL,
        alive_until DOUBLE PRECISION NOT NULL
    )""",
    """CREATE TABLE preferences (
        owner TEXT NOT NULL, kind TEXT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (owner, kind)
    )""",
)

_WEBHOOKS = (
    # A claimed message is due again when the claim is over.
    """CREATE TABLE webhooks (
        job BIGINT PRIMARY KEY, job_id TEXT NOT NULL, owner TEXT NOT NULL,
        url TEXT NOT NULL, host TEXT NOT NULL, base_url TEXT NOT NULL, events TEXT NOT NULL,
        state TEXT NOT NULL DEFAULT 'none', message_id TEXT NOT NULL DEFAULT '',
        made DOUBLE PRECISION NOT NULL DEFAULT 0, due DOUBLE PRECISION NOT NULL DEFAULT 0,
        attempts INTEGER NOT NULL DEFAULT 0, epoch INTEGER NOT NULL DEFAULT 0,
        status INTEGER NOT NULL DEFAULT 0, error TEXT NOT NULL DEFAULT '', settled DOUBLE PRECISION
    )""",
    "CREATE INDEX webhooks_due ON webhooks (due) WHERE state = 'waiting'",
    "CREATE INDEX webhooks_job_id ON webhooks (job_id)",
)

_ACCESS = (
    "CREATE TABLE teams (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, weight DOUBLE PRECISION NOT NULL)",
    """CREATE TABLE users (
        id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, team TEXT NOT NULL, role TEXT NOT NULL,
        weight DOUBLE PRECISION NOT NULL, disabled INTEGER NOT NULL DEFAULT 0, created DOUBLE PRECISION NOT NULL
    )""",
    """CREATE TABLE api_keys (
        id TEXT PRIMARY KEY, user_id TEXT NOT NULL, name TEXT NOT NULL, digest TEXT NOT NULL,
        secret TEXT NOT NULL DEFAULT '', scopes TEXT NOT NULL, models TEXT NOT NULL, created DOUBLE PRECISION NOT NULL,
        expires DOUBLE PRECISION, revoked DOUBLE PRECISION, last_used DOUBLE PRECISION
    )""",
    "CREATE INDEX api_keys_user ON api_keys (user_id)",
    "CREATE INDEX api_keys_signing ON api_keys (id) WHERE secret != ''",
    "CREATE TABLE setup_codes (digest TEXT PRIMARY KEY, expires DOUBLE PRECISION NOT NULL)",
    # Bounds of keys, users and teams; NULL: none. The bucket holds the work that the rate allows now.
    """CREATE TABLE bounds (
        subject TEXT PRIMARY KEY, per_minute DOUBLE PRECISION, per_day DOUBLE PRECISION, per_month DOUBLE PRECISION,
        in_flight DOUBLE PRECISION, bucket DOUBLE PRECISION NOT NULL, bucket_at DOUBLE PRECISION NOT NULL
    )""",
    "ALTER TABLE jobs ADD COLUMN team TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE jobs ADD COLUMN key_id TEXT NOT NULL DEFAULT ''",
    "CREATE INDEX jobs_team_in_flight ON jobs (team) WHERE ended_uptime IS NULL",
    "CREATE INDEX jobs_key_in_flight ON jobs (key_id) WHERE ended_uptime IS NULL",
    "ALTER TABLE ledger ADD COLUMN team TEXT NOT NULL DEFAULT ''",
    "ALTER TABLE ledger ADD COLUMN key_id TEXT NOT NULL DEFAULT ''",
    # Sums of the ledger, so that neither quotas nor reports read all of it.
    """CREATE TABLE usage_days (
        day BIGINT NOT NULL, owner TEXT NOT NULL, team TEXT NOT NULL, key_id TEXT NOT NULL, model TEXT NOT NULL,
        jobs BIGINT NOT NULL, megapixel_steps DOUBLE PRECISION NOT NULL, image_steps BIGINT NOT NULL,
        engine_seconds DOUBLE PRECISION NOT NULL, PRIMARY KEY (day, owner, team, key_id, model)
    )""",
    """INSERT INTO usage_days SELECT CAST($trunc(at / 86400.0) AS BIGINT), owner, team, key_id, model, COUNT(*),
        SUM(megapixel_steps), SUM(image_steps), SUM(engine_seconds) FROM ledger GROUP BY 1, 2, 3, 4, 5""",
    "CREATE INDEX usage_days_owner ON usage_days (owner, day)",
    "CREATE INDEX usage_days_team ON usage_days (team, day)",
    "CREATE INDEX usage_days_key ON usage_days (key_id, day)",
)

MIGRATIONS: Sequence[Sequence[str]] = (_TABLES, _SINKS, _DIRECTORY, _WEBHOOKS, _ACCESS)


def migrate(session: Session) -> None:
    """Bring the schema up to date, in a transaction that excludes other processes.

    Raises: ValueError: the table was made by a later version.
    """
    session.execute("CREATE TABLE IF NOT EXISTS schema_version (version INTEGER NOT NULL)")
    rows = session.rows("SELECT version FROM schema_version")
    version = rows[0]["version"] if rows else 0
    if version > len(MIGRATIONS):
        raise ValueError(f"the job table has schema {version}, this version knows {len(MIGRATIONS)}: update it")
    for statements in MIGRATIONS[version:]:
        for statement in statements:
            session.execute(statement)
    if version < len(MIGRATIONS):
        session.execute("DELETE FROM schema_version")
        session.execute("INSERT INTO schema_version VALUES (:version)", version=len(MIGRATIONS))
