"""The networks against outputs of another implementation for the same weights."""

from __future__ import annotations

import pytest
import torch

from tests.unit.preprocess import weights
from triton_diffusers.preprocess.nets.hed import HedNetwork
from triton_diffusers.preprocess.nets.lineart import LineartNetwork
from triton_diffusers.preprocess.nets.mlsd import MlsdNetwork

NETS = {weights.HED: HedNetwork, weights.LINEART: LineartNetwork, weights.MLSD: MlsdNetwork}


@pytest.mark.parametrize("file", NETS)
def test_a_network_matches_another_implementation(file: str) -> None:
    network = NETS[file]()
    network.load_state_dict(weights.random_tensors(file))
    with torch.inference_mode():
        found = network.eval()(weights.sample_input(file))
    expected = weights.LAYOUTS[file]["expected"]
    assert list(found.shape) == expected["shape"]
    scale = expected["std"]
    assert scale > 0.01
    for index, value in expected["values"]:
        assert found.flatten()[index].item() == pytest.approx(value, abs=1e-3 * scale)


@pytest.mark.parametrize("file", NETS)
def test_a_network_has_exactly_the_tensors_of_its_file(file: str) -> None:
    ours = {name: list(tensor.shape) for name, tensor in NETS[file]().state_dict().items()}
    assert ours == weights.LAYOUTS[file]["tensors"]
