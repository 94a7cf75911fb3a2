"""Checks of a service's history: what clients were promised against what the job table and the store have."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from triton_diffusers.gateway.jobs.interface import JobStore
from triton_diffusers.gateway.jobs.job import Job, JobState, LedgerEntry

_PAGE = 500


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The answer that a client got: the hash of its image, or an error."""

    prompt: str
    image: str = ""
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class Record:
    """A job as it was left: ``ends`` counts its final events, ``images`` are the hashes of its stored files."""

    job: Job
    ends: int
    bills: int
    images: Sequence[str]

    @property
    def prompt(self) -> str:
        """The prompt, by which its client knows it."""
        return str(self.job.request["fields"]["prompt"])


def records(store: JobStore, images: Mapping[str, Sequence[str]]) -> Sequence[Record]:
    """Return all jobs of a table; ``images`` are hashes of stored files, by the ids of jobs."""
    bills = Counter(entry.job_id for entry in _ledger(store))
    return [
        Record(
            job=job,
            ends=sum(event.kind in _FINAL for event in store.events(None, job.id)),
            bills=bills[job.id],
            images=images.get(job.id, ()),
        )
        for job in _jobs(store)
    ]


_FINAL = {str(state) for state in JobState if state.has_ended}


def violations(answers: Sequence[Answer], found: Sequence[Record]) -> dict[str, list[str]]:
    """Return the prompts that break each promise; all lists are empty if none is broken.

    ``lost``: no image for the client, or no job that has succeeded. ``repeated``: several jobs of one request.
    ``double results``: a job that has ended twice, or has more or fewer files than one. ``double bills``: not just one.
    ``other images``: the client has another image than the store.
    """
    by_prompt: dict[str, list[Record]] = defaultdict(list)
    for record in found:
        by_prompt[record.prompt].append(record)
    broken: dict[str, list[str]] = {
        name: [] for name in ("lost", "repeated", "double results", "double bills", "other images")
    }
    for answer in answers:
        records_of = by_prompt.get(answer.prompt, [])
        succeeded = [record for record in records_of if record.job.state is JobState.SUCCEEDED]
        if answer.error or not succeeded:
            broken["lost"].append(answer.prompt)
        if len(records_of) > 1:
            broken["repeated"].append(answer.prompt)
        if any(record.ends != 1 or len(record.images) != 1 for record in succeeded):
            broken["double results"].append(answer.prompt)
        if any(record.bills != 1 for record in succeeded):
            broken["double bills"].append(answer.prompt)
        if not answer.error and any(record.images and answer.image not in record.images for record in succeeded):
            broken["other images"].append(answer.prompt)
    return broken


def _jobs(store: JobStore) -> Iterator[Job]:
    cursor = None
    while True:
        page = store.jobs(None, cursor=cursor, limit=_PAGE)
        yield from page.jobs
        if (cursor := page.cursor) is None:
            return


def _ledger(store: JobStore) -> Iterator[LedgerEntry]:
    after = 0
    while entries := store.ledger(None, after=after):
        yield from entries
        after = entries[-1].number
