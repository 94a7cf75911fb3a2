"""Everything that begins with an image or takes a LoRA, on a real Triton; and where results go."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np
import pytest
from PIL import Image, ImageDraw
from tritonclient.utils import InferenceServerException

from tests.integration.calls import MODELS, Calls, from_base64, opened, pixels, png, psnr, small
from tests.integration.conftest import ROOT, TritonStarter
from tests.integration.image_server import ImageServer
from training.emoji.safety import tripping_picture

EXAMPLES = json.loads((ROOT / "tests" / "data" / "example_requests.json").read_text(encoding="utf-8"))["base"]
# The port that the examples' links name.
EXAMPLES_PORT = 9000


def apple() -> Image.Image:
    """Return a red disc on blue, larger than what is asked for."""
    image = Image.new("RGB", (160, 128), (40, 60, 200))
    ImageDraw.Draw(image).ellipse((30, 20, 120, 110), fill=(210, 30, 30))
    return image


def half_mask() -> Image.Image:
    """Return a mask: the right half is white, and so is repainted."""
    mask = Image.new("L", (160, 128))
    ImageDraw.Draw(mask).rectangle((80, 0, 160, 128), fill=255)
    return mask


IMAGES = {
    "/apple.png": png(apple()),
    "/image.png": png(apple()),
    "/mask.png": png(half_mask()),
    "/text": b"no image",
}


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the emoji model with its LoRAs under the examples' names."""
    folder = tmp_path_factory.mktemp("model")
    shutil.copytree(ROOT / "models" / "emoji" / "base_model", folder / "base_model")
    (folder / "lora").mkdir()
    for ours, name in (("flat", "style_a"), ("high-contrast", "style_b")):
        shutil.copy(ROOT / "models" / "emoji" / "lora" / f"{ours}.safetensors", folder / "lora" / f"{name}.safetensors")
    return folder


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory, model_dir: Path) -> Iterator[Calls]:
    starter = TritonStarter(tmp_path_factory.mktemp("functions"))
    try:
        server = starter(
            model_dir=model_dir,
            env={
                "TRITON_DIFFUSERS_LINK_ALLOW_HOSTS": "127.0.0.1",
                "TRITON_DIFFUSERS_STORE_URL": "https://images.example.com/",
                "TRITON_DIFFUSERS_SAFETY_ACTION": "choose",
            },
        )
        opened_calls = Calls(server)
        yield opened_calls
        opened_calls.close()
    finally:
        starter.end()


@pytest.fixture(scope="module")
def links() -> Iterator[str]:
    with ImageServer(IMAGES) as server:
        yield server.url


def image_request(function: str, **changes: Any) -> dict[str, Any]:
    mask = {"mask": IMAGES["/mask.png"]} if function == "inpaint" else {}
    expand = {"expand": [16, 0, 0, 8]} if function == "outpaint" else {}
    return small(func_name=function, **{"image": IMAGES["/apple.png"], **mask, **expand, **changes})


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("function", "size"), [("i2i", (64, 64)), ("inpaint", (64, 64)), ("outpaint", (80, 72))])
def test_an_image_in_every_transport(
    calls: Calls, links: str, model: str, function: str, size: tuple[int, int]
) -> None:
    """As bytes over gRPC and HTTP, as base64 and as a link in JSON: always the same result."""
    fields = image_request(function)
    drawn = calls.grpc(model, **fields)["images"][0]
    assert opened(drawn).size == size
    assert calls.http(model, **{**fields, "task_id": "again"})["images"] == [drawn]
    rest = {name: value for name, value in fields.items() if name not in ("image", "mask", "return_images")}
    for name in ("image", "mask"):
        if name in fields:
            rest[f"{name}_base64"] = base64.b64encode(fields[name]).decode()
    status, reply = calls.generate(model, {**rest, "use_base64": True})
    assert status == 200, reply
    assert from_base64(reply["images_base64"]) == drawn
    names = {"image": "/apple.png", "mask": "/mask.png"}
    linked = {f"{name}_link": links + names[name] for name in names if name in fields}
    bare = {name: value for name, value in rest.items() if not name.endswith("_base64")}
    status, reply = calls.generate(model, {**bare, **linked, "use_base64": True})
    assert status == 200, reply
    assert from_base64(reply["images_base64"]) == drawn


