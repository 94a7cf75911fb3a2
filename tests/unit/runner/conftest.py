"""A job table, a store and a Triton of the tests' own, for runners."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.waiting import WITHIN
from triton_diffusers.api.description import ModelDescription
from triton_diffusers.api.request import ModelDefaults
from triton_diffusers.gateway.jobs.job import Job
from triton_diffusers.gateway.jobs.settings import JobTableSettings
from triton_diffusers.gateway.jobs.stores import open_store
from triton_diffusers.gateway.jobs.table import JobTable
from triton_diffusers.gateway.submission import JobOrigin, model_for, new_job
from triton_diffusers.runner.results import ResultWriter
from triton_diffusers.runner.runner import Runner
from triton_diffusers.runner.settings import RunnerOptions
from triton_diffusers.runner.triton import Progress, TritonError
from triton_diffusers.settings import Settings
from triton_diffusers.storage.local import LocalStore


@dataclass
class FakeTriton:
    """A Triton whose answers the test decides: ``answer`` is called with a request's values."""

    address: str = "fake:8001"
    ready: frozenset[str] = frozenset(("ensemble", "ensemble_controlnet", "sd_base", "sd_controlnet"))
    answer: Callable[[Mapping[str, Any]], Any] = lambda values: None
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    asked: list[tuple[str, Mapping[str, Any], Mapping[str, str]]] = field(default_factory=list)
    running: dict[str, asyncio.Event] = field(default_factory=dict)
    cancelled: list[str] = field(default_factory=list)
    cancelled_before_draws: set[str] = field(default_factory=set)
    most_images: int = 0

    async def models(self) -> frozenset[str]:
        return self.ready

    async def describe(self, model: str) -> ModelDescription:
        return ModelDescription(
            name=f"{model} of {self.address}", defaults=ModelDefaults(side=128), loras=("lora/a.pt",)
        )

    async def generate(self, model: str, values: Mapping[str, Any], headers: Mapping[str, str]) -> dict[str, Any]:
        self.asked.append((model, values, headers))
        task_id = str(values["task_id"])
        stop = self.running[task_id] = asyncio.Event()
        self.most_images = max(self.most_images, len(self.running))
        try:
            waits = [asyncio.ensure_future(event.wait()) for event in (stop, self.gate)]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()
            if stop.is_set():
                raise TritonError("CANCELLED", "the job was cancelled")
            changes = self.answer(values) or {}
        finally:
            del self.running[task_id]
        return {
            "seed": values["seed"],
            "prompt": values["prompt"],
            "is_nsfw": [False] * values["image_num"],
            "parameters": json.dumps({"steps": 20, "width": 100, "height": 50, "cfg_scale": 2.0}),
            "use_blade": False,
            "profile": "exact",
            "warnings": [],
            "queue_seconds": 0.1,
            "run_seconds": 2.0,
            # As a seed does, the image depends on the request alone.
            "images": [f"{values['prompt']} {values['seed']} {n}".encode() for n in range(values["image_num"])],
            **changes,
        }

    async def progress(self) -> dict[str, Progress]:
        return {task_id: Progress("running", 5, 10, 0, "") for task_id in self.running}

    async def preview(self, task_id: str) -> bytes:
        return b"preview of " + task_id.encode()

    async def cancel(self, task_id: str) -> bool:
        self.cancelled.append(task_id)
        if not self.asked:
            self.cancelled_before_draws.add(task_id)
        if task_id in self.running:
            self.running[task_id].set()
        return task_id in self.running


@dataclass
class Fleet:
    """A table and a store, on which the test starts runners."""

    folder: Path
    table: JobTable
    store: LocalStore

    @asynccontextmanager
    async def runner(self, triton: FakeTriton, name: str = "one", **options: Any) -> AsyncIterator[asyncio.Event]:
        """Run a runner; yield the event that stops it."""
        stopping = asyncio.Event()
        chosen = RunnerOptions(**{"name": name, "max_images": 4, "exit_seconds": 0.0, **options})
        runner = Runner(self.table, triton, ResultWriter(self.store, 5), chosen)  # type: ignore[arg-type]
        task = asyncio.create_task(runner.run(stopping))
        try:
            yield stopping
        finally:
            stopping.set()
            await asyncio.wait_for(task, WITHIN)

    async def submit(self, **fields: Any) -> Job:
        """Submit a job."""
        document = {"prompt": "an apple", "seed": 7, **fields}
        model = document.pop("model", "") or model_for(document)
        origin = JobOrigin(dialect="tests", traceparent="00-trace")
        (submitted,) = await self.table.submit("local", [new_job(document, origin, Settings(), model=model)])
        return submitted.job

    async def ended(self, job: Job) -> Job:
        """Return a job that must end."""
        found = await self.table.wait_for_end(None, job.id, WITHIN)
        assert found.state.has_ended, found
        return found

    def files(self) -> dict[str, bytes]:
        """Return the stored images by name."""
        return {
            str(path.relative_to(self.folder / "store")): path.read_bytes()
            for path in (self.folder / "store").rglob("*.*")
            if path.is_file()
        }


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def triton() -> FakeTriton:
    """Return a Triton that answers at once; ``gate.clear()`` makes it wait."""
    fake = FakeTriton()
    fake.gate.set()
    return fake


@pytest.fixture
async def fleet(tmp_path: Path, anyio_backend: str) -> AsyncIterator[Fleet]:
    settings = JobTableSettings(max_attempts=3)
    table = JobTable(open_store(f"sqlite:///{tmp_path / 'jobs.sqlite'}", settings))
    yield Fleet(tmp_path, table, LocalStore(tmp_path / "store"))
    await table.close()
