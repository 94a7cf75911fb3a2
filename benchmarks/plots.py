"""The benchmarks' pictures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

_COLOURS = ("#1f77b4", "#d95f02")


def plot_serving(path: Path, systems: Mapping[str, Any]) -> None:
    """Draw the distribution of short requests' latencies, and bars of percentiles and throughput.

    ``systems`` are the figures by label, as ``benchmarks.serving`` writes them.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import FormatStrFormatter

    plain = FormatStrFormatter("%g")
    figure, (distribution, bars, throughput) = pyplot.subplots(
        1, 3, figsize=(13, 4), width_ratios=(5, 5, 2), layout="constrained"
    )
    for (label, figures), colour in zip(systems.items(), _COLOURS, strict=True):
        values = figures["poisson"]["short"]["values"]
        shares = [index / len(values) for index in range(len(values) + 1)]
        distribution.step([*values[:1], *values], shares, where="post", label=label, color=colour)
    distribution.set(
        xscale="log", xlabel="latency, seconds", ylabel="share of requests", ylim=(0, 1), title="Short requests"
    )
    distribution.xaxis.set_major_formatter(plain)
    distribution.grid(alpha=0.3, which="both")
    distribution.legend(loc="lower right", fontsize="small")

    columns = [("short", "p50"), ("short", "p95"), ("long", "p50"), ("long", "p95")]
    for place, ((label, figures), colour) in enumerate(zip(systems.items(), _COLOURS, strict=True)):
        heights = [figures["poisson"][kind][name] for kind, name in columns]
        drawn = bars.bar([x + 0.4 * place for x in range(len(columns))], heights, 0.38, label=label, color=colour)
        bars.bar_label(drawn, fmt="%.2g", fontsize="small")
    bars.set(yscale="log", ylabel="latency, seconds", title="Latency under the same load")
    bars.yaxis.set_major_formatter(plain)
    bars.set_xticks([x + 0.2 for x in range(len(columns))], [f"{kind} {name}" for kind, name in columns])

    rates = [figures["saturated"]["image_steps_per_second"] for figures in systems.values()]
    throughput.bar_label(throughput.bar(range(len(rates)), rates, color=_COLOURS), fmt="%.3g", fontsize="small")
    throughput.set(ylabel="image steps per second", title="Saturated")
    throughput.set_xticks(range(len(rates)), [label.replace(" ", "\n", 1) for label in systems], fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def plot_engines(path: Path, contenders: Mapping[str, Any]) -> None:
    """Draw bars of seconds per step and of memory; ``contenders`` are figures as ``benchmarks.engines`` writes them."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    found = list(contenders.values())[::-1]
    labels = [figures["label"] for figures in found]
    colours = [_COLOURS[not name.startswith("ours")] for name in list(contenders)[::-1]]
    figure, (steps, memory) = pyplot.subplots(
        1, 2, figsize=(13, 1.2 + 0.4 * len(found)), sharey=True, layout="constrained"
    )
    seconds = [figures["step_seconds"]["median"] for figures in found]
    steps.bar_label(steps.barh(labels, seconds, color=colours), fmt="%.2f", fontsize="small", padding=2)
    steps.set(xlabel="seconds per step", title="Time (less is better)")
    peaks = [figures["peak_bytes"] / 2**30 for figures in found]
    memory.bar_label(memory.barh(labels, peaks, color=colours), fmt="%.2f", fontsize="small", padding=2)
    memory.set(xlabel="GiB resident at most", title="Memory (less is better)")
    for axes in (steps, memory):
        axes.margins(x=0.12)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
