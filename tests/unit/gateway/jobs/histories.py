"""Random histories of a job table, compared with a model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.postgres_server import PostgresServer
from tests.unit.gateway.jobs.machine import JobTableMachine
from tests.unit.gateway.jobs.model import SETTINGS
from tests.unit.gateway.jobs.observer import Observer
from triton_diffusers.gateway.jobs.stores import open_store

_CHECKS = tuple(HealthCheck)
# Nothing crashes in a history, so that commits need not wait for the log, nor plans be made again.
_OPTIONS = "%20-csynchronous_commit%3Doff%20-cplan_cache_mode%3Dforce_generic_plan"


def new_table(server: PostgresServer) -> str:
    """Return the URL of a new table for histories."""
    return server.new_schema() + _OPTIONS


def run_histories(examples: int, url: str | None, **options: object) -> None:
    """Drive a table through random histories: one of PostgreSQL, or a file of SQLite for each history."""
    chosen = settings(max_examples=examples, stateful_step_count=30, deadline=None, suppress_health_check=_CHECKS)
    chosen = settings(chosen, **options)
    if url is None:
        run_state_machine_as_test(JobTableMachine, settings=chosen)
        return
    shared = tuple(open_store(url, SETTINGS) for _ in range(2))
    observer = Observer(url)
    try:
        machine = type("Machine", (JobTableMachine,), {"observer": observer, "shared": shared})
        run_state_machine_as_test(machine, settings=chosen)
    finally:
        observer.close()
        for store in shared:
            store.close()


def run_in_processes(examples: int, urls: Sequence[str | None]) -> None:
    """Drive each of several tables through its share of new random histories, in a process of its own."""
    share = -(-examples // len(urls))
    with ProcessPoolExecutor(len(urls), get_context("spawn")) as pool:
        for done in [pool.submit(_run_new, share, url) for url in urls]:
            done.result()


def _run_new(examples: int, url: str | None) -> None:
    run_histories(examples, url, database=None)


def processes() -> int:
    """Return how many processes of histories keep this machine busy."""
    return len(os.sched_getaffinity(0))
