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
_CLIENT_VARIABLE = "url"  # read by the client's command line
_OTHERS = ("gateway_", "jobs_")  # settings of the gateway and of its job table

# Pillow warns above this of a decompression bomb (``Image.MAX_IMAGE_PIXELS``).
MAX_PIXELS = 89_478_485

_SIZE = re.compile(r"(\d{1,6})\s*x\s*(\d{1,6})", re.ASCII | re.IGNORECASE)


def _split(value: Any) -> Any:
    return tuple(item.strip() for item in value.split(",") if item.strip()) if isinstance(value, str) else value


def _sizes(value: Any) -> Any:
    return tuple(_size(item) for item in _split(value)) if isinstance(value, str) else value


def _size(text: str) -> tuple[str, ...]:
    if (found := _SIZE.fullmatch(text)) is None:
        raise ValueError(f"{text[:40]!r} is not a valid size; expected WIDTHxHEIGHT, such as 512x512")
    return found.groups()


# Comma-separated in the environment, too, where pydantic-settings would expect JSON.
CommaSeparated = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
Sizes = Annotated[tuple[tuple[int, int], ...], NoDecode, BeforeValidator(_sizes)]


class SettingsError(ValueError):
    """Invalid setting; the message names the setting, its value and the rule."""


def _user_cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".cache") / "triton-diffusers"


def _hub_offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


