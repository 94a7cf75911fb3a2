"""A checkpoint in one file, from a hub: fetched by the launcher, converted by the model, drawing the same images."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from safetensors.torch import load_file

from tests.integration.calls import Calls, pixels, psnr, small
from tests.integration.conftest import ROOT, RunningTriton, TritonStarter
from tests.unit.checkpoints.original import original, write
from tests.unit.downloads.hubs import Hub
from tests.waiting import WITHIN
from triton_diffusers.checkpoints.load import load_components
from triton_diffusers.settings import Settings

EMOJI = ROOT / "models" / "emoji"


def test_a_single_checkpoint_file_is_fetched_and_converted(
    triton: RunningTriton, start_triton: TritonStarter, tmp_path: Path
) -> None:
    loaded = load_components(Settings(model_dir=EMOJI, device="cpu", dtype="float32", close_safety=True))
    file = write(tmp_path / "emoji.safetensors", original(loaded.denoiser, loaded.vae, loaded.text_encoder))
    assert "first_stage_model.decoder.conv_in.weight" in load_file(file)
    files = {file.name: file.read_bytes()}
    for name in ("unet", "vae", "text_encoder", "scheduler", "tokenizer"):
        for path in (EMOJI / "base_model" / name).iterdir():
            if path.suffix != ".safetensors":
                files[f"emoji.config/{name}/{path.name}"] = path.read_bytes()
    cache = tmp_path / "cache"
    with Hub(files) as hub:
        hub.break_after[file.name] = len(files[file.name]) // 2
        served = start_triton(
            args=["--model-dir", "modelscope://owner/name"],
            env={"MODELSCOPE_ENDPOINT": hub.url, "TRITON_DIFFUSERS_CACHE_DIR": str(cache)},
        )
        assert len(hub.requested_ranges(file.name)) == 2
    images = []
    for server in (triton, served):
        calls = Calls(server)
        try:
            # drawing.json, which states other defaults, is not in the hub.
            (image,) = calls.http("sd_base", **small(cfg_scale=5.0))["images"]
            images.append(pixels(image))
        finally:
            calls.close()
    assert psnr(*images) > 40
    assert list(cache.glob("models/*/model/base_model/emoji.converted/model_index.json"))


def test_a_model_that_draws_nothing_ends_the_start(start_triton: TritonStarter, tmp_path: Path) -> None:
    base = tmp_path / "mine" / "base_model"
    shutil.copytree(EMOJI / "base_model", base)
    extractor = base / "feature_extractor" / "preprocessor_config.json"
    size = {"size": {"shortest_edge": 96}, "crop_size": {"height": 96, "width": 96}}
    extractor.write_text(json.dumps({**json.loads(extractor.read_text()), **size}))
    server = start_triton(args=["--model-dir", str(base.parent)], wait=False)
    assert server.process.wait(timeout=WITHIN) == 2
    said = f"did not start: {base.parent} cannot generate an image: its safety_checker failed the trial: "
    assert said in server.log_text().splitlines()[-1]
