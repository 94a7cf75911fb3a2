"""PSNR of images, against values computed by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from triton_diffusers.compile.report import compare, psnr_of


def grey(value: int, size: tuple[int, int] = (8, 4)) -> Image.Image:
    return Image.new("RGB", size, (value, value, value))


def test_psnr_has_known_values() -> None:
    assert psnr_of(grey(100), grey(100)) == 100.0
    assert psnr_of(grey(100), grey(101)) == pytest.approx(48.13, abs=0.01)  # 20 log10(255)
    assert psnr_of(grey(0), grey(255)) == 0.0
    assert psnr_of(grey(0), grey(0, (4, 8))) == 0.0
    pixels = np.zeros((4, 8, 3), np.uint8)
    pixels[0, 0, 0] = 255
    assert psnr_of(grey(0), Image.fromarray(pixels)) == pytest.approx(10 * np.log10(96))


def test_the_worst_image_of_a_probe_counts(tmp_path: Path) -> None:
    for folder, values in (("one", (10, 20, 30)), ("other", (10, 21, 40))):
        (tmp_path / folder).mkdir()
        for number, value in enumerate(values):
            grey(value).save(tmp_path / folder / f"{number}.png")
    found = compare(tmp_path / "one", tmp_path / "other", {"same": ["0.png"], "pair": ["0.png", "1.png", "2.png"]})
    assert found == {"same": 100.0, "pair": pytest.approx(28.13, abs=0.01)}
