"""A model directory with the shapes of Stable Diffusion 1.5 and random weights, made on the spot.

Speed and memory do not depend on what the weights are, as long as everything stays finite; the pictures are noise.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from triton_diffusers.checkpoints.layout import BASE_MODEL, INDEX

LORA = "lora/attention.safetensors"
"""A LoRA of rank 16 on the UNet's attention, within the model directory."""
_SEED = 1
_TOKENS = 77
_RANK = 16
_ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The configs of a checkpoint, as far as they differ from the libraries' defaults."""

    name: str
    side: int
    unet: Mapping[str, Any]
    vae: Mapping[str, Any]
    text_encoder: Mapping[str, Any]


_LEVELS = 4

SD15 = Shape(
    name="sd15",
    side=512,
    # diffusers' defaults are Stable Diffusion's, but for the text encoder's width.
    unet={"sample_size": 64, "attention_head_dim": 8, "cross_attention_dim": 768},
    vae={"sample_size": 512, "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2},
    text_encoder={"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12},
)
# As many levels, and so as many pixels in a latent, but narrow and shallow.
TINY = Shape(
    name="tiny",
    side=64,
    unet={
        "sample_size": 8,
        "attention_head_dim": 4,
        "cross_attention_dim": 32,
        "block_out_channels": (32, 32, 64, 64),
        "layers_per_block": 1,
    },
    vae={"sample_size": 64, "block_out_channels": (32, 32, 32, 32), "layers_per_block": 1},
    text_encoder={"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2},
)


def make_model(folder: Path, shape: Shape) -> None:
    """Make the model directory ``folder`` with a ControlNet and a LoRA; each appears whole, unless it is there."""
    _make(folder, lambda made: _write(made / BASE_MODEL, shape))
    _make(folder / "controlnet", lambda made: _write_controlnet(made, shape))
    _make(folder / "lora", lambda made: _write_lora(made / Path(LORA).name, shape))


def _make(folder: Path, write: Callable[[Path], None]) -> None:
    if folder.exists():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".making-") as made:
        whole = Path(made) / folder.name
        whole.mkdir()
        write(whole)
        shutil.move(whole, folder)


def _write_controlnet(folder: Path, shape: Shape) -> None:
    from diffusers import ControlNetModel

    config = {name: value for name, value in shape.unet.items() if name != "sample_size"}

    def make() -> Any:
        network = ControlNetModel(**config)
        for layer in (*network.controlnet_down_blocks, network.controlnet_mid_block):
            layer.reset_parameters()  # they begin as zeros, which would say nothing about pictures being alike
        return network

    _save(folder, make)


def _write_lora(file: Path, shape: Shape) -> None:
    import torch
    from diffusers import UNet2DConditionModel
    from safetensors.torch import save_file

    with torch.device("meta"):
        unet = UNet2DConditionModel(**shape.unet)
    generator = torch.Generator().manual_seed(_SEED)
    tensors = {}
    for path, layer in unet.named_modules():
        if isinstance(layer, torch.nn.Linear) and path.endswith(_ATTENTION):
            for name, rows, columns in (("A", _RANK, layer.in_features), ("B", layer.out_features, _RANK)):
                weights = torch.randn(rows, columns, generator=generator) * 0.1 / columns**0.5
                tensors[f"unet.{path}.lora_{name}.weight"] = weights
    save_file(tensors, file)


def _write(base: Path, shape: Shape) -> None:
    from diffusers import AutoencoderKL, EulerDiscreteScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    from triton_diffusers.checkpoints.vocabulary import write_tokenizer

    base.mkdir()
    _save(base / "unet", lambda: UNet2DConditionModel(**shape.unet))
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * _LEVELS, "up_block_types": ("UpDecoderBlock2D",) * _LEVELS}
    _save(base / "vae", lambda: AutoencoderKL(latent_channels=4, scaling_factor=0.18215, **blocks, **shape.vae))
    text = CLIPTextConfig(vocab_size=49408, max_position_embeddings=_TOKENS, **shape.text_encoder)
    _save(base / "text_encoder", lambda: CLIPTextModel(text))
    _name_as_published(base / "text_encoder" / "model.safetensors")
    # Euler calls the UNet once a step, and every contender has it.
    EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing="leading", steps_offset=1
    ).save_pretrained(base / "scheduler")
    write_tokenizer(base / "tokenizer", pad_token="<|endoftext|>", length=_TOKENS)
    index = {
        "_class_name": "StableDiffusionPipeline",
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "scheduler": ["diffusers", "EulerDiscreteScheduler"],
        # Not every contender has one, and its cost, once an image, is not an engine's.
        "safety_checker": [None, None],
        "feature_extractor": [None, None],
        "requires_safety_checker": False,
    }
    (base / INDEX).write_text(json.dumps(index, indent=1), encoding="utf-8")


def _name_as_published(file: Path) -> None:
    """Give a text encoder's tensors the names that they have in published checkpoints.

    transformers of the project's version reads both and writes shorter ones. stable-diffusion.cpp does not know those,
    and of the version in optimum-intel's environment the class has the longer ones.
    """
    from safetensors.torch import load_file, save_file

    tensors = {f"text_model.{name.removeprefix('text_model.')}": values for name, values in load_file(file).items()}
    save_file(tensors, file, {"format": "pt"})


def _save(folder: Path, make: Callable[[], Any]) -> None:
    """Save a network with the weights that its library draws."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        make().save_pretrained(folder)
