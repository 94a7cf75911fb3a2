"""Seconds per step, per image, and memory of the engines and of their peers on a model of Stable Diffusion 1.5's shape.

``python -m benchmarks.engines`` prepares what is missing, then measures; see ``docs/benchmarks.md``.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.contenders.turn import Measured, Turn
from benchmarks.engines_contenders import CONTENDERS, Setting
from benchmarks.engines_report import Pair, add_ratios, figures_of, note, psnr, step_seconds, table
from benchmarks.engines_workshop import NotPrepared, Workshop
from benchmarks.plots import plot_engines
from benchmarks.random_model import SD15, TINY
from benchmarks.report import RESULTS, Progress, machine, warn_if_busy, write_json
from benchmarks.servers import end_on_sigterm
from triton_diffusers.settings import Settings

_PROMPT = "a red apple on a blue background"
_GUIDANCE = 7.5
_SEED = 1
_PIXELS_PER_LATENT = 8
# Steps to compare settings by: two times between two ends.
_TRIAL_STEPS = 3
# Between two turns, so that what one leaves behind is over.
_PAUSE = 1.0


@dataclass(frozen=True)
class Plan:
    """Options of the command line; ``limit`` is in seconds, for one image."""

    shape: str
    side: int
    steps: int
    rounds: int
    limit: float


class Bench:
    """Has contenders draw, each in a process of its own, and by turns with the one that it is compared with."""

    def __init__(self, plan: Plan, workshop: Workshop, folder: Path, say: Progress) -> None:
        self._plan = plan
        self._workshop = workshop
        self._folder = folder
        self._say = say
        self._ready: dict[str, list[Setting]] = {}
        self._missing: dict[str, str] = {}

    def run(self) -> dict[str, Any]:
        """Measure the contenders that are prepared; returns the figures."""
        settings = self._fastest_settings()
        turns: dict[str, list[Measured]] = {name: [] for name in settings}
        pairs: dict[str, list[Pair]] = {name: [] for name in settings}
        for number in range(self._plan.rounds):
            heats = _heats([name for name in settings if name not in self._missing])
            for heat in heats if number % 2 == 0 else reversed(heats):
                asked = [(name, settings[name]) for name in heat if name not in self._missing]
                self._say(f"round {number + 1} of {self._plan.rounds}: {CONTENDERS[heat[-1]].label}")
                taken = self._draw(asked, self._plan.steps)
                for (name, _), measured in zip(asked, taken, strict=True):
                    if measured is not None:
                        turns[name].append(measured)
                        per_step = median(step_seconds(CONTENDERS[name], measured))
                        self._say(f"  {per_step:.3f} s per step, {measured.image:.1f} s per image: {name}")
                match taken:
                    case [Measured() as beside, Measured() as own]:
                        pairs[heat[-1]].append((beside, own))
        contenders = {}
        for name, own_turns in turns.items():
            if name in self._missing:
                continue
            try:
                alike = psnr(self._picture(name), self._picture(CONTENDERS[name].beside))
            except ValueError as error:
                self._leave_out(name, error)
                continue
            contenders[name] = figures_of(CONTENDERS[name], settings[name], own_turns, alike)
        add_ratios(contenders, pairs)
        return {"workload": asdict(self._plan), "contenders": contenders, "missing": self._missing}

    def prepare(self, names: Sequence[str]) -> None:
        """Make what is missing for these contenders; who cannot be prepared is left out of what follows."""
        self._workshop.make_model()
        for name in names:
            try:
                self._ready[name] = self._workshop.prepare(CONTENDERS[name])
            except NotPrepared as error:
                self._leave_out(name, error)

    def _fastest_settings(self) -> dict[str, Setting]:
        """Each contender's setting; of several the one that draws a whole image soonest, tried two at a time."""
        chosen = {}
        for name, settings in self._ready.items():
            best, works = settings[0], len(settings) == 1
            for other in settings[1:]:
                self._say(f"{CONTENDERS[name].label}: trying {_described(best)} and {_described(other)}")
                first, second = self._draw([(name, best), (name, other)], _TRIAL_STEPS)
                works |= first is not None or second is not None
                found = (f"{median(tried.steps):.3f} s" if tried else "failed" for tried in (first, second))
                self._say(f"  per step: {', '.join(found)}")
                if second is not None and (first is None or self._expected(second) < self._expected(first)):
                    best = other
            if works:
                self._missing.pop(name, None)  # a setting that does not work is not a reason
                chosen[name] = best
        return chosen

    def _expected(self, tried: Measured) -> float:
        """Seconds for a whole image, from a trial."""
        return tried.image + (self._plan.steps - _TRIAL_STEPS) * median(tried.steps)

    def _draw(self, asked: Sequence[tuple[str, Setting]], steps: int) -> list[Measured | None]:
        """Return a picture by each, by turns; None for who failed, which is written down."""
        time.sleep(_PAUSE)
        runs, answers = [], []
        for place, (name, setting) in enumerate(asked):
            file, answer = self._folder / f"turn-{place}.json", self._folder / f"measured-{place}.json"
            file.write_text(json.dumps(asdict(self._turn(name, setting, steps))), encoding="utf-8")
            runs.append((CONTENDERS[name], [str(file), str(answer)]))
            answers.append(answer)
        taken: list[Measured | None] = []
        failures = self._workshop.run(runs, self._plan.limit)
        for (name, _), answer, failure in zip(asked, answers, failures, strict=True):
            if failure is None:
                taken.append(Measured(**json.loads(answer.read_text(encoding="utf-8"))))
            else:
                self._leave_out(name, failure)
                taken.append(None)
        return taken

    def _turn(self, name: str, setting: Setting, steps: int) -> Turn:
        return Turn(
            model=str(self._workshop.model),
            artifact=str(self._workshop.artifact(setting.artifact) or ""),
            noise=str(self._noise()),
            control=str(self._control()),
            picture=str(self._picture(name)),
            prompt=_PROMPT,
            guidance=_GUIDANCE,
            seed=_SEED,
            side=self._plan.side,
            steps=steps,
            warm_up=True,
            options=setting.options,
        )

    def _noise(self) -> Path:
        """Return the first latents, as a generator of the engine loop draws them from the seed."""
        import torch

        path = self._folder / "noise.npy"
        if not path.exists():
            side = self._plan.side // _PIXELS_PER_LATENT
            generator = torch.Generator().manual_seed(_SEED)
            np.save(path, torch.randn(1, 4, side, side, generator=generator).numpy())
        return path

    def _control(self) -> Path:
        """Return a picture of the size, for ControlNets: a ramp."""
        path, side = self._folder / "control.png", self._plan.side
        if not path.exists():
            ramp = np.linspace(0, 255, side, dtype=np.uint8)
            Image.fromarray(np.broadcast_to(ramp[None, :, None], (side, side, 3)).copy()).save(path)
        return path

    def _picture(self, name: str) -> Path:
        return self._folder / f"{name}.png"

    def _leave_out(self, name: str, error: Exception) -> None:
        self._missing[name] = str(error)
        self._say(f"warning: {CONTENDERS[name].label} is left out: {error}")


