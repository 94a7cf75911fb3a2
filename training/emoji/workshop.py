"""Shared state of the training stages: paths, and the modules as far as they are trained."""

# mypy: no-warn-return-any

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
from transformers import CLIPTextModel, CLIPTokenizer

from training.emoji.assets import Assets
from training.emoji.backgrounds import BACKGROUNDS
from training.emoji.captions import Captioner, stray_words
from training.emoji.export import export_pipeline
from training.emoji.latents import LatentCache, build_cache, measure_scaling_factor
from training.emoji.lora_styles import BLACK, IconSet, Style, style_pictures
from training.emoji.pictures import load_pictures
from training.emoji.run import load_checkpoint
from training.emoji.safety import build_safety_checker
from training.emoji.subjects import Subject, load_subjects
from training.emoji.text_encoder import build_text_encoder
from training.emoji.tokenizer import train_tokenizer
from training.emoji.unet import build_unet
from training.emoji.vae import build_vae

CAPTIONS_PER_SUBJECT = 150
WORKERS = 2
"""Processes that encode, train the UNet, the decoder and the LoRAs, and evaluate, one thread each."""


@dataclass(frozen=True)
class Iterations:
    """How long each stage trains, in batches."""

    vae: int
    text: int
    unet: int
    decoder: int
    safety: int


@dataclass(frozen=True)
class Workshop:
    """Where things are, and the modules as far as they are trained."""

    cache: Path
    run_dir: Path
    output: Path
    iterations: Iterations
    export_every: int
    guidance: float

    @property
    def assets(self) -> Assets:
        return Assets(self.cache)

    @property
    def exported(self) -> Path:
        """The folder of the exported pipeline."""
        return self.output / "base_model"

    @cached_property
    def subjects(self) -> tuple[Subject, ...]:
        return load_subjects()

    @cached_property
    def pictures(self) -> torch.Tensor:
        """The subjects' pictures, uint8 [N, 4, 128, 128]."""
        return load_pictures([self.assets.picture_path(subject.hexcode) for subject in self.subjects])

    def style_pictures(self, style: Style, ink: str = BLACK) -> torch.Tensor:
        """Return the subjects in another style, uint8 [N, 4, 128, 128]."""
        return style_pictures(IconSet(self.assets.icons_folder(style.name)), self.subjects, ink)

    def latents(self, vae: AutoencoderKL) -> LatentCache:
        """Return the subjects' latents, encoded once for each run."""
        return build_cache(vae, self.pictures, self.run_dir / "latents.pt", WORKERS)

    def captioner(self, seed: int) -> Captioner:
        return Captioner(seed, stray_words(self.assets.tags(), self.subjects, BACKGROUNDS))

    def tokenizer(self) -> CLIPTokenizer:
        """Return the tokenizer of this run, trained on first use."""
        folder = self.run_dir / "tokenizer"
        if not folder.is_dir():
            captioner = self.captioner(0)
            captions = [
                captioner.caption(subject, BACKGROUNDS[index % len(BACKGROUNDS)])
                for subject in self.subjects
                for index in range(CAPTIONS_PER_SUBJECT)
            ]
            train_tokenizer(captions).save_pretrained(folder)
        return CLIPTokenizer.from_pretrained(folder)

    def vae(self) -> AutoencoderKL:
        """Return the autoencoder, with the fine-tuned decoder if there is one, and its scaling factor."""
        vae = build_vae()
        state = load_checkpoint(self.run_dir, "decoder") or load_checkpoint(self.run_dir, "vae")
        if state:
            vae.load_state_dict(state["model"])
            vae.register_to_config(scaling_factor=self._scaling_factor(vae))
        return vae.eval()

    def _scaling_factor(self, vae: AutoencoderKL) -> float:
        """Measured once: the encoder never changes after its stage."""
        path = self.run_dir / "vae" / "scaling_factor.json"
        if not path.is_file():
            path.write_text(json.dumps(round(measure_scaling_factor(vae, self.pictures), 5)))
        return json.loads(path.read_text())

    def text_encoder(self) -> CLIPTextModel:
        encoder = build_text_encoder(self.tokenizer())
        if state := load_checkpoint(self.run_dir, "text"):
            encoder.load_state_dict(state["model"])
        return encoder.eval()

    def unet(self) -> UNet2DConditionModel:
        """Return the averaged UNet."""
        unet = build_unet()
        if state := load_checkpoint(self.run_dir, "unet"):
            with torch.no_grad():
                for target, source in zip(unet.parameters(), state["ema"], strict=True):
                    target.copy_(source)
        return unet.eval()

    def safety_checker(self) -> StableDiffusionSafetyChecker:
        checker = build_safety_checker()
        if state := load_checkpoint(self.run_dir, "safety"):
            checker.load_state_dict(state["model"])
        return checker.eval()

    def export(self, unet: UNet2DConditionModel | None = None) -> None:
        """Write the pipeline as far as it is trained; `unet` stands in for the checkpoint's."""
        export_pipeline(
            self.exported,
            self.vae(),
            self.text_encoder(),
            self.tokenizer(),
            self.unet() if unet is None else unet,
            self.safety_checker(),
        )
