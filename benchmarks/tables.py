"""Puts the newest figures into ``docs/benchmarks.md``: ``python -m benchmarks.tables``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks import engines_report, lora, overhead, serving
from benchmarks.report import RESULTS
from benchmarks.servers import ROOT

DOCUMENT = ROOT / "docs" / "benchmarks.md"

Figures = Mapping[str, Any]


def _engines(figures: Figures) -> str:
    plot = "![Seconds per step and memory](../benchmarks/results/engines.png)"
    return f"{engines_report.table(figures)}\n\n{engines_report.note(figures)}\n\n{plot}"


# Name in the document → the results that it is made from, and how.
_PLACES: Mapping[str, tuple[str, Callable[[Figures], str]]] = {
    "serving": ("serving.json", lambda figures: f"{serving.table(figures)}\n\n{serving.note(figures)}"),
    "overhead": ("overhead.json", lambda figures: f"{overhead.table(figures)}\n\n{overhead.note(figures)}"),
    "lora": ("lora.json", lambda figures: f"{lora.table(figures)}\n\n{lora.note(figures)}"),
    "engines": ("engines.json", _engines),
    "perf_analyzer": ("overhead.json", overhead.perf_analyzer_table),
}


def fill(text: str, name: str, content: str) -> str:
    """``text`` with ``content`` in the place ``name``, between two comments. Raises ``ValueError`` if it has none."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"the document has no place for {name!r}: it lacks {begin if not found else end}")
    return f"{before}{begin}\n{content}\n{end}{after}"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tables", description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR", help="default: benchmarks/results")
    parser.add_argument("--document", type=Path, default=DOCUMENT, metavar="FILE", help="default: docs/benchmarks.md")
    options = parser.parse_args()
    text = options.document.read_text(encoding="utf-8")
    for name, (file, make) in _PLACES.items():
        path = options.results / file
        if path.exists():
            text = fill(text, name, make(json.loads(path.read_text(encoding="utf-8"))))
    options.document.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
