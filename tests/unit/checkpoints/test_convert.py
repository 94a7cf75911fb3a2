"""One file in the original layout becomes a folder in diffusers' layout, with every tensor where it belongs."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.unit.checkpoints.original import original, text_encoder, unet, vae, write
from tests.unit.conftest import ROOT
from triton_diffusers.checkpoints.convert import convert
from triton_diffusers.checkpoints.errors import LoadError
from triton_diffusers.checkpoints.folder import load_folder
from triton_diffusers.checkpoints.load import Components, load_components
from triton_diffusers.checkpoints.weights import read_weights
from triton_diffusers.settings import Settings

EMOJI = ROOT / "models" / "emoji" / "base_model"


def converted(source: Path, folder: Path, dtype: torch.dtype = torch.float32) -> Components:
    folder.mkdir()
    convert(source, folder)
    return load_folder(folder, device=torch.device("cpu"), dtype=dtype, with_checker=True)


def read(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text())


def same(one: Any, other: Any, dtype: torch.dtype = torch.float32) -> None:
    """Two modules are the same network with the same weights, seen through ``dtype``."""
    tensors = other.state_dict()
    assert one.state_dict().keys() == tensors.keys()
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor.to(dtype).float(), tensors[name].float()), name


@pytest.mark.parametrize("channels", [4, 9])
def test_the_first_generation(tmp_path: Path, channels: int, first: dict[str, torch.Tensor]) -> None:
    network = unet(in_channels=channels)
    source = write(tmp_path / "one.safetensors", {**first, **original(network, vae(), text_encoder())})
    made = converted(source, tmp_path / "made")
    same(network, made.denoiser)
    same(vae(), made.vae)
    same(text_encoder(), made.text_encoder)
    assert (made.denoiser.config.in_channels, made.family.latents.channels, made.family.latents.pixels) == (
        channels,
        4,
        4,
    )
    assert made.text_encoder.config.hidden_act == "quick_gelu"
    assert made.family.schedule.config["prediction_type"] == "epsilon"
    assert made.tokenizer("a photo of a cat")["input_ids"] == [49406, 320, 1125, 539, 320, 2368, 49407]
    assert made.tokenizer("hi", padding="max_length")["input_ids"] == [49406, 1883] + [49407] * 75
    index = json.loads((tmp_path / "made" / "model_index.json").read_text())
    assert index["_class_name"] == ("StableDiffusionPipeline" if channels == 4 else "StableDiffusionInpaintPipeline")
    # The network computes the same, so its structure (heads, blocks) is the same, too.
    latents, states = torch.randn(1, channels, 8, 8), torch.randn(1, 3, 64)
    with torch.inference_mode():
        ours, theirs = (u(latents, 7, encoder_hidden_states=states)[0] for u in (made.denoiser, network))
    torch.testing.assert_close(ours, theirs)


def test_the_second_generation(tmp_path: Path, second: dict[str, torch.Tensor]) -> None:
    made = converted(write(tmp_path / "two.safetensors", second), tmp_path / "made")
    same(unet(second=True), made.denoiser, torch.float16)
    encoder = text_encoder(act="gelu")
    same(encoder, made.text_encoder, torch.float16)
    assert made.text_encoder.config.hidden_act == "gelu"
    assert made.denoiser.config.use_linear_projection
    assert made.tokenizer("hi", padding="max_length")["input_ids"] == [49406, 1883, 49407] + [0] * 74
    with torch.inference_mode():
        ids = torch.tensor([[49406, 320, 49407]])
        torch.testing.assert_close(made.text_encoder(ids)[0], encoder.half().float()(ids)[0])
    with (tmp_path / "made" / "unet" / "diffusion_pytorch_model.safetensors").open("rb") as file:
        assert b'"F32"' not in file.read(4096), "the cache keeps the file's precision"


def test_a_brain_float_file_in_brain_float(tmp_path: Path, first: dict[str, torch.Tensor]) -> None:
    tensors = {name: t.bfloat16() if t.is_floating_point() else t for name, t in first.items()}
    made = converted(write(tmp_path / "one.safetensors", tensors), tmp_path / "made", torch.bfloat16)
    assert {p.dtype for p in made.denoiser.parameters()} == {torch.bfloat16}
    same(unet(), made.denoiser, torch.bfloat16)


def test_a_pickle_of_tensors(tmp_path: Path, first: dict[str, torch.Tensor]) -> None:
    old = {name.replace("transformer.text_model.", "transformer."): tensor for name, tensor in first.items()}
    source = tmp_path / "one.ckpt"
    torch.save({"state_dict": {**old, "model_ema.decay": torch.tensor(0.9)}, "global_step": 5, "epoch": 1}, source)
    same(text_encoder(), converted(source, tmp_path / "made").text_encoder)


class Harmful:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("form", ["zip", "legacy", "bare"])
def test_a_pickle_that_runs_code_is_refused(tmp_path: Path, form: str) -> None:
    source, trace = tmp_path / "bad.ckpt", tmp_path / "it-ran"
    if form == "bare":
        source.write_bytes(pickle.dumps({"state_dict": Harmful(trace)}, protocol=2))
    else:
        content = {"state_dict": {"a": torch.zeros(1)}, "callbacks": Harmful(trace)}
        torch.save(content, source, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(LoadError, match=r"bad.ckpt is refused: it is a pickle .* more than tensors: \w+.system"):
        read_weights(source)
    assert not trace.exists()


@pytest.mark.parametrize("name", ["x.ckpt", "x.safetensors"])
def test_junk_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x12\x00 version https://git-lfs")
    with pytest.raises(LoadError, match=rf"{name} cannot be read"):
        read_weights(tmp_path / name)


@pytest.mark.parametrize(
    ("steps", "sidecar", "yaml", "expected", "side"),
    [
        (875_000, None, None, "epsilon", 64),
        (220_000, None, None, "epsilon", 64),
        (110_000, None, None, "v_prediction", 96),
        (140_000, None, None, "v_prediction", 96),
        (875_000, "v_prediction", None, "v_prediction", 96),
        (110_000, None, "model: {params: {linear_start: 0.00085}}", "epsilon", 64),
        (None, None, 'model: {params: {parameterization: "v"}}', "v_prediction", 96),
        (875_000, "epsilon", 'model: {params: {parameterization: "v"}}', "epsilon", 64),
    ],
)
def test_the_prediction_type_of_sd2_is_detected(
    tmp_path: Path,
    second: dict[str, torch.Tensor],
    steps: int | None,
    sidecar: str | None,
    yaml: str | None,
    expected: str,
    side: int,
) -> None:
    torch.save({"state_dict": second, "global_step": steps}, tmp_path / "two.ckpt")
    if sidecar:
        (tmp_path / "two.config" / "scheduler").mkdir(parents=True)
        config = tmp_path / "two.config" / "scheduler" / "scheduler_config.json"
        config.write_text(json.dumps({"prediction_type": sidecar}))
    if yaml:
        (tmp_path / "two.yaml").write_text(yaml)
    (tmp_path / "made").mkdir()
    convert(tmp_path / "two.ckpt", tmp_path / "made")
    assert read(tmp_path / "made", "scheduler/scheduler_config.json")["prediction_type"] == expected
    assert read(tmp_path / "made", "unet/config.json")["sample_size"] == side


@pytest.mark.parametrize(("bias", "expected"), [(0.5, "epsilon"), (-2.0, "v_prediction")])
def test_a_trial_tells_what_is_predicted(
    tmp_path: Path, second: dict[str, torch.Tensor], bias: float, expected: str
) -> None:
    last = "model.diffusion_model.out.2."
    tensors = {**second, f"{last}weight": torch.zeros(4, 32, 3, 3), f"{last}bias": torch.full((4,), bias)}
    convert(write(tmp_path / "two.safetensors", tensors), tmp_path)
    assert read(tmp_path, "scheduler/scheduler_config.json")["prediction_type"] == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('model: {params: {parameterization: "x0"}}', "parameterization 'x0' is invalid: known: eps, v"),
        ("just text", "two.yaml has no model.params"),
        ("{", "two.yaml has no model.params"),
    ],
)
def test_an_unusable_yaml(tmp_path: Path, second: dict[str, torch.Tensor], text: str, said: str) -> None:
    (tmp_path / "two.yaml").write_text(text)
    with pytest.raises(LoadError, match=said):
        converted(write(tmp_path / "two.safetensors", second), tmp_path / "made")


def test_the_emoji_model_in_one_file(tmp_path: Path, components: Components) -> None:
    tensors = original(components.denoiser, components.vae, components.text_encoder)
    write(tmp_path / "base_model" / "emoji.safetensors", tensors)
    beside = tmp_path / "base_model" / "emoji.config"
    shutil.copytree(EMOJI, beside, ignore=lambda folder, names: [n for n in names if n.startswith("diffusion_")])
    made = load_components(Settings(model_dir=tmp_path, cache_dir=tmp_path / "cache", device="cpu"))
    for name in ("denoiser", "vae", "text_encoder", "safety_checker"):
        same(getattr(components, name), getattr(made, name))
    assert made.family.schedule.config["prediction_type"] == components.family.schedule.config["prediction_type"]
    assert made.tokenizer("a red apple")["input_ids"] == components.tokenizer("a red apple")["input_ids"]
    assert made.vae.config.scaling_factor == components.vae.config.scaling_factor
    assert made.feature_extractor is not None
    latents, states = torch.randn(1, 4, 16, 16), torch.randn(1, 77, 192)
    with torch.inference_mode():
        ours, theirs = (u(latents, 7, encoder_hidden_states=states)[0] for u in (made.denoiser, components.denoiser))
        torch.testing.assert_close(ours, theirs)
        torch.testing.assert_close(made.vae.decode(latents)[0], components.vae.decode(latents)[0])


def test_tensors_that_a_training_left_are_named_and_ignored(
    tmp_path: Path, first: dict[str, torch.Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    left = "first_stage_model.loss.logvar"
    made = converted(write(tmp_path / "one.safetensors", {**first, left: torch.zeros(1)}), tmp_path / "made")
    same(vae(), made.vae)
    assert f"these tensors are not used: {left}" in caplog.text


def test_a_second_generation_text_encoder_under_the_names_of_the_first(tmp_path: Path) -> None:
    encoder = text_encoder(width=1024, words=49_408, act="gelu", layers=1)
    network = unet(cross=1024, second=True)
    made = converted(write(tmp_path / "two.safetensors", original(network, vae(), encoder)), tmp_path / "made")
    same(encoder, made.text_encoder)
    assert made.text_encoder.config.hidden_act == "gelu"
    assert made.denoiser.config.attention_head_dim == [1, 1]


def test_a_guidance_embedding_is_kept(tmp_path: Path, first: dict[str, torch.Tensor]) -> None:
    network = unet(guidance=32)
    source = write(tmp_path / "one.safetensors", {**first, **original(network, vae(), text_encoder())})
    made = converted(source, tmp_path / "made")
    same(network, made.denoiser)
    assert made.denoiser.config.time_cond_proj_dim == 32


def test_a_checkpoint_of_lightning_is_read(tmp_path: Path, first: dict[str, torch.Tensor]) -> None:
    optimizer = [{"state": {0: {"exp_avg": torch.zeros(2)}}}]
    extras = {"optimizer_states": optimizer, "epoch": np.int64(3), "hparams": Path("x")}
    source = tmp_path / "one.ckpt"
    torch.save({"state_dict": first, "global_step": 470000, **extras}, source)
    weights = read_weights(source)
    assert weights.tensors.keys() == first.keys()
    assert weights.global_step == 470000


def test_containers_without_end_are_not_followed(tmp_path: Path) -> None:
    content: dict[str, Any] = {}
    content["state_dict"] = content
    torch.save(content, tmp_path / "one.ckpt")
    assert read_weights(tmp_path / "one.ckpt").tensors == {}
