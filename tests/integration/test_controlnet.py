"""ControlNets on a real Triton: the emoji model with networks of random weights, whose effect can be seen."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diffusers import UNet2DConditionModel
from PIL import Image, ImageDraw
from tritonclient.utils import InferenceServerException

from tests.controlnet_files import original, random_controlnet, save
from tests.integration.calls import Calls, from_base64, opened, pixels, png, psnr, small
from tests.integration.conftest import ROOT, TritonStarter
from tests.integration.image_server import ImageServer
from tests.waiting import until
from triton_diffusers.preprocess.canny import Canny
from triton_diffusers_client import Client, Options

EMOJI = ROOT / "models" / "emoji"
EXAMPLES = json.loads((ROOT / "tests" / "data" / "example_requests.json").read_text(encoding="utf-8"))["controlnet"]
EXAMPLES_URL = "http://127.0.0.1:9000"
# Where one of the examples expects a ControlNet.
OTHER = "new_controlnet/depth/diffusion_pytorch_model.safetensors"
# Examples that need weights, which this model directory lacks.
WITHOUT_WEIGHTS = ("depth", "hed", "mlsd", "normal", "openpose", "scribble", "seg")
SAME = 40.0  # dB


def shapes(radius: int, size: int = 64) -> Image.Image:
    image = Image.new("RGB", (size, size), (40, 60, 200))
    ImageDraw.Draw(image).ellipse((8, 8, 8 + radius, 8 + radius), fill=(210, 30, 30))
    return image


IMAGE, SECOND = png(shapes(40)), png(shapes(20))


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Calls]:
    model_dir = tmp_path_factory.mktemp("model")
    shutil.copytree(EMOJI, model_dir, dirs_exist_ok=True)
    config = UNet2DConditionModel.load_config(EMOJI / "base_model" / "unet")
    save(model_dir / OTHER, original(random_controlnet(config, 2)))
    starter = TritonStarter(tmp_path_factory.mktemp("controlnet"))
    try:
        server = starter(
            model_dir=model_dir,
            args=["--func-name=all"],
            env={"TRITON_DIFFUSERS_LINK_ALLOW_HOSTS": "127.0.0.1"},
        )
        opened_calls = Calls(server)
        yield opened_calls
        opened_calls.close()
    finally:
        starter.end()


def drawn(calls: Calls, model: str = "sd_controlnet", **fields: Any) -> np.ndarray[Any, Any]:
    (image,) = calls.grpc(model, **small(**{"steps": 2, **fields}))["images"]
    return pixels(image)


@pytest.mark.parametrize("transport", ["grpc", "http"])
def test_the_control_image_is_what_the_preprocessor_makes(calls: Calls, transport: str) -> None:
    fields = small(steps=1, image=IMAGE, process_func=["canny"], return_control_image=True)
    reply = getattr(calls, transport)("sd_controlnet", **fields)
    (edges,) = reply["control_images_base64"]
    assert np.array_equal(pixels(from_base64(edges)), Canny().process(pixels(IMAGE)))
    assert getattr(calls, transport)("sd_controlnet", **small(steps=1, image=IMAGE))["control_images_base64"] == []


def test_each_image_network_and_strength_draws_another_image(calls: Calls) -> None:
    images = [
        drawn(calls, image=IMAGE, control_scale=[0.0]),
        drawn(calls, image=IMAGE),
        drawn(calls, image=SECOND),
        drawn(calls, image=IMAGE, control_end=[0.5]),
        drawn(calls, image=IMAGE, controlnet_path=[OTHER]),
        drawn(calls, image=IMAGE, controlnet_path=["", OTHER]),
    ]
    for index, one in enumerate(images):
        assert not any(np.array_equal(one, other) for other in images[:index]), index


def test_the_embedded_models_controlnets_lead_its_images(calls: Calls) -> None:
    """To a disc off the middle, where the model by itself draws nothing: one by its edges, the other by its colours."""
    disc = Image.new("RGB", (128, 128), "white")
    ImageDraw.Draw(disc).ellipse((64, 68, 116, 120), fill=(220, 40, 40))
    mosaic = disc.resize((8, 8), Image.Resampling.BOX).resize((128, 128), Image.Resampling.NEAREST)
    asked = {"prompt": "a red apple on a white background", "width": 128, "height": 128, "cfg_scale": 3.0, "steps": 8}
    edges = {"image": png(disc), "process_func": ["canny"]}
    led = (edges, {"image": png(mosaic), "controlnet_path": ["controlnets/blocks"]})
    assert np.linalg.norm(centre(drawn(calls, **asked, **edges, control_scale=[0.0])) - (64, 64)) < 12
    for fields in led:
        assert np.linalg.norm(centre(drawn(calls, **asked, **fields)) - (94, 90)) < 8


def centre(image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Row and column of the middle of what is not white."""
    return np.argwhere(image.min(2) < 170).mean(0)


def test_every_image_field_gives_the_same_result(calls: Calls) -> None:
    expected = drawn(calls, image=IMAGE)
    assert np.array_equal(drawn(calls, control_image=[IMAGE]), expected)
    with ImageServer({"/a.png": IMAGE}) as server:
        twice = drawn(calls, controlnet_path=["", OTHER], control_image_link=[f"{server.url}/a.png"])
    assert np.array_equal(twice, drawn(calls, controlnet_path=["", OTHER], image=IMAGE))


