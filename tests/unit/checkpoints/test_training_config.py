"""Training configs come with downloaded checkpoints: none of them takes more memory than its size suggests."""

from __future__ import annotations

from pathlib import Path

import pytest

from triton_diffusers.checkpoints.errors import LoadError
from triton_diffusers.checkpoints.training_config import TrainingConfig


@pytest.mark.parametrize("use", ["parameterization: *i", "linear_start: *i", "beta_schedule: *i", "<<: [*m, *m]"])
def test_aliases_are_refused(tmp_path: Path, use: str) -> None:
    """Ten lists of ten of the one before: shown or merged, they are billions of items."""
    lists = [
        f"{name}: &{name} [{', '.join(f'*{before}' for _ in range(10))}]"
        for before, name in zip("abcdefgh", "bcdefghi", strict=True)
    ]
    text = "\n".join(["m: &m {x: 1}", "a: &a [1]", *lists, "model:", "  params:", f"    {use}"])
    (tmp_path / "m.yaml").write_text(text)
    with pytest.raises(LoadError, match="has aliases: it is not a Stable Diffusion config"):
        TrainingConfig.read(tmp_path / "m.yaml")


@pytest.mark.parametrize(
    "text",
    [
        "model: {params: !!python/object/apply:os.system ['false']}",
        "model: {params: !!python/name:os.system }",
        "[" * 100_000,
        "model: {params: [1]}",
        "\x00",
    ],
)
def test_anything_else_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "m.yaml").write_text(text)
    with pytest.raises(LoadError, match="it is not a Stable Diffusion config"):
        TrainingConfig.read(tmp_path / "m.yaml")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("timesteps: 1e12", "timesteps 1e[+]12 is invalid: expected 1 to 100000"),
        ("timesteps: 0.5", "timesteps 0.5 is invalid: expected 1 to 100000"),
        ("beta_schedule: [linear]", "beta_schedule .* is invalid: known: linear"),
    ],
)
def test_values_without_meaning_are_refused(tmp_path: Path, entry: str, message: str) -> None:
    (tmp_path / "m.yaml").write_text(f"model: {{params: {{{entry}}}}}")
    with pytest.raises(LoadError, match=message):
        _ = TrainingConfig.read(tmp_path / "m.yaml").scheduler
