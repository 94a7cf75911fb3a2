"""Model directories that are not on this machine yet: hubs and object stores."""

from triton_diffusers.sources.errors import SourceError
from triton_diffusers.sources.resolve import is_remote, resolve_model_dir

__all__ = ["SourceError", "is_remote", "resolve_model_dir"]
