"""Figures, ratios and the table of ``benchmarks.engines``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.contenders.turn import Measured
from benchmarks.engines_contenders import CONTENDERS, DEFAULT, Contender, Setting
from benchmarks.figures import spread
from benchmarks.report import machine_line, markdown_table

_GIB = 2**30
Pair = tuple[Measured, Measured]
"""Turns of whom a contender stands beside, and of itself, taken step by step in alternation."""
BEST_EAGER = "eager"


def figures_of(contender: Contender, setting: Setting, rounds: Sequence[Measured], picture: float) -> dict[str, Any]:
    """Return a contender's figures from its turns; ``picture`` is its image's PSNR against the default's, in dB."""
    steps = [seconds for measured in rounds for seconds in step_seconds(contender, measured)]
    images = [measured.image for measured in rounds]
    return {
        "label": contender.label,
        "precision": contender.precision,
        "setting": {"artifact": setting.artifact, **setting.options},
        "packages": dict(rounds[-1].packages),
        "step_seconds": {**spread(steps), "values": [round(value, 4) for value in steps]},
        "image_seconds": {**spread(images), "values": [round(value, 3) for value in images]},
        "beside_steps": median(
            image - (len(m.steps) + 1) * median(step_seconds(contender, m))
            for image, m in zip(images, rounds, strict=True)
        )
        / median(images),
        "after_steps_seconds": median(measured.after for measured in rounds),
        "ready_seconds": median(measured.ready for measured in rounds),
        "warm_up_seconds": median(measured.warm_up for measured in rounds),
        "peak_bytes": max(measured.peak for measured in rounds),
        "peak_drawing_bytes": max(measured.peak_drawing for measured in rounds),
        "mapped_bytes": max(measured.mapped for measured in rounds),
        "psnr_db": None if math.isnan(picture) else round(picture, 1),
    }


def step_seconds(contender: Contender, measured: Measured) -> Sequence[float]:
    """Seconds of a turn's steps; of uneven ones their average, with all that comes before the first."""
    if contender.even:
        return measured.steps
    return [(measured.image - measured.after) / (len(measured.steps) + 1)]


def psnr(picture: Path, reference: Path) -> float:
    """Likeness of two pictures in dB, at most 100; NaN if one is missing. Raises ``ValueError`` for a blank one."""
    if not (picture.exists() and reference.exists()):
        return math.nan
    first, second = (np.asarray(Image.open(path).convert("RGB"), np.float64) for path in (picture, reference))
    if first.std() == 0.0:
        raise ValueError(f"{picture.stem} has drawn a blank picture")
    error = float(np.mean((first - second) ** 2))
    return 100.0 if error == 0 else min(100.0, 10 * math.log10(255**2 / error))


def add_ratios(contenders: Mapping[str, dict[str, Any]], pairs: Mapping[str, Sequence[Pair]]) -> None:
    """Beside each contender's figures, how many times as fast it is as others, and its share of memory.

    ``pairs`` are turns that were taken together with whom it stands beside. Its speed beside somebody else is what
    both have beside a third.
    """
    for name, figures in contenders.items():
        found = [pair_ratios(CONTENDERS[name], pair) for pair in pairs.get(name, ())]
        figures["faster"] = {
            "step_seconds": [ratio for steps, _ in found for ratio in steps],
            "image_seconds": [image for _, image in found],
        }
    for name, figures in contenders.items():
        ratios = figures["ratios"] = {}
        for other in dict.fromkeys((CONTENDERS[name].beside, DEFAULT, BEST_EAGER)):
            if other not in contenders:
                continue
            for what in ("step_seconds", "image_seconds"):
                (root, speed), (same, others) = _speed(contenders, name, what), _speed(contenders, other, what)
                if root == same:
                    ratios[f"{what}_{other}"] = speed / others
            for what in ("peak_bytes", "peak_drawing_bytes"):
                ratios[f"{what}_{other}"] = figures[what] / contenders[other][what]


def pair_ratios(contender: Contender, pair: Pair) -> tuple[Sequence[float], float]:
    """How many times as fast the second was, by steps that were made one after the other, and by the image."""
    beside, own = pair
    image = beside.image / own.image
    if not contender.even:
        return [median(beside.steps) / step_seconds(contender, own)[0]], image
    return [theirs / ours for theirs, ours in zip(beside.steps, own.steps, strict=True)], image


def _speed(contenders: Mapping[str, Mapping[str, Any]], name: str, what: str) -> tuple[str, float]:
    """Whom a contender stands beside, directly or by others, and how many times as fast it is."""
    ratios = contenders[name]["faster"][what]
    if not ratios:
        return name, 1.0
    beside, others = _speed(contenders, CONTENDERS[name].beside, what)
    return beside, others * median(ratios)


def table(figures: Mapping[str, Any]) -> str:
    """Return the figures as Markdown."""
    header = (
        "",
        "precision",
        "s per step",
        "quartiles",
        f"s per image of {figures['workload']['steps']} steps",
        "faster per step",
        "peak memory (GiB)",
        "of it drawing",
        "share",
        "ready after (s)",
    )
    return markdown_table(header, [_row(name, found) for name, found in figures["contenders"].items()])


def _row(name: str, found: Mapping[str, Any]) -> tuple[str, ...]:
    step, ratios, beside = found["step_seconds"], found["ratios"], CONTENDERS[name].beside
    faster, share = ratios.get(f"step_seconds_{beside}"), ratios.get(f"peak_bytes_{beside}")
    return (
        found["label"],
        found["precision"],
        f"{step['median']:.3f}",
        f"{step['quartile_1']:.3f} … {step['quartile_3']:.3f}",
        f"{found['image_seconds']['median']:.1f}",
        "" if faster is None else f"{faster:.2f}×",
        f"{found['peak_bytes'] / _GIB:.2f}",
        f"{found['peak_drawing_bytes'] / _GIB:.2f}",
        "" if share is None else f"{share:.0%}",
        f"{found['ready_seconds']:.0f}",
    )


def note(figures: Mapping[str, Any]) -> str:
    """Return the circumstances of the figures, and who is missing."""
    load = figures["workload"]
    missing = "; ".join(f"{CONTENDERS[name].label}: {_first_line(why)}" for name, why in figures["missing"].items())
    return (
        f"{load['side']}×{load['side']} pixels, one image with guidance (2 rows in the UNet), {load['rounds']} "
        f"{'round' if load['rounds'] == 1 else 'rounds'}, "
        f"the model's shape: {load['shape']}. {machine_line(figures['machine'])}."
        + (f"\n\nNot measured: {missing}." if missing else "")
    )


def _first_line(text: str) -> str:
    return text.splitlines()[0] if text else "no reason given"
