"""LoRAs of rows as graph inputs."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import nn

from triton_diffusers.adapters.lora import Lora, LoraLayer, LoraSet
from triton_diffusers.engines import lora_packer
from triton_diffusers.engines.graphs import LoraLayout, lora_layouts
from triton_diffusers.engines.lora_packer import LoraPacker
from triton_diffusers.util.cache import LruCache

LAYOUT = LoraLayout({"unet.one": (2, 3), "unet.two": (4, 5)})


def a_set(name: str, path: str, rank: int) -> LoraSet:
    size_in, size_out = LAYOUT.sizes.get(path, (2, 2))
    layer = LoraLayer(torch.randn(rank, size_in), torch.randn(size_out, rank))
    return LoraSet.of([(Lora((name, 1, 1), {path: layer}), 1.0)])


def packer() -> LoraPacker:
    return LoraPacker("unet", (LAYOUT,), LruCache(2**20))


def test_no_lora_is_rank_zero() -> None:
    for rows in (None, [None, None], [a_set("text", "text_encoder.one", 2)]):
        packed = packer().pack(rows)
        assert packed is not None
        assert [tuple(tensor.shape) for tensor in packed] == [(1, 0, 6), (1, 8, 0)]


def test_layers_and_groups_are_packed_at_their_offsets() -> None:
    first, second = a_set("first", "unet.one", 1), a_set("second", "unet.two", 3)
    packed = packer().pack([first, first, second, second])
    assert packed is not None
    down, up = packed
    assert down.shape == (2, 3, 6)
    assert up.shape == (2, 8, 3)
    one, two = first.layers["unet.one"], second.layers["unet.two"]
    assert torch.equal(down[0, :1, :2], one.down)
    assert torch.equal(up[0, :3, :1], one.up)
    assert torch.equal(down[1, :, 2:], two.down)
    assert torch.equal(up[1, 3:], two.up)
    assert torch.count_nonzero(down) == one.down.numel() + two.down.numel()
    assert torch.count_nonzero(up) == one.up.numel() + two.up.numel()


def test_convolutions_have_inputs_and_a_rank_of_their_own() -> None:
    module = nn.ModuleDict({"one": nn.Linear(2, 3), "kernel": nn.Conv2d(4, 5, (3, 2))})
    both = LoraPacker("unet", lora_layouts("unet", module), LruCache(2**20))
    plain, kernel = (
        LoraLayer(torch.randn(4, 2), torch.randn(3, 4)),
        LoraLayer(torch.randn(2, 4, 3, 2), torch.randn(5, 2)),
    )

    def pack(*layers: Mapping[str, LoraLayer]) -> list[torch.Tensor]:
        sets = [LoraSet.of([(Lora((" ".join(found), 1, 1), found), 1.0)]) for found in layers]
        packed = both.pack(sets)
        assert packed is not None
        return list(packed)

    for layers, ranks in (([{"unet.one": plain}], (4, 0)), ([{"unet.kernel": kernel}], (0, 2))):
        down, up, kernels, outs = pack(*layers)
        assert (down.shape, up.shape) == ((1, ranks[0], 2), (1, 3, ranks[0]))
        assert (kernels.shape, outs.shape) == ((1, ranks[1], 24), (1, 5, ranks[1]))
    _, _, kernels, outs = pack({"unet.one": plain}, {"unet.kernel": kernel})
    assert torch.equal(kernels[1].reshape(2, 3, 2, 4), kernel.down.permute(0, 2, 3, 1)), "tap by tap"
    assert torch.equal(outs[1], kernel.up)
    assert not kernels[0].any()


def test_a_lora_for_all_rows_is_one_group() -> None:
    lora = a_set("one", "unet.one", 2)
    packed = packer().pack([lora] * 4)
    assert packed is not None
    assert packed[0].shape == (1, 2, 6)


def test_packed_loras_are_cached() -> None:
    keeping, rows = packer(), [a_set("one", "unet.one", 2), None]
    first, again = keeping.pack(rows), keeping.pack(rows)
    assert first is not None
    assert again is not None
    assert first[0] is again[0]


def test_layers_missing_in_the_graph_are_not_packed() -> None:
    other = a_set("one", "unet.conv_in", 2)
    assert packer().pack([other]) is None
    assert not packer().takes(other)


def test_oversized_inputs_are_not_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pad all layers to rank 3: 3 × (6 + 8) numbers of 4 bytes per group."""
    first, second = a_set("first", "unet.one", 3), a_set("second", "unet.two", 3)
    monkeypatch.setattr(lora_packer, "_MAX_BYTES", 2 * 168 - 1)
    assert packer().pack([first, first]) is not None
    assert packer().pack([first, second]) is None
    assert packer().takes(first)
    assert packer().takes(second)
    assert packer().takes(None)
    monkeypatch.setattr(lora_packer, "_MAX_BYTES", 168 - 1)
    assert packer().pack([first]) is None
    assert not packer().takes(first)


def test_a_file_named_many_times_has_a_rank_that_graphs_do_not_take() -> None:
    layer = LoraLayer(torch.randn(1024, 2), torch.randn(3, 1024))
    lora = Lora(("large", 1, 1), {"unet.one": layer})
    assert packer().takes(LoraSet.of([(lora, 1.0)] * 4))
    assert not packer().takes(LoraSet.of([(lora, 1.0)] * 5))


def test_gigabytes_are_not_made_of_one_small_layer() -> None:
    layout = LoraLayout({f"unet.{n}": (320, 320) for n in range(700)})
    layer = LoraLayer(torch.zeros(1024, 320), torch.zeros(320, 1024))
    loras = LoraSet.of([(Lora(("large", 1, 1), {"unet.0": layer}), 1.0)])
    assert LoraPacker("unet", (layout,), LruCache(2**20)).pack([loras]) is None
