"""The evaluation of the exported pipeline."""

import json

from training.emoji.evaluate import evaluate, generate_all, write_figures
from training.emoji.pictures import to_image
from training.emoji.samples import SAMPLE_PROMPTS, SAMPLE_SEEDS, sample_sheet
from training.emoji.workshop import WORKERS, Workshop


def measure(shop: Workshop) -> None:
    """Measure the exported pipeline; write `evaluation.json`, `samples.png` and the sheet of all subjects."""
    figures, sheet = evaluate(shop.exported, shop.subjects, shop.pictures, WORKERS, shop.guidance)
    write_figures(figures, shop.output / "evaluation.json")
    drawn = generate_all(shop.exported, SAMPLE_PROMPTS, SAMPLE_SEEDS, shop.guidance, WORKERS)
    samples = sample_sheet([to_image(picture) for picture in drawn])
    samples.quantize(192).save(shop.output / "samples.png", optimize=True)
    sheet.save(shop.run_dir / "evaluation.png")
    print(json.dumps(figures, indent=2, ensure_ascii=False))