def test_unmasked_pixels_are_unchanged(calls: Calls) -> None:
    original = np.asarray(apple().resize((64, 64), Image.Resampling.LANCZOS))
    pasted = pixels(calls.grpc(**image_request("inpaint", denoising_strength=1.0))["images"][0])
    drawn = pixels(calls.grpc(**image_request("inpaint", denoising_strength=1.0, keep_unmasked=False))["images"][0])
    assert np.array_equal(pasted[:, :32], original[:, :32])
    assert not np.array_equal(drawn[:, :32], original[:, :32])
    assert psnr(pasted[:, 40:], original[:, 40:]) < 25
    wider = pixels(calls.grpc(**image_request("outpaint"))["images"][0])
    assert np.array_equal(wider[:64, 16:], original)


def test_concurrent_functions_do_not_affect_each_other(calls: Calls) -> None:
    alone = {function: calls.grpc(**image_request(function))["images"] for function in ("i2i", "inpaint", "outpaint")}
    pending = {
        function: [calls.send(**image_request(function, task_id=f"{function}-{turn}")) for turn in range(3)]
        for function in alone
    }
    for function, sent in pending.items():
        for each in sent:
            assert psnr(pixels(each.result()["images"][0]), pixels(alone[function][0])) >= 40


def test_loras_are_per_request(calls: Calls) -> None:
    a, b = "lora/style_a.safetensors", "lora/style_b.safetensors"
    choices: list[dict[str, Any]] = [
        {},
        {"lora_path": [a]},
        {"lora_path": [a], "lora_attn": [1.5]},
        {"lora_path": [b]},
        {"lora_path": [a, b], "lora_attn": [0.75, 0.4]},
        {"lora_path": [a], "lora_attn": [-0.75]},
    ]
    alone = [pixels(calls.grpc(**small(steps=4, **choice))["images"][0]) for choice in choices]
    for index, one in enumerate(alone):
        for other in alone[:index]:
            assert psnr(one, other) < 40
    pending = [calls.send(**small(steps=4, **choice)) for choice in choices * 2]
    for sent, expected in zip(pending, alone * 2, strict=True):
        assert psnr(pixels(sent.result()["images"][0]), expected) >= 40
    nothing = calls.grpc(**small(steps=4, lora_path=[a], lora_attn=[0.0]))["images"][0]
    assert psnr(pixels(nothing), alone[0]) >= 60


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image": b"no image"}, "image: .* is invalid"),
        ({"image": b"", "image_base64": "!!!"}, "image_base64: '!!!' is invalid"),
        ({"image": b"", "image_link": "file:///etc/passwd"}, "image_link: 'file:///etc/passwd' is invalid"),
        ({"image": b"", "image_link": "http://10.0.0.1/a.png"}, "image_link: 'http://10.0.0.1/a.png' is invalid"),
        ({"lora_path": ["../base_model/model_index.json"]}, "lora_path: '../base_model/model_index.json'"),
        ({"lora_path": ["/etc/passwd"]}, "lora_path: '/etc/passwd'"),
        ({"lora_path": ["lora/none.safetensors"]}, "lora_path: .*lora/none.safetensors"),
        ({"save_dir": "../outside"}, "save_dir: '../outside' is invalid"),
        ({"clip_skip": 9}, "clip_skip: 9 is invalid: must be between 1 and 4"),
    ],
)
def test_invalid_images_are_refused(calls: Calls, fields: dict[str, Any], message: str) -> None:
    request = {name: value for name, value in image_request("i2i", **fields).items() if value != b""}
    with pytest.raises(InferenceServerException, match=message) as caught:
        calls.grpc(**request)
    assert caught.value.status() in ("StatusCode.INVALID_ARGUMENT", "StatusCode.NOT_FOUND")


def test_a_link_that_leads_to_no_image(calls: Calls, links: str) -> None:
    for path in ("/missing.png", "/text"):
        request = image_request("i2i", image_link=links + path)
        del request["image"]
        with pytest.raises(InferenceServerException, match=f"image_link: .*{path}|image_link: ") as caught:
            calls.grpc(**request)
        assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"


