"""Figures from measurements."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from benchmarks.load import Outcome


def percentile(values: Sequence[float], per_cent: float) -> float:
    """Return a percentile, interpolated between the two nearest values; NaN of none."""
    if not values:
        return float("nan")
    ordered = sorted(values)
    place = (len(ordered) - 1) * per_cent / 100
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, quartiles and minimum."""
    return {
        "median": percentile(values, 50),
        "quartile_1": percentile(values, 25),
        "quartile_3": percentile(values, 75),
        "minimum": min(values, default=float("nan")),
    }


def latencies(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return number, percentiles, mean and all values, in ascending seconds, of the requests that succeeded."""
    values = sorted(outcome.latency for outcome in outcomes if not outcome.error)
    return {
        "requests": len(values),
        "failed": len(outcomes) - len(values),
        "p50": percentile(values, 50),
        "p95": percentile(values, 95),
        "mean": statistics.fmean(values) if values else float("nan"),
        "values": [round(value, 4) for value in values],
    }


def throughput(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Image steps and requests per second, from the first request sent to the last one answered."""
    done = [outcome for outcome in outcomes if not outcome.error]
    seconds = max((outcome.answered for outcome in done), default=0.0) - min((o.sent for o in done), default=0.0)
    return {
        "requests": len(done),
        "failed": len(outcomes) - len(done),
        "seconds": seconds,
        "image_steps": sum(outcome.ask.image_steps for outcome in done),
        "image_steps_per_second": sum(o.ask.image_steps for o in done) / seconds if seconds else 0.0,
        "requests_per_second": len(done) / seconds if seconds else 0.0,
    }
