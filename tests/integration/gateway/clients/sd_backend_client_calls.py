"""Use ``sd-backend-client`` on a gateway, and print what it returns as JSON; run in its own virtual environment."""

import json
import sys
import time
from pathlib import Path
from typing import Any

from PIL import Image
from sd_backend_client.api.detect import connect_to_backend
from sd_backend_client.api.shared_data.diffusion_params import DiffusionParams

WITHIN = 300.0


def main(url: str, folder: Path) -> None:
    """Detect the server, list what it has, draw and cancel; the client checks all replies against its models."""
    backend = connect_to_backend(url)
    image, mask = Image.open(folder / "image.png"), Image.open(folder / "mask.png").convert("L")
    small = {"prompt": "a red apple", "width": 64, "height": 64, "steps": 2, "seed": 7}
    with_image = {**small, "init_images": [image], "denoising_strength": 0.8}
    drawn = backend.submit_txt2img(DiffusionParams(batch_size=2, **small)).wait(timeout=WITHIN)
    changed = backend.submit_img2img(DiffusionParams(**with_image)).wait(timeout=WITHIN)
    inpainted = backend.submit_inpaint(DiffusionParams(mask=mask, **with_image)).wait(timeout=WITHIN)
    canny = next(each for each in backend.get_controlnet_preprocessors() if each.name == "canny")
    capabilities = backend.get_capabilities()
    found = {
        "class": type(backend).__name__,
        "controlnet": capabilities.controlnet,
        "scheduler": capabilities.scheduler,
        "interrogate": capabilities.interrogate,
        "lists": {
            name: [option.name for option in getattr(backend, f"list_{name}")()]
            for name in ("checkpoints", "vaes", "loras", "hypernetworks", "samplers", "schedulers", "upscalers")
        },
        "controlnets": len(backend.list_controlnet_models()),
        "scripts": backend.get_scripts().txt2img,
        "seeds": drawn.seeds,
        "sizes": [result.images[0].size for result in (drawn, changed, inpainted)],
        "upscaled": backend.submit_upscale(image, 128, 96).wait(timeout=WITHIN).images[0].size,
        "preview": backend.submit_preprocessor_preview(image, canny).wait(timeout=WITHIN).images[0].size,
        "cancelled": cancelled(backend, {**small, "steps": 150, "width": 128, "height": 128}),
    }
    print(json.dumps(found))


def cancelled(backend: Any, long: dict[str, Any]) -> list[object]:
    """Return the states of a job that is cancelled as soon as it shows a preview, and the previews' mode."""
    handle = backend.submit_txt2img(DiffusionParams(**long))
    deadline = time.monotonic() + WITHIN
    while (progress := handle.poll()).preview is None and not progress.status.is_terminal:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    before, accepted = progress.status.name, handle.cancel()
    while not (progress := handle.poll()).status.is_terminal:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return [before, accepted, progress.status.name]


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
