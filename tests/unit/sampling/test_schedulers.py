"""Schedulers by name, for any number of steps."""

from __future__ import annotations

import re

import diffusers
import pytest
import torch

from tests.unit.fake_engine import SCHEDULER_CONFIG
from triton_diffusers.errors import InvalidRequest
from triton_diffusers.sampling.schedulers import (
    _MAX_PROTOTYPES,
    SCHEDULERS,
    SchedulerFactory,
    scheduler_name,
    takes_generator,
)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_names_are_found_in_any_case(name: str) -> None:
    assert scheduler_name(name) == name
    assert scheduler_name(f" {name.upper()} ") == name


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("PLMS", "PNDM"),
        ("euler ancestral", "Euler a"),
        ("euler_a", "Euler a"),
        ("k_euler_a", "Euler a"),
        ("euler_ancestral", "Euler a"),
        ("k_euler", "Euler"),
        ("sample_euler", None),
        ("dpmpp_2m", "DPM++ 2M"),
        ("dpm++2m", "DPM++ 2M"),
        ("DPM++ 2M karras", "DPM++ 2M Karras"),
        ("dpmpp_2m_karras", "DPM++ 2M Karras"),
        ("k_dpmpp_2m", "DPM++ 2M"),
        ("dpmpp_2m_k", "DPM++ 2M Karras"),
        ("dpmpp_2m_exponential", "DPM++ 2M Exponential"),
        ("dpmpp_2m_sde", "DPM++ 2M SDE"),
        ("dpmpp_2m_sde_gpu", "DPM++ 2M SDE"),
        ("dpmpp_3m_sde", "DPM++ 3M SDE"),
        ("dpmpp_sde", "DPM++ SDE"),
        ("dpmpp_sde_karras", "DPM++ SDE Karras"),
        ("DPMSolverSDEScheduler", "DPM++ SDE"),
        ("dpm_2", "DPM2"),
        ("dpm_2_ancestral", "DPM2 a"),
        ("DPM2 a Karras", "DPM2 a Karras"),
        ("lms", "LMS"),
        ("k_lms", "LMS"),
        ("LMS Karras", "LMS Karras"),
        ("heun", "Heun"),
        ("uni_pc", "UniPC"),
        ("uni_pc_bh2", "UniPC"),
        ("ddim", "DDIM"),
        ("ddpm", "DDPM"),
        ("deis", "DEIS"),
        ("lcm", "LCM"),
        ("EulerDiscrete", "Euler"),
        ("eulerdiscretescheduler", "Euler"),
        ("PNDMScheduler", "PNDM"),
    ],
)
def test_scheduler_name_accepts_names_of_other_tools(given: str, name: str | None) -> None:
    if name is None:
        with pytest.raises(InvalidRequest, match="did you mean Euler"):
            scheduler_name(given)
    else:
        assert scheduler_name(given) == name
        assert scheduler_name(given.upper()) == name


@pytest.mark.parametrize("given", ["Euler a Karras", "ddim_karras", "LCM exponential"])
def test_unsupported_spacing_is_an_error(given: str) -> None:
    with pytest.raises(InvalidRequest, match=r"scheduler: .* has no (Karras|Exponential) spacing"):
        scheduler_name(given)


@pytest.mark.parametrize(
    ("given", "near"), [("dpmpp_2m_sd", "DPM++ 2M SDE"), ("eular", "Euler"), ("dpmpp_2s_ancestral", "DPM")]
)
def test_unknown_scheduler_is_an_error_with_suggestions(given: str, near: str) -> None:
    with pytest.raises(InvalidRequest, match=f"did you mean .*{re.escape(near)}"):
        scheduler_name(given)


def test_unknown_long_name_fails_quickly() -> None:
    with pytest.raises(InvalidRequest):
        scheduler_name("k" * 1_000_000)


def test_dpm_sde_draws_noise_in_its_steps() -> None:
    """Expect two seeds to diverge from equal latents, as with this sampler in other tools."""
    ends = []
    for seed in (0, 1):
        scheduler = SchedulerFactory(SCHEDULER_CONFIG).make("DPM++ SDE", 4)
        assert takes_generator(scheduler)
        latents, generator = torch.ones(1, 1, 8, 8), torch.Generator().manual_seed(seed)
        for timestep in scheduler.timesteps:
            latents = scheduler.step(latents * 0.1, timestep, latents, generator=generator).prev_sample
        ends.append(latents)
    assert not torch.allclose(*ends)


@pytest.mark.parametrize("class_name", sorted({class_name for class_name, _ in SCHEDULERS.values()}))
def test_diffusers_class_names_are_names_too(class_name: str) -> None:
    first = next(name for name, (used, _) in SCHEDULERS.items() if used == class_name)
    assert scheduler_name(class_name) == first
    assert type(SchedulerFactory(SCHEDULER_CONFIG).make(first, 4)) is getattr(diffusers, class_name)


