"""The exported pipeline: written, and taken up again."""

import json
import shutil

from training.emoji.evaluate import load_pipeline
from training.emoji.run import Run
from training.emoji.workshop import Workshop


def export(shop: Workshop) -> None:
    """Write the pipeline as far as it is trained."""
    shop.export()


def adopt(shop: Workshop) -> None:
    """Begin a run with the exported weights, so that `unet` and `decoder` train on from them."""
    if (shop.run_dir / "unet").exists():
        raise SystemExit(f"{shop.run_dir} holds a run already; give another --run-dir")
    pipeline = load_pipeline(shop.exported)
    shutil.copytree(shop.exported / "tokenizer", shop.run_dir / "tokenizer")
    unet = pipeline.unet.state_dict()
    average = [parameter.detach() for parameter in pipeline.unet.parameters()]
    # Its optimizer's state was not exported: the schedule begins again, and with it the warm-up.
    Run(shop.run_dir, "unet").save({"model": unet, "ema": average, "step": 0})
    for stage, part in {"vae": pipeline.vae, "text": pipeline.text_encoder, "safety": pipeline.safety_checker}.items():
        Run(shop.run_dir, stage).save({"model": part.state_dict()})
    (shop.run_dir / "vae" / "scaling_factor.json").write_text(json.dumps(pipeline.vae.config.scaling_factor))
