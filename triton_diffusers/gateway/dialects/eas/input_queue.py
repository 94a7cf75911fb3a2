"""The input queue of a service: its jobs in flight. The index of an entry is the number of its job."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import NoReturn

from starlette.requests import Request

from triton_diffusers.gateway.dialects.dialect import read_body
from triton_diffusers.gateway.dialects.eas.frames import Frame
from triton_diffusers.gateway.dialects.eas.parameters import Parameters
from triton_diffusers.gateway.dialects.eas.queue import common_attributes
from triton_diffusers.gateway.dialects.eas.queue_call import PRIORITY_HEADER, QueueCall
from triton_diffusers.gateway.faults import Fault, Refused
from triton_diffusers.gateway.jobs.job import Job, JobInFlight, JobState, NewJob
from triton_diffusers.gateway.json_body import read_object
from triton_diffusers.gateway.submission import model_for, new_job

NAME = "eas"

PRIORITIES = range(101)


class InputQueue:
    """The input queue. It is written by callers and read by runners alone."""

    def __init__(self, call: QueueCall) -> None:
        self._call = call

    async def put(self, request: Request) -> Job:
        """Accept the job of a request, which has been checked when this returns. Raises: InvalidRequest, Busy."""
        call = self._call
        parameters = call.parameters
        priority = parameters.number("_priority_", _header_priority(call), PRIORITIES)
        body = await request.body() if "idempotency-key" in request.headers else b""
        origin = call.service.origin(request, NAME, body=body)

        def read(content: bytes) -> NewJob:
            document = read_object(content)
            model = call.named.model or model_for(document)
            job = new_job(document, origin, call.service.limits, model=model, priority=priority)
            return replace(job, tags=parameters.tags, sink=call.sink)

        (submitted,) = await call.service.submit(call.caller, [await read_body(request, read)])
        return submitted.job

    async def attributes(self) -> Mapping[str, str]:
        """See ``Queue``."""
        entries = await self._entries()
        return common_attributes(
            self._call,
            name=self._call.name,
            length=len(entries),
            max_length=self._call.service.settings.max_queued,
            first=entries[0].number if entries else None,
            last=entries[-1].number if entries else None,
        )

    async def count(self, priority: int | None, tags: Mapping[str, str]) -> int:
        """See ``Queue``."""
        return sum(
            priority in (None, entry.priority) and tags.items() <= entry.tags.items() for entry in await self._entries()
        )

    async def search(self, index: int) -> Mapping[str, object] | None:
        """Return the place of a job: it runs, or others are before it, of all callers. None: it has ended."""
        found = [entry for entry in await self._entries() if entry.number == index]
        if not found:
            return None
        position = None
        if found[0].state is JobState.QUEUED:
            position = await self._call.table.position(self._call.owner, found[0].id)
        return {"IsPending": position is None, "WaitCount": 0 if position is None else position.ahead}

    async def get(self, length: int, *, delete: bool) -> Sequence[Frame]:
        """Refuse: see ``Queue``."""
        _refuse_reading()

    async def commit(self, indexes: Collection[int]) -> None:
        """Refuse: see ``Queue``."""
        _refuse_reading()

    async def reject(self, indexes: Collection[int]) -> None:
        """Refuse: see ``Queue``."""
        _refuse_reading()

    async def delete(self, indexes: Collection[int]) -> None:
        """Cancel jobs."""
        await self._cancel([entry for entry in await self._entries() if entry.number in indexes])

    async def truncate(self, below: int) -> None:
        """Cancel jobs."""
        await self._cancel([entry for entry in await self._entries() if entry.number < below])

    async def _entries(self) -> Sequence[JobInFlight]:
        return await self._call.table.in_flight(self._call.owner, self._call.sink)

    async def _cancel(self, entries: Sequence[JobInFlight]) -> None:
        for entry in entries:
            await self._call.table.cancel(self._call.owner, entry.id)


def _header_priority(call: QueueCall) -> int:
    given = {PRIORITY_HEADER: call.connection.headers.get(PRIORITY_HEADER) or "0"}
    return Parameters(given).number(PRIORITY_HEADER, 0, PRIORITIES)


def _refuse_reading() -> NoReturn:
    raise Refused(Fault(status=405, message="the input queue is read by the service alone; results are in its sink"))
