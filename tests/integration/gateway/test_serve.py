"""``triton-diffusers serve`` starts everything: Triton, a runner and a gateway."""

from __future__ import annotations

import re

import httpx2

from tests.integration.conftest import TritonStarter
from tests.waiting import WITHIN, until
from triton_diffusers.gateway.jobs.job import JobState
from triton_diffusers.gateway.jobs.settings import JobTableSettings
from triton_diffusers.gateway.jobs.stores import open_store

SMALL = {"prompt": "a red apple", "steps": 2, "width": 64, "height": 64, "seed": 7}


def test_serve_draws_jobs_and_keeps_those_that_it_cannot_finish(start_triton: TritonStarter) -> None:
    server = start_triton(gateway=True, args=("--exit-timeout=4",))
    (url,) = re.findall(r"the gateway listens on (http://\S+)", server.log_text())
    with httpx2.Client(base_url=url, timeout=WITHIN) as client:
        job = client.post("/api/jobs?wait=60", json=SMALL).json()
        while job["state"] in ("queued", "running"):
            job = client.get(f"/api/jobs/{job['id']}?wait=60").json()
        assert job["state"] == "succeeded", job
        image = client.get(job["result"]["images"][0]["url"])
        assert image.content.startswith(b"\x89PNG")
        long = client.post("/api/jobs", json={**SMALL, "steps": 150, "image_num": 8}).json()
        until(lambda: client.get(f"/api/jobs/{long['id']}").json()["progress"]["step"] > 0)
    assert server.stop() == 0
    table = open_store(f"sqlite:///{server.runtime_dir / 'gateway' / 'jobs.sqlite'}", JobTableSettings())
    try:
        kept = table.get(None, long["id"])
        assert (kept.state, kept.attempts) == (JobState.QUEUED, 0)
        assert table.get(None, job["id"]).state is JobState.SUCCEEDED
    finally:
        table.close()
