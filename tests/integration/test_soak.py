"""A thousand mixed requests: all functions, LoRAs and three sizes, eight at a time. Nothing fails, nothing grows."""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image, ImageDraw

from tests.integration.calls import Calls, pixels, png, psnr, small
from tests.integration.conftest import ROOT, TritonStarter

REQUESTS = 1000
WARM_UP = 300
AT_ONCE = 8
COMPARED = 50  # every so many requests is drawn again, alone
FLAT, HIGH_CONTRAST = "lora/flat.safetensors", "lora/high-contrast.safetensors"
LORAS: list[dict[str, Any]] = [
    {},
    {"lora_path": [FLAT]},
    {"lora_path": [HIGH_CONTRAST], "lora_attn": [1.0]},
    {"lora_path": [FLAT], "lora_attn": [-0.5]},
    {"lora_path": [FLAT, HIGH_CONTRAST], "lora_attn": [0.5, 0.75]},
    {"lora_path": [HIGH_CONTRAST, FLAT], "lora_attn": [1.5, 0.25]},
]
SIZES = [(64, 64), (128, 128), (96, 64)]
SCHEDULERS = ["DPM++ 2M", "Euler a", "DDIM", "Heun"]
PROMPTS = ["a red apple on a blue background", "a (cat:1.3) on a [green] background", "蓝色背景上的红苹果", "a panda"]


def source_image() -> bytes:
    image = Image.new("RGB", (120, 100), (40, 60, 200))
    ImageDraw.Draw(image).ellipse((30, 20, 100, 90), fill=(210, 30, 30))
    return png(image)


def mask() -> bytes:
    image = Image.new("L", (120, 100))
    ImageDraw.Draw(image).ellipse((40, 20, 100, 90), fill=255)
    return png(image)


def requests() -> Iterator[dict[str, Any]]:
    """Return the same thousand each time."""
    draw = random.Random(0)
    image, hole = source_image(), mask()
    for number in range(REQUESTS):
        function = ("t2i", "i2i", "inpaint", "outpaint")[number % 4]
        width, height = draw.choice(SIZES)
        fields: dict[str, Any] = {"func_name": function, "width": width, "height": height}
        if function != "t2i":
            fields["image"] = image
        if function == "inpaint":
            fields["mask"] = hole
        if function == "outpaint":
            fields |= {"width": 64, "height": 64, "expand": [width - 64, 0, 0, height - 64 or 32]}
        yield small(
            **fields,
            **draw.choice(LORAS),
            prompt=draw.choice(PROMPTS),
            scheduler=draw.choice(SCHEDULERS),
            steps=draw.randint(2, 6),
            cfg_scale=draw.choice([1.0, 5.0]),
            seed=str(number),
            image_num=draw.choice([1, 1, 1, 2]),
        )


def memory(process: int) -> int:
    """Bytes in memory of a process and its children."""
    found = psutil.Process(process)
    return sum(each.memory_info().rss for each in [found, *found.children(recursive=True)])


@pytest.mark.heavy
@pytest.mark.timeout(3600)
def test_a_thousand_mixed_requests(start_triton: TritonStarter, tmp_path: Path) -> None:
    server = start_triton(model_dir=ROOT / "models" / "emoji")
    calls = Calls(server)
    asked = list(requests())
    kept: dict[int, list[bytes]] = {}
    warm = 0

    def ask(number: int) -> None:
        images = calls.grpc(**asked[number])["images"]
        if number % COMPARED == 0:
            kept[number] = images

    try:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(ask, range(WARM_UP)))
            warm = memory(server.process.pid)
            list(pool.map(ask, range(WARM_UP, REQUESTS)))
        grown = memory(server.process.pid) / warm - 1
        print(f"memory after {WARM_UP} requests: {warm / 1e6:.0f} MB; after {REQUESTS}: {grown:+.2%}")
        worst = float("inf")
        for number, images in kept.items():
            alone = calls.grpc(**{**asked[number], "task_id": f"alone-{number}"})["images"]
            worst = min(worst, *(psnr(pixels(one), pixels(other)) for one, other in zip(images, alone, strict=True)))
        print(f"{len(kept)} requests drawn again alone: at least {worst:.1f} dB")
        assert len(kept) == REQUESTS // COMPARED
        assert worst >= 40
        assert grown < 0.02
    finally:
        calls.close()
