"""Likeness and speed of each sampling profile and each compiled engine, on the embedded model.

``python -m benchmarks.profiles`` draws the evaluation's subjects by the engine loop, eagerly with each profile and by
artifacts, which it builds, with ``exact``; and compares all with what eager ``exact`` drew, see ``docs/profiles.md``.
The subjects' own pictures come from the training's cache.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch
from PIL import Image

from benchmarks.engines_contenders import FAST
from benchmarks.likeness import ssim_of
from benchmarks.report import RESULTS, Progress, machine, machine_line, markdown_table, warn_if_busy, write_json
from benchmarks.servers import MODEL_DIR
from triton_diffusers.api.request import GenerationRequest
from triton_diffusers.compile.report import psnr_of
from triton_diffusers.inflight.loop import EngineLoop
from triton_diffusers.optimize.choice import EngineChoice
from triton_diffusers.sampling.profiles import EXACT, PROFILES, Profile
from triton_diffusers.settings import Settings

_SIDE = 128
_GUIDANCE = 7.0
_PATIENCE = 3600.0
_SHOWN = 12  # subjects of the sheet
_TIMED = 5  # pictures that are drawn alone


class ProfileBench:
    """Draws with one loop."""

    def __init__(self, loop: EngineLoop, prompts: Sequence[str], steps: int) -> None:
        self._loop = loop
        self._prompts = prompts
        self._steps = steps

    def pictures(self, profile: Profile) -> list[Image.Image]:
        """Return a picture for each prompt, its number being the seed."""
        jobs = [self._loop.submit(self._request(number, profile)) for number in range(len(self._prompts))]
        return [self._picture(job) for job in jobs]

    def seconds(self, profile: Profile, number: int) -> float:
        """Seconds for a picture that is drawn alone."""
        began = time.perf_counter()
        self._picture(self._loop.submit(self._request(number, profile)))
        return time.perf_counter() - began

    def _picture(self, job: Any) -> Image.Image:
        self._loop.wait([job], _PATIENCE)
        if job.result is None:
            raise RuntimeError(f"a request failed: {job.error}")
        return Image.open(BytesIO(job.result.images[0])).convert("RGB")

    def _request(self, number: int, profile: Profile) -> GenerationRequest:
        return GenerationRequest(
            task_id="bench",
            prompt=self._prompts[number % len(self._prompts)],
            steps=self._steps,
            guidance_scale=_GUIDANCE,
            width=_SIDE,
            height=_SIDE,
            seed=number,
            profile=profile,
            embed_metadata=False,
        )


@dataclass(frozen=True)
class Way:
    """A row of the table: by which loop, with which profile."""

    name: str
    bench: ProfileBench
    profile: Profile


def likeness(pictures: Sequence[Image.Image], exact: Sequence[Image.Image]) -> dict[str, float]:
    """How much pictures are like those of ``exact``, in pairs."""
    ratios = [psnr_of(one, other) for one, other in zip(pictures, exact, strict=True)]
    return {
        "psnr_db_median": round(median(ratios), 2),
        "psnr_db_lowest": round(min(ratios), 2),
        "ssim_mean": round(fmean(ssim_of(one, other) for one, other in zip(pictures, exact, strict=True)), 4),
    }


def top1(pictures: Sequence[Image.Image], wanted: torch.Tensor) -> float:
    """Return the share of pictures whose nearest subject is their own; the first pictures are of the first subjects."""
    from training.emoji.evaluate import rank_of_truth
    from training.emoji.pictures import from_image

    ranks = rank_of_truth(torch.stack([from_image(picture) for picture in pictures]), wanted)
    return round(float((ranks == 0).float().mean()), 4)


def relative_seconds(ways: Sequence[Way], rounds: int) -> dict[str, dict[str, float]]:
    """Seconds of single pictures, all ways in turns, and the median ratio to ``exact``."""
    taken: dict[str, list[float]] = {way.name: [] for way in ways}
    for number in range(rounds):
        for way in ways if number % 2 == 0 else reversed(ways):
            taken[way.name].append(way.bench.seconds(way.profile, number))
    return {
        name: {
            "seconds": round(median(seconds), 3),
            "relative": round(median(a / b for a, b in zip(seconds, taken[EXACT.name], strict=True)), 3),
        }
        for name, seconds in taken.items()
    }


def table(figures: Mapping[str, Any]) -> str:
    """Return the figures as Markdown."""
    rows = [
        (
            f"`{name}`",
            f"{found['psnr_db_median']:.1f}" if name != EXACT.name else "",
            f"{found['psnr_db_lowest']:.1f}" if name != EXACT.name else "",
            f"{found['ssim_mean']:.3f}" if name != EXACT.name else "",
            f"{found['top1']:.1%}",
            f"{found['relative']:.2f}",
        )
        for name, found in figures["profiles"].items()
    ]
    header = ("", "PSNR (dB), median", "lowest", "SSIM, mean", "top-1", "time of a picture, `exact` = 1")
    return markdown_table(header, rows)


def note(figures: Mapping[str, Any]) -> str:
    """Return the circumstances of the figures."""
    load = figures["workload"]
    return (
        f"{load['subjects']} subjects of the embedded model, {load['steps']} steps, guidance {_GUIDANCE:g}; profiles by"
        f" the eager engine in float32, compiled engines with `exact`. {machine_line(figures['machine'])}."
    )


def main() -> None:
    """Return the command line."""
    options = _parser().parse_args()
    say = Progress()
    described = machine()
    warn_if_busy(described, say)
    prompts, wanted = _subjects(options.subjects, options.cache)
    artifacts = [name for name in options.artifacts.split(",") if name]
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        shutil.copytree(MODEL_DIR / "base_model", folder / "base_model")
        ways = []
        for engine in ("eager", *artifacts):
            if engine != "eager":
                say(f"building {engine}")
                _build(folder, engine)
            loop = stack.enter_context(_loop(folder, engine))
            bench = ProfileBench(loop, prompts, options.steps)
            profiles = PROFILES.values() if engine == "eager" else [EXACT]
            ways += [Way(profile.name if engine == "eager" else engine, bench, profile) for profile in profiles]
        found: dict[str, dict[str, float]] = {}
        drawn: dict[str, list[Image.Image]] = {}
        for way in ways:
            say(f"drawing {len(prompts)} subjects: {way.name}")
            drawn[way.name] = way.bench.pictures(way.profile)
            found[way.name] = {
                **likeness(drawn[way.name], drawn[EXACT.name]),
                "top1": top1(drawn[way.name], wanted),
            }
        say("timing single pictures")
        for name, taken in relative_seconds(ways, options.rounds).items():
            found[name] |= taken
    workload = {"subjects": len(prompts), "steps": options.steps}
    figures = {"machine": described, "workload": workload, "profiles": found}
    write_json(options.out / "profiles.json", figures)
    _sheet(drawn).save(options.out / "profiles.png")
    print(table(figures), note(figures), sep="\n\n")


@contextlib.contextmanager
def _loop(model_dir: Path, engine: str) -> Iterator[EngineLoop]:
    with tempfile.TemporaryDirectory() as runtime:
        settings = Settings(
            model_dir=model_dir,
            runtime_dir=Path(runtime),
            engine=engine,
            dtype="float32",
            store="",
            close_safety=True,
            max_queue=10_000,
        )
        choice = EngineChoice(settings)
        loop = EngineLoop(choice.make, settings, name="sd_base")
        loop.start()
        try:
            if choice.made != engine:
                raise SystemExit(f"{engine} is asked for, {choice.made} is what there is")
            yield loop
        finally:
            loop.stop()


def _build(model_dir: Path, artifact: str) -> None:
    engine, _, precision = artifact.partition("-")
    command = [sys.executable, "-m", "triton_diffusers", "build", "--model", str(model_dir)]
    subprocess.run([*command, "--engine", engine, "--precision", precision], check=True)


def _subjects(count: int, cache: Path) -> tuple[list[str], torch.Tensor]:
    """Prompts of some subjects, and all subjects as the evaluation compares with them, those that are drawn first."""
    from training.emoji.assets import Assets
    from training.emoji.backgrounds import WHITE
    from training.emoji.captions import evaluation_caption
    from training.emoji.evaluate import references
    from training.emoji.pictures import load_pictures
    from training.emoji.subjects import load_subjects

    assets, subjects = Assets(cache), load_subjects()
    assets.fetch()
    pictures = load_pictures([assets.picture_path(subject.hexcode) for subject in subjects])
    chosen = range(len(subjects))[:: len(subjects) // count if 0 < count < len(subjects) else 1][: count or None]
    order = [*chosen, *sorted({*range(len(subjects))} - {*chosen})]
    return [evaluation_caption(subjects[index], WHITE) for index in chosen], references(pictures[order])


def _sheet(drawn: Mapping[str, Sequence[Image.Image]]) -> Image.Image:
    """Return the first subjects, a row for each way."""
    from training.emoji.sheet import make_sheet

    columns = min(_SHOWN, *(len(pictures) for pictures in drawn.values()))
    shown = [picture for pictures in drawn.values() for picture in pictures[:columns]]
    return make_sheet(shown, [name for name in drawn for _ in range(columns)], columns)


def _parser() -> argparse.ArgumentParser:
    from training.emoji.assets import DEFAULT_CACHE

    parser = argparse.ArgumentParser(prog="python -m benchmarks.profiles", description=__doc__)
    add = parser.add_argument
    add("--subjects", type=int, default=0, metavar="N", help="of all, spread evenly (default: all)")
    add("--steps", type=int, default=20, help="of each picture (default: %(default)s)")
    add(
        "--artifacts",
        default=f"openvino-{FAST},openvino-int8",
        metavar="NAMES",
        help="built and drawn by, too, with commas between them (default: %(default)s)",
    )
    add("--rounds", type=int, default=_TIMED, help="single pictures of each that are timed (default: %(default)s)")
    add("--cache", type=Path, default=DEFAULT_CACHE, metavar="DIR", help="the training data, fetched if missing")
    add("--out", type=Path, default=RESULTS, metavar="DIR", help="results folder (default: benchmarks/results)")
    return parser


if __name__ == "__main__":
    main()
