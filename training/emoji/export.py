"""Writes the pipeline in diffusers' Stable Diffusion layout, fp16 safetensors."""

import copy
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
from transformers import CLIPTextModel, CLIPTokenizer

from training.emoji.noise import sampling_schedule
from training.emoji.safety import build_feature_extractor

EXPORT_FOLDER = Path("models/emoji/base_model")


def export_pipeline(
    folder: Path,
    vae: AutoencoderKL,
    text_encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    unet: UNet2DConditionModel,
    safety_checker: StableDiffusionSafetyChecker,
) -> None:
    """Write all parts to `folder`, replacing what is there in one step; the given modules stay as they are."""
    vae, text_encoder, unet, safety_checker = (
        copy.deepcopy(module).half().to(memory_format=torch.contiguous_format)
        for module in (vae, text_encoder, unet, safety_checker)
    )
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=sampling_schedule(),
        safety_checker=safety_checker,
        feature_extractor=build_feature_extractor(),
    )
    part = folder.with_name(folder.name + ".part")
    old = folder.with_name(folder.name + ".old")
    for leftover in (part, old):
        shutil.rmtree(leftover, ignore_errors=True)
    pipeline.save_pretrained(part, safe_serialization=True)
    _write_clip_vocabulary(tokenizer, part / "tokenizer")
    for file in (part / "model_index.json", part / "feature_extractor" / "preprocessor_config.json"):
        # Without torchvision transformers writes the name of its Pillow back end, which older releases do not know.
        file.write_text(file.read_text().replace("CLIPImageProcessorPil", "CLIPImageProcessor"))
    for weights in part.rglob("*.safetensors"):
        weights.chmod(0o644)  # safetensors writes files that only their owner may read
    if folder.exists():
        folder.rename(old)
    part.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _write_clip_vocabulary(tokenizer: CLIPTokenizer, folder: Path) -> None:
    """`vocab.json` and `merges.txt`, which every release of transformers reads, instead of `tokenizer.json`."""
    tokenizer.backend_tokenizer.model.save(str(folder))
    (folder / "tokenizer.json").unlink(missing_ok=True)
