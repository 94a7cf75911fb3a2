"""The choice of the model's own defaults, and the samples that are drawn with them."""

from training.emoji.defaults import compare, header
from training.emoji.evaluate import write_figures
from training.emoji.pictures import PICTURE_SIZE, to_image
from training.emoji.samples import SAMPLE_PROMPTS, SAMPLE_SEEDS, sample_sheet
from training.emoji.workshop import Workshop

SHOWN_AXIS = "guidance_scale"
"""The axis whose sheet is published; the others are in the run's folder."""


def choose(shop: Workshop) -> None:
    """Compare sampling settings; write `defaults.json` and `defaults.webp`. `drawing.json` is written by hand."""
    from training.emoji.evidence_studio import Studio

    figures = header()
    shop.run_dir.mkdir(parents=True, exist_ok=True)
    with Studio(shop.output, figures["base"]["steps"], figures["base"]["guidance_scale"]) as studio:
        for axis, found, sheet in compare(studio, shop.subjects, shop.pictures):
            figures[axis] = found
            sheet.save(shop.run_dir / f"defaults-{axis}.png")
            if axis == SHOWN_AXIS:
                sheet.save(shop.output / "defaults.webp", quality=90)
            write_figures(figures, shop.output / "defaults.json")


def show(shop: Workshop) -> None:
    """Draw the samples with the defaults of `drawing.json`; write `samples.png`."""
    from training.emoji.evidence_studio import Studio
    from triton_diffusers.api.request import ModelDefaults
    from triton_diffusers.inflight.drawing_file import DrawingFile

    chosen = DrawingFile.read(shop.output).defaults(ModelDefaults(side=PICTURE_SIZE))
    with Studio(shop.output, chosen.steps, chosen.guidance_scale) as studio:
        drawn = studio.draw(
            [
                {"prompt": prompt, "seed": seed, "scheduler": chosen.scheduler}
                for prompt, seed in zip(SAMPLE_PROMPTS, SAMPLE_SEEDS, strict=True)
            ]
        )
    sample_sheet([to_image(picture) for picture in drawn]).save(shop.output / "samples.png", optimize=True)