class Settings(BaseSettings):
    """All operator settings. Sizes are in pixels, times in seconds."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, protected_namespaces=())

    model_dir: Path = Field(
        Path("models/emoji"),
        description="Model directory: holds `base_model/`, or is a diffusers folder, or one checkpoint file.",
    )
    vae: str = Field(
        "",
        description="Autoencoder to use instead of the model's own: a file or a diffusers folder, absolute or relative"
        " to the model directory. Empty: [a file beside the model](checkpoints.md#autoencoders), else the model's own.",
    )
    runtime_dir: Path = Field(
        default_factory=lambda: Path(gettempdir()) / "triton-diffusers",
        description="Directory that the processes of one server share: the engines' sockets, progress and cancellation."
        " One per server.",
    )

    cache_dir: Path = Field(
        default_factory=_user_cache,
        description="Cache of downloaded model directories, of converted checkpoints that cannot be written beside the"
        " originals, and of files that make compiled engines start faster.",
    )
    max_source_gigabytes: float = Field(64.0, gt=0, description="Largest model directory to download (10⁹ bytes).")
    offline: bool = Field(
        default_factory=_hub_offline,
        description="Download nothing and use the cache only. Defaults to `HF_HUB_OFFLINE`.",
    )

    engine: str = Field(
        "auto",
        description="Engine: `auto` (the fastest `openvino` artifact for this model and machine, else eager), `eager`"
        " (PyTorch), or `openvino`, `inductor`, `blade` (artifacts"
        " of this compiler only, else eager), optionally with a"
        " precision (`openvino-int8`). Artifacts of `inductor` and `blade` contain code and are only run when they are"
        " named here.",
    )
    optimize: str = Field(
        "off",
        description="Artifact to build in the background if it is missing: `off`, or `openvino`, `inductor`, `blade`,"
        " optionally with a precision. Once built, it takes over without a restart.",
    )
    device: str = Field(
        "auto",
        description="`auto`, `cpu`, `cuda` or `cuda:N`; a comma-separated list, such as `cuda:0,cuda:1`, runs one"
        " engine process on each. CUDA is untested.",
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="Precision of the weights: `auto` is float32 on a CPU and float16 on CUDA."
    )
    profile: str = Field(
        EXACT.name,
        description="[Sampling profile](profiles.md) of requests that do not name one: "
        + ", ".join(f"`{name}`" for name in PROFILES)
        + ".",
    )
    safety_action: Literal["blacken", "choose", "flag"] = Field(
        "blacken",
        description="Action for images that the [safety checker](safety.md) flags: `blacken`, `flag` (return them"
        " unchanged, with `is_nsfw`), or `choose` (the request's `safety_action`, else `blacken`).",
    )
    close_safety: bool = Field(False, description="Do not run the safety checker, even if the model has one.")

    max_batch: int = Field(
        4, ge=1, description="Maximum number of images in one UNet call (guidance doubles the rows)."
    )
    max_images_in_flight: int = Field(
        64, ge=1, description="Maximum number of images whose latents are in memory at once."
    )
    max_queue: int = Field(
        128, ge=1, description="Maximum number of waiting requests; another one is rejected as busy."
    )
    poll_seconds: float = Field(
        0.1, gt=0, le=5, description="Interval at which cancellations and timeouts of requests are looked for."
    )
    engine_wait_seconds: float = Field(
        120.0,
        gt=0,
        allow_inf_nan=False,
        description="How long a request waits for an engine process that has died and is started again; then it is"
        " rejected as busy.",
    )
    headers_forwarded: bool = Field(
        False,
        description="Set by `serve`: Triton forwards the headers `host` (HTTP) and `user-agent` (gRPC) to the models,"
        " which distinguishes plain JSON from `infer`.",
    )
    job_history_seconds: float = Field(600.0, ge=0, description="How long `jobs` lists a finished job.")

    max_steps: int = Field(150, ge=1, description="Upper limit of `steps`.")
    max_image_num: int = Field(8, ge=1, description="Upper limit of `image_num`.")
    max_side: int = Field(2048, ge=64, description="Upper limit of `width` and `height`.")
    max_pixels: int = Field(1024 * 1024, ge=64 * 64, description="Upper limit of `width` × `height`.")
    fixed_sizes: Sizes = Field(
        (),
        description="Comma-separated image sizes, such as `512x512` (width,"
        " height), for which an `openvino` engine loads"
        " [another copy](engines.md#fixed-sizes) of its UNet: faster at this size, but uses more memory.",
    )
    enlarge: Literal["auto", "on", "off"] = Field(
        "auto",
        description="`on`: images larger than the model's own size are [drawn at that size and"
        " enlarged](images.md#sizes). `auto`: as `drawing.json` in the model directory says, else `off`.",
    )
    max_prompt_chars: int = Field(10_000, ge=1, description="Maximum number of characters of a prompt.")
    max_prompt_chunks: int = Field(16, ge=1, description="Maximum number of 75-token chunks of a prompt.")
    max_prompt_texts: int = Field(
        32, ge=2, description="Maximum number of different texts that prompt editing, alternation and `AND` expand to."
    )
    max_prompt_parts: int = Field(
        8, ge=1, description="Maximum number of prompts joined by `AND`; each is a row of UNet calls."
    )

    use_translate: bool = Field(True, description="Translate prompts of requests that do not set `use_translate`.")
    translator_dir: Path = Field(
        Path("models/translator"),
        description="Translator for model directories whose `translate/` is missing or cannot run: a Marian (opus-mt)"
        " or CSANMT folder.",
    )
    translate_engine: Literal["auto", "ctranslate2", "transformers", "csanmt"] = Field(
        "auto",
        description="Library that runs the translator: `auto` is the first installed one that supports the folder.",
    )
    translate_beams: int = Field(
        1,
        ge=1,
        le=16,
        description="Beams of a Marian translation; 1 is greedy and fastest. CSANMT folders define their own.",
    )
    translate_seconds: float = Field(
        10.0,
        gt=0,
        allow_inf_nan=False,
        description="Time limit for translating prompts that arrived together; the rest is rejected as busy.",
    )
    translate_cache: int = Field(10_000, ge=0, description="Number of translated prompt pieces in the cache.")
    max_translate_chars: int = Field(
        2000, ge=1, description="Maximum number of Chinese characters of a prompt to translate."
    )

    max_loras: int = Field(8, ge=0, description="Maximum number of LoRAs per request.")
    max_lora_weight: float = Field(10.0, gt=0, description="Largest absolute weight of a LoRA.")
    max_lora_megabytes: int = Field(1024, ge=1, description="Largest LoRA file.")
    lora_cache_megabytes: int = Field(1024, ge=0, description="Memory for cached LoRA files.")

    max_controlnets: int = Field(4, ge=1, description="Maximum number of ControlNets per request.")
    max_controlnet_megabytes: int = Field(4096, ge=1, description="Largest ControlNet file.")
    controlnet_cache_megabytes: int = Field(4096, ge=0, description="Memory for loaded ControlNets, in use or cached.")

    preprocessors: str = Field(
        "",
        description="Folder with the weights of ControlNet preprocessors."
        " Empty: `preprocessors/` in the model directory.",
    )
    preprocessor_cache_megabytes: int = Field(1024, ge=0, description="Memory for cached networks of preprocessors.")

    max_image_megabytes: float = Field(
        32.0,
        gt=0,
        allow_inf_nan=False,
        description="Largest encoded input image or mask, and all control images together (10⁶ bytes).",
    )
    max_image_pixels: int = Field(
        64_000_000,
        ge=1,
        le=MAX_PIXELS,
        description="Maximum number of pixels of an input image or mask, checked before it is decoded.",
    )
    max_input_megabytes: float = Field(
        2048.0,
        gt=0,
        allow_inf_nan=False,
        description="Memory for input images, of all requests together (10⁶ bytes): as much for encoded ones as for"
        " decoding them and keeping them at the request's size. A request without room waits, then fails as busy.",
    )
    input_wait_seconds: float = Field(
        60.0,
        gt=0,
        allow_inf_nan=False,
        description="How long a request may wait for its links to be fetched"
        " and for memory to decode its images; then it"
        " is rejected as busy.",
    )
    link_schemes: Literal["http,https", "https", "none"] = Field(
        "http,https",
        description="Allowed schemes of `image_link` and the other links: `http,https`, `https`, or `none`.",
    )
    link_allow_hosts: CommaSeparated = Field(
        (),
        description="Comma-separated hosts, addresses and networks (`10.0.0.0/8`)"
        " that links may use although they are not public.",
    )
    link_seconds: float = Field(
        15.0, gt=0, le=600, description="Time limit for fetching a linked image, including redirects."
    )
    max_link_fetches: int = Field(
        16, ge=1, le=256, description="Maximum number of concurrent fetches; half of them from one host."
    )
    max_link_queue: int = Field(
        128,
        ge=1,
        description="Maximum number of waiting and active links, half of"
        " them to one host; a request above it is rejected"
        " as busy. Requests that wait for links do not count towards `max_queue`.",
    )
    link_redirects: int = Field(5, ge=0, le=20, description="Maximum number of redirects of a link.")

    store: str = Field(
        "results",
        description="Result store: a directory, `oss://bucket/prefix`, `s3://bucket/prefix`, or empty for none.",
    )
    store_url: str = Field(
        "",
        description="Public base URL of the store, used for `image_url`. Empty: the store's own.",
    )
    store_location: str = Field(
        "",
        description="Location of a directory in the bucket that is mounted there, `oss://bucket/prefix`, used for"
        " `oss_url`. Empty: `file://…`.",
    )
    store_seconds: float = Field(
        300.0,
        ge=0,
        le=3600,
        description="How long a finished result waits for an unavailable store before its request fails.",
    )
    unstored_dir: str = Field(
        "",
        description="Directory for images that cannot be stored, yet or at all, in a folder named after the store."
        " Empty: `unstored/` in the cache.",
    )
    unstored_megabytes: int = Field(
        1024, ge=0, description="Maximum size of that folder (10⁶ bytes); further images are lost."
    )
    oss_region: str = Field(
        "",
        description="Region of the OSS buckets, such as `cn-hangzhou` (or `hangzhou`, `oss-cn-hangzhou`); requests are"
        " signed for it. Empty: that of `oss_endpoint`.",
    )
    oss_endpoint: str = Field(
        "", description="OSS endpoint, with or without the bucket; empty: `https://oss-<region>.aliyuncs.com`."
    )
    oss_attempts: int = Field(4, ge=1, le=20, description="Maximum number of attempts of one OSS request.")
    oss_seconds: float = Field(
        15.0, gt=0, allow_inf_nan=False, description="Timeout of one attempt, while OSS sends nothing."
    )
    s3_region: str = Field(
        "",
        description="Region of the S3 buckets, such as `eu-central-1`. Empty: that of the AWS environment or profile,"
        " else `us-east-1`.",
    )
    s3_endpoint: str = Field(
        "", description="URL of a service that is compatible with S3, without the bucket; empty: Amazon's."
    )
    s3_addressing: Literal["auto", "path", "virtual"] = Field(
        "auto",
        description="Place of the bucket's name in URLs: the path, the host (`virtual`), or `auto`: the host unless it"
        " is an address.",
    )
    s3_attempts: int = Field(4, ge=1, le=20, description="Maximum number of attempts of one S3 request.")
    s3_seconds: float = Field(
        15.0, gt=0, allow_inf_nan=False, description="Timeout of one attempt, while S3 sends nothing."
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

    @field_validator("store_location")
    @classmethod
    def _bucket(cls, location: str) -> str:
        if location and not urlsplit(location).hostname:
            raise ValueError("expected oss://bucket/prefix")
        return location

    @field_validator("fixed_sizes")
    @classmethod
    def _allowed(cls, sizes: tuple[tuple[int, int], ...], info: ValidationInfo) -> tuple[tuple[int, int], ...]:
        max_pixels, max_side = info.data.get("max_pixels", 0), info.data.get("max_side", 0)
        for width, height in sizes:
            if not (0 < width <= max_side and 0 < height <= max_side and width * height <= max_pixels):
                raise ValueError(f"{width}x{height} exceeds the sizes that requests may have (max_side, max_pixels)")
        return tuple(dict.fromkeys(sizes))

    @field_validator("device")
    @classmethod
    def _named(cls, device: str) -> str:
        if not _split(device):
            raise ValueError("expected a device, or several separated by commas")
        return device

    @field_validator("profile")
    @classmethod
    def _known(cls, profile: str) -> str:
        if profile not in PROFILES:
            raise ValueError(f"known: {', '.join(PROFILES)}")
        return profile

    @classmethod
    def read(
        cls, parameters: Mapping[str, str] | None = None, environment: Mapping[str, str] | None = None
    ) -> Settings:
        """Read the environment; non-empty ``parameters`` (of a ``config.pbtxt``) take precedence.

        ``environment`` has variables that are not yet in this process's.

        Raises: SettingsError: a value is invalid, or a parameter is not a setting.
        """
        given = {name: value for name, value in (parameters or {}).items() if value != ""}
        if unknown := sorted(given.keys() - cls.model_fields.keys()):
            raise SettingsError(f"unknown setting {unknown[0]!r}; known: {', '.join(cls.model_fields)}")
        changed = {name.removeprefix(PREFIX).lower(): value for name, value in (environment or {}).items()}
        try:
            return cls(**(changed | given))  # type: ignore[arg-type]  # pydantic converts the strings
        except ValidationError as error:
            first = error.errors()[0]
            name = str(first["loc"][0])
            raise SettingsError(f"{PREFIX}{name.upper()}: {first['input']!r} is invalid: {first['msg']}") from error

    @classmethod
    def as_environment(cls, parameters: Mapping[str, str]) -> Mapping[str, str]:
        """Return non-empty ``parameters`` of a ``config.pbtxt`` as environment variables, for another process."""
        return {f"{PREFIX}{name.upper()}": value for name, value in parameters.items() if value}

    @classmethod
    def unknown(cls, environment: Mapping[str, str]) -> list[str]:
        """Return a warning for each ``TRITON_DIFFUSERS_`` variable that is not a setting."""
        lines = []
        for variable in sorted(environment):
            name = variable.upper().removeprefix(PREFIX).lower()
            if not variable.upper().startswith(PREFIX) or name == _CLIENT_VARIABLE or name.startswith(_OTHERS):
                continue
            if name not in cls.model_fields:
                near = get_close_matches(name, cls.model_fields, n=1)
                hint = f"; did you mean {PREFIX}{near[0].upper()}?" if near else ""
                lines.append(f"{variable} is not a setting and is ignored{hint}")
        return lines

    @property
    def devices(self) -> tuple[str, ...]:
        """Return the devices of ``device``, one for each engine process."""
        return _split(self.device)  # type: ignore[no-any-return]

    @property
    def model_folder(self) -> Path:
        """Return the folder of LoRAs and ControlNets: the model directory, or that of a checkpoint file."""
        return self.model_dir.parent if self.model_dir.is_file() else self.model_dir

    @property
    def model_name(self) -> str:
        """Return the model's name for image metadata."""
        return self.model_dir.stem if self.model_dir.is_file() else self.model_dir.name

    @property
    def preprocessors_dir(self) -> Path:
        """Return the folder of the preprocessors' weights."""
        return Path(self.preprocessors).expanduser() if self.preprocessors else self.model_folder / "preprocessors"
