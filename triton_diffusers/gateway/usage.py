"""Reports of usage: the sums of the ledger, grouped, as rows of values or as CSV with FOCUS column names."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

from triton_diffusers.errors import InvalidRequest
from triton_diffusers.gateway.jobs.usage import Usage

DIMENSIONS = ("day", "user", "team", "key", "model")
_SUMS = ("jobs", "megapixel_steps", "image_steps", "engine_seconds")
_EPOCH = date(1970, 1, 1)
_DEFAULT_DAYS = 30


def day_number(day: date) -> int:
    """Return the number of a day in ``Usage``."""
    return (day - _EPOCH).days


def period(first: date | None, last: date | None) -> tuple[date, date]:
    """Return the first and the last day of a report: by default the 30 days until today, of UTC.

    Raises: InvalidRequest: they are in the wrong order.
    """
    last = last or datetime.now(UTC).date()
    first = first or last - timedelta(days=_DEFAULT_DAYS - 1)
    if first > last:
        raise InvalidRequest("first", first.isoformat(), f"must not be after {last.isoformat()}")
    return first, last


def grouped(usage: Iterable[Usage], by: Collection[str], names: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the sums for each combination of the dimensions ``by``; ``names`` are those of users, teams and keys.

    Raises: InvalidRequest: a dimension is unknown.
    """
    for dimension in by:
        if dimension not in DIMENSIONS:
            raise InvalidRequest("by", dimension, f"must be some of: {', '.join(DIMENSIONS)}")
    chosen = [dimension for dimension in DIMENSIONS if dimension in by]
    groups: dict[tuple[str, ...], dict[str, Any]] = {}
    for row in usage:
        values = _values(row, names)
        key = tuple(values[dimension] for dimension in chosen)
        sums = groups.setdefault(key, dict(zip(chosen, key, strict=True)) | dict.fromkeys(_SUMS, 0))
        for name in _SUMS:
            sums[name] += getattr(row, name)
    return [groups[key] for key in sorted(groups)]


def _values(row: Usage, names: Mapping[str, str]) -> Mapping[str, str]:
    key = f"{row.key_id} {names.get(row.key_id, '')}".strip()
    return {
        "day": (_EPOCH + timedelta(days=row.day)).isoformat(),
        "user": names.get(row.owner, row.owner),
        "team": names.get(row.team, row.team),
        "key": key,
        "model": row.model,
    }


def focus_csv(rows: Sequence[Mapping[str, Any]], first: date, last: date) -> str:
    """Return rows of ``grouped`` as CSV with the columns of FinOps FOCUS; columns of our own begin with ``x_``."""
    text = io.StringIO()
    writer = csv.DictWriter(text, _FOCUS_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        begin = date.fromisoformat(row["day"]) if "day" in row else first
        end = (begin if "day" in row else last) + timedelta(days=1)
        values = (
            f"{begin.isoformat()}T00:00:00Z",
            f"{end.isoformat()}T00:00:00Z",
            "Usage",
            "Triton Diffusers",
            *(_cell(row.get(name, "")) for name in ("team", "user", "key", "model")),
            row["megapixel_steps"],
            "Megapixel-Steps",
            row["image_steps"],
            row["engine_seconds"],
            row["jobs"],
        )
        writer.writerow(dict(zip(_FOCUS_COLUMNS, values, strict=True)))
    return text.getvalue()


_FOCUS_COLUMNS = (
    *("ChargePeriodStart", "ChargePeriodEnd", "ChargeCategory", "ServiceName", "SubAccountName", "x_User", "x_Key"),
    *("ResourceName", "ConsumedQuantity", "ConsumedUnit", "x_ImageSteps", "x_EngineSeconds", "x_Jobs"),
)


def _cell(text: str) -> str:
    """Return a text that no spreadsheet takes for a formula: names of keys are the users' own."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t")) else text
