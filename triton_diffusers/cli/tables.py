"""Tables of text for the terminal."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any


def write_table(rows: Sequence[Mapping[str, Any]], *, as_json: bool) -> None:
    """Print rows as a table, or as JSON. Columns that are empty in all rows are left out of a table."""
    if as_json:
        print(json.dumps(list(rows), indent=2, ensure_ascii=False))
        return
    names = [name for name in (rows[0] if rows else ()) if any(row[name] for row in rows)]
    cells = [names, *([str(row[name]) for name in names] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells if rows else ():
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def time_cell(at: float | None) -> str:
    """Return a time of UTC, or nothing."""
    return "" if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M")
