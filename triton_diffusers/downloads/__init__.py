"""Download model directories from hubs and object stores."""

from triton_diffusers.downloads.remote import SourceError
from triton_diffusers.downloads.resolve import is_remote, resolve_model_dir

__all__ = ["SourceError", "is_remote", "resolve_model_dir"]
