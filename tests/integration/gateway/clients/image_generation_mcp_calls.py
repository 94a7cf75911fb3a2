"""Use the web UI's provider of ``image-generation-mcp`` on a gateway; run in its own virtual environment."""

import asyncio
import io
import json
import sys
from pathlib import Path

from image_generation_mcp.providers.sd_webui import SdWebuiImageProvider
from image_generation_mcp.providers.types import InputImage
from PIL import Image


async def main(url: str, folder: Path) -> None:
    """Discover the server and draw, with progress; print what the provider returns as JSON."""
    provider = SdWebuiImageProvider(url, model="emoji")
    fractions: list[float] = []

    async def follow(fraction: float, message: str) -> None:
        fractions.append(fraction)

    capabilities = await provider.discover_capabilities()
    drawn = await provider.generate("a red apple", negative_prompt="blur", progress_callback=follow)
    reference = InputImage((folder / "image.png").read_bytes())
    edited = await provider.generate("a red apple", reference_images=[reference], strength=0.5)
    found = {
        "models": [model.model_id for model in capabilities.models],
        "degraded": capabilities.degraded,
        "sizes": [Image.open(io.BytesIO(result.image_data)).size for result in (drawn, edited)],
        "asked": drawn.provider_metadata["size"],
        "seed": drawn.provider_metadata["seed"],
        "progress": fractions,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
