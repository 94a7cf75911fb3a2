"""The job table: every request as a durable row, claimed fairly, finished once; see ``docs/job-table.md``."""
