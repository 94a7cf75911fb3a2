"""The operator's settings: environment variables ``TRITON_DIFFUSERS_<NAME>``, or parameters of a ``config.pbtxt``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import gettempdir
from typing import Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX = "TRITON_DIFFUSERS_"


class SettingsError(ValueError):
    """A setting cannot be read; the message names the setting, its value and what is expected."""


class Settings(BaseSettings):
    """Everything that an operator can set. Sizes are pixels, times are seconds."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, protected_namespaces=())

    model_dir: Path = Field(Path("models/emoji"), description="Model directory; holds `base_model/`.")
    runtime_dir: Path = Field(
        default_factory=lambda: Path(gettempdir()) / "triton-diffusers",
        description="Where the model processes of one server meet (progress and cancellation). One per server.",
    )

    engine: str = Field("eager", description="How modules run: `eager` (PyTorch).")
    device: str = Field("auto", description="`auto`, `cpu`, `cuda` or `cuda:N`. CUDA is untested.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="Precision of the weights: `auto` is float32 on a CPU and float16 on CUDA."
    )
    close_safety: bool = Field(False, description="Do not run the safety checker, even where the model has one.")

    max_batch: int = Field(4, ge=1, description="Most images in one UNet call (guidance doubles the rows).")
    max_images_in_flight: int = Field(64, ge=1, description="Most images whose latents are in memory at once.")
    max_queue: int = Field(128, ge=1, description="Most requests that wait; one more is refused as busy.")
    poll_seconds: float = Field(
        0.1, gt=0, le=5, description="Longest wait of the mailbox before it looks for new requests and cancellations."
    )
    orphan_seconds: float = Field(
        60.0, gt=0, description="A job that Triton has not asked about for so long is cancelled: its client is gone."
    )
    job_history_seconds: float = Field(600.0, ge=0, description="How long `jobs` remembers a finished job.")

    max_steps: int = Field(150, ge=1, description="Upper limit of `steps`.")
    max_image_num: int = Field(8, ge=1, description="Upper limit of `image_num`.")
    max_side: int = Field(2048, ge=64, description="Upper limit of `width` and `height`.")
    max_pixels: int = Field(1024 * 1024, ge=64 * 64, description="Upper limit of `width` × `height`.")
    max_prompt_chars: int = Field(10_000, ge=1, description="Most characters of a prompt.")

    @classmethod
    def read(cls, parameters: Mapping[str, str] | None = None) -> Settings:
        """Read the environment; ``parameters`` (of a ``config.pbtxt``) win where they are not empty.

        Raises ``SettingsError`` for the first value that does not fit, and for a parameter that is no setting.
        """
        given = {name: value for name, value in (parameters or {}).items() if value != ""}
        if unknown := sorted(given.keys() - cls.model_fields.keys()):
            raise SettingsError(f"unknown setting {unknown[0]!r}; known: {', '.join(cls.model_fields)}")
        try:
            return cls(**given)  # type: ignore[arg-type]  # pydantic converts the strings
        except ValidationError as error:
            first = error.errors()[0]
            name = str(first["loc"][0])
            raise SettingsError(f"{PREFIX}{name.upper()}: {first['input']!r} does not fit: {first['msg']}") from error
