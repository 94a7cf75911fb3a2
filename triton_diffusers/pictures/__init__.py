"""Pictures that come with a request: fetched, read, fitted to the request's size, and pasted back under what is drawn.

PIL and numpy only, since this runs beside the engine's thread.
"""

from triton_diffusers.pictures.budget import MemoryBudget, Share
from triton_diffusers.pictures.encoded import check_size, decode_base64, decode_data_url, is_data_url
from triton_diffusers.pictures.expanding import expand
from triton_diffusers.pictures.fitting import fit, fit_mask
from triton_diffusers.pictures.gatherer import Footprint, Gatherer, SourcePictures
from triton_diffusers.pictures.pasting import paste_back, soft_edged
from triton_diffusers.pictures.reading import read_mask, read_picture

__all__ = [
    "Footprint",
    "Gatherer",
    "MemoryBudget",
    "Share",
    "SourcePictures",
    "check_size",
    "decode_base64",
    "decode_data_url",
    "expand",
    "fit",
    "fit_mask",
    "is_data_url",
    "paste_back",
    "read_mask",
    "read_picture",
    "soft_edged",
]
