"""The ControlNets, one for each control."""

from diffusers import ControlNetModel

from training.emoji.backgrounds import BACKGROUNDS
from training.emoji.captions import evaluation_caption
from training.emoji.controlled import controlled_pipeline, generate_controlled
from training.emoji.controlnet import train_controlnet, write_controlnet
from training.emoji.controls import Control
from training.emoji.evaluate import load_pipeline
from training.emoji.pictures import to_image
from training.emoji.run import Run
from training.emoji.sheet import make_sheet
from training.emoji.views import build_view_cache, draw_views, held_out
from training.emoji.workshop import WORKERS, Workshop

SAMPLES, SAMPLE_EVERY = 8, 300
"""Pictures on a sheet, and the iterations between two sheets."""


def train(shop: Workshop, control: Control) -> None:
    """Train a ControlNet on the exported pipeline; export it at every checkpoint, draw a sheet every so often."""
    pipeline = load_pipeline(shop.exported)
    run = Run(shop.run_dir, control.stage)
    subjects, pictures = shop.subjects, shop.pictures
    cache = build_view_cache(pipeline, subjects, pictures, shop.captioner(4), shop.run_dir / "views.pt", WORKERS)
    views = draw_views(held_out(len(subjects))[:SAMPLES], 1, seed=1)
    shown = views.show(pictures)
    prompts = [
        evaluation_caption(subjects[which], BACKGROUNDS[where])
        for which, where in zip(views.subjects.tolist(), views.backgrounds.tolist(), strict=True)
    ]

    def on_checkpoint(trained: ControlNetModel, step: int) -> None:
        write_controlnet(shop.output / control.folder, trained)
        if step % SAMPLE_EVERY == 0 or step == control.iterations:
            painted = control.paint(shown)
            drawer = controlled_pipeline(pipeline, trained)
            drawn = generate_controlled(drawer, prompts, painted, range(SAMPLES), shop.guidance)
            rows = [to_image(picture) for picture in (*shown, *(painted * 2.0 - 1.0), *drawn)]
            make_sheet(rows, columns=SAMPLES).save(run.folder / f"sample-{step:06}.png")

    train_controlnet(run, pipeline.unet, cache, pictures, control, on_checkpoint)
