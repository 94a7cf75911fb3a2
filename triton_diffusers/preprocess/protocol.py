"""What a preprocessor does."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

# RGB, uint8, shape (height, width, 3).
Pixels = np.ndarray[Any, np.dtype[np.uint8]]


class Preprocessor(Protocol):
    """Makes a control picture of a picture. Computes in the caller's thread; called by one thread at a time."""

    def process(self, pixels: Pixels) -> Pixels:
        """The control picture, of the same shape, in the channel order that its ControlNets expect."""
