"""The operator's settings: environment variables ``TRITON_DIFFUSERS_<NAME>``, or parameters of a ``config.pbtxt``."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from difflib import get_close_matches
from ipaddress import ip_network
from pathlib import Path
from tempfile import gettempdir
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from triton_diffusers.sampling.profiles import EXACT, PROFILES

PREFIX = "TRITON_DIFFUSERS_"
_OF_THE_CLIENT = "url"  # where its command line finds the server

# Where Pillow begins to warn of a decompression bomb (``Image.MAX_IMAGE_PIXELS``).
MOST_PIXELS = 89_478_485

_SIZE = re.compile(r"(\d{1,6})\s*x\s*(\d{1,6})", re.ASCII | re.IGNORECASE)


def _split(value: Any) -> Any:
    return tuple(item.strip() for item in value.split(",") if item.strip()) if isinstance(value, str) else value


def _sizes(value: Any) -> Any:
    return tuple(_size(item) for item in _split(value)) if isinstance(value, str) else value


def _size(text: str) -> tuple[str, ...]:
    if (found := _SIZE.fullmatch(text)) is None:
        raise ValueError(f"{text[:40]!r} is no size such as 512x512")
    return found.groups()


# The same text in the environment, where pydantic-settings would want JSON, and in a parameter.
CommaSeparated = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
Sizes = Annotated[tuple[tuple[int, int], ...], NoDecode, BeforeValidator(_sizes)]


class SettingsError(ValueError):
    """A setting cannot be read; the message names the setting, its value and what is expected."""


def _user_cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".cache") / "triton-diffusers"


def _hub_offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


class Settings(BaseSettings):
    """Everything that an operator can set. Sizes are pixels, times are seconds."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, protected_namespaces=())

    model_dir: Path = Field(
        Path("models/emoji"),
        description="Model directory: holds `base_model/`, or is a diffusers folder, or one checkpoint file.",
    )
    vae: str = Field(
        "",
        description="Autoencoder to use instead of the model's own: a file or a diffusers folder, absolute or relative"
        " to the model directory. Empty: [what lies beside](checkpoints.md#autoencoders), else the model's own.",
    )
    runtime_dir: Path = Field(
        default_factory=lambda: Path(gettempdir()) / "triton-diffusers",
        description="Where the model processes of one server meet (progress and cancellation). One per server.",
    )

    cache_dir: Path = Field(
        default_factory=_user_cache,
        description="Where model directories are fetched to, converted checkpoints that cannot lie beside theirs,"
        " and what makes compiled engines start sooner.",
    )
    max_source_gigabytes: float = Field(64.0, gt=0, description="Largest model directory that is fetched (10⁹ bytes).")
    offline: bool = Field(
        default_factory=_hub_offline,
        description="Fetch nothing: use what the cache has. The default is that of `HF_HUB_OFFLINE`.",
    )

    engine: str = Field(
        "auto",
        description="How modules run: `auto` (the fastest `openvino` artifact that fits this model and this machine,"
        " else eager), `eager` (PyTorch), or `openvino`, `inductor`, `blade` (artifacts of these only, else eager),"
        " perhaps with a precision (`openvino-int8`). Artifacts of `inductor` and `blade` are programs, which run only"
        " where they are named.",
    )
    optimize: str = Field(
        "off",
        description="What to build in the background if it is not there: `off`, or `openvino`, `inductor`, `blade`,"
        " perhaps with a precision. Once built, it takes over while serving.",
    )
    device: str = Field("auto", description="`auto`, `cpu`, `cuda` or `cuda:N`. CUDA is untested.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="Precision of the weights: `auto` is float32 on a CPU and float16 on CUDA."
    )
    profile: str = Field(
        EXACT.name,
        description="[Sampling profile](profiles.md) of requests that name none: "
        + ", ".join(f"`{name}`" for name in PROFILES)
        + ".",
    )
    safety_action: Literal["blacken", "choose", "flag"] = Field(
        "blacken",
        description="What becomes of images that the [safety checker](safety.md) flags: `blacken`, `flag` (returned as"
        " they are, with `is_nsfw`), or `choose`: what a request's `safety_action` says, else `blacken`.",
    )
    close_safety: bool = Field(False, description="Do not run the safety checker, even where the model has one.")

    max_batch: int = Field(4, ge=1, description="Most images in one UNet call (guidance doubles the rows).")
    max_images_in_flight: int = Field(64, ge=1, description="Most images whose latents are in memory at once.")
    max_queue: int = Field(128, ge=1, description="Most requests that wait; one more is refused as busy.")
    poll_seconds: float = Field(
        0.1, gt=0, le=5, description="Longest wait before new requests and cancellations are looked for."
    )
    orphan_seconds: float = Field(
        60.0, gt=0, description="A job that Triton has not asked about for so long is cancelled: its client is gone."
    )
    headers_forwarded: bool = Field(
        False,
        description="Set by `serve`: Triton passes the headers `host` (HTTP) and `user-agent` (gRPC) on to the models,"
        " which tells plain JSON from `infer`.",
    )
    job_history_seconds: float = Field(600.0, ge=0, description="How long `jobs` remembers a finished job.")

    max_steps: int = Field(150, ge=1, description="Upper limit of `steps`.")
    max_image_num: int = Field(8, ge=1, description="Upper limit of `image_num`.")
    max_side: int = Field(2048, ge=64, description="Upper limit of `width` and `height`.")
    max_pixels: int = Field(1024 * 1024, ge=64 * 64, description="Upper limit of `width` × `height`.")
    fixed_sizes: Sizes = Field(
        (),
        description="Sizes of pictures, as `512x512` (width, height), with commas, for which an `openvino` engine loads"
        " its UNet [once more](engines.md#fixed-sizes): faster where just this is asked for, for memory.",
    )
    enlarge: Literal["auto", "on", "off"] = Field(
        "auto",
        description="`on`: images larger than the model's own size are [drawn at that size and"
        " enlarged](images.md#sizes). `auto`: as `drawing.json` in the model directory says, else `off`.",
    )
    max_prompt_chars: int = Field(10_000, ge=1, description="Most characters of a prompt.")
    max_prompt_chunks: int = Field(16, ge=1, description="Most chunks of 75 tokens that a prompt may take.")
    max_prompt_texts: int = Field(
        32, ge=2, description="Most different texts that prompt editing, alternation and `AND` may make of a request."
    )
    max_prompt_parts: int = Field(8, ge=1, description="Most prompts that `AND` joins; each is a row of UNet calls.")

    use_translate: bool = Field(
        True, description="Whether prompts are translated where a request's `use_translate` does not say it."
    )
    translator_dir: Path = Field(
        Path("models/translator"),
        description="The translator of a model directory whose `translate/` is missing or cannot run: a Marian"
        " (opus-mt) or CSANMT folder.",
    )
    translate_engine: Literal["auto", "ctranslate2", "transformers", "csanmt"] = Field(
        "auto",
        description="What runs the translator: `auto` is the first one that is installed and fits the folder.",
    )
    translate_beams: int = Field(
        1,
        ge=1,
        le=16,
        description="Beams of a Marian translation; 1 is greedy, and the fastest. CSANMT folders state their own.",
    )
    translate_seconds: float = Field(
        10.0,
        gt=0,
        allow_inf_nan=False,
        description="Time to translate prompts that arrived together; others may try again.",
    )
    translate_cache: int = Field(10_000, ge=0, description="Translated pieces of prompts that are remembered.")
    max_translate_chars: int = Field(2000, ge=1, description="Most Chinese characters of a prompt to translate.")

    max_loras: int = Field(8, ge=0, description="Most LoRAs of a request.")
    max_lora_weight: float = Field(10.0, gt=0, description="Largest weight of a LoRA, with either sign.")
    max_lora_megabytes: int = Field(1024, ge=1, description="Largest LoRA file.")
    lora_cache_megabytes: int = Field(1024, ge=0, description="Memory for LoRA files that were read before.")

    max_controlnets: int = Field(4, ge=1, description="Most ControlNets of a request.")
    max_controlnet_megabytes: int = Field(4096, ge=1, description="Largest file of a ControlNet.")
    controlnet_cache_megabytes: int = Field(
        4096, ge=0, description="Memory for ControlNets that are loaded: those in use, and those that were used before."
    )

    preprocessors: str = Field(
        "",
        description="Folder of the ControlNet preprocessors' weights. Empty: `preprocessors/` in the model directory.",
    )
    preprocessor_cache_megabytes: int = Field(
        1024, ge=0, description="Memory for preprocessors' networks that were loaded before."
    )

    max_image_megabytes: float = Field(
        32.0,
        gt=0,
        allow_inf_nan=False,
        description="Largest encoded input picture or mask, and all control pictures together (10⁶ bytes).",
    )
    max_image_pixels: int = Field(
        64_000_000,
        ge=1,
        le=MOST_PIXELS,
        description="Most pixels of an input picture or mask, judged before it is decoded.",
    )
    max_input_megabytes: float = Field(
        2048.0,
        gt=0,
        allow_inf_nan=False,
        description="Memory for input images, of all requests together (10⁶ bytes): as much for encoded ones as for"
        " decoding them and keeping them at the request's size. A request that has no room waits, and is busy then.",
    )
    input_wait_seconds: float = Field(
        60.0,
        gt=0,
        allow_inf_nan=False,
        description="How long a request may wait for its links' turn, and for memory to decode its images; then it is"
        " refused as busy.",
    )
    link_schemes: Literal["http,https", "https", "none"] = Field(
        "http,https", description="Schemes of `image_link` and its like: `http,https`, `https`, or `none`: no links."
    )
    link_allow_hosts: CommaSeparated = Field(
        (),
        description="Hosts, addresses and networks (`10.0.0.0/8`) that links may name though not public, with commas.",
    )
    link_seconds: float = Field(15.0, gt=0, le=600, description="Time to fetch a linked picture, redirects included.")
    max_link_fetches: int = Field(
        16, ge=1, le=256, description="Most links that are fetched at once; half of them from one host."
    )
    max_link_queue: int = Field(
        128,
        ge=1,
        description="Most links that wait or are fetched, half of them to one host; a request with one more is refused"
        " as busy. Requests that wait for links do not count in `max_queue`.",
    )
    link_redirects: int = Field(5, ge=0, le=20, description="Most redirects of a link.")

    store: str = Field(
        "results",
        description="Where results are stored: a directory, `oss://bucket/prefix`, or empty: nowhere.",
    )
    store_url: str = Field(
        "",
        description="Public URL under which the store is served; `image_url` begins with it. Empty: the store's own.",
    )
    store_seconds: float = Field(
        300.0,
        ge=0,
        le=3600,
        description="How long a finished result waits for a store that is away, before its request fails.",
    )
    unstored_dir: str = Field(
        "",
        description="Where images are held while they cannot be stored, and stay if they could not be, in a folder"
        " named for the store. Empty: `unstored/` in the cache.",
    )
    unstored_megabytes: int = Field(
        1024, ge=0, description="Most of the images in that folder (10⁶ bytes); what has no room there is lost."
    )
    oss_region: str = Field(
        "",
        description="Region of the OSS buckets, such as `cn-hangzhou` (or `hangzhou`, `oss-cn-hangzhou`); requests are"
        " signed for it. Empty: that of `oss_endpoint`.",
    )
    oss_endpoint: str = Field(
        "", description="OSS endpoint, with or without the bucket; empty: `https://oss-<region>.aliyuncs.com`."
    )
    oss_attempts: int = Field(
        4, ge=1, le=20, description="How often one request to the store on OSS is tried before it has failed."
    )
    oss_seconds: float = Field(
        15.0, gt=0, allow_inf_nan=False, description="How long OSS may be silent before an attempt has failed."
    )

    @field_validator("link_allow_hosts")
    @classmethod
    def _networks(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for host in hosts:
            if "/" in host:
                ip_network(host)
        return hosts

    @field_validator("model_dir", "runtime_dir", "cache_dir", "translator_dir")
    @classmethod
    def _home(cls, path: Path) -> Path:
        return path.expanduser()

    @field_validator("store_url")
    @classmethod
    def _web_address(cls, url: str) -> str:
        parts = urlsplit(url)
        if url and (parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment):
            raise ValueError("expected https://host/path")
        return url

    @field_validator("fixed_sizes")
    @classmethod
    def _allowed(cls, sizes: tuple[tuple[int, int], ...], info: ValidationInfo) -> tuple[tuple[int, int], ...]:
        most_pixels, longest = info.data.get("max_pixels", 0), info.data.get("max_side", 0)
        for width, height in sizes:
            if not (0 < width <= longest and 0 < height <= longest and width * height <= most_pixels):
                raise ValueError(f"{width}x{height} is no size that requests may ask for (max_side, max_pixels)")
        return tuple(dict.fromkeys(sizes))

    @field_validator("profile")
    @classmethod
    def _known(cls, profile: str) -> str:
        if profile not in PROFILES:
            raise ValueError(f"known: {', '.join(PROFILES)}")
        return profile

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
            raise SettingsError(f"{PREFIX}{name.upper()}: {first['input']!r} is invalid: {first['msg']}") from error

    @classmethod
    def unknown(cls, environment: Mapping[str, str]) -> list[str]:
        """One line for each variable of ours that is no setting, and so does nothing."""
        lines = []
        for variable in sorted(environment):
            name = variable.upper().removeprefix(PREFIX).lower()
            if variable.upper().startswith(PREFIX) and name not in cls.model_fields and name != _OF_THE_CLIENT:
                near = get_close_matches(name, cls.model_fields, n=1)
                hint = f"; did you mean {PREFIX}{near[0].upper()}?" if near else ""
                lines.append(f"{variable} is no setting, and is ignored{hint}")
        return lines

    @property
    def model_folder(self) -> Path:
        """The folder of LoRAs, ControlNets and whatever else requests name: that of a checkpoint in one file."""
        return self.model_dir.parent if self.model_dir.is_file() else self.model_dir

    @property
    def model_name(self) -> str:
        """The model's name in images' metadata."""
        return self.model_dir.stem if self.model_dir.is_file() else self.model_dir.name

    @property
    def preprocessors_dir(self) -> Path:
        """The folder of the preprocessors' weights."""
        return Path(self.preprocessors).expanduser() if self.preprocessors else self.model_folder / "preprocessors"
