"""The flags of the reference's server, in terms of ours."""

from __future__ import annotations

import argparse
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from triton_diffusers.checkpoints.layout import has_base_model
from triton_diffusers.launcher.errors import BadOption
from triton_diffusers.storage.region import region_name

log = logging.getLogger(__name__)

_PREFIX = "TRITON_DIFFUSERS_"
_MODEL_DIR, _STORE, _OSS_REGION = f"{_PREFIX}MODEL_DIR", f"{_PREFIX}STORE", f"{_PREFIX}OSS_REGION"
_SERVICES = f"{_PREFIX}GATEWAY_SERVICES"
_BUCKET = re.compile(r"oss://(?P<bucket>[a-z0-9][a-z0-9-]{1,61}[a-z0-9])(?:/(?P<prefix>.*))?")


@dataclass(frozen=True, slots=True)
class Mounts:
    """Folders that the reference's deployments mount: the model directory and the results."""

    model: Path = Path("/oss")
    results: Path = Path("/result")


@dataclass(frozen=True, slots=True)
class Deployment:
    """Choices of a command line: None for what it leaves open, and settings as environment variables."""

    model_dir: str | None
    store: str | None
    settings: Mapping[str, str] = field(default_factory=dict)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that ours have no other name for."""
    flags = parser.add_argument_group(
        "flags of the reference",
        "A deployment of the reference starts with its own flags, --func_name and --model_dir among them. The model is"
        " in /oss and results go to /result where these exist and nothing else is named.",
    )
    flags.add_argument("--save_dir", metavar="DIR", help="the same as --store")
    flags.add_argument(
        "--oss_save_dir",
        metavar="OSS",
        help="oss://bucket/prefix that is mounted at /result (or --save_dir), for URLs in replies; without a mount,"
        " images are uploaded there",
    )
    flags.add_argument("--region", metavar="NAME", help="region of that bucket, such as hangzhou")
    flags.add_argument("--use_blade", action="store_true", help="compile in the background, with OpenVINO")
    flags.add_argument(
        "--use_translate",
        action="store_true",
        help="translate Chinese prompts; with --oss_save_dir they are not translated otherwise, unless a request asks",
    )
    flags.add_argument("--close_safety", action="store_true", help="do not run the safety checker")
    flags.add_argument(
        "--not_use_default_blade",
        action="store_true",
        help="accepted without effect: compiled models are only taken from the model directory",
    )
    flags.add_argument("--remove_opt", action="store_true", help="remove the model's compiled artifacts first")
    flags.add_argument(
        "--local_debug", action="store_true", help="do not use /oss and /result, nor --oss_save_dir and --region"
    )


def read(chosen: argparse.Namespace, environment: Mapping[str, str], mounts: Mounts | None = None) -> Deployment:
    """Return the choices of a command line. Raises: BadOption: flags contradict each other, or one is invalid."""
    mounts = mounts or Mounts()
    if chosen.not_use_default_blade:
        log.info("--not_use_default_blade changes nothing: compiled models are those of the model directory alone")
    if chosen.save_dir is not None and chosen.store is not None:
        raise BadOption(f"--save_dir: {chosen.save_dir!r} is invalid: --store names another place for the results")
    bucket = _Bucket.read(chosen, environment)
    store = chosen.store if chosen.save_dir is None else chosen.save_dir
    if store is None and not chosen.local_debug and _takes_mount(mounts.results, bucket, environment):
        store = str(mounts.results)
    settings = _settings(chosen, environment, bucket)
    if bucket is not None:
        settings |= bucket.settings(store)
        store = store or bucket.location
    return Deployment(_model_dir(chosen, environment, mounts, bucket), store, settings)


@dataclass(frozen=True, slots=True)
class _Bucket:
    """The bucket of ``--oss_save_dir``."""

    name: str
    prefix: str
    region: str

    @classmethod
    def read(cls, chosen: argparse.Namespace, environment: Mapping[str, str]) -> _Bucket | None:
        if chosen.local_debug:
            return None
        place, region = chosen.oss_save_dir, chosen.region or environment.get(_OSS_REGION, "")
        if place is None:
            if chosen.region is not None:
                raise BadOption(
                    f"--region: {chosen.region!r} is invalid: it is that of --oss_save_dir, which is missing"
                )
            return None
        if chosen.store is not None:
            raise BadOption(f"--oss_save_dir: {place!r} is invalid: --store names another place for the results")
        found = _BUCKET.fullmatch(place)
        if found is None:
            raise BadOption(f"--oss_save_dir: {place!r} is invalid: expected oss://bucket/prefix")
        if not region:
            raise BadOption("--region: '' is invalid: --oss_save_dir needs the region of its bucket, such as hangzhou")
        try:
            return cls(found["bucket"], (found["prefix"] or "").strip("/"), region_name(region))
        except ValueError as error:
            raise BadOption(f"--region: {region!r} is invalid: {error}") from None

    @property
    def location(self) -> str:
        """Return the location in the bucket."""
        return f"oss://{self.name}/{self.prefix}".rstrip("/")

    def settings(self, mount: str | None) -> dict[str, str]:
        """Return settings of a store in a folder at which the bucket is mounted, or of the bucket itself."""
        if mount is None:
            return {_OSS_REGION: self.region}
        url = f"https://{self.name}.oss-{self.region}.aliyuncs.com/{self.prefix}".rstrip("/")
        return {f"{_PREFIX}STORE_URL": url, f"{_PREFIX}STORE_LOCATION": self.location}


def _takes_mount(results: Path, bucket: _Bucket | None, environment: Mapping[str, str]) -> bool:
    """Return True if results go to the mounted folder: it exists, and the operator has said nothing else."""
    return results.is_dir() and (bucket is not None or not environment.get(_STORE))


def _settings(chosen: argparse.Namespace, environment: Mapping[str, str], bucket: _Bucket | None) -> dict[str, str]:
    settings = {}
    if chosen.use_blade and not environment.get(f"{_PREFIX}OPTIMIZE"):
        settings[f"{_PREFIX}OPTIMIZE"] = "openvino"
    if chosen.use_translate or bucket is not None:
        settings[f"{_PREFIX}USE_TRANSLATE"] = str(chosen.use_translate).lower()
    if chosen.close_safety:
        settings[f"{_PREFIX}CLOSE_SAFETY"] = "true"
    if chosen.func_name == "controlnet" and not environment.get(_SERVICES):
        settings[_SERVICES] = "*=ensemble_controlnet"  # of requests that do not say that they have a control image
    return settings


def _model_dir(
    chosen: argparse.Namespace, environment: Mapping[str, str], mounts: Mounts, bucket: _Bucket | None
) -> str | None:
    if chosen.model_dir is not None:
        return str(chosen.model_dir)
    if chosen.local_debug:
        return None
    is_mounted = mounts.model.is_dir() and has_base_model(mounts.model)
    if is_mounted and (bucket is not None or not environment.get(_MODEL_DIR)):
        return str(mounts.model)
    if bucket is not None and not environment.get(_MODEL_DIR):
        raise BadOption(f"--model_dir: '' is invalid: name a model directory; {mounts.model} has no base_model/")
    return None