def test_results_are_stored_under_the_references_names(calls: Calls) -> None:
    reply = calls.grpc(**small(task_id="kept", image_num=2, save_dir="mine/today", embed_metadata=True))
    stored = [Path(urlsplit(url).path) for url in reply["oss_url"]]
    assert [path.read_bytes() for path in stored] == reply["images"]
    assert [path.parent.relative_to(path.parents[2]).as_posix() for path in stored] == ["mine/today"] * 2
    for index, (path, url) in enumerate(zip(stored, reply["image_url"], strict=True)):
        assert path.name.startswith("kept_")
        assert path.stem.endswith(f"_{index}")
        assert url == f"https://images.example.com/mine/today/{path.name}"
    assert "a red apple" in opened(reply["images"][0]).info["parameters"]


def example(name: str, links: str) -> dict[str, Any]:
    """Return an example request with this test's own links."""
    found = next(request for request in EXAMPLES if request["task_id"] == name)
    return json.loads(json.dumps(found).replace(f"http://127.0.0.1:{EXAMPLES_PORT}", links))


NAMES = [request["task_id"] for request in EXAMPLES]


@pytest.mark.parametrize("name", NAMES)
def test_the_references_example_requests(calls: Calls, links: str, name: str) -> None:
    """In small; ``test_the_references_example_requests_as_they_are`` has them in full."""
    request = {**example(name, links), "steps": 4, "width": 64, "height": 64, "use_base64": True}
    if name == "outpaint":
        request["expand"] = [32, 32, 0, 0]
    status, reply = calls.generate("ensemble", request)
    assert status == 200, reply
    assert reply["success"] == 1


@pytest.mark.heavy
@pytest.mark.timeout(3600)
def test_the_references_example_requests_as_they_are(calls: Calls) -> None:
    with ImageServer(IMAGES, EXAMPLES_PORT) as server:
        for name in NAMES:
            # 512x512 pixels, 50 steps and more than one image: minutes on two cores.
            status, reply = calls.generate("ensemble", example(name, server.url), within=1200.0)
            assert status == 200, reply
            assert reply["success"] == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"func_name": "inpaint", "denoising_strength": 0.3},
        {"func_name": "outpaint", "expand": [8, 0, 0, 0]},
        {"func_name": "outpaint", "expand": [128, 0, 0, 0]},
    ],
)
def test_the_checker_judges_what_was_pasted_back(calls: Calls, fields: dict[str, Any]) -> None:
    """The embedded model's checker flags one pattern, which the request brings and keeps."""
    corner = Image.new("L", (128, 128))
    ImageDraw.Draw(corner).rectangle((0, 0, 9, 9), fill=255)
    mask = {"mask": png(corner)} if fields["func_name"] == "inpaint" else {}
    request = small(width=128, height=128, image=png(tripping_picture(128)), **mask, **fields)
    reply = calls.grpc(**request)
    assert reply["is_nsfw"] == [True]
    assert not pixels(reply["images"][0]).any()
    flagged = calls.grpc(**{**request, "task_id": "flagged", "safety_action": "flag"})
    assert flagged["is_nsfw"] == [True]
    assert np.array_equal(pixels(flagged["images"][0])[-64:, -64:], np.asarray(tripping_picture(128))[-64:, -64:])


@pytest.mark.parametrize("function", ["inpaint", "outpaint"])
def test_a_data_url_is_an_image_in_every_field(calls: Calls, function: str) -> None:
    fields = image_request(function)
    drawn = calls.grpc(**fields)["images"][0]
    rest = {name: value for name, value in fields.items() if name not in ("image", "mask", "return_images")}
    encoded = base64.b64encode(IMAGES["/apple.png"]).decode()
    rest["image_link"] = f"data:application/octet-stream;charset=utf-8;base64,{encoded}"
    if function == "inpaint":
        rest["mask_base64"] = f"data:image/png,{quote(IMAGES['/mask.png'])}"
    status, reply = calls.generate("sd_base", {**rest, "use_base64": True})
    assert status == 200, reply
    assert from_base64(reply["images_base64"]) == drawn
