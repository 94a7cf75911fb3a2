"""ControlNet files of every layout give equal weights; anything that does not fit the base model is an error."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import ControlNetModel, ControlNetUnionModel, T2IAdapter
from safetensors.torch import save_file

from tests.controlnet_files import CHANNELS, WEIGHTS, Tensors, original, random_controlnet, save, save_folder
from tests.unit.checkpoints.original import unet
from triton_diffusers.adapters.controlnet import ControlNetReader, ControlNetWeights
from triton_diffusers.errors import InvalidRequest, NotFound

MEGABYTE = 2**20
CONV_IN = "controlnet_cond_embedding.conv_in.weight"
TO_K = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    return folder


@pytest.fixture
def reader(root: Path, unet_config: Mapping[str, Any]) -> ControlNetReader:
    return ControlNetReader(root, unet_config, pixels_per_latent=8, max_file_bytes=16 * MEGABYTE)


def check(weights: ControlNetWeights, network: Any, dtype: torch.dtype = torch.float32) -> None:
    """Check that the weights are exactly those of this network."""
    made = ControlNetModel.from_config(dict(weights.config))
    made.load_state_dict(dict(weights.tensors))
    for name, tensor in network.state_dict().items():
        assert weights.tensors[name].dtype is dtype, name
        assert torch.equal(weights.tensors[name], tensor.to(dtype)), name
    said = {key: value for key, value in network.config.items() if not key.startswith("_")}
    assert weights.config == said
    assert weights.nbytes == sum(tensor.numel() * dtype.itemsize for tensor in network.state_dict().values())


def half(tensors: Tensors) -> Tensors:
    return {name: tensor.half() for name, tensor in tensors.items()}


@pytest.mark.parametrize("variant", [None, "fp16"])
@pytest.mark.parametrize("safe", [True, False])
def test_folders(reader: ControlNetReader, root: Path, network: Any, variant: str | None, safe: bool) -> None:
    save_folder(network, root / "nets" / "红 edges", variant=variant, safe=safe)
    check(reader.read("nets/红 edges"), network)


def test_no_path_means_the_model_directorys_own(reader: ControlNetReader, root: Path, network: Any) -> None:
    with pytest.raises(NotFound, match=r"^controlnet_path: 'controlnet' is not in the model directory"):
        reader.read("")
    save_folder(network, root / "controlnet")
    check(reader.read(""), network)
    assert reader.identity("") == reader.identity("controlnet") == reader.read("").identity


@pytest.mark.parametrize("name", [f"new_controlnet/depth/{WEIGHTS}", "a.safetensors", "a.bin", "a.pth", "a.ckpt"])
def test_a_single_file_needs_no_config(reader: ControlNetReader, root: Path, network: Any, name: str) -> None:
    save(root / name, network.state_dict())
    check(reader.read(name), network)


@pytest.mark.parametrize("prefix", ["control_model.", ""])
@pytest.mark.parametrize("name", ["a.safetensors", "a.pth", "a.ckpt"])
def test_the_original_layout(reader: ControlNetReader, root: Path, network: Any, prefix: str, name: str) -> None:
    save(root / name, half(original(network, prefix)))
    check(reader.read(name), network, torch.float16)


def test_the_second_generation_in_the_original_layout(root: Path) -> None:
    config = dict(unet(second=True, cross=96).config)
    network = random_controlnet(config)
    save(root / "a.safetensors", original(network))
    reader = ControlNetReader(root, config, pixels_per_latent=8, max_file_bytes=16 * MEGABYTE)
    check(reader.read("a.safetensors"), network)


def test_the_first_files_hold_the_base_model_too(reader: ControlNetReader, root: Path, network: Any) -> None:
    base = {f"{part}.encoder.weight": torch.ones(1) for part in ("model.diffusion_model", "first_stage_model")}
    torch.save({"state_dict": {**original(network), **base}, "global_step": 5}, root / "a.ckpt")
    check(reader.read("a.ckpt"), network)


def test_a_config_says_what_weights_do_not(
    reader: ControlNetReader, root: Path, unet_config: Mapping[str, Any]
) -> None:
    network = random_controlnet({**unet_config, "upcast_attention": True}, controlnet_conditioning_channel_order="bgr")
    save_folder(network, root / "a")
    check(reader.read("a"), network)
    weights = reader.read(f"a/{WEIGHTS}")
    check(weights, network)
    assert weights.config["controlnet_conditioning_channel_order"] == "bgr"


def test_an_older_config_may_say_less_or_the_same_in_other_words(
    reader: ControlNetReader, root: Path, network: Any
) -> None:
    save_folder(network, root / "a")
    file = root / "a" / "config.json"
    config = json.loads(file.read_text())
    del config["transformer_layers_per_block"], config["mid_block_type"]
    config["attention_head_dim"] = [config["attention_head_dim"]] * 2
    file.write_text(json.dumps({**config, "something_new": 1}))
    check(reader.read("a"), network)


def test_an_inpainting_model_has_controlnets_for_its_latents(root: Path, network: Any) -> None:
    reader = ControlNetReader(root, dict(unet(in_channels=9).config), pixels_per_latent=8, max_file_bytes=16 * MEGABYTE)
    save(root / "a.safetensors", network.state_dict())
    check(reader.read("a.safetensors"), network)


def test_the_identity_changes_with_either_file(reader: ControlNetReader, root: Path, network: Any) -> None:
    save_folder(network, root / "a")
    seen = {reader.identity("a")}
    for name in (WEIGHTS, "config.json"):
        os.utime(root / "a" / name, ns=(1, 1))
        seen.add(reader.identity("a"))
    assert len(seen) == 3
    save(root / "b.safetensors", network.state_dict())
    assert reader.identity("b.safetensors") not in seen


def test_a_message_names_the_field_and_the_path(reader: ControlNetReader, root: Path) -> None:
    for path in ("../a", "/a.safetensors", "x" * 1025):
        with pytest.raises(InvalidRequest, match=r"^controlnet_path: "):
            reader.identity(path)
    (root / "a").mkdir()
    (root / "b.gguf").touch()
    with pytest.raises(InvalidRequest, match=r"'a' is invalid: a folder must hold diffusion_pytorch_model\.safe"):
        reader.identity("a")
    with pytest.raises(InvalidRequest, match=r"'b.gguf' is invalid: it must be a file that ends in \.safetensors"):
        reader.identity("b.gguf")
    with pytest.raises(NotFound, match=r"^controlnet_path: 'c' is not in the model directory$"):
        reader.identity("c")


def test_a_config_that_leads_out_is_as_if_it_were_not_there(reader: ControlNetReader, root: Path, network: Any) -> None:
    save_folder(network, root / "a")
    (root / "a" / "config.json").rename(root.parent / "config.json")
    (root / "a" / "config.json").symlink_to(root.parent / "config.json")
    assert len(reader.identity("a")) == 1
    (root / "a" / "config.json").unlink()
    os.mkfifo(root / "a" / "config.json")
    assert len(reader.identity("a")) == 1


CONFIGS: Mapping[str, tuple[Mapping[str, Any], str]] = {
    "a union": ({"_class_name": "ControlNetUnionModel"}, "that of 'ControlNetUnionModel'"),
    "an adapter": ({"_class_name": "T2IAdapter"}, "that of 'T2IAdapter'"),
    "the second generation": ({"cross_attention_dim": 1024}, "cross_attention_dim is 1024; it is 64 for this model"),
    "other blocks": ({"block_out_channels": [320, 640, 1280, 1280]}, "block_out_channels is"),
    "other heads": ({"attention_head_dim": [5, 10]}, r"attention_head_dim is \[5, 10\]"),
    "shuffle": ({"global_pool_conditions": True}, "global_pool_conditions"),
    "an order": ({"controlnet_conditioning_channel_order": "x" * 1000}, "channel_order is 'x{80}', not"),
    "other images": ({"conditioning_embedding_out_channels": [16, 32, 96, 256]}, "the weights have"),
    "much": ({"layers_per_block": 10**30}, "layers_per_block is 1000"),
    "unlike types": ({"norm_eps": {"a": []}}, "norm_eps is"),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_configs_that_do_not_fit(reader: ControlNetReader, root: Path, network: Any, case: str) -> None:
    changes, says = CONFIGS[case]
    save_folder(network, root / "a")
    file = root / "a" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    with pytest.raises(InvalidRequest, match=says) as caught:
        reader.read("a")
    assert caught.value.field == "controlnet_path"
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 60_000, b'{"a": "' + b"x" * 70_000 + b'"}'])
def test_configs_that_cannot_be_read(reader: ControlNetReader, root: Path, network: Any, content: bytes) -> None:
    save_folder(network, root / "a")
    (root / "a" / "config.json").write_bytes(content)
    with pytest.raises(InvalidRequest, match=r"its config\.json"):
        reader.read("a")


def changed(network: Any, **changes: torch.Tensor | None) -> Tensors:
    tensors = {**network.state_dict(), **changes}
    return {name: tensor for name, tensor in tensors.items() if tensor is not None}


REFUSED: Mapping[str, tuple[Callable[[Any], Tensors], str]] = {
    "nothing": (lambda net: {}, "it is not a ControlNet"),
    "something": (lambda net: {"a.weight": torch.ones(2)}, "it is not a ControlNet"),
    "a LoRA": (lambda net: {"unet.conv_in.lora_A.weight": torch.ones(2, 2)}, "it is a LoRA"),
    "a Control-LoRA": (lambda net: {"lora_controlnet": torch.ones(0), "input_hint_block.0.weight": torch.ones(1)},
                       "it is a Control-LoRA"),
    "LLLite": (lambda net: {"lllite_unet_input_blocks_4_1.down.0.weight": torch.ones(1)}, "LLLite"),
    "an adapter": (lambda net: T2IAdapter(channels=(32, 64), adapter_type="light_adapter").state_dict(), "T2I adapter"),
    "an original adapter": (lambda net: {"body.0.block1.weight": torch.ones(1)}, "T2I adapter"),
    "XS": (lambda net: changed(net, **{"down_blocks.0.ctrl_to_base.0.weight": torch.ones(1)}), "ControlNet-XS"),
    "SDXL": (lambda net: changed(net, **{"add_embedding.linear_1.weight": torch.ones(1)}), "for SDXL"),
    "original SDXL": (lambda net: {**original(net), "control_model.label_emb.0.0.weight": torch.ones(1)}, "for SDXL"),
    "a UNet": (lambda net: unet().state_dict(), "it is a UNet"),
    "a checkpoint": (lambda net: {"model.diffusion_model.out.2.weight": torch.ones(1)}, "it is a whole checkpoint"),
    "a tensor more": (lambda net: changed(net, **{f"conv_{'x' * 999}": torch.ones(1)}), "no ControlNet of this model"),
    "an original more": (lambda net: {**original(net), "control_model.input_blocks.9.1.x": torch.ones(1)},
                         "no ControlNet of this model has: control_model.input_blocks.9.1.x"),
    "a tensor less": (lambda net: changed(net, **{TO_K: None}), f"it has no tensor {TO_K}"),
    "an original less": (
        lambda net: {name: tensor for name, tensor in original(net).items() if "zero_convs.1" not in name},
        r"it has no tensor controlnet_down_blocks\.1\.bias"),
    "no time": (lambda net: {"input_hint_block.0.weight": torch.ones(1)}, "time_embed"),
    "another text": (lambda net: changed(net, **{TO_K: torch.ones(32, 1024)}), r"the shape \(32, 1024\); .*\(32, 64\)"),
    "depth and image": (lambda net: changed(net, **{CONV_IN: torch.ones(16, 4, 3, 3)}), "images of 4 channels"),
    "no image": (lambda net: changed(net, **{CONV_IN: None}), "it has no convolution"),
    "a flat image": (lambda net: changed(net, **{CONV_IN: torch.ones(16)}), "it has no convolution"),
    "whole numbers": (lambda net: changed(net, **{TO_K: torch.ones(32, 64, dtype=torch.int8)}), "int8 weights"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_weights_that_do_not_fit(reader: ControlNetReader, root: Path, network: Any, case: str) -> None:
    make, says = REFUSED[case]
    save(root / "a.safetensors", make(network))
    with pytest.raises(InvalidRequest, match=says) as caught:
        reader.read("a.safetensors")
    assert caught.value.field == "controlnet_path"
    assert len(str(caught.value)) < 500


def test_a_union_is_refused(reader: ControlNetReader, root: Path) -> None:
    union = ControlNetUnionModel(
        block_out_channels=(32, 64),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        layers_per_block=1,
        cross_attention_dim=64,
        conditioning_embedding_out_channels=CHANNELS,
        num_control_type=2,
        num_trans_channel=32,
        num_trans_head=2,
        num_proj_channel=32,
        addition_time_embed_dim=8,
    )
    save(root / "a.safetensors", union.state_dict())
    with pytest.raises(InvalidRequest, match="it is a ControlNet union"):
        reader.read("a.safetensors")


def test_another_latent_scale_is_refused(root: Path, network: Any, unet_config: Mapping[str, Any]) -> None:
    save(root / "a.safetensors", network.state_dict())
    reader = ControlNetReader(root, unet_config, pixels_per_latent=4, max_file_bytes=16 * MEGABYTE)
    with pytest.raises(InvalidRequest, match="it takes 8 pixels per latent"):
        reader.read("a.safetensors")
    fine = random_controlnet(unet_config, channels=CHANNELS[:3])
    save(root / "b.safetensors", fine.state_dict())
    check(reader.read("b.safetensors"), fine)


class Harmful:
    """Makes a file where it is unpickled."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Callable[[str, int], int], tuple[str, int]]:
        return os.open, (str(self.place), os.O_CREAT)


