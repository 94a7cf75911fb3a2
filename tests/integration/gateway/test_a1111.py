"""The web UI's API on a real server: by plain HTTP, and by packages that were written for the web UI."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.integration.conftest import TritonStarter
from tests.integration.gateway.conftest import Service
from tests.integration.gateway.packages import python_client, run

SMALL: dict[str, Any] = {"prompt": "a red apple", "seed": 7, "steps": 2, "width": 64, "height": 64}


def picture() -> Image.Image:
    return Image.radial_gradient("L").resize((64, 48)).convert("RGB")


def mask() -> Image.Image:
    """Return a mask whose right part is white."""
    whole = Image.new("L", (64, 48))
    whole.paste(255, (40, 0, 64, 48))
    return whole


def encoded(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def opened(text: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(text)))


def drawn(service: Service, path: str, **fields: Any) -> dict[str, Any]:
    reply = service.client.post(f"/sdapi/v1/{path}", json={**SMALL, **fields})
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


def test_images_carry_the_parameters_of_their_own_seeds(service: Service) -> None:
    reply = drawn(service, "txt2img", batch_size=2, sampler_name="DPM++ 2M", prompt="an apple <lora:flat:0.5>")
    first, second = map(opened, reply["images"])
    assert first.size == second.size == (64, 64)
    assert not np.array_equal(first, second)
    info = json.loads(reply["info"])
    assert info["infotexts"] == [first.info["parameters"], second.info["parameters"]]
    assert info["all_seeds"] == [7, 8]
    assert "Seed: 8," in second.info["parameters"]
    assert "Sampler: DPM++ 2M Karras," in second.info["parameters"]
    again = drawn(service, "txt2img", sampler_name="DPM++ 2M", prompt="an apple <lora:flat:0.5>", seed=8)
    difference = np.asarray(opened(again["images"][0])).astype(int) - np.asarray(second)
    assert np.abs(difference).max() <= 2  # sums have another order in a batch


def test_only_the_masked_part_is_drawn(service: Service) -> None:
    fields = {"init_images": [encoded(picture())], "mask": encoded(mask()), "mask_blur": 0}
    reply = drawn(service, "img2img", inpaint_full_res_padding=4, **fields)
    before, after = np.asarray(picture()), np.asarray(opened(reply["images"][0]))
    assert after.shape == before.shape
    assert np.array_equal(after[:, :40], before[:, :40])
    assert not np.array_equal(after[:, 40:], before[:, 40:])


def test_a_job_shows_a_preview_and_is_interrupted(service: Service) -> None:
    replies: list[dict[str, Any]] = []
    fields = {"steps": 150, "width": 128, "height": 128, "batch_size": 8}
    drawing = threading.Thread(target=lambda: replies.append(drawn(service, "txt2img", **fields)))
    drawing.start()

    def preview() -> dict[str, Any] | None:
        shown = dict(service.client.get("/sdapi/v1/progress").json())
        return shown if shown["current_image"] else None

    shown = service.wait(preview)
    assert shown["state"]["job_count"] == 1
    assert 0 <= shown["progress"] < 1
    assert max(opened(shown["current_image"]).size) <= 256
    assert service.client.post("/sdapi/v1/interrupt").json() == {}
    drawing.join()
    assert replies[0]["images"] == []
    assert json.loads(replies[0]["info"])["interrupted"] is True
    assert service.client.get("/sdapi/v1/progress").json()["state"]["job_count"] == 0


@pytest.fixture(scope="module")
def service_with_controlnets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Return a gateway and a runner beside a server that has ControlNets."""
    starter = TritonStarter(tmp_path_factory.mktemp("triton"))
    try:
        started = Service(tmp_path_factory.mktemp("service"), starter(args=("--func-name=all",)))
        try:
            started.start_gateway()
            started.start_runner()
            started.wait(lambda: started.client.get("/sdapi/v1/sd-models").json())
            yield started
        finally:
            started.close()
    finally:
        starter.end()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with an image and a mask."""
    picture().save(tmp_path / "image.png")
    mask().save(tmp_path / "mask.png")
    return tmp_path


def called(service: Service, folder: Path, script: str, requirement: str, address: str) -> dict[str, Any]:
    printed = run([*python_client(script, requirement), address, str(folder)])
    return dict(json.loads(printed.splitlines()[-1]))  # clients print, too


@pytest.mark.heavy
@pytest.mark.timeout(1200)
def test_webuiapi(service_with_controlnets: Service, folder: Path) -> None:
    service = service_with_controlnets
    url = service.client.base_url
    found = called(service, folder, "webui_client.py", "webuiapi==0.9.17", f"{url.host}:{url.port}")
    assert (found["has_controlnet"], found["seeds"], found["controlnet_version"]) == (True, [7, 8], 3)
    small = [64, 64]
    assert found["sizes"] == {
        "txt2img": [small, small],
        "controlnet": [small, small],
        "img2img": [small],
        "part": [[64, 48]],
        "whole": [small],
        "extras": [[128, 96]],
        "detect": [[64, 48]],
    }
    part = np.asarray(Image.open(folder / "part.png"))
    assert np.array_equal(part[:, :30], np.asarray(picture())[:, :30])
    assert "Sampler: Euler a," in found["infotext"]
    assert found["model"] == "emoji"
    assert len(found["lists"]) == 17
    assert found["nothing_to_stop"] == [{}, {}, None]
    assert found["refused"][0] == 422
    assert found["refused"][1].startswith("enable_hr: True is invalid: this server does not support it")


@pytest.mark.heavy
@pytest.mark.timeout(1200)
def test_sd_backend_client(service_with_controlnets: Service, folder: Path) -> None:
    service = service_with_controlnets
    url = str(service.client.base_url).rstrip("/")
    found = called(service, folder, "sd_backend_client_calls.py", "sd-backend-client==0.5.0", url)
    assert found["class"] == "A1111Webservice"
    assert (found["controlnet"], found["scheduler"], found["interrogate"]) == (True, True, False)
    assert found["lists"]["checkpoints"] == ["emoji"]
    assert found["lists"]["loras"] == ["flat", "high-contrast"]
    assert "euler_ancestral" in found["lists"]["samplers"]
    assert found["lists"]["upscalers"] == ["Lanczos", "Nearest"]
    assert (found["controlnets"], found["scripts"]) == (2, ["controlnet", "controlnet m2m"])
    assert (found["seeds"], found["sizes"]) == ([7, 8], [[64, 64], [64, 64], [64, 48]])
    assert (found["upscaled"], found["preview"]) == ([128, 96], [64, 48])
    assert found["cancelled"] == ["ACTIVE", True, "CANCELLED"]


@pytest.mark.heavy
@pytest.mark.timeout(1200)
def test_image_generation_mcp(service_with_controlnets: Service, folder: Path) -> None:
    service = service_with_controlnets
    url = str(service.client.base_url).rstrip("/")
    found = called(service, folder, "image_generation_mcp_calls.py", "image-generation-mcp==1.12.1", url)
    assert (found["models"], found["degraded"]) == (["emoji"], False)
    width, height = map(int, found["asked"].split("x"))
    assert found["sizes"] == [[width, height]] * 2
    assert 0 <= found["seed"] < 2**32
    assert all(0 <= fraction <= 1 for fraction in found["progress"])
