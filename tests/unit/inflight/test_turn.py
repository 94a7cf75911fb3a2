"""Choice of turns: fairness between requests, limits, and termination."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.conftest import conditioning, request_for
from triton_diffusers.adapters.lora import Lora, LoraSet
from triton_diffusers.inflight.job import Job, Origin, Sample
from triton_diffusers.inflight.turn import Decode, Step, next_turn


def job_of(images: int, *, number: int = 1, side: int = 8, steps: int = 4, cost: float = 0.0) -> Job:
    samples = [
        Sample(
            index=index,
            scheduler=SimpleNamespace(timesteps=torch.arange(steps)),
            step_options={},
            latents=torch.zeros(4, side, side),
            conditioning=conditioning(),
            guidance_scale=7.0,
            position=0,
        )
        for index in range(images)
    ]
    job = Job(
        number=number, origin=Origin(model="sd_base"), request=request_for(task_id=f"task-{number}", image_num=images)
    )
    job.samples, job.cost_seconds = samples, cost
    return job


def take(turn: Decode | Step, seconds: float = 1.0) -> None:
    """Execute a turn like the loop, at a cost of ``seconds``."""
    if isinstance(turn, Decode):
        turn.sample.pixels = np.zeros((1, 1, 3), np.uint8)
        turn.job.cost_seconds += seconds
        return
    for job, sample in turn.samples:
        sample.position += 1
        job.cost_seconds += seconds / len(turn.samples)


def images_of(turn: object) -> Counter[int]:
    """Return the images of a step by job number."""
    assert isinstance(turn, Step)
    return Counter(job.number for job, _ in turn.samples)


def test_next_turn_without_jobs_is_none() -> None:
    assert next_turn([], 4) is None
    job = job_of(1, steps=1)
    for _ in range(2):
        turn = next_turn([job], 4)
        assert turn is not None
        take(turn)
    assert next_turn([job], 4) is None


def test_a_job_that_is_alone_advances_all_its_images() -> None:
    assert images_of(next_turn([job_of(4)], 4)) == {1: 4}


@pytest.mark.parametrize(("images", "max_batch", "shared"), [(5, 4, 4), (3, 4, 3), (2, 1, 1), (8, 8, 8)])
def test_no_call_has_more_images_than_the_bound(images: int, max_batch: int, shared: int) -> None:
    assert images_of(next_turn([job_of(images)], max_batch)) == {1: shared}


def test_jobs_share_a_call_equally_and_fill_what_is_left_of_it() -> None:
    long, short = job_of(4, steps=50, cost=9.0), job_of(1, number=2, cost=9.0)
    assert images_of(next_turn([long, short], 4)) == {1: 3, 2: 1}
    assert images_of(next_turn([long, short], 3)) == {1: 2, 2: 1}
    assert images_of(next_turn([long, job_of(4, number=3, cost=9.0)], 4)) == {1: 2, 3: 2}
    # Three jobs get one place each, and the least charged one gets the fourth.
    others = [job_of(4, number=3, cost=1.0), job_of(4, number=4, cost=2.0)]
    assert images_of(next_turn([long, *others], 4)) == {1: 1, 3: 2, 4: 1}


def test_images_of_a_job_stand_together_in_a_call() -> None:
    turn = next_turn([job_of(3, number=1), job_of(3, number=2, cost=1.0), job_of(1, number=3, cost=2.0)], 6)
    assert isinstance(turn, Step)
    assert [job.number for job, _ in turn.samples] == [1, 1, 1, 2, 2, 3]


def test_least_charged_jobs_share_a_full_call() -> None:
    jobs = [job_of(1, number=number, cost=cost) for number, cost in enumerate([5.0, 1.0, 3.0, 2.0, 4.0])]
    assert images_of(next_turn(jobs, 3)) == {1: 1, 3: 1, 2: 1}


def test_jobs_of_different_shapes_take_turns_by_cost() -> None:
    large, small = job_of(1, number=1, side=16, steps=50), job_of(1, number=2, side=8, steps=50)
    order = []
    for _ in range(20):
        turn = next_turn([large, small], 4)
        assert isinstance(turn, Step)
        (job,) = turn.jobs
        order.append(job.number)
        take(turn, 4.0 if job is large else 1.0)
    # A step of the large one costs four times as much, so it gets a fourth of the steps.
    assert 3 <= order.count(1) <= 5


def test_samples_of_different_text_lengths_do_not_share_a_call() -> None:
    job, other = job_of(1), job_of(1, number=2)
    other.samples[0].conditioning = conditioning(chunks=2)
    assert images_of(next_turn([job, other], 4)) == {1: 1}


def test_guided_and_unguided_images_share_a_call() -> None:
    job, other = job_of(1), job_of(1, number=2)
    other.samples[0].conditioning = conditioning(rows=1)
    assert images_of(next_turn([job, other], 4)) == {1: 1, 2: 1}


def test_images_with_features_go_first_and_only_together() -> None:
    poor, cached, other = job_of(1, cost=1.0), job_of(2, number=2, cost=9.0), job_of(2, number=3, cost=5.0)
    for sample in (cached.samples[1], other.samples[0]):
        sample.deep = torch.zeros(2, 16, 8, 8)
    turn = next_turn([poor, cached, other], 4)
    assert isinstance(turn, Step)
    assert [sample for _, sample in turn.samples] == [cached.samples[1], other.samples[0]]
    for sample in (cached.samples[1], other.samples[0]):
        sample.deep = None
    assert images_of(next_turn([poor, cached, other], 5)) == {1: 1, 2: 2, 3: 2}


def lora(name: str) -> LoraSet:
    return LoraSet.of([(Lora((name, 1, 1), {}), 1.0)])


def of_lora(job: Job, loras: LoraSet | None) -> Job:
    for sample in job.samples:
        sample.loras = loras
    return job


def test_loras_that_are_computed_apart_share_no_call_with_others() -> None:
    slow, quick = lora("slow"), lora("quick")

    def turn(*jobs: Job) -> Counter[int]:
        return images_of(next_turn(jobs, 8, lambda loras: loras is not None and loras.key == slow.key))

    apart, other = of_lora(job_of(3), slow), of_lora(job_of(2, number=2, cost=1.0), slow)
    assert turn(apart, other) == {1: 3, 2: 2}, "nobody waits for them"
    plain = [of_lora(job_of(2, number=3, cost=2.0), quick), job_of(2, number=4, cost=3.0)]
    assert turn(apart, other, *plain) == {1: 1}, "a call of one image, while others wait"
    apart.cost_seconds = other.cost_seconds = 9.0
    assert turn(apart, other, *plain) == {3: 2, 4: 2}


def test_a_job_that_is_computed_apart_takes_its_share_of_the_time_and_no_more() -> None:
    slow = lora("slow")
    jobs = [of_lora(job_of(4, steps=50), slow), job_of(1, number=2, steps=8)]
    seconds = 0.0
    while not jobs[1].decoded:
        turn = next_turn(jobs, 8, lambda loras: loras is not None)
        assert turn is not None
        cost = 10.0 if isinstance(turn, Step) and turn.samples[0][0] is jobs[0] else 1.0
        take(turn, cost)
        seconds += cost
    assert seconds <= 9 + 10, "at most one call of the other, which is that of one image"


def test_an_image_is_decoded_before_the_jobs_next_step() -> None:
    job = job_of(2, steps=2)
    job.samples[1].position = 2
    turn = next_turn([job], 4)
    assert isinstance(turn, Decode)
    assert turn.sample is job.samples[1]


def test_decoding_waits_for_a_job_that_was_given_less() -> None:
    done, poor = job_of(1, steps=1, cost=2.0), job_of(1, number=2, cost=1.0)
    done.samples[0].position = 1
    assert images_of(next_turn([done, poor], 4)) == {2: 1}


@settings(max_examples=200, deadline=None)
@given(
    specs=st.lists(st.tuples(st.integers(1, 5), st.integers(1, 6), st.sampled_from([8, 16])), min_size=1, max_size=6),
    max_batch=st.integers(1, 6),
)
def test_all_jobs_finish_in_bounded_turns(specs: list[tuple[int, int, int]], max_batch: int) -> None:
    jobs = [job_of(images, number=number, steps=steps, side=side) for number, (images, steps, side) in enumerate(specs)]
    most_turns = sum(images * (steps + 1) for images, steps, _ in specs)
    for _ in range(most_turns):
        turn = next_turn(jobs, max_batch)
        if turn is None:
            break
        if isinstance(turn, Step):
            assert 1 <= len(turn.samples) <= max_batch
            assert len({sample.batch_key for _, sample in turn.samples}) == 1
            assert len({id(sample) for _, sample in turn.samples}) == len(turn.samples)
            poorest = min((job for job in jobs if not job.decoded), key=lambda job: job.cost_seconds)
            assert poorest.cost_seconds == min(job.cost_seconds for job in turn.jobs), "the poorest goes first"
        take(turn)
    assert next_turn(jobs, max_batch) is None
    for job in jobs:
        assert job.decoded
        assert all(sample.position == sample.steps for sample in job.samples)
