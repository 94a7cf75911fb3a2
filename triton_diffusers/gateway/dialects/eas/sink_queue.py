"""The sink of a service: the results of its jobs, in the order in which they ended."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from functools import partial

from triton_diffusers.gateway.dialects import reference
from triton_diffusers.gateway.dialects.eas.frames import Frame
from triton_diffusers.gateway.dialects.eas.queue import common_attributes
from triton_diffusers.gateway.dialects.eas.queue_call import QueueCall
from triton_diffusers.gateway.faults import Refused
from triton_diffusers.gateway.jobs.job import MAX_NUMBER, Job
from triton_diffusers.gateway.jobs.sink import ConsumerState, SinkEntry, SinkStore
from triton_diffusers.gateway.service import raise_unless_succeeded

_PAGE = 1000
# The SDK waits for `_timeout_` and for its socket equally long; an answer at the very end would be too late.
_SPARE_SECONDS = 0.5


class SinkQueue:
    """The sink. It is written by the service alone."""

    def __init__(self, call: QueueCall) -> None:
        self._call = call

    async def attributes(self) -> Mapping[str, str]:
        """See ``Queue``."""
        call = self._call
        found = await call.table.call(self._sinks.attributes, call.sink)
        attributes = common_attributes(
            call,
            name=f"{call.name}/sink",
            length=found.length,
            max_length=MAX_NUMBER,
            first=found.first,
            last=found.last,
        )
        consumers = {f"consumers.list.[{n}]": _consumer_text(each) for n, each in enumerate(found.consumers)}
        groups = {f"groups.list.[{n}]": f"Id: {group}" for n, group in enumerate(found.groups)}
        return {**attributes, "consumers.stats.total": str(len(found.consumers)), **consumers, **groups}

    async def count(self, priority: int | None, tags: Mapping[str, str]) -> int:
        """See ``Queue``; results have no priority but 0."""
        if priority:
            return 0
        if not tags:
            return (await self._call.table.call(self._sinks.attributes, self._call.sink)).length
        total, first = 0, 0
        while entries := await self._call.table.call(self._sinks.read, self._call.sink, first, _PAGE, tags):
            total, first = total + len(entries), entries[-1].number + 1
        return total

    async def search(self, index: int) -> Mapping[str, object] | None:
        """See ``Queue``."""
        call = self._call
        place = await call.table.call(self._sinks.search, call.sink, call.group, index)
        if place is None:
            return None
        consumer = "" if place.consumer is None else f"{call.group}.{place.consumer}"
        return {"IsPending": place.consumer is not None, "WaitCount": place.waiting, "ConsumerId": consumer}

    async def get(self, length: int, *, delete: bool) -> Sequence[Frame]:
        """See ``Queue``."""
        parameters = self._call.parameters
        settings = self._call.service.settings
        seconds = min(parameters.seconds("_timeout_"), settings.max_wait_seconds)
        read = partial(
            self._sinks.read,
            self._call.sink,
            await self.first_number(parameters.index(), newest=True),
            length,
            parameters.tags,
            parameters.request_id,
            delete=delete,
        )
        entries = await self._call.table.wait_for_some(max(0.0, seconds - _SPARE_SECONDS), read)
        return await self.frames(entries)

    async def commit(self, indexes: Collection[int]) -> None:
        """See ``Queue``."""
        await self._call.table.call(self._sinks.commit, self._call.sink, self._call.group, indexes)

    async def reject(self, indexes: Collection[int]) -> None:
        """See ``Queue``."""
        await self._call.table.call(self._sinks.reject, self._call.sink, self._call.group, indexes)

    async def delete(self, indexes: Collection[int]) -> None:
        """See ``Queue``."""
        await self._call.table.call(self._sinks.delete, self._call.sink, indexes)

    async def truncate(self, below: int) -> None:
        """See ``Queue``."""
        await self._call.table.call(self._sinks.truncate, self._call.sink, below)

    async def first_number(self, index: int, *, newest: bool) -> int:
        """Return the number from which entries are read; -1 is the newest entry, or the first one after it."""
        if index >= 0:
            return index
        last = (await self._call.table.call(self._sinks.attributes, self._call.sink)).last
        return 0 if last is None else last + (not newest)

    async def frames(self, entries: Sequence[SinkEntry], *, index_only: bool = False) -> list[Frame]:
        """Return entries with the replies of their jobs; jobs that were deleted or run again meanwhile are left out."""
        jobs = await self._call.table.get_many([entry.job_id for entry in entries])
        found = {job.id: job for job in jobs if job.state.has_ended}
        return [await self._frame(entry, found[entry.job_id], index_only) for entry in entries if entry.job_id in found]

    async def _frame(self, entry: SinkEntry, job: Job, index_only: bool) -> Frame:
        tags = {**entry.tags, "requestId": job.id}
        try:
            raise_unless_succeeded(job)
        except Refused as refusal:
            fault = refusal.fault
            reply = {**reference.error_reply(fault), "task_id": job.label}
            tags["lastCode"] = str(fault.code)
        else:
            reply = {} if index_only else await self._reply(job)
        data = b"" if index_only else json.dumps(reply, ensure_ascii=False).encode()
        return Frame(index=entry.number, tags=tags, data=data)

    async def _reply(self, job: Job) -> dict[str, object]:
        service = self._call.service
        return await reference.reply(service, job, service.base_url(self._call.connection), with_images=False)

    @property
    def _sinks(self) -> SinkStore:
        return self._call.table.store.sinks


def _consumer_text(consumer: ConsumerState) -> str:
    status = "Running" if consumer.connected else "Leaving" if consumer.pending else "Exit"
    return (
        f"Id: {consumer.group}.{consumer.name}, Pending: {consumer.pending}, Status: {status},"
        f" Window: {consumer.window}, Slots: {max(0, consumer.window - consumer.pending)}"
    )
