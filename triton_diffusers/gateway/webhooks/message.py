"""The body of a webhook's message."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from triton_diffusers.gateway.dialects.native_views import job_view
from triton_diffusers.gateway.jobs.job import Job
from triton_diffusers.gateway.results import Results


def message_body(job: Job, results: Results) -> bytes:
    """Return the message that a job has ended: its kind, the time, and the job as ``GET /api/jobs/{id}`` shows it.

    It is made for each delivery, so that the signed URLs of images are valid.
    """
    base_url = job.webhook.base_url if job.webhook else ""
    ended = datetime.fromtimestamp(job.ended or job.created, UTC)
    document = {
        "type": f"job.{job.state.value}",
        "timestamp": ended.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "data": job_view(job, results, base_url).model_dump(mode="json", exclude={"webhook"}),
    }
    return json.dumps(document, separators=(",", ":")).encode()
