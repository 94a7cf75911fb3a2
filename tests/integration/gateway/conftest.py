"""A gateway and a runner beside a real server, each the real command in a process of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.integration.conftest import RunningTriton
from tests.waiting import WITHIN, until

ENDED = ("succeeded", "failed", "cancelled", "expired", "dead")


@dataclass
class Service:
    """A gateway and its runners, on one job table."""

    folder: Path
    triton: RunningTriton
    settings: dict[str, str] = field(default_factory=dict)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    client: httpx2.Client = field(default_factory=lambda: httpx2.Client(timeout=WITHIN))

    def start(self, name: str, *words: str) -> None:
        """Start a command; its log is ``<name>.log``."""
        state, store = self.folder / "state", self.folder / "results"
        with (self.folder / f"{name}.log").open("wb") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "triton_diffusers", *words],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={
                    **os.environ,
                    "TRITON_DIFFUSERS_GATEWAY_STATE_DIR": str(state),
                    "TRITON_DIFFUSERS_STORE": str(store),
                    "TRITON_DIFFUSERS_GATEWAY_LEAVE_SECONDS": "0",
                    **self.settings,
                },
            )

    def start_gateway(self, port: int = 0) -> None:
        """Start the gateway, on a free port unless one is given, and wait until it is ready."""
        self.start("gateway", "gateway", f"--port={port}")
        found = self.wait(lambda: re.search(r"listens on (http://\S+)", self.log("gateway")))
        self.client.base_url = httpx2.URL(found[1])

    def start_runner(self, name: str = "one") -> None:
        """Start a runner."""
        self.start(f"runner-{name}", "runner", f"--triton={self.triton.grpc_url}", f"--name={name}")

    def end(self, name: str, number: int = signal.SIGTERM) -> int:
        """Send a signal to a process and return its exit code."""
        process = self.processes.pop(name)
        process.send_signal(number)
        return process.wait(WITHIN)

    def log(self, name: str) -> str:
        """Return what a process has logged."""
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def submit(self, **fields: Any) -> dict[str, Any]:
        """Submit a small job."""
        small = {"prompt": "a red apple", "steps": 2, "width": 64, "height": 64, "seed": 7, "embed_metadata": False}
        reply = self.client.post("/api/jobs", json={**small, **fields})
        assert reply.status_code == 202, reply.text
        return dict(reply.json())

    def job(self, job: dict[str, Any], wait: float = 0) -> dict[str, Any]:
        """Return a job as it is."""
        return dict(self.client.get(f"/api/jobs/{job['id']}?wait={wait}").json())

    def ended(self, job: dict[str, Any]) -> dict[str, Any]:
        """Return a job when it has ended."""
        return self.wait(lambda: found if (found := self.job(job, wait=5))["state"] in ENDED else None)

    def images(self, job: dict[str, Any]) -> list[bytes]:
        """Return the images of a job that must succeed."""
        found = self.ended(job)
        assert found["state"] == "succeeded", found
        return [self.client.get(image["url"]).content for image in found["result"]["images"]]

    def wait(self, condition: Callable[[], Any]) -> Any:
        """Return what a condition returns as soon as it is true."""

        def looked() -> Any:
            for name, process in self.processes.items():
                assert process.poll() is None, f"{name} ended: {self.log(name)}"
            return condition()

        return until(looked)

    def close(self) -> None:
        """End all processes."""
        self.client.close()
        for process in self.processes.values():
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def service(triton: RunningTriton, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Return a gateway with one runner, shared by the tests of a module."""
    started = Service(tmp_path_factory.mktemp("service"), triton)
    try:
        started.start_gateway()
        started.start_runner()
        yield started
    finally:
        started.close()
