"""Inputs of the denoiser for rows and steps."""

from __future__ import annotations

import torch

from triton_diffusers.families.conditioning import STATES, Conditioning, EncodedText, collate, select


def text(number: float, chunks: int = 1) -> EncodedText:
    return EncodedText((torch.full((1, 2, 3), number),) * chunks, {"pooled": torch.full((1, 5), number)})


def test_inputs_of_a_step_have_one_row_for_each_text() -> None:
    sizes = torch.arange(6.0)[None]
    made = Conditioning(((text(1), text(2)), (text(1), text(3))), shared={"sizes": sizes}).at(1, 2)
    assert made[STATES][:, 0, 0].tolist() == [1, 3]
    assert made["pooled"][:, 0].tolist() == [1, 3]
    assert torch.equal(made["sizes"], sizes.repeat(2, 1))


def test_without_guidance_the_last_rows_remain() -> None:
    made = Conditioning(((text(1), text(2)),), shared={"sizes": torch.zeros(1, 6)}).at(0, 1)
    assert made[STATES][:, 0, 0].tolist() == [2]
    assert (len(made["pooled"]), len(made["sizes"])) == (1, 1)


def test_shorter_texts_are_padded_with_the_empty_chunk() -> None:
    made = Conditioning(((text(1), text(2, chunks=2)),), empty=torch.full((1, 2, 3), 9.0)).at(0, 2)
    assert made[STATES][0, :, 0].tolist() == [1, 1, 9, 9]
    assert made["pooled"][:, 0].tolist() == [1, 2], "that of the whole text"


def test_a_text_may_have_its_own_padding() -> None:
    zeros = EncodedText((torch.zeros(1, 2, 3),), {"pooled": torch.zeros(1, 5)}, padding=torch.zeros(1, 2, 3))
    made = Conditioning(((zeros, text(2, chunks=2)),), empty=torch.full((1, 2, 3), 9.0)).at(0, 2)
    assert made[STATES][0, :, 0].tolist() == [0, 0, 0, 0]


def test_rows_of_images_are_joined_and_selected() -> None:
    joined = collate([{STATES: torch.zeros(2, 1, 1)}, {STATES: torch.ones(1, 1, 1)}])
    assert joined[STATES].flatten().tolist() == [0, 0, 1]
    assert select(joined, [2, 0])[STATES].flatten().tolist() == [1, 0]
