"""`python -m training.translator <stage>`: trains and exports the embedded translator."""

import argparse
from pathlib import Path

import torch

from training.emoji.assets import DEFAULT_CACHE
from training.translator.stages import STAGES, Workshop

RUN = Path("training/translator/runs/default")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m training.translator", description=__doc__)
    parser.add_argument("stage", choices=[*STAGES, "all"])
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE, help="the training data, fetched if missing")
    parser.add_argument("--run-dir", type=Path, default=RUN, help="checkpoints, logs")
    parser.add_argument("--output", type=Path, default=Path("models/translator"), help="where the model is written")
    parser.add_argument("--iterations", type=int, default=1000)
    parser.add_argument("--emoji", type=Path, default=Path("models/emoji"), help="the model that draws the subjects")
    parser.add_argument("--subjects", type=int, help="draw only so many of them, and write no figures: to try it")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    shop = Workshop(
        cache=arguments.cache,
        run_dir=arguments.run_dir,
        output=arguments.output,
        iterations=arguments.iterations,
        emoji=arguments.emoji,
        subjects=arguments.subjects,
    )
    for name in STAGES if arguments.stage == "all" else [arguments.stage]:
        STAGES[name](shop)


if __name__ == "__main__":
    main()
