"""Memory that need not be there: freed and kept by the C library, or of large tensors of which little is read."""

from __future__ import annotations

import contextlib
import ctypes
import logging
from pathlib import Path
from tempfile import NamedTemporaryFile

import torch

logger = logging.getLogger(__name__)


def give_back() -> None:
    """Return it to the system; does nothing where the C library is not glibc."""
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def on_disk(tensor: torch.Tensor, folder: Path) -> torch.Tensor:
    """A copy of ``tensor``, of which only those pages are in memory that are read.

    They are of a file in ``folder`` that has lost its name, so that nobody can change it, and that is gone with the
    process. Where none can be written, this is ``tensor`` itself.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=folder) as file:
            file.write(tensor.detach().contiguous().view(-1).view(torch.uint8).numpy().data)
            file.flush()
            flat = torch.from_file(file.name, shared=False, size=tensor.numel(), dtype=tensor.dtype)
    except (OSError, RuntimeError) as error:  # PyTorch's, where a file cannot be mapped
        logger.warning("a table of %d MB stays in memory: %s", tensor.nbytes >> 20, error)
        return tensor
    return flat.view(tensor.shape)
