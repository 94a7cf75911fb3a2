"""A process that submits and finishes jobs until it is killed: ``python -m tests.unit.gateway.jobs.worker NAME URL``.

It prints what the table has acknowledged.
"""

from __future__ import annotations

import sys
import time

from tests.unit.gateway.jobs.tables import BILL, MODEL, RESULT, new_job
from triton_diffusers.gateway.jobs.errors import LeaseLost, TableUnavailable
from triton_diffusers.gateway.jobs.settings import JobTableSettings
from triton_diffusers.gateway.jobs.stores import open_store


def main() -> None:
    """Work until the end of the process."""
    name, url = sys.argv[1:]
    store = open_store(url, JobTableSettings())
    while True:
        try:
            (submitted,) = store.submit(name, [new_job()])
            print("accepted", submitted.job.id, flush=True)
            for claim in store.claim(name, "default", [MODEL], 1):
                store.finish(claim.lease, RESULT, BILL)
                print("finished", claim.job.id, flush=True)
        except (TableUnavailable, LeaseLost) as error:
            print("failed", type(error).__name__, flush=True)
            time.sleep(0.05)


if __name__ == "__main__":
    main()
