"""Folders in the diffusers layout as they are published: variants, shards, pickles, other pipelines, no checker."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.unit.checkpoints.original import text_encoder, unet, vae
from triton_diffusers.checkpoints.errors import LoadError
from triton_diffusers.checkpoints.folder import Components, load_folder
from triton_diffusers.checkpoints.vocabulary import write_tokenizer

INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "safety_checker": [None, None],
    "feature_extractor": [None, None],
}


def load(folder: Path, dtype: torch.dtype = torch.float32) -> Components:
    return load_folder(folder, device=torch.device("cpu"), dtype=dtype, with_checker=True)


def write_folder(folder: Path, **saving: Any) -> None:
    unet().save_pretrained(folder / "unet", **saving)
    vae().save_pretrained(folder / "vae", **saving)
    text_encoder().save_pretrained(
        folder / "text_encoder", **{k: v for k, v in saving.items() if k != "safe_serialization"}
    )
    write_tokenizer(folder / "tokenizer", pad_token="!", length=77)
    scheduler = {"_class_name": "DDIMScheduler", "steps_offset": 0, "clip_sample": True}
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler))


@pytest.fixture(scope="session")
def plain_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model folder to copy from; making a vocabulary of usual size takes a second."""
    folder = tmp_path_factory.mktemp("plain")
    write_folder(folder)
    return folder


@pytest.fixture
def make(tmp_path: Path, plain_folder: Path) -> Callable[..., Path]:
    """Return a function that writes a model folder; keywords are those of ``save_pretrained``."""

    def make(network: Any = None, index: dict[str, Any] | None = None, **saving: Any) -> Path:
        if saving:
            write_folder(tmp_path, **saving)
        else:
            shutil.copytree(plain_folder, tmp_path, dirs_exist_ok=True)
        if network:
            network.save_pretrained(tmp_path / "unet", **saving)
        (tmp_path / "model_index.json").write_text(json.dumps({**INDEX, **(index or {})}))
        return tmp_path

    return make


def same(one: Any, other: Any) -> None:
    ours, theirs = one.state_dict(), other.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_plain_and_without_a_checker(
    make: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        made = load(make())
    same(unet(), made.denoiser)
    assert made.safety_checker is made.feature_extractor is None
    assert [record.message for record in caplog.records if "not checked" in record.message] == [
        f"{tmp_path} has no safety_checker: images are not checked"
    ]
    config = made.family.schedule.config
    assert (config["steps_offset"], config["clip_sample"]) == (1, False)


@pytest.mark.parametrize("variant", ["fp16", "bf16", "non_ema"])
def test_a_variant_alone(make: Callable[..., Path], variant: str) -> None:
    same(unet(), load(make(variant=variant)).denoiser)


def test_the_plain_files_before_a_variant(make: Callable[..., Path]) -> None:
    folder = make()
    unet(second=True)  # another seed's worth of numbers
    other = unet()
    for parameter in other.parameters():
        parameter.data.zero_()
    other.save_pretrained(folder / "unet", variant="fp16")
    same(unet(), load(folder).denoiser)
    same(other.half(), load(folder, torch.float16).denoiser)


def test_shards(make: Callable[..., Path]) -> None:
    folder = make(max_shard_size="1MB")
    assert len(list((folder / "unet").glob("*.safetensors"))) > 1
    same(unet(), load(folder).denoiser)


def test_shards_of_a_variant(make: Callable[..., Path]) -> None:
    folder = make(max_shard_size="1MB", variant="fp16")
    assert len(list((folder / "unet").glob("*.safetensors"))) > 1
    made = load(folder)
    same(unet(), made.denoiser)
    same(text_encoder(), made.text_encoder)


def test_pickles(make: Callable[..., Path]) -> None:
    folder = make(safe_serialization=False)
    (folder / "text_encoder" / "model.safetensors").unlink()
    torch.save(text_encoder().state_dict(), folder / "text_encoder" / "pytorch_model.bin")
    made = load(folder)
    same(unet(), made.denoiser)
    same(text_encoder(), made.text_encoder)


class Harmful:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("component", ["unet", "text_encoder"])
def test_a_pickle_that_runs_code_is_refused(make: Callable[..., Path], component: str, tmp_path: Path) -> None:
    folder = make()
    for path in (folder / component).glob("*.safetensors"):
        path.unlink()
    name = "pytorch_model.bin" if component == "text_encoder" else "diffusion_pytorch_model.bin"
    torch.save({"x": Harmful(tmp_path / "it-ran")}, folder / component / name)
    with pytest.raises(LoadError, match=f"{component} cannot be loaded"):
        load(folder)
    assert not (tmp_path / "it-ran").exists()


@pytest.mark.parametrize(
    "name", ["StableDiffusionInpaintPipeline", "StableDiffusionImg2ImgPipeline", "SomebodysPipeline"]
)
def test_other_pipelines_of_the_same_components(make: Callable[..., Path], name: str) -> None:
    made = load(make(unet(in_channels=9), index={"_class_name": name}))
    assert (made.denoiser.config.in_channels, made.family.latents.channels) == (9, 4)


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("StableDiffusion3Pipeline", "SD3"),
        ("FluxPipeline", "Flux"),
        ("StableDiffusionInstructPix2PixPipeline", "InstructPix2Pix"),
        ("StableDiffusionDepth2ImgPipeline", "Stable Diffusion 2 depth"),
        ("StableDiffusionUpscalePipeline", "Stable Diffusion upscaler"),
        ("StableDiffusionLatentUpscalePipeline", "Stable Diffusion latent upscaler"),
        ("StableUnCLIPImg2ImgPipeline", "Stable unCLIP"),
        ("UnCLIPPipeline", "unCLIP"),
        ("KandinskyV22Pipeline", "Kandinsky"),
        ("PixArtSigmaPipeline", "PixArt"),
        ("KolorsPipeline", "Kolors"),
    ],
)
def test_unsupported_families_are_refused(tmp_path: Path, name: str, family: str) -> None:
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": name}))
    with pytest.raises(LoadError, match=f"not supported yet: {family}"):
        load(tmp_path)