def test_an_ensemble_translates_for_it(calls: Calls) -> None:
    fields = {"image": IMAGE, "process_func": ["canny"]}
    english, chinese = {"prompt": "a red apple on a blue background"}, {"prompt": "蓝色背景上的红苹果"}
    expected = drawn(calls, **fields, **english)
    assert np.array_equal(drawn(calls, "ensemble_controlnet", **fields, **chinese), expected)


EACH: tuple[dict[str, Any], ...] = (
    {"image": IMAGE},
    {"image": SECOND, "controlnet_path": [OTHER], "lora_path": ["lora/flat.safetensors"]},
    {"func_name": "i2i", "image": IMAGE, "control_image": [SECOND]},
)


@pytest.mark.parametrize("rounds", [2, pytest.param(200, marks=pytest.mark.heavy)])
def test_concurrent_requests_get_their_own_controlnets(calls: Calls, rounds: int) -> None:
    alone = [drawn(calls, **fields) for fields in EACH]
    assert psnr(alone[0], alone[1]) < SAME

    def client(first: int) -> list[float]:
        kinds = [(first + number) % len(EACH) for number in range(rounds)]
        return [psnr(drawn(calls, **EACH[kind]), alone[kind]) for kind in kinds]

    with ThreadPoolExecutor(2) as clients:
        found = [decibels for one in clients.map(client, (0, 1)) for decibels in one]
    assert len(found) == 2 * rounds
    assert min(found) >= SAME


def test_outpainting_is_controlled_by_the_larger_canvas(calls: Calls) -> None:
    fields = small(func_name="outpaint", steps=1, image=IMAGE, expand=[0, 32, 0, 0], return_control_image=True)
    reply = calls.grpc("sd_controlnet", **fields)
    (control,) = reply["control_images_base64"]
    assert opened(reply["images"][0]).size == opened(from_base64(control)).size == (96, 64)


def test_it_shares_unet_calls_with_the_base_model(calls: Calls) -> None:
    before = calls.metrics()
    pending = [calls.send("sd_controlnet", **small(image=IMAGE, steps=20)), calls.send("sd_base", **small(steps=20))]
    assert all(sent.result()["success"] == 1 for sent in pending)
    shared = 'sd_unet_calls_total{images="2"}'
    until(lambda: calls.metrics().get(shared, 0) > before.get(shared, 0))


def test_ensemble_jobs_are_listed_and_cancelled(calls: Calls) -> None:
    long = small(image=IMAGE, steps=150, image_num=8)
    pending = calls.send("ensemble_controlnet", **long)
    job = calls.wait_for_job(long["task_id"], lambda job: job["step"] > 0)
    assert job["model"] == "sd_controlnet"
    calls.jobs("cancel", task_id=long["task_id"])
    with pytest.raises(InferenceServerException, match="cancelled"):
        pending.result()


@pytest.mark.parametrize("name", ["canny", *WITHOUT_WEIGHTS])
def test_the_references_example_requests(calls: Calls, name: str) -> None:
    found = next((example for example in EXAMPLES if example["task_id"] == name), EXAMPLES[0])
    with ImageServer({"/man.png": IMAGE, "/trooper.png": SECOND}) as server:
        request = json.loads(json.dumps(found).replace(EXAMPLES_URL, server.url))
        request |= {"task_id": name, "process_func": name, "steps": 2, "width": 64, "height": 64}
        status, reply = calls.generate("ensemble_controlnet", request)
    if name in WITHOUT_WEIGHTS:
        assert status in (400, 404)  # by Triton's version
        assert f"triton-diffusers fetch-preprocessors {name}" in reply["error"]
        assert "/tmp" not in reply["error"]
    else:
        assert (status, reply.get("success")) == (200, 1), reply


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "image / image_base64 / image_link: .* t2i without control_image needs exactly one"),
        ({"image": IMAGE, "process_func": ["warp"]}, "process_func: 'warp' is invalid: must be one of: canny"),
        ({"image": IMAGE, "controlnet_path": ["../controlnet"]}, "controlnet_path: .*controlnet"),
        ({"image": IMAGE, "controlnet_path": ["lora/flat.safetensors"]}, "controlnet_path: .* a LoRA"),
        ({"control_image": [b"rubbish"]}, "control_image: '7 bytes' is invalid: must be an image"),
    ],
)
def test_invalid_controls_are_refused(calls: Calls, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InferenceServerException, match=message) as caught:
        calls.grpc("sd_controlnet", **small(**fields))
    assert caught.value.status() in ("StatusCode.INVALID_ARGUMENT", "StatusCode.NOT_FOUND")


def test_the_client_and_its_command(calls: Calls, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(IMAGE)
    options: Options = {"steps": 2, "width": 64, "height": 64, "seed": 7, "embed_metadata": False}
    with Client(calls.server.http_url) as client:
        result = client.generate(
            "a red apple", control_image=tmp_path / "a.png", process_func="canny", return_control_image=True, **options
        )
    command = [
        sys.executable, "-m", "triton_diffusers_client", "generate", "a red apple", f"--url=grpc://{calls.server.grpc_url}",
        "--steps=2", "--size=64x64", "--seed=7", f"--control-image={tmp_path / 'a.png'}", "--process=canny",
        "--return-control-image", f"--output={tmp_path / 'b.png'}",
    ]  # fmt: skip
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert printed.splitlines() == [str(tmp_path / "b.png"), str(tmp_path / "b-control.png")]
    assert np.array_equal(pixels((tmp_path / "b.png").read_bytes()), pixels(result.images[0].data))
    assert (tmp_path / "b-control.png").read_bytes() == result.control_images[0].data
