from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from training.emoji.backgrounds import WHITE, unit_rgb
from training.emoji.pictures import PICTURE_SIZE, compose
from training.translator import retrieval as module
from training.translator.retrieval import retrieval

EMBEDDED = Path(__file__).resolve().parents[4] / "models" / "translator"
NAMES = ["红苹果", "香蕉", "狐狸"]


@pytest.mark.parametrize(("turned", "top1"), [(False, 1.0), (True, 0.3333)])
def test_figures_are_of_what_is_drawn_from_the_translations(
    monkeypatch: pytest.MonkeyPatch, turned: bool, top1: float
) -> None:
    pictures = torch.zeros(3, 4, PICTURE_SIZE, PICTURE_SIZE, dtype=torch.uint8)
    for index, picture in enumerate(pictures):
        picture[[index, 3], 30:100, 30:100] = 255
    asked: list[str] = []

    def generate_all(folder: Path, prompts: Sequence[str], *_: Any) -> torch.Tensor:
        asked.extend(prompts)
        drawn = compose(pictures, unit_rgb(WHITE).expand(3, 3))
        return drawn.flip(0) if turned else drawn

    monkeypatch.setattr(module, "generate_all", generate_all)
    found = retrieval(EMBEDDED, Path("base_model"), NAMES, pictures, 1)
    assert asked[0] == "a red apple on a white background"
    assert [prompt.endswith(" on a white background") for prompt in asked] == [True] * 3
    assert (found["subjects"], found["top1"], found["top5"]) == (3, top1, 1.0)
    assert found["missed"] == (
        [f"{name} -> {asked[index]}" for index, name in enumerate(NAMES) if index != 1] if turned else []
    )
