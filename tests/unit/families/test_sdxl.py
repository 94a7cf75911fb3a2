"""SDXL as a family: what is refused, the precision of its autoencoder, and the names of its layers in LoRA files."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.sdxl_model import write_sdxl
from triton_diffusers.adapters.lora import TEXT_ENCODER
from triton_diffusers.adapters.lora.names import LayerNames
from triton_diffusers.checkpoints.components import Components
from triton_diffusers.checkpoints.load import LoadError, load_components
from triton_diffusers.compile.errors import CannotBegin
from triton_diffusers.compile.options import BuildOptions
from triton_diffusers.compile.plan import make_plan
from triton_diffusers.engines.eager import EagerEngine
from triton_diffusers.engines.graphs import GRAPHS
from triton_diffusers.families.errors import UnsupportedComponent
from triton_diffusers.families.family import Parts
from triton_diffusers.families.sdxl.family import StableDiffusionXL
from triton_diffusers.settings import Settings


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sdxl")
    write_sdxl(folder / "base_model")
    return folder


@pytest.fixture(scope="module")
def components(model_dir: Path) -> Components:
    return load_components(Settings(model_dir=model_dir, dtype="float16", device="cpu"))


@pytest.fixture
def parts(components: Components) -> Parts:
    configs = {"unet": components.denoiser.config, "vae": components.vae.config}
    configs |= {name: encoder.config for name, encoder in components.text_encoders.items()}
    return Parts(configs=configs, tokenizers=components.tokenizers, scheduler_config={}, index={})


def unet(**changes: Any) -> Callable[[Parts], Parts]:
    return lambda parts: replace(parts, configs={**parts.configs, "unet": {**parts.configs["unet"], **changes}})


def other_words(parts: Parts) -> Parts:
    second = copy.deepcopy(parts.tokenizers["tokenizer_2"])
    second.add_tokens(["somebody's"])
    config = copy.copy(parts.configs["text_encoder_2"])
    config.vocab_size += 1
    tokenizers = {**parts.tokenizers, "tokenizer_2": second}
    return replace(parts, tokenizers=tokenizers, configs={**parts.configs, "text_encoder_2": config})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (unet(addition_embed_type=None), "unet: addition_embed_type is None: unsupported, expected 'text_time'"),
        (unet(addition_embed_type="text"), "unet: addition_embed_type is 'text': not supported yet"),
        (unet(encoder_hid_dim_type="text_proj"), "unet: encoder_hid_dim_type is 'text_proj': not supported yet"),
        (unet(cross_attention_dim=81), "unet: cross_attention_dim is 81: unsupported, expected 80, of both"),
        (unet(projection_class_embeddings_input_dim=9), "unet: projection_class_embeddings_input_dim is 9: unsup"),
        (unet(in_channels=8), "unet: not supported yet: InstructPix2Pix"),
        (other_words, "tokenizer_2: its words differ from those of tokenizer: unsupported"),
    ],
)
def test_parts_of_other_models_are_refused(parts: Parts, change: Callable[[Parts], Parts], reason: str) -> None:
    StableDiffusionXL.check(parts)
    with pytest.raises(UnsupportedComponent, match=f"^{reason}"):
        StableDiffusionXL.check(change(parts))


def test_a_refiner_is_refused(model_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "base_model").mkdir()
    index = (model_dir / "base_model" / "model_index.json").read_text()
    start = index.index('"text_encoder": [')
    changed = index[:start] + '"text_encoder": [null, null]' + index[index.index("]", start) + 1 :]
    (tmp_path / "base_model" / "model_index.json").write_text(changed)
    with pytest.raises(LoadError, match=r"has no text_encoder .*not a Stable Diffusion XL model"):
        load_components(Settings(model_dir=tmp_path))


def test_an_autoencoder_that_overflows_runs_in_float32(components: Components) -> None:
    latents = torch.randn(4, 4, 4, generator=torch.Generator().manual_seed(0))
    assert components.family.decodes_in_float32, "force_upcast is diffusers' default"
    exact = EagerEngine(components).decode(latents, precise=True)
    assert (EagerEngine(components).decode(latents) == exact).all()
    half = replace(components, family=replace(components.family, decodes_in_float32=False))
    assert (EagerEngine(half).decode(latents) != exact).any()


def test_a_build_is_refused_before_it_begins(model_dir: Path) -> None:
    with pytest.raises(CannotBegin, match="Stable Diffusion XL is not supported by compiled engines yet"):
        make_plan(BuildOptions(model=str(model_dir), engine="openvino"), Settings())


def test_graphs_are_refused_too(components: Components) -> None:
    """A checkpoint in one file tells its family only when it is loaded."""
    with pytest.raises(LoadError, match="Stable Diffusion XL is not supported by compiled engines yet"):
        GRAPHS[TEXT_ENCODER](components)


@pytest.mark.parametrize(
    ("spelling", "path"),
    [
        ("lora_te1_text_model_encoder_layers_0_mlp_fc1", "text_encoder.encoder.layers.0.mlp.fc1"),
        ("lora_te2_text_model_encoder_layers_3_mlp_fc1", "text_encoder_2.encoder.layers.3.mlp.fc1"),
        ("lora_te2_text_projection", "text_encoder_2.text_projection"),
        (
            "text_encoder_2.text_model.encoder.layers.0.self_attn.q_proj",
            "text_encoder_2.encoder.layers.0.self_attn.q_proj",
        ),
        ("lora_unet_label_emb_0_0", "unet.add_embedding.linear_1"),
        ("lora_unet_label_emb_0_2", "unet.add_embedding.linear_2"),
        (
            "lora_unet_input_blocks_3_1_transformer_blocks_0_attn1_to_q",
            "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q",
        ),
    ],
)
def test_layers_are_found_by_their_names_in_files(components: Components, spelling: str, path: str) -> None:
    targets = EagerEngine(components).lora_targets
    found = LayerNames(targets).find(spelling)
    assert found is not None
    assert found.replace("text_model.", "") == path
    assert found in targets


def test_pooled_text_is_that_of_the_end_token(components: Components) -> None:
    """An embedding's words have larger numbers than the end token, which transformers' maximum would take."""
    family, encoders = components.family, components.text_encoders
    assert isinstance(family, StableDiffusionXL)
    encoders = {name: copy.deepcopy(encoder).float() for name, encoder in encoders.items()}
    tokens = SimpleNamespace(ids=(49406, 320, 49407, *[49407] * 74), attention_mask=(1, 1, 1, *[0] * 74))
    ids = torch.tensor([[49406, 320, 49407, *[family.second_pad] * 74]])
    with torch.inference_mode():
        expected = encoders["text_encoder_2"](ids).text_embeds
        found = family.encode_text(encoders, [tokens], 1)  # type: ignore[list-item]
    torch.testing.assert_close(found["pooled"], expected)
