"""Residuals of a step's rows from their ControlNets."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from tests.unit.conftest import conditioning
from triton_diffusers.engines import Residuals
from triton_diffusers.families.conditioning import STATES, Inputs
from triton_diffusers.inflight.control import Control, residuals_of
from triton_diffusers.inflight.job import Sample


class FakeNet:
    """ControlNet with two residuals: the control image's mean plus the row's latent, text and timestep."""

    nbytes = 1

    def __init__(self, tone: float = 0.0) -> None:
        self.tone = tone
        self.calls: list[int] = []

    def __call__(
        self, latents: torch.Tensor, timesteps: torch.Tensor, inputs: Inputs, images: torch.Tensor
    ) -> Residuals:
        self.calls.append(len(latents))
        said = self.tone + latents[:, 0, 0, 0] + timesteps + inputs[STATES][:, 0, 0] + images.mean((1, 2, 3))
        return said[:, None, None, None].expand(-1, 2, 2, 2), said[:, None, None, None].expand(-1, 3, 1, 1) * 10


def control(net: FakeNet, tone: float = 0.0, scale: float = 1.0) -> Control:
    return Control(net, torch.full((3, 8, 8), tone), scale)


def rows(count: int) -> tuple[torch.Tensor, torch.Tensor, Inputs]:
    """Return latents, timesteps and states in which row i has the values i, 10·i and 100·i."""
    numbers = torch.arange(float(count))
    return (
        numbers[:, None, None, None].expand(-1, 4, 2, 2),
        numbers * 10,
        {STATES: (numbers * 100)[:, None, None].expand(-1, 5, 3)},
    )


def values(residuals: Residuals | None) -> list[float]:
    assert residuals is not None
    first, middle = residuals
    assert torch.equal(first[:, 0, 0, 0] * 10, middle[:, 0, 0, 0])
    return first[:, 0, 0, 0].tolist()


def test_residuals_without_controls_are_none() -> None:
    assert residuals_of([(), ()], *rows(2)) is None


def test_residuals_are_computed_per_row() -> None:
    net = FakeNet()
    made = residuals_of([(control(net, 0.5),), (), (control(net, 0.25, scale=2.0),)], *rows(3))
    assert values(made) == [0.5, 0.0, pytest.approx(2 * (222 + 0.25))]
    assert net.calls == [2], "one call for all rows that it controls, and no others"


def test_residuals_of_a_row_are_summed() -> None:
    one, other = FakeNet(), FakeNet(tone=1000.0)
    both = (control(one, 0.5), control(other, 0.25, scale=0.5), control(one, 0.125))
    made = residuals_of([both, (control(other),)], *rows(2))
    assert values(made) == [pytest.approx(0.5 + 0.5 * 1000.25 + 0.125), pytest.approx(1111.0)]
    assert (one.calls, other.calls) == ([2], [2])


def test_work_of_a_controlnet_is_half_a_unet() -> None:
    sample = Sample(
        index=0,
        scheduler=SimpleNamespace(timesteps=torch.arange(4)),
        step_options={},
        latents=torch.zeros(4, 8, 8),
        conditioning=conditioning(),
        guidance_scale=7.0,
        position=0,
        controls=(Control(FakeNet(), torch.zeros(3, 64, 64), 1.0, end=0.5),),
    )
    assert sample.work == 2 * 1.5
    sample.position = 2
    assert sample.work == 2


@pytest.mark.parametrize(
    ("start", "end", "active"),
    [
        (0.0, 1.0, [0, 1, 2, 3, 4]),
        (0.0, 0.6, [0, 1, 2]),
        (0.4, 1.0, [2, 3, 4]),
        (0.3, 0.7, [2]),
        (0.3, 0.5, []),
    ],
)
def test_control_is_active_from_start_to_end_only(start: float, end: float, active: list[int]) -> None:
    found = Control(FakeNet(), torch.zeros(3, 8, 8), 1.0, start, end)
    assert [step for step in range(5) if found.is_active(step, 5)] == active
