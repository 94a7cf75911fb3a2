"""An SDXL checkpoint in one file becomes the folder that diffusers would write."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.sdxl_model import make_sdxl
from tests.unit.checkpoints.original import Tensors, original_sdxl, write
from triton_diffusers.checkpoints.errors import LoadError
from triton_diffusers.checkpoints.load import load_components
from triton_diffusers.checkpoints.statements import log as statements_log
from triton_diffusers.families.sdxl.family import StableDiffusionXL
from triton_diffusers.settings import Settings

# Heads cannot be seen in the tensors.
SIDECAR = {
    "unet": {"attention_head_dim": [2, 4, 4], "norm_num_groups": 8, "sample_size": 16},
    "vae": {"norm_num_groups": 8},
    "text_encoder": {"num_attention_heads": 4},
    "text_encoder_2": {"num_attention_heads": 4},
}
TEXT = "conditioner.embedders."


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return make_sdxl(tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="module")
def tensors(pipeline: Any) -> Tensors:
    return original_sdxl(pipeline)


def settings_for(folder: Path, tensors: Tensors, sidecar: Mapping[str, Any] = SIDECAR) -> Settings:
    write(folder / "base_model" / "xl.safetensors", tensors)
    for component, config in sidecar.items():
        place = folder / "base_model" / "xl.config" / component
        place.mkdir(parents=True, exist_ok=True)
        (place / "config.json").write_text(json.dumps(config))
    return Settings(model_dir=folder, cache_dir=folder / "cache", device="cpu", dtype="float32")


def same(made: Any, expected: Any) -> None:
    found, wanted = made.state_dict(), expected.state_dict()
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert torch.equal(found[name], tensor), name


def test_a_file_becomes_the_pipeline(tmp_path: Path, pipeline: Any, tensors: Tensors) -> None:
    made = load_components(settings_for(tmp_path, tensors))
    assert isinstance(made.family, StableDiffusionXL)
    assert made.family.zeros_for_empty
    same(made.denoiser, pipeline.unet)
    same(made.vae, pipeline.vae)
    same(made.text_encoders["text_encoder"], pipeline.text_encoder)
    same(made.text_encoders["text_encoder_2"], pipeline.text_encoder_2)
    for key in ("addition_embed_type", "addition_time_embed_dim", "projection_class_embeddings_input_dim",
                "transformer_layers_per_block", "cross_attention_dim", "use_linear_projection"):  # fmt: skip
        found, wanted = made.denoiser.config[key], pipeline.unet.config[key]
        assert (list(found) if isinstance(found, list | tuple) else found) == (
            list(wanted) if isinstance(wanted, list | tuple) else wanted
        ), key
    assert [encoder.config.hidden_act for encoder in made.text_encoders.values()] == ["quick_gelu", "gelu"]
    for name, tokenizer in made.tokenizers.items():
        assert tokenizer.pad_token == getattr(pipeline, name).pad_token
        ids = getattr(pipeline, name)("a red apple").input_ids
        assert tokenizer("a red apple").input_ids == ids
    assert made.family.schedule.config["_class_name"] == "EulerDiscreteScheduler"
    assert made.family.latents.scale == pipeline.vae.config.scaling_factor


def test_metadata_of_sdxl_is_accepted(tmp_path: Path, tensors: Tensors, caplog: pytest.LogCaptureFixture) -> None:
    from safetensors.torch import save_file

    settings = settings_for(tmp_path, tensors)
    kept = {name: tensor.contiguous().clone() for name, tensor in tensors.items()}
    metadata = {"modelspec.architecture": "stable-diffusion-xl-v1-base"}
    save_file({**kept, "v_pred": torch.zeros(1)}, tmp_path / "base_model" / "xl.safetensors", metadata=metadata)
    with caplog.at_level("INFO", logger=statements_log.name):
        made = load_components(settings)
    assert made.family.schedule.config["prediction_type"] == "v_prediction"
    assert "modelspec.architecture says" not in caplog.text


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda name: not name.startswith(f"{TEXT}0."), r"one of SDXL's text encoders \(conditioner.embedders.1.model"),
        (
            lambda name: not name.startswith(f"{TEXT}1."),
            r"one of SDXL's text encoders \(conditioner.embedders.0.transf",
        ),
        (lambda name: name != f"{TEXT}1.model.text_projection", "incomplete: it has no tensor .*text_projection"),
    ],
)
def test_incomplete_files_are_refused(tmp_path: Path, tensors: Tensors, change: Any, reason: str) -> None:
    with pytest.raises(LoadError, match=reason):
        load_components(settings_for(tmp_path, {name: tensor for name, tensor in tensors.items() if change(name)}))


def test_a_refiner_is_refused_by_name(tmp_path: Path, tensors: Tensors) -> None:
    refiner = {name.replace(f"{TEXT}1.model.", f"{TEXT}0.model."): tensor for name, tensor in tensors.items()
               if not name.startswith(f"{TEXT}0.")}  # fmt: skip
    with pytest.raises(LoadError, match="not supported yet: SDXL refiner"):
        load_components(settings_for(tmp_path, refiner))
