"""`python -m training.emoji <stage>`: trains and exports the emoji model."""

import argparse
from pathlib import Path

import torch

from training.emoji.assets import DEFAULT_CACHE
from training.emoji.evaluate import GUIDANCE
from training.emoji.stages import STAGES, TRAINING
from training.emoji.workshop import Iterations, Workshop


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m training.emoji", description=__doc__)
    parser.add_argument("stage", choices=[*STAGES, "all"])
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE, help="the training data, fetched if missing")
    parser.add_argument("--run-dir", type=Path, default=Path("training/emoji/runs/default"), help="checkpoints, logs")
    parser.add_argument("--output", type=Path, default=Path("models/emoji"), help="where base_model/ is written")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--vae-iterations", type=int, default=2700)
    parser.add_argument("--text-iterations", type=int, default=1500)
    parser.add_argument("--unet-iterations", type=int, default=10000)
    parser.add_argument("--decoder-iterations", type=int, default=3000)
    parser.add_argument("--safety-iterations", type=int, default=300)
    parser.add_argument("--export-every", type=int, default=2000, help="UNet iterations between interim exports")
    parser.add_argument("--guidance", type=float, default=GUIDANCE, help="guidance scale of the evaluation")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    shop = Workshop(
        cache=arguments.cache,
        run_dir=arguments.run_dir,
        output=arguments.output,
        iterations=Iterations(
            vae=arguments.vae_iterations,
            text=arguments.text_iterations,
            unet=arguments.unet_iterations,
            decoder=arguments.decoder_iterations,
            safety=arguments.safety_iterations,
        ),
        export_every=arguments.export_every,
        guidance=arguments.guidance,
    )
    shop.assets.fetch()
    for name in TRAINING if arguments.stage == "all" else [arguments.stage]:
        STAGES[name](shop)


if __name__ == "__main__":
    main()
