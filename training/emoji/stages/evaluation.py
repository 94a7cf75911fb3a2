"""The evaluation of the exported pipeline."""

import json

from training.emoji.evaluate import evaluate, write_figures
from training.emoji.workshop import WORKERS, Workshop


def measure(shop: Workshop) -> None:
    """Measure the exported pipeline; write `evaluation.json` and the sheet of all subjects."""
    figures, sheet = evaluate(shop.exported, shop.subjects, shop.pictures, WORKERS, shop.guidance)
    write_figures(figures, shop.output / "evaluation.json")
    sheet.save(shop.run_dir / "evaluation.png")
    print(json.dumps(figures, indent=2, ensure_ascii=False))
