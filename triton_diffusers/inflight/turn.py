"""Choice of the engine's next turn: one denoiser call, or the decoding of one image.

Requests share compute fairly. The job with the least charged compute goes first, and the other jobs with equal shapes
share its call, with an equal number of images each; remaining places go to further images of the same jobs. So a job of
four images advances them in turns while others are in flight, and all at once when it is alone.

Images with deep features of an earlier step (``Sample.deep``) go before all others. Their steps are few and cheap, and
their next whole step can be shared. This way, at most one batch of images holds features.

LoRAs that an engine computes separately (a compiled engine leaves some to PyTorch) get calls of their own, charged with
their own time. While others wait, such a call has one image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from triton_diffusers.adapters.lora import LoraSet
from triton_diffusers.inflight.job import Job, Sample


@dataclass(frozen=True, slots=True)
class Decode:
    """Decoding of one denoised sample."""

    job: Job
    sample: Sample


@dataclass(frozen=True, slots=True)
class Step:
    """One denoiser call that advances samples of one batch key."""

    samples: tuple[tuple[Job, Sample], ...]

    @property
    def jobs(self) -> tuple[Job, ...]:
        """Participating jobs, each once."""
        return tuple(dict.fromkeys(job for job, _ in self.samples))


Turn = Decode | Step


def next_turn(
    jobs: Sequence[Job], max_batch: int, is_apart: Callable[[LoraSet | None], bool] = lambda loras: False
) -> Turn | None:
    """Return the next turn for the running jobs; None if there is nothing to compute.

    ``max_batch`` limits the images of a denoiser call, and thereby its rows; an image of prompts joined by ``AND`` has
    more than two. ``is_apart`` returns True for LoRAs that the engine computes separately, which is slow.
    """
    waiting = sorted((job for job in jobs if not job.decoded), key=lambda job: (not job.has_deep, job.cost_seconds))
    if not waiting:
        return None
    first = waiting[0]
    for sample in first.samples:
        if sample.denoised and not sample.decoded:
            return Decode(first, sample)
    leading = max((sample for sample in first.samples if not sample.denoised), key=_goes_first)
    apart = is_apart(leading.loras)

    def fits(sample: Sample) -> bool:
        return sample.batch_key == leading.batch_key and is_apart(sample.loras) is apart

    candidates = [(job, fitting) for job in waiting if (fitting := _noisy(job, fits))]
    if apart and len(candidates) < len(waiting):
        candidates, max_batch = candidates[:1], 1  # sharing would make the others wait and speed up no image
    candidates = candidates[:max_batch]
    share = max_batch // len(candidates)
    equal = [(job, sample) for job, fitting in candidates for sample in fitting[:share]]
    further = [(job, sample) for job, fitting in candidates for sample in fitting[share:]]
    chosen = _within([*equal, *further][:max_batch], max_rows(max_batch))
    # Keep a job's images together, so that the rows of one LoRA form one group.
    return Step(tuple(sorted(chosen, key=lambda chosen: chosen[0].number)))


def max_rows(max_batch: int) -> int:
    """Return the maximum number of rows of a denoiser call: two per image, as guidance needs."""
    return 2 * max_batch


def _within(samples: Sequence[tuple[Job, Sample]], max_rows: int) -> list[tuple[Job, Sample]]:
    """Return the first sample, whatever its rows, and further ones while rows are left."""
    chosen, room = list(samples[:1]), max_rows - samples[0][1].rows
    for job, sample in samples[1:]:
        if sample.rows <= room:
            chosen.append((job, sample))
            room -= sample.rows
    return chosen


def _goes_first(sample: Sample) -> bool:
    return sample.deep is not None


def _noisy(job: Job, fits: Callable[[Sample], bool]) -> list[Sample]:
    return [sample for sample in job.samples if not sample.denoised and fits(sample)]
