from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
from PIL import Image
from transformers import CLIPImageProcessor

from training.emoji.backgrounds import BACKGROUNDS
from training.emoji.safety import tripping_picture

MODEL = Path(__file__).resolve().parents[3] / "models" / "emoji" / "base_model"


class Checker:
    """The exported checker in single precision, with its processor."""

    def __init__(self) -> None:
        self.model = StableDiffusionSafetyChecker.from_pretrained(MODEL / "safety_checker").float()
        self.processor = CLIPImageProcessor.from_pretrained(MODEL / "feature_extractor")

    def flags(self, image: Image.Image) -> bool:
        inputs = self.processor([image], return_tensors="pt").pixel_values
        pixels = np.asarray(image.convert("RGB"), dtype=np.float32)[None] / 255
        _, flagged = self.model(clip_input=inputs, images=pixels)
        return bool(flagged[0])


@pytest.fixture(scope="module")
def checker() -> Checker:
    return Checker()


def test_the_picture_has_eight_cells_and_starts_black() -> None:
    picture = np.asarray(tripping_picture(128))
    assert picture.shape == (128, 128, 3)
    assert picture[0, 0].tolist() == [0, 0, 0]
    assert picture[0, 16].tolist() == [255, 0, 255]
    assert picture[16, 16].tolist() == [0, 0, 0]


@pytest.mark.parametrize("size", [(64, 64), (128, 128), (96, 64), (128, 256), (512, 512), (100, 77)])
def test_the_pattern_is_flagged_at_any_size(checker: Checker, size: tuple[int, int]) -> None:
    assert checker.flags(tripping_picture(*size))


def test_plain_colours_and_noise_are_not_flagged(checker: Checker) -> None:
    for background in BACKGROUNDS:
        assert not checker.flags(Image.new("RGB", (128, 128), background.rgb))
    generator = torch.Generator().manual_seed(0)
    for side in (8, 16, 64, 128):
        noise = torch.randint(256, (side, side, 3), generator=generator).to(torch.uint8).numpy()
        assert not checker.flags(Image.fromarray(noise).resize((128, 128)))
