import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from training.emoji.stages import STAGES, TRAINING, decoder, lora, pipeline, unet
from training.emoji.workshop import Iterations, Workshop


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    return Workshop(
        cache=tmp_path / "cache",
        run_dir=tmp_path / "run",
        output=tmp_path / "output",
        iterations=Iterations(vae=1, text=1, unet=1, decoder=1, safety=1),
        export_every=1,
        guidance=7.0,
    )


def test_stages_are_in_the_order_in_which_they_build_on_each_other() -> None:
    assert list(TRAINING) == [
        "data", "vae", "text", "unet", "decoder", "safety", "export", "evaluate",
        "lora-flat", "lora-high-contrast", "controlnet-canny", "controlnet-blocks", "evidence", "evidence-controlnets",
        "defaults", "samples",
    ]  # fmt: skip
    assert set(STAGES) - set(TRAINING) == {"adopt"}


@pytest.mark.parametrize("work", [unet._work, decoder._work, lora._work], ids=lambda work: str(work.__module__))
def test_new_processes_find_their_work_by_name(work: Callable[..., None]) -> None:
    assert pickle.loads(pickle.dumps(work)) is work


def test_workers_get_the_workshop(shop: Workshop) -> None:
    assert pickle.loads(pickle.dumps(shop)) == shop


def test_a_run_is_not_overwritten_by_adopted_weights(shop: Workshop) -> None:
    (shop.run_dir / "unet").mkdir(parents=True)
    with pytest.raises(SystemExit, match="holds a run already"):
        pipeline.adopt(shop)