@pytest.mark.filterwarnings("ignore")  # the libraries complain as they like about a broken file
def test_a_missing_tensor_is_named_and_not_random(make: Callable[..., Path]) -> None:
    folder = make()
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    from safetensors.torch import load_file, save_file

    tensors = load_file(path)
    del tensors["mid_block.resnets.0.conv1.weight"]
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(LoadError, match=r"unet is incomplete: it has no tensor mid_block.resnets.0.conv1.weight"):
        load(folder)


@pytest.mark.parametrize("component", ["unet", "vae", "text_encoder", "tokenizer", "scheduler"])
def test_a_missing_folder_is_named(make: Callable[..., Path], component: str) -> None:
    folder = make()
    shutil.rmtree(folder / component)
    with pytest.raises(LoadError, match=rf"{component}( has no weights|/)"):
        load(folder)


@pytest.mark.parametrize(
    ("component", "value"),
    [
        ("unet", ["diffusers", "AutoencoderKL"]),
        ("tokenizer", ["transformers", "pipeline"]),
        ("text_encoder", ["os", "system"]),
        ("scheduler", ["diffusers", "NoSuchScheduler"]),
        ("vae", None),
    ],
)
def test_a_class_of_another_kind_is_refused(make: Callable[..., Path], component: str, value: Any) -> None:
    with pytest.raises(LoadError, match=component):
        load(make(index={component: value}))


@pytest.mark.parametrize(("version", "side"), [("0.6.0", 64), ("0.30.1", 32)])
def test_the_size_in_early_configs(make: Callable[..., Path], version: str, side: int) -> None:
    folder = make()
    config = folder / "unet" / "config.json"
    content = json.loads(config.read_text())
    config.write_text(json.dumps({**content, "_diffusers_version": version, "sample_size": 32}))
    assert load(folder).denoiser.config.sample_size == side


@pytest.mark.parametrize(
    ("component", "key", "value", "named"),
    [
        ("text_encoder", "num_hidden_layers", 1, r"encoder.layers.1.layer_norm1.bias"),
        ("unet", "time_cond_proj_dim", None, "time_embedding.cond_proj.weight"),
        ("vae", "layers_per_block", 0, "decoder.up_blocks.0.resnets.1"),
    ],
)
def test_a_config_of_fewer_layers_is_refused(
    make: Callable[..., Path], component: str, key: str, value: Any, named: str
) -> None:
    folder = make(unet(guidance=32))
    path = folder / component / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(LoadError, match=rf"{component}: config.json is invalid: its network has no .*{named}"):
        load(folder)


