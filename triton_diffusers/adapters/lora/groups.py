"""Groups of a call's rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby

from triton_diffusers.adapters.lora.set import LoraSet


def grouped(rows: Sequence[LoraSet | None]) -> Sequence[LoraSet | None]:
    """Return the LoRAs of each group of rows; groups are consecutive, of equal size and as few as possible."""
    return rows[:: math.gcd(*(len(list(run)) for _, run in groupby(rows)))]
