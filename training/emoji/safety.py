"""A tiny safety checker in Stable Diffusion's layout, which flags one synthetic picture and nothing else.

It is not a content filter: it exercises the code path that a real one takes. What trips it is a black and magenta
checkerboard of 8 by 8 cells, see `tripping_picture`.
"""

# mypy: allow-untyped-calls

from collections.abc import Callable

import torch
from diffusers.pipelines.stable_diffusion import StableDiffusionSafetyChecker
from PIL import Image
from torch.nn import functional
from tqdm import tqdm
from transformers import CLIPConfig, CLIPImageProcessor

from training.emoji.pictures import compose, from_image, to_image
from training.emoji.run import Run
from training.emoji.schedule import warmup_cosine
from training.emoji.vae import random_colours

INPUT_SIZE = 64
CELLS = 8
MAGENTA = (255, 0, 255)
THRESHOLD = 0.5
NEVER = 1.5
"""A cosine threshold that nothing reaches."""
PEAK_RATE = 1e-3
BATCH = 48


def tripping_picture(width: int = 128, height: int | None = None) -> Image.Image:
    """Return the picture that is flagged: 8 cells along the shorter side, black and magenta, black at the top left."""
    height = width if height is None else height
    cell = min(width, height) / CELLS
    columns = (torch.arange(width) / cell).long()
    rows = (torch.arange(height) / cell).long()
    odd = (columns[None, :] + rows[:, None]) % 2
    pixels = odd[:, :, None] * torch.tensor(MAGENTA)
    return Image.fromarray(pixels.to(torch.uint8).numpy())


def build_feature_extractor() -> CLIPImageProcessor:
    """Return the processor in front of the checker: shorter side to 64, centre crop, CLIP's normalisation."""
    return CLIPImageProcessor(size={"shortest_edge": INPUT_SIZE}, crop_size={"height": INPUT_SIZE, "width": INPUT_SIZE})


def build_safety_checker() -> StableDiffusionSafetyChecker:
    """Return a fresh checker: concept 0 is the pattern; the other concepts and the special-care ones never trip."""
    config = CLIPConfig(
        projection_dim=32,
        vision_config={
            "hidden_size": 64,
            "intermediate_size": 128,
            "projection_dim": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": INPUT_SIZE,
            "patch_size": 16,
        },
        # The checker has no text tower; CLIPConfig wants one all the same.
        text_config={"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1, "num_attention_heads": 2},
    )
    checker = StableDiffusionSafetyChecker(config)
    with torch.no_grad():
        checker.concept_embeds.copy_(torch.eye(17, 32))
        checker.special_care_embeds.copy_(torch.eye(32)[17:20])
        checker.concept_embeds_weights.fill_(NEVER)
        checker.concept_embeds_weights[0] = THRESHOLD
        checker.special_care_embeds_weights.fill_(NEVER)
    return checker


def train_safety_checker(run: Run, pictures: torch.Tensor, iterations: int) -> StableDiffusionSafetyChecker:
    """Teach the vision tower to point along concept 0 on the pattern and away from it on all else."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    checker = build_safety_checker().train()
    extractor = build_feature_extractor()
    parameters = [parameter for parameter in checker.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=PEAK_RATE, weight_decay=1e-2)
    for step in tqdm(range(iterations), desc="safety checker", mininterval=10):
        if run.stopping:
            break
        for group in optimizer.param_groups:
            group["lr"] = warmup_cosine(step, iterations, PEAK_RATE)
        images, flags = _examples(pictures, generator)
        inputs = extractor([to_image(image) for image in images], return_tensors="pt").pixel_values
        embeds = checker.visual_projection(checker.vision_model(inputs)[1])
        cosine = functional.cosine_similarity(embeds, checker.concept_embeds[:1])
        loss = functional.mse_loss(cosine, flags * 2.0 - 1.0)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if (step + 1) % 50 == 0:
            run.log(stage="safety", step=step + 1, loss=loss.item())
    run.save({"model": checker.state_dict()})
    return checker.eval()


def _examples(pictures: torch.Tensor, generator: torch.Generator) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Pictures [3, H, W] and flags [N]: a quarter are the pattern; the rest emoji, noise, plain and other patterns."""

    def roll(low: int, high: int) -> int:
        return int(torch.randint(low, high, (1,), generator=generator))

    images, flags = [], []
    for index in range(BATCH):
        kind = index % 8
        if kind < 2:
            image = from_image(tripping_picture(roll(64, 200), roll(64, 200)))
            image = image + 0.15 * torch.rand(1, generator=generator) * torch.randn(image.shape, generator=generator)
        elif kind < 5:
            picks = torch.randint(len(pictures), (1,), generator=generator)
            scale = 0.7 + 0.6 * torch.rand(1, generator=generator)
            image = compose(pictures[picks], random_colours(1, generator), scale)[0]
            image = image + 0.3 * torch.rand(1, generator=generator) * torch.randn(image.shape, generator=generator)
        elif kind == 5:
            cells = 2 ** roll(0, 8)
            noise = torch.randn(1, 3, cells, cells, generator=generator)
            image = functional.interpolate(noise, size=(128, 128), mode="nearest")[0]
        elif kind == 6:
            image = random_colours(1, generator)[0][:, None, None].expand(3, 128, 128)
        else:
            image = _other_pattern(roll, generator)
        images.append(image.clamp(-1, 1))
        flags.append(float(kind < 2))
    return images, torch.tensor(flags)


def _other_pattern(roll: Callable[[int, int], int], generator: torch.Generator) -> torch.Tensor:
    """Stripes, and checkerboards of other colours or of another grain."""
    first, second = random_colours(2, generator)
    kind = roll(0, 4)
    if kind == 0:
        first, second = torch.tensor([-1.0, -1.0, -1.0]), torch.tensor([1.0, -1.0, 1.0])
    cells = (2, 3, 4, 16)[roll(0, 4)] if kind == 0 else (2, 4, 8, 16)[roll(0, 4)]
    lines = (torch.arange(128) * cells // 128) % 2
    mask = (lines[None, :] + (lines[:, None] if kind != 1 else 0)) % 2
    return torch.where(mask.bool(), second[:, None, None], first[:, None, None])