def test_a_pickle_that_runs_code_does_not(reader: ControlNetReader, root: Path, tmp_path: Path) -> None:
    torch.save({"x": Harmful(tmp_path / "harm")}, root / "a.pth")
    with pytest.raises(InvalidRequest, match="cannot be read"):
        reader.read("a.pth")
    assert not (tmp_path / "harm").exists()


def test_files_that_are_not_what_they_should_be(reader: ControlNetReader, root: Path, network: Any) -> None:
    whole = save(root / "a.safetensors", network.state_dict()).read_bytes()
    (root / "cut.safetensors").write_bytes(whole[:-10])
    (root / "empty.pth").touch()
    (root / "pickle.ckpt").write_bytes(pickle.dumps({"a": 1}))
    torch.save({"state_dict": {"state_dict": {}}}, root / "nested.ckpt")
    torch.save({"state_dict": [1]}, root / "list.ckpt")
    circle: dict[str, Any] = {}
    circle["state_dict"] = circle
    torch.save(circle, root / "circle.ckpt")
    for name in ("cut.safetensors", "empty.pth", "pickle.ckpt", "nested.ckpt", "list.ckpt", "circle.ckpt"):
        with pytest.raises(InvalidRequest, match=f"^controlnet_path: '{name}' is invalid: "):
            reader.read(name)