def main() -> None:
    """Return the command line."""
    options = _parser().parse_args()
    end_on_sigterm()
    say = Progress()
    shape = TINY if options.tiny else SD15
    plan = Plan(
        shape=shape.name,
        side=options.side or shape.side,
        steps=options.steps,
        rounds=options.rounds,
        limit=options.limit,
    )
    names = [name for name in CONTENDERS if not options.only or name in options.only]
    if options.tiny:
        names = [name for name in names if CONTENDERS[name].tiny]
    with tempfile.TemporaryDirectory(prefix="triton-diffusers-bench-") as folder:
        bench = Bench(plan, Workshop(options.folder.absolute(), shape, plan.side, say), Path(folder), say)
        bench.prepare(names)
        if options.prepare:
            return
        described = machine()
        warn_if_busy(described, say)
        figures: dict[str, Any] = {"machine": described, **bench.run()}
    if not figures["contenders"]:
        raise SystemExit("nothing could be measured")
    name = "engines-tiny" if options.tiny else "engines"
    write_json(options.out / f"{name}.json", figures)
    plot_engines(options.out / f"{name}.png", figures["contenders"])
    print(table(figures), note(figures), sep="\n\n")


def _heats(names: Collection[str]) -> list[tuple[str, ...]]:
    """Return the contenders that take turns: each with its baseline, or alone if it has none."""
    heats: list[tuple[str, ...]] = []
    compared = {CONTENDERS[name].beside for name in names if CONTENDERS[name].beside != name}
    for name in names:
        beside = CONTENDERS[name].beside
        if beside != name and beside in names:
            heats.append((beside, name))
        elif name not in compared:
            heats.append((name,))
    return heats


def _described(setting: Setting) -> str:
    named = [f"{name}: {value}" for name, value in setting.options.items()]
    return ", ".join([*filter(None, [setting.artifact]), *named])


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in CONTENDERS:
            raise argparse.ArgumentTypeError(f"{name}: known are {', '.join(CONTENDERS)}")
    return names


def _side(text: str) -> int:
    side = int(text)
    if side <= 0 or side % 64:
        raise argparse.ArgumentTypeError(f"{text}: a multiple of 64 is expected")
    return side


def _steps(text: str) -> int:
    steps = int(text)
    if steps < 2:
        raise argparse.ArgumentTypeError(f"{text}: at least 2, to have a time between the ends of two")
    return steps


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engines", description=__doc__)
    add = parser.add_argument
    cache = Settings().cache_dir.expanduser() / "engines"
    add("--only", type=_names, metavar="NAMES", help=f"with commas; of {', '.join(CONTENDERS)} (default: all)")
    add("--rounds", type=int, default=3, help="images of each contender (default: %(default)s)")
    add("--steps", type=_steps, default=20, help="of each image (default: %(default)s)")
    add("--side", type=_side, help="of the image, in pixels (default: the model's, 512)")
    add("--tiny", action="store_true", help="a model that takes no time and gives no figures: to try the benchmark")
    add("--prepare", action="store_true", help="install and convert what is missing, and measure nothing")
    add("--folder", type=Path, default=cache, metavar="DIR", help="for environments and models (default: %(default)s)")
    add("--limit", type=float, default=1800.0, metavar="SECONDS", help="for one picture (default: %(default)g)")
    add("--out", type=Path, default=RESULTS, metavar="DIR", help="results folder (default: benchmarks/results)")
    return parser


if __name__ == "__main__":
    main()