def test_buffers_and_other_towers_in_a_text_encoder_do_no_harm(make: Callable[..., Path]) -> None:
    folder = make()
    file = folder / "text_encoder" / "model.safetensors"
    more = ("text_model.embeddings.position_ids", "text_projection.weight", "vision_model.encoder.layers.0.x.weight")
    save_file({**load_file(file), **{name: torch.zeros(1) for name in more}}, file, {"format": "pt"})
    same(load(folder).text_encoder, text_encoder())


def with_config(folder: Path, component: str, file: str = "config.json", **changes: Any) -> Path:
    """Change keys of one of the folder's configs and return the folder."""
    path = folder / component / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return folder


@pytest.mark.parametrize(
    ("channels", "said"),
    [
        (5, "unet: not supported yet: Stable Diffusion 2 depth"),
        (7, "unet: not supported yet: Stable Diffusion upscaler"),
        (8, "unet: not supported yet: InstructPix2Pix"),
        (12, "unet: in_channels is 12: unsupported, expected 4, or 9 for inpainting"),
    ],
)
def test_a_unet_of_other_channels_is_refused_under_any_class(
    make: Callable[..., Path], channels: int, said: str
) -> None:
    with pytest.raises(LoadError, match=said):
        load(make(unet(in_channels=channels)))


@pytest.mark.parametrize(
    ("component", "changes", "said"),
    [
        ("vae", {"latent_channels": 16}, "unet: out_channels is 4: unsupported, expected 16, the latent channels"),
        ("vae", {"in_channels": 4, "out_channels": 4}, "vae: in_channels and out_channels are 4 and 4: unsupported"),
        ("unet", {"cross_attention_dim": 128}, "text_encoder: hidden_size is 64: unsupported, expected 128, the cross"),
        ("unet", {"addition_embed_type": "text_time", "addition_time_embed_dim": 8,
                  "projection_class_embeddings_input_dim": 8}, "unet: addition_embed_type is 'text_time': not supp"),
        ("unet", {"num_class_embeds": 1000}, "unet: num_class_embeds is 1000: not supported yet: the inputs of upsc"),
        ("text_encoder", {"vocab_size": 100}, "text_encoder: vocab_size is 100: unsupported, expected 49408 or more"),
        ("vae", {"latent_channels": "many"}, "vae cannot be loaded"),
    ],
)  # fmt: skip
def test_parts_of_different_models_are_refused_before_weights_are_read(
    make: Callable[..., Path], component: str, changes: dict[str, Any], said: str
) -> None:
    folder = with_config(make(), component, **changes)
    for weights in folder.rglob("*.safetensors"):
        weights.write_bytes(b"never read")
    with pytest.raises(LoadError, match=said):
        load(folder)


@pytest.mark.parametrize(
    ("index", "config", "said"),
    [
        ({"scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"]}, {}, "flow matching"),
        ({}, {"prediction_type": "flow_prediction"}, "flow matching"),
        ({}, {"prediction_type": "score"}, "prediction_type is 'score': unsupported, expected epsilon, v_prediction"),
    ],
)
def test_schedulers_of_other_models_are_refused(
    make: Callable[..., Path], index: dict[str, Any], config: dict[str, Any], said: str
) -> None:
    folder = make(index=index)
    name = index["scheduler"][1] if index else "DDIMScheduler"
    with_config(folder, "scheduler", "scheduler_config.json", _class_name=name, **config)
    with pytest.raises(LoadError, match=said):
        load(folder)


@pytest.mark.parametrize("component", ["unet", "vae", "text_encoder"])
def test_weights_that_are_not_finite_are_named(make: Callable[..., Path], component: str) -> None:
    from safetensors.torch import load_file, save_file

    folder = make()
    (path,) = (folder / component).glob("*.safetensors")
    tensors = load_file(path)
    name = sorted(tensors)[-1]
    tensors[name].view(-1)[-1] = torch.nan
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(LoadError, match=rf"{component}: .*{name.split('.')[-2]}.* holds NaN or infinite values"):
        load(folder)


def test_a_tokenizer_without_a_limit_gets_that_of_its_text_encoder(make: Callable[..., Path]) -> None:
    folder = make()
    config = folder / "tokenizer" / "tokenizer_config.json"
    content = json.loads(config.read_text())
    del content["model_max_length"]
    config.write_text(json.dumps(content))
    assert load(folder).tokenizer.model_max_length == 77
