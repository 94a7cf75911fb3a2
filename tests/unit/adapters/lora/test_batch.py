"""Rows of one call have their own LoRAs, whatever the layer, the ranks and the order of the rows."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import nn

from triton_diffusers.adapters.lora import Lora, LoraLayer, LoraSet, LoraStacker, lora_modules
from triton_diffusers.engines.eager import LoraHooks
from triton_diffusers.util.cache import LruCache

CPU = torch.device("cpu")


class Model(nn.Module):
    """One layer of each kind that a LoRA can change."""

    def __init__(self) -> None:
        super().__init__()
        self.three = nn.Conv2d(4, 6, 3, stride=2, padding=1)
        self.one = nn.Conv2d(6, 6, 1)
        self.plain = nn.Linear(6, 8)
        self.time = nn.Linear(3, 8)

    def forward(self, images: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        pixels = self.one(self.three(images)).permute(0, 2, 3, 1).flatten(1, 2)
        return self.plain(pixels) + self.time(times)[:, None]


@pytest.fixture(params=[torch.contiguous_format, torch.channels_last], ids=["contiguous", "channels last"])
def model(request: pytest.FixtureRequest) -> Model:
    torch.manual_seed(0)
    return Model().eval().to(memory_format=request.param)


def loras(model: Model, name: str, rank: int, without: str = "", weight: float = 1.0) -> LoraSet:
    generator = torch.Generator().manual_seed(rank)
    layers = {
        f"unet.{path}": LoraLayer(
            torch.randn(rank, *module.weight.shape[1:], generator=generator),
            torch.randn(len(module.weight), rank, generator=generator),
        )
        for path, module in model.named_children()
        if path != without
    }
    return LoraSet.of([(Lora((name, 1, 1), layers), weight)])


def merged(model: Model, added: LoraSet | None, *inputs: torch.Tensor) -> torch.Tensor:
    """Return the output of the model with the LoRAs merged into its weights."""
    copy = Model()
    copy.load_state_dict(model.state_dict())
    for path, layer in (added.layers if added is not None else {}).items():
        weight = copy.get_submodule(path.removeprefix("unet.")).weight
        weight.data += torch.tensordot(layer.up, layer.down, 1)
    with torch.inference_mode():
        result: torch.Tensor = copy(*inputs)
    return result


ORDERS = ["aabb", "aaaa", "abab", "-a-b", "abbb", "aab-", "----", "a", "-", "aac", "cba-"]


@pytest.mark.parametrize("order", ORDERS)
def test_each_row_has_its_own(model: Model, order: str) -> None:
    sets = {"a": loras(model, "a", 2), "b": loras(model, "b", 5, weight=-0.5), "c": loras(model, "c", 3, "one")}
    rows = [sets.get(letter) for letter in order]
    generator = torch.Generator().manual_seed(1)
    images, times = (torch.randn(len(rows), *shape, generator=generator) for shape in ((4, 9, 7), (3,)))
    hooks = LoraHooks("unet", model, LruCache(2**20))
    for _ in range(2):  # made, and kept
        with torch.inference_mode(), hooks.applied(rows):
            together = model(images, times)
        for row, added in enumerate(rows):
            alone = merged(model, added, images[row : row + 1], times[row : row + 1])
            torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(model(images, times), merged(model, None, images, times))


def hooked(model: Model) -> int:
    return sum(len(module._forward_hooks) for module in model.modules())


def test_hooks_are_removed_afterwards(model: Model) -> None:
    hooks = LoraHooks("unet", model, LruCache(2**20))
    with hooks.applied([loras(model, "a", 2)]):
        assert hooked(model) == 4
    assert hooked(model) == 0
    with pytest.raises(RuntimeError), hooks.applied([loras(model, "a", 2)]):
        model(torch.ones(1, 5, 9, 7), torch.ones(1, 3))
    assert hooked(model) == 0


@pytest.mark.parametrize("rows", [None, [], [None, None]])
def test_a_call_without_loras_is_the_models_own(model: Model, rows: Sequence[LoraSet | None] | None) -> None:
    with LoraHooks("unet", model, LruCache(2**20)).applied(rows):
        assert hooked(model) == 0


def test_loras_of_another_network_add_no_hooks(model: Model) -> None:
    hooks = LoraHooks("text_encoder", model, LruCache(2**20))
    with hooks.applied([loras(model, "a", 2)]):
        assert hooked(model) == 0


def test_targets_are_the_layers(model: Model) -> None:
    targets = {path: tuple(layer.weight.shape) for path, layer in lora_modules("unet", model)}
    assert targets == {
        "unet.three": (6, 4, 3, 3), "unet.one": (6, 6, 1, 1), "unet.plain": (8, 6), "unet.time": (8, 3)
    }  # fmt: skip


def test_rows_of_one_set_share_its_weights(model: Model) -> None:
    """Stacked are the groups of equal size that rows fall into, not the rows; one group is not copied at all."""
    first, second = loras(model, "a", 2), loras(model, "b", 5)
    stacker = LoraStacker("unet", CPU, torch.float32, LruCache(2**20))
    groups = {
        len(stacker.stack(rows)["unet.plain"].down)
        for rows in ([first] * 4 + [second] * 4, [first, first, second, second])
    }
    assert groups == {2}
    assert len(stacker.stack([first, first, None, second])["unet.plain"].down) == 4
    (batch,) = {id(stacker.stack([first] * rows)["unet.plain"]): stacker.stack([first]) for rows in (1, 2, 5)}.values()
    assert batch["unet.plain"].down.data_ptr() == first.layers["unet.plain"].down.data_ptr()


def test_a_stack_is_kept_while_the_rows_stay_and_has_the_engines_precision(model: Model) -> None:
    first, second = loras(model, "a", 2), loras(model, "b", 5)
    stacker = LoraStacker("unet", CPU, torch.bfloat16, LruCache(0))
    stacked = stacker.stack([first, second])
    assert stacker.stack([first, first, second, second]) is stacked
    assert {weight.dtype for batch in stacked.values() for weight in (batch.down, batch.up)} == {torch.bfloat16}
    assert stacker.stack([second, first]) is not stacked
