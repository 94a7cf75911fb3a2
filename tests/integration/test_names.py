"""Names in any script, wherever an operator or a caller can bring one, under Triton's own stub."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import torch
from diffusers import UNet2DConditionModel
from PIL import Image
from safetensors.torch import save_file
from tritonclient.utils import InferenceServerException

from tests.controlnet_files import random_controlnet, save_folder
from tests.integration.calls import Calls, pixels, png, small
from tests.integration.conftest import ROOT, TritonStarter

NAMES = ("扁平", "café", "🎈", "עברית")
EMOJI = ROOT / "models" / "emoji"
CONTROL = png(Image.linear_gradient("L").convert("RGB"))


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the emoji model below a name of three scripts, with adapters of such names."""
    folder = tmp_path_factory.mktemp("names") / "模型 é🎈"
    shutil.copytree(EMOJI / "base_model", folder / "base_model")
    config = UNet2DConditionModel.load_config(folder / "base_model" / "unet")
    (folder / "lora").mkdir()
    (folder / "embeddings").mkdir()
    for number, name in enumerate(NAMES):
        shutil.copy(EMOJI / "lora" / "high-contrast.safetensors", folder / "lora" / f"{name}.safetensors")
        save_folder(random_controlnet(config, number), folder / "controlnet" / name)
        vector = torch.randn(1, 192, generator=torch.Generator().manual_seed(number))
        save_file({"emb_params": vector}, folder / "embeddings" / f"{name}.safetensors")
    shutil.copytree(ROOT / "models" / "translator", folder / "translate")
    return folder


@pytest.fixture(scope="module")
def calls(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Calls]:
    place = tmp_path_factory.mktemp("server")
    repository = place / "模型库 é"
    shutil.copytree(ROOT / "model_repository", repository)
    (place / "临时🎈").mkdir()
    long = place / ("x" * 120)  # the runtime directory is in it: too long for the path of a socket
    long.mkdir()
    starter = TritonStarter(long)
    env = {
        "TMPDIR": str(place / "临时🎈"),
        "TRITON_DIFFUSERS_STORE": str(place / "结果 é🎈"),
        "TRITON_DIFFUSERS_CACHE_DIR": str(place / "缓存é"),
        "LC_ALL": "C",
    }
    try:
        server = starter(model_dir=model_dir, model_repository=repository, env=env, args=("--func-name=controlnet",))
        yield Calls(server)
    finally:
        starter.end()


def asked(**changes: Any) -> dict[str, Any]:
    """Return a small request with a ControlNet, which the model always wants."""
    return small(**{"steps": 1, "controlnet_path": [f"controlnet/{NAMES[0]}"], "image": CONTROL, **changes})


def drawn(calls: Calls, **changes: Any) -> Any:
    return pixels(calls.grpc("sd_controlnet", **asked(**changes))["images"][0])


@pytest.fixture(scope="module")
def plain(calls: Calls) -> Any:
    return drawn(calls)


@pytest.mark.parametrize("name", NAMES)
def test_adapters_of_any_name_are_used(calls: Calls, plain: Any, name: str) -> None:
    assert (drawn(calls, lora_path=[f"lora/{name}.safetensors"]) != plain).any()
    assert (drawn(calls, prompt=f"a red apple {name}") != plain).any()
    assert (drawn(calls, controlnet_path=[f"controlnet/{name}"]) == plain).all() == (name == NAMES[0])


@pytest.mark.parametrize("name", NAMES)
def test_results_are_stored_in_a_folder_of_any_name(calls: Calls, name: str) -> None:
    reply = calls.grpc("sd_controlnet", **asked(save_dir=name))
    (url,) = reply["oss_url"]
    stored = Path(unquote(urlsplit(url).path))
    assert stored.parent.name == name
    assert stored.read_bytes() == reply["images"][0]


def test_prompt_is_translated_by_a_translator_below_such_a_name(calls: Calls) -> None:
    image = calls.grpc("ensemble_controlnet", **asked(prompt="一个红苹果"))["images"][0]
    assert (pixels(image) != drawn(calls, prompt="一个红苹果")).any()


def test_text_that_is_not_unicode_is_refused(calls: Calls) -> None:
    for field in ("prompt", "save_dir", "lora_path"):
        with pytest.raises(InferenceServerException, match=f"{field}: .* text must be UTF-8"):
            calls.grpc("sd_controlnet", **asked(**{field: b"\xed\xa0\x80"}))


@pytest.mark.parametrize("name", ["长" * 90, "a\0b", "x" * 300])
def test_name_that_no_file_can_have_is_not_found(calls: Calls, name: str) -> None:
    with pytest.raises(InferenceServerException, match=r"lora_path: .* is not in the model directory"):
        calls.grpc("sd_controlnet", **asked(lora_path=[f"lora/{name}"]))
