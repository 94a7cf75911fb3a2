"""OpenAI's images API on a real server: by plain HTTP, and by OpenAI's own packages for Python and Node."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.integration.gateway.conftest import Service
from tests.integration.gateway.packages import CLIENTS, node_packages, python_client, run

MAX_ROUNDING = 2  # of 255
SMALL: dict[str, Any] = {"prompt": "a red apple", "seed": 7, "steps": 2, "size": "64x64", "embed_metadata": False}


def picture() -> Image.Image:
    return Image.radial_gradient("L").resize((64, 48)).convert("RGB")


def encoded(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def mask() -> Image.Image:
    """Return a mask whose right half is transparent."""
    whole = Image.new("RGBA", (64, 48), "white")
    whole.paste((255, 255, 255, 0), (32, 0, 64, 48))
    return whole


def pixels(text: str) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB"))


def check_edit(text: str) -> None:
    """Check that the right half was drawn, and that the left one is as it was."""
    before, after = np.asarray(picture()), pixels(text)
    assert after.shape == before.shape
    assert np.array_equal(after[:, :32], before[:, :32])
    assert not np.array_equal(after[:, 40:], before[:, 40:])


def events_of(text: str) -> list[dict[str, Any]]:
    lines = text.splitlines()
    return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]


def test_an_edit_keeps_the_opaque_part_of_its_mask(service: Service) -> None:
    files = {"image": ("a.png", encoded(picture())), "mask": ("m.png", encoded(mask()))}
    texts = {name: str(value) for name, value in SMALL.items() if name != "size"}
    reply = service.client.post("/v1/images/edits", data=texts, files=files)
    assert reply.status_code == 200, reply.text
    check_edit(reply.json()["data"][0]["b64_json"])
    assert reply.json()["size"] == "64x48"


def test_models_are_those_that_the_runner_announces(service: Service) -> None:
    listed = service.wait(lambda: service.client.get("/v1/models").json()["data"])
    assert [each["id"] for each in listed] == ["ensemble", "sd_base"]


def test_a_stream_has_real_previews_before_the_image(service: Service) -> None:
    fields = {**SMALL, "steps": 100, "size": "128x128", "stream": True, "partial_images": 3}
    events = events_of(service.client.post("/v1/images/generations", json=fields).text)
    kinds = [event["type"].removeprefix("image_generation.") for event in events]
    assert kinds[-1] == "completed"
    assert "partial_image" in kinds
    assert set(kinds[:-1]) == {"partial_image"}
    *partial, image = [pixels(event["b64_json"]) for event in events]
    assert image.shape == (128, 128, 3)
    assert len({shown.tobytes() for shown in partial}) == len(partial)


def test_a_quality_chooses_how_much_is_computed(service: Service) -> None:
    fast, exact = (
        service.client.post("/v1/images/generations", json={**SMALL, "steps": 8, "quality": quality}).json()
        for quality in ("low", "high")
    )
    assert not np.array_equal(pixels(fast["data"][0]["b64_json"]), pixels(exact["data"][0]["b64_json"]))


def openai_for_python(version: str) -> list[str]:
    """Return a command with this version of OpenAI's package."""
    return python_client("openai_client.py", f"openai=={version}")


def openai_for_node(version: str) -> list[str]:
    """Return a command with this version of OpenAI's package for Node."""
    return ["node", str(CLIENTS / "openai_client.mjs")]


@pytest.mark.heavy
@pytest.mark.timeout(1200)
def test_the_ai_sdk(service: Service, tmp_path: Path) -> None:
    (tmp_path / "image.png").write_bytes(encoded(picture()))
    (tmp_path / "mask.png").write_bytes(encoded(mask()))
    packages = node_packages("@ai-sdk/openai-compatible@2.0.92", "ai@6.0.326")
    url = str(service.client.base_url).rstrip("/")
    found = json.loads(run(["node", str(CLIENTS / "ai_sdk_client.mjs"), url, str(tmp_path), str(packages)]))
    first, second = map(pixels, found["generations"])
    assert first.shape == second.shape == (64, 64, 3)
    assert not np.array_equal(first, second)
    check_edit(found["edit"])
    (too_large, unknown) = found["errors"]
    assert (too_large[0], too_large[1][:26]) == (400, "size: '9000x16' is invalid")
    assert (unknown[0], unknown[1][:31]) == (404, "model: 'gpt-image-2' is invalid")


@pytest.mark.heavy
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("make", "version"), [(openai_for_python, "3.57.0"), (openai_for_python, "1.109.1"), (openai_for_node, "6.49.0")]
)
def test_openais_own_clients(service: Service, tmp_path: Path, make: Callable[[str], list[str]], version: str) -> None:
    (tmp_path / "image.png").write_bytes(encoded(picture()))
    (tmp_path / "mask.png").write_bytes(encoded(mask()))
    packages = [str(node_packages(f"openai@{version}"))] if make is openai_for_node else []
    found = json.loads(run([*make(version), str(service.client.base_url).rstrip("/"), str(tmp_path), *packages]))
    first, second = map(pixels, found["generations"])
    assert first.shape == second.shape == (64, 64, 3)
    assert not np.array_equal(first, second)
    assert found["usage"] == 0
    by_url = base64.b64encode(service.client.get(found["url"]).content).decode()
    # Equal to an image of a batch of two up to rounding: sums have another order there.
    assert np.abs(pixels(by_url).astype(int) - first).max() <= MAX_ROUNDING
    check_edit(found["edit"])
    assert pixels(found["edit_of_list"]).shape == (64, 64, 3)
    assert base64.b64decode(found["edit_of_list"]).startswith(b"\xff\xd8")
    assert pixels(found["variation"]).shape == (48, 64, 3)
    *partial, last = found["stream"]
    assert partial
    assert all(event[0] == "image_generation.partial_image" for event in partial)
    assert (last[0], last[1], pixels(last[2]).shape) == ("image_generation.completed", "128x128", (128, 128, 3))
    assert found["model"] == "ensemble"
    assert {"ensemble", "sd_base"} <= set(found["models"])
    assert found["errors"] == [
        ["BadRequestError", 400, "size", "invalid_value"],
        ["NotFoundError", 404, "model", "model_not_found"],
    ]
