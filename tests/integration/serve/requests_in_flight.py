"""Twelve requests at once, over every transport and to every entrance of a server."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from tests.integration.calls import Calls, from_base64, small
from tests.waiting import WITHIN, until

COUNT = 12
Way = Callable[[Calls, Mapping[str, Any]], Sequence[bytes]]


def _generate(calls: Calls, fields: Mapping[str, Any]) -> Sequence[bytes]:
    status, reply = calls.generate("sd_base", {**fields, "return_images": False, "use_base64": True})
    if status != 200:
        raise RuntimeError(reply["error"])
    found = reply["images_base64"]  # Triton's JSON has a list of one as its only item
    return [from_base64(found)] if isinstance(found, str) else [from_base64(each) for each in found]


# Each returns the images of a request.
WAYS: Mapping[str, Way] = {
    "HTTP infer": lambda calls, fields: calls.http(**fields)["images"],
    "gRPC": lambda calls, fields: calls.grpc(**fields)["images"],
    "generate": _generate,
    "ensemble": lambda calls, fields: calls.grpc("ensemble", **fields)["images"],
}


class InFlight:
    """Requests that have been sent, by turns in each of ``WAYS``; equal calls make equal requests."""

    def __init__(self, calls: Calls, crowd: ThreadPoolExecutor, **changes: Any) -> None:
        self._calls = calls
        fields = [small(seed=str(number), steps=6, **changes) for number in range(COUNT)]
        self.tasks = {each["task_id"] for each in fields}
        ways = list(WAYS.values())
        self.futures: list[Future[Sequence[bytes]]] = [
            crowd.submit(ways[number % len(ways)], calls, each) for number, each in enumerate(fields)
        ]

    def wait_until_running(self) -> None:
        """Wait until the engine has all, and has begun with one."""

        def begun() -> bool:
            jobs = [job for job in self._calls.jobs() if job["task_id"] in self.tasks]
            return len(jobs) == len(self.tasks) and any(job["step"] > 0 for job in jobs)

        until(begun)

    def images(self) -> list[Sequence[bytes]]:
        """Wait for the images of all; raises the first error."""
        return [future.result(WITHIN) for future in self.futures]

    def errors(self) -> list[BaseException | None]:
        """Return how each has ended, None for one that has its images; raises ``TimeoutError`` for one that waits."""
        deadline = time.monotonic() + WITHIN
        return [future.exception(timeout=max(0.0, deadline - time.monotonic())) for future in self.futures]