def test_claims_of_memory(reader: ControlNetReader, root: Path, network: Any) -> None:
    """A pickle may hold one number and say that it is a million, or hold no number at all."""
    torch.save(changed(network, **{CONV_IN: torch.ones(1).expand(10**8, 3, 3, 3)}), root / "a.pth")
    with pytest.raises(InvalidRequest, match="larger than the file"):
        reader.read("a.pth")
    torch.save(changed(network, **{CONV_IN: torch.ones(16, 3, 3, 3, device="meta")}), root / "b.pth")
    with pytest.raises(InvalidRequest, match="something other than named weights"):
        reader.read("b.pth")


def test_files_of_many_tensors_are_not_renamed(reader: ControlNetReader, root: Path) -> None:
    save_file({f"input_hint_block.{number}.weight": torch.ones(1) for number in range(2001)}, root / "a.safetensors")
    with pytest.raises(InvalidRequest, match="it has 2001 tensors"):
        reader.read("a.safetensors")


def test_large_files_are_not_opened(reader: ControlNetReader, root: Path) -> None:
    with (root / "a.safetensors").open("wb") as file:
        file.truncate(16 * MEGABYTE + 1)
    with pytest.raises(InvalidRequest, match="more than 16 MB"):
        reader.read("a.safetensors")


def test_reading_runs_no_tensor_operations(reader: ControlNetReader, root: Path, network: Any) -> None:
    """PyTorch computes in the engine's thread alone; to look at names, shapes and types takes no operator of it."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Seen(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor) and result.device.type != "meta":
                names.add(str(func))
            return result

    names: set[str] = set()
    save(root / "a.safetensors", half(original(network)))
    with Seen():
        reader.read("a.safetensors")
    views = ("detach", "empty", "lift_fresh", "select", "set_", "slice", "view")
    assert {name.split(".")[1] for name in names} <= set(views)
