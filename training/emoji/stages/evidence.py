"""The evidence that functions of the server do what they are for."""

import json
from typing import Any

from PIL import Image

from training.emoji.evaluate import write_figures
from training.emoji.evidence_controlnets import gather_controlnet_evidence
from training.emoji.lora_styles import STYLES
from training.emoji.workshop import Workshop


def gather(shop: Workshop) -> None:
    """Show what the server makes of the exported pipeline and its LoRAs; write `evidence.json` and `functions.png`."""
    # Only here: no other stage needs the server's engine.
    from training.emoji.evidence import World, gather_evidence

    styles = {style.name: shop.style_pictures(style) for style in STYLES}
    figures, sheet = gather_evidence(shop.output, World(shop.subjects, shop.pictures, styles), shop.guidance)
    _publish(shop, figures, "evidence.json", sheet, "functions.png")


def gather_of_controlnets(shop: Workshop) -> None:
    """Show how well the ControlNets are followed; write `controlnets.json` and `controlnets.png`."""
    figures, sheet = gather_controlnet_evidence(shop.output, shop.subjects, shop.pictures, shop.guidance)
    _publish(shop, figures, "controlnets.json", sheet, "controlnets.png")


def _publish(shop: Workshop, figures: dict[str, Any], file: str, sheet: Image.Image, picture: str) -> None:
    write_figures(figures, shop.output / file)
    sheet.quantize(192).save(shop.output / picture, optimize=True)
    print(json.dumps(figures, indent=2, ensure_ascii=False))