def test_unknown_scheduler_lists_the_known_ones() -> None:
    with pytest.raises(InvalidRequest, match="scheduler: 'Magic' is invalid: known: ") as caught:
        scheduler_name("Magic")
    for name in SCHEDULERS:
        assert name.removesuffix(" Karras").removesuffix(" Exponential") in str(caught.value)


def test_overrides_reach_the_scheduler() -> None:
    factory = SchedulerFactory({**SCHEDULER_CONFIG, "use_karras_sigmas": True, "algorithm_type": "sde-dpmsolver++"})
    for name, (_, overrides) in SCHEDULERS.items():
        config = factory.make(name, 4).config
        assert {key: config[key] for key in overrides} == dict(overrides), name


def test_the_models_own_config_is_kept() -> None:
    factory = SchedulerFactory({**SCHEDULER_CONFIG, "prediction_type": "v_prediction", "beta_end": 0.02})
    for name in SCHEDULERS:
        config = factory.make(name, 4).config
        assert (config.prediction_type, config.beta_end) == ("v_prediction", 0.02), name


def test_unsupported_number_of_steps_is_an_error() -> None:
    with pytest.raises(InvalidRequest, match="steps: 60 is invalid: the scheduler LCM says: ") as caught:
        SchedulerFactory(SCHEDULER_CONFIG).make("LCM", 60)
    assert caught.value.field == "steps"
    assert len(SchedulerFactory(SCHEDULER_CONFIG).make("LCM", 50).timesteps) == 50


@pytest.fixture(scope="module")
def trailing() -> SchedulerFactory:
    """Return a shared factory, since constructing DPM2 takes long."""
    return SchedulerFactory({**SCHEDULER_CONFIG, "prediction_type": "v_prediction", "timestep_spacing": "trailing"})


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 7, 30, 150])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_scheduler_finishes(trailing: SchedulerFactory, name: str, steps: int) -> None:
    if (name, steps) == ("LCM", 150):
        with pytest.raises(InvalidRequest):
            trailing.make(name, steps)
        return
    scheduler = trailing.make(name, steps)
    latents = torch.linspace(-1, 1, 64).reshape(1, 1, 8, 8) * scheduler.init_noise_sigma
    generator = torch.Generator().manual_seed(0)
    options = {"generator": generator} if takes_generator(scheduler) else {}
    for timestep in scheduler.timesteps:
        prediction = scheduler.scale_model_input(latents, timestep) * 0.1
        latents = scheduler.step(prediction, timestep, latents, **options).prev_sample
    assert latents.isfinite().all()
    assert latents.dtype == torch.float32


def test_scheduler_is_constructed_once_for_all_numbers_of_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    factory = SchedulerFactory(SCHEDULER_CONFIG)
    factory.make("DPM2", 150)
    expected = diffusers.KDPM2DiscreteScheduler.from_config(SCHEDULER_CONFIG)
    monkeypatch.setattr(diffusers.KDPM2DiscreteScheduler, "from_config", None)
    for steps in (4, 30, 4):
        expected.set_timesteps(steps)
        assert torch.equal(factory.make("DPM2", steps).timesteps, expected.timesteps)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_schedulers_of_equal_name_are_independent(name: str) -> None:
    """Compare a single run with one that is interleaved with another scheduler's steps."""
    factory = SchedulerFactory(SCHEDULER_CONFIG)

    def run(disturbed: bool) -> torch.Tensor:
        scheduler, other = factory.make(name, 4), factory.make(name, 4)
        latents, theirs = torch.ones(1, 1, 4, 4) * scheduler.init_noise_sigma, torch.full((1, 1, 4, 4), 9.0)
        generator, another = (torch.Generator().manual_seed(seed) for seed in (0, 1))
        for timestep in scheduler.timesteps:
            if disturbed:
                options = {"generator": another} if takes_generator(other) else {}
                scaled = other.scale_model_input(theirs, timestep)
                theirs = other.step(scaled * 0.3, timestep, theirs, **options).prev_sample
            options = {"generator": generator} if takes_generator(scheduler) else {}
            scaled = scheduler.scale_model_input(latents, timestep)
            latents = scheduler.step(scaled * 0.1, timestep, latents, **options).prev_sample
        return latents

    assert torch.equal(run(disturbed=True), run(disturbed=False))


def test_scheduler_prototypes_are_bounded_and_recreated() -> None:
    factory = SchedulerFactory(SCHEDULER_CONFIG)
    for steps in range(1, 100):
        assert len(factory.make("Euler", steps).timesteps) == steps
    assert len(factory.make("Euler", 1).timesteps) == 1
    assert len(factory._prototypes) <= _MAX_PROTOTYPES
