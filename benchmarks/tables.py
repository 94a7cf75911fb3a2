"""Puts the newest figures into the documents: ``python -m benchmarks.tables``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks import deaths, engines_report, overhead, pairs, profiles, serving, translator
from benchmarks.report import RESULTS
from benchmarks.servers import ROOT

DOCUMENTS = ROOT / "docs"

Figures = Mapping[str, Any]


def _engines(figures: Figures) -> str:
    plot = "![Seconds per step and memory](../benchmarks/results/engines.png)"
    return f"{engines_report.table(figures)}\n\n{engines_report.note(figures)}\n\n{plot}"


def _deaths(figures: Figures) -> str:
    return f"{deaths.table(figures)}\n\n{deaths.note(figures)}"


def _pairs(figures: Figures) -> str:
    return f"{pairs.table(figures)}\n\n{pairs.note(figures)}"


def _profiles(figures: Figures) -> str:
    sheet = "![Subjects with each profile](../benchmarks/results/profiles.png)"
    return f"{profiles.table(figures)}\n\n{profiles.note(figures)}\n\n{sheet}"


# The document, and the name in it → the results that it is made from, and how.
_PLACES: Mapping[tuple[str, str], tuple[str, Callable[[Figures], str]]] = {
    ("benchmarks.md", "serving"): (
        "serving.json",
        lambda figures: f"{serving.table(figures)}\n\n{serving.note(figures)}",
    ),
    ("benchmarks.md", "overhead"): (
        "overhead.json",
        lambda figures: "\n\n".join(part(figures) for part in (overhead.table, overhead.note, overhead.waiting_note)),
    ),
    ("benchmarks.md", "deaths"): ("deaths.json", _deaths),
    ("benchmarks.md", "lora"): ("lora.json", _pairs),
    ("benchmarks.md", "controlnet"): ("controlnet.json", _pairs),
    ("benchmarks.md", "engines"): ("engines.json", _engines),
    ("benchmarks.md", "perf_analyzer"): ("overhead.json", overhead.perf_analyzer_table),
    ("translation.md", "speed"): (
        "translator.json",
        lambda figures: f"{translator.table(figures)}\n\n{translator.note(figures)}",
    ),
    ("profiles.md", "profiles"): ("profiles.json", _profiles),
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
    """Return the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tables", description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR", help="default: benchmarks/results")
    parser.add_argument("--documents", type=Path, default=DOCUMENTS, metavar="DIR", help="default: docs")
    options = parser.parse_args()
    for (document, name), (file, make) in _PLACES.items():
        results, page = options.results / file, options.documents / document
        if results.exists():
            content = make(json.loads(results.read_text(encoding="utf-8")))
            page.write_text(fill(page.read_text(encoding="utf-8"), name, content), encoding="utf-8")


if __name__ == "__main__":
    main()
