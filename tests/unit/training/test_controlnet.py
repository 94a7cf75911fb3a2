from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from safetensors import safe_open

from training.emoji import controlnet as module
from training.emoji.controlnet import (
    EMBEDDED_SPREAD,
    ControlObjective,
    build_controlnet,
    train_controlnet,
    wake_embedding,
    write_controlnet,
)
from training.emoji.controls import Control, colour_blocks
from training.emoji.run import Run
from training.emoji.unet import build_unet
from training.emoji.views import ViewCache, draw_views

BUDGET_BYTES = 14_000_000
LATENT_SIDE = 4
SIDE = 8 * LATENT_SIDE


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH", 2)


def tiny_unet() -> UNet2DConditionModel:
    """Return the emoji UNet's kinds of blocks, narrow; always the same weights."""
    torch.manual_seed(1)
    return UNet2DConditionModel(
        sample_size=LATENT_SIDE,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=(2, 2),
        cross_attention_dim=12,
        norm_num_groups=4,
    ).eval()


@pytest.fixture
def pictures() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(256, (3, 4, SIDE, SIDE), generator=generator).to(torch.uint8)
    drawn[:, 3] = 255
    return drawn


@pytest.fixture
def cache() -> ViewCache:
    generator = torch.Generator().manual_seed(0)
    views = draw_views([0, 1, 2], 4, seed=0)
    latents = torch.randn(len(views), 4, LATENT_SIDE, LATENT_SIDE, generator=generator).half()
    states = torch.randn(len(views), 5, 12, generator=generator).half()
    return ViewCache(views, latents, states, torch.zeros(1, 5, 12).half())


BLOCKS = Control("blocks", colour_blocks, PurePosixPath("controlnet"), iterations=4)


@torch.no_grad()
def predict(unet: UNet2DConditionModel, controlnet: ControlNetModel | None, painted: torch.Tensor) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    latents = torch.randn(2, 4, LATENT_SIDE, LATENT_SIDE, generator=generator)
    states = torch.randn(2, 5, 12, generator=generator)
    timesteps = torch.tensor([10, 900])
    residuals: dict[str, Any] = {}
    if controlnet is not None:
        down, middle = controlnet(latents, timesteps, states, painted, return_dict=False)
        residuals = {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
    prediction: torch.Tensor = unet(latents, timesteps, states, **residuals).sample
    return prediction


@torch.no_grad()
def test_a_fresh_controlnet_changes_nothing_though_its_embedding_is_awake() -> None:
    unet = tiny_unet()
    controlnet = build_controlnet(unet).eval()
    painted = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(3))
    assert controlnet.controlnet_cond_embedding(painted).abs().max() == 0.0
    wake_embedding(controlnet, painted)
    assert controlnet.controlnet_cond_embedding(painted).std() == pytest.approx(EMBEDDED_SPREAD, rel=1e-3)
    assert controlnet.controlnet_cond_embedding(painted).shape[-1] == LATENT_SIDE
    torch.testing.assert_close(predict(unet, controlnet, painted), predict(unet, None, painted))


def test_the_committed_size_is_within_its_budget() -> None:
    controlnet = build_controlnet(build_unet())
    assert 2 * sum(parameter.numel() for parameter in controlnet.parameters()) < BUDGET_BYTES


def test_only_the_controlnet_gets_gradients(cache: ViewCache, pictures: torch.Tensor) -> None:
    unet = tiny_unet().requires_grad_(False)
    controlnet = build_controlnet(unet)
    wake_embedding(controlnet, torch.rand(2, 3, SIDE, SIDE))
    ControlObjective(cache, pictures, BLOCKS, seed=0).loss(unet, controlnet).backward()
    assert all(parameter.grad is None for parameter in unet.parameters())
    ends = [block.weight.grad for block in (*controlnet.controlnet_down_blocks, controlnet.controlnet_mid_block)]
    assert all(grad is not None and grad.abs().max() > 0.0 for grad in ends)


@torch.no_grad()
def test_batches_are_those_of_the_seed(cache: ViewCache, pictures: torch.Tensor) -> None:
    unet = tiny_unet().requires_grad_(False)
    controlnet = build_controlnet(unet)
    losses = [float(ControlObjective(cache, pictures, BLOCKS, seed).loss(unet, controlnet)) for seed in (5, 5, 6)]
    assert losses[0] == losses[1] != losses[2]


def test_training_resumes_from_its_checkpoint(
    tmp_path: Path, cache: ViewCache, pictures: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr("training.emoji.loop.warmup_cosine", lambda *_, **__: 1e-2)
    drawn = ControlObjective.loss

    def loss(self: ControlObjective, unet: UNet2DConditionModel, controlnet: ControlNetModel) -> torch.Tensor:
        """Return the same batch each time: a resumed run draws others."""
        self.generator.manual_seed(0)
        return drawn(self, unet, controlnet)

    monkeypatch.setattr(ControlObjective, "loss", loss)
    steps: list[int] = []

    def train(root: Path, iterations: int) -> dict[str, torch.Tensor]:
        control = Control("blocks", colour_blocks, PurePosixPath("controlnet"), iterations)
        run = Run(root, control.stage)
        trained = train_controlnet(run, tiny_unet(), cache, pictures, control, lambda _, step: steps.append(step))
        return {name: tensor.clone() for name, tensor in trained.state_dict().items()}

    straight = train(tmp_path / "straight", 4)
    train(tmp_path / "resumed", 2)
    resumed = train(tmp_path / "resumed", 4)
    assert steps == [4, 2, 4]
    assert straight["controlnet_mid_block.weight"].abs().max() > 0.0
    for name, tensor in straight.items():
        torch.testing.assert_close(resumed[name], tensor, msg=name)


def test_diffusers_reads_what_was_written(tmp_path: Path) -> None:
    unet = tiny_unet()
    controlnet = build_controlnet(unet).eval()
    painted = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(3))
    wake_embedding(controlnet, painted)
    torch.nn.init.normal_(controlnet.controlnet_mid_block.weight, std=0.1)
    folder = tmp_path / "controlnets" / "blocks"
    for _ in range(2):  # the second replaces the first
        write_controlnet(folder, controlnet)
    assert [path.name for path in folder.parent.iterdir()] == ["blocks"]
    weights = folder / "diffusion_pytorch_model.safetensors"
    assert weights.stat().st_mode & 0o777 == 0o644
    with safe_open(weights, "pt") as file:
        assert {file.get_tensor(key).dtype for key in file.keys()} == {torch.float16}  # noqa: SIM118
    read = ControlNetModel.from_pretrained(folder).to(torch.float32)
    expected = predict(unet, controlnet, painted)
    difference = (expected - predict(unet, None, painted)).abs().max()
    assert (predict(unet, read, painted) - expected).abs().max() < 0.02 * difference
    assert all(parameter.dtype == torch.float32 for parameter in controlnet.parameters())
